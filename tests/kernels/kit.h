/* kit.h - what the tests of ops share: a backend, numbers in double beside their tensors, and how far apart two are.
 *
 * Inputs are values that bf16 holds exactly, so one problem in double serves both precisions. Errors are told relative to
 * the largest value of the tensor: what rounding does to a sum depends on the size of its terms, not of the sum. */
#ifndef TESTS_KERNELS_KIT_H
#define TESTS_KERNELS_KIT_H

#include "base/rng.h"
#include "kernels/ops.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifndef KIT_DEVICE /* the same tests are built once more for "cuda" on the shim (tests/meson.build) */
#define KIT_DEVICE "cpu"
#endif
#define KIT_UNUSED __attribute__((unused))

KIT_UNUSED static const mx_precision KIT_PRECISIONS[] = { MX_PRECISION_F32, MX_PRECISION_BF16 };
#define KIT_EACH_PRECISION(p) for (int p##_ = 0; p##_ < 2 && ((p) = KIT_PRECISIONS[p##_], 1); p##_++)

KIT_UNUSED static mx_backend *kit_open(mx_precision precision, int threads, bool plain) {
    mx_backend_options o = { .device = KIT_DEVICE, .precision = precision, .threads = threads, .plain_gemm = plain,
                             .host_visible = true };
    mx_backend *b = NULL;
    mx_status st = { 0 };

    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    return b;
}

KIT_UNUSED static const char *kit_name(const mx_backend *b) {
    return b->precision == MX_PRECISION_BF16 ? "bf16" : "f32";
}

/* A test is a process that ends: what it allocates stays reachable until then, which is all a leak check asks. */
KIT_UNUSED static void *kit_hold(void *memory) {
    static void **held;
    static size_t count;

    held = realloc(held, sizeof *held * (count + 1));
    cr_assert(held && memory);
    held[count++] = memory;
    return memory;
}

KIT_UNUSED static void *kit_memory(mx_backend *b, size_t bytes) {
    void *p = NULL;
    mx_status st = { 0 };

    cr_assert_eq(b->alloc(b, MX_MEMORY_SAVED, bytes ? bytes : 1, &p, &st), MX_OK, "%s", st.text);
    return kit_hold(p);
}

/* The same bytes where the device can read them. */
KIT_UNUSED static void *kit_copy(mx_backend *b, const void *from, size_t bytes) {
    return memcpy(kit_memory(b, bytes), from, bytes);
}

KIT_UNUSED static void kit_sync(mx_backend *b) {
    mx_status st = { 0 };

    cr_assert_eq(b->sync(b, &st), MX_OK, "%s", st.text);
}

KIT_UNUSED static double *kit_array(int64_t n) {
    return kit_hold(calloc((size_t)(n > 0 ? n : 1), sizeof(double)));
}

