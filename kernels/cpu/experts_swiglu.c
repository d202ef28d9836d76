/* experts_swiglu.c - the middle of the routed block, fused so that no slot's a, b or h reaches memory.
 *
 *   a = c1 . (G + s B1 u1) + bias1,   b = c3 . (U + s B3 u3) + bias3,   h = silu(a) * b       G = W1 x, U = W3 x
 *   forward:  hidden += gate h,   z += A2 drop(h)
 *   backward: dh = gate g + drop(A2^T v),   g = W2^T of what came back,   v = gate s B2^T of it
 *             da = dh b silu'(a),   db = dh silu(a),   dG += c1 da,   dU += c3 db,   dgate = <g, h>
 *             du1 = s B1^T (c1 da),   dB1 += s (c1 da) u1^T,   dA2 += v drop(h)^T,   dc1 += da (G + s B1 u1)
 *
 * The columns of I are cut into strips of 64 and these shared out to threads, so every sum over slots (hidden, dG, dU,
 * dB, dA2, dc) stays inside one thread, and only what is summed over columns (z, du, dgate) is kept once per thread
 * and added up afterwards, in their order. A strip of G, U and the sums for all tokens of a pass fits the second cache,
 * where a token's other slots find it again. */
#include "kernels/cpu/experts.h"
#include "kernels/cpu/experts_avx512.h"

enum { ROWS = MX_TILE_ROWS, COLUMNS = MX_TILE_COLUMNS, BLOCK = ROWS * COLUMNS };

/* ------------------------------------------------------------------ packing */

/* B (E, I, R) of gate and up, times s; A (E, R, I) of down. Each in the layouts a pass in this direction needs. */
static void pack_strip(const mx_experts_work *w, int64_t e, int64_t s, bool backward) {
    int64_t inner = w->x->inner, column = s * COLUMNS, at = e * w->strips + s;
    int64_t width = inner - column < COLUMNS ? inner - column : COLUMNS;

    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        const mx_experts_term *t = &w->term[i];
        bool down = i == MX_EXPERTS_DOWN;
        int64_t rank = t->rank, rank_step = down ? inner : 1, column_step = down ? 1 : rank;
        float scale = down ? 1.0f : t->linear->scale;
        const float *from;

        if (!rank) {
            continue;
        }
        from = down ? t->linear->a + e * rank * inner + column : t->linear->b + (e * inner + column) * rank;
        if (!down || backward) {
            mx_tile_pack(w->act, mx_act_at(w, t->to_wide, at * t->deep * COLUMNS), t->deep, COLUMNS, from, rank, width,
                         rank_step, column_step, scale);
        }
        if (down != backward) {
            mx_tile_pack(w->act, mx_act_at(w, t->to_rank, at * t->wide * COLUMNS), COLUMNS, t->wide, from, width, rank,
                         column_step, rank_step, scale);
        }
    }
}

static void pack(const mx_experts_work *w, bool backward) {
    int64_t count = w->x->experts * w->strips;

    if (w->first > 0) {
        return; /* the first pass did it for the whole call */
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t i = 0; i < count; i++) {
        pack_strip(w, i / w->strips, i % w->strips, backward);
    }
}

static void fill_block(const mx_experts_work *w, const mx_experts_term *t, const void *from, int64_t block,
                       bool transposed) {
    const mx_expert_block *b = &w->block[block];
    char *rows = mx_act_at(w, t->rows, block * ROWS * t->deep);

    memset(rows, 0, w->act_bytes * (size_t)(ROWS * t->deep));
    for (int64_t i = 0; i < b->count; i++) {
        memcpy(mx_act_at(w, rows, i * t->deep), mx_act_at(w, from, (b->begin + i) * t->rank),
               w->act_bytes * (size_t)t->rank);
    }
    if (transposed) {
        char *rows_t = mx_act_at(w, t->rows_t, block * ROWS * t->wide);

        memset(rows_t, 0, w->act_bytes * (size_t)(ROWS * t->wide));
        for (int64_t i = 0; i < b->count; i++) {
            for (int64_t r = 0; r < t->rank; r++) {
                memcpy(mx_act_at(w, rows_t, r * ROWS + i), mx_act_at(w, rows, i * t->deep + r), w->act_bytes);
            }
        }
    }
}

void mx_experts_fill_blocks(mx_experts_work *w, mx_experts_term *t, const void *from, bool transposed) {
    if (!t->rank) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t b = 0; b < w->blocks; b++) {
        fill_block(w, t, from, b, transposed);
    }
}

/* ------------------------------------------------------------------ strips */

