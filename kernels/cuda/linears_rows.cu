/* linears_rows.cu - the wide parts of linears that are no product: outputs scaled, biased and rounded, their gradients scaled, and
 * the input's gradient put together. Each is one pass over memory, 16 bytes at a time where the lines allow it. */
#include "kernels/cuda/linears.h"

/* ------------------------------------------------------------------ forward */

/* y = c . z + bias; z kept as it stands in y's precision. */
template <class T>
static __global__ void finish_kernel(T *y, T *saved_z, const float *z, const float *c, const float *bias, int64_t rows, int64_t out,
                                     unsigned chunks, bool wide) {
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks), left = out - column;
    float v[8];

    if (row >= rows || left <= 0) {
        return;
    }
    mx_load8(v, z + row * out + column, left, wide);
    if (saved_z) {
        mx_store8(saved_z + row * out + column, v, left, wide);
    }
    for (int j = 0; j < 8 && j < left; j++) {
        v[j] = (c ? c[column + j] : 1.0f) * v[j] + (bias ? bias[column + j] : 0.0f);
    }
    mx_store8(y + row * out + column, v, left, wide);
}

template <class T>
static void finish(mx_cuda *c, const mx_linear *linear, int64_t first, int64_t rows, const float *z, T *saved_z) {
    int64_t out = linear->out;
    mx_plane p = mx_plane_of(rows, out);
    T *y = static_cast<T *>(linear->y.data) + first * out, *keep = saved_z ? saved_z + first * out : NULL;
    bool wide = mx_wide(y, out) && mx_wide(z, out) && mx_wide(keep, out);

    mx_launch(c, "y", finish_kernel<T>, p.grid, p.block, 0, y, keep, z, linear->c, linear->bias, rows, out, p.chunks, wide);
}

void mx_rows_finish(mx_cuda *c, const mx_linear *linear, int64_t first, int64_t rows, const float *z, void *saved_z) {
    if (mx_cuda_bf16(c)) {
        finish(c, linear, first, rows, z, static_cast<mx_bf16 *>(saved_z));
    } else {
        finish(c, linear, first, rows, z, static_cast<float *>(saved_z));
    }
}

/* ------------------------------------------------------------------ the output's gradient */

enum { PIECES = 32, LINES = 8 }; /* threads of a block: 256 columns, eight rows at a time */

/* A block has 256 columns of MX_LINEARS_STRETCH rows: dz = c . dy, and the sum of dy z over its live rows. */
template <class T>
static __global__ void gradient_kernel(T *dz, int64_t dz_ld, const T *dy, const T *z, const float *c, float *partial, int64_t rows, int64_t live,
                                       int64_t out, unsigned chunks, bool wide, bool wide_dz) {
    __shared__ float shared[LINES][PIECES * MX_PIECE];
    int64_t stretch = blockIdx.x / chunks, column = ((int64_t)(blockIdx.x % chunks) * PIECES + threadIdx.x) * MX_PIECE, left = out - column;
    int64_t end = (stretch + 1) * MX_LINEARS_STRETCH < rows ? (stretch + 1) * MX_LINEARS_STRETCH : rows;
    float sum[8] = {}, scale[8], v[8], w[8];

    for (int j = 0; j < 8; j++) {
        scale[j] = c && j < left ? c[column + j] : 1.0f;
    }
    for (int64_t row = stretch * MX_LINEARS_STRETCH + threadIdx.y; row < end && left > 0; row += LINES) {
        mx_load8(v, dy + row * out + column, left, wide);
        if (partial && row < live) {
            mx_load8(w, z + row * out + column, left, wide);
            for (int j = 0; j < 8; j++) {
                sum[j] += v[j] * w[j];
            }
        }
        for (int j = 0; j < 8; j++) {
            v[j] *= scale[j];
        }
        mx_store8(dz + row * dz_ld + column, v, left, wide_dz);
    }
    if (!partial) {
        return; /* the whole grid */
    }
    for (int j = 0; j < 8; j++) {
        shared[threadIdx.y][threadIdx.x * MX_PIECE + j] = sum[j];
    }
    __syncthreads();
    int i = (int)(threadIdx.y * PIECES + threadIdx.x); /* a column for each of the 256 threads */
    int64_t o = (int64_t)(blockIdx.x % chunks) * PIECES * MX_PIECE + i;
    float all = 0;

    for (int line = 0; line < LINES; line++) {
        all += shared[line][i];
    }
    if (o < out) {
        partial[stretch * out + o] = all;
    }
}

