/* norms.c - RMSNorm (arXiv:1910.07467 eq. 4), the sums of a row in f32. */
#include "kernels/cpu/cpu.h"

MX_INLINE float forward_row(void *y, const void *x, const float *w, int64_t n, float eps, mx_dtype dtype) {
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float v = mx_get(x, dtype, i);

        sum += v * v;
    }

    float rstd = 1.0f / sqrtf(sum / (float)n + eps);

    for (int64_t i = 0; i < n; i++) {
        mx_put(y, dtype, i, mx_get(x, dtype, i) * rstd * w[i]);
    }
    return rstd;
}

MX_CLONES static float forward_f32(void *y, const void *x, const float *w, int64_t n, float eps) {
    return forward_row(y, x, w, n, eps, MX_F32);
}
MX_CLONES static float forward_bf16(void *y, const void *x, const float *w, int64_t n, float eps) {
    return forward_row(y, x, w, n, eps, MX_BF16);
}

void mx_cpu_rmsnorm_forward(mx_backend *q, mx_tensor y, float *rstd, mx_tensor x, const float *w, float eps) {
    (void)q;
    assert(y.dtype == x.dtype);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        rstd[t] = x.dtype == MX_BF16 ? forward_bf16(mx_row_of(&y, t), mx_row_of(&x, t), w, x.dim[1], eps)
                                     : forward_f32(mx_row_of(&y, t), mx_row_of(&x, t), w, x.dim[1], eps);
    }
}

/* dx_i += rstd (w_i dy_i - x_i rstd^2 / C sum_j w_j dy_j x_j) */
MX_INLINE void backward_row(void *dx, const void *dy, const void *x, float rstd, const float *w, int64_t n,
                            mx_dtype dtype) {
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += w[i] * mx_get(dy, dtype, i) * mx_get(x, dtype, i);
    }

    float along = sum * rstd * rstd / (float)n;

    for (int64_t i = 0; i < n; i++) {
        float v = rstd * (w[i] * mx_get(dy, dtype, i) - mx_get(x, dtype, i) * along);

        mx_put(dx, dtype, i, mx_get(dx, dtype, i) + v);
    }
}

MX_CLONES static void backward_f32(void *dx, const void *dy, const void *x, float rstd, const float *w, int64_t n) {
    backward_row(dx, dy, x, rstd, w, n, MX_F32);
}
MX_CLONES static void backward_bf16(void *dx, const void *dy, const void *x, float rstd, const float *w, int64_t n) {
    backward_row(dx, dy, x, rstd, w, n, MX_BF16);
}

void mx_cpu_rmsnorm_backward(mx_backend *q, mx_tensor dx, mx_tensor dy, mx_tensor x, const float *rstd, const float *w) {
    (void)q;
    assert(dx.dtype == x.dtype && dy.dtype == x.dtype);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        if (x.dtype == MX_BF16) {
            backward_bf16(mx_row_of(&dx, t), mx_row_of(&dy, t), mx_row_of(&x, t), rstd[t], w, x.dim[1]);
        } else {
            backward_f32(mx_row_of(&dx, t), mx_row_of(&dy, t), mx_row_of(&x, t), rstd[t], w, x.dim[1]);
        }
    }
}
