/* elements.cu - what is done to each value by itself: SwiGLU's gate, sums, dropout, jitter, changes of type.
 *
 * All of it waits for memory: eight values to a thread in 16-byte accesses, each read and written once. */
#include "kernels/cuda/values.h"

static constexpr int THREADS = 256;

MX_DEVICE int64_t first_value() {
    return ((int64_t)blockIdx.x * THREADS + threadIdx.x) * MX_PIECE;
}
static dim3 blocks_of(int64_t values) {
    return dim3(mx_blocks(values, THREADS * MX_PIECE));
}

/* ------------------------------------------------------------------ SwiGLU and sums */
MX_DEVICE float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

template <class T> static __global__ void swiglu_kernel(T *h, const T *g, const T *u, int64_t n, bool wide) {
    int64_t i = first_value(), left = n - i;
    float gate[8], up[8];

    if (left <= 0) {
        return;
    }
    mx_load8(gate, g + i, left, wide);
    mx_load8(up, u + i, left, wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        gate[j] = gate[j] * sigmoid(gate[j]) * up[j];
    }
    mx_store8(h + i, gate, left, wide);
}

template <class T> static void swiglu(mx_cuda *c, mx_tensor h, mx_tensor g, mx_tensor u) {
    T *to = static_cast<T *>(h.data);
    const T *gate = static_cast<const T *>(g.data), *up = static_cast<const T *>(u.data);
    int64_t n = mx_values_of(&h);

    mx_launch(c, "swiglu", swiglu_kernel<T>, blocks_of(n), dim3(THREADS), 0, to, gate, up, n,
              mx_wide(to, 0) && mx_wide(gate, 0) && mx_wide(up, 0));
}

void mx_cuda_swiglu_forward(mx_backend *q, mx_tensor h, mx_tensor g, mx_tensor u) {
    assert(h.dtype == g.dtype && h.dtype == u.dtype && mx_values_of(&g) == mx_values_of(&h) && mx_values_of(&u) == mx_values_of(&h));
    h.dtype == MX_BF16 ? swiglu<mx_bf16>(mx_cuda_of(q), h, g, u) : swiglu<float>(mx_cuda_of(q), h, g, u);
}

/* h = g s(g) u:  dg = dh u s (1 + g (1 - s)),  du = dh g s. A thread has read all three before it writes either, as dg may lie
 * where g does, du where u does: no __restrict__ here. */
template <class T>
static __global__ void swiglu_backward_kernel(T *dg, T *du, const T *dh, const T *g, const T *u, int64_t n, bool wide) {
    int64_t i = first_value(), left = n - i;
    float gate[8], up[8], d[8];

    if (left <= 0) {
        return;
    }
    mx_load8(gate, g + i, left, wide);
    mx_load8(up, u + i, left, wide);
    mx_load8(d, dh + i, left, wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float s = sigmoid(gate[j]), to_gate = d[j] * up[j] * s * (1.0f + gate[j] * (1.0f - s)), to_up = d[j] * gate[j] * s;

        gate[j] = to_gate;
        up[j] = to_up;
    }
    mx_store8(dg + i, gate, left, wide);
    mx_store8(du + i, up, left, wide);
}

template <class T> static void swiglu_back(mx_cuda *c, mx_tensor dg, mx_tensor du, mx_tensor dh, mx_tensor g, mx_tensor u) {
    T *to_gate = static_cast<T *>(dg.data), *to_up = static_cast<T *>(du.data);
    const T *d = static_cast<const T *>(dh.data), *gate = static_cast<const T *>(g.data), *up = static_cast<const T *>(u.data);
    int64_t n = mx_values_of(&dh);

    mx_launch(c, "swiglu backward", swiglu_backward_kernel<T>, blocks_of(n), dim3(THREADS), 0, to_gate, to_up, d, gate, up, n,
              mx_wide(to_gate, 0) && mx_wide(to_up, 0) && mx_wide(d, 0) && mx_wide(gate, 0) && mx_wide(up, 0));
}

void mx_cuda_swiglu_backward(mx_backend *q, mx_tensor dg, mx_tensor du, mx_tensor dh, mx_tensor g, mx_tensor u) {
    assert(dg.dtype == dh.dtype && du.dtype == dh.dtype && g.dtype == dh.dtype && u.dtype == dh.dtype);
    dh.dtype == MX_BF16 ? swiglu_back<mx_bf16>(mx_cuda_of(q), dg, du, dh, g, u) : swiglu_back<float>(mx_cuda_of(q), dg, du, dh, g, u);
}

