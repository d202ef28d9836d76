/* experts_down.c - the routed block's second half: W2, the B2 of all experts, the gates, and their backward.
 *
 * factored: y = W2 (sum gate h) + [gate s z in its expert's columns, zeros elsewhere] (T, E R) times all B2 side by side:
 * two products whatever K is. Otherwise W2 and B2 are applied to each slot's h, as DoRA's scale c2 of the expert
 * demands (PERFORMANCE 1.1), and the gates are applied to the results. */
#include "kernels/cpu/experts.h"

static const mx_experts_term *down_term(const mx_experts_work *w) {
    return &w->term[MX_EXPERTS_DOWN];
}

/* B2 (E, C, R) as it is, or (E, R, C) where it is used as one matrix (E R, C). */
static void copy_factor(mx_experts_work *w) {
    const mx_experts_term *t = down_term(w);
    int64_t c = w->x->hidden;

    if (w->slots_out) {
        mx_values_convert_all(w->b2, w->act, t->linear->b, MX_F32, w->x->experts * c * t->rank);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t i = 0; i < w->x->experts * t->rank; i++) {
        const float *from = t->linear->b + i / t->rank * c * t->rank + i % t->rank;

        for (int64_t j = 0; j < c; j++) {
            mx_act_set(w, w->b2, i * c + j, from[j * t->rank]);
        }
    }
}

/* z_all from saved z: times s, and the gate with `gated`. */
static void spread_z(mx_experts_work *w, bool gated) {
    const mx_experts_term *t = down_term(w);
    int64_t columns = w->x->experts * t->rank;

    if (!w->slots_out) {
        memset(w->z_all, 0, w->act_bytes * (size_t)(w->tokens * columns));
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t b = 0; b < w->blocks; b++) {
        for (int64_t n = w->block[b].begin; n < w->block[b].begin + w->block[b].count; n++) {
            float scale = t->linear->scale * (gated ? w->gate[n] : 1.0f);
            int64_t at = w->slots_out ? n * t->rank : w->token[n] * columns + w->block[b].expert * t->rank;

            for (int64_t r = 0; r < t->rank; r++) {
                mx_act_set(w, w->z_all, at + r, scale * w->saved.z[n * t->rank + r]);
            }
        }
    }
}

/* ------------------------------------------------------------------ forward */

/* The threads' parts of z added up in their order. */
static void sum_z(mx_experts_work *w) {
    const mx_experts_term *t = down_term(w);

#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t b = 0; b < w->blocks; b++) {
        for (int64_t n = w->block[b].begin; n < w->block[b].begin + w->block[b].count; n++) {
            const float *part = t->part + mx_block_position(w, b, n) * t->wide;

            for (int64_t r = 0; r < t->rank; r++) {
                float sum = 0;

                for (int64_t p = 0; p < w->parts; p++) {
                    sum += part[p * w->blocks_most * MX_TILE_ROWS * t->wide + r];
                }
                w->saved.z[n * t->rank + r] = sum;
            }
        }
    }
}

/* out (rows out, C) = W2 hidden + the adapters' part */
static void multiply_out(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const mx_experts_term *t = down_term(w);
    int64_t c = x->hidden, columns = x->experts * t->rank;

    mx_weight_gemm(w->cpu, x->down_proj.w, false, w->rows_out, mx_factor_of(w->hidden, w->act, x->inner),
                   mx_product_of(w->out, MX_F32, c), false);
    if (!t->rank) {
        return;
    }
    copy_factor(w);
    sum_z(w);
    spread_z(w, !w->slots_out);
    if (!w->slots_out) {
        mx_gemm(w->cpu, w->tokens, c, columns, mx_factor_of(w->z_all, w->act, columns), mx_factor_of(w->b2, w->act, c),
                mx_product_of(w->out, MX_F32, c), true);
        return;
    }
    for (int64_t e = 0; e < x->experts; e++) {
        mx_gemm(w->cpu, w->begin[e + 1] - w->begin[e], c, t->rank,
                mx_factor_of(mx_act_at(w, w->z_all, w->begin[e] * t->rank), w->act, t->rank),
                mx_factor_transposed(mx_act_at(w, w->b2, e * c * t->rank), w->act, t->rank),
                mx_product_of(w->out + w->begin[e] * c, MX_F32, c), true);
    }
}

static int32_t chosen_of(const mx_experts_work *w, int64_t t, int64_t k) {
    return w->x->chosen[(w->first + t) * w->x->slots + k];
}

