/* experts.h - one call of the routed block on CUDA, taken apart: what its kernels see and what the host hands on.
 *
 *   experts.cu            sizes, memory, the products in their order
 *   experts_rows.cu       small kernels: sorting, gathering, spreading, adding up, combining
 *   experts_plain.cu      the middle in plain C for any type and rank: f32, and bf16 of ranks past MX_EXPERTS_RANK or past a block's
 *                         shared memory (112 on sm_80, 48 on sm_86 and sm_89, adapters on all three linears): far slower
 *   experts_forward.cu    the middle in bf16 on tensor cores, token tiles: sum of gate h, z
 *   experts_backward.cu   backward of that: dG, dU, du, dgate
 *   experts_factors.cu    backward by expert: dB1, dB3, dA2, dc1, dc3
 *
 *   a = c1 . (G + s B1 u1) + bias1,   b = c3 . (U + s B3 u3) + bias3,   h = silu(a) * b     G = W1 x, U = W3 x, u = A drop(x)
 *   forward:  hidden = sum gate h,   z = A2 drop(h)
 *   backward: dh = gate g + drop(A2^T w),   g = W2^T dout,   v = B2^T dout,   w = gate s v     dout = dy, or c2 . dy of the slot
 *             da = dh b silu'(a),   db = dh silu(a),   dG = sum c1 da,   dU = sum c3 db,   dgate = <g, h> + s <v, z> + <dy, bias2>
 *             du1 = s B1^T (c1 da),   dB1 += s (c1 da) u1^T,   dA2 += w drop(h)^T,   dc1 += da (G + s B1 u1)
 *
 * A slot is a token's k-th use of an expert; slot n = token K + k, unused ones (chosen -1) keep their place. "Rows in" are the
 * rows of G and U, "rows out" those W2 is applied to:
 *              rows in   rows out
 *   factored   tokens    tokens       hidden = sum gate h
 *   shared     tokens    slots        hidden = h
 *   naive      slots     slots
 * So no size depends on what was chosen, and W1, W3 and W2 are one product each. Every buffer of ours has rows of multiples of
 * 16 bytes; ranks are padded to 16 with zeros. A token's experts are distinct, as every router's are. */
#ifndef KERNELS_CUDA_EXPERTS_H
#define KERNELS_CUDA_EXPERTS_H

#include "kernels/cuda/sort.h"
#include "kernels/cuda/values.h"

enum { MX_EXPERTS_GATE, MX_EXPERTS_UP, MX_EXPERTS_DOWN, MX_EXPERTS_TERMS };
enum {
    MX_EXPERTS_TILE = 16,   /* tokens of a tile; ranks are padded to it */
    MX_EXPERTS_STRIP = 64,  /* columns of I that a block of the plain kernels owns */
    MX_EXPERTS_RANK = 128,  /* the tensor-core kernels' largest */
    MX_EXPERTS_MOST = 1024, /* experts */
};

/* One low-rank term: 0 gate, 1 up, 2 down. */
struct mx_experts_term {
    const float *a, *b, *c, *bias;
    float *da, *db, *dc;
    float scale;
    int rank, wide; /* 0 without an adapter; padded to 16 */
};

/* What the kernels see: shapes, inputs, and the buffers that outlive a kernel. */
struct mx_experts_view {
    int64_t tokens, slots, hidden_size, inner; /* T (the live ones), T K, C, I */
    int k, experts;
    bool slots_in, slots_out, dropout, adorned; /* adorned: a c or a bias on gate or up */
    mx_experts_term term[MX_EXPERTS_TERMS];
    const int32_t *chosen; /* (T, K) */
    const float *gate;     /* (T, K) */

    /* order: tokens sorted so that neighbours share experts; tiles of 16 of them, each with a list of its experts and, for each
     * of its rows, the place k at which the row's token uses that expert, or -1. tile_expert: 4 expert + a bit for each half of
     * the rows that uses it */
    int64_t tiles, tile_most; /* tile_most: entries a tile's list has room for */
    int32_t *order, *tile_count, *tile_expert;
    int16_t *tile_place;
    int32_t *expert_slot, *expert_begin; /* slots by expert, (E + 1) where each begins */

