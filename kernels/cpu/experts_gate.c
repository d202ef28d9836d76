/* experts_gate.c - the routed block's first half: W1 x and W3 x, and A x of all experts at once.
 *
 * One product with all experts' A, (T, C) x (C, E (R1 + R3)), computes E/K times more than is used, yet costs less than
 * gathering rows for E products of rank 16 (PERFORMANCE 2.2). Backward has the gradient of that product's result
 * scattered into the columns of the experts used, zeros elsewhere, and again one product each for dx and dA. */
#include "kernels/cpu/experts.h"

static int64_t low_columns(const mx_experts_work *w) {
    return w->x->experts * (w->term[MX_EXPERTS_GATE].rank + w->term[MX_EXPERTS_UP].rank);
}

/* Where gate's or up's columns of expert e begin in u_all. */
static int64_t low_column(const mx_experts_work *w, int term, int64_t e) {
    return (term == MX_EXPERTS_UP ? w->x->experts * w->term[MX_EXPERTS_GATE].rank : 0) + e * w->term[term].rank;
}

static mx_factor x_factor(const mx_experts_work *w) {
    const void *x = mx_act_at(w, w->x->x.data, w->first * w->x->hidden);

    return mx_factor_of(w->slots_in ? w->x_slots : x, w->act, w->x->hidden);
}

static void gather_slots(mx_experts_work *w) {
    int64_t c = w->x->hidden;

#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t n = 0; n < w->slots; n++) {
        memcpy(mx_act_at(w, w->x_slots, n * c), mx_act_at(w, w->x->x.data, (w->first + w->token[n]) * c),
               w->act_bytes * (size_t)c);
    }
}

/* What the adapters read: x, or x with the block's mask. */
static const void *low_input(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t c = x->hidden;

    if (!w->dropout) {
        return mx_act_at(w, x->x.data, w->first * c);
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t t = 0; t < w->tokens; t++) {
        mx_dropout_row(w->input_bits + t * mx_dropout_row_bytes(c), x->dropout.rate, mx_act_at(w, w->x_dropped, t * c),
                       w->act, mx_act_at(w, x->x.data, (w->first + t) * c), w->act, c, false);
    }
    return w->x_dropped;
}

/* Copies of A1 and A3 of all experts, one under the other. */
static void copy_factors(mx_experts_work *w) {
    for (int i = MX_EXPERTS_GATE; i <= MX_EXPERTS_UP; i++) {
        const mx_experts_term *t = &w->term[i];

        if (t->rank) {
            mx_values_convert_all(mx_act_at(w, w->a_all, low_column(w, i, 0) * w->x->hidden), w->act, t->linear->a, MX_F32,
                                  w->x->experts * t->rank * w->x->hidden);
        }
    }
}

void mx_experts_gate_forward(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t columns = low_columns(w);

    if (w->slots_in) {
        gather_slots(w);
    }
    mx_weight_gemm(w->cpu, x->gate_proj.w, false, w->rows_in, x_factor(w), mx_product_of(w->saved.gate, w->act, x->inner),
                   false);
    mx_weight_gemm(w->cpu, x->up_proj.w, false, w->rows_in, x_factor(w), mx_product_of(w->saved.up, w->act, x->inner),
                   false);
    if (!columns) {
        return;
    }
    copy_factors(w);
    mx_gemm(w->cpu, w->tokens, columns, x->hidden, mx_factor_of(low_input(w), w->act, x->hidden),
            mx_factor_transposed(w->a_all, w->act, x->hidden), mx_product_of(w->u_all, w->act, columns), false);
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t b = 0; b < w->blocks; b++) {
        for (int64_t n = w->block[b].begin; n < w->block[b].begin + w->block[b].count; n++) {
            const char *u = mx_act_at(w, w->u_all, w->token[n] * columns);

            for (int i = MX_EXPERTS_GATE; i <= MX_EXPERTS_UP; i++) {
                int64_t rank = w->term[i].rank;
                char *to = i == MX_EXPERTS_UP ? w->saved.up_u : w->saved.gate_u;

                memcpy(mx_act_at(w, to, n * rank), mx_act_at(w, u, low_column(w, i, w->block[b].expert)),
                       w->act_bytes * (size_t)rank);
            }
        }
    }
}

/* ------------------------------------------------------------------ backward */

