/* attention.h - what attention's kernels share: which keys a row sees, tiles in shared memory, products of them.
 *
 * Rows are packed, and tiles run over them without looking at where segments begin: what a row sees is two runs of keys (its
 * segment's prefix and its segment up to itself), and a tile of queries walks from the first key that any of its rows sees to
 * the next one that it has not met yet. So the grid depends on rows and heads alone, nothing outside the runs is loaded but
 * what fills up a tile, and a tile's elementwise mask is needed only where some row does not see all of it.
 *
 *   attention.cu            the ops, and what backward needs beforehand
 *   attention_plain.cu      f32 (and bf16 heads wider than 256): plain FMA
 *   attention_bf16.cu       bf16 forward on tensor cores       (FlashAttention-2, arXiv:2307.08691, algorithm 1)
 *   attention_bf16_backward.cu  dq by tiles of queries, dk and dv by tiles of keys: nothing is added by two blocks
 *
 * Rounding: scores, exponentials and sums are f32 as on the CPU. Where a probability or its gradient is a factor of a
 * tensor-core product it is rounded to bf16 first (2^-9 of each term; the CPU keeps f32). */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/cuda.h"

/* Rows are counted in int32_t (as in mx_segment); a tile may reach this far past the last one. */
static constexpr int64_t MX_ATTENTION_ROWS_MOST = INT32_MAX - 1024;
static constexpr int32_t MX_NO_ROW = INT32_MAX;
static constexpr int MX_SEEN_BLOCK = 32; /* rows to an entry of mx_attention_view.seen_block */

/* Rows of `stride` values: where one begins. Rows times heads times D passes 2^31 long before rows do. */
static __host__ __device__ __forceinline__ constexpr int64_t mx_row_at(int32_t row, int64_t stride) {
    return row * stride;
}
static_assert(MX_ATTENTION_ROWS_MOST + 1024 <= INT32_MAX &&
                  mx_row_at((int32_t)MX_ATTENTION_ROWS_MOST, (int64_t)65535 * 512) == 72056460133532160,
              "a tile that begins at the last row, and the last row of the widest batch, are still counted right");

/* The keys a row sees: [prefix, prefix_end) and [own, own_end); a run may be empty. */
struct alignas(16) mx_seen {
    int32_t prefix, prefix_end, own, own_end;
};

/* P is exp of this: at most 1, however the score was rounded that forward saw. A NaN stays one. */
MX_DEVICE float mx_at_most_zero(float x) {
    return x > 0.0f ? 0.0f : x;
}

/* What backward knows of a query of one head. A row of padding: lse +infinity, so that its probabilities are 0. */
struct alignas(8) mx_query_stat {
    float lse, delta; /* delta = rowsum(dO . O) */
};

/* An mx_attention as kernels see it. */
struct mx_attention_view {
    const void *q, *k, *v;
    void *o;
    float *lse;
    const void *d_o;
    void *dq, *dk, *dv;
    const int32_t *row_segment;
    const mx_segment *segment;
    int32_t rows, live, heads, kv_heads, head_dim;
    float scale;  /* 1 / sqrt(D) */
    bool aligned; /* every row of every head begins at a multiple of 16 bytes, and D is a multiple of 8 */
    /* backward's scratch */
    mx_seen *seen;       /* (rows) */
    mx_seen *seen_block; /* the smallest runs that hold those of 32 rows */
    mx_query_stat *stat; /* (H, rows) */
};

void mx_cuda_attention_plain_forward(mx_cuda *c, const mx_attention_view &a);
void mx_cuda_attention_plain_backward(mx_cuda *c, const mx_attention_view &a);
void mx_cuda_attention_bf16_forward(mx_cuda *c, const mx_attention_view &a);
void mx_cuda_attention_bf16_backward(mx_cuda *c, const mx_attention_view &a);
static constexpr int MX_ATTENTION_BF16_WIDEST = 256;

/* ------------------------------------------------------------------ who sees what */
MX_DEVICE int32_t mx_least(int32_t a, int32_t b) {
    return a < b ? a : b;
}
MX_DEVICE int32_t mx_greatest(int32_t a, int32_t b) {
    return a > b ? a : b;
}

