/* experts_tiles.h - what the tensor-core kernels over token tiles share: the factors as mma fragments, and a warp's tile.
 *
 * A warp works a tile of 16 tokens, a group of 32 columns of I at a time. In the mma's terms (portable.h: g = lane / 4,
 * t = lane % 4) it holds rows g and g + 8, and of the group the columns 8t .. 8t + 7: the four n8 tiles j = 0..3 of the group are
 * not neighbours but take columns 8t + 2j and 8t + 2j + 1 each. So what a lane reads and writes of G, U, g, hidden, dG and dU is
 * 16 bytes at a time, and tiles 2i and 2i + 1 as they come out of one product are the k16 step i of the next, as in
 * FlashAttention. Ranks are permuted likewise within a step of 16: k = 2t, 2t + 1, 2t + 8, 2t + 9 are ranks 4t .. 4t + 3.
 *
 * Factors are laid out once per call in the order lanes want them, 16 bytes each, padded with zeros in rank and columns:
 *   "wide"    rank -> columns (B1, B3 times s; A2):  [expert][group][step of 16 ranks][pair of tiles 2][lane]
 *   "narrow"  columns -> rank (the same matrices):   [expert][group][tile of 8 ranks][lane] */
#ifndef KERNELS_CUDA_EXPERTS_TILES_H
#define KERNELS_CUDA_EXPERTS_TILES_H

#include "kernels/cuda/experts.h"

static constexpr int MX_TILE_WARPS = 4;  /* of a block, each with a tile of its own */
static constexpr int MX_TILE_GROUP = 32; /* columns */

MX_BOTH int mx_tile_groups(int64_t inner) {
    return (int)((inner + MX_TILE_GROUP - 1) / MX_TILE_GROUP);
}
/* 16-byte pieces of one factor in either layout. */
static inline int64_t mx_tile_pieces(const mx_experts_view *v, int term) {
    return (int64_t)v->experts * mx_tile_groups(v->inner) * v->term[term].wide * MX_TILE_GROUP / 8;
}
/* Lays out a factor of all experts. */
void mx_tile_pack(mx_experts_work *w, int term, bool narrow, uint4 *to);

#define MX_WORD(v, j) ((j) == 0 ? (v).x : (j) == 1 ? (v).y : (j) == 2 ? (v).z : (v).w)

MX_DEVICE float mx_low(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
MX_DEVICE float mx_high(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

/* Eight columns of a row, of which `left` are there, zeros past the end; rows are padded, so that all eight may be read. Row -1:
 * zeros. */
MX_DEVICE uint4 mx_tile_load(const void *from, int64_t ld, int row, int column, int left) {
    uint4 v = make_uint4(0, 0, 0, 0);

    if (row >= 0 && left > 0) {
        v = *reinterpret_cast<const uint4 *>(static_cast<const mx_bf16 *>(from) + row * ld + column);
        if (left < 8) {
            v.x &= left > 1 ? 0xffffffffu : 0xffffu;
            v.y &= left > 3 ? 0xffffffffu : left > 2 ? 0xffffu : 0u;
            v.z &= left > 5 ? 0xffffffffu : left > 4 ? 0xffffu : 0u;
            v.w &= left > 6 ? 0xffffu : 0u;
        }
    }
    return v;
}
/* Nothing is written past the end: what stands there belongs to others. */
MX_DEVICE void mx_tile_store(void *to, int64_t ld, int row, int column, int left, uint4 v) {
    mx_bf16 *at = static_cast<mx_bf16 *>(to) + row * ld + column;

    if (row >= 0 && left >= 8) {
        *reinterpret_cast<uint4 *>(at) = v;
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        if (row >= 0 && j < left) {
            at[j].bits = (uint16_t)(j & 1 ? MX_WORD(v, j / 2) >> 16 : MX_WORD(v, j / 2) & 0xffffu);
        }
    }
}
/* Row `half` (g or g + 8) of a group's four tiles. */
MX_DEVICE uint4 mx_tile_row(const float p[4][4], int half) {
    return make_uint4(mx_bf16_pair(p[0][2 * half], p[0][2 * half + 1]), mx_bf16_pair(p[1][2 * half], p[1][2 * half + 1]),
                      mx_bf16_pair(p[2][2 * half], p[2][2 * half + 1]), mx_bf16_pair(p[3][2 * half], p[3][2 * half + 1]));
}

/* p (two neighbouring tiles, pair 0 or 1 of the group) += rows (16, ranks) factor (ranks, columns). The lane's rows of ranks begin
 * at from + slot ld, zeros where the slot is -1. `factor`: of the expert and the group, at the lane. */
MX_DEVICE void mx_tile_widen(float p[2][4], const mx_bf16 *from, int64_t ld, const int slot[2], const uint4 *factor, int pair, int wide, int t) {
#pragma unroll 1
    for (int s = 0; s < wide; s += MX_EXPERTS_TILE) { /* once, mostly: unrolled it would only take registers */
        uint2 low = make_uint2(0, 0), high = make_uint2(0, 0);
        uint4 f = factor[(s / MX_EXPERTS_TILE * 2 + pair) * 32];

        if (slot[0] >= 0) {
            low = *reinterpret_cast<const uint2 *>(from + slot[0] * ld + s + 4 * t);
        }
        if (slot[1] >= 0) {
            high = *reinterpret_cast<const uint2 *>(from + slot[1] * ld + s + 4 * t);
        }
        uint32_t a[4] = { low.x, high.x, low.y, high.y }, b0[2] = { f.x, f.y }, b1[2] = { f.z, f.w };

        mx_mma_bf16(p[0], a, b0, p[0]);
        mx_mma_bf16(p[1], a, b1, p[1]);
    }
}

/* One tile of 8 ranks, both rows of the lane: += the group's columns (as the a-fragments of its two k16 steps) times a factor. */
MX_DEVICE void mx_tile_narrow(float sum[4], const uint32_t columns[2][4], uint4 f) {
    uint32_t b0[2] = { f.x, f.y }, b1[2] = { f.z, f.w };

    mx_mma_bf16(sum, columns[0], b0, sum);
    mx_mma_bf16(sum, columns[1], b1, sum);
}

/* p = c . p + bias in a pair of tiles from `column` on, of which `left` are there; c (of all experts) and bias: or NULL. */
MX_DEVICE void mx_tile_adorn(float p[2][4], const float *c, const float *bias, int64_t at, int column, int left) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            bool inside = 2 * j + i < left;
            float factor = c && inside ? c[at + column + 2 * j + i] : 1.0f, more = bias && inside ? bias[column + 2 * j + i] : 0.0f;

            p[j][i] = factor * p[j][i] + more;
            p[j][i + 2] = factor * p[j][i + 2] + more;
        }
    }
}

