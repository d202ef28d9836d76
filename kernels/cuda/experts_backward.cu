/* experts_backward.cu - backward of the routed block's middle in bf16 on tensor cores (experts_tiles.h): dG, dU, du and dgate.
 *
 * The forward kernel's walk once more: a, b and h are made again from G and U rather than kept. G, U and g are read once, dG and dU
 * written once; du1, du3 and <g, h> are sums over columns, kept for each slot and written once per part of the columns. */
#include "kernels/cuda/experts_tiles.h"

struct backward_pack {
    const uint4 *wide1, *wide3, *wide2, *narrow1, *narrow3;
};

/* The lane's two rows in a group: columns as words, sums. */
struct strip {
    uint4 gate[2], up[2], g[2];
    float dgate[4][4], dup[4][4];
};
/* What the expert being worked has of the rows. */
struct use {
    float weight[2], dot[2];
    uint32_t kept[2];
};

/* c of a column, 1 past the end. */
MX_DEVICE float scale_at(const float *c, int64_t at, bool inside) {
    return c && inside ? c[at] : 1.0f;
}

/* Half a group: da and db of one expert, added to the sums and as a-fragments of one k16 step. */
MX_DEVICE void pair_of(const mx_experts_view &v, const mx_tile &m, const backward_pack &f, int64_t at, int column, int left, int pair,
                       strip *s, use *e, uint32_t to_gate[4], uint32_t to_up[4]) {
    const mx_experts_term &t1 = v.term[MX_EXPERTS_GATE], &t3 = v.term[MX_EXPERTS_UP], &t2 = v.term[MX_EXPERTS_DOWN];
    const mx_bf16 *u = static_cast<const mx_bf16 *>(v.u), *w = static_cast<const mx_bf16 *>(v.w);
    float a[2][4], b[2][4], g[2][4], d[2][4] = {};

    column += 4 * pair;
    left -= 4 * pair;
    mx_tile_unpack(a, s->gate, pair);
    mx_tile_unpack(b, s->up, pair);
    mx_tile_widen(a, u, v.u_ld, m.slot, f.wide1 + at * t1.wide * 4 + m.lane, pair, t1.wide, m.t);
    mx_tile_widen(b, u + t1.wide, v.u_ld, m.slot, f.wide3 + at * t3.wide * 4 + m.lane, pair, t3.wide, m.t);
    mx_tile_widen(d, w, t2.wide, m.slot, f.wide2 + at * t2.wide * 4 + m.lane, pair, t2.wide, m.t);
    mx_tile_unpack(g, s->g, pair);
    if (v.adorned) {
        mx_tile_adorn(a, t1.c, t1.bias, m.expert * v.inner, column, left);
        mx_tile_adorn(b, t3.c, t3.bias, m.expert * v.inner, column, left);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        to_gate[half] = to_gate[2 + half] = to_up[half] = to_up[2 + half] = 0;
        if (!(m.halves >> half & 1)) {
            continue; /* none of the eight rows uses the expert */
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float da[2], db[2];

#pragma unroll
            for (int i = 0; i < 2; i++) {
                float gated = a[j][2 * half + i], other = b[j][2 * half + i], dh = d[j][2 * half + i], back = g[j][2 * half + i];
                float sigmoid = mx_experts_sigmoid_fast(gated), silu = gated * sigmoid;

                if (v.dropout) {
                    dh = e->kept[half] >> (4 * pair + 2 * j + i) & 1u ? v.keep * dh : 0.0f;
                }
                dh += e->weight[half] * back;
                e->dot[half] += back * (silu * other);
                da[i] = dh * other * (sigmoid + silu * (1.0f - sigmoid));
                db[i] = dh * silu;
                if (v.adorned) {
                    int64_t scale = m.expert * v.inner + column + 2 * j + i;

                    da[i] *= scale_at(t1.c, scale, 2 * j + i < left);
                    db[i] *= scale_at(t3.c, scale, 2 * j + i < left);
                }
                s->dgate[2 * pair + j][2 * half + i] += da[i];
                s->dup[2 * pair + j][2 * half + i] += db[i];
            }
            to_gate[2 * j + half] = mx_bf16_pair(da[0], da[1]);
            to_up[2 * j + half] = mx_bf16_pair(db[0], db[1]);
        }
    }
}