/* Of any row: past `live` it sees nothing. A prefix that ends where its segment begins makes one run with it. */
MX_DEVICE mx_seen mx_seen_by(const mx_attention_view &a, int32_t row) {
    mx_seen seen = { 0, 0, 0, 0 };

    if (row < a.live) {
        mx_segment s = a.segment[a.row_segment[row]];

        seen.own = s.begin;
        seen.own_end = row + 1;
        if (s.prefix_count > 0 && s.prefix_begin + s.prefix_count == s.begin) {
            seen.own = s.prefix_begin;
        } else if (s.prefix_count > 0) {
            seen.prefix = s.prefix_begin;
            seen.prefix_end = s.prefix_begin + s.prefix_count;
        }
    }
    return seen;
}
MX_DEVICE bool mx_sees(const mx_seen &s, int32_t key) {
    return (key >= s.own && key < s.own_end) || (key >= s.prefix && key < s.prefix_end);
}
MX_DEVICE bool mx_sees_any(const mx_seen &s, int32_t begin, int32_t end) {
    return mx_greatest(begin, s.own) < mx_least(end, s.own_end) || mx_greatest(begin, s.prefix) < mx_least(end, s.prefix_end);
}
MX_DEVICE bool mx_sees_all(const mx_seen &s, int32_t begin, int32_t end) {
    return (begin >= s.own && end <= s.own_end) || (begin >= s.prefix && end <= s.prefix_end);
}

/* The first key from `key` on that one of `count` rows sees, or MX_NO_ROW; every lane of the warp asks and is told. */
MX_DEVICE int32_t mx_key_next(const mx_seen *seen, int count, int32_t key) {
    int32_t next = MX_NO_ROW;

    for (int i = (int)threadIdx.x % 32; i < count; i += 32) {
        int32_t own = mx_greatest(key, seen[i].own), prefix = mx_greatest(key, seen[i].prefix);

        next = mx_least(next, own < seen[i].own_end ? own : MX_NO_ROW);
        next = mx_least(next, prefix < seen[i].prefix_end ? prefix : MX_NO_ROW);
    }
    for (int o = 16; o > 0; o >>= 1) {
        next = mx_least(next, __shfl_xor_sync(MX_WARP, next, o));
    }
    return next;
}

/* The inverse: the first row from `from` on that sees one of the keys [begin, end), or MX_NO_ROW, asked by a whole warp. */
MX_DEVICE int32_t mx_reader_next(const mx_attention_view &a, int32_t begin, int32_t end, int32_t from) {
    int lane = (int)threadIdx.x % 32;
    int32_t blocks = (a.rows + MX_SEEN_BLOCK - 1) / MX_SEEN_BLOCK;

    for (int32_t first = from / MX_SEEN_BLOCK; first < blocks; first += 32) {
        bool near = first + lane < blocks && mx_sees_any(a.seen_block[first + lane], begin, end);
        uint32_t candidates = __ballot_sync(MX_WARP, near);

        while (candidates) { /* the same in all lanes */
            int32_t block = first + __ffs((int)candidates) - 1, row = block * MX_SEEN_BLOCK + lane;
            bool reads = row >= from && row < a.rows && mx_sees_any(a.seen[row], begin, end);
            uint32_t readers = __ballot_sync(MX_WARP, reads);

            if (readers) {
                return block * MX_SEEN_BLOCK + __ffs((int)readers) - 1;
            }
            candidates &= candidates - 1;
        }
    }
    return MX_NO_ROW;
}

/* ------------------------------------------------------------------ tiles of bf16
 * Rows of a tile lie DP + 8 values apart, an odd number of 16-byte pieces, so that the eight rows of an ldmatrix touch all
 * banks once. DP is D or the next width there is an instance for; columns from D on are zeros. */
template <int DP> static constexpr int mx_tile_ld = DP + 8;

/* Row r of the tile = columns [0, D) of row first + r at `x` (rows `stride` values apart), zeros for rows from `live` on. Goes on
 * its way (cp.async); commit, wait and __syncthreads are the caller's. By all threads of the block. */
