/* linears_backward.c - gradients of frozen linears with low-rank terms.
 *
 *   dz = c . dy;  dc += sum_t dy z
 *   term:  v = dz (e . B),  G = u^T dz (R, O) with u = s w (d . q) as in forward
 *          dB += e . G^T,  de += rowsum(B . G^T),  dd += s sum_t w q v,  dw += s sum_r d q v,
 *          p = s w (d . v) / (1 - rate),  dA += p^T xd,  dx += mask . (p A)
 *   dx = sum over linears of dz W, and the masked part
 *
 * G is computed as (R, O), not (O, R): oneDNN is two to four times faster at few wide rows than at many thin ones. The
 * masked part of dx is linears_input.c's. Sums over rows stop at `live`: what padding rows hold reaches no gradient. */
#include "kernels/cpu/linears.h"

typedef struct work {
    mx_dtype act;
    size_t size;
    uint8_t *bits;
    void *dz;       /* act (T, out): linears with c */
    float *v;       /* (T, R) of one term */
    void *u;        /* act (T, R) of one term */
    void *b;        /* act (out, R) of one term */
    float *g;       /* (R, out) of one term; (rank of a group, in) of A's gradients */
    char *p;        /* act, for each group (padded rows, depth), zeros where a term does not reach */
    void *dropped;  /* act (T, in) */
    void *packed;   /* linears_input.c's */
    float *dx;      /* (T, in), bf16 only: before it is rounded */
} work;

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Whether dx may be written by the one product it consists of. */
static bool direct(const mx_linears *l) {
    return l->linears == 1 && !l->dx_adds && mx_terms_rank(l) == 0;
}

static work take(const mx_backend *q, mx_scratch *s, const mx_linears *l) {
    work w = { .act = mx_activation_type(q) };
    int64_t rows = l->rows->rows, count = mx_terms_count(l), rank = 0, group_rank = 0, out_c = 0, b_most = 0, g_most = 0;

    w.size = mx_dtype_bytes(w.act);
    for (int64_t j = 0; j < l->linears; j++) {
        const mx_linear *linear = &l->linear[j];

        out_c = linear->c ? larger(out_c, linear->out) : out_c;
        for (int64_t i = 0; i < linear->terms; i++) {
            rank = larger(rank, linear->term[i].rank);
            b_most = larger(b_most, linear->out * linear->term[i].rank);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t column;
        bool first;

        group_rank = larger(group_rank, mx_terms_group(l, i, &first, &column).rank);
    }
    g_most = larger(b_most, group_rank * l->in);
    w.bits = mx_linears_bits(l, l->saved);
    w.dz = mx_scratch_take(s, (size_t)(rows * out_c) * w.size);
    if (rank > 0) {
        w.v = MX_SCRATCH(s, float, rows * rank);
        w.u = mx_scratch_take(s, (size_t)(rows * rank) * w.size);
        w.b = mx_scratch_take(s, (size_t)b_most * w.size);
        w.g = MX_SCRATCH(s, float, g_most);
        w.p = mx_scratch_take(s, mx_input_p_bytes(l, w.act));
        w.dropped = l->dropout.rate > 0 ? mx_scratch_take(s, (size_t)(rows * l->in) * w.size) : NULL;
        w.packed = mx_scratch_take(s, mx_input_packed_bytes(l, w.act));
    }
    w.dx = w.act == MX_BF16 && !direct(l) ? MX_SCRATCH(s, float, rows * l->in) : NULL;
    return w;
}

size_t mx_linears_backward_bytes(const mx_backend *q, const mx_linears *l) {
    mx_scratch s = { 0 };

    take(q, &s, l);
    return s.most;
}

/* ------------------------------------------------------------------ the output's scale */

MX_CLONES static void scale_row(void *dz, const void *dy, const float *c, int64_t n, mx_dtype act) {
    if (act == MX_BF16) {
        for (int64_t o = 0; o < n; o++) {
            mx_put(dz, MX_BF16, o, c[o] * mx_get(dy, MX_BF16, o));
        }
    } else {
        for (int64_t o = 0; o < n; o++) {
            mx_put(dz, MX_F32, o, c[o] * mx_get(dy, MX_F32, o));
        }
    }
}

enum { COLUMNS = 64 }; /* summed over all rows by one thread */

MX_CLONES static void add_products(float *sum, const void *a, const void *b, int64_t begin, int64_t count, mx_dtype act) {
    if (act == MX_BF16) {
        for (int64_t o = 0; o < count; o++) {
            sum[o] += mx_get(a, MX_BF16, begin + o) * mx_get(b, MX_BF16, begin + o);
        }
    } else {
        for (int64_t o = 0; o < count; o++) {
            sum[o] += mx_get(a, MX_F32, begin + o) * mx_get(b, MX_F32, begin + o);
        }
    }
}

/* dc[o] += sum_t dy[t,o] z[t,o]; a thread owns columns, so the order of the sum is that of the rows. */
static void add_dc(const mx_linears *l, const mx_linear *linear, const void *z, mx_dtype act) {
    size_t line = (size_t)linear->out * mx_dtype_bytes(act);

#pragma omp parallel for schedule(static)
    for (int64_t begin = 0; begin < linear->out; begin += COLUMNS) {
        int64_t count = linear->out - begin < COLUMNS ? linear->out - begin : COLUMNS;
        float sum[COLUMNS] = { 0 };

        for (int64_t t = 0; t < l->rows->live; t++) {
            add_products(sum, mx_row_of(&linear->dy, t), (const char *)z + (size_t)t * line, begin, count, act);
        }
        for (int64_t o = 0; o < count; o++) {
            linear->dc[begin + o] += sum[o];
        }
    }
}

static const void *scaled_gradient(const mx_linears *l, const work *w, int64_t j) {
    const mx_linear *linear = &l->linear[j];

    if (!linear->c) {
        return linear->dy.data;
    }
    if (linear->dc) {
        add_dc(l, linear, mx_linears_z(l, w->act, l->saved, j), w->act);
    }
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < l->rows->rows; t++) {
        scale_row((char *)w->dz + (size_t)(t * linear->out) * w->size, mx_row_of(&linear->dy, t), linear->c, linear->out,
                  w->act);
    }
    return w->dz;
}

