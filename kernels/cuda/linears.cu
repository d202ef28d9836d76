/* linears.cu - frozen linears with low-rank terms: sizes, weights and the forward pass.
 *
 *   q = A drop(x) of all terms, one product; u = s w (d . q)
 *   z = [x | u] [W | e . B]^T, a linear and its terms one product; y = c . z + bias
 *
 * B is written behind W's columns, where the group has room for it, and u behind a copy of x: the copy is one pass over x, where
 * adding B u to y would be two over y, which is wider, and a second rounding. Without terms W and x are multiplied where they are.
 * A group with less room than its terms take gets two products, added in f32 and rounded once. z that is not y is f32 and lives
 * for MX_LINEARS_ROWS rows at a time.
 *
 * What scratch is taken depends on no weight: a plan has none. */
#include "kernels/cuda/linears.h"

/* ------------------------------------------------------------------ weights and what is saved */

size_t mx_linears_saved_offset(const mx_cuda *c, const mx_linears *l, int64_t linear) {
    size_t size = mx_cuda_act_bytes(c);
    int64_t at = mx_up((int64_t)size * l->rows->rows * mx_linears_width(l), MX_CUDA_ALIGNMENT);

    for (int64_t j = 0; j < linear; j++) {
        at += mx_linear_keeps_z(l, &l->linear[j]) ? mx_up((int64_t)size * l->rows->rows * l->linear[j].out, MX_CUDA_ALIGNMENT) : 0;
    }
    return (size_t)at;
}

size_t mx_cuda_linears_saved_bytes(const mx_backend *q, const mx_linears *l) {
    return l->training ? mx_linears_saved_offset(mx_cuda_of(q), l, l->linears) : 0;
}

/* Of the B that does not fit, the largest. */
size_t mx_linears_spare_bytes(const mx_cuda *c, const mx_linears *l) {
    int64_t most = 0;

    for (int64_t j = 0; j < l->linears; j++) {
        int64_t values = l->linear[j].out * mx_up(mx_linear_rank(&l->linear[j]), 8);

        most = values > most ? values : most;
    }
    return mx_cuda_act_bytes(c) * (size_t)most;
}

static mx_linear_weight place(const mx_linears_weights *w, const mx_linears *l, int64_t j, void *spare) {
    const mx_weight *from = l->linear[j].w;
    const mx_cuda_weights *g = from->group;
    int64_t size = (int64_t)mx_cuda_act_bytes(w->c), width = mx_up(mx_linear_rank(&l->linear[j]), 8);
    char *rows = w->dense + size * from->first_row * g->ld;
    mx_linear_weight ret = {};

    ret.w = mx_matrix_of(rows, g->dtype, g->ld);
    ret.fits = width <= g->room.columns;
    ret.b = ret.fits ? rows + size * g->in : spare;
    ret.b_ld = ret.fits ? g->ld : width;
    return ret;
}

/* B's of those linears of [first, last) that are of the group that stands ready and do, or do not, fit; in as few launches as
 * lists allow. */
static void place_b(const mx_linears_weights *w, const mx_linears *l, int64_t first, int64_t last, void *spare, bool fits) {
    mx_terms list = {};

    for (int64_t j = first; j < last; j++) {
        mx_linear_weight at = place(w, l, j, spare);
        int64_t rank = mx_linear_rank(&l->linear[j]), terms = l->linear[j].w->group == w->now && at.fits == fits ? l->linear[j].terms : 0;

        for (int64_t i = 0; i < terms; i++) {
            mx_term t = mx_linears_term(l, j, i);

            if (t.rank == 0) {
                continue;
            }
            t.b_to = at.b;
            t.b_ld = at.b_ld;
            t.width += t.own + t.rank == rank ? mx_up(rank, 8) - rank : 0;
            list.term[list.count++] = t;
            if (list.count == MX_TERMS_AT_ONCE) {
                mx_terms_fill_b(w->c, &list);
                list.count = 0;
            }
        }
    }
    if (list.count > 0) {
        mx_terms_fill_b(w->c, &list);
    }
}

mx_linear_weight mx_linears_weight(mx_linears_weights *w, const mx_linears *l, int64_t j, void *spare) {
    const mx_cuda_weights *g = l->linear[j].w->group;
    mx_linear_weight ret;

    assert(l->linear[j].w->out == l->linear[j].out && g->in == l->in);
    if (w->now != g) {
        w->now = g;
        w->dense = static_cast<char *>(mx_cuda_weights_dense(w->c, g));
        place_b(w, l, 0, l->linears, spare, true);
    }
    ret = place(w, l, j, spare);
    if (!ret.fits) {
        place_b(w, l, j, j + 1, spare, false);
    }
    return ret;
}

/* ------------------------------------------------------------------ forward */

struct forward_work {
    mx_dtype act;
    int64_t size, width, x_ld;
    char *q;       /* act (T, width): saved, or scratch */
    void *stacked; /* act (width, in) */
    void *dropped; /* act (T, in) */
    char *x;       /* act (T, x_ld): [x | u] */
    void *spare;
    float *z;      /* (rows at once, out) */
    bool copied;   /* x stands in [x | u] */
};

static int64_t rows_at_once(const mx_linears *l) {
    return l->rows->rows < MX_LINEARS_ROWS ? l->rows->rows : (int64_t)MX_LINEARS_ROWS;
}

