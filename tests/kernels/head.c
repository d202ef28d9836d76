/* head.c - logits, their cross entropy in chunks, and the objectives, against definitions in double.
 *
 * Tolerances: nll 1e-5 in both precisions (its inputs are exact, its sums f32); g of the largest 1e-5 in f32, in bf16 the
 * differences softmax - onehot and g itself are rounded to 2^-8: 1e-2. */
#include "tests/kernels/kit.h"

typedef struct shape {
    int64_t rows, vocab, width;
} shape;

static double logit(const double *w, const double *x, int64_t n) {
    double sum = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += w[i] * x[i];
    }
    return sum;
}

/* nll of one row, and its derivative in x. */
static double reference_row(const double *w, const double *x, int64_t vocab, int64_t width, int64_t target, double *g) {
    double *z = kit_array(vocab), top = -INFINITY, sum = 0, nll;

    for (int64_t v = 0; v < vocab; v++) {
        z[v] = logit(w + v * width, x, width);
        top = z[v] > top ? z[v] : top;
    }
    for (int64_t v = 0; v < vocab; v++) {
        sum += exp(z[v] - top);
    }
    nll = top + log(sum) - z[target];
    for (int64_t i = 0; g && i < width; i++) {
        g[i] = -w[target * width + i];
        for (int64_t v = 0; v < vocab; v++) {
            g[i] += exp(z[v] - top) / sum * w[v * width + i];
        }
    }
    free(z);
    return nll;
}

static void check(const shape *s, mx_precision precision, bool gradient) {
    mx_backend *b = kit_open(precision, 2, false);
    mx_rng r;

    mx_rng_init(&r, (uint64_t)s->rows, "head");
    double *w = kit_values(&r, s->vocab * s->width, 1), *x = kit_values(&r, s->rows * s->width, 1);
    double *nll = kit_array(s->rows), *g = kit_array(s->rows * s->width), *z = kit_array(s->rows * s->vocab);
    int32_t *target = kit_memory(b, sizeof *target * (size_t)s->rows);
    mx_head h = { .w = kit_weight(b, w, s->vocab, s->width), .vocab = s->vocab, .rows = s->rows, .target = target,
                  .x = kit_tensor(b, x, s->rows, s->width), .nll = kit_floats(b, NULL, s->rows) };
    float *logits = kit_floats(b, NULL, s->rows * s->vocab);

    h.g = gradient ? kit_tensor(b, NULL, s->rows, s->width) : (mx_tensor){ 0 };
    for (int64_t n = 0; n < s->rows; n++) {
        target[n] = (int32_t)mx_rng_below(&r, (uint64_t)s->vocab);
        nll[n] = reference_row(w, x + n * s->width, s->vocab, s->width, target[n], g + n * s->width);
        for (int64_t v = 0; v < s->vocab; v++) {
            z[n * s->vocab + v] = logit(w + v * s->width, x + n * s->width, s->width);
        }
    }
    kit_scratch(b, b->ops->head_scratch_bytes(b, &h));
    b->ops->head_loss(b, &h);
    kit_near_floats("nll", nll, h.nll, s->rows, 1e-5);
    if (gradient) {
        kit_near_tensor("g", g, h.g, s->rows * s->width, precision == MX_PRECISION_BF16 ? 1e-2 : 1e-5);
    }
    b->ops->head_logits(b, logits, h.w, h.x);
    kit_near_floats("logits", z, logits, s->rows * s->vocab, 1e-6);
    kit_sync(b);
    b->weight_close(b, (mx_weight *)(uintptr_t)h.w);
    b->close(b);
}

Test(head, cross_entropy_and_its_gradient_agree_with_the_definition) {
    static const shape shapes[] = { { 1, 5, 8 }, { 17, 33, 12 }, { 40, 100, 16 }, { 300, 70, 8 }, { 65, 3000, 24 } };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            check(&shapes[i], p, true);
            check(&shapes[i], p, false);
        }
    }
}

/* A vocabulary so wide that 130 rows take three chunks. */
Test(head, chunks_join_without_a_seam) {
    check(&(shape){ 130, 140000, 2 }, MX_PRECISION_F32, true);
}

Test(head, the_references_gradient_is_that_of_differences) {
    enum { V = 9, C = 6 };
    mx_rng r;

    mx_rng_init(&r, 1, "differences");
    double *w = kit_values(&r, V * C, 1), *x = kit_values(&r, C, 1), g[C];

    reference_row(w, x, V, C, 4, g);
    for (int i = 0; i < C; i++) {
        double old = x[i], slope;

        x[i] = old + 1e-5;
        slope = reference_row(w, x, V, C, 4, NULL);
        x[i] = old - 1e-5;
        slope = (slope - reference_row(w, x, V, C, 4, NULL)) / 2e-5;
        x[i] = old;
        cr_assert_float_eq(slope, g[i], 1e-8);
    }
}

