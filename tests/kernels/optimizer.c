/* optimizer.c - AdamW against its definition in double, step after step. */
#include "tests/kernels/kit.h"

enum { N = 40000, STEPS = 5 };

typedef struct state {
    double *p, *m, *v, *g;
} state;

static const mx_adamw_group GROUPS[] = { { 0, 100, 1, 0.1 }, { 100, 33000, 16, 0 }, { 33100, N - 33100 - 5, 0.5, 0.01 } };

static void reference_step(state *s, int step, double lr, double max_norm) {
    double norm = 0, b1 = 0.9, b2 = 0.999;

    for (int i = 0; i < N; i++) {
        norm += s->g[i] * s->g[i];
    }
    norm = sqrt(norm);
    for (size_t k = 0; k < sizeof GROUPS / sizeof GROUPS[0]; k++) {
        double rate = lr * GROUPS[k].lr_ratio;

        for (int64_t i = GROUPS[k].begin; i < GROUPS[k].begin + GROUPS[k].count; i++) {
            double g = s->g[i] * (max_norm > 0 && norm > max_norm ? max_norm / norm : 1);

            s->m[i] = b1 * s->m[i] + (1 - b1) * g;
            s->v[i] = b2 * s->v[i] + (1 - b2) * g * g;
            s->p[i] *= 1 - rate * GROUPS[k].weight_decay;
            s->p[i] -= rate * (s->m[i] / (1 - pow(b1, step))) / (sqrt(s->v[i] / (1 - pow(b2, step))) + 1e-8);
        }
    }
}

static void check(double max_norm, int threads) {
    mx_backend *b = kit_open(MX_PRECISION_F32, threads, false);
    mx_rng r;

    mx_rng_init(&r, 5, "adamw");
    state s = { .p = kit_values(&r, N, 1), .m = kit_array(N), .v = kit_array(N), .g = kit_values(&r, N, 0.1) };
    mx_numbers *numbers = kit_memory(b, sizeof *numbers);
    mx_adamw a = { .p = kit_floats(b, s.p, N), .m = kit_floats(b, NULL, N), .v = kit_floats(b, NULL, N), .count = N,
                   .group = GROUPS, .groups = 3, .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_norm = max_norm,
                   .numbers = numbers };

    for (a.step = 1; a.step <= STEPS; a.step++) {
        double norm = 0;

        for (int i = 0; i < N; i++) {
            s.g[i] = kit_coarse(0.1 * (2 * mx_rng_uniform(&r) - 1));
            norm += s.g[i] * s.g[i];
        }
        float *g = kit_floats(b, s.g, N);

        a.g = g;
        b->ops->adamw(b, &a);
        kit_sync(b);
        reference_step(&s, (int)a.step, a.lr, max_norm);
        cr_assert_float_eq(numbers->grad_norm, sqrt(norm), 1e-9 * sqrt(norm));
        cr_assert_eq(numbers->skipped, 0);
        cr_assert_float_eq((double)g[7], s.g[7], 0); /* left as it is */
    }
    kit_near_floats("p", s.p, a.p, N, 5e-7); /* a handful of f32 roundings */
    kit_near_floats("m", s.m, a.m, N, 5e-7);
    kit_near_floats("v", s.v, a.v, N, 1e-6);
    b->close(b);
}

Test(optimizer, steps_agree_with_the_definition) {
    check(0, 2);
    check(1.5, 2);
    check(1e9, 1);
}

Test(optimizer, the_norm_does_not_depend_on_the_number_of_threads) {
    double norm[3];
    mx_rng r;

    mx_rng_init(&r, 5, "norm");
    double *g = kit_values(&r, N, 0.1);

    for (int threads = 1; threads <= 3; threads++) {
        mx_backend *b = kit_open(MX_PRECISION_F32, threads, false);
        mx_numbers *numbers = kit_memory(b, sizeof *numbers);
        mx_adamw a = { .g = kit_floats(b, g, N), .count = N, .step = 1, .beta1 = 0.9, .beta2 = 0.999, .numbers = numbers };

        b->ops->adamw(b, &a);
        kit_sync(b);
        norm[threads - 1] = numbers->grad_norm;
        b->close(b);
    }
    cr_assert_eq(memcmp(&norm[0], &norm[1], sizeof(double)), 0);
    cr_assert_eq(memcmp(&norm[0], &norm[2], sizeof(double)), 0);
}

