/* attention_plain.cu - attention by plain FMA in f32: all of the f32 precision, and bf16 heads wider than 256.
 *
 * The same walk as the tensor-core kernels', in tiles of 16 queries by 16 keys with one thread to a pair. Of sums over keys
 * (or, for dk and dv, over queries) thread (y, x) holds row y, columns x, x + 16, ... WIDTH bounds them. One tile of shared
 * memory is loaded with what is needed next: keys, then values. Meant to be right, and not absurdly slow. */
#include "kernels/cuda/attention.h"

enum { SIDE = 16, THREADS = SIDE * SIDE };

/* A block's room: what 16 rows see, tiles of 16 rows (`ld` odd: a column's 16 values lie in 16 banks), squares of 16 x 16. */
struct room {
    mx_seen *seen;
    float *tile[3], *square[2];
    int ld;
};
static constexpr int SQUARE_LD = SIDE + 1;
MX_BOTH int ld_of(int head_dim) {
    return head_dim | 1;
}
static size_t room_bytes(int head_dim, int tiles, int squares) {
    return sizeof(mx_seen) * SIDE + sizeof(float) * (size_t)(SIDE * ld_of(head_dim) * tiles + SIDE * SQUARE_LD * squares);
}
MX_DEVICE room room_of(float *shared, int head_dim, int tiles) {
    room r = {};
    float *at = shared + sizeof(mx_seen) * SIDE / sizeof(float);

    r.seen = reinterpret_cast<mx_seen *>(shared);
    r.ld = ld_of(head_dim);
    for (int i = 0; i < 3; i++) {
        r.tile[i] = i < tiles ? at + i * SIDE * r.ld : NULL;
    }
    r.square[0] = at + tiles * SIDE * r.ld;
    r.square[1] = r.square[0] + SIDE * SQUARE_LD;
    return r;
}

MX_DEVICE int thread_row() {
    return (int)threadIdx.x / SIDE;
}
MX_DEVICE int thread_column() {
    return (int)threadIdx.x % SIDE;
}

/* 16 rows of one head, widened; zeros for rows from `live` on. */
template <class T>
MX_DEVICE void load(float *tile, const room &r, const mx_attention_view &a, const void *x, int64_t heads, int64_t head,
                    int32_t first) {
    int32_t row = first + thread_row();
    const T *from = static_cast<const T *>(x) + mx_row_at(row, heads * a.head_dim) + head * a.head_dim;

    for (int d = thread_column(); d < a.head_dim; d += SIDE) {
        tile[thread_row() * r.ld + d] = row < a.live ? mx_float(from[d]) : 0.0f;
    }
}
template <class T, int WIDTH>
MX_DEVICE void store(void *x, const mx_attention_view &a, int64_t heads, int64_t head, int32_t first,
                     const float sum[WIDTH / SIDE], float factor) {
    int32_t row = first + thread_row();
    T *to = static_cast<T *>(x) + mx_row_at(row, heads * a.head_dim) + head * a.head_dim;

#pragma unroll
    for (int j = 0; j < WIDTH / SIDE; j++) {
        int d = thread_column() + SIDE * j;

        if (row < a.rows && d < a.head_dim) {
            to[d] = mx_rounded<T>(sum[j] * factor);
        }
    }
}

/* Row y of one tile times row x of the other. */
MX_DEVICE float dot(const float *x_tile, const float *y_tile, const room &r, int head_dim) {
    const float *y = y_tile + thread_row() * r.ld, *x = x_tile + thread_column() * r.ld;
    float sum[2] = { 0, 0 };

    for (int d = 0; d + 1 < head_dim; d += 2) {
        sum[0] += y[d] * x[d];
        sum[1] += y[d + 1] * x[d + 1];
    }
    return head_dim % 2 ? sum[0] + sum[1] + y[head_dim - 1] * x[head_dim - 1] : sum[0] + sum[1];
}

/* sum += row y of the square times the tile. */
template <int WIDTH>
MX_DEVICE void add_product(float sum[WIDTH / SIDE], const float *square, const float *tile, const room &r, int head_dim) {
    const float *factor = square + thread_row() * SQUARE_LD, *at = tile + thread_column();

#pragma unroll 1
    for (int i = 0; i < SIDE; i++) {
#pragma unroll
        for (int j = 0; j < WIDTH / SIDE; j++) {
            if (thread_column() + SIDE * j < head_dim) {
                sum[j] += factor[i] * at[i * r.ld + SIDE * j];
            }
        }
    }
}
MX_DEVICE void put_square(float *square, float v) {
    square[thread_row() * SQUARE_LD + thread_column()] = v;
}
template <int WIDTH> MX_DEVICE void clear(float x[WIDTH / SIDE]) {
#pragma unroll
    for (int j = 0; j < WIDTH / SIDE; j++) {
        x[j] = 0;
    }
}

