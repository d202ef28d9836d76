/* norms.cu - RMSNorm (arXiv:1910.07467 eq. 4), the sums of a row in f32.
 *
 * A block to a row. Each thread keeps its pieces of the row in registers, KEPT of them, so that rows up to 256 KEPT 8 values
 * are read once; what a wider row has beyond is read again for its second use. */
#include "kernels/cuda/values.h"

static constexpr int THREADS = 256;

/* Threads for a row of `pieces`: no more than keep two pieces each. */
static unsigned threads_for(int64_t pieces) {
    unsigned threads = 32;

    while (threads < THREADS && 2 * (int64_t)threads < pieces) {
        threads *= 2;
    }
    return threads;
}

/* ------------------------------------------------------------------ forward */
MX_DEVICE float squares(const float v[8]) {
    float sum = 0;

#pragma unroll
    for (int j = 0; j < 8; j++) {
        sum += v[j] * v[j];
    }
    return sum;
}

template <class T> MX_DEVICE void put_normed(T *y, const float v[8], const float *w, float rstd, int64_t left, bool wide, bool w_wide) {
    float weight[8], out[8];

    mx_load8(weight, w, left, w_wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        out[j] = v[j] * rstd * weight[j];
    }
    mx_store8(y, out, left, wide);
}

template <class T, int KEPT>
static __global__ void __launch_bounds__(THREADS) rmsnorm_kernel(T *y, float *rstd, const T *x, const float *w, int64_t n, float eps,
                                                                bool wide, bool w_wide) {
    __shared__ float shared[32];
    int64_t stride = (int64_t)blockDim.x * 8, first = (int64_t)threadIdx.x * 8, base = (int64_t)blockIdx.x * n;
    float kept[KEPT][8], other[8], sum = 0;

#pragma unroll
    for (int p = 0; p < KEPT; p++) {
        mx_load8(kept[p], x + base + first + p * stride, n - first - p * stride, wide);
    }
#pragma unroll
    for (int p = 0; p < KEPT; p++) {
        sum += squares(kept[p]);
    }
    for (int64_t i = first + KEPT * stride; i < n; i += stride) {
        mx_load8(other, x + base + i, n - i, wide);
        sum += squares(other);
    }

    float scale = 1.0f / sqrtf(mx_block_sum(sum, shared) / (float)n + eps);

    if (threadIdx.x == 0) {
        rstd[blockIdx.x] = scale;
    }
#pragma unroll
    for (int p = 0; p < KEPT; p++) {
        int64_t i = first + p * stride;

        if (i < n) {
            put_normed(y + base + i, kept[p], w + i, scale, n - i, wide, w_wide);
        }
    }
    for (int64_t i = first + KEPT * stride; i < n; i += stride) {
        mx_load8(other, x + base + i, n - i, wide);
        put_normed(y + base + i, other, w + i, scale, n - i, wide, w_wide);
    }
}

template <class T> static void forward(mx_cuda *c, mx_tensor y, float *rstd, mx_tensor x, const float *w, float eps) {
    int64_t rows = x.dim[0], n = x.dim[1];
    T *to = static_cast<T *>(y.data);
    const T *from = static_cast<const T *>(x.data);
    bool wide = mx_wide(to, n) && mx_wide(from, n), w_wide = mx_wide(w, 0);
    unsigned threads = threads_for((n + 7) / 8);

    mx_launch(c, "rmsnorm", n > 2 * 8 * (int64_t)threads ? rmsnorm_kernel<T, 4> : rmsnorm_kernel<T, 2>, dim3((unsigned)rows), dim3(threads),
              0, to, rstd, from, w, n, eps, wide, w_wide);
}

void mx_cuda_rmsnorm_forward(mx_backend *q, mx_tensor y, float *rstd, mx_tensor x, const float *w, float eps) {
    assert(y.dtype == x.dtype);
    x.dtype == MX_BF16 ? forward<mx_bf16>(mx_cuda_of(q), y, rstd, x, w, eps) : forward<float>(mx_cuda_of(q), y, rstd, x, w, eps);
}