/* A warp's tile, and which of its experts is being worked. Rows and slots are 32-bit here: there are fewer than 2^31 slots. */
struct mx_tile {
    int lane, t, index, count; /* count: experts of the tile */
    int token[2];              /* of rows g and g + 8; -1 past the end */
    int expert, halves;        /* halves: bit 0, some row of the first eight uses it; bit 1, of the second eight */
    int slot[2];               /* -1: the row does not use the expert */
};

MX_DEVICE mx_tile mx_tile_open(const mx_experts_view &v, int index) {
    mx_tile m;
    int at;

    m.lane = (int)threadIdx.x % 32;
    m.t = m.lane % 4;
    m.index = index;
    m.count = v.tile_count[index];
    at = index * MX_EXPERTS_TILE + m.lane / 4;
    m.token[0] = at < v.tokens ? v.order[at] : -1;
    m.token[1] = at + 8 < v.tokens ? v.order[at + 8] : -1;
    return m;
}
MX_DEVICE void mx_tile_enter(const mx_experts_view &v, mx_tile *m, int entry) {
    int64_t at = m->index * v.tile_most + entry;

    m->expert = v.tile_expert[at] / 4;
    m->halves = v.tile_expert[at] % 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int place = v.tile_place[at * MX_EXPERTS_TILE + m->lane / 4 + 8 * i];

        m->slot[i] = place < 0 ? -1 : m->token[i] * v.k + place;
    }
}

/* The pair's half of eight columns of both rows, as accumulators. */
MX_DEVICE void mx_tile_unpack(float p[2][4], const uint4 row[2], int pair) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            p[j][2 * i] = mx_low(MX_WORD(row[i], 2 * pair + j));
            p[j][2 * i + 1] = mx_high(MX_WORD(row[i], 2 * pair + j));
        }
    }
}
/* Eight columns of G and U of two rows in. */
MX_DEVICE void mx_tile_load_in(const mx_experts_view &v, const int row[2], int column, int left, uint4 gate[2], uint4 up[2]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        gate[i] = mx_tile_load(v.in, v.in_ld, row[i], column, left);
        up[i] = mx_tile_load(v.in, v.in_ld, row[i], column + (int)v.up_at, left);
    }
}

/* ------------------------------------------------------------------ sums over columns */
/* A lane's sums for its two rows and every k: in shared memory, one behind the other for the 32 lanes, where they fit; else where
 * they are to go in the end, in `part`. Nobody but the lane reads them meanwhile. */
struct mx_tile_cells {
    float2 *shared; /* at the lane; or NULL */
    float *part;    /* of this part of the columns */
    int64_t record;
    int k, tiles;   /* tiles of 8 ranks to a record */
};
MX_DEVICE float2 *mx_tile_cell(const mx_tile_cells &c, const mx_tile &m, int half, int tile) {
    if (c.shared) {
        return c.shared + ((half * c.k + m.slot[half] - m.token[half] * c.k) * c.tiles + tile) * 32;
    }
    return reinterpret_cast<float2 *>(c.part + m.slot[half] * c.record + tile * 8 + 2 * m.t);
}

