/* experts_factors.cu - the factors' gradients of the routed block's middle in bf16 on tensor cores: dB1, dB3, dA2, dc1, dc3.
 *
 * These are sums over an expert's slots, so a block is one expert and 128 columns of I: it walks the expert's slots, 16 at a time,
 * fetched by index three steps ahead, makes a, b, h, da and db again and keeps the gradients in registers until the end, where
 * nobody else adds to them: no atomics, nothing to add up afterwards. The experts of one strip run side by side and find each
 * other's rows in the second cache.
 *
 * Everything is transposed: a warp has 16 columns as the mma's rows and 16 slots as its two n8 tiles, so that da, db and h as they
 * come out of the first products are the a-fragments of the second ones, with slots as the inner dimension. Of ranks past 16 a
 * block keeps a part, and there are blocks for each part. */
#include "kernels/cuda/experts_tiles.h"

static constexpr int WARPS = 8, THREADS = 32 * WARPS, COLUMNS = 16 * WARPS, SLOTS = 16, STAGES = 3, PAD = 8;
static constexpr int LINE = COLUMNS + PAD; /* odd multiples of 16 bytes: no two rows of a matrix in the same banks */

/* Shared memory, in bytes from its start. */
struct factors_room {
    int u_line, w_line; /* values of a row of ranks */
    int in, u, w, kept, gate, stage; /* of a stage: G, U and g one behind the other from `in`; its size */
    int factor[MX_EXPERTS_TERMS];    /* (COLUMNS, wide + PAD) behind the stages */
    int bytes;
};
MX_BOTH factors_room room_of(const mx_experts_view &v) {
    factors_room r;

    r.u_line = (int)v.u_ld + PAD;
    r.w_line = v.term[MX_EXPERTS_DOWN].wide + PAD;
    r.in = 0;
    r.u = 3 * SLOTS * LINE * 2;
    r.w = r.u + SLOTS * r.u_line * 2;
    r.kept = r.w + SLOTS * r.w_line * 2;
    r.gate = r.kept + SLOTS * COLUMNS / 8;
    r.stage = r.gate + SLOTS * 4;
    r.bytes = STAGES * r.stage;
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        r.factor[i] = r.bytes;
        r.bytes += COLUMNS * (v.term[i].wide + PAD) * 2;
    }
    return r;
}
size_t mx_tile_factors_shared(const mx_experts_view *v) {
    return (size_t)room_of(*v).bytes;
}

/* s B1, s B3 and A2 of the expert, columns by ranks. */
MX_DEVICE void load_factors(const mx_experts_view &v, const factors_room &r, unsigned char *memory, int64_t expert, int64_t first) {
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        const mx_experts_term &t = v.term[i];
        mx_bf16 *to = reinterpret_cast<mx_bf16 *>(memory + r.factor[i]);
        bool down = i == MX_EXPERTS_DOWN;

        for (int n = (int)threadIdx.x; n < COLUMNS * t.wide; n += THREADS) {
            int column = down ? n % COLUMNS : n / t.wide, rank = down ? n / COLUMNS : n % t.wide;
            float value = 0;

            if (first + column < v.inner && rank < t.rank) {
                value = down ? t.a[(expert * t.rank + rank) * v.inner + first + column]
                             : t.scale * t.b[(expert * v.inner + first + column) * t.rank + rank];
            }
            to[column * (t.wide + PAD) + rank] = mx_rounded<mx_bf16>(value);
        }
    }
}

/* What a thread fetches of a step: 8 columns of one slot's row in each of G, U and g, and of its ranks. The slot's number and gate
 * are read a step and two before they are needed. */
struct fetcher {
    int32_t begin, count; /* of the expert's slots */
    int32_t slot, after;  /* of the next step and the one behind it; -1: none */
    float gate;
};
MX_DEVICE int32_t slot_at(const mx_experts_view &v, const fetcher &f, int step) {
    int n = step * SLOTS + (int)threadIdx.x / 16;

    return n < f.count ? v.expert_slot[f.begin + n] : -1;
}
MX_DEVICE void advance(const mx_experts_view &v, fetcher *f, int step) {
    f->slot = f->after;
    f->gate = f->slot >= 0 ? v.gate[f->slot] : 0.0f;
    f->after = slot_at(v, *f, step);
}

