/* attention_bf16_backward.cu - attention's gradients on tensor cores.
 *
 *   P = exp(S - lse), dP = dO V^T, dS = P . (dP - delta), dQ = dS K / sqrt(D), dK = dS^T Q / sqrt(D), dV = P^T dO
 *
 * in two kernels that both compute P anew from lse: one for each tile of queries, whose dQ stays in registers while it walks
 * over keys, and one for each tile of keys, whose dK and dV stay there while it walks over the rows that read them and over the
 * query heads of its group, in this order. Nothing is added by two blocks, so the sums have one order. The second works on
 * S^T = K Q^T, so that P^T and dS^T come out of the tensor cores as first factors, as P does in forward.
 * Either walk has the next tile on its way (STAGES 2) while it multiplies one. */
#include "kernels/cuda/attention.h"

static constexpr int THREADS = 128;
static constexpr float LOG2E = 1.44269504088896340736f;

/* OWN: rows a block has for itself, 16 to a warp; STEP: rows it walks by. Two tiles of each: 70 KB for D = 128, 85 KB for 256.
 * COLUMNS of dK and dV to a block: both together are D values a lane. */
template <int DP> struct backward_tiles {
    static constexpr int OWN = 64, STEP = DP <= 128 ? 32 : 16, STAGES = DP <= 128 ? 2 : 1, COLUMNS = DP <= 128 ? DP : 128;
    static constexpr bool KEPT = DP <= 128; /* Q and dO in registers, for dQ */
    static constexpr int LD = mx_tile_ld<DP>;
    static constexpr size_t SHARED = sizeof(mx_bf16) * LD * (2 * OWN + 2 * STAGES * STEP);
    static constexpr size_t DQ_SHARED = SHARED + sizeof(mx_seen) * OWN;
    static constexpr size_t DKDV_SHARED = SHARED + (sizeof(mx_seen) + sizeof(mx_query_stat)) * STAGES * STEP;
};

template <int N> MX_DEVICE void clear(float x[N][4]) {
#pragma unroll
    for (int j = 0; j < 4 * N; j++) {
        x[j / 4][j % 4] = 0;
    }
}

/* ------------------------------------------------------------------ dq */
/* One group of 16 keys for the warp's 16 queries: dS into dp. */
template <int DP>
MX_DEVICE void slope_of_keys(float dp[2][4], const float s[2][4], const mx_seen seen[2], const mx_query_stat stat[2],
                             int32_t key, bool all, float scale) {
    int lane = (int)threadIdx.x % 32;

#pragma unroll
    for (int e = 0; e < 8; e++) {
        int half = e % 4 / 2;
        int32_t column = key + e / 4 * 8 + lane % 4 * 2 + e % 2;
        float p = exp2f(mx_at_most_zero(s[e / 4][e % 4] * scale - stat[half].lse));

        p = all || mx_sees(seen[half], column) ? p : 0.0f;
        dp[e / 4][e % 4] = p * (dp[e / 4][e % 4] - stat[half].delta);
    }
}

