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

static void check(const shape *s, mx_precision precision, bool gradient, double tolerance) {
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
    kit_sync(b);
    kit_near_floats("nll", nll, h.nll, s->rows, 1e-5);
    if (gradient) {
        kit_near_tensor("g", g, h.g, s->rows * s->width, tolerance);
    }
    b->ops->head_logits(b, logits, h.w, h.x);
    kit_sync(b);
    kit_near_floats("logits", z, logits, s->rows * s->vocab, 1e-6);
    b->weight_close(b, (mx_weight *)(uintptr_t)h.w);
    b->close(b);
}

Test(head, cross_entropy_and_its_gradient_agree_with_the_definition) {
    static const shape shapes[] = { { 1, 5, 8 }, { 17, 33, 12 }, { 40, 100, 16 }, { 300, 70, 8 }, { 65, 3000, 24 }, { 4, 1, 3 },
                                    { 3, 4097, 7 }, { 2, 9001, 40 } };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            check(&shapes[i], p, true, p == MX_PRECISION_BF16 ? 1e-2 : 1e-5);
            check(&shapes[i], p, false, 0);
        }
    }
}

/* A vocabulary so wide that 66 rows take two chunks on every device. Where a product sums in f32 from its first factor to its
 * last, 262,200 of them cost some 2^-24 sqrt(262,200) of what is summed: 3e-5. */
Test(head, chunks_join_without_a_seam) {
    check(&(shape){ 66, 262200, 2 }, MX_PRECISION_F32, true, 1e-4);
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
    int32_t *target = kit_copy(b, (int32_t[]){ 1, 1 }, 2 * sizeof *target);
    mx_head h = { .w = kit_weight(b, w, 3, 1), .vocab = 3, .rows = 2, .target = target, .x = kit_tensor(b, x, 2, 1),
                  .nll = kit_floats(b, NULL, 2), .g = kit_tensor(b, NULL, 2, 1) };

    kit_scratch(b, b->ops->head_scratch_bytes(b, &h));
    b->ops->head_loss(b, &h);
    kit_sync(b);
    cr_assert_float_eq((double)h.nll[0], 2000, 1e-3); /* far below the likeliest: z_max - z_target */
    cr_assert_float_eq((double)h.nll[1], 0, 1e-6);
    cr_assert_float_eq(kit_at(&h.g, 0), 2000, 1e-3);
    cr_assert_float_eq(kit_at(&h.g, 1), 0, 1e-6);
    b->close(b);
}

Test(head, a_nan_in_a_row_reaches_its_nll) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    double w[] = { 1, 2, 3 }, x[] = { NAN, 1 };
    int32_t *target = kit_copy(b, (int32_t[]){ 1, 1 }, 2 * sizeof *target);
    mx_head h = { .w = kit_weight(b, w, 3, 1), .vocab = 3, .rows = 2, .target = target, .x = kit_tensor(b, x, 2, 1),
                  .nll = kit_floats(b, NULL, 2), .g = kit_tensor(b, NULL, 2, 1) };

    kit_scratch(b, b->ops->head_scratch_bytes(b, &h));
    b->ops->head_loss(b, &h);
    kit_sync(b);
    cr_assert(isnan(h.nll[0]) && isfinite(h.nll[1]));
    b->close(b);
}

/* ------------------------------------------------------------------ objectives */

Test(head, language_model_is_the_mean_over_the_steps_tokens) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    mx_numbers *numbers = kit_copy(b, &(mx_numbers){ .loss = 0.25, .nll = 1 }, sizeof *numbers);
    mx_objective o = { .nll = kit_floats(b, (double[]){ 1, 2, 3.5 }, 3), .rows = 3, .step_tokens = 10, .scale = kit_floats(b, NULL, 3),
                       .numbers = numbers };

    b->ops->objective(b, &o);
    kit_sync(b);
    cr_assert_float_eq(numbers->loss, 0.25 + 0.65, 1e-12); /* adds to what earlier micro-batches left */
    cr_assert_float_eq(numbers->nll, 7.5, 1e-12);
    for (int i = 0; i < 3; i++) {
        cr_assert_float_eq((double)o.scale[i], 0.1, 1e-8);
    }
    b->close(b);
}