template <int DP, int ROWS>
MX_DEVICE void mx_tile_load(mx_bf16 *tile, const mx_bf16 *x, int64_t stride, int32_t first, const mx_attention_view &a) {
    constexpr int PIECES = DP / 8;

    for (int i = (int)threadIdx.x; i < ROWS * PIECES; i += (int)blockDim.x) {
        int row = i / PIECES, column = i % PIECES * 8;
        bool there = first + row < a.live && column < a.head_dim;
        const mx_bf16 *from = there ? x + mx_row_at(first + row, stride) + column : x;
        mx_bf16 *to = tile + row * mx_tile_ld<DP> + column;

        if (a.aligned) {
            mx_cp_async16(to, from, there ? 16 : 0);
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                mx_bf16 zero = { 0 };

                to[j] = there && column + j < a.head_dim ? from[j] : zero;
            }
        }
    }
}

/* 16 rows of a tile, by one warp, to columns [column, column + COLUMNS) of rows first.. at `x`; rows from `rows` on and
 * columns from D on are left out. */
template <int DP, int COLUMNS>
MX_DEVICE void mx_tile_store(mx_bf16 *x, const mx_bf16 *tile, int64_t stride, int32_t first, int column,
                             const mx_attention_view &a) {
    constexpr int PIECES = COLUMNS / 8;

    for (int i = (int)threadIdx.x % 32; i < 16 * PIECES; i += 32) {
        int row = i / PIECES, c = i % PIECES * 8;

        if (first + row >= a.rows || column + c >= a.head_dim) {
            continue;
        }
        const mx_bf16 *from = tile + row * mx_tile_ld<DP> + c;
        mx_bf16 *to = x + mx_row_at(first + row, stride) + column + c;

        if (a.aligned) {
            *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
        } else {
            for (int j = 0; j < 8 && column + c + j < a.head_dim; j++) {
                to[j] = from[j];
            }
        }
    }
}

/* Where this lane points to load 16 x 16 values as an mma's first factor; or, transposed, as the second factor of a product
 * that sums over the tile's rows. */
template <int DP> MX_DEVICE const mx_bf16 *mx_lane_rows(const mx_bf16 *tile) {
    int lane = (int)threadIdx.x % 32;

    return tile + lane % 16 * mx_tile_ld<DP> + lane / 16 * 8;
}
/* ... as the second factor of a product that sums over columns: of two 8-column blocks, r[0], r[1] and r[2], r[3]. */
template <int DP> MX_DEVICE const mx_bf16 *mx_lane_columns(const mx_bf16 *tile) {
    int lane = (int)threadIdx.x % 32;

    return tile + (lane % 8 + lane / 16 * 8) * mx_tile_ld<DP> + lane / 8 % 2 * 8;
}

/* The first factor of a product over D: 16 rows of a tile, kept in registers or read again for each use. */
template <int DP, bool KEPT> struct mx_rows16 {
    uint32_t r[KEPT ? DP / 16 : 1][4];
    const mx_bf16 *at;
};
template <int DP, bool KEPT> MX_DEVICE void mx_rows16_take(mx_rows16<DP, KEPT> &x, const mx_bf16 *tile) {
    x.at = mx_lane_rows<DP>(tile);
    if constexpr (KEPT) {
#pragma unroll
        for (int i = 0; i < DP / 16; i++) {
            mx_ldmatrix_x4(x.r[i], x.at + 16 * i);
        }
    }
}

/* c (16 x 16, as two fragments of 8 columns) = a b^T, b 16 rows of a tile at mx_lane_columns. */
template <int DP, bool KEPT> MX_DEVICE void mx_product_16(float c[2][4], mx_rows16<DP, KEPT> &a, const mx_bf16 *b) {
#pragma unroll
    for (int e = 0; e < 8; e++) {
        c[e / 4][e % 4] = 0;
    }
#pragma unroll
    for (int i = 0; i < DP / 16; i++) {
        uint32_t pair[4];

        if constexpr (!KEPT) {
            mx_ldmatrix_x4(a.r[0], a.at + 16 * i);
        }
        mx_ldmatrix_x4(pair, b + 16 * i);
        mx_mma_bf16(c[0], a.r[KEPT ? i : 0], pair, c[0]);
        mx_mma_bf16(c[1], a.r[KEPT ? i : 0], pair + 2, c[1]);
    }
}

