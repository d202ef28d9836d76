/* parity.c - whole ops, the CUDA backend against the CPU backend, over drawn shapes in both precisions (cases.h); and what an op
 * must not do: differ from one run to the next, wait for the device, allocate.
 *
 * Distances are of each output's largest value. With MIXRUN_PARITY_PRINT=1 the largest of each op is printed.
 * MIXRUN_PARITY_SEEDS: how many problems of each op (12). */
#include "tests/cuda/cases.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mx_backend *open_backend(const char *device, mx_precision precision) {
    mx_backend_options o = { .device = device, .precision = precision };
    mx_backend *b = NULL;
    mx_status st = { 0 };

    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    return b;
}

static int seeds_wanted(void) {
    const char *text = getenv("MIXRUN_PARITY_SEEDS");

    return text ? atoi(text) : 12;
}

static void check(const op_case *c, mx_precision precision) {
    mx_backend *cpu = open_backend("cpu", precision), *cuda = open_backend("cuda", precision);
    double allowed = precision == MX_PRECISION_BF16 ? c->bf16 : c->f32, worst = 0;
    const char *name = precision == MX_PRECISION_BF16 ? "bf16" : "f32", *which;
    char of_worst[sizeof ((case_output *)0)->name] = "nothing";

    for (int seed = 1; seed <= seeds_wanted(); seed++) {
        case_run expected, got, again;
        double far;

        case_run_on(c, cpu, (uint64_t)seed, false, &expected);
        case_run_on(c, cuda, (uint64_t)seed, false, &got);
        case_run_on(c, cuda, (uint64_t)seed, false, &again);
        far = case_far(&expected, &got, &which);
        if (far > worst) {
            snprintf(of_worst, sizeof of_worst, "%s", which);
            worst = far;
        }
        cr_expect(far <= allowed, "%s %s: %s is off by %.3g of the largest, allowed %.3g", name, got.shape, which, far, allowed);
        cr_expect_null(case_other_bytes(&got, &again), "%s %s: not the same bytes twice", name, got.shape);
        cr_expect_eq(got.waits, 0, "%s %s: waits %lu times", name, got.shape, (unsigned long)got.waits);
        cr_expect_eq(got.allocations, 0, "%s %s: allocates %lu times", name, got.shape, (unsigned long)got.allocations);
        case_free(&expected);
        case_free(&got);
        case_free(&again);
    }
    if (getenv("MIXRUN_PARITY_PRINT")) {
        fprintf(stderr, "%-10s %-4s largest distance %.2e (%s), allowed %.1e\n", c->name, name, worst, of_worst, allowed);
    }
    cuda->close(cuda);
    cpu->close(cpu);
}

static void check_named(const char *name) {
    for (const op_case *c = OP_CASES; c->name; c++) {
        if (strcmp(c->name, name) == 0) {
            check(c, MX_PRECISION_F32);
            check(c, MX_PRECISION_BF16);
            return;
        }
    }
    cr_assert_fail("no case is named %s", name);
}

#define PARITY(op)         \
    Test(parity, op) {     \
        check_named(#op);  \
    }
PARITY(embed)
PARITY(rmsnorm)
PARITY(rope)
PARITY(linears)
PARITY(attention)
PARITY(elements)
PARITY(router)
PARITY(experts)
PARITY(gather)
PARITY(head)
PARITY(objective)
PARITY(adamw)
PARITY(dora)

/* A linear whose W is zero and whose one term is the identity twice: y is the mask itself. */
static void mask_of(mx_backend *b, float rate, case_run *r) {
    enum { WIDTH = 64 };
    int64_t out = WIDTH;
    mx_weight_room room = { WIDTH, WIDTH };
    mx_rows rows;
    mx_weight *w;

    case_begin(r, b, "mask", 1, false);
    rows = case_rows(r, 200);

    float *zero = case_host(r, sizeof *zero * WIDTH * WIDTH), *one = case_host(r, sizeof *one * WIDTH * WIDTH);
    float *x = case_host(r, sizeof *x * (size_t)(rows.rows * WIDTH));
    mx_weight_source from = { .type = MX_FILE_F32, .bytes = zero, .out = WIDTH, .in = WIDTH };
    mx_status st = { 0 };

    for (int i = 0; i < WIDTH; i++) {
        one[i * WIDTH + i] = 1;
    }
    for (int64_t i = 0; i < rows.rows * WIDTH; i++) {
        x[i] = 1;
    }
    cr_assert_eq(b->weights_open(b, &from, 1, room, MX_USE_LINEAR, &w, &st), MX_OK, "%s", st.text);

    mx_low_rank term = { .a = case_floats(r, one, WIDTH * WIDTH), .b = case_floats(r, one, WIDTH * WIDTH), .rank = WIDTH, .scale = 1, .end = -1 };
    mx_linear linear = { .w = w, .out = out, .term = &term, .terms = 1, .y = case_act(r, NULL, rows.rows, WIDTH, 0) };
    mx_linears l = { .rows = &rows, .x = case_act(r, x, rows.rows, WIDTH, rows.live), .in = WIDTH,
                     .dropout = { .seed = 99, .step = 1234567, .site = 77, .rate = rate }, .linear = &linear, .linears = 1,
                     .training = true };

    l.saved = case_memory(r, MX_MEMORY_SAVED, NULL, b->ops->linears_saved_bytes(b, &l));
    case_scratch(r, b->ops->linears_scratch_bytes(b, &l));
    b->ops->linears_forward(b, &l);
    case_out_act(r, "y", linear.y, rows.live);
    case_end(r);
    b->weight_close(b, w);
}

Test(parity, dropout_masks_bit_for_bit) {
    static const float RATES[] = { 0.5f, 0.05f, 0.9f };

    for (int p = 0; p < 2; p++) {
        mx_precision precision = p ? MX_PRECISION_BF16 : MX_PRECISION_F32;
        mx_backend *cpu = open_backend("cpu", precision), *cuda = open_backend("cuda", precision);

        for (int i = 0; i < 3; i++) {
            case_run expected, got;
            int64_t dropped = 0;

            mask_of(cpu, RATES[i], &expected);
            mask_of(cuda, RATES[i], &got);
            for (int64_t j = 0; j < got.output[0].count; j++) {
                bool kept = case_value(&expected.output[0], j) != 0;

                cr_assert_eq(case_value(&got.output[0], j) != 0, kept, "rate %g, element %ld", (double)RATES[i], (long)j);
                dropped += !kept;
            }
            cr_assert_float_eq((double)dropped / (double)got.output[0].count, (double)RATES[i], 0.03);
            case_free(&expected);
            case_free(&got);
        }
        cuda->close(cuda);
        cpu->close(cpu);
    }
}