/* More rows than a block has threads. */
Test(head, language_model_adds_up_many_rows) {
    enum { MANY = 3001 };
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    mx_numbers *numbers = kit_memory(b, sizeof *numbers);
    double *nll = kit_array(MANY);

    for (int n = 0; n < MANY; n++) {
        nll[n] = n % 16;
    }
    mx_objective o = { .nll = kit_floats(b, nll, MANY), .rows = MANY, .step_tokens = 8000, .scale = kit_floats(b, NULL, MANY), .numbers = numbers };

    b->ops->objective(b, &o);
    kit_sync(b);
    cr_assert_float_eq(numbers->nll, MANY / 16 * 120.0 + 36, 1e-9);
    for (int n = 0; n < MANY; n++) {
        cr_assert_eq(o.scale[n], 1.0f / 8000);
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

/* The objective over the first `questions` of SPANS, as the device can read it. */
static mx_objective choice_of(mx_backend *b, const float *nll, int64_t questions) {
    return (mx_objective){ .choice = true, .nll = kit_copy(b, nll, sizeof *nll * CHOICE_ROWS), .rows = CHOICE_ROWS,
                           .span = kit_copy(b, SPANS, sizeof SPANS), .spans = 5, .gold = kit_copy(b, GOLD, sizeof GOLD),
                           .first_span = kit_copy(b, FIRST, sizeof FIRST), .questions = questions, .step_tokens = 10,
                           .step_questions = questions > 1 ? 7 : 1, .scale = kit_floats(b, NULL, CHOICE_ROWS),
                           .numbers = kit_memory(b, sizeof(mx_numbers)) };
}

Test(head, choice_is_the_cross_entropy_over_a_questions_choices) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    float nll[CHOICE_ROWS];
    double sum = 0;
    mx_rng r;

    mx_rng_init(&r, 3, "choice");
    for (int i = 0; i < CHOICE_ROWS; i++) {
        nll[i] = (float)(4 * mx_rng_uniform(&r));
        sum += i == 6 ? 0 : (double)nll[i];
    }
    mx_objective o = choice_of(b, nll, 2);

    o.scale[6] = NAN; /* written though no span names it */
    b->ops->objective(b, &o);
    kit_sync(b);
    cr_assert_float_eq(o.numbers->loss, choice_loss(nll), 1e-9);
    cr_assert_float_eq(o.numbers->nll, sum, 1e-9);
    for (int i = 0; i < CHOICE_ROWS; i++) {
        float old = nll[i];
        volatile float above = old + 0.001f, below = old - 0.001f;
        double slope;

        nll[i] = above;
        slope = choice_loss(nll);
        nll[i] = below;
        slope = (slope - choice_loss(nll)) / ((double)above - (double)below);
        nll[i] = old;
        cr_assert_float_eq((double)o.scale[i], slope, 1e-7, "row %d: %g, differences say %g", i, (double)o.scale[i], slope);
    }
    b->close(b);
}

/* Equal choices: every question costs ln 2, and its rows pull by a half, apart over the span. */
Test(head, choice_takes_more_questions_and_longer_spans_than_there_are_warps_and_lanes) {
    enum { QUESTIONS = 70, LONG = 45, MANY = QUESTIONS * (LONG + 1) };
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    mx_span *span = kit_memory(b, sizeof *span * 2 * QUESTIONS);
    int32_t *gold = kit_memory(b, sizeof *gold * QUESTIONS), *first = kit_memory(b, sizeof *first * (QUESTIONS + 1));
    double *ones = kit_array(MANY);

    for (int q = 0; q < QUESTIONS; q++) {
        span[2 * q] = (mx_span){ q * (LONG + 1), LONG, q, 0 };
        span[2 * q + 1] = (mx_span){ q * (LONG + 1) + LONG, 1, q, 1 };
        first[q + 1] = 2 * q + 2;
        gold[q] = q % 2;
    }
    for (int n = 0; n < MANY; n++) {
        ones[n] = 1;
    }
    mx_objective o = { .choice = true, .nll = kit_floats(b, ones, MANY), .rows = MANY, .span = span, .spans = 2 * QUESTIONS, .gold = gold,
                       .first_span = first, .questions = QUESTIONS, .step_questions = 2 * QUESTIONS, .scale = kit_floats(b, NULL, MANY),
                       .numbers = kit_memory(b, sizeof(mx_numbers)) };

    b->ops->objective(b, &o);
    kit_sync(b);
    cr_assert_float_eq(o.numbers->loss, log(2) / 2, 1e-12);
    cr_assert_float_eq(o.numbers->nll, MANY, 1e-9);
    for (int n = 0; n < MANY; n++) {
        bool is_long = n % (LONG + 1) < LONG, right = gold[n / (LONG + 1)] == (is_long ? 0 : 1);

        cr_assert_float_eq((double)o.scale[n], (right ? 0.5 : -0.5) / (is_long ? LONG : 1) / (2 * QUESTIONS), 1e-9);
    }
    b->close(b);
}

Test(head, choice_survives_likelihoods_far_apart_and_tells_of_a_nan) {
    mx_backend *b = kit_open(MX_PRECISION_F32, 1, false);
    float nll[CHOICE_ROWS] = { 5000, 5000, 1, 1, 1, 9000 };
    mx_objective o = choice_of(b, nll, 1), broken;

    b->ops->objective(b, &o);
    kit_sync(b);
    cr_assert_float_eq(o.numbers->loss, 0, 1e-12);
    nll[0] = NAN;
    broken = choice_of(b, nll, 1);
    b->ops->objective(b, &broken);
    kit_sync(b);
    cr_assert(isnan(broken.numbers->loss));
    b->close(b);
}
