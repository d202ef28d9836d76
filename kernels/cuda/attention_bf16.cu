/* attention_bf16.cu - attention forward on tensor cores: 64 queries of one head against tiles of keys, a warp to 16 of them.
 *
 * Scores never leave registers: S = Q K^T comes out of the tensor cores in the layout in which P goes back in as the first
 * factor of P V. The softmax runs along with running maxima and sums (arXiv:2307.08691, algorithm 1), in base 2.
 * While K's tile is multiplied V's is on its way, and the next K while V's is. */
#include "kernels/cuda/attention.h"

static constexpr int THREADS = 128;
static constexpr float LOG2E = 1.44269504088896340736f, LN2 = 0.69314718055994530942f;

template <int DP> struct forward_tiles {
    static constexpr int QUERIES = 64, KEYS = DP <= 128 ? 64 : 32;
    static constexpr bool KEPT = DP <= 128; /* Q in registers */
    static constexpr int LD = mx_tile_ld<DP>;
    static constexpr size_t SHARED = sizeof(mx_bf16) * LD * (QUERIES + 2 * KEYS) + sizeof(mx_seen) * QUERIES;
};

/* One lane's part of a warp's 16 queries: rows lane / 4 and that + 8. */
template <int DP> struct running {
    float o[DP / 8][4];
    float top[2], sum[2]; /* of scores times log2 e / sqrt(D); sum: over this lane's columns alone */
};

/* s = q k^T with -infinity where it is not seen; groups of 16 keys of which nothing is seen are left out, here and below. */
template <int DP>
MX_DEVICE void scores_of(float s[forward_tiles<DP>::KEYS / 8][4], mx_rows16<DP, forward_tiles<DP>::KEPT> &q, const mx_bf16 *keys,
                         const mx_seen *seen, int32_t key, mx_groups g) {
    int lane = (int)threadIdx.x % 32;

#pragma unroll
    for (int j = 0; j < forward_tiles<DP>::KEYS / 16; j++) {
        if (!(g.any >> j & 1)) {
            continue;
        }
        mx_product_16<DP>(s + 2 * j, q, keys + 16 * j * forward_tiles<DP>::LD);
        if (!(g.all >> j & 1)) {
            mx_seen upper = seen[lane / 4], lower = seen[lane / 4 + 8];

#pragma unroll
            for (int e = 0; e < 8; e++) {
                if (!mx_sees(e % 4 < 2 ? upper : lower, key + 16 * j + e / 4 * 8 + lane % 4 * 2 + e % 2)) {
                    s[2 * j + e / 4][e % 4] = -INFINITY;
                }
            }
        }
    }
}

/* s becomes p = 2^(s scale - top) with the rows' new tops; what was summed under the old ones is brought under them. */
template <int DP> MX_DEVICE void soften(running<DP> &r, float s[forward_tiles<DP>::KEYS / 8][4], float scale, mx_groups g) {
    constexpr int BLOCKS = forward_tiles<DP>::KEYS / 8;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = -INFINITY, sum = 0;

#pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            if (g.any >> (j / 2) & 1) {
                top = fmaxf(top, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
            }
        }
        top = fmaxf(top, __shfl_xor_sync(MX_WARP, top, 1));
        top = fmaxf(fmaxf(top, __shfl_xor_sync(MX_WARP, top, 2)) * scale, r.top[half]);

        float base = top == -INFINITY ? 0.0f : top, factor = exp2f(r.top[half] - base);

        r.top[half] = top;
#pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            if (g.any >> (j / 2) & 1) {
                s[j][2 * half] = exp2f(s[j][2 * half] * scale - base);
                s[j][2 * half + 1] = exp2f(s[j][2 * half + 1] * scale - base);
                sum += s[j][2 * half] + s[j][2 * half + 1];
            }
        }
        r.sum[half] = r.sum[half] * factor + sum;
#pragma unroll
        for (int j = 0; j < DP / 8; j++) {
            r.o[j][2 * half] *= factor;
            r.o[j][2 * half + 1] *= factor;
        }
    }
}

/* o and lse of the warp's rows; those that see nothing (padding) become 0. `tile` is the warp's own 16 rows of room. */
template <int DP>
MX_DEVICE void finish(running<DP> &r, mx_bf16 *tile, const mx_attention_view &a, int32_t row, int64_t head) {
    int lane = (int)threadIdx.x % 32;
    float inverse[2];

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = r.sum[half];

        sum += __shfl_xor_sync(MX_WARP, sum, 1);
        sum += __shfl_xor_sync(MX_WARP, sum, 2);
        inverse[half] = sum > 0 ? 1.0f / sum : 0.0f;

        int32_t at = row + lane / 4 + 8 * half;

        if (lane % 4 == 0 && at < a.rows) {
            a.lse[mx_row_at(at, a.heads) + head] = at < a.live ? r.top[half] * LN2 + logf(sum) : 0.0f;
        }
    }
    __syncwarp();
    mx_sums_put<DP, DP>(tile, r.o, inverse[0], inverse[1]);
    __syncwarp();
    mx_tile_store<DP, DP>(static_cast<mx_bf16 *>(a.o) + head * a.head_dim, tile, (int64_t)a.heads * a.head_dim, row, 0, a);
}