    void *in;          /* act (rows in, in_ld): G, and U from column up_at */
    int64_t in_ld, up_at;
    void *u;           /* act (slots, u_ld): A1 drop(x) and, from wide[gate], A3 drop(x), of the slot's expert; zeros between */
    int64_t u_ld;
    float *z;          /* (slots, rank of down): A2 drop(h) */
    uint8_t *kept;     /* (slots, kept_ld): bit j: column j of h is kept; with dropout */
    int64_t kept_ld;
    float keep;        /* 1 / (1 - rate) */
    void *hidden;      /* act (rows out, hidden_ld) */
    int64_t hidden_ld;
    void *g;           /* act (rows out, g_ld): g, and all experts' v from column I */
    int64_t g_ld;
    void *w;           /* act (slots, wide of down): gate s v, zeros between and in unused slots */
    void *din;         /* act (rows in, din_ld): dG, dU from column up_at; from in_ld, of rows 0 .. T - 1, du of all experts */
    int64_t din_ld;
    /* sums over columns of I, once per part of the columns: (parts, slots, record). forward: z (wide); backward: du1, du3 (wide
     * each), and eight more whose sum is <g, h> */
    float *part;
    int64_t parts, record;
};

/* Host side. */
struct mx_experts_work {
    mx_cuda *c;
    const mx_experts *x;
    mx_experts_view v;
    mx_dtype act;
    size_t act_bytes;
    bool plain;
    int64_t rows_in, rows_out;   /* of the live tokens */
    int64_t low_in, low_out;     /* columns of all experts' A1 and A3, and of all experts' B2 */
    void *out;                   /* saved, act (slots, C): W2 h + s B2 z, where down has c */
    void *x_slots;               /* act (slots, C): x by slot (naive, forward) */
    void *x_dropped;             /* act (T, C), with dropout */
    void *a_all;                 /* act (low_in, a_ld): A1 and A3 of all experts, one under the other */
    void *u_all;                 /* act (T, u_all_ld): A drop(x) of all experts (forward) */
    int64_t a_ld, u_all_ld;
    void *b2;                    /* act (C, b2_ld): B2 of all experts, side by side */
    int64_t b2_ld;
    void *zc;                    /* act (rows out, zc_ld): gate s z in its expert's columns, zeros elsewhere */
    int64_t zc_ld;
    float *product;              /* (rows out, C) forward; (rows in, C) backward */
    float *dx_low;               /* (T, C): the adapters' part of dx, where it stands apart */
    void *dout;                  /* act (slots, C) where rows out are slots */
    float *db2;                  /* (C, low_out) */
    float *low_dot;              /* (slots): s <v, z> */
    int32_t *sort_key, *sort_key2, *sort_order, *sort_count;
    void *pack;                  /* the factors as the tensor-core kernels want them (experts_tiles.h) */
};

static inline int64_t mx_experts_up(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
}

/* ------------------------------------------------------------------ experts_rows.cu */
void mx_experts_sort(mx_experts_work *w);
/* bits of `kept` */
void mx_experts_draw(mx_experts_work *w);
/* x_slots = x of the slot's token */
void mx_experts_gather_x(mx_experts_work *w);
/* u from u_all */
void mx_experts_gather_u(mx_experts_work *w);
/* Writes B2 of all experts side by side: to (C, low_out; ld). */
void mx_experts_write_b2(mx_experts_work *w, void *to, int64_t ld);
/* Adds up the parts of z (forward) and spreads gate s z, or s z, over its expert's columns: to (rows out, low_out; ld). */
void mx_experts_spread_z(mx_experts_work *w, bool add_up, bool gated, void *to, int64_t ld);
/* Adds up the parts of du and spreads them likewise: to (T, low_in; ld). */
void mx_experts_spread_du(mx_experts_work *w, void *to, int64_t ld);
/* y from product: slots' sums with their gates, bias, what was passed. Keeps `out` where it is wanted. */
void mx_experts_combine(mx_experts_work *w);
void mx_experts_gather_dout(mx_experts_work *w);
/* w (the slots' gate s v) and low_dot */
void mx_experts_gather_v(mx_experts_work *w);
void mx_experts_add_db2(mx_experts_work *w);
void mx_experts_scale_gradient(mx_experts_work *w); /* dc2 */
void mx_experts_finish_dx(mx_experts_work *w, bool low);
void mx_experts_finish_gates(mx_experts_work *w);

/* ------------------------------------------------------------------ the middle */
void mx_experts_plain_forward(mx_experts_work *w);
void mx_experts_plain_backward(mx_experts_work *w);

/* silu and its derivative's parts. The bf16 kernels take the hardware's exponential and quotient (2 ulp and a little). */
MX_DEVICE float mx_experts_sigmoid(float a) {
    return 1.0f / (1.0f + expf(-a));
}
MX_DEVICE float mx_experts_sigmoid_fast(float a) {
    return __fdividef(1.0f, 1.0f + __expf(-a));
}

MX_DEVICE int64_t mx_experts_row_in(const mx_experts_view &v, int64_t slot) {
    return v.slots_in ? slot : slot / v.k;
}
MX_DEVICE int64_t mx_experts_row_out(const mx_experts_view &v, int64_t slot) {
    return v.slots_out ? slot : slot / v.k;
}

#endif
