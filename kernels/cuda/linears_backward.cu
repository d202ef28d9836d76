/* linears_backward.cu - gradients of frozen linears with low-rank terms.
 *
 *   dz = c . dy;  dc += sum_t dy z
 *   v = dz (e . B),  p = s w (d . v) / (1 - rate),  u = s w (d . q) as in forward
 *   dB += e . (dz^T u),  de += rowsum(B . (dz^T u)),  dd += s sum_t w q v,  dw += s sum_r d q v,  dA += p^T drop(x)
 *   dx = sum over linears of dz W, and mask . (p A)
 *
 * Without dropout, and when the linears are one group in its order, dx is one product [dz_0 | dz_1 | .. | p] [W_0; W_1; ..; A]:
 * the A's stand in the room under the W's. Copying dz is one pass; sums in f32 across products would be three over as much, and
 * rounding between them is not allowed. With dropout the mask stands between p A and the sum, which is f32, MX_LINEARS_ROWS
 * rows at a time; linears_input.cu puts them together while rounding. Sums over rows stop at `live`: what padding rows hold reaches no gradient. */
#include "kernels/cuda/linears.h"

struct backward_work {
    mx_cuda *c;
    mx_dtype act;
    int64_t size, width, rows, live;
    int64_t dz_ld;  /* of [dz_0 | dz_1 | .. | p] */
    char *dz;       /* act (T, dz_ld) or NULL: no linear needs a dz of its own, nor are they joined */
    char *p;        /* act (T, width; p_ld): in dz, or by itself */
    int64_t p_ld;
    char *u;        /* act (T, width) */
    float *v;       /* (T, width) */
    char *stacked;  /* act (width, in): A, unless it stands under the W's */
    char *dropped;  /* act (T, in) */
    void *spare;
    float *g;       /* gradients of A or of one linear's B, before they are added */
    float *partial; /* of dc */
    float *sum, *low; /* (rows at once, in) */
};

static bool any_c(const mx_linears *l) {
    for (int64_t j = 0; j < l->linears; j++) {
        if (l->linear[j].c) {
            return true;
        }
    }
    return false;
}

/* dx is one product whose factors are where they are. */
static bool is_plain(const mx_linears *l) {
    return l->linears == 1 && mx_linears_width(l) == 0;
}
/* dx may be one product of joined factors, if the weights agree. */
static bool may_join(const mx_linears *l) {
    return !is_plain(l) && !mx_linears_drops(l) && l->dx.data;
}

static int64_t all_out(const mx_linears *l) {
    int64_t out = 0;

    for (int64_t j = 0; j < l->linears; j++) {
        out += l->linear[j].out;
    }
    return out;
}

static int64_t gradient_values(const mx_linears *l) {
    int64_t most = mx_linears_width(l) * l->in;

    for (int64_t j = 0; j < l->linears; j++) {
        int64_t values = l->linear[j].out * mx_up(mx_linear_rank(&l->linear[j]), 8);

        most = values > most ? values : most;
    }
    return most;
}

static backward_work take(mx_cuda *c, const mx_cuda *planned, mx_cuda_scratch *s, const mx_linears *l) {
    backward_work w = {};
    int64_t at_once = l->rows->rows < MX_LINEARS_ROWS ? l->rows->rows : (int64_t)MX_LINEARS_ROWS;

    w.c = c;
    w.act = mx_activation_type(&planned->base);
    w.size = (int64_t)mx_dtype_bytes(w.act);
    w.width = mx_linears_width(l);
    w.rows = l->rows->rows;
    w.live = l->rows->live;
    w.dz_ld = mx_up(all_out(l) + w.width, 64);
    w.p_ld = w.width;
    if (may_join(l) || any_c(l)) {
        w.dz = mx_cuda_take_of<char>(s, w.size * w.rows * w.dz_ld);
    }
    if (w.width > 0) {
        w.p = mx_cuda_take_of<char>(s, w.size * w.rows * w.width);
        w.u = mx_cuda_take_of<char>(s, w.size * w.rows * w.width);
        w.v = mx_cuda_take_of<float>(s, w.rows * w.width);
        w.stacked = mx_cuda_take_of<char>(s, w.size * w.width * l->in);
        w.dropped = mx_linears_drops(l) ? mx_cuda_take_of<char>(s, w.size * w.rows * l->in) : NULL;
        w.spare = mx_cuda_take(s, mx_linears_spare_bytes(planned, l));
        w.g = mx_cuda_take_of<float>(s, gradient_values(l));
    }
    w.partial = static_cast<float *>(mx_cuda_take(s, mx_rows_partial_bytes(l)));
    if (l->dx.data && !is_plain(l)) {
        w.sum = mx_cuda_take_of<float>(s, at_once * l->in);
        w.low = mx_linears_drops(l) && !mx_linears_masks_inside(planned, l) ? mx_cuda_take_of<float>(s, at_once * l->in) : NULL;
    }
    return w;
}