static forward_work take(const mx_cuda *c, mx_cuda_scratch *s, const mx_linears *l) {
    forward_work w = {};
    int64_t rows = l->rows->rows, rank = 0, z = 0;

    w.act = mx_activation_type(&c->base);
    w.size = (int64_t)mx_dtype_bytes(w.act);
    w.width = mx_linears_width(l);
    w.q = static_cast<char *>(l->saved);
    for (int64_t j = 0; j < l->linears; j++) {
        const mx_linear *linear = &l->linear[j];
        int64_t own = mx_linear_rank(linear);

        rank = own > rank ? own : rank;
        z = (own > 0 || linear->c || linear->bias) && linear->out > z ? linear->out : z;
    }
    w.x_ld = mx_up(l->in + mx_up(rank, 8), 64);
    if (w.width > 0) {
        if (!l->training) {
            w.q = mx_cuda_take_of<char>(s, w.size * rows * w.width);
        }
        w.stacked = mx_cuda_take_of<char>(s, w.size * w.width * l->in);
        w.dropped = mx_linears_drops(l) ? mx_cuda_take_of<char>(s, w.size * rows * l->in) : NULL;
        w.x = mx_cuda_take_of<char>(s, w.size * rows * w.x_ld);
        w.spare = mx_cuda_take(s, mx_linears_spare_bytes(c, l));
    }
    w.z = mx_cuda_take_of<float>(s, rows_at_once(l) * z);
    return w;
}

/* q = A drop(x) / (1 - rate) */
static void project(mx_cuda *c, const mx_linears *l, const forward_work *w) {
    int64_t rows = l->rows->rows;
    const void *x = l->x.data;

    mx_terms_stack(c, l, w->stacked, l->in);
    if (mx_linears_drops(l)) {
        mx_cuda_dropout(c, &l->dropout, 0, l->rows, l->in, l->x.data, l->in, w->dropped, l->in, 1.0f);
        x = w->dropped;
    }
    mx_cuda_gemm(c, rows, w->width, l->in, mx_matrix_of(x, w->act, l->in), mx_matrix_transposed(w->stacked, w->act, l->in),
                 mx_matrix_of(w->q, w->act, w->width), mx_linears_kept(l), false);
}

/* One linear's factors: x with its u behind it and W with B, or x and W and the two thin ones apart. */
struct factors {
    mx_matrix x, w, u, b;
    int64_t depth, rank; /* rank 0: no second product */
};

static factors factors_of(mx_cuda *c, const mx_linears *l, forward_work *w, mx_linears_weights *weights, int64_t j) {
    int64_t width = mx_up(mx_linear_rank(&l->linear[j]), 8);
    mx_linear_weight at = mx_linears_weight(weights, l, j, w->spare);
    factors f = {};

    f.x = mx_matrix_of(l->x.data, w->act, l->in);
    f.w = at.w;
    f.depth = l->in;
    if (width == 0) {
        return f;
    }
    if (at.fits && !w->copied) {
        mx_cuda_convert(c, w->x, w->act, w->x_ld, l->x.data, w->act, l->in, l->rows->rows, l->in, 1.0f);
        w->copied = true;
    }
    mx_terms_u(c, l, j, w->x + w->size * l->in, w->x_ld, w->q);
    if (at.fits) {
        f.x = mx_matrix_of(w->x, w->act, w->x_ld);
        f.depth = l->in + width;
    } else {
        f.u = mx_matrix_of(w->x + w->size * l->in, w->act, w->x_ld);
        f.b = mx_matrix_of(at.b, w->act, at.b_ld);
        f.rank = width;
    }
    return f;
}

static void multiply(mx_cuda *c, const mx_linears *l, forward_work *w, mx_linears_weights *weights, int64_t j) {
    const mx_linear *linear = &l->linear[j];
    int64_t rows = l->rows->rows, out = linear->out;
    factors f = factors_of(c, l, w, weights, j);
    void *saved_z = mx_linear_keeps_z(l, linear) ? static_cast<char *>(l->saved) + mx_linears_saved_offset(c, l, j) : NULL;

    if (!linear->c && !linear->bias && f.rank == 0) {
        mx_cuda_gemm(c, rows, out, f.depth, f.x, mx_matrix_turned(f.w), mx_matrix_of(linear->y.data, w->act, out), 1.0f, false);
        return;
    }
    for (int64_t first = 0; first < rows; first += MX_LINEARS_ROWS) {
        int64_t count = rows - first < MX_LINEARS_ROWS ? rows - first : (int64_t)MX_LINEARS_ROWS;
        mx_matrix z = mx_matrix_of(w->z, MX_F32, out);

        mx_cuda_gemm(c, count, out, f.depth, mx_matrix_from_row(f.x, first), mx_matrix_turned(f.w), z, 1.0f, false);
        if (f.rank > 0) {
            mx_cuda_gemm(c, count, out, f.rank, mx_matrix_from_row(f.u, first), mx_matrix_turned(f.b), z, 1.0f, true);
        }
        mx_rows_finish(c, linear, first, count, w->z, saved_z);
    }
}

void mx_cuda_linears_forward(mx_backend *q, const mx_linears *l) {
    mx_cuda *c = mx_cuda_of(q);
    size_t mark = c->scratch.used;
    forward_work w = take(c, &c->scratch, l);
    mx_linears_weights weights = { c, NULL, NULL };

    assert(l->x.dtype == w.act && l->x.dim[1] == l->in);
    if (w.width > 0) {
        project(c, l, &w);
    }
    for (int64_t j = 0; j < l->linears; j++) {
        multiply(c, l, &w, &weights, j);
    }
    mx_cuda_reset(&c->scratch, mark);
}

size_t mx_cuda_linears_scratch_bytes(const mx_backend *q, const mx_linears *l) {
    const mx_cuda *c = mx_cuda_of(q);
    mx_cuda_scratch s = {};
    size_t backward = l->training ? mx_linears_backward_bytes(c, l) : 0;

    take(c, &s, l);
    return s.most > backward ? s.most : backward;
}
