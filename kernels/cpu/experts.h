/* experts.h - one call of the routed block, taken apart: what its stages hand each other.
 *
 * Tokens are worked off in passes small enough that scratch stays bounded whatever K is. Within a pass the slots (a
 * token's use of one expert) are sorted by expert, and an expert's slots cut into blocks of 32 rows.
 *
 *   experts.c         sizes, passes, sorting
 *   experts_gate.c    x -> W1 x, W3 x and every expert's A x;  backward: dx, dA1, dA3
 *   experts_swiglu.c  the middle, strip by strip of 64 columns of I: a, b, h, sum of gate h, A2 h;  backward likewise
 *   experts_rows.c, experts_avx512.c   the middle's element loops
 *   experts_down.c    W2, B2, gates -> y;  backward: what reaches h, dB2, dc2
 *
 * "rows in" are the rows of W1 x and W3 x, "rows out" those W2 is applied to: tokens or slots, by the form.
 *              rows in   rows out
 *   factored   tokens    tokens
 *   shared     tokens    slots
 *   naive      slots     slots */
#ifndef KERNELS_CPU_EXPERTS_H
#define KERNELS_CPU_EXPERTS_H

#include "kernels/cpu/tile.h"

typedef struct mx_expert_block {
    int32_t expert, begin, count; /* slots [begin, begin + count) of the sorted order */
} mx_expert_block;

/* What backward needs again, of all passes; n counts sorted slots of a pass, whose first is token first * K. */
typedef struct mx_experts_saved {
    char *gate, *up;   /* act (rows in, I): W1 x, W3 x */
    char *gate_u, *up_u; /* act (T*K, R): A1 x, A3 x of the slot's expert */
    float *z;          /* (T*K, R): A2 drop(h) */
    char *out;         /* act (T*K, C): W2 h + s B2 z, slots out only: DoRA's dc reads it */
} mx_experts_saved;

/* One low-rank term of the pass: 0 gate, 1 up, 2 down. */
typedef struct mx_experts_term {
    const mx_expert_linear *linear;
    int64_t rank;         /* 0: no adapter */
    int64_t deep, wide;   /* the rank padded as an inner and as an outer size of a tile product */
    void *rows;           /* act (blocks, 32, deep): u (gate, up) or gate s v (down) */
    void *rows_t;         /* act (blocks, wide, 32): the same, transposed (backward) */
    void *to_wide;        /* packed (E, strips): rank -> columns */
    void *to_rank;        /* packed (E, strips): columns -> rank */
    float *part;          /* (parts, blocks * 32, wide): columns -> rank results, one plane per part of the strips */
} mx_experts_term;

enum { MX_EXPERTS_GATE, MX_EXPERTS_UP, MX_EXPERTS_DOWN, MX_EXPERTS_TERMS };

typedef struct mx_experts_work {
    const mx_experts *x;
    mx_cpu *cpu;
    mx_dtype act;
    size_t act_bytes;
    mx_tile_kind kind;
    bool slots_in, slots_out, dropout;
    int64_t strips, parts;                    /* of I; strips are shared out to parts, one per thread */
    int64_t tokens_most, slots_most, blocks_most; /* of one pass */

    /* this pass */
    int64_t first, tokens, slots, blocks, rows_in, rows_out;
    int64_t *begin;         /* (E + 1) first sorted slot of each expert */
    int32_t *token, *place; /* (slots) token of the pass; k */
    int32_t *sorted;        /* (tokens, K) sorted slot, or -1 */
    float *gate;            /* (slots) */
    mx_expert_block *block;
    int32_t *batch_row;     /* (slots) rows of the batch, for drawing masks */
    int32_t *mask_row;      /* (slots) of hidden_bits */
    uint8_t *input_bits;    /* (tokens) rows of C bits */
    uint8_t *hidden_bits;   /* (slots) rows of I bits */
    mx_experts_saved saved;

    mx_experts_term term[MX_EXPERTS_TERMS];
    void *x_dropped; /* act (tokens, C) */
    void *x_slots;   /* act (slots, C) naive */
    void *a_all;     /* act (E (R1 + R3), C) */
    void *u_all;     /* act (tokens, E (R1 + R3)); backward: its gradient */
    void *b2;        /* act (E, C, R2), or (E, R2, C) in factored form */
    void *z_all;     /* act (tokens, E R2) factored: gate s z in its expert's columns; else (slots, R2) */
    void *hidden;    /* act (rows out, I): h, or its gated sum */
    float *out;      /* (rows out, C) */
    float *row;      /* (tokens, C) y before it is rounded, slots out only */
    /* backward */
    void *dhidden;   /* act (rows out, I): W2^T of what comes back */
    void *dout;      /* act (slots, C): c2 . dy, slots out only */
    float *v;        /* (tokens, E R2) or (slots, R2): B2^T of it */
    float *dgate_part; /* (parts, slots) */
    void *dgate, *dup;   /* act (rows in, I): gradients of W1 x, W3 x */
    float *dx;         /* (rows in, C) */
    float *dx_low;     /* (tokens, C): of the dropped input */
    float *db2;        /* (E R2, C) */
    float *strip;      /* (parts): each thread's room, see experts_swiglu.c */
    int64_t strip_count; /* floats of one part */
} mx_experts_work;

