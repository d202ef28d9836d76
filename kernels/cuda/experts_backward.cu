/* experts_backward.cu - backward of the routed block's middle in bf16 on tensor cores (experts_tiles.h): dG, dU, du and dgate.
 *
 * The forward kernel's walk once more: a, b and h are made again from G and U rather than kept. G, U and g are read once, dG and dU
 * written once; du1, du3 and <g, h> are sums over columns, kept for each slot and written once per part of the columns. */
#include "kernels/cuda/experts_tiles.h"

struct packed {
    const uint4 *wide1, *wide3, *wide2, *narrow1, *narrow3;
};

/* The lane's two rows in a group: columns as words, sums. */
struct strip {
    uint4 gate[2], up[2], g[2];
    float dgate[4][4], dup[4][4];
};
/* What the expert being worked has of the rows. */
struct use {
    const mx_bf16 *u1[2], *u3[2], *w[2]; /* ranks, or NULL */
    float weight[2];
    uint32_t kept[2];
    float dot[2];
};

MX_DEVICE use use_of(const mx_experts_view &v, const mx_tile &m, int64_t column) {
    use e;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        bool used = m.place[i] >= 0;

        e.u1[i] = used ? static_cast<const mx_bf16 *>(v.u) + m.slot[i] * v.u_ld : NULL;
        e.u3[i] = used ? e.u1[i] + v.term[MX_EXPERTS_GATE].wide : NULL;
        e.w[i] = used ? static_cast<const mx_bf16 *>(v.w) + m.slot[i] * v.term[MX_EXPERTS_DOWN].wide : NULL;
        e.weight[i] = used ? v.gate[m.slot[i]] : 0.0f;
        e.kept[i] = v.dropout && used && column < v.inner ? v.kept[m.slot[i] * v.kept_ld + column / 8] : 0xffu;
        e.dot[i] = 0;
    }
    return e;
}

MX_DEVICE void unpack(float p[2][4], const uint4 row[2], int pair) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            p[j][2 * i] = mx_low(MX_WORD(row[i], 2 * pair + j));
            p[j][2 * i + 1] = mx_high(MX_WORD(row[i], 2 * pair + j));
        }
    }
}

/* c of a pair of tiles' columns, 1 past the end. */
MX_DEVICE float scale_at(const float *c, int64_t column, int64_t inner) {
    return c && column < inner ? c[column] : 1.0f;
}

/* Half a group: da and db of one expert, added to the sums and as a-fragments of one k16 step. */
MX_DEVICE void pair_of(const mx_experts_view &v, const mx_tile &m, const packed &f, int64_t at, int64_t column, int pair, strip *s, use *e,
                       uint32_t to_gate[4], uint32_t to_up[4]) {
    const mx_experts_term &t1 = v.term[MX_EXPERTS_GATE], &t3 = v.term[MX_EXPERTS_UP], &t2 = v.term[MX_EXPERTS_DOWN];
    const float *c1 = t1.c ? t1.c + m.expert * v.inner : NULL, *c3 = t3.c ? t3.c + m.expert * v.inner : NULL;
    float a[2][4], b[2][4], g[2][4], d[2][4] = {};

    unpack(a, s->gate, pair);
    unpack(b, s->up, pair);
    unpack(g, s->g, pair);
    mx_tile_widen(a, e->u1, f.wide1 + at * t1.wide * 4 + m.lane, pair, t1.wide / MX_EXPERTS_TILE, m.t);
    mx_tile_widen(b, e->u3, f.wide3 + at * t3.wide * 4 + m.lane, pair, t3.wide / MX_EXPERTS_TILE, m.t);
    mx_tile_widen(d, e->w, f.wide2 + at * t2.wide * 4 + m.lane, pair, t2.wide / MX_EXPERTS_TILE, m.t);
    if (v.adorned) {
        mx_tile_adorn(a, c1, t1.bias, column + 4 * pair, v.inner);
        mx_tile_adorn(b, c3, t3.bias, column + 4 * pair, v.inner);
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float sigmoid = mx_experts_sigmoid_fast(a[j][i]), silu = a[j][i] * sigmoid, dh = d[j][i];

            if (v.dropout) {
                dh = e->kept[i / 2] >> (4 * pair + 2 * j + i % 2) & 1u ? v.keep * dh : 0.0f;
            }
            dh += e->weight[i / 2] * g[j][i];
            e->dot[i / 2] += g[j][i] * (silu * b[j][i]);
            a[j][i] = dh * b[j][i] * (sigmoid + silu * (1.0f - sigmoid));
            b[j][i] = dh * silu;
            if (v.adorned) {
                a[j][i] *= scale_at(c1, column + 4 * pair + 2 * j + i % 2, v.inner);
                b[j][i] *= scale_at(c3, column + 4 * pair + 2 * j + i % 2, v.inner);
            }
            s->dgate[2 * pair + j][i] += a[j][i];
            s->dup[2 * pair + j][i] += b[j][i];
        }
        to_gate[2 * j] = mx_bf16_pair(a[j][0], a[j][1]);
        to_gate[2 * j + 1] = mx_bf16_pair(a[j][2], a[j][3]);
        to_up[2 * j] = mx_bf16_pair(b[j][0], b[j][1]);
        to_up[2 * j + 1] = mx_bf16_pair(b[j][2], b[j][3]);
    }
}

