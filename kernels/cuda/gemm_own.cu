/* gemm_own.cu - a product of matrices by a kernel of our own: what cuBLASLt does not take, odd shapes, small and rare ones.
 *
 * Tiles of 64 x 64 of C, 16 deep; 256 threads with 4 x 4 sums each, strided by 16 so that a warp's shared reads do not collide.
 * One order of summation, that of k. */
#include "kernels/cuda/gemm.h"

enum { TILE = 64, DEPTH = 16, SIDE = 16, EACH = TILE / SIDE };

/* The element (row, column) of a factor is at row * by_row + column * by_column. */
template <class T> struct strided {
    const T *data;
    int64_t by_row, by_column;
};

/* to[depth][line] = the tile's values, zero outside. `by_line`, `by_depth`: strides; threads run along the shorter one. */
template <class T>
static __device__ void load_tile(float (*to)[TILE + 1], const T *data, int64_t by_line, int64_t by_depth, int64_t line, int64_t lines,
                                 int64_t depth, int64_t depths) {
    for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += SIDE * SIDE) {
        int l = by_line == 1 ? i % TILE : i / DEPTH, d = by_line == 1 ? i / TILE : i % DEPTH;
        bool inside = line + l < lines && depth + d < depths;

        to[d][l] = inside ? mx_float(data[(line + l) * by_line + (depth + d) * by_depth]) : 0.0f;
    }
}

template <class T, class Y>
static __global__ void product_kernel(int64_t m, int64_t n, int64_t k, strided<T> a, strided<T> b, Y *y, int64_t ld, float alpha,
                                      bool add) {
    __shared__ float left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
    int64_t tiles = (n + TILE - 1) / TILE, row = (int64_t)blockIdx.x / tiles * TILE, column = (int64_t)blockIdx.x % tiles * TILE;
    int y0 = (int)threadIdx.x / SIDE, x0 = (int)threadIdx.x % SIDE;
    float sum[EACH][EACH] = {};

    for (int64_t p = 0; p < k; p += DEPTH) {
        load_tile(left, a.data, a.by_row, a.by_column, row, m, p, k);
        load_tile(right, b.data, b.by_column, b.by_row, column, n, p, k);
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            for (int i = 0; i < EACH; i++) {
                for (int j = 0; j < EACH; j++) {
                    sum[i][j] += left[d][y0 + SIDE * i] * right[d][x0 + SIDE * j];
                }
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++) {
        for (int j = 0; j < EACH; j++) {
            int64_t r = row + y0 + SIDE * i, c = column + x0 + SIDE * j;

            if (r < m && c < n) {
                float v = alpha * sum[i][j];

                y[r * ld + c] = mx_rounded<Y>(add ? mx_float(y[r * ld + c]) + v : v);
            }
        }
    }
}

template <class T> static strided<T> strided_of(const mx_matrix &x) {
    return strided<T>{ static_cast<const T *>(x.data), x.transposed ? 1 : x.ld, x.transposed ? x.ld : 1 };
}

template <class T, class Y>
static void own_of(mx_cuda *c, int64_t m, int64_t n, int64_t k, const mx_matrix &a, const mx_matrix &b, const mx_matrix &y, float alpha,
                   bool add) {
    int64_t tiles = (m + TILE - 1) / TILE * ((n + TILE - 1) / TILE);

    assert(tiles < INT64_C(0x7fffffff));
    mx_launch(c, "product", product_kernel<T, Y>, dim3((unsigned)tiles), dim3(SIDE * SIDE), 0, m, n, k, strided_of<T>(a), strided_of<T>(b),
              static_cast<Y *>(const_cast<void *>(y.data)), y.ld, alpha, add);
}

void mx_cuda_gemm_own(mx_cuda *c, int64_t m, int64_t n, int64_t k, mx_matrix a, mx_matrix b, mx_matrix y, float alpha, bool add) {
    if (a.dtype == MX_F32) {
        own_of<float, float>(c, m, n, k, a, b, y, alpha, add);
    } else if (y.dtype == MX_F32) {
        own_of<mx_bf16, float>(c, m, n, k, a, b, y, alpha, add);
    } else {
        own_of<mx_bf16, mx_bf16>(c, m, n, k, a, b, y, alpha, add);
    }
}
