/* experts_forward.cu - the routed block's middle in bf16 on tensor cores (experts_tiles.h): hidden and z.
 *
 * For every group of columns and every expert of its tile a warp makes a and b on top of G and U, h from them in registers, adds
 * gate h to the tile's sum, and multiplies h by A2 at once. G and U are read once and hidden is written once; factors come
 * through the first cache, where the block's other warps, whose tokens use the same experts, find them. */
#include "kernels/cuda/experts_tiles.h"

/* ------------------------------------------------------------------ factors */
struct factor {
    const float *from;
    int64_t expert_step, rank_step, column_step;
    int64_t experts, groups, inner;
    int rank, wide;
    float scale;
};

MX_DEVICE float factor_value(const factor &f, int64_t expert, int r, int64_t column) {
    return r < f.rank && column < f.inner ? f.scale * f.from[expert * f.expert_step + r * f.rank_step + column * f.column_step] : 0.0f;
}

static __global__ void pack_kernel(factor f, bool narrow, uint4 *to) {
    int64_t i = (int64_t)blockIdx.x * 128 + threadIdx.x, each = f.wide * MX_TILE_GROUP / 8; /* pieces of a group */
    int lane = (int)(i % 32), g = lane / 4, t = lane % 4, piece = (int)(i % each / 32);
    int64_t group = i / each % f.groups, expert = i / each / f.groups;
    uint32_t word[4];

    if (expert >= f.experts) {
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        /* narrow: columns 2j, 2j + 1 of the lane's eight; wide: ranks 4t + 2 (j % 2) and the next of tile 2 pair + j / 2 */
        int64_t column = group * MX_TILE_GROUP + (narrow ? 8 * t + 2 * j : 8 * (g / 2) + 2 * (piece % 2 * 2 + j / 2) + g % 2);
        int r = narrow ? piece * 8 + g : piece / 2 * MX_EXPERTS_TILE + 4 * t + 2 * (j % 2);

        word[j] = mx_bf16_pair(factor_value(f, expert, r, column),
                               narrow ? factor_value(f, expert, r, column + 1) : factor_value(f, expert, r + 1, column));
    }
    to[i] = make_uint4(word[0], word[1], word[2], word[3]);
}

void mx_tile_pack(mx_experts_work *w, int term, bool narrow, uint4 *to) {
    const mx_experts_term *t = &w->v.term[term];
    bool down = term == MX_EXPERTS_DOWN;
    factor f = {};

    f.from = down ? t->a : t->b;
    f.expert_step = w->v.inner * t->rank;
    f.rank_step = down ? w->v.inner : 1;
    f.column_step = down ? 1 : t->rank;
    f.experts = w->v.experts;
    f.groups = mx_tile_groups(w->v.inner);
    f.inner = w->v.inner;
    f.rank = t->rank;
    f.wide = t->wide;
    f.scale = down ? 1.0f : t->scale;
    mx_launch(w->c, "experts, factors", pack_kernel, dim3(mx_blocks(mx_tile_pieces(&w->v, term), 128)), dim3(128), 0, f, narrow, to);
}

/* ------------------------------------------------------------------ the kernel */
/* Kernels' arguments are named once in all files: the shim's launches are templates of them. */
struct forward_pack {
    const uint4 *wide1, *wide3, *narrow2;
};

/* h of one expert in one group: to the sum, and as a-fragments. G and U are the rows' words. */
MX_DEVICE void hidden_of(const mx_experts_view &v, const mx_tile &m, const forward_pack &f, int64_t at, int column, int left,
                         const uint4 gate[2], const uint4 up[2], float sum[4][4], uint32_t columns[2][4]) {
    const mx_experts_term &t1 = v.term[MX_EXPERTS_GATE], &t3 = v.term[MX_EXPERTS_UP];
    const mx_bf16 *u = static_cast<const mx_bf16 *>(v.u);
    float weight[2];
    uint32_t kept[2] = { 0xffu, 0xffu };

#pragma unroll
    for (int i = 0; i < 2; i++) {
        weight[i] = m.slot[i] < 0 ? 0.0f : v.slots_out ? 1.0f : v.gate[m.slot[i]];
        if (v.dropout && m.slot[i] >= 0 && left > 0) {
            kept[i] = v.kept[m.slot[i] * v.kept_ld + column / 8];
        }
    }
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
        float a[2][4], b[2][4];

        mx_tile_unpack(a, gate, pair);
        mx_tile_unpack(b, up, pair);
        mx_tile_widen(a, u, v.u_ld, m.slot, f.wide1 + at * t1.wide * 4 + m.lane, pair, t1.wide, m.t);
        mx_tile_widen(b, u + t1.wide, v.u_ld, m.slot, f.wide3 + at * t3.wide * 4 + m.lane, pair, t3.wide, m.t);
        if (v.adorned) {
            mx_tile_adorn(a, t1.c, t1.bias, m.expert * v.inner, column + 4 * pair, left - 4 * pair);
            mx_tile_adorn(b, t3.c, t3.bias, m.expert * v.inner, column + 4 * pair, left - 4 * pair);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            columns[pair][half] = columns[pair][2 + half] = 0;
            if (!(m.halves >> half & 1)) {
                continue; /* none of the eight rows uses the expert */
            }
#pragma unroll
            for (int j = 0; j < 2; j++) {
                float h[2];

#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float gated = a[j][2 * half + i];

                    h[i] = gated * mx_experts_sigmoid_fast(gated) * b[j][2 * half + i];
                    sum[2 * pair + j][2 * half + i] += weight[half] * h[i];
                    if (v.dropout) {
                        h[i] = kept[half] >> (4 * pair + 2 * j + i) & 1u ? v.keep * h[i] : 0.0f;
                    }
                }
                columns[pair][2 * j + half] = mx_bf16_pair(h[0], h[1]);
            }
        }
    }
}

