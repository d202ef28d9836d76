/* The engine as a whole: memory as planned, passes that agree with each other, and what is said when numbers break. */
#include "model/trial.h"
#include "tests/support/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    mx_arena arena;
    mx_backend *b;
    mx_trial_base base;
    mx_status st;
} bench;

#define MUST(call) cr_assert_eq((call), MX_OK, "%s: %s", #call, s->st.text)

static void open_bench(bench *s, mx_precision precision, bool biases, bool tied) {
    mx_backend_options o = { .device = KIT_DEVICE, .threads = 1, .precision = precision };
    mx_trial_shape shape = MX_TRIAL_SHAPE;

    memset(s, 0, sizeof *s);
    mx_arena_init(&s->arena, (size_t)1 << 30);
    shape.biases = biases;
    shape.tied = tied;
    MUST(mx_backend_open(&o, &s->b, &s->st));
    MUST(mx_trial_base_open(&shape, 3, &s->arena, &s->base, &s->st));
}

static void close_bench(bench *s) {
    mx_trial_base_close(&s->base);
    s->b->close(s->b);
    mx_arena_finish(&s->arena);
}

static mx_trial open_trial(bench *s, const char *method, bool training) {
    const mx_method *m = mx_method_find(method);
    mx_trial t;

    MUST(mx_trial_open(s->b, &s->base, m, mx_method_defaults(m, &s->arena), training, &s->arena, &t, &s->st));
    mx_trial_shake(&t, 11);
    return t;
}

static const mx_trial_questions QUESTIONS = { .questions = 3, .choices = 3, .seed = 5, .tasks = 2 };

static float *floats(bench *s, int64_t n) {
    return MX_TAKE(&s->arena, float, n + 1);
}

/* ------------------------------------------------------------------ memory */

Test(model, uses_the_memory_it_planned) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        for (int i = 0; i < 8; i++) {
            mx_model_limits limits = { .rows = 200, .loss_rows = 90, .segments = 9, .spans = 9, .questions = 4, .tasks = 2,
                                       .training = i & 1, .label_logits = i & 2 };
            size_t planned[MX_MEMORY_PURPOSES], own[MX_MEMORY_PURPOSES]; /* own: what the backend holds for itself */
            bench bench_memory, *s = &bench_memory;
            const mx_layout *l;
            mx_model *model;

            open_bench(s, i & 4 ? MX_PRECISION_BF16 : MX_PRECISION_F32, true, i & 1);
            l = mx_layout_make(*m, mx_method_defaults(*m, &s->arena), mx_base_file_shape(s->base.file), &s->arena);
            mx_model_bytes(s->b, s->base.file, l, &limits, planned);
            for (int p = 0; p < MX_MEMORY_PURPOSES; p++) {
                own[p] = s->b->used_bytes(s->b, (mx_memory)p);
            }
            MUST(mx_model_open(s->b, s->base.file, l, &limits, &model, &s->st));
            for (int p = 0; p < MX_MEMORY_PURPOSES; p++) {
                double used = (double)(s->b->used_bytes(s->b, (mx_memory)p) - own[p]);

                cr_expect_leq(fabs((double)planned[p] - used), 0.05 * used, "%s, %d: purpose %d planned %zu, used %.0f",
                              (*m)->name, i, p, planned[p], used);
            }
            mx_model_close(model);
            for (int p = 0; p < MX_MEMORY_PURPOSES; p++) {
                cr_expect_eq(s->b->used_bytes(s->b, (mx_memory)p), own[p], "purpose %d is not given back", p);
            }
            close_bench(s);
        }
    }
}

/* A backend may make room on first use (oneDNN's primitives); after two steps nothing may come. */
Test(model, allocates_nothing_after_the_second_step) {
    bench bench_memory, *s = &bench_memory;
    mx_pass pass = { .training = true };
    size_t before[MX_MEMORY_PURPOSES];
    mx_batch batch;
    mx_numbers n;
    mx_trial t;

    open_bench(s, MX_PRECISION_F32, false, false);
    t = open_trial(s, "mixdora", true);
    batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    for (int step = 0; step < 3; step++) {
        for (int p = 0; p < MX_MEMORY_PURPOSES; p++) {
            before[p] = s->b->used_bytes(s->b, (mx_memory)p);
        }
        MUST(mx_trial_step(&t, &batch, 1, &pass, &n, floats(s, t.layout->size[MX_KIND_TRAINED]), &s->st));
    }
    for (int p = 0; p < MX_MEMORY_PURPOSES; p++) {
        cr_expect_eq(s->b->used_bytes(s->b, (mx_memory)p), before[p], "purpose %d", p);
    }
    mx_trial_close(&t);
    close_bench(s);
}

/* ------------------------------------------------------------------ passes */