size_t mx_linears_backward_bytes(const mx_cuda *c, const mx_linears *l) {
    mx_cuda_scratch s = {};

    take(NULL, c, &s, l);
    return s.most;
}

/* Whether the linears' W's stand under one another, all of their group, with room for the A's under them. */
static bool joined(const mx_linears *l) {
    const mx_cuda_weights *g = l->linear[0].w->group;

    for (int64_t j = 0; j < l->linears; j++) {
        if (l->linear[j].w->group != g || l->linear[j].w->part != j) {
            return false;
        }
    }
    return may_join(l) && l->linears == g->parts && mx_linears_width(l) <= g->room.rows;
}

/* ------------------------------------------------------------------ dz */

/* Linear j's dz: in [dz_0 | dz_1 | ..], or dy itself. */
static mx_matrix gradient_of(const backward_work *w, const mx_linears *l, int64_t j, bool join) {
    int64_t column = 0;

    if (!join && !l->linear[j].c) {
        return mx_matrix_of(l->linear[j].dy.data, w->act, l->linear[j].out);
    }
    for (int64_t i = 0; i < j; i++) {
        column += l->linear[i].out;
    }
    return mx_matrix_of(w->dz + w->size * column, w->act, w->dz_ld);
}

static void make_gradients(const backward_work *w, const mx_linears *l, bool join) {
    for (int64_t j = 0; j < l->linears; j++) {
        const mx_linear *linear = &l->linear[j];

        if (join || linear->c) {
            const void *z = mx_linear_keeps_z(l, linear) ? static_cast<char *>(l->saved) + mx_linears_saved_offset(w->c, l, j) : NULL;

            mx_rows_gradient(w->c, l, j, const_cast<void *>(gradient_of(w, l, j, join).data), w->dz_ld, z, w->partial);
        }
    }
}

/* ------------------------------------------------------------------ terms */

static bool wants(const mx_linears *l, int64_t j, bool (*what)(const mx_low_rank *)) {
    for (int64_t i = 0; i < l->linear[j].terms; i++) {
        if (l->linear[j].term[i].rank > 0 && what(&l->linear[j].term[i])) {
            return true;
        }
    }
    return false;
}
static bool wants_any(const mx_linears *l, bool (*what)(const mx_low_rank *)) {
    for (int64_t j = 0; j < l->linears; j++) {
        if (wants(l, j, what)) {
            return true;
        }
    }
    return false;
}
static bool of_a(const mx_low_rank *t) {
    return t->da;
}
static bool of_b(const mx_low_rank *t) {
    return t->db || t->dout_scale;
}
static bool of_vectors(const mx_low_rank *t) {
    return t->drank_scale || t->drow_weight;
}

/* v = dz (e . B), of one linear into its columns. */
static void back_through_b(const backward_work *w, const mx_linears *l, int64_t j, mx_linears_weights *weights, mx_matrix dz) {
    int64_t rank = mx_linear_rank(&l->linear[j]);

    if (rank > 0) {
        mx_linear_weight at = mx_linears_weight(weights, l, j, w->spare);

        mx_cuda_gemm(w->c, w->rows, rank, l->linear[j].out, dz, mx_matrix_of(at.b, w->act, at.b_ld),
                     mx_matrix_of(w->v + mx_linears_column(l, j), MX_F32, w->width), 1.0f, false);
    }
}

/* A lone term's dB without a vector is written by its product. */
static bool is_lone(const mx_linear *linear) {
    return linear->terms == 1 && !linear->term[0].out_scale && !linear->term[0].dout_scale;
}

static void gradients_of_b(const backward_work *w, const mx_linears *l, int64_t j, mx_matrix dz) {
    const mx_linear *linear = &l->linear[j];
    int64_t rank = mx_linear_rank(linear), ld = mx_up(rank, 8);
    mx_matrix u = mx_matrix_of(w->u + w->size * mx_linears_column(l, j), w->act, w->width);

    if (rank == 0 || !wants(l, j, of_b)) {
        return;
    }
    if (is_lone(linear)) {
        mx_cuda_gemm(w->c, linear->out, rank, w->live, mx_matrix_turned(dz), u, mx_matrix_of(linear->term[0].db, MX_F32, rank), 1.0f, true);
        return;
    }
    mx_cuda_gemm(w->c, linear->out, rank, w->live, mx_matrix_turned(dz), u, mx_matrix_of(w->g, MX_F32, ld), 1.0f, false);
    mx_terms_add_db(w->c, l, j, w->g);
}