MX_DEVICE void fetch(const mx_experts_view &v, const factors_room &r, unsigned char *stage, const fetcher &f, int64_t first) {
    int row = (int)threadIdx.x / 16, piece = (int)threadIdx.x % 16;
    bool there = f.slot >= 0;
    int slot = there ? f.slot : 0, column = (int)first + 8 * piece, left = there ? (int)v.inner - column : 0;
    int bytes = left <= 0 ? 0 : left < 8 ? left * 2 : 16, at = bytes ? column : 0;
    int token = slot / v.k, in_row = v.slots_in ? slot : token, out_row = v.slots_out ? slot : token;
    const mx_bf16 *in = static_cast<const mx_bf16 *>(v.in) + in_row * v.in_ld + at;
    const mx_bf16 *g = static_cast<const mx_bf16 *>(v.g) + out_row * v.g_ld + at;
    const mx_bf16 *u = static_cast<const mx_bf16 *>(v.u) + slot * v.u_ld;
    const mx_bf16 *w = static_cast<const mx_bf16 *>(v.w) + (int64_t)slot * v.term[MX_EXPERTS_DOWN].wide;
    mx_bf16 *to = reinterpret_cast<mx_bf16 *>(stage) + row * LINE + 8 * piece;

    mx_cp_async16(to, in, bytes);
    mx_cp_async16(to + SLOTS * LINE, in + v.up_at, bytes);
    mx_cp_async16(to + 2 * SLOTS * LINE, g, bytes);
    for (int i = piece; i < (int)v.u_ld / 8; i += 16) {
        mx_cp_async16(reinterpret_cast<mx_bf16 *>(stage + r.u) + row * r.u_line + 8 * i, u + 8 * i, there ? 16 : 0);
    }
    for (int i = piece; i < v.term[MX_EXPERTS_DOWN].wide / 8; i += 16) {
        mx_cp_async16(reinterpret_cast<mx_bf16 *>(stage + r.w) + row * r.w_line + 8 * i, w + 8 * i, there ? 16 : 0);
    }
    if (piece == 0) {
        if (v.dropout) {
            mx_cp_async16(stage + r.kept + row * (COLUMNS / 8), v.kept + slot * v.kept_ld + first / 8, there ? 16 : 0);
        }
        reinterpret_cast<float *>(stage + r.gate)[row] = f.gate;
    }
}

/* The lane's row of a matrix of rows of `line` values, for an ldmatrix of 16x16 values: as they lie, or transposed. */
MX_DEVICE const mx_bf16 *slots_row(const mx_bf16 *from, int line, int column, int lane) {
    return from + (lane / 16 * 8 + lane % 8) * line + column + lane / 8 % 2 * 8;
}
MX_DEVICE const mx_bf16 *columns_row(const mx_bf16 *from, int line, int column, int lane) {
    return from + lane % 16 * line + column + lane / 16 * 8;
}

/* (16 columns, 16 slots) of G, U or g as an accumulator. */
MX_DEVICE void load_columns(float p[2][4], const mx_bf16 *from, int column, int lane) {
    uint32_t word[4];

    mx_ldmatrix_x4_transposed(word, slots_row(from, LINE, column, lane));
#pragma unroll
    for (int n = 0; n < 2; n++) {
        p[n][0] = mx_low(word[2 * n]);
        p[n][1] = mx_high(word[2 * n]);
        p[n][2] = mx_low(word[2 * n + 1]);
        p[n][3] = mx_high(word[2 * n + 1]);
    }
}

/* p += factor (columns, ranks) times the slots' ranks, transposed. */
MX_DEVICE void widen(float p[2][4], const mx_bf16 *factor, int wide, const mx_bf16 *ranks, int line, int column, int lane) {
    for (int s = 0; s < wide; s += 16) {
        uint32_t a[4], b[4];

        mx_ldmatrix_x4(a, columns_row(factor + column * (wide + PAD), wide + PAD, s, lane));
        mx_ldmatrix_x4(b, slots_row(ranks, line, s, lane));
        mx_mma_bf16(p[0], a, b, p[0]);
        mx_mma_bf16(p[1], a, b + 2, p[1]);
    }
}

/* sum (columns, 16 ranks) += columns by slots times the slots' ranks. */
MX_DEVICE void gather(float sum[2][4], const uint32_t a[4], const mx_bf16 *ranks, int line, int rank, int lane) {
    uint32_t word[4];

    mx_ldmatrix_x4_transposed(word, slots_row(ranks, line, rank, lane));
    uint32_t b0[2] = { word[0], word[2] }, b1[2] = { word[1], word[3] };

    mx_mma_bf16(sum[0], a, b0, sum[0]);
    mx_mma_bf16(sum[1], a, b1, sum[1]);
}
MX_DEVICE void fragment(uint32_t a[4], const float p[2][4]) {
    a[0] = mx_bf16_pair(p[0][0], p[0][1]);
    a[1] = mx_bf16_pair(p[0][2], p[0][3]);
    a[2] = mx_bf16_pair(p[1][0], p[1][1]);
    a[3] = mx_bf16_pair(p[1][2], p[1][3]);
}