/* Over the 16 threads of a row (half a warp). */
MX_DEVICE float row_max(float v) {
    for (int o = SIDE / 2; o > 0; o >>= 1) {
        v = fmaxf(v, __shfl_xor_sync(MX_WARP, v, o));
    }
    return v;
}
MX_DEVICE float row_sum(float v) {
    for (int o = SIDE / 2; o > 0; o >>= 1) {
        v += __shfl_xor_sync(MX_WARP, v, o);
    }
    return v;
}

/* ------------------------------------------------------------------ forward */
template <class T, int WIDTH> static __global__ void __launch_bounds__(THREADS) forward_kernel(mx_attention_view a) {
    MX_DYNAMIC_SHARED(float, shared);
    room r = room_of(shared, a.head_dim, 2);
    float *queries = r.tile[0], *keys = r.tile[1], *square = r.square[0];
    int64_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    int32_t row = (int32_t)(gridDim.x - 1 - blockIdx.x) * SIDE; /* the last rows of long segments, which see most, go first */
    float o[WIDTH / SIDE], top = -INFINITY, sum = 0;

    if (threadIdx.x < SIDE) {
        r.seen[threadIdx.x] = mx_seen_by(a, row + (int32_t)threadIdx.x);
    }
    clear<WIDTH>(o);
    load<T>(queries, r, a, a.q, a.heads, head, row);
    __syncthreads();

    mx_seen seen = r.seen[thread_row()];

    for (int32_t key = mx_key_next(r.seen, SIDE, 0); key != MX_NO_ROW; key = mx_key_next(r.seen, SIDE, key + SIDE)) {
        load<T>(keys, r, a, a.k, a.kv_heads, kv_head, key);
        __syncthreads();

        float s = mx_sees(seen, key + thread_column()) ? dot(keys, queries, r, a.head_dim) * a.scale : -INFINITY;
        float higher = fmaxf(top, row_max(s)), base = higher == -INFINITY ? 0.0f : higher;
        float factor = expf(top - base), p = expf(s - base);

        top = higher;
        sum = sum * factor + row_sum(p);
        put_square(square, p);
        __syncthreads(); /* the keys have been read */
        load<T>(keys, r, a, a.v, a.kv_heads, kv_head, key);
        __syncthreads();
#pragma unroll
        for (int j = 0; j < WIDTH / SIDE; j++) {
            o[j] *= factor;
        }
        add_product<WIDTH>(o, square, keys, r, a.head_dim);
        __syncthreads();
    }
    store<T, WIDTH>(a.o, a, a.heads, head, row, o, sum > 0 ? 1.0f / sum : 0.0f);
    row += thread_row();
    if (thread_column() == 0 && row < a.rows) {
        a.lse[mx_row_at(row, a.heads) + head] = row < a.live ? top + logf(sum) : 0.0f;
    }
}

/* ------------------------------------------------------------------ backward */
template <class T, int WIDTH> static __global__ void __launch_bounds__(THREADS) dq_kernel(mx_attention_view a) {
    MX_DYNAMIC_SHARED(float, shared);
    room r = room_of(shared, a.head_dim, 3);
    float *queries = r.tile[0], *slopes = r.tile[1], *keys = r.tile[2], *square = r.square[0], sum[WIDTH / SIDE];
    int64_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    int32_t row = (int32_t)(gridDim.x - 1 - blockIdx.x) * SIDE;
    mx_query_stat stat = { INFINITY, 0 };

    if (threadIdx.x < SIDE) {
        r.seen[threadIdx.x] = mx_seen_by(a, row + (int32_t)threadIdx.x);
    }
    if (row + thread_row() < a.rows) {
        stat = a.stat[head * a.rows + row + thread_row()];
    }
    clear<WIDTH>(sum);
    load<T>(queries, r, a, a.q, a.heads, head, row);
    load<T>(slopes, r, a, a.d_o, a.heads, head, row);
    __syncthreads();

    mx_seen seen = r.seen[thread_row()];

    for (int32_t key = mx_key_next(r.seen, SIDE, 0); key != MX_NO_ROW; key = mx_key_next(r.seen, SIDE, key + SIDE)) {
        load<T>(keys, r, a, a.v, a.kv_heads, kv_head, key);
        __syncthreads();

        float dp = dot(keys, slopes, r, a.head_dim);

        __syncthreads();
        load<T>(keys, r, a, a.k, a.kv_heads, kv_head, key);
        __syncthreads();

        float s = dot(keys, queries, r, a.head_dim) * a.scale;

        put_square(square, mx_sees(seen, key + thread_column()) ? expf(mx_at_most_zero(s - stat.lse)) * (dp - stat.delta) : 0.0f);
        __syncthreads();
        add_product<WIDTH>(sum, square, keys, r, a.head_dim);
        __syncthreads();
    }
    store<T, WIDTH>(a.dq, a, a.heads, head, row, sum, a.scale);
}