template <int DP> static __global__ void __launch_bounds__(THREADS) forward_kernel(mx_attention_view a) {
    using tiles = forward_tiles<DP>;
    MX_DYNAMIC_SHARED(mx_bf16, shared);
    mx_bf16 *queries = shared, *keys = queries + tiles::QUERIES * tiles::LD, *values = keys + tiles::KEYS * tiles::LD;
    mx_seen *seen = reinterpret_cast<mx_seen *>(values + tiles::KEYS * tiles::LD);
    int strip = (int)threadIdx.x / 32 * 16; /* the warp's rows in the tile */
    int64_t head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), thin = (int64_t)a.kv_heads * a.head_dim;
    /* the last rows of long segments, which see most, go first */
    int32_t row = (int32_t)(gridDim.x - 1 - blockIdx.x) * tiles::QUERIES;
    const mx_bf16 *q_at = static_cast<const mx_bf16 *>(a.q) + head * a.head_dim;
    const mx_bf16 *k = static_cast<const mx_bf16 *>(a.k) + kv_head * a.head_dim;
    const mx_bf16 *v = static_cast<const mx_bf16 *>(a.v) + kv_head * a.head_dim;

    if ((int)threadIdx.x < tiles::QUERIES) {
        seen[threadIdx.x] = mx_seen_by(a, row + (int32_t)threadIdx.x);
    }
    mx_tile_load<DP, tiles::QUERIES>(queries, q_at, (int64_t)a.heads * a.head_dim, row, a);
    mx_cp_async_commit();
    __syncthreads();

    int32_t key = mx_key_next(seen, tiles::QUERIES, 0);

    if (key != MX_NO_ROW) {
        mx_tile_load<DP, tiles::KEYS>(keys, k, thin, key, a);
    }
    mx_cp_async_commit();
    mx_cp_async_wait<1>();
    __syncthreads();

    mx_rows16<DP, tiles::KEPT> q;
    running<DP> r;

    mx_rows16_take(q, queries + strip * tiles::LD);
#pragma unroll
    for (int j = 0; j < DP / 2; j++) {
        r.o[j / 4][j % 4] = 0;
    }
    r.top[0] = r.top[1] = -INFINITY;
    r.sum[0] = r.sum[1] = 0;
    while (key != MX_NO_ROW) {
        mx_cp_async_wait<0>();
        __syncthreads(); /* the keys are there, and nobody reads the last values any more */
        mx_tile_load<DP, tiles::KEYS>(values, v, thin, key, a);
        mx_cp_async_commit();

        mx_groups g = mx_groups_of_keys<tiles::KEYS>(seen + strip, key);
        float s[tiles::KEYS / 8][4];

        scores_of<DP>(s, q, mx_lane_columns<DP>(keys), seen + strip, key, g);

        int32_t next = mx_key_next(seen, tiles::QUERIES, key + tiles::KEYS);

        mx_cp_async_wait<0>();
        __syncthreads(); /* the values are there, and nobody reads the keys any more */
        if (next != MX_NO_ROW) {
            mx_tile_load<DP, tiles::KEYS>(keys, k, thin, next, a);
        }
        mx_cp_async_commit();
        if (g.any) {
            soften<DP>(r, s, a.scale * LOG2E, g);
#pragma unroll
            for (int j = 0; j < tiles::KEYS / 16; j++) {
                if (g.any >> j & 1) {
                    mx_product_add<DP>(r.o, s + 2 * j, mx_lane_rows<DP>(values + 16 * j * tiles::LD));
                }
            }
        }
        key = next;
    }
    finish<DP>(r, queries + strip * tiles::LD, a, row + strip, head);
}

template <int DP> static void forward(mx_cuda *c, const mx_attention_view &a) {
    dim3 grid(mx_blocks(a.rows, forward_tiles<DP>::QUERIES), (unsigned)a.heads);

    mx_launch(c, "attention", forward_kernel<DP>, grid, dim3(THREADS), forward_tiles<DP>::SHARED, a);
}

void mx_cuda_attention_bf16_forward(mx_cuda *c, const mx_attention_view &a) {
    int d = a.head_dim;

    assert(d <= MX_ATTENTION_BF16_WIDEST);
    if (d <= 64) {
        forward<64>(c, a);
    } else if (d <= 80) {
        forward<80>(c, a);
    } else if (d <= 96) {
        forward<96>(c, a);
    } else if (d <= 128) {
        forward<128>(c, a);
    } else {
        forward<256>(c, a);
    }
}