static __global__ void add_dc_kernel(float *dc, const float *partial, int64_t stretches, int64_t out) {
    int64_t o = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0;

    if (o < out) {
        for (int64_t i = 0; i < stretches; i++) {
            sum += partial[i * out + o];
        }
        dc[o] += sum;
    }
}

static int64_t stretches_of(const mx_linears *l) {
    return (l->rows->rows + MX_LINEARS_STRETCH - 1) / MX_LINEARS_STRETCH;
}

size_t mx_rows_partial_bytes(const mx_linears *l) {
    int64_t out = 0;

    for (int64_t j = 0; j < l->linears; j++) {
        out = l->linear[j].c && l->linear[j].dc && l->linear[j].out > out ? l->linear[j].out : out;
    }
    return sizeof(float) * (size_t)(stretches_of(l) * out);
}

template <class T>
static void gradient(mx_cuda *c, const mx_linears *l, const mx_linear *linear, T *dz, int64_t dz_ld, const T *z, float *partial) {
    int64_t out = linear->out;
    unsigned chunks = mx_blocks(out, PIECES * MX_PIECE);
    const T *dy = static_cast<const T *>(linear->dy.data);

    mx_launch(c, "dz", gradient_kernel<T>, dim3((unsigned)stretches_of(l) * chunks), dim3(PIECES, LINES), 0, dz, dz_ld, dy, z, linear->c,
              z ? partial : NULL, l->rows->rows, l->rows->live, out, chunks, mx_wide(dy, out) && mx_wide(z, out), mx_wide(dz, dz_ld));
    if (z) {
        mx_launch(c, "dc", add_dc_kernel, dim3(mx_blocks(out, 256)), dim3(256), 0, linear->dc, partial, stretches_of(l), out);
    }
}

void mx_rows_gradient(mx_cuda *c, const mx_linears *l, int64_t j, void *dz, int64_t dz_ld, const void *z, float *partial) {
    if (mx_cuda_bf16(c)) {
        gradient(c, l, &l->linear[j], static_cast<mx_bf16 *>(dz), dz_ld, static_cast<const mx_bf16 *>(z), partial);
    } else {
        gradient(c, l, &l->linear[j], static_cast<float *>(dz), dz_ld, static_cast<const float *>(z), partial);
    }
}

/* ------------------------------------------------------------------ the input's gradient */

template <class T>
static __global__ void finish_dx_kernel(T *dx, const float *sum, const float *low, int64_t first, int64_t rows, int64_t in, mx_noise_key noise,
                                        const int32_t *position, const int32_t *question, unsigned chunks, bool adds, bool wide) {
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks), left = in - column;
    float v[8], w[8];

    if (row >= rows || left <= 0) {
        return;
    }
    mx_load8(v, sum + row * in + column, left, wide);
    if (low) {
        uint32_t kept = mx_noise_kept8(noise, (uint32_t)(column / 8), position[first + row], question[first + row]);

        mx_load8(w, low + row * in + column, left, wide);
        for (int j = 0; j < 8; j++) {
            v[j] += kept >> j & 1u ? w[j] : 0.0f;
        }
    }
    dx += (first + row) * in + column;
    if (adds) {
        mx_load8(w, dx, left, wide);
        for (int j = 0; j < 8; j++) {
            v[j] += w[j];
        }
    }
    mx_store8(dx, v, left, wide);
}

template <class T>
static void finish_dx(mx_cuda *c, const mx_linears *l, int64_t first, int64_t rows, const float *sum, const float *low) {
    mx_plane p = mx_plane_of(rows, l->in);
    T *dx = static_cast<T *>(l->dx.data);
    bool wide = mx_wide(dx, l->in) && mx_wide(sum, l->in) && mx_wide(low, l->in);

    mx_launch(c, "dx", finish_dx_kernel<T>, p.grid, p.block, 0, dx, sum, low, first, rows, l->in, mx_noise_of(&l->dropout, 0), l->rows->position,
              l->rows->question, p.chunks, l->dx_adds, wide);
}

void mx_rows_finish_dx(mx_cuda *c, const mx_linears *l, int64_t first, int64_t rows, const float *sum, const float *low) {
    if (mx_cuda_bf16(c)) {
        finish_dx<mx_bf16>(c, l, first, rows, sum, low);
    } else {
        finish_dx<float>(c, l, first, rows, sum, low);
    }
}