static void gradients_of_a(const backward_work *w, const mx_linears *l) {
    mx_matrix p = mx_matrix_of(w->p, w->act, w->p_ld), x = mx_matrix_of(l->x.data, w->act, l->in);

    if (!wants_any(l, of_a)) {
        return;
    }
    if (mx_linears_drops(l)) {
        mx_cuda_dropout(w->c, &l->dropout, 0, l->rows, l->in, l->x.data, l->in, w->dropped, l->in, 1.0f);
        x.data = w->dropped;
    }
    if (l->linears == 1 && l->linear[0].terms == 1) {
        mx_cuda_gemm(w->c, l->linear[0].term[0].rank, l->in, w->live, mx_matrix_turned(p), x, mx_matrix_of(l->linear[0].term[0].da, MX_F32, l->in),
                     1.0f, true);
        return;
    }
    mx_cuda_gemm(w->c, mx_linears_rank(l), l->in, w->live, mx_matrix_turned(p), x, mx_matrix_of(w->g, MX_F32, l->in), 1.0f, false);
    mx_terms_add_da(w->c, l, w->g);
}

static void terms_backward(const backward_work *w, const mx_linears *l, mx_linears_weights *weights, bool join) {
    for (int64_t j = 0; j < l->linears; j++) {
        back_through_b(w, l, j, weights, gradient_of(w, l, j, join));
    }
    mx_terms_u_and_p(w->c, l, w->u, w->p, w->p_ld, l->saved, w->v);
    if (wants_any(l, of_vectors)) {
        mx_terms_vector_gradients(w->c, l, l->saved, w->v);
    }
    for (int64_t j = 0; j < l->linears; j++) {
        gradients_of_b(w, l, j, gradient_of(w, l, j, join));
    }
    gradients_of_a(w, l);
}

/* ------------------------------------------------------------------ dx */

/* [dz_0 | dz_1 | .. | p] [W_0; W_1; ..; A] */
static void joined_dx(const backward_work *w, const mx_linears *l, mx_linears_weights *weights) {
    mx_linear_weight at = mx_linears_weight(weights, l, 0, w->spare);

    if (w->width > 0) {
        mx_terms_stack(w->c, l, const_cast<void *>(mx_matrix_from_row(at.w, all_out(l)).data), at.w.ld);
    }
    mx_cuda_gemm(w->c, w->rows, l->in, all_out(l) + w->width, mx_matrix_of(w->dz, w->act, w->dz_ld), at.w,
                 mx_matrix_of(l->dx.data, w->act, l->in), 1.0f, l->dx_adds);
}

static void summed_dx(const backward_work *w, const mx_linears *l, mx_linears_weights *weights) {
    mx_matrix sum = mx_matrix_of(w->sum, MX_F32, l->in), low = mx_matrix_of(w->low ? w->low : w->sum, MX_F32, l->in);
    mx_matrix p = mx_matrix_of(w->p, w->act, w->p_ld), a = mx_matrix_of(w->stacked, w->act, l->in);

    if (w->width > 0) {
        mx_terms_stack(w->c, l, w->stacked, l->in);
    }
    for (int64_t first = 0; first < w->rows; first += MX_LINEARS_ROWS) {
        int64_t count = w->rows - first < MX_LINEARS_ROWS ? w->rows - first : (int64_t)MX_LINEARS_ROWS;

        for (int64_t j = 0; j < l->linears; j++) {
            mx_matrix dz = mx_matrix_from_row(gradient_of(w, l, j, false), first);

            mx_cuda_gemm(w->c, count, l->in, l->linear[j].out, dz, mx_linears_weight(weights, l, j, w->spare).w, sum, 1.0f, j > 0);
        }
        if (mx_linears_masks_inside(w->c, l)) {
            mx_rows_masked_dx(w->c, l, first, count, w->sum, w->p, w->p_ld, w->stacked);
            continue;
        }
        if (w->width > 0) {
            mx_cuda_gemm(w->c, count, l->in, w->width, mx_matrix_from_row(p, first), a, low, 1.0f, !w->low);
        }
        mx_rows_finish_dx(w->c, l, first, count, w->sum, w->low);
    }
}

static void input_backward(const backward_work *w, const mx_linears *l, mx_linears_weights *weights, bool join) {
    if (is_plain(l)) {
        mx_cuda_gemm(w->c, w->rows, l->in, l->linear[0].out, gradient_of(w, l, 0, false), mx_linears_weight(weights, l, 0, w->spare).w,
                     mx_matrix_of(l->dx.data, w->act, l->in), 1.0f, l->dx_adds);
    } else if (join) {
        joined_dx(w, l, weights);
    } else {
        summed_dx(w, l, weights);
    }
}

void mx_cuda_linears_backward(mx_backend *q, const mx_linears *l) {
    mx_cuda *c = mx_cuda_of(q);
    size_t mark = c->scratch.used;
    backward_work w = take(c, c, &c->scratch, l);
    mx_linears_weights weights = { c, NULL, NULL };
    bool join = joined(l);

    assert(l->training && l->x.dtype == w.act);
    if (join && w.width > 0) {
        w.p = w.dz + w.size * all_out(l);
        w.p_ld = w.dz_ld;
    }
    make_gradients(&w, l, join);
    if (w.width > 0) {
        terms_backward(&w, l, &weights, join);
    }
    if (l->dx.data) {
        input_backward(&w, l, &weights, join);
    }
    mx_cuda_reset(&c->scratch, mark);
}