/* c and bias of the lane's two columns. */
struct adornment {
    float c1[2], c3[2], bias1[2], bias3[2];
};
MX_DEVICE adornment adornment_of(const mx_experts_view &v, int64_t expert, int64_t column) {
    adornment d;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t at = column + 8 * i;
        bool inside = at < v.inner;

        d.c1[i] = v.term[MX_EXPERTS_GATE].c && inside ? v.term[MX_EXPERTS_GATE].c[expert * v.inner + at] : 1.0f;
        d.c3[i] = v.term[MX_EXPERTS_UP].c && inside ? v.term[MX_EXPERTS_UP].c[expert * v.inner + at] : 1.0f;
        d.bias1[i] = v.term[MX_EXPERTS_GATE].bias && inside ? v.term[MX_EXPERTS_GATE].bias[at] : 0.0f;
        d.bias3[i] = v.term[MX_EXPERTS_UP].bias && inside ? v.term[MX_EXPERTS_UP].bias[at] : 0.0f;
    }
    return d;
}

struct sums {
    float b1[2][4], b3[2][4], a2[2][4];
    float c1[2], c3[2];
};

/* A step of 16 slots. */
MX_DEVICE void add_step(const mx_experts_view &v, const factors_room &r, const unsigned char *memory, const unsigned char *stage,
                        const adornment &d, int rank, sums *to) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const mx_bf16 *in = reinterpret_cast<const mx_bf16 *>(stage), *u = reinterpret_cast<const mx_bf16 *>(stage + r.u);
    const mx_bf16 *w = reinterpret_cast<const mx_bf16 *>(stage + r.w);
    const float *gate = reinterpret_cast<const float *>(stage + r.gate);
    int wide1 = v.term[MX_EXPERTS_GATE].wide, wide3 = v.term[MX_EXPERTS_UP].wide, wide2 = v.term[MX_EXPERTS_DOWN].wide;
    float a[2][4], b[2][4], h[2][4] = {}, grad[2][4];
    uint32_t rows[4];

    load_columns(a, in, warp * 16, lane);
    load_columns(b, in + SLOTS * LINE, warp * 16, lane);
    load_columns(grad, in + 2 * SLOTS * LINE, warp * 16, lane);
    widen(a, reinterpret_cast<const mx_bf16 *>(memory + r.factor[MX_EXPERTS_GATE]), wide1, u, r.u_line, warp * 16, lane);
    widen(b, reinterpret_cast<const mx_bf16 *>(memory + r.factor[MX_EXPERTS_UP]), wide3, u + wide1, r.u_line, warp * 16, lane);
    widen(h, reinterpret_cast<const mx_bf16 *>(memory + r.factor[MX_EXPERTS_DOWN]), wide2, w, r.w_line, warp * 16, lane);
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int slot = 8 * n + 2 * t + i % 2, half = i / 2;
            float a0 = a[n][i], b0 = b[n][i], dh = h[n][i], mask = 1, sigmoid, silu, da, db;

            if (v.dropout) {
                mask = stage[r.kept + slot * (COLUMNS / 8) + warp * 2 + half] >> g & 1 ? v.keep : 0.0f;
                dh *= mask;
            }
            dh += gate[slot] * grad[n][i];
            if (v.adorned) {
                a[n][i] = d.c1[half] * a0 + d.bias1[half];
                b[n][i] = d.c3[half] * b0 + d.bias3[half];
            }
            sigmoid = mx_experts_sigmoid_fast(a[n][i]);
            silu = a[n][i] * sigmoid;
            da = dh * b[n][i] * (sigmoid + silu * (1.0f - sigmoid));
            db = dh * silu;
            h[n][i] = mask * (silu * b[n][i]);
            if (v.adorned) {
                to->c1[half] += da * a0;
                to->c3[half] += db * b0;
                da *= d.c1[half];
                db *= d.c3[half];
            }
            a[n][i] = da;
            b[n][i] = db;
        }
    }
    if (rank < wide1) {
        fragment(rows, a);
        gather(to->b1, rows, u, r.u_line, rank, lane);
    }
    if (rank < wide3) {
        fragment(rows, b);
        gather(to->b3, rows, u, r.u_line, wide1 + rank, lane);
    }
    if (rank < wide2) {
        fragment(rows, h);
        gather(to->a2, rows, w, r.w_line, rank, lane);
    }
}

