/* rope.cu - rotary embedding (arXiv:2104.09864 eq. 34) in Hugging Face's layout: pairs (j, j + D/2).
 *
 * No table: a block works out the cosines and sines of its few rows once for all their heads. Angles as on the CPU in f64 (at
 * position 8,000 an f32 product is off by 5e-4 rad); what is left of them after whole turns is small, so the functions
 * themselves may be f32's: off by 2e-7 at most, at any position. */
#include "kernels/cuda/values.h"

static constexpr int THREADS = 256, ROWS = 4;

MX_DEVICE void cosine_and_sine(int32_t position, float inverse, float *cosine, float *sine) {
    const double turn = 6.283185307179586;
    double angle = (double)position * (double)inverse;
    float left = (float)(angle - turn * rint(angle / turn));

    *cosine = cosf(left);
    *sine = sinf(left);
}

/* Eight pairs of one head: x[0..8) and x[half..half+8), of which `left` are there. */
template <class T>
MX_DEVICE void rotate(T *x, const float *cosine, const float *sine, int64_t half, int64_t left, float direction, bool wide) {
    float a[8], b[8];

    mx_load8(a, x, left, wide);
    mx_load8(b, x + half, left, wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        if (j < left) {
            float c = cosine[j], s = direction * sine[j], low = a[j] * c - b[j] * s, high = b[j] * c + a[j] * s;

            a[j] = low;
            b[j] = high;
        }
    }
    mx_store8(x, a, left, wide);
    mx_store8(x + half, b, left, wide);
}

template <class T>
static __global__ void __launch_bounds__(THREADS) rope_kernel(T *x, const int32_t *position, const float *inverse, int64_t rows, int heads,
                                                             int half, float direction, bool wide) {
    MX_DYNAMIC_SHARED(float, table); /* cosines (ROWS, half), then sines */
    int64_t first = (int64_t)blockIdx.x * ROWS, width = 2 * (int64_t)heads * half;
    int here = rows - first < ROWS ? (int)(rows - first) : ROWS, pieces = (half + 7) / 8, units = heads * pieces;

    for (int i = (int)threadIdx.x; i < here * half; i += THREADS) {
        cosine_and_sine(position[first + i / half], inverse[i % half], &table[i], &table[ROWS * half + i]);
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < here * units; i += THREADS) {
        int row = i / units, head = i % units / pieces, j = i % pieces * 8;
        const float *cosine = table + row * half + j;

        rotate(x + (first + row) * width + 2 * (int64_t)head * half + j, cosine, cosine + ROWS * half, half, half - j, direction, wide);
    }
}

template <class T>
static void rope(mx_cuda *c, mx_tensor x, int64_t heads, int64_t half, const mx_rows *rows, const float *inverse, float direction) {
    T *values = static_cast<T *>(x.data);

    mx_launch(c, "rope", rope_kernel<T>, dim3(mx_blocks(rows->live, ROWS)), dim3(THREADS), sizeof(float) * 2 * ROWS * (size_t)half, values,
              rows->position, inverse, rows->live, heads, half, direction, mx_wide(values, half));
}

void mx_cuda_rope(mx_backend *q, mx_tensor x, int64_t heads, int64_t head_dim, const mx_rows *rows, const float *inverse, bool backward) {
    float direction = backward ? -1.0f : 1.0f;

    assert(x.dim[1] == heads * head_dim && head_dim % 2 == 0);
    x.dtype == MX_BF16 ? rope<mx_bf16>(mx_cuda_of(q), x, heads, head_dim / 2, rows, inverse, direction)
                       : rope<float>(mx_cuda_of(q), x, heads, head_dim / 2, rows, inverse, direction);
}