/* y (C) of one token in f32, into `to`. */
static void combine_row(const mx_experts_work *w, int64_t t, float *to) {
    const mx_experts *x = w->x;
    const float *bias = x->down_proj.bias;
    int64_t c = x->hidden;
    float gates = 0;

    if (w->slots_out) {
        memset(to, 0, sizeof *to * (size_t)c);
    }
    for (int64_t k = 0; k < x->slots; k++) {
        int32_t n = w->sorted[t * x->slots + k];
        const float *scale, *out;

        if (n < 0) {
            continue;
        }
        gates += w->gate[n];
        if (!w->slots_out) {
            continue;
        }
        scale = x->down_proj.c ? x->down_proj.c + chosen_of(w, t, k) * c : NULL;
        out = w->out + n * c;
        for (int64_t j = 0; j < c; j++) {
            to[j] += w->gate[n] * (scale ? scale[j] * out[j] : out[j]);
        }
    }
    for (int64_t j = 0; bias && j < c; j++) {
        to[j] += gates * bias[j];
    }
    if (x->passed && x->passed[w->first + t] != 0) {
        const void *row = mx_act_at(w, x->x.data, (w->first + t) * c);

        for (int64_t j = 0; j < c; j++) {
            to[j] += x->passed[w->first + t] * mx_act_value(w, row, j);
        }
    }
}

void mx_experts_down_forward(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t c = x->hidden;

    multiply_out(w);
    if (w->slots_out) {
        mx_values_convert_all(w->saved.out, w->act, w->out, MX_F32, w->slots * c);
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t t = 0; t < w->tokens; t++) {
        float *row = w->slots_out ? w->row + t * c : w->out + t * c;

        combine_row(w, t, row);
        mx_values_convert(mx_act_at(w, x->y.data, (w->first + t) * c), w->act, row, MX_F32, c);
    }
}

/* ------------------------------------------------------------------ backward */

/* dout (slots, C) = c2 . dy */
static void gather_dout(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t c = x->hidden;

#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t n = 0; n < w->slots; n++) {
        const void *dy = mx_act_at(w, x->dy.data, (w->first + w->token[n]) * c);
        void *to = mx_act_at(w, w->dout, n * c);

        if (x->down_proj.c) {
            const float *scale = x->down_proj.c + chosen_of(w, w->token[n], w->place[n]) * c;

            for (int64_t j = 0; j < c; j++) {
                mx_act_set(w, to, j, scale[j] * mx_act_value(w, dy, j));
            }
        } else {
            memcpy(to, dy, w->act_bytes * (size_t)c);
        }
    }
}

/* dc2[e,o] += sum over e's slots of gate dy[o] (W2 h + s B2 z)[o]; an expert is one thread's. */
static void scale_gradient(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t c = x->hidden;

    if (!x->down_proj.c || !x->down_proj.dc) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t e = 0; e < x->experts; e++) {
        for (int64_t n = w->begin[e]; n < w->begin[e + 1]; n++) {
            const void *dy = mx_act_at(w, x->dy.data, (w->first + w->token[n]) * c);
            const void *out = mx_act_at(w, w->saved.out, n * c);

            for (int64_t j = 0; j < c; j++) {
                x->down_proj.dc[e * c + j] += w->gate[n] * mx_act_value(w, dy, j) * mx_act_value(w, out, j);
            }
        }
    }
}

/* v = B2^T dy for the experts used, and dB2 += gate s dy z^T. */
static void low_gradients_tokens(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const mx_experts_term *t = down_term(w);
    int64_t c = x->hidden, columns = x->experts * t->rank;
    mx_factor dy = mx_factor_of(mx_act_at(w, x->dy.data, w->first * c), w->act, c);

    mx_gemm(w->cpu, w->tokens, columns, c, dy, mx_factor_transposed(w->b2, w->act, c), mx_product_of(w->v, MX_F32, columns),
            false);
    if (!t->linear->db) {
        return;
    }
    mx_gemm(w->cpu, columns, c, w->tokens, mx_factor_transposed(w->z_all, w->act, columns), dy,
            mx_product_of(w->db2, MX_F32, c), false);
#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t i = 0; i < x->experts * c; i++) {
        for (int64_t r = 0; r < t->rank; r++) {
            t->linear->db[i * t->rank + r] += w->db2[(i / c * t->rank + r) * c + i % c];
        }
    }
}