/* One expert in one group. */
MX_DEVICE void add_expert(const mx_experts_view &v, const mx_tile &m, const backward_pack &f, const mx_tile_cells &c, int64_t at, int column,
                          int left, strip *s) {
    int tiles1 = v.term[MX_EXPERTS_GATE].wide / 8, tiles3 = v.term[MX_EXPERTS_UP].wide / 8;
    use e;
    uint32_t to_gate[2][4], to_up[2][4];

#pragma unroll
    for (int i = 0; i < 2; i++) {
        e.weight[i] = m.slot[i] >= 0 ? v.gate[m.slot[i]] : 0.0f;
        e.kept[i] = v.dropout && m.slot[i] >= 0 && left > 0 ? v.kept[m.slot[i] * v.kept_ld + column / 8] : 0xffu;
        e.dot[i] = 0;
    }
    pair_of(v, m, f, at, column, left, 0, s, &e, to_gate[0], to_up[0]);
    pair_of(v, m, f, at, column, left, 1, s, &e, to_gate[1], to_up[1]);
#pragma unroll 2
    for (int tile = 0; tile < tiles1; tile++) {
        mx_tile_add(c, m, tile, to_gate, f.narrow1[(at * tiles1 + tile) * 32 + m.lane]);
    }
#pragma unroll 2
    for (int tile = 0; tile < tiles3; tile++) {
        mx_tile_add(c, m, tiles1 + tile, to_up, f.narrow3[(at * tiles3 + tile) * 32 + m.lane]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (m.slot[i] >= 0) { /* the last cell: the lane's share of <g, h> */
            mx_tile_cell(c, m, i, tiles1 + tiles3)->x += e.dot[i];
        }
    }
}

MX_DEVICE void load_rows(const mx_experts_view &v, const int in[2], const int out[2], int column, int left, strip *s) {
    mx_tile_load_in(v, in, column, left, s->gate, s->up);
    s->g[0] = mx_tile_load(v.g, v.g_ld, out[0], column, left);
    s->g[1] = mx_tile_load(v.g, v.g_ld, out[1], column, left);
}
MX_DEVICE void store_rows(const mx_experts_view &v, const int row[2], int column, int left, const strip *s) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        mx_tile_store(v.din, v.din_ld, row[i], column, left, mx_tile_row(s->dgate, i));
        mx_tile_store(v.din, v.din_ld, row[i], column + (int)v.up_at, left, mx_tile_row(s->dup, i));
    }
}

static __global__ void __launch_bounds__(32 * MX_TILE_WARPS, 3)
    backward_kernel(mx_experts_view v, backward_pack f, int part_groups, bool in_shared) {
    MX_DYNAMIC_SHARED(float2, memory);
    int64_t index = (int64_t)blockIdx.x * MX_TILE_WARPS + threadIdx.x / 32;
    int groups = mx_tile_groups(v.inner), first = (int)blockIdx.y * part_groups;
    int last = first + part_groups < groups ? first + part_groups : groups;

    if (index >= v.tiles) {
        return; /* whole warps; none waits for another */
    }
    mx_tile m = mx_tile_open(v, (int)index);
    mx_tile_cells c = mx_tile_cells_of(v, in_shared ? memory : NULL, (int)v.u_ld / 8 + 1);

    mx_tile_each_cell(c, &m, true);
    for (int group = first; group < last; group++) {
        int column = group * MX_TILE_GROUP + 8 * m.t, left = (int)v.inner - column;
        strip s;

        memset(s.dgate, 0, sizeof s.dgate);
        memset(s.dup, 0, sizeof s.dup);
        for (int entry = 0; entry < m.count; entry++) {
            mx_tile_enter(v, &m, entry);
            if (entry == 0 || v.slots_out) { /* rows out are slots wherever rows in are */
                int in[2] = { v.slots_in ? m.slot[0] : m.token[0], v.slots_in ? m.slot[1] : m.token[1] };
                int out[2] = { v.slots_out ? m.slot[0] : m.token[0], v.slots_out ? m.slot[1] : m.token[1] };

                load_rows(v, in, out, column, left, &s);
            }
            if (v.slots_in) {
                memset(s.dgate, 0, sizeof s.dgate);
                memset(s.dup, 0, sizeof s.dup);
            }
            add_expert(v, m, f, c, (int64_t)m.expert * groups + group, column, left, &s);
            if (v.slots_in) {
                store_rows(v, m.slot, column, left, &s);
            }
        }
        if (!v.slots_in) {
            store_rows(v, m.token, column, left, &s);
        }
    }
    if (in_shared) {
        mx_tile_each_cell(c, &m, false);
    }
}

void mx_tile_backward(mx_experts_work *w) {
    const mx_experts_view *v = &w->v;
    uint4 *at = static_cast<uint4 *>(w->pack);
    const uint4 *to[MX_EXPERTS_TERMS][2];
    backward_pack f;
    size_t shared = mx_tile_cells_bytes(v, (int)v->u_ld / 8 + 1);
    bool in_shared = shared <= MX_TILE_SHARED_MOST;

    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        for (int narrow = 0; narrow < (i == MX_EXPERTS_DOWN ? 1 : 2); narrow++) {
            to[i][narrow] = at;
            mx_tile_pack(w, i, narrow, at);
            at += mx_tile_pieces(v, i);
        }
    }
    f.wide1 = to[MX_EXPERTS_GATE][0];
    f.wide3 = to[MX_EXPERTS_UP][0];
    f.wide2 = to[MX_EXPERTS_DOWN][0];
    f.narrow1 = to[MX_EXPERTS_GATE][1];
    f.narrow3 = to[MX_EXPERTS_UP][1];
    mx_launch(w->c, "experts backward", backward_kernel, dim3((unsigned)mx_tile_blocks(v->tokens), (unsigned)v->parts),
              dim3(32 * MX_TILE_WARPS), in_shared ? shared : 0, *v, f, mx_tile_part_groups(v->tokens, v->inner), in_shared);
}