/* Every (half, k, tile) in turn: clears them, or brings them from shared memory to where they belong. */
MX_DEVICE void mx_tile_each_cell(const mx_tile_cells &c, mx_tile *m, bool clear) {
    for (int half = 0; half < 2; half++) {
        for (int k = 0; k < c.k && m->token[half] >= 0; k++) {
            m->slot[half] = m->token[half] * c.k + k;
            for (int tile = 0; tile < c.tiles; tile++) {
                float2 *to = reinterpret_cast<float2 *>(c.part + m->slot[half] * c.record + tile * 8 + 2 * m->t);

                if (clear) {
                    *mx_tile_cell(c, *m, half, tile) = make_float2(0, 0);
                } else {
                    *to = *mx_tile_cell(c, *m, half, tile);
                }
            }
        }
    }
}

/* The used rows' sums of one tile of ranks += the group's columns times the factor. */
MX_DEVICE void mx_tile_add(const mx_tile_cells &c, const mx_tile &m, int tile, const uint32_t columns[2][4], uint4 factor) {
    float sum[4] = { 0, 0, 0, 0 };

#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (m.slot[half] >= 0) {
            float2 before = *mx_tile_cell(c, m, half, tile);

            sum[2 * half] = before.x;
            sum[2 * half + 1] = before.y;
        }
    }
    mx_tile_narrow(sum, columns, factor);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (m.slot[half] >= 0) {
            *mx_tile_cell(c, m, half, tile) = make_float2(sum[2 * half], sum[2 * half + 1]);
        }
    }
}

/* Shared memory past this leaves too few warps on a multiprocessor: sums go to memory instead. */
static constexpr size_t MX_TILE_SHARED_MOST = 64 * 1024;

static inline size_t mx_tile_cells_bytes(const mx_experts_view *v, int tiles) {
    return sizeof(float2) * (size_t)MX_TILE_WARPS * 2 * (size_t)v->k * (size_t)tiles * 32;
}
MX_DEVICE mx_tile_cells mx_tile_cells_of(const mx_experts_view &v, float2 *memory, int tiles) {
    mx_tile_cells c;

    c.shared = memory ? memory + (int64_t)(threadIdx.x / 32) * 2 * v.k * tiles * 32 + threadIdx.x % 32 : NULL;
    c.part = v.part + blockIdx.y * v.slots * v.record;
    c.record = v.record;
    c.k = v.k;
    c.tiles = tiles;
    return c;
}

/* ------------------------------------------------------------------ columns
 * They are shared out to blocks in parts of whole groups, so many that the GPU is filled, whatever there is of tokens. */
static constexpr int64_t MX_TILE_BLOCKS = 1024, MX_TILE_PARTS = 64;

static inline int64_t mx_tile_blocks(int64_t tokens) {
    return (tokens + MX_EXPERTS_TILE * MX_TILE_WARPS - 1) / (MX_EXPERTS_TILE * MX_TILE_WARPS);
}
/* Groups of a part. */
static inline int mx_tile_part_groups(int64_t tokens, int64_t inner) {
    int64_t groups = mx_tile_groups(inner), blocks = mx_tile_blocks(tokens), parts = blocks > 0 ? MX_TILE_BLOCKS / blocks : 1;

    parts = parts < 1 ? 1 : parts > MX_TILE_PARTS ? MX_TILE_PARTS : parts;
    return (int)((groups + parts - 1) / parts);
}
static inline int64_t mx_tile_parts(int64_t tokens, int64_t inner) {
    int64_t each = mx_tile_part_groups(tokens, inner);

    return (mx_tile_groups(inner) + each - 1) / each;
}
/* parts * tokens at most, for any number of tokens up to this one: it grows with it, parts do not. */
static inline int64_t mx_tile_part_tokens(int64_t tokens, int64_t inner) {
    int64_t groups = mx_tile_groups(inner), parts = groups < MX_TILE_PARTS ? groups : MX_TILE_PARTS, blocks = mx_tile_blocks(tokens);
    int64_t by_blocks = (blocks > MX_TILE_BLOCKS ? blocks : MX_TILE_BLOCKS) * MX_EXPERTS_TILE * MX_TILE_WARPS;

    return by_blocks < parts * tokens ? by_blocks : parts * tokens;
}

void mx_tile_forward(mx_experts_work *w);
void mx_tile_backward(mx_experts_work *w); /* dG, dU, du, dgate */
void mx_tile_factors(mx_experts_work *w);  /* dB1, dB3, dA2, dc1, dc3 */
size_t mx_tile_factors_shared(const mx_experts_view *v);

#endif