/* Adds what was gathered to the gradients: to[column * column_step + rank * rank_step]. */
MX_DEVICE void leave(float *to, int64_t column_step, int64_t rank_step, const float sum[2][4], int64_t column, int64_t inner, int rank,
                     int ranks, float scale, int t) {
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t at = column + i / 2 * 8;
            int r = rank + 8 * n + 2 * t + i % 2;

            if (to && at < inner && r < ranks) {
                to[at * column_step + r * rank_step] += scale * sum[n][i];
            }
        }
    }
}

/* The same of c, whose sums the four lanes of a column share. */
MX_DEVICE void leave_scale(const mx_experts_term &term, int64_t expert, const float sum[2], int64_t column, int64_t inner, int t) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float all = sum[i];

        all += __shfl_xor_sync(MX_WARP, all, 1);
        all += __shfl_xor_sync(MX_WARP, all, 2);
        if (t == 0 && term.c && term.dc && column + 8 * i < inner) {
            term.dc[expert * inner + column + 8 * i] += all;
        }
    }
}

static __global__ void __launch_bounds__(THREADS, 2) factors_kernel(mx_experts_view v) {
    MX_DYNAMIC_SHARED(unsigned char, memory);
    factors_room r = room_of(v);
    int64_t expert = blockIdx.x, first = (int64_t)blockIdx.y * COLUMNS;
    int steps, lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4, t = lane % 4, rank = (int)blockIdx.z * 16;
    int64_t column = first + warp * 16 + g;
    const mx_experts_term &t1 = v.term[MX_EXPERTS_GATE], &t3 = v.term[MX_EXPERTS_UP], &t2 = v.term[MX_EXPERTS_DOWN];
    fetcher f;
    sums s;

    f.begin = v.expert_begin[expert];
    f.count = v.expert_begin[expert + 1] - f.begin;
    if (f.count == 0) {
        return; /* the whole block */
    }
    steps = (f.count + SLOTS - 1) / SLOTS;
    memset(&s, 0, sizeof s);
    f.after = slot_at(v, f, 0);
    advance(v, &f, 1);
    for (int i = 0; i < STAGES - 1; i++) {
        fetch(v, r, memory + i * r.stage, f, first);
        mx_cp_async_commit();
        advance(v, &f, i + 2);
    }
    load_factors(v, r, memory, expert, first);

    adornment d = adornment_of(v, expert, column);

    for (int step = 0; step < steps; step++) {
        mx_cp_async_wait<STAGES - 2>();
        __syncthreads(); /* this step's rows are here, and nobody reads the stage before it any more */
        fetch(v, r, memory + (step + STAGES - 1) % STAGES * r.stage, f, first);
        mx_cp_async_commit();
        advance(v, &f, step + STAGES + 1);
        add_step(v, r, memory, memory + step % STAGES * r.stage, d, rank, &s);
    }
    mx_cp_async_wait<0>();
    leave(t1.db ? t1.db + expert * v.inner * t1.rank : NULL, t1.rank, 1, s.b1, column, v.inner, rank, t1.rank, t1.scale, t);
    leave(t3.db ? t3.db + expert * v.inner * t3.rank : NULL, t3.rank, 1, s.b3, column, v.inner, rank, t3.rank, t3.scale, t);
    leave(t2.da ? t2.da + expert * t2.rank * v.inner : NULL, 1, v.inner, s.a2, column, v.inner, rank, t2.rank, 1.0f, t);
    if (v.adorned && rank == 0) {
        leave_scale(t1, expert, s.c1, column, v.inner, t);
        leave_scale(t3, expert, s.c3, column, v.inner, t);
    }
}

void mx_tile_factors(mx_experts_work *w) {
    const mx_experts_view *v = &w->v;
    int most = MX_EXPERTS_TILE;

    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        most = v->term[i].wide > most ? v->term[i].wide : most;
    }
    mx_launch(w->c, "experts' factors", factors_kernel, dim3((unsigned)v->experts, mx_blocks(v->inner, COLUMNS), (unsigned)most / 16),
              dim3(THREADS), mx_tile_factors_shared(v), *v);
}