template <int DP> static __global__ void __launch_bounds__(THREADS) dq_kernel(mx_attention_view a) {
    using tiles = backward_tiles<DP>;
    constexpr int LD = tiles::LD, STAGE = tiles::STEP * LD;
    MX_DYNAMIC_SHARED(mx_bf16, shared);
    mx_bf16 *queries = shared, *slopes = queries + tiles::OWN * LD;
    mx_bf16 *keys = slopes + tiles::OWN * LD, *values = keys + tiles::STAGES * STAGE;
    mx_seen *seen = reinterpret_cast<mx_seen *>(values + tiles::STAGES * STAGE);
    int lane = (int)threadIdx.x % 32, strip = (int)threadIdx.x / 32 * 16;
    int64_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads);
    int64_t wide = (int64_t)a.heads * a.head_dim, thin = (int64_t)a.kv_heads * a.head_dim;
    int32_t row = (int32_t)(gridDim.x - 1 - blockIdx.x) * tiles::OWN;
    const mx_bf16 *k = static_cast<const mx_bf16 *>(a.k) + kv_head * a.head_dim;
    const mx_bf16 *v = static_cast<const mx_bf16 *>(a.v) + kv_head * a.head_dim;

    if ((int)threadIdx.x < tiles::OWN) {
        mx_seen none = { 0, 0, 0, 0 };
        int32_t at = row + (int32_t)threadIdx.x;

        seen[threadIdx.x] = at < a.rows ? a.seen[at] : none;
    }
    mx_tile_load<DP, tiles::OWN>(queries, static_cast<const mx_bf16 *>(a.q) + head * a.head_dim, wide, row, a);
    mx_tile_load<DP, tiles::OWN>(slopes, static_cast<const mx_bf16 *>(a.d_o) + head * a.head_dim, wide, row, a);
    mx_cp_async_commit();
    __syncthreads();

    int32_t key = mx_key_next(seen, tiles::OWN, 0);

    if (key != MX_NO_ROW) {
        mx_tile_load<DP, tiles::STEP>(keys, k, thin, key, a);
        mx_tile_load<DP, tiles::STEP>(values, v, thin, key, a);
    }
    mx_cp_async_commit();
    mx_cp_async_wait<1>();
    __syncthreads();

    mx_rows16<DP, tiles::KEPT> q, d_o;
    mx_seen mine[2] = { seen[strip + lane / 4], seen[strip + lane / 4 + 8] };
    mx_query_stat stat[2] = { { INFINITY, 0 }, { INFINITY, 0 } };
    float sum[DP / 8][4];

    mx_rows16_take(q, queries + strip * LD);
    mx_rows16_take(d_o, slopes + strip * LD);
    clear<DP / 8>(sum);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int32_t at = row + strip + lane / 4 + 8 * half;

        if (at < a.rows) {
            stat[half] = a.stat[head * a.rows + at];
        }
        stat[half].lse *= LOG2E;
    }
    for (int stage = 0; key != MX_NO_ROW; stage = (stage + 1) % tiles::STAGES) {
        int32_t next = mx_key_next(seen, tiles::OWN, key + tiles::STEP);
        int other = (stage + 1) % tiles::STAGES;

        mx_cp_async_wait<0>();
        __syncthreads(); /* this stage is there, and nobody reads the other any more */
        if (tiles::STAGES > 1 && next != MX_NO_ROW) {
            mx_tile_load<DP, tiles::STEP>(keys + other * STAGE, k, thin, next, a);
            mx_tile_load<DP, tiles::STEP>(values + other * STAGE, v, thin, next, a);
        }
        mx_cp_async_commit();

        mx_groups g = mx_groups_of_keys<tiles::STEP>(seen + strip, key);

#pragma unroll 1
        for (int j = 0; j < tiles::STEP / 16; j++) {
            if (g.any >> j & 1) {
                const mx_bf16 *at = keys + stage * STAGE + 16 * j * LD;
                float s[2][4], dp[2][4];

                mx_product_16<DP>(s, q, mx_lane_columns<DP>(at));
                mx_product_16<DP>(dp, d_o, mx_lane_columns<DP>(values + stage * STAGE + 16 * j * LD));
                slope_of_keys<DP>(dp, s, mine, stat, key + 16 * j, g.all >> j & 1, a.scale * LOG2E);
                mx_product_add<DP>(sum, dp, mx_lane_rows<DP>(at));
            }
        }
        if (tiles::STAGES == 1) {
            __syncthreads();
            if (next != MX_NO_ROW) {
                mx_tile_load<DP, tiles::STEP>(keys, k, thin, next, a);
                mx_tile_load<DP, tiles::STEP>(values, v, thin, next, a);
            }
            mx_cp_async_commit();
        }
        key = next;
    }
    __syncwarp();
    mx_sums_put<DP, DP>(queries + strip * LD, sum, a.scale, a.scale);
    __syncwarp();
    mx_tile_store<DP, DP>(static_cast<mx_bf16 *>(a.dq) + head * a.head_dim, queries + strip * LD, wide, row + strip, 0, a);
}

/* ------------------------------------------------------------------ dk, dv */
/* Where the walk over queries stands: at rows [row, row + STEP) of a head. At its end row is MX_NO_ROW. */
struct walk {
    int32_t row;
    int64_t head;
};

/* The first rows from w.row on that read a key of the tile; where there are none, those of the next head, which begin at `first`.
 * `ahead` is what this lane's row w.row + lane sees, asked for in time (seen_ahead). */
MX_DEVICE walk walk_on(const mx_attention_view &a, walk w, int32_t begin, int32_t end, int32_t first, int64_t heads_end,
                       mx_seen ahead) {
    uint32_t readers = __ballot_sync(MX_WARP, mx_sees_any(ahead, begin, end));

    if (readers) {
        w.row += __ffs((int)readers) - 1;
        return w;
    }
    w.row = mx_reader_next(a, begin, end, w.row + 32);
    if (w.row == MX_NO_ROW && w.head + 1 < heads_end) {
        w.row = first;
        w.head++;
    }
    return w;
}
MX_DEVICE mx_seen seen_ahead(const mx_attention_view &a, int32_t row) {
    mx_seen none = { 0, 0, 0, 0 };

    row += (int32_t)threadIdx.x % 32;
    return row < a.rows ? a.seen[row] : none;
}