/* Thread (y, x): key y of the tile, query x of those at hand. */
template <class T, int WIDTH> static __global__ void __launch_bounds__(THREADS) dkdv_kernel(mx_attention_view a) {
    MX_DYNAMIC_SHARED(float, shared);
    room r = room_of(shared, a.head_dim, 3);
    float *keys = r.tile[0], *values = r.tile[1], *queries = r.tile[2], dk[WIDTH / SIDE], dv[WIDTH / SIDE];
    int64_t kv_head = blockIdx.y, group = a.heads / a.kv_heads;
    int32_t key = (int32_t)blockIdx.x * SIDE, first = mx_reader_next(a, key, key + SIDE, 0);

    clear<WIDTH>(dk);
    clear<WIDTH>(dv);
    load<T>(keys, r, a, a.k, a.kv_heads, kv_head, key);
    load<T>(values, r, a, a.v, a.kv_heads, kv_head, key);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int32_t row = first; row != MX_NO_ROW; row = mx_reader_next(a, key, key + SIDE, row + SIDE)) {
            int32_t query = row + thread_column();
            bool seen = query < a.rows && mx_sees(a.seen[query], key + thread_row());
            mx_query_stat stat = { INFINITY, 0 };

            if (query < a.rows) {
                stat = a.stat[head * a.rows + query];
            }
            load<T>(queries, r, a, a.q, a.heads, head, row);
            __syncthreads();

            float p = seen ? expf(mx_at_most_zero(dot(queries, keys, r, a.head_dim) * a.scale - stat.lse)) : 0.0f;

            __syncthreads();
            load<T>(queries, r, a, a.d_o, a.heads, head, row);
            __syncthreads();
            put_square(r.square[0], p);
            put_square(r.square[1], p * (dot(queries, values, r, a.head_dim) - stat.delta));
            __syncthreads();
            add_product<WIDTH>(dv, r.square[0], queries, r, a.head_dim);
            __syncthreads();
            load<T>(queries, r, a, a.q, a.heads, head, row);
            __syncthreads();
            add_product<WIDTH>(dk, r.square[1], queries, r, a.head_dim);
            __syncthreads();
        }
    }
    store<T, WIDTH>(a.dk, a, a.kv_heads, kv_head, key, dk, a.scale);
    store<T, WIDTH>(a.dv, a, a.kv_heads, kv_head, key, dv, 1.0f);
}

/* ------------------------------------------------------------------ launches */
template <class T, int WIDTH> static void forward(mx_cuda *c, const mx_attention_view &a) {
    mx_launch(c, "attention", forward_kernel<T, WIDTH>, dim3(mx_blocks(a.rows, SIDE), (unsigned)a.heads), dim3(THREADS),
              room_bytes(a.head_dim, 2, 1), a);
}

template <class T, int WIDTH> static void backward(mx_cuda *c, const mx_attention_view &a) {
    unsigned blocks = mx_blocks(a.rows, SIDE);

    mx_launch(c, "attention dq", dq_kernel<T, WIDTH>, dim3(blocks, (unsigned)a.heads), dim3(THREADS),
              room_bytes(a.head_dim, 3, 1), a);
    mx_launch(c, "attention dk dv", dkdv_kernel<T, WIDTH>, dim3(blocks, (unsigned)a.kv_heads), dim3(THREADS),
              room_bytes(a.head_dim, 3, 2), a);
}

void mx_cuda_attention_plain_forward(mx_cuda *c, const mx_attention_view &a) {
    if (mx_cuda_bf16(c)) {
        forward<mx_bf16, 512>(c, a);
    } else {
        a.head_dim <= 128 ? forward<float, 128>(c, a) : forward<float, 512>(c, a);
    }
}

void mx_cuda_attention_plain_backward(mx_cuda *c, const mx_attention_view &a) {
    if (mx_cuda_bf16(c)) {
        backward<mx_bf16, 512>(c, a);
    } else {
        a.head_dim <= 128 ? backward<float, 128>(c, a) : backward<float, 512>(c, a);
    }
}