/* The threads' parts of du added up in their order, into the expert's columns. */
static void spread_block(const mx_experts_work *w, int64_t block, int64_t columns) {
    const mx_expert_block *b = &w->block[block];

    for (int i = MX_EXPERTS_GATE; i <= MX_EXPERTS_UP; i++) {
        const mx_experts_term *t = &w->term[i];

        for (int64_t n = b->begin; t->rank && n < b->begin + b->count; n++) {
            int64_t at = mx_block_position(w, block, n) * t->wide;
            float *sum = t->part + at;
            void *to = mx_act_at(w, w->u_all, w->token[n] * columns + low_column(w, i, b->expert));

            for (int64_t part = 1; part < w->parts; part++) {
                const float *more = t->part + part * w->blocks_most * MX_TILE_ROWS * t->wide + at;

                for (int64_t r = 0; r < t->rank; r++) {
                    sum[r] += more[r];
                }
            }
            mx_values_convert(to, w->act, sum, MX_F32, t->rank);
        }
    }
}

static void low_gradients(mx_experts_work *w, int64_t columns, const void *input) {
    const mx_experts *x = w->x;

    for (int i = MX_EXPERTS_GATE; i <= MX_EXPERTS_UP; i++) {
        const mx_experts_term *t = &w->term[i];

        if (t->rank && t->linear->da) {
            mx_gemm(w->cpu, x->experts * t->rank, x->hidden, w->tokens,
                    mx_factor_transposed(mx_act_at(w, w->u_all, low_column(w, i, 0)), w->act, columns),
                    mx_factor_of(input, w->act, x->hidden), mx_product_of(t->linear->da, MX_F32, x->hidden), true);
        }
    }
}

/* dx of one token: its base part (or its slots'), the adapters' part under the mask, and dy past the capacity. */
static void finish_row(const mx_experts_work *w, int64_t t, bool low) {
    const mx_experts *x = w->x;
    int64_t c = x->hidden;
    float *dx = w->dx + t * c, *low_row = w->dx_low + t * c;
    void *to = mx_act_at(w, x->dx.data, (w->first + t) * c);

    if (w->slots_in) { /* dx holds slots: sum into the row of dx_low */
        if (!low) {
            memset(low_row, 0, sizeof *low_row * (size_t)c);
        } else if (w->dropout) {
            mx_dropout_row(w->input_bits + t * mx_dropout_row_bytes(c), x->dropout.rate, low_row, MX_F32, low_row, MX_F32,
                           c, false);
        }
        for (int64_t k = 0; k < x->slots; k++) {
            int32_t n = w->sorted[t * x->slots + k];

            for (int64_t j = 0; n >= 0 && j < c; j++) {
                low_row[j] += w->dx[n * c + j];
            }
        }
        dx = low_row;
    } else if (low && w->dropout) {
        mx_dropout_row(w->input_bits + t * mx_dropout_row_bytes(c), x->dropout.rate, dx, MX_F32, low_row, MX_F32, c, true);
    }
    if (x->passed && x->passed[w->first + t] != 0) {
        const void *dy = mx_act_at(w, x->dy.data, (w->first + t) * c);
        float passed = x->passed[w->first + t];

        for (int64_t j = 0; j < c; j++) {
            dx[j] += passed * mx_act_value(w, dy, j);
        }
    }
    mx_values_convert(to, w->act, dx, MX_F32, c);
}

void mx_experts_gate_backward(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t columns = low_columns(w), c = x->hidden;
    bool apart = w->dropout || w->slots_in; /* the adapters' part of dx is not just added to the base's */

    if (columns) {
        memset(w->u_all, 0, w->act_bytes * (size_t)(w->tokens * columns));
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
        for (int64_t b = 0; b < w->blocks; b++) {
            spread_block(w, b, columns);
        }
        low_gradients(w, columns, low_input(w));
    }
    if (!x->dx.data) {
        return;
    }
    mx_weight_gemm(w->cpu, x->gate_proj.w, true, w->rows_in, mx_factor_of(w->dgate, w->act, x->inner),
                   mx_product_of(w->dx, MX_F32, c), false);
    mx_weight_gemm(w->cpu, x->up_proj.w, true, w->rows_in, mx_factor_of(w->dup, w->act, x->inner),
                   mx_product_of(w->dx, MX_F32, c), true);
    if (columns) {
        copy_factors(w);
        mx_gemm(w->cpu, w->tokens, c, columns, mx_factor_of(w->u_all, w->act, columns),
                mx_factor_of(w->a_all, w->act, c), mx_product_of(apart ? w->dx_low : w->dx, MX_F32, c), !apart);
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t t = 0; t < w->tokens; t++) {
        finish_row(w, t, columns > 0);
    }
}