MX_DEVICE void load_rows(const mx_experts_view &v, const int64_t row[2], const bool there[2], int64_t column, strip *s) {
    const mx_bf16 *in = static_cast<const mx_bf16 *>(v.in);

#pragma unroll
    for (int i = 0; i < 2; i++) {
        s->gate[i] = mx_tile_load(there[i] ? in + row[i] * v.in_ld : NULL, column, v.inner);
        s->up[i] = mx_tile_load(there[i] ? in + row[i] * v.in_ld + v.up_at : NULL, column, v.inner);
    }
}
MX_DEVICE void load_g(const mx_experts_view &v, const int64_t row[2], const bool there[2], int64_t column, strip *s) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        s->g[i] = mx_tile_load(there[i] ? static_cast<const mx_bf16 *>(v.g) + row[i] * v.g_ld : NULL, column, v.inner);
    }
}
MX_DEVICE void store_rows(const mx_experts_view &v, const int64_t row[2], const bool there[2], int64_t column, const strip *s) {
    mx_bf16 *din = static_cast<mx_bf16 *>(v.din);

#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (there[i]) {
            mx_tile_store(din + row[i] * v.din_ld, column, v.inner, mx_tile_row(s->dgate, i));
            mx_tile_store(din + row[i] * v.din_ld + v.up_at, column, v.inner, mx_tile_row(s->dup, i));
        }
    }
}

/* One expert in one group. */
MX_DEVICE void add_expert(const mx_experts_view &v, const mx_tile &m, const packed &f, const mx_tile_cells &c, int64_t group, strip *s) {
    int64_t at = m.expert * mx_tile_groups(v.inner) + group, column = group * MX_TILE_GROUP + 8 * m.t;
    int tiles1 = v.term[MX_EXPERTS_GATE].wide / 8, tiles3 = v.term[MX_EXPERTS_UP].wide / 8;
    use e = use_of(v, m, column);
    uint32_t to_gate[2][4], to_up[2][4];

    pair_of(v, m, f, at, column, 0, s, &e, to_gate[0], to_up[0]);
    pair_of(v, m, f, at, column, 1, s, &e, to_gate[1], to_up[1]);
    for (int tile = 0; tile < tiles1; tile++) {
        mx_tile_add(c, m, tile, to_gate, f.narrow1[(at * tiles1 + tile) * 32 + m.lane]);
    }
    for (int tile = 0; tile < tiles3; tile++) {
        mx_tile_add(c, m, tiles1 + tile, to_up, f.narrow3[(at * tiles3 + tile) * 32 + m.lane]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (m.place[i] >= 0) { /* the last cell: the lane's share of <g, h> */
            mx_tile_cell(c, m, i, tiles1 + tiles3)->x += e.dot[i];
        }
    }
}

static __global__ void __launch_bounds__(32 * MX_TILE_WARPS, 3)
    backward_kernel(mx_experts_view v, packed f, int64_t part_groups, bool in_shared) {
    MX_DYNAMIC_SHARED(float2, memory);
    int64_t index = (int64_t)blockIdx.x * MX_TILE_WARPS + threadIdx.x / 32, groups = mx_tile_groups(v.inner);
    int64_t first = blockIdx.y * part_groups, last = first + part_groups < groups ? first + part_groups : groups;

    if (index >= v.tiles) {
        return; /* whole warps; none waits for another */
    }
    mx_tile m = mx_tile_open(v, index);
    mx_tile_cells c = mx_tile_cells_of(v, in_shared ? memory : NULL, (int)v.u_ld / 8 + 1);
    int64_t token[2] = { m.token[0], m.token[1] };
    bool live[2] = { m.token[0] >= 0, m.token[1] >= 0 };

    mx_tile_each_cell(c, &m, true);
    for (int64_t group = first; group < last; group++) {
        int64_t column = group * MX_TILE_GROUP + 8 * m.t;
        strip s;

        memset(s.dgate, 0, sizeof s.dgate);
        memset(s.dup, 0, sizeof s.dup);
        if (!v.slots_in) {
            load_rows(v, token, live, column, &s);
        }
        if (!v.slots_out) {
            load_g(v, token, live, column, &s);
        }
        for (int entry = 0; entry < m.count; entry++) {
            mx_tile_enter(v, &m, entry);
            bool used[2] = { m.place[0] >= 0, m.place[1] >= 0 };

            if (v.slots_in) {
                load_rows(v, m.slot, used, column, &s);
                memset(s.dgate, 0, sizeof s.dgate);
                memset(s.dup, 0, sizeof s.dup);
            }
            if (v.slots_out) {
                load_g(v, m.slot, used, column, &s);
            }
            add_expert(v, m, f, c, group, &s);
            if (v.slots_in) {
                store_rows(v, m.slot, used, column, &s);
            }
        }
        if (!v.slots_in) {
            store_rows(v, token, live, column, &s);
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
    packed f;
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