/* What bf16 holds exactly: 8 bits of mantissa, the rest cut. */
KIT_UNUSED static double kit_coarse(double v) {
    float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    bits &= 0xffff0000u;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Uniform in (-size, size). */
KIT_UNUSED static double *kit_values(mx_rng *r, int64_t n, double size) {
    double *p = kit_array(n);

    for (int64_t i = 0; i < n; i++) {
        p[i] = kit_coarse(size * (2 * mx_rng_uniform(r) - 1));
    }
    return p;
}

KIT_UNUSED static float *kit_floats(mx_backend *b, const double *from, int64_t n) {
    float *p = kit_memory(b, sizeof *p * (size_t)n);

    for (int64_t i = 0; from && i < n; i++) {
        p[i] = (float)from[i];
    }
    return p;
}

KIT_UNUSED static float kit_bf16(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

/* An act tensor holding `from` (NULL: a NaN everywhere, so that what is read before it is written shows). */
KIT_UNUSED static mx_tensor kit_tensor(mx_backend *b, const double *from, int64_t rows, int64_t columns) {
    mx_dtype act = mx_activation_type(b);
    mx_tensor t = mx_tensor_2d(kit_memory(b, (size_t)(rows * columns) * mx_dtype_bytes(act)), act, rows, columns);

    for (int64_t i = 0; i < rows * columns; i++) {
        float f = from ? (float)from[i] : NAN;
        uint32_t bits;

        memcpy(&bits, &f, sizeof bits);
        if (act == MX_BF16) {
            ((uint16_t *)t.data)[i] = (uint16_t)(bits >> 16);
        } else {
            ((float *)t.data)[i] = f;
        }
    }
    return t;
}

KIT_UNUSED static double kit_at(const mx_tensor *t, int64_t i) {
    return t->dtype == MX_BF16 ? kit_bf16(((const uint16_t *)t->data)[i]) : ((const float *)t->data)[i];
}

KIT_UNUSED static mx_weight *kit_weight(mx_backend *b, const double *from, int64_t out, int64_t in) {
    float *values = malloc(sizeof *values * (size_t)(out * in));
    mx_weight *w = NULL;
    mx_status st = { 0 };

    cr_assert(values);
    for (int64_t i = 0; i < out * in; i++) {
        values[i] = (float)from[i];
    }
    mx_weight_source source = { .type = MX_FILE_F32, .bytes = values, .out = out, .in = in };

    cr_assert_eq(mx_weight_open(b, &source, MX_USE_LINEAR | MX_USE_EMBEDDING, &w, &st), MX_OK, "%s", st.text);
    free(values);
    return kit_hold(w);
}

/* Hands the op exactly the scratch it asked for, filled with NaNs. */
KIT_UNUSED static void kit_scratch(mx_backend *b, size_t bytes) {
    void *memory = kit_memory(b, bytes);

    memset(memory, 0xff, bytes);
    b->ops->scratch(b, memory, bytes);
}

/* The largest difference, relative to the largest expected value (or to 1e-30, for tensors of zeros). A NaN where there
 * should be none is an infinite difference. */
KIT_UNUSED static double kit_far(const double *expected, const mx_tensor *t, const float *floats, int64_t n) {
    double worst = 0, largest = 1e-30;

    for (int64_t i = 0; i < n; i++) {
        double got = t ? kit_at(t, i) : (double)floats[i], far = fabs(got - expected[i]);

        worst = !(far <= worst) ? (isnan(far) ? INFINITY : far) : worst;
        largest = fabs(expected[i]) > largest ? fabs(expected[i]) : largest;
    }
    return worst / largest;
}

#define kit_near_tensor(what, expected, t, n, tolerance)                                                              \
    do {                                                                                                               \
        double far_ = kit_far((expected), &(t), NULL, (n));                                                            \
        cr_assert(far_ <= (tolerance), "%s: off by %.3g of the largest, allowed %.3g", (what), far_, (double)(tolerance)); \
    } while (0)
#define kit_near_floats(what, expected, p, n, tolerance)                                                              \
    do {                                                                                                               \
        double far_ = kit_far((expected), NULL, (p), (n));                                                             \
        cr_assert(far_ <= (tolerance), "%s: off by %.3g of the largest, allowed %.3g", (what), far_, (double)(tolerance)); \
    } while (0)

/* 1 / (1 - rate) where the element is kept, else 0: base/rng.h's scheme, word by word. */
KIT_UNUSED static double kit_dropout(const mx_noise *n, uint32_t site_offset, int32_t question, int32_t position, int64_t column) {
    uint32_t counter[4] = { (uint32_t)(column / 8), (uint32_t)position, (uint32_t)question, n->site + site_offset }, word[4];

    if (!(n->rate > 0)) {
        return 1;
    }
    mx_rng_draw(mx_rng_make_key(n->seed, n->step), counter, word);

    uint32_t half = column % 2 ? word[column % 8 / 2] >> 16 : word[column % 8 / 2] & 0xffffu;

    return half < (uint32_t)lround((double)n->rate * 65536) ? 0 : 1 / (1 - (double)n->rate);
}

/* Rows one sequence long each, positions from 0; `live` of `rows`. */
typedef struct kit_rows {
    mx_rows rows;
    int32_t *token, *position, *question, *task, *row_segment;
    mx_segment *segment;
} kit_rows;

KIT_UNUSED static kit_rows kit_batch(mx_backend *b, int64_t rows, int64_t live) {
    kit_rows k = { 0 };

    k.token = kit_memory(b, sizeof(int32_t) * (size_t)rows);
    k.position = kit_memory(b, sizeof(int32_t) * (size_t)rows);
    k.question = kit_memory(b, sizeof(int32_t) * (size_t)rows);
    k.task = kit_memory(b, sizeof(int32_t) * (size_t)rows);
    k.row_segment = kit_memory(b, sizeof(int32_t) * (size_t)rows);
    k.segment = kit_memory(b, sizeof *k.segment);
    for (int64_t t = 0; t < rows; t++) {
        k.position[t] = (int32_t)(t % 11);
        k.question[t] = (int32_t)(100 + t / 11);
    }
    k.segment[0] = (mx_segment){ .count = (int32_t)live };
    k.rows = (mx_rows){ .rows = rows, .live = live, .token = k.token, .position = k.position, .question = k.question,
                        .task = k.task, .segment = k.segment, .segments = 1, .row_segment = k.row_segment };
    return k;
}

#endif