/* A gradient or a loss that is not finite: nothing moves, and the step says so. */
Test(optimizer, what_is_not_finite_changes_nothing) {
    static const double bad_gradient[] = { NAN, INFINITY, 1, 1, 1 }, bad_loss[] = { 0, 0, NAN, INFINITY, 0 };
    static const double before[] = { 0, 0, 0, 0, 1 }; /* the last: a step behind one that was not finite */

    for (int i = 0; i < 5; i++) {
        mx_backend *b = kit_open(MX_PRECISION_F32, 2, false);
        mx_numbers *numbers = kit_memory(b, sizeof *numbers);
        mx_adamw_group group = { 0, N, 1, 0.1 };
        double *ones = kit_array(N);

        *numbers = (mx_numbers){ .loss = bad_loss[i], .skipped = before[i] };
        for (int k = 0; k < N; k++) {
            ones[k] = 1;
        }
        float *g = kit_floats(b, ones, N);
        mx_adamw a = { .p = kit_floats(b, ones, N), .m = kit_floats(b, ones, N), .v = kit_floats(b, ones, N), .g = g, .count = N,
                       .group = &group, .groups = 1, .step = 3, .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .max_norm = 1,
                       .numbers = numbers };

        g[N - 3] = (float)bad_gradient[i];
        b->ops->adamw(b, &a);
        kit_sync(b);
        cr_assert_eq(numbers->skipped, 1);
        kit_near_floats("p", ones, a.p, N, 0);
        kit_near_floats("m", ones, a.m, N, 0);
        kit_near_floats("v", ones, a.v, N, 0);
        b->close(b);
    }
}

/* More groups than go into one call of anything, of lengths and beginnings that nothing divides, on unaligned vectors. */
Test(optimizer, groups_of_any_length_and_beginning_each_get_their_rate) {
    enum { PARTS = 19, VALUES = 5000 };
    mx_backend *b = kit_open(MX_PRECISION_F32, 2, false);
    mx_numbers *numbers = kit_memory(b, sizeof *numbers);
    mx_adamw_group group[PARTS];
    double *ones = kit_array(VALUES + 1);
    int64_t begin = 3;

    for (int k = 0; k <= VALUES; k++) {
        ones[k] = 1;
    }
    for (int i = 0; i < PARTS; i++) { /* gaps between some, one empty */
        group[i] = (mx_adamw_group){ .begin = begin, .count = i == 7 ? 0 : i == 11 ? 4099 : 1 + 3 * i, .lr_ratio = i + 1 };
        begin += group[i].count + i % 3;
    }
    cr_assert(begin <= VALUES);
    float *p = kit_floats(b, ones, VALUES + 1) + 1, *m = kit_floats(b, NULL, VALUES + 1) + 1, *v = kit_floats(b, NULL, VALUES + 1) + 1;
    mx_adamw a = { .p = p, .m = m, .v = v, .g = kit_floats(b, ones, VALUES + 1) + 1, .count = VALUES, .group = group, .groups = PARTS, .step = 1,
                   .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .numbers = numbers };

    b->ops->adamw(b, &a);
    kit_sync(b);
    for (int64_t k = 0; k < VALUES; k++) { /* the first step is the rate itself, whatever the gradient */
        double ratio = 0;

        for (int i = 0; i < PARTS; i++) {
            ratio = k >= group[i].begin && k < group[i].begin + group[i].count ? group[i].lr_ratio : ratio;
        }
        cr_assert_float_eq((double)p[k], 1 - 0.001 * ratio, 2e-7, "value %ld: %.8g, rate %g", (long)k, (double)p[k], ratio);
        cr_assert_float_eq((double)m[k], ratio > 0 ? 0.1 : 0, 1e-8);
    }
    cr_assert_float_eq(numbers->grad_norm, sqrt(VALUES), 1e-9);
    b->close(b);
}
