/* embed.cu - rows looked up, picked and put back. */
#include "kernels/cuda/memory.h"
#include "kernels/cuda/values.h"

static constexpr int THREADS = 256;

void mx_cuda_embed(mx_backend *q, mx_tensor y, const mx_weight *table, const mx_rows *rows) {
    mx_cuda *c = mx_cuda_of(q);
    size_t line = (size_t)table->in * mx_cuda_act_bytes(c);

    assert(y.dtype == mx_activation_type(q) && y.dim[1] == table->in);
    if (rows->live > 0) { /* nobody reads a padding row's token */
        mx_cuda_weight_rows(c, table, rows->token, rows->live, y.data);
    }
    if (rows->rows > rows->live && !c->lost) {
        mx_cuda_check(c, cudaMemsetAsync(static_cast<char *>(y.data) + (size_t)rows->live * line, 0,
                                         (size_t)(rows->rows - rows->live) * line, c->stream), "embed");
        mx_cuda_follow(c, "embed");
    }
}

/* ------------------------------------------------------------------ gather */
template <class T>
static __global__ void gather_kernel(T *y, const T *x, const int32_t *row, int64_t n, int64_t columns, unsigned chunks, bool wide) {
    int64_t i = mx_plane_row(chunks), column = mx_plane_column(chunks);

    if (i < n && column < columns) {
        mx_copy8(y + i * columns + column, x + (int64_t)row[i] * columns + column, columns - column, wide);
    }
}

template <class T> static void gather(mx_cuda *c, mx_tensor y, mx_tensor x, const int32_t *row, int64_t n) {
    int64_t columns = x.dim[1];
    T *to = static_cast<T *>(y.data);
    const T *from = static_cast<const T *>(x.data);
    mx_plane p = mx_plane_of(n, columns);

    mx_launch(c, "gather", gather_kernel<T>, p.grid, p.block, 0, to, from, row, n, columns, p.chunks,
              mx_wide(to, columns) && mx_wide(from, columns));
}

void mx_cuda_gather_rows(mx_backend *q, mx_tensor y, mx_tensor x, const int32_t *row, int64_t n) {
    assert(y.dtype == x.dtype && y.dim[1] == x.dim[1]);
    x.dtype == MX_BF16 ? gather<mx_bf16>(mx_cuda_of(q), y, x, row, n) : gather<float>(mx_cuda_of(q), y, x, row, n);
}

/* ------------------------------------------------------------------ scatter
 * Every row of dx is written by blocks of its own, which must know what goes there: for a window of rows at a time, as many as
 * the backend's small buffer holds, each source tells its row how many they are and which is the first (integers, so in no
 * matter which order). Rows that nobody names are zero; rows that several name (the last of a context that a question's
 * choices share) look for the others from the first one on, 32 at a time, until all are found: they are usually close. */
struct named {
    unsigned count, from_end; /* from_end: n - the first source; 0: none */
};
static constexpr int64_t WINDOW = MX_CUDA_PARTIALS * (int64_t)sizeof(double) / (int64_t)sizeof(named);

static __global__ void name_kernel(named *window, int64_t begin, int64_t rows, const int32_t *row, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, at = i < n ? row[i] - begin : -1;

    if (at >= 0 && at < rows) {
        atomicAdd(&window[at].count, 1u);
        atomicMax(&window[at].from_end, (unsigned)(n - i));
    }
}

/* sum += the rows of g that name `wanted`, `count` of them from `first` on, in their order. By whole warps. */
template <class T>
MX_DEVICE void add_named(float sum[8], const T *g, const float *scale, const int32_t *row, int64_t n, int64_t first, unsigned count,
                         int32_t wanted, int64_t columns, int64_t column, bool wide) {
    int lane = (int)((threadIdx.y * blockDim.x + threadIdx.x) % 32);

    for (int64_t at = first; count > 0; at += 32) {
        unsigned found = __ballot_sync(MX_WARP, at + lane < n && row[at + lane] == wanted);

        for (; found; found &= found - 1, count--) {
            int64_t i = at + __ffs((int)found) - 1;
            float v[8];

            if (column < columns) {
                mx_load8(v, g + i * columns + column, columns - column, wide);
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    sum[j] += scale[i] * v[j];
                }
            }
        }
    }
}

/* Blocks are (32 x, 8 y): a warp stays within one row, so that it is of one mind where it votes. */
template <class T>
static __global__ void __launch_bounds__(THREADS) scatter_kernel(T *dx, const named *window, int64_t begin, int64_t rows, const T *g,
                                                                const float *scale, const int32_t *row, int64_t n, int64_t columns,
                                                                unsigned chunks, bool wide) {
    int64_t at = (int64_t)(blockIdx.x / chunks) * blockDim.y + threadIdx.y;
    int64_t column = ((int64_t)(blockIdx.x % chunks) * 32 + threadIdx.x) * 8;

    if (at < rows) {
        named here = window[at];
        float sum[8] = { 0 };

        if (here.count) {
            add_named(sum, g, scale, row, n, n - here.from_end, here.count, (int32_t)(begin + at), columns, column, wide);
        }
        if (column < columns) {
            mx_store8(dx + (begin + at) * columns + column, sum, columns - column, wide);
        }
    }
}

template <class T> static void scatter(mx_cuda *c, mx_tensor dx, mx_tensor g, const float *scale, const int32_t *row, int64_t n) {
    int64_t columns = dx.dim[1];
    T *to = static_cast<T *>(dx.data);
    const T *from = static_cast<const T *>(g.data);
    named *window = reinterpret_cast<named *>(c->partials);
    unsigned chunks = mx_blocks(columns, 32 * 8);
    bool wide = mx_wide(to, columns) && mx_wide(from, columns);

    for (int64_t begin = 0; begin < dx.dim[0] && !c->lost; begin += WINDOW) {
        int64_t rows = dx.dim[0] - begin < WINDOW ? dx.dim[0] - begin : WINDOW;

        mx_cuda_check(c, cudaMemsetAsync(window, 0, sizeof *window * (size_t)rows, c->stream), "scatter");
        mx_launch(c, "scatter: names", name_kernel, dim3(mx_blocks(n, THREADS)), dim3(THREADS), 0, window, begin, rows, row, n);
        mx_launch(c, "scatter", scatter_kernel<T>, dim3(mx_blocks(rows, 8) * chunks), dim3(32, 8), 0, to, window, begin, rows, from, scale,
                  row, n, columns, chunks, wide);
    }
}

void mx_cuda_scatter_rows(mx_backend *q, mx_tensor dx, mx_tensor g, const float *scale, const int32_t *row, int64_t n) {
    assert(dx.dtype == g.dtype && dx.dim[1] == g.dim[1]);
    dx.dtype == MX_BF16 ? scatter<mx_bf16>(mx_cuda_of(q), dx, g, scale, row, n) : scatter<float>(mx_cuda_of(q), dx, g, scale, row, n);
}