/* One stage of the walk in shared memory. */
template <int DP> struct query_stage {
    mx_bf16 *queries, *slopes;
    mx_seen *seen;
    mx_query_stat *stat;
};
/* Stage i of those that begin at `all`. */
template <int DP> MX_DEVICE query_stage<DP> stage_of(const query_stage<DP> &all, int i) {
    constexpr int STEP = backward_tiles<DP>::STEP, VALUES = STEP * backward_tiles<DP>::LD;

    return { all.queries + i * VALUES, all.slopes + i * VALUES, all.seen + i * STEP, all.stat + i * STEP };
}
template <int DP> MX_DEVICE void stage_load(const query_stage<DP> &s, const mx_attention_view &a, walk w) {
    constexpr int STEP = backward_tiles<DP>::STEP;
    int64_t wide = (int64_t)a.heads * a.head_dim;
    int i = (int)threadIdx.x;

    mx_tile_load<DP, STEP>(s.queries, static_cast<const mx_bf16 *>(a.q) + w.head * a.head_dim, wide, w.row, a);
    mx_tile_load<DP, STEP>(s.slopes, static_cast<const mx_bf16 *>(a.d_o) + w.head * a.head_dim, wide, w.row, a);
    if (i < STEP) {
        mx_seen none = { 0, 0, 0, 0 };
        mx_query_stat stat = { INFINITY, 0 };
        bool there = w.row + i < a.live;

        if (there) {
            stat = a.stat[w.head * a.rows + w.row + i];
            stat.lse *= LOG2E;
        }
        s.seen[i] = there ? a.seen[w.row + i] : none;
        s.stat[i] = stat;
    }
}

/* One group of 16 queries for the warp's 16 keys: P^T into s, dS^T into dp. seen and stat are the group's. */
MX_DEVICE void slope_of_queries(float s[2][4], float dp[2][4], const mx_seen *seen, const mx_query_stat *stat, int32_t key,
                                bool all, float scale) {
    int lane = (int)threadIdx.x % 32;

#pragma unroll
    for (int e = 0; e < 8; e++) {
        int query = e / 4 * 8 + lane % 4 * 2 + e % 2;
        mx_query_stat q = stat[query];
        float p = exp2f(mx_at_most_zero(s[e / 4][e % 4] * scale - q.lse));

        p = all || mx_sees(seen[query], key + lane / 4 + e % 4 / 2 * 8) ? p : 0.0f;
        s[e / 4][e % 4] = p;
        dp[e / 4][e % 4] = p * (dp[e / 4][e % 4] - q.delta);
    }
}