static __global__ void __launch_bounds__(32 * MX_TILE_WARPS, 4)
    forward_kernel(mx_experts_view v, forward_pack f, int part_groups, bool in_shared) {
    MX_DYNAMIC_SHARED(float2, memory);
    int64_t index = (int64_t)blockIdx.x * MX_TILE_WARPS + threadIdx.x / 32;
    int groups = mx_tile_groups(v.inner), first = (int)blockIdx.y * part_groups, tiles2 = v.term[MX_EXPERTS_DOWN].wide / 8;
    int last = first + part_groups < groups ? first + part_groups : groups;

    if (index >= v.tiles) {
        return; /* whole warps; none waits for another */
    }
    mx_tile m = mx_tile_open(v, (int)index);
    mx_tile_cells z = mx_tile_cells_of(v, in_shared ? memory : NULL, tiles2);

    mx_tile_each_cell(z, &m, true);
    for (int group = first; group < last; group++) {
        int column = group * MX_TILE_GROUP + 8 * m.t, left = (int)v.inner - column;
        float sum[4][4] = {};
        uint4 gate[2], up[2];

        for (int entry = 0; entry < m.count; entry++) {
            uint32_t columns[2][4];

            mx_tile_enter(v, &m, entry);
            if (entry == 0 || v.slots_in) {
                int row[2] = { v.slots_in ? m.slot[0] : m.token[0], v.slots_in ? m.slot[1] : m.token[1] };

                mx_tile_load_in(v, row, column, left, gate, up);
            }
            if (v.slots_out) {
                memset(sum, 0, sizeof sum);
            }
            int64_t at = (int64_t)m.expert * groups + group;

            hidden_of(v, m, f, at, column, left, gate, up, sum, columns);
            if (v.slots_out) {
                mx_tile_store(v.hidden, v.hidden_ld, m.slot[0], column, left, mx_tile_row(sum, 0));
                mx_tile_store(v.hidden, v.hidden_ld, m.slot[1], column, left, mx_tile_row(sum, 1));
            }
#pragma unroll 2
            for (int tile = 0; tile < tiles2; tile++) {
                mx_tile_add(z, m, tile, columns, f.narrow2[(at * tiles2 + tile) * 32 + m.lane]);
            }
        }
        if (!v.slots_out) {
            mx_tile_store(v.hidden, v.hidden_ld, m.token[0], column, left, mx_tile_row(sum, 0));
            mx_tile_store(v.hidden, v.hidden_ld, m.token[1], column, left, mx_tile_row(sum, 1));
        }
    }
    if (in_shared) {
        mx_tile_each_cell(z, &m, false);
    }
}

void mx_tile_forward(mx_experts_work *w) {
    const mx_experts_view *v = &w->v;
    uint4 *to = static_cast<uint4 *>(w->pack);
    forward_pack f;
    size_t shared = mx_tile_cells_bytes(v, v->term[MX_EXPERTS_DOWN].wide / 8);
    bool in_shared = shared > 0 && shared <= MX_TILE_SHARED_MOST;

    f.wide1 = to;
    f.wide3 = f.wide1 + mx_tile_pieces(v, MX_EXPERTS_GATE);
    f.narrow2 = f.wide3 + mx_tile_pieces(v, MX_EXPERTS_UP);
    mx_tile_pack(w, MX_EXPERTS_GATE, false, const_cast<uint4 *>(f.wide1));
    mx_tile_pack(w, MX_EXPERTS_UP, false, const_cast<uint4 *>(f.wide3));
    mx_tile_pack(w, MX_EXPERTS_DOWN, true, const_cast<uint4 *>(f.narrow2));
    mx_launch(w->c, "experts", forward_kernel, dim3((unsigned)mx_tile_blocks(v->tokens), (unsigned)v->parts), dim3(32 * MX_TILE_WARPS),
              in_shared ? shared : 0, *v, f, mx_tile_part_groups(v->tokens, v->inner), in_shared);
}