Test(model, scores_the_same_with_and_without_room_for_training) {
    for (int p = MX_PRECISION_F32; p <= MX_PRECISION_BF16; p++) {
        for (const mx_method *const *m = mx_methods; *m; m++) {
            bench bench_memory, *s = &bench_memory;
            float *nll[2], *logits[2];
            int64_t rows = 0;

            open_bench(s, (mx_precision)p, true, false);
            for (int training = 0; training < 2; training++) {
                mx_trial t = open_trial(s, (*m)->name, training);
                mx_batch batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
                const int32_t labels[] = { 3, 60, 0 };

                rows = batch.loss_rows;
                nll[training] = floats(s, rows);
                logits[training] = floats(s, 3 * rows);
                MUST(mx_trial_scores(&t, &batch, nll[training], &s->st));
                MUST(mx_model_label_logits(t.model, labels, 3, logits[training], &s->st));
                mx_trial_close(&t);
            }
            cr_expect_arr_eq(nll[0], nll[1], (size_t)rows * sizeof(float), "%s", (*m)->name);
            cr_expect_arr_eq(logits[0], logits[1], (size_t)rows * 3 * sizeof(float), "%s", (*m)->name);
            close_bench(s);
        }
    }
}

Test(model, label_logits_are_those_whose_softmax_the_scores_are) {
    bench bench_memory, *s = &bench_memory;
    int64_t vocab;
    mx_batch batch;
    float *nll, *all;
    mx_trial t;

    open_bench(s, MX_PRECISION_F32, false, true);
    t = open_trial(s, "lora", false);
    vocab = mx_model_shape(t.model)->vocab;
    batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    nll = floats(s, batch.loss_rows);
    all = floats(s, batch.loss_rows * vocab);
    MUST(mx_trial_scores(&t, &batch, nll, &s->st));
    MUST(mx_model_label_logits(t.model, NULL, 0, all, &s->st));
    for (int64_t i = 0; i < batch.loss_rows; i++) {
        double sum = 0;

        for (int64_t v = 0; v < vocab; v++) {
            sum += exp((double)all[i * vocab + v]);
        }
        cr_expect_float_eq(nll[i], log(sum) - all[i * vocab + batch.loss_target[i]], 1e-5);
    }
    mx_trial_close(&t);
    close_bench(s);
}

/* Rows past `live` may hold anything valid: no score, loss, gradient or count feels them. */
Test(model, rows_of_padding_reach_nothing) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        bench bench_memory, *s = &bench_memory;
        mx_pass pass = { .training = true, .seed = 3 };
        float *gradient[2], *nll[2];
        mx_router_load load[2];
        mx_batch batch;
        mx_numbers n[2];
        int64_t size;
        mx_trial t;

        open_bench(s, MX_PRECISION_F32, true, false);
        t = open_trial(s, (*m)->name, true);
        size = t.layout->size[MX_KIND_TRAINED];
        batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
        for (int padded = 0; padded < 2; padded++) {
            gradient[padded] = floats(s, size);
            nll[padded] = floats(s, batch.loss_rows);
            batch.rows = padded ? (batch.live + 63) / 64 * 64 : batch.live; /* the maker's arrays are longer, zeroed */
            MUST(mx_trial_scores(&t, &batch, nll[padded], &s->st));
            MUST(mx_trial_step(&t, &batch, 1, &pass, &n[padded], gradient[padded], &s->st));
            mx_model_init_load(t.model, &load[padded]);
            MUST(mx_model_read_load(t.model, &load[padded], &s->st));
        }
        cr_assert_neq(batch.rows, batch.live);
        cr_expect_leq(mx_trial_difference(nll[1], nll[0], batch.loss_rows), 1e-6, "%s", (*m)->name);
        cr_expect_float_eq(n[0].loss, n[1].loss, 1e-6, "%s", (*m)->name);
        cr_expect_float_eq(n[0].balance, n[1].balance, 1e-6, "%s", (*m)->name);
        cr_expect_leq(mx_trial_difference(gradient[1], gradient[0], size), 1e-5, "%s: %g", (*m)->name,
                      mx_trial_difference(gradient[1], gradient[0], size));
        for (int64_t i = 0; i < load[0].layers * load[0].tasks; i++) {
            if (load[0].experts) {
                cr_expect_eq(load[0].rows[i], load[1].rows[i], "%s", (*m)->name);
            }
        }
        mx_router_load_finish(&load[0]);
        mx_router_load_finish(&load[1]);
        mx_trial_close(&t);
        close_bench(s);
    }
}