template <int DP> static __global__ void __launch_bounds__(THREADS) dkdv_kernel(mx_attention_view a) {
    using tiles = backward_tiles<DP>;
    constexpr int LD = tiles::LD, STAGE = tiles::STEP * LD;
    MX_DYNAMIC_SHARED(mx_bf16, shared);
    mx_bf16 *keys = shared, *values = keys + tiles::OWN * LD;
    mx_bf16 *queries = values + tiles::OWN * LD, *slopes = queries + tiles::STAGES * STAGE;
    mx_seen *seen = reinterpret_cast<mx_seen *>(slopes + tiles::STAGES * STAGE);
    query_stage<DP> stages = { queries, slopes, seen, reinterpret_cast<mx_query_stat *>(seen + tiles::STAGES * tiles::STEP) };
    int strip = (int)threadIdx.x / 32 * 16, column = (int)blockIdx.z * tiles::COLUMNS;
    int64_t kv_head = blockIdx.y, group = a.heads / a.kv_heads, heads_end = (kv_head + 1) * group;
    int64_t thin = (int64_t)a.kv_heads * a.head_dim, at = kv_head * a.head_dim;
    int32_t key = (int32_t)blockIdx.x * tiles::OWN, key_end = key + tiles::OWN;
    int32_t first = mx_reader_next(a, key, key_end, 0);
    walk w = { first, kv_head * group }, next = w;

    mx_tile_load<DP, tiles::OWN>(keys, static_cast<const mx_bf16 *>(a.k) + at, thin, key, a);
    mx_tile_load<DP, tiles::OWN>(values, static_cast<const mx_bf16 *>(a.v) + at, thin, key, a);
    if (first != MX_NO_ROW) {
        stage_load<DP>(stages, a, w);
        next = walk_on(a, { first + tiles::STEP, w.head }, key, key_end, first, heads_end, seen_ahead(a, first + tiles::STEP));
    }
    mx_cp_async_commit();

    mx_rows16<DP, false> k, v;
    float dk[tiles::COLUMNS / 8][4], dv[tiles::COLUMNS / 8][4];

    mx_rows16_take(k, keys + strip * LD);
    mx_rows16_take(v, values + strip * LD);
    clear<tiles::COLUMNS / 8>(dk);
    clear<tiles::COLUMNS / 8>(dv);
    for (int stage = 0; w.row != MX_NO_ROW; stage = (stage + 1) % tiles::STAGES) {
        mx_cp_async_wait<0>();
        __syncthreads(); /* this stage is there, and nobody reads the other any more */
        if (tiles::STAGES > 1 && next.row != MX_NO_ROW) {
            stage_load<DP>(stage_of(stages, (stage + 1) % tiles::STAGES), a, next);
        }
        mx_cp_async_commit();

        walk after = next;
        mx_seen ahead = { 0, 0, 0, 0 };

        if (next.row != MX_NO_ROW) {
            after.row += tiles::STEP;
            ahead = seen_ahead(a, after.row); /* needed when this stage has been multiplied */
        }
        query_stage<DP> here = stage_of(stages, stage);
        mx_groups g = mx_groups_of_queries<tiles::STEP>(here.seen, key + strip);

#pragma unroll 1
        for (int j = 0; j < tiles::STEP / 16; j++) {
            if (g.any >> j & 1) {
                const mx_bf16 *q = here.queries + 16 * j * LD, *d_o = here.slopes + 16 * j * LD;
                float s[2][4], dp[2][4];

                mx_product_16<DP>(s, k, mx_lane_columns<DP>(q));
                mx_product_16<DP>(dp, v, mx_lane_columns<DP>(d_o));
                slope_of_queries(s, dp, here.seen + 16 * j, here.stat + 16 * j, key + strip, g.all >> j & 1, a.scale * LOG2E);
                mx_product_add<tiles::COLUMNS>(dv, s, mx_lane_rows<DP>(d_o) + column);
                mx_product_add<tiles::COLUMNS>(dk, dp, mx_lane_rows<DP>(q) + column);
            }
        }
        if (tiles::STAGES == 1) {
            __syncthreads();
            if (next.row != MX_NO_ROW) {
                stage_load<DP>(stages, a, next);
            }
            mx_cp_async_commit();
        }
        w = next;
        if (next.row != MX_NO_ROW) {
            next = walk_on(a, after, key, key_end, first, heads_end, ahead);
        }
    }
    mx_cp_async_wait<0>();
    __syncthreads(); /* where nobody reads the tile, its keys may still be on their way to where the zeros go */
    mx_sums_put<DP, tiles::COLUMNS>(keys + strip * LD, dk, a.scale, a.scale);
    mx_sums_put<DP, tiles::COLUMNS>(values + strip * LD, dv, 1.0f, 1.0f);
    __syncwarp();
    mx_tile_store<DP, tiles::COLUMNS>(static_cast<mx_bf16 *>(a.dk) + at, keys + strip * LD, thin, key + strip, column, a);
    mx_tile_store<DP, tiles::COLUMNS>(static_cast<mx_bf16 *>(a.dv) + at, values + strip * LD, thin, key + strip, column, a);
}

template <int DP> static void backward(mx_cuda *c, const mx_attention_view &a) {
    using tiles = backward_tiles<DP>;
    unsigned blocks = mx_blocks(a.rows, tiles::OWN);

    mx_launch(c, "attention dq", dq_kernel<DP>, dim3(blocks, (unsigned)a.heads), dim3(THREADS), tiles::DQ_SHARED, a);
    mx_launch(c, "attention dk dv", dkdv_kernel<DP>, dim3(blocks, (unsigned)a.kv_heads, DP / tiles::COLUMNS), dim3(THREADS),
              tiles::DKDV_SHARED, a);
}

void mx_cuda_attention_bf16_backward(mx_cuda *c, const mx_attention_view &a) {
    int d = a.head_dim;

    assert(d <= MX_ATTENTION_BF16_WIDEST);
    if (d <= 64) {
        backward<64>(c, a);
    } else if (d <= 80) {
        backward<80>(c, a);
    } else if (d <= 96) {
        backward<96>(c, a);
    } else if (d <= 128) {
        backward<128>(c, a);
    } else {
        backward<256>(c, a);
    }
}
