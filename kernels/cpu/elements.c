/* elements.c - what is done to each value by itself: SwiGLU's gate and sums. */
#include "kernels/cpu/cpu.h"

enum { PIECE = 2048 }; /* values to a parallel piece; in and out stay in the first cache */

MX_INLINE float sigmoid(float x) {
    return 1.0f / (1.0f + mx_exp(-x));
}

MX_INLINE void forward_piece(void *h, const void *g, const void *u, int64_t begin, int64_t end, mx_dtype dtype) {
    for (int64_t i = begin; i < end; i++) {
        float gate = mx_get(g, dtype, i);

        mx_put(h, dtype, i, gate * sigmoid(gate) * mx_get(u, dtype, i));
    }
}

MX_CLONES static void forward_f32(void *h, const void *g, const void *u, int64_t begin, int64_t end) {
    forward_piece(h, g, u, begin, end, MX_F32);
}
MX_CLONES static void forward_bf16(void *h, const void *g, const void *u, int64_t begin, int64_t end) {
    forward_piece(h, g, u, begin, end, MX_BF16);
}

static int64_t values_of(const mx_tensor *t) {
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

static int64_t end_of(int64_t begin, int64_t n) {
    return n - begin < PIECE ? n : begin + PIECE;
}

void mx_cpu_swiglu_forward(mx_backend *q, mx_tensor h, mx_tensor g, mx_tensor u) {
    int64_t n = values_of(&h);

    (void)q;
    assert(h.dtype == g.dtype && h.dtype == u.dtype && values_of(&g) == n && values_of(&u) == n);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += PIECE) {
        if (h.dtype == MX_BF16) {
            forward_bf16(h.data, g.data, u.data, i, end_of(i, n));
        } else {
            forward_f32(h.data, g.data, u.data, i, end_of(i, n));
        }
    }
}

/* h = g s(g) u:  dg = dh u s (1 + g (1 - s)),  du = dh g s. All three are read before either is written, as dg may lie
 * where g does, du where u does. */
MX_INLINE void backward_piece(void *dg, void *du, const void *dh, const void *g, const void *u, int64_t begin,
                              int64_t end, mx_dtype dtype) {
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
        float gate = mx_get(g, dtype, i), up = mx_get(u, dtype, i), d = mx_get(dh, dtype, i), s = sigmoid(gate);

        mx_put(dg, dtype, i, d * up * s * (1.0f + gate * (1.0f - s)));
        mx_put(du, dtype, i, d * gate * s);
    }
}

MX_CLONES static void backward_f32(void *dg, void *du, const void *dh, const void *g, const void *u, int64_t begin,
                                   int64_t end) {
    backward_piece(dg, du, dh, g, u, begin, end, MX_F32);
}
MX_CLONES static void backward_bf16(void *dg, void *du, const void *dh, const void *g, const void *u, int64_t begin,
                                    int64_t end) {
    backward_piece(dg, du, dh, g, u, begin, end, MX_BF16);
}

void mx_cpu_swiglu_backward(mx_backend *q, mx_tensor dg, mx_tensor du, mx_tensor dh, mx_tensor g, mx_tensor u) {
    int64_t n = values_of(&dh);

    (void)q;
    assert(dg.dtype == dh.dtype && du.dtype == dh.dtype && g.dtype == dh.dtype && u.dtype == dh.dtype);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += PIECE) {
        if (dh.dtype == MX_BF16) {
            backward_bf16(dg.data, du.data, dh.data, g.data, u.data, i, end_of(i, n));
        } else {
            backward_f32(dg.data, du.data, dh.data, g.data, u.data, i, end_of(i, n));
        }
    }
}

MX_CLONES static void add_f32(float *y, const float *a, const float *b, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        y[i] = a[i] + b[i];
    }
}
MX_CLONES static void add_bf16(uint16_t *y, const uint16_t *a, const uint16_t *b, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        y[i] = mx_bf16_round(mx_bf16_widen(a[i]) + mx_bf16_widen(b[i]));
    }
}

void mx_cpu_add(mx_backend *q, mx_tensor y, mx_tensor a, mx_tensor b) {
    int64_t n = values_of(&y);

    (void)q;
    assert(y.dtype == a.dtype && y.dtype == b.dtype);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += PIECE) {
        if (y.dtype == MX_BF16) {
            add_bf16(y.data, a.data, b.data, i, end_of(i, n));
        } else {
            add_f32(y.data, a.data, b.data, i, end_of(i, n));
        }
    }
}