/* Forty bytes that must be equal: values after three steps with dropout, twice. */
Test(model, the_same_seed_gives_the_same_bytes_twice) {
    for (int p = MX_PRECISION_F32; p <= MX_PRECISION_BF16; p++) {
        for (const mx_method *const *m = mx_methods; *m; m++) {
            bench bench_memory, *s = &bench_memory;
            float *value[2];
            int64_t size = 0;

            open_bench(s, (mx_precision)p, false, false);
            for (int again = 0; again < 2; again++) {
                mx_trial t = open_trial(s, (*m)->name, true);
                mx_batch batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
                mx_adapter *list[] = { &t.trainee->adapter };
                mx_numbers n;

                t.trainee->schedule = (mx_schedule){ .peak = 1e-2, .steps = 3 };
                for (int step = 0; step < 3; step++) {
                    mx_pass pass = { .training = true, .seed = 9, .step = (uint64_t)step, .choice = true };

                    mx_trainee_begin(t.trainee);
                    mx_model_forward(t.model, list, 1, &batch, &pass);
                    mx_model_losses(t.model, t.trainee->numbers);
                    mx_model_backward(t.model);
                    mx_trainee_end(t.trainee);
                    MUST(mx_trainee_numbers(t.trainee, &n, &s->st));
                }
                size = t.layout->size[MX_KIND_TRAINED];
                value[again] = floats(s, size);
                mx_trainee_read_values(t.trainee, value[again]);
                mx_trial_close(&t);
            }
            cr_expect_arr_eq(value[0], value[1], (size_t)size * sizeof(float) + 0, "%s", (*m)->name);
            close_bench(s);
        }
    }
}

/* The gradient of the embedding rows, and that asking for it changes no other. */
Test(model, input_gradients_come_on_request) {
    bench bench_memory, *s = &bench_memory;
    mx_pass pass = { .training = true };
    mx_batch batch;
    mx_numbers n;
    float *one, *two, *input;
    double norm = 0;
    mx_trial t;

    open_bench(s, MX_PRECISION_F32, false, false);
    t = open_trial(s, "lora", true);
    batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    one = floats(s, t.layout->size[MX_KIND_TRAINED]);
    two = floats(s, t.layout->size[MX_KIND_TRAINED]);
    input = floats(s, batch.rows * 32);
    MUST(mx_trial_step(&t, &batch, 1, &pass, &n, one, &s->st));
    pass.input_gradient = true;
    MUST(mx_trial_step(&t, &batch, 1, &pass, &n, two, &s->st));
    mx_model_read_input_gradient(t.model, input);
    for (int64_t i = 0; i < batch.rows * 32; i++) {
        norm += (double)input[i] * input[i];
    }
    cr_expect_gt(norm, 1e-6);
    cr_expect(isfinite(norm));
    cr_expect_arr_eq(one, two, (size_t)t.layout->size[MX_KIND_TRAINED] * sizeof(float));
    mx_trial_close(&t);
    close_bench(s);
}

/* ------------------------------------------------------------------ divergence */

Test(model, a_step_that_is_not_finite_changes_nothing_and_says_where) {
    bench bench_memory, *s = &bench_memory;
    mx_pass pass = { .training = true };
    mx_adapter *list[1];
    const mx_declaration *d;
    float *before, *after;
    mx_batch batch;
    mx_numbers n;
    int64_t size;
    mx_trial t;

    open_bench(s, MX_PRECISION_F32, false, false);
    t = open_trial(s, "mixlora", true);
    size = t.layout->size[MX_KIND_TRAINED];
    batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    before = floats(s, size);
    after = floats(s, size);
    list[0] = &t.trainee->adapter;
    mx_trainee_read_values(t.trainee, before);
    d = mx_layout_find(t.layout, MX_SCOPE_SITE, 1, MX_SITE_UP, 1); /* layer 1's up B: a huge value, so h overflows */
    for (int64_t i = 0; i < d->count; i++) {
        before[d->offset + i] = 3e38f;
    }
    mx_trainee_write_values(t.trainee, before);
    t.trainee->schedule = (mx_schedule){ .peak = 1e-2, .steps = 3 };
    mx_trainee_begin(t.trainee);
    mx_model_forward(t.model, list, 1, &batch, &pass);
    mx_model_losses(t.model, t.trainee->numbers);
    mx_model_backward(t.model);
    mx_trainee_end(t.trainee);
    cr_expect_eq(mx_trainee_numbers(t.trainee, &n, &s->st), MX_E_DIVERGED);
    cr_expect_eq(n.skipped, 1);
    cr_expect_not_null(strstr(s->st.text, "step 1"), "%s", s->st.text);
    cr_expect_not_null(strstr(s->st.text, "layer 1"), "%s", s->st.text);
    cr_expect_not_null(strstr(s->st.hint, "learning_rate"), "%s", s->st.hint);
    mx_trainee_read_values(t.trainee, after);
    cr_expect_arr_eq(before, after, (size_t)size * sizeof(float), "the optimizer must skip");
    mx_trial_close(&t);
    close_bench(s);
}