/* ------------------------------------------------------------------ one term */

/* One term of one call: its rows, and its columns in its group's matrices. */
typedef struct term_place {
    const mx_low_rank *t;
    int64_t out, begin, end, live_end;
    const char *q;      /* act (end - begin, R) */
    char *p;            /* act (end - begin, depth), from this term's column on */
    int64_t depth;      /* of its group's p */
} term_place;

/* dB[o,r] += e[o] G[r,o], de[o] += sum_r B[o,r] G[r,o]. */
static void add_db(const term_place *at, const float *g) {
    const mx_low_rank *t = at->t;

#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < at->out; o++) {
        float e = t->out_scale ? t->out_scale[o] : 1.0f, along = 0;

        for (int64_t r = 0; r < t->rank; r++) {
            float v = g[r * at->out + o];

            along += t->b[o * t->rank + r] * v;
            if (t->db) {
                t->db[o * t->rank + r] += e * v;
            }
        }
        if (t->dout_scale) {
            t->dout_scale[o] += along;
        }
    }
}

/* dd[r] += s sum_t w[t] q[t,r] v[t,r]; one thread, in the order of rows. */
static void add_drank_scale(const term_place *at, const float *v, mx_dtype act) {
    const mx_low_rank *t = at->t;

    for (int64_t row = at->begin; row < at->live_end; row++) {
        int64_t line = (row - at->begin) * t->rank;
        float scale = t->scale * (t->row_weight ? t->row_weight[row] : 1.0f);

        for (int64_t r = 0; r < t->rank; r++) {
            t->drank_scale[r] += scale * mx_get(at->q, act, line + r) * v[line + r];
        }
    }
}

/* dw[t] += s sum_r d[r] q[t,r] v[t,r] */
static void add_drow_weight(const term_place *at, const float *v, mx_dtype act) {
    const mx_low_rank *t = at->t;

#pragma omp parallel for schedule(static)
    for (int64_t row = at->begin; row < at->live_end; row++) {
        int64_t line = (row - at->begin) * t->rank;
        float sum = 0;

        for (int64_t r = 0; r < t->rank; r++) {
            sum += (t->rank_scale ? t->rank_scale[r] : 1.0f) * mx_get(at->q, act, line + r) * v[line + r];
        }
        t->drow_weight[row] += t->scale * sum;
    }
}

MX_CLONES static void scale_values(float *x, const float *factor, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        x[i] *= scale * (factor ? factor[i] : 1.0f);
    }
}

static void term_backward(mx_cpu *cpu, const mx_linears *l, const work *w, const term_place *at, const char *dz) {
    const mx_low_rank *t = at->t;
    int64_t n = at->end - at->begin, live = at->live_end - at->begin;
    float kept = l->dropout.rate > 0 ? 1.0f / (1.0f - l->dropout.rate) : 1.0f;

    dz += (size_t)(at->begin * at->out) * w->size;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < at->out; o++) {
        mx_term_b_row(t, o, w->act, (char *)w->b + (size_t)(o * t->rank) * w->size);
    }
    mx_gemm(cpu, n, t->rank, at->out, mx_factor_of(dz, w->act, at->out), mx_factor_of(w->b, w->act, t->rank),
            mx_product_of(w->v, MX_F32, t->rank), false);
    if (t->db || t->dout_scale) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < live; i++) {
            size_t line = (size_t)(i * t->rank) * w->size;

            mx_term_u_row(t, at->begin + i, w->act, (char *)w->u + line, at->q + line);
        }
        mx_gemm(cpu, t->rank, at->out, live, mx_factor_transposed(w->u, w->act, t->rank),
                mx_factor_of(dz, w->act, at->out), mx_product_of(w->g, MX_F32, at->out), false);
        add_db(at, w->g);
    }
    if (t->drank_scale) {
        add_drank_scale(at, w->v, w->act);
    }
    if (t->drow_weight) {
        add_drow_weight(at, w->v, w->act);
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float *v = w->v + i * t->rank;
        float scale = kept * t->scale * (t->row_weight ? t->row_weight[at->begin + i] : 1.0f);

        scale_values(v, t->rank_scale, scale, t->rank);
        mx_values_convert(at->p + (size_t)(i * at->depth) * w->size, w->act, v, MX_F32, t->rank);
    }
}