template <class T> static __global__ void add_kernel(T *y, const T *a, const T *b, int64_t n, bool wide) {
    int64_t i = first_value(), left = n - i;
    float sum[8], more[8];

    if (left <= 0) {
        return;
    }
    mx_load8(sum, a + i, left, wide);
    mx_load8(more, b + i, left, wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        sum[j] += more[j];
    }
    mx_store8(y + i, sum, left, wide);
}

template <class T> static void add(mx_cuda *c, mx_tensor y, mx_tensor a, mx_tensor b) {
    T *to = static_cast<T *>(y.data);
    const T *one = static_cast<const T *>(a.data), *other = static_cast<const T *>(b.data);
    int64_t n = mx_values_of(&y);

    mx_launch(c, "add", add_kernel<T>, blocks_of(n), dim3(THREADS), 0, to, one, other, n,
              mx_wide(to, 0) && mx_wide(one, 0) && mx_wide(other, 0));
}

void mx_cuda_add(mx_backend *q, mx_tensor y, mx_tensor a, mx_tensor b) {
    assert(y.dtype == a.dtype && y.dtype == b.dtype);
    y.dtype == MX_BF16 ? add<mx_bf16>(mx_cuda_of(q), y, a, b) : add<float>(mx_cuda_of(q), y, a, b);
}

/* ------------------------------------------------------------------ changes of type */
template <class D, class S>
static __global__ void convert_kernel(D *dst, int64_t dst_ld, const S *src, int64_t src_ld, int64_t rows, int64_t columns,
                                      float scale, unsigned chunks, bool dst_wide, bool src_wide) {
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks);
    float v[8];

    if (row >= rows || column >= columns) {
        return;
    }
    mx_load8(v, src + row * src_ld + column, columns - column, src_wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        v[j] *= scale;
    }
    mx_store8(dst + row * dst_ld + column, v, columns - column, dst_wide);
}

template <class D, class S>
static void convert(mx_cuda *c, void *dst, int64_t dst_ld, const void *src, int64_t src_ld, int64_t rows, int64_t columns, float scale) {
    mx_plane p;

    if (dst_ld == columns && src_ld == columns) { /* one long row: no ends that are not whole pieces */
        columns *= rows;
        dst_ld = src_ld = columns;
        rows = rows > 0 ? 1 : 0;
    }
    if (rows <= 0 || columns <= 0) {
        return;
    }
    D *to = static_cast<D *>(dst);
    const S *from = static_cast<const S *>(src);
    int64_t stride_to = rows > 1 ? dst_ld : 0, stride_from = rows > 1 ? src_ld : 0;

    p = mx_plane_of(rows, columns);
    mx_launch(c, "convert", convert_kernel<D, S>, p.grid, p.block, 0, to, dst_ld, from, src_ld, rows, columns, scale, p.chunks,
              mx_wide(to, stride_to), mx_wide(from, stride_from));
}

void mx_cuda_convert(mx_cuda *c, void *dst, mx_dtype dst_type, int64_t dst_ld, const void *src, mx_dtype src_type, int64_t src_ld,
                     int64_t rows, int64_t columns, float scale) {
    assert((dst_type == MX_F32 || dst_type == MX_BF16) && (src_type == MX_F32 || src_type == MX_BF16));
    if (dst_type == MX_BF16) {
        src_type == MX_BF16 ? convert<mx_bf16, mx_bf16>(c, dst, dst_ld, src, src_ld, rows, columns, scale)
                            : convert<mx_bf16, float>(c, dst, dst_ld, src, src_ld, rows, columns, scale);
    } else {
        src_type == MX_BF16 ? convert<float, mx_bf16>(c, dst, dst_ld, src, src_ld, rows, columns, scale)
                            : convert<float, float>(c, dst, dst_ld, src, src_ld, rows, columns, scale);
    }
}

/* ------------------------------------------------------------------ noise */
template <class T>
static __global__ void dropout_kernel(mx_noise_key noise, const int32_t *question, const int32_t *position, const T *x, int64_t x_ld,
                                      T *y, int64_t y_ld, int64_t rows, int64_t columns, float scale, unsigned chunks, bool x_wide,
                                      bool y_wide) {
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks);
    float v[8];

    if (row >= rows || column >= columns) {
        return;
    }
    uint32_t kept = mx_noise_kept8(noise, (uint32_t)(column / 8), position[row], question[row]);

    mx_load8(v, x + row * x_ld + column, columns - column, x_wide);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        v[j] = kept >> j & 1u ? v[j] * scale : 0.0f; /* a dropped NaN or infinity is gone, as on the CPU */
    }
    mx_store8(y + row * y_ld + column, v, columns - column, y_wide);
}