/* The row of W1 x that slot n reads; the row of W2's input it belongs to. */
static inline int64_t mx_row_in(const mx_experts_work *w, int64_t n) {
    return w->slots_in ? n : w->token[n];
}
static inline int64_t mx_row_out(const mx_experts_work *w, int64_t n) {
    return w->slots_out ? n : w->token[n];
}
static inline float mx_act_value(const mx_experts_work *w, const void *row, int64_t j) {
    return w->act == MX_BF16 ? mx_bf16_widen(((const uint16_t *)row)[j]) : ((const float *)row)[j];
}
static inline void mx_act_set(const mx_experts_work *w, void *row, int64_t j, float v) {
    if (w->act == MX_BF16) {
        ((uint16_t *)row)[j] = mx_bf16_round(v);
    } else {
        ((float *)row)[j] = v;
    }
}
static inline void *mx_act_at(const mx_experts_work *w, const void *base, int64_t index) {
    return (char *)base + (size_t)index * w->act_bytes;
}
/* The expert of sorted slot n's block position: position in block layout of slot n is block * 32 + offset. */
static inline int64_t mx_block_position(const mx_experts_work *w, int64_t block, int64_t n) {
    return block * MX_TILE_ROWS + (n - w->block[block].begin);
}

/* One block of one expert in one strip of 64 columns, as the element loops see it. Rows of `width` values. */
typedef struct mx_expert_rows {
    int64_t count, width;
    const struct mx_expert_rows *next;      /* the block that follows, to be fetched meanwhile; or NULL */
    const void *gate[MX_TILE_ROWS], *up[MX_TILE_ROWS];     /* act: G, U */
    const float *p1, *p3;                  /* (32, 64) s B1 u1, s B3 u3 */
    const float *c1, *c3, *bias1, *bias3;  /* or NULL */
    const uint64_t *mask[MX_TILE_ROWS];            /* one word each; used when keep > 0 */
    float keep;                            /* 1 / (1 - rate), or 0: no dropout */
    float weight[MX_TILE_ROWS];                    /* the gate, or 1 where W2 is applied to slots */
    void *h;                               /* act (32, 64): drop(h) */
    float *sum[MX_TILE_ROWS];                      /* forward: hidden */
    const void *g[MX_TILE_ROWS];                   /* backward from here on; act */
    const float *d;                        /* (32, 64) A2^T v */
    float *dgate_sum[MX_TILE_ROWS], *dup_sum[MX_TILE_ROWS];
    void *da, *db;                         /* act (32, 64): c1 da, c3 db */
    float *dot;                            /* (32) <g, h> */
    float *dc1, *dc3;                      /* (64) += or NULL */
} mx_expert_rows;

/* experts_rows.c */
void mx_expert_rows_forward_f32(const mx_expert_rows *e);
void mx_expert_rows_forward_bf16(const mx_expert_rows *e);
void mx_expert_rows_backward_f32(const mx_expert_rows *e);
void mx_expert_rows_backward_bf16(const mx_expert_rows *e);

void mx_experts_gate_forward(mx_experts_work *w);
void mx_experts_gate_backward(mx_experts_work *w);
void mx_experts_down_forward(mx_experts_work *w);
/* Everything that reaches h, and dB2 and dc2; also sets term[DOWN].rows. */
void mx_experts_down_backward(mx_experts_work *w);
/* dgate and dpassed of the pass, after the middle. */
void mx_experts_gates_backward(mx_experts_work *w);

int64_t mx_experts_strip_count(const mx_experts_work *w, bool backward);
void mx_experts_swiglu_forward(mx_experts_work *w);
void mx_experts_swiglu_backward(mx_experts_work *w);
/* Lays slots' vectors (slots, rank) of the activations' type out in blocks, and transposed when rows_t is there. */
void mx_experts_fill_blocks(mx_experts_work *w, mx_experts_term *t, const void *from, bool transposed);

#endif