/* A thread's room, and where it stands. */
typedef struct lane {
    float *sum, *dgate_sum, *dup_sum; /* (rows out, 64), (rows in, 64) x 2 */
    float *p1, *p3, *d;               /* (32, 64) */
    void *h, *da, *db, *packed;       /* act (32, 64) */
    float *dfactor[MX_EXPERTS_TERMS]; /* (wide, 64) */
    float *dc1, *dc3;                 /* (64) */
    int64_t part, strip, column, width;
    bool first; /* of this thread's strips */
} lane;

static int64_t rows_most(const mx_experts_work *w, bool slots) {
    return slots ? w->slots_most : w->tokens_most;
}

int64_t mx_experts_strip_count(const mx_experts_work *w, bool backward) {
    int64_t in = rows_most(w, w->slots_in), out = rows_most(w, w->slots_out), factors = 0;

    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        factors += w->term[i].wide;
    }
    return (backward ? 2 * in + factors + 2 : out) * COLUMNS + 7 * BLOCK;
}

static float *next(float **at, int64_t count) {
    float *here = *at;

    *at += count;
    return here;
}

static lane open_lane(const mx_experts_work *w, int64_t part, bool backward) {
    float *at = w->strip + part * w->strip_count;
    lane l = { .part = part };

    l.p1 = next(&at, BLOCK);
    l.p3 = next(&at, BLOCK);
    l.d = next(&at, BLOCK);
    l.h = next(&at, BLOCK);
    l.da = next(&at, BLOCK);
    l.db = next(&at, BLOCK);
    l.packed = next(&at, BLOCK);
    memset(l.p1, 0, sizeof(float) * 7 * BLOCK); /* what a missing adapter adds, and what pads a block */
    if (!backward) {
        l.sum = next(&at, w->rows_out * COLUMNS);
        return l;
    }
    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        l.dfactor[i] = next(&at, w->term[i].wide * COLUMNS);
    }
    l.dc1 = next(&at, COLUMNS);
    l.dc3 = next(&at, COLUMNS);
    l.dgate_sum = next(&at, w->rows_in * COLUMNS);
    l.dup_sum = next(&at, w->rows_in * COLUMNS);
    return l;
}

static void enter_strip(const mx_experts_work *w, lane *l, int64_t strip) {
    l->strip = strip;
    l->column = strip * COLUMNS;
    l->width = w->x->inner - l->column < COLUMNS ? w->x->inner - l->column : COLUMNS;
    if (l->width < COLUMNS) {
        memset(l->h, 0, sizeof(float) * 3 * BLOCK); /* h, da, db: columns past the end multiply as zeros */
    }
}

/* rows (32, rank) -> (32, 64) */
static void widen(const mx_experts_work *w, const lane *l, const mx_experts_term *t, int64_t block, float *to) {
    const mx_expert_block *b = &w->block[block];

    if (t->rank) {
        mx_tile_product(w->kind, to, COLUMNS, mx_act_at(w, t->rows, block * ROWS * t->deep), t->deep,
                        mx_act_at(w, t->to_wide, (b->expert * w->strips + l->strip) * t->deep * COLUMNS),
                        mx_tile_up(b->count, MX_TILE_STEP), COLUMNS, t->deep, false);
    }
}

/* (32, 64) -> this thread's part of (32, rank); the first of its strips overwrites what was there */
static void narrow(const mx_experts_work *w, const lane *l, const mx_experts_term *t, int64_t block, const void *from) {
    const mx_expert_block *b = &w->block[block];
    float *to = t->part + (l->part * w->blocks_most + block) * ROWS * t->wide;

    if (t->rank) {
        mx_tile_product(w->kind, to, t->wide, from, COLUMNS,
                        mx_act_at(w, t->to_rank, (b->expert * w->strips + l->strip) * t->wide * COLUMNS),
                        mx_tile_up(b->count, MX_TILE_STEP), t->wide, COLUMNS, !l->first);
    }
}

/* dfactor (rank, 64) += rows^T (rank, 32) (32, 64) */
static void gather_factor(const mx_experts_work *w, const lane *l, int term, int64_t block, const void *from, bool add) {
    const mx_experts_term *t = &w->term[term];
    bool wanted = term == MX_EXPERTS_DOWN ? t->linear->da != NULL : t->linear->db != NULL;

    if (t->rank && wanted) {
        mx_tile_pack_rows(w->act, l->packed, from, ROWS, COLUMNS);
        mx_tile_product(w->kind, l->dfactor[term], COLUMNS, mx_act_at(w, t->rows_t, block * ROWS * t->wide), ROWS,
                        l->packed, t->wide, COLUMNS, ROWS, add);
    }
}