template <class T>
static void dropout(mx_cuda *c, const mx_noise_key &key, const mx_rows *rows, int64_t columns, const void *x, int64_t x_ld, void *y,
                    int64_t y_ld, float scale) {
    const T *from = static_cast<const T *>(x);
    T *to = static_cast<T *>(y);
    mx_plane p = mx_plane_of(rows->rows, columns);

    mx_launch(c, "dropout", dropout_kernel<T>, p.grid, p.block, 0, key, rows->question, rows->position, from, x_ld, to, y_ld,
              rows->rows, columns, scale, p.chunks, mx_wide(from, x_ld), mx_wide(to, y_ld));
}

void mx_cuda_dropout(mx_cuda *c, const mx_noise *noise, uint32_t site_offset, const mx_rows *rows, int64_t columns, const void *x,
                     int64_t x_ld, void *y, int64_t y_ld, float scale) {
    mx_dtype act = mx_activation_type(&c->base);

    if (!(noise->rate > 0)) {
        mx_cuda_convert(c, y, act, y_ld, x, act, x_ld, rows->rows, columns, scale);
        return;
    }
    mx_noise_key key = mx_noise_of(noise, site_offset);

    act == MX_BF16 ? dropout<mx_bf16>(c, key, rows, columns, x, x_ld, y, y_ld, scale)
                   : dropout<float>(c, key, rows, columns, x, x_ld, y, y_ld, scale);
}

/* y (+)= x u with u[j] = 1 + rate ((2h + 1) / 65536 - 1), h the column's 16 bits: the middles of 65,536 equal parts of
 * (1 - rate, 1 + rate). */
template <class T>
static __global__ void jitter_kernel(mx_noise_key noise, const int32_t *question, const int32_t *position, const T *x, T *y,
                                     int64_t rows, int64_t columns, bool add, unsigned chunks, bool wide) {
    int64_t row = mx_plane_row(chunks), column = mx_plane_column(chunks), at = row * columns + column;
    uint32_t word[4];
    float v[8], sum[8] = { 0 };

    if (row >= rows || column >= columns) {
        return;
    }
    mx_noise_words(noise, (uint32_t)(column / 8), position[row], question[row], word);
    mx_load8(v, x + at, columns - column, wide);
    if (add) {
        mx_load8(sum, y + at, columns - column, wide);
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        sum[j] += v[j] * (1.0f + noise.rate * ((float)(2 * mx_noise_half(word, j) + 1) / 65536.0f - 1.0f));
    }
    mx_store8(y + at, sum, columns - column, wide);
}

template <class T> static void jitter(mx_cuda *c, mx_tensor y, mx_tensor x, const mx_rows *rows, const mx_noise *noise, bool add) {
    T *to = static_cast<T *>(y.data);
    const T *from = static_cast<const T *>(x.data);
    int64_t columns = x.dim[1];
    mx_plane p = mx_plane_of(rows->rows, columns);

    mx_launch(c, "jitter", jitter_kernel<T>, p.grid, p.block, 0, mx_noise_of(noise, 0), rows->question, rows->position, from, to,
              rows->rows, columns, add, p.chunks, mx_wide(to, columns) && mx_wide(from, columns));
}

static void jitter_either(mx_cuda *c, mx_tensor y, mx_tensor x, const mx_rows *rows, const mx_noise *noise, bool add) {
    assert(y.dtype == x.dtype && y.dim[1] == x.dim[1]);
    x.dtype == MX_BF16 ? jitter<mx_bf16>(c, y, x, rows, noise, add) : jitter<float>(c, y, x, rows, noise, add);
}

void mx_cuda_jitter_forward(mx_backend *q, mx_tensor xr, mx_tensor x, const mx_rows *rows, mx_noise noise) {
    jitter_either(mx_cuda_of(q), xr, x, rows, &noise, false);
}

void mx_cuda_jitter_backward(mx_backend *q, mx_tensor dx, mx_tensor dxr, const mx_rows *rows, mx_noise noise) {
    jitter_either(mx_cuda_of(q), dx, dxr, rows, &noise, true);
}