/* ------------------------------------------------------------------ groups */

static void add_da(const mx_linears *l, const mx_term_group *g, const float *from) {
    int64_t count = mx_terms_count(l);

    for (int64_t i = 0; i < count; i++) {
        const mx_low_rank *t = mx_terms_at(l, i);

        if (!mx_term_in(l, t, g)) {
            continue;
        }
        if (t->da) {
#pragma omp parallel for simd schedule(static)
            for (int64_t k = 0; k < t->rank * l->in; k++) {
                t->da[k] += from[k];
            }
        }
        from += t->rank * l->in;
    }
}

static bool wants_da(const mx_linears *l, const mx_term_group *g) {
    int64_t count = mx_terms_count(l);

    for (int64_t i = 0; i < count; i++) {
        const mx_low_rank *t = mx_terms_at(l, i);

        if (t->da && mx_term_in(l, t, g)) {
            return true;
        }
    }
    return false;
}

static void group_da(mx_cpu *cpu, const mx_linears *l, const work *w, int64_t index, const mx_term_group *g,
                     const void *dropped) {
    int64_t live = (l->rows->live < g->end ? l->rows->live : g->end) - g->begin, depth = mx_input_depth(w->act, g);
    const char *p = w->p + mx_input_p_offset(l, w->act, index) + (size_t)(g->begin * depth) * w->size;

    if (live > 0 && wants_da(l, g)) {
        mx_gemm(cpu, g->rank, l->in, live, mx_factor_transposed(p, w->act, depth),
                mx_factor_of((const char *)dropped + (size_t)(g->begin * l->in) * w->size, w->act, l->in),
                mx_product_of(w->g, MX_F32, l->in), false);
        add_da(l, g, w->g);
    }
}

static void groups_da(mx_cpu *cpu, const mx_linears *l, const work *w) {
    const void *dropped = mx_linears_dropped(l, w->bits, w->dropped);
    int64_t count = mx_terms_count(l), column;
    bool first;

    for (int64_t i = 0; i < count; i++) {
        mx_term_group g = mx_terms_group(l, i, &first, &column);

        if (first) {
            group_da(cpu, l, w, i, &g, dropped);
        }
    }
}

/* ------------------------------------------------------------------ all of it */

static void linear_backward(mx_cpu *cpu, const mx_linears *l, const work *w, int64_t j, int64_t first_term) {
    const mx_linear *linear = &l->linear[j];
    const void *dz = scaled_gradient(l, w, j);

    if (l->dx.data) {
        bool to_dx = w->act == MX_F32 || direct(l);

        mx_weight_gemm(cpu, linear->w, true, l->rows->rows, mx_factor_of(dz, w->act, linear->out),
                       mx_product_of(to_dx ? l->dx.data : w->dx, to_dx ? w->act : MX_F32, l->in),
                       j > 0 || (to_dx && l->dx_adds));
    }
    for (int64_t i = 0; i < linear->terms; i++) {
        const mx_low_rank *t = &linear->term[i];
        int64_t column, end = mx_term_end(l, t);
        bool first;
        mx_term_group g = mx_terms_group(l, first_term + i, &first, &column);
        term_place at = { .t = t, .out = linear->out, .begin = t->begin, .end = end };

        at.live_end = l->rows->live < end ? l->rows->live : end;
        at.live_end = at.live_end < t->begin ? t->begin : at.live_end;
        at.q = mx_linears_q(l, w->act, l->saved, first_term + i);
        at.depth = mx_input_depth(w->act, &g);
        at.p = w->p + mx_input_p_offset(l, w->act, first_term + i) + (size_t)(at.begin * at.depth + column) * w->size;
        if (t->rank > 0 && end > t->begin) {
            term_backward(cpu, l, w, &at, dz);
        }
    }
}

void mx_cpu_linears_backward(mx_backend *q, const mx_linears *l) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used;
    work w = take(q, &cpu->scratch, l);
    bool terms = mx_terms_rank(l) > 0;
    int64_t first_term = 0;

    assert(l->training && l->x.dtype == w.act);
    if (terms) {
        memset(w.p, 0, mx_input_p_bytes(l, w.act));
    }
    for (int64_t j = 0; j < l->linears; j++) {
        linear_backward(cpu, l, &w, j, first_term);
        first_term += l->linear[j].terms;
    }
    if (terms) {
        groups_da(cpu, l, &w);
    }
    if (l->dx.data && !(w.act == MX_BF16 && direct(l))) {
        mx_input_finish(cpu, l, w.dx, w.bits, terms ? w.p : NULL, w.packed);
    }
    mx_scratch_reset(&cpu->scratch, mark);
}