static void set_rows(const mx_experts_work *w, const lane *l, int64_t block, mx_expert_rows *e, bool backward) {
    const mx_experts *x = w->x;
    const mx_expert_block *b = &w->block[block];
    int64_t expert = (int64_t)b->expert * x->inner + l->column;

    e->count = b->count;
    e->width = l->width;
    e->p1 = l->p1;
    e->p3 = l->p3;
    e->h = l->h;
    e->c1 = x->gate_proj.c ? x->gate_proj.c + expert : NULL;
    e->c3 = x->up_proj.c ? x->up_proj.c + expert : NULL;
    e->bias1 = x->gate_proj.bias ? x->gate_proj.bias + l->column : NULL;
    e->bias3 = x->up_proj.bias ? x->up_proj.bias + l->column : NULL;
    e->keep = w->dropout && w->term[MX_EXPERTS_DOWN].rank ? 1.0f / (1.0f - x->dropout.rate) : 0;
    for (int64_t i = 0; i < b->count; i++) {
        int64_t n = b->begin + i, in = mx_row_in(w, n), out = mx_row_out(w, n);

        e->gate[i] = mx_act_at(w, w->saved.gate, in * x->inner + l->column);
        e->up[i] = mx_act_at(w, w->saved.up, in * x->inner + l->column);
        e->weight[i] = w->slots_out && !backward ? 1.0f : w->gate[n];
        if (e->keep > 0) {
            e->mask[i] = (const uint64_t *)(w->hidden_bits + w->mask_row[n] * mx_dropout_row_bytes(x->inner)) + l->strip;
        }
        if (backward) {
            e->g[i] = mx_act_at(w, w->dhidden, out * x->inner + l->column);
            e->dgate_sum[i] = l->dgate_sum + in * COLUMNS;
            e->dup_sum[i] = l->dup_sum + in * COLUMNS;
        } else {
            e->sum[i] = l->sum + out * COLUMNS;
        }
    }
}

/* This block's rows, with the next one's at hand to be fetched early; the two take turns in `both`. */
static const mx_expert_rows *prepare_rows(const mx_experts_work *w, const lane *l, int64_t block, mx_expert_rows both[2],
                                          bool backward) {
    mx_expert_rows *here = &both[block % 2], *next = &both[(block + 1) % 2];

    if (block == 0) {
        set_rows(w, l, block, here, backward);
    }
    here->next = NULL;
    if (block + 1 < w->blocks) {
        set_rows(w, l, block + 1, next, backward);
        here->next = next;
    }
    return here;
}

static bool has_avx512(const mx_experts_work *w) {
    return w->kind == MX_TILE_BF16_AVX512 || w->kind == MX_TILE_BF16_AMX;
}

static void run_rows(const mx_experts_work *w, const mx_expert_rows *e, bool backward) {
    if (has_avx512(w)) {
        (backward ? mx_expert_rows_backward_avx512 : mx_expert_rows_forward_avx512)(e);
    } else if (w->act == MX_BF16) {
        (backward ? mx_expert_rows_backward_bf16 : mx_expert_rows_forward_bf16)(e);
    } else {
        (backward ? mx_expert_rows_backward_f32 : mx_expert_rows_forward_f32)(e);
    }
}

/* (rows, 64) f32 -> columns of act (rows, I) */
static void leave_strip(const mx_experts_work *w, const lane *l, void *to, const float *sum, int64_t rows) {
    if (has_avx512(w)) {
        mx_expert_strip_store_avx512((uint16_t *)to + l->column, w->x->inner, sum, rows, l->width);
        return;
    }
    for (int64_t t = 0; t < rows; t++) {
        mx_values_convert(mx_act_at(w, to, t * w->x->inner + l->column), w->act, sum + t * COLUMNS, MX_F32, l->width);
    }
}

static void forward_strip(const mx_experts_work *w, lane *l) {
    mx_expert_rows both[2] = { 0 };

    memset(l->sum, 0, sizeof *l->sum * (size_t)(w->rows_out * COLUMNS));
    for (int64_t block = 0; block < w->blocks; block++) {
        widen(w, l, &w->term[MX_EXPERTS_GATE], block, l->p1);
        widen(w, l, &w->term[MX_EXPERTS_UP], block, l->p3);
        run_rows(w, prepare_rows(w, l, block, both, false), false);
        narrow(w, l, &w->term[MX_EXPERTS_DOWN], block, l->h);
    }
    leave_strip(w, l, w->hidden, l->sum, w->rows_out);
}