Test(head, logits_far_apart_neither_overflow_nor_lose_the_target) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    double w[] = { 1000, -1000, 0 }, x[] = { 1, -1 };
    int32_t target[] = { 1, 1 };
    mx_head h = { .w = kit_weight(b, w, 3, 1), .vocab = 3, .rows = 2, .target = target, .x = kit_tensor(b, x, 2, 1),
                  .nll = kit_floats(b, NULL, 2), .g = kit_tensor(b, NULL, 2, 1) };

    kit_scratch(b, b->ops->head_scratch_bytes(b, &h));
    b->ops->head_loss(b, &h);
    cr_assert_float_eq((double)h.nll[0], 2000, 1e-3); /* far below the likeliest: z_max - z_target */
    cr_assert_float_eq((double)h.nll[1], 0, 1e-6);
    cr_assert_float_eq(kit_at(&h.g, 0), 2000, 1e-3);
    cr_assert_float_eq(kit_at(&h.g, 1), 0, 1e-6);
    b->close(b);
}

Test(head, a_nan_in_a_row_reaches_its_nll) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    double w[] = { 1, 2, 3 }, x[] = { NAN, 1 };
    int32_t target[] = { 1, 1 };
    mx_head h = { .w = kit_weight(b, w, 3, 1), .vocab = 3, .rows = 2, .target = target, .x = kit_tensor(b, x, 2, 1),
                  .nll = kit_floats(b, NULL, 2), .g = kit_tensor(b, NULL, 2, 1) };

    kit_scratch(b, b->ops->head_scratch_bytes(b, &h));
    b->ops->head_loss(b, &h);
    cr_assert(isnan(h.nll[0]) && isfinite(h.nll[1]));
    b->close(b);
}

/* ------------------------------------------------------------------ objectives */

Test(head, language_model_is_the_mean_over_the_steps_tokens) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    float nll[] = { 1, 2, 3.5f }, scale[3];
    mx_numbers numbers = { .loss = 0.25, .nll = 1 };
    mx_objective o = { .nll = nll, .rows = 3, .step_tokens = 10, .scale = scale, .numbers = &numbers };

    b->ops->objective(b, &o);
    cr_assert_float_eq(numbers.loss, 0.25 + 0.65, 1e-12); /* adds to what earlier micro-batches left */
    cr_assert_float_eq(numbers.nll, 7.5, 1e-12);
    for (int i = 0; i < 3; i++) {
        cr_assert_float_eq((double)scale[i], 0.1, 1e-8);
    }
    b->close(b);
}

static const mx_span SPANS[] = { { 0, 2, 0, 0 }, { 2, 3, 0, 1 }, { 5, 1, 0, 2 }, { 7, 4, 1, 1 }, { 11, 1, 1, 0 } };
static const int32_t FIRST[] = { 0, 3, 5 }, GOLD[] = { 1, 0 };
enum { CHOICE_ROWS = 12 }; /* row 6 belongs to no span */

static double choice_loss(const float *nll) {
    double loss = 0;

    for (int q = 0; q < 2; q++) {
        double sum = 0, gold = 0;

        for (int s = FIRST[q]; s < FIRST[q + 1]; s++) {
            double l = 0;

            for (int n = SPANS[s].begin; n < SPANS[s].begin + SPANS[s].count; n++) {
                l -= (double)nll[n] / SPANS[s].count;
            }
            sum += exp(l);
            gold = SPANS[s].choice == GOLD[q] ? l : gold;
        }
        loss += (log(sum) - gold) / 7;
    }
    return loss;
}

Test(head, choice_is_the_cross_entropy_over_a_questions_choices) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    float nll[CHOICE_ROWS], scale[CHOICE_ROWS];
    mx_numbers numbers = { 0 };
    mx_objective o = { .choice = true, .nll = nll, .rows = CHOICE_ROWS, .span = SPANS, .spans = 5, .gold = GOLD, .first_span = FIRST,
                       .questions = 2, .step_tokens = 10, .step_questions = 7, .scale = scale, .numbers = &numbers };
    double sum = 0;
    mx_rng r;

    mx_rng_init(&r, 3, "choice");
    for (int i = 0; i < CHOICE_ROWS; i++) {
        nll[i] = (float)(4 * mx_rng_uniform(&r));
        sum += i == 6 ? 0 : (double)nll[i];
    }
    b->ops->objective(b, &o);
    cr_assert_float_eq(numbers.loss, choice_loss(nll), 1e-9);
    cr_assert_float_eq(numbers.nll, sum, 1e-9);
    for (int i = 0; i < CHOICE_ROWS; i++) {
        float old = nll[i];
        volatile float above = old + 0.001f, below = old - 0.001f;
        double slope;

        nll[i] = above;
        slope = choice_loss(nll);
        nll[i] = below;
        slope = (slope - choice_loss(nll)) / ((double)above - (double)below);
        nll[i] = old;
        cr_assert_float_eq((double)scale[i], slope, 1e-7, "row %d: %g, differences say %g", i, (double)scale[i], slope);
    }
    b->close(b);
}

Test(head, choice_survives_likelihoods_far_apart_and_tells_of_a_nan) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    float nll[CHOICE_ROWS] = { 5000, 5000, 1, 1, 1, 9000 }, scale[CHOICE_ROWS];
    mx_numbers numbers = { 0 };
    mx_objective o = { .choice = true, .nll = nll, .rows = CHOICE_ROWS, .span = SPANS, .spans = 5, .gold = GOLD, .first_span = FIRST,
                       .questions = 1, .step_questions = 1, .scale = scale, .numbers = &numbers };

    b->ops->objective(b, &o);
    cr_assert_float_eq(numbers.loss, 0, 1e-12);
    nll[0] = NAN;
    b->ops->objective(b, &o);
    cr_assert(isnan(numbers.loss));
    b->close(b);
}