/* sum (16 x COLUMNS) += p (16 x 16) x, x 16 rows of a tile at mx_lane_rows. p's fragments as mx_product_16 leaves them,
 * rounded. */
template <int COLUMNS> MX_DEVICE void mx_product_add(float sum[COLUMNS / 8][4], const float p[2][4], const mx_bf16 *x) {
    uint32_t a[4] = { mx_bf16_pair(p[0][0], p[0][1]), mx_bf16_pair(p[0][2], p[0][3]),
                      mx_bf16_pair(p[1][0], p[1][1]), mx_bf16_pair(p[1][2], p[1][3]) };

#pragma unroll
    for (int i = 0; i < COLUMNS / 16; i++) {
        uint32_t pair[4];

        mx_ldmatrix_x4_transposed(pair, x + 16 * i);
        mx_mma_bf16(sum[2 * i], a, pair, sum[2 * i]);
        mx_mma_bf16(sum[2 * i + 1], a, pair + 2, sum[2 * i + 1]);
    }
}

/* A warp's 16 rows of sums, times a factor for each half of them, to 16 rows of a tile (columns from 0). */
template <int DP, int COLUMNS>
MX_DEVICE void mx_sums_put(mx_bf16 *tile, const float sum[COLUMNS / 8][4], float upper, float lower) {
    int lane = (int)threadIdx.x % 32;
    mx_bf16 *to = tile + lane / 4 * mx_tile_ld<DP> + lane % 4 * 2;

#pragma unroll
    for (int i = 0; i < COLUMNS / 8; i++) {
        *reinterpret_cast<uint32_t *>(to + 8 * i) = mx_bf16_pair(sum[i][0] * upper, sum[i][1] * upper);
        *reinterpret_cast<uint32_t *>(to + 8 * mx_tile_ld<DP> + 8 * i) = mx_bf16_pair(sum[i][2] * lower, sum[i][3] * lower);
    }
}

/* Of a strip of 16 rows (or keys) against groups of 16 on the other side, bit j for group j: whether any pair of it is seen, and
 * whether all are. */
struct mx_groups {
    uint32_t any, all;
};
MX_DEVICE void mx_groups_add(mx_groups &g, int pair, bool any, bool all) {
    uint32_t a = __ballot_sync(MX_WARP, any), b = __ballot_sync(MX_WARP, all);

    g.any |= ((a & 0xffffu ? 1u : 0u) | (a >> 16 ? 2u : 0u)) << (2 * pair);
    g.all |= (((b & 0xffffu) == 0xffffu ? 1u : 0u) | (b >> 16 == 0xffffu ? 2u : 0u)) << (2 * pair);
}
/* Groups of keys from `key` on, for 16 query rows. Half a warp to a group, a row to a lane. */
template <int KEYS> MX_DEVICE mx_groups mx_groups_of_keys(const mx_seen *seen, int32_t key) {
    int lane = (int)threadIdx.x % 32;
    mx_seen row = seen[lane % 16];
    mx_groups g = { 0, 0 };

#pragma unroll
    for (int pair = 0; pair < (KEYS + 31) / 32; pair++) {
        int at = 32 * pair + lane / 16 * 16;
        bool there = at < KEYS;

        mx_groups_add(g, pair, there && mx_sees_any(row, key + at, key + at + 16),
                      there && mx_sees_all(row, key + at, key + at + 16));
    }
    return g;
}
/* Groups of query rows, for the 16 keys from `key` on. */
template <int QUERIES> MX_DEVICE mx_groups mx_groups_of_queries(const mx_seen *seen, int32_t key) {
    int lane = (int)threadIdx.x % 32;
    mx_groups g = { 0, 0 };

#pragma unroll
    for (int pair = 0; pair < (QUERIES + 31) / 32; pair++) {
        int at = 32 * pair + lane;
        bool there = at < QUERIES;
        mx_seen row = seen[there ? at : 0];

        mx_groups_add(g, pair, there && mx_sees_any(row, key, key + 16), there && mx_sees_all(row, key, key + 16));
    }
    return g;
}

#endif