/* What an expert's blocks of one strip have gathered, into the trained tensors' gradients: dB (I, R) or dA (R, I). */
static void leave_expert(const mx_experts_work *w, const lane *l, int64_t e) {
    const mx_experts *x = w->x;

    for (int i = 0; i < MX_EXPERTS_TERMS; i++) {
        const mx_experts_term *t = &w->term[i];
        bool down = i == MX_EXPERTS_DOWN;
        float *to = down ? t->linear->da : t->linear->db, scale = down ? 1.0f : t->linear->scale;

        for (int64_t r = 0; to && r < t->rank; r++) {
            for (int64_t j = 0; j < l->width; j++) {
                int64_t at = down ? (e * t->rank + r) * x->inner + l->column + j
                                  : (e * x->inner + l->column + j) * t->rank + r;

                to[at] += scale * l->dfactor[i][r * COLUMNS + j];
            }
        }
    }
    for (int64_t j = 0; j < l->width; j++) {
        int64_t at = e * x->inner + l->column + j;

        if (x->gate_proj.dc) {
            x->gate_proj.dc[at] += l->dc1[j];
        }
        if (x->up_proj.dc) {
            x->up_proj.dc[at] += l->dc3[j];
        }
    }
}

static void backward_strip(const mx_experts_work *w, lane *l) {
    const mx_experts *x = w->x;
    float dot[ROWS];
    mx_expert_rows both[2] = { 0 };

    for (int i = 0; i < 2; i++) {
        both[i] = (mx_expert_rows){ .d = l->d, .da = l->da, .db = l->db, .dot = dot };
        both[i].dc1 = x->gate_proj.c && x->gate_proj.dc ? l->dc1 : NULL;
        both[i].dc3 = x->up_proj.c && x->up_proj.dc ? l->dc3 : NULL;
    }
    memset(l->dgate_sum, 0, sizeof *l->dgate_sum * (size_t)(w->rows_in * COLUMNS));
    memset(l->dup_sum, 0, sizeof *l->dup_sum * (size_t)(w->rows_in * COLUMNS));
    for (int64_t block = 0; block < w->blocks; block++) {
        const mx_expert_block *b = &w->block[block];
        bool begins = block == 0 || b[-1].expert != b->expert;
        bool ends = block + 1 == w->blocks || b[1].expert != b->expert;
        float *dgate = w->dgate_part + l->part * w->slots_most + b->begin;

        if (begins) {
            memset(l->dc1, 0, sizeof *l->dc1 * 2 * COLUMNS);
        }
        widen(w, l, &w->term[MX_EXPERTS_GATE], block, l->p1);
        widen(w, l, &w->term[MX_EXPERTS_UP], block, l->p3);
        widen(w, l, &w->term[MX_EXPERTS_DOWN], block, l->d);
        run_rows(w, prepare_rows(w, l, block, both, true), true);
        narrow(w, l, &w->term[MX_EXPERTS_GATE], block, l->da);
        narrow(w, l, &w->term[MX_EXPERTS_UP], block, l->db);
        gather_factor(w, l, MX_EXPERTS_GATE, block, l->da, !begins);
        gather_factor(w, l, MX_EXPERTS_UP, block, l->db, !begins);
        gather_factor(w, l, MX_EXPERTS_DOWN, block, l->h, !begins);
        for (int64_t i = 0; i < b->count; i++) {
            dgate[i] = (l->first ? 0 : dgate[i]) + dot[i];
        }
        if (ends) {
            leave_expert(w, l, b->expert);
        }
    }
    leave_strip(w, l, w->dgate, l->dgate_sum, w->rows_in);
    leave_strip(w, l, w->dup, l->dup_sum, w->rows_in);
}

static void run(const mx_experts_work *w, bool backward) {
    pack(w, backward);
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t part = 0; part < w->parts; part++) {
        lane l = open_lane(w, part, backward);
        int64_t begin = part * w->strips / w->parts, end = (part + 1) * w->strips / w->parts;

        mx_tile_begin(w->kind);
        for (int64_t strip = begin; strip < end; strip++) {
            l.first = strip == begin;
            enter_strip(w, &l, strip);
            if (backward) {
                backward_strip(w, &l);
            } else {
                forward_strip(w, &l);
            }
        }
        mx_tile_end(w->kind);
    }
}

void mx_experts_swiglu_forward(mx_experts_work *w) {
    mx_experts_fill_blocks(w, &w->term[MX_EXPERTS_GATE], w->saved.gate_u, false);
    mx_experts_fill_blocks(w, &w->term[MX_EXPERTS_UP], w->saved.up_u, false);
    run(w, false);
}

void mx_experts_swiglu_backward(mx_experts_work *w) {
    mx_experts_fill_blocks(w, &w->term[MX_EXPERTS_GATE], w->saved.gate_u, true);
    mx_experts_fill_blocks(w, &w->term[MX_EXPERTS_UP], w->saved.up_u, true);
    run(w, true);
}