static void low_gradients_slots(mx_experts_work *w) {
    const mx_experts *x = w->x;
    const mx_experts_term *t = down_term(w);
    int64_t c = x->hidden;

    for (int64_t e = 0; e < x->experts; e++) {
        int64_t begin = w->begin[e], count = w->begin[e + 1] - begin;
        const void *dout = mx_act_at(w, w->dout, begin * c);

        mx_gemm(w->cpu, count, t->rank, c, mx_factor_of(dout, w->act, c),
                mx_factor_of(mx_act_at(w, w->b2, e * c * t->rank), w->act, t->rank),
                mx_product_of(w->v + begin * t->rank, MX_F32, t->rank), false);
        if (t->linear->db) {
            mx_gemm(w->cpu, c, t->rank, count, mx_factor_transposed(dout, w->act, c),
                    mx_factor_of(mx_act_at(w, w->z_all, begin * t->rank), w->act, t->rank),
                    mx_product_of(t->linear->db + e * c * t->rank, MX_F32, t->rank), true);
        }
    }
}

/* v of sorted slot n */
static const float *v_of(const mx_experts_work *w, int64_t n, int64_t expert) {
    const mx_experts_term *t = down_term(w);

    return w->v + (w->slots_out ? n * t->rank : w->token[n] * w->x->experts * t->rank + expert * t->rank);
}

/* gate s v in slot order, for the middle. z_all has served: its room is taken. */
static void gather_v(mx_experts_work *w) {
    mx_experts_term *t = &w->term[MX_EXPERTS_DOWN];

#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t b = 0; b < w->blocks; b++) {
        for (int64_t n = w->block[b].begin; n < w->block[b].begin + w->block[b].count; n++) {
            const float *v = v_of(w, n, w->block[b].expert);

            for (int64_t r = 0; r < t->rank; r++) {
                mx_act_set(w, w->z_all, n * t->rank + r, w->gate[n] * t->linear->scale * v[r]);
            }
        }
    }
    mx_experts_fill_blocks(w, t, w->z_all, true);
}

void mx_experts_down_backward(mx_experts_work *w) {
    const mx_experts *x = w->x;
    int64_t c = x->hidden;
    const void *dy = mx_act_at(w, x->dy.data, w->first * c);

    if (w->slots_out) {
        gather_dout(w);
        scale_gradient(w);
    }
    mx_weight_gemm(w->cpu, x->down_proj.w, true, w->rows_out, mx_factor_of(w->slots_out ? w->dout : dy, w->act, c),
                   mx_product_of(w->dhidden, w->act, x->inner), false);
    if (down_term(w)->rank) {
        copy_factor(w);
        spread_z(w, true);
        if (w->slots_out) {
            low_gradients_slots(w);
        } else {
            low_gradients_tokens(w);
        }
        gather_v(w);
    }
}

/* dgate = <g, h> + s <v, z> + <dy, bias2> = <dy, expert's output>. */
static float gate_gradient(const mx_experts_work *w, int64_t n, int32_t expert, float bias_part) {
    const mx_experts_term *t = down_term(w);
    double sum = bias_part;

    for (int64_t p = 0; p < w->parts; p++) {
        sum += w->dgate_part[p * w->slots_most + n];
    }
    if (t->rank) {
        const float *v = v_of(w, n, expert), *z = w->saved.z + n * t->rank;

        for (int64_t r = 0; r < t->rank; r++) {
            sum += (double)t->linear->scale * v[r] * z[r];
        }
    }
    return (float)sum;
}

static double dot_dy(const mx_experts_work *w, int64_t t, const float *f32, const void *act) {
    const void *dy = mx_act_at(w, w->x->dy.data, (w->first + t) * w->x->hidden);
    double sum = 0;

    for (int64_t j = 0; j < w->x->hidden; j++) {
        sum += (double)mx_act_value(w, dy, j) * (f32 ? f32[j] : mx_act_value(w, act, j));
    }
    return sum;
}

void mx_experts_gates_backward(mx_experts_work *w) {
    const mx_experts *x = w->x;

#pragma omp parallel for schedule(static) num_threads(w->cpu->threads)
    for (int64_t t = 0; t < w->tokens; t++) {
        int64_t row = w->first + t;
        float bias = x->dgate && x->down_proj.bias ? (float)dot_dy(w, t, x->down_proj.bias, NULL) : 0;

        for (int64_t k = 0; x->dgate && k < x->slots; k++) {
            int32_t n = w->sorted[t * x->slots + k];

            x->dgate[row * x->slots + k] = n < 0 ? 0 : gate_gradient(w, n, chosen_of(w, t, k), bias);
        }
        if (x->dpassed) {
            bool passed = x->passed && x->passed[row] != 0;

            x->dpassed[row] = passed ? (float)dot_dy(w, t, NULL, mx_act_at(w, x->x.data, row * x->hidden)) : 0;
        }
    }
}