/* ------------------------------------------------------------------ backward
 * dx_i += rstd (w_i dy_i - x_i rstd^2 / C sum_j w_j dy_j x_j). dx is not read with the rest: its load would have to wait in
 * registers for the sum, which costs more in threads than it hides. */

/* The part of the sum in 8 columns; dy becomes w dy. */
MX_DEVICE float weigh(float dy[8], const float x[8], const float *w, int64_t left, bool w_wide) {
    float weight[8], sum = 0;

    mx_load8(weight, w, left, w_wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        dy[j] *= weight[j];
        sum += dy[j] * x[j];
    }
    return sum;
}

template <class T>
MX_DEVICE void add_gradient(T *dx, const float weighed[8], const float x[8], float rstd, float along, int64_t left, bool wide) {
    float sum[8];

    mx_load8(sum, dx, left, wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        sum[j] += rstd * (weighed[j] - x[j] * along);
    }
    mx_store8(dx, sum, left, wide);
}

template <class T, int KEPT>
static __global__ void __launch_bounds__(THREADS) rmsnorm_backward_kernel(T *dx, const T *dy, const T *x, const float *rstd, const float *w,
                                                                         int64_t n, bool wide, bool w_wide) {
    __shared__ float shared[32];
    int64_t stride = (int64_t)blockDim.x * 8, first = (int64_t)threadIdx.x * 8, base = (int64_t)blockIdx.x * n;
    float d[KEPT][8], v[KEPT][8], sum = 0, scale = rstd[blockIdx.x];

#pragma unroll
    for (int p = 0; p < KEPT; p++) {
        mx_load8(v[p], x + base + first + p * stride, n - first - p * stride, wide);
        mx_load8(d[p], dy + base + first + p * stride, n - first - p * stride, wide);
    }
#pragma unroll
    for (int p = 0; p < KEPT; p++) {
        sum += weigh(d[p], v[p], w + first + p * stride, n - first - p * stride, w_wide);
    }
    for (int64_t i = first + KEPT * stride; i < n; i += stride) {
        float other[8], value[8];

        mx_load8(value, x + base + i, n - i, wide);
        mx_load8(other, dy + base + i, n - i, wide);
        sum += weigh(other, value, w + i, n - i, w_wide);
    }

    float along = mx_block_sum(sum, shared) * scale * scale / (float)n;

#pragma unroll
    for (int p = 0; p < KEPT; p++) {
        int64_t i = first + p * stride;

        if (i < n) {
            add_gradient(dx + base + i, d[p], v[p], scale, along, n - i, wide);
        }
    }
    for (int64_t i = first + KEPT * stride; i < n; i += stride) {
        float other[8], value[8];

        mx_load8(value, x + base + i, n - i, wide);
        mx_load8(other, dy + base + i, n - i, wide);
        weigh(other, value, w + i, n - i, w_wide);
        add_gradient(dx + base + i, other, value, scale, along, n - i, wide);
    }
}

template <class T> static void backward(mx_cuda *c, mx_tensor dx, mx_tensor dy, mx_tensor x, const float *rstd, const float *w) {
    int64_t rows = x.dim[0], n = x.dim[1];
    T *to = static_cast<T *>(dx.data);
    const T *d = static_cast<const T *>(dy.data), *from = static_cast<const T *>(x.data);
    bool wide = mx_wide(to, n) && mx_wide(d, n) && mx_wide(from, n), w_wide = mx_wide(w, 0);
    unsigned threads = threads_for((n + 7) / 8);

    mx_launch(c, "rmsnorm backward", n > 2 * 8 * (int64_t)threads ? rmsnorm_backward_kernel<T, 4> : rmsnorm_backward_kernel<T, 2>,
              dim3((unsigned)rows), dim3(threads), 0, to, d, from, rstd, w, n, wide, w_wide);
}

void mx_cuda_rmsnorm_backward(mx_backend *q, mx_tensor dx, mx_tensor dy, mx_tensor x, const float *rstd, const float *w) {
    assert(dx.dtype == x.dtype && dy.dtype == x.dtype);
    x.dtype == MX_BF16 ? backward<mx_bf16>(mx_cuda_of(q), dx, dy, x, rstd, w) : backward<float>(mx_cuda_of(q), dx, dy, x, rstd, w);
}
