/* linears.c - frozen linears with low-rank terms, forward.
 *
 * W x and all of a linear's terms are one product: [x | u] [W | B]^T with u = s w (d . A drop(x)), the sum in f32 and
 * rounded once. Measured in bf16 with AMX, T 2048, 576 -> 1536, rank 16: W alone 6.6 ms; adding B u to y in f32 and
 * rounding after it 11.5 ms; copied into one product 8.3 ms. oneDNN wants the rows without gaps and their length a
 * multiple of 32 (otherwise it takes up to twice the time), so both factors are copied and padded. */
#include "kernels/cpu/linears.h"

enum { WIDTH_STEP = 32 };

/* ------------------------------------------------------------------ terms and where they lie */

int64_t mx_terms_count(const mx_linears *l) {
    int64_t count = 0;

    for (int64_t j = 0; j < l->linears; j++) {
        count += l->linear[j].terms;
    }
    return count;
}

mx_low_rank *mx_terms_at(const mx_linears *l, int64_t index) {
    int64_t j = 0;

    while (index >= l->linear[j].terms) {
        index -= l->linear[j++].terms;
    }
    return &l->linear[j].term[index];
}

mx_term_group mx_terms_group(const mx_linears *l, int64_t index, bool *ret_first, int64_t *ret_column) {
    const mx_low_rank *self = mx_terms_at(l, index);
    mx_term_group g = { .begin = self->begin, .end = mx_term_end(l, self) };
    int64_t count = mx_terms_count(l);

    *ret_first = true;
    *ret_column = 0;
    for (int64_t i = 0; i < count; i++) {
        const mx_low_rank *t = mx_terms_at(l, i);

        if (mx_term_in(l, t, &g)) {
            if (i < index) {
                *ret_first = false;
                *ret_column += t->rank;
            }
            g.rank += t->rank;
        }
    }
    return g;
}

int64_t mx_linear_rank(const mx_linear *linear) {
    int64_t rank = 0;

    for (int64_t i = 0; i < linear->terms; i++) {
        rank += linear->term[i].rank;
    }
    return rank;
}

int64_t mx_terms_rank(const mx_linears *l) {
    int64_t rank = 0;

    for (int64_t j = 0; j < l->linears; j++) {
        rank += mx_linear_rank(&l->linear[j]);
    }
    return rank;
}

static size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static size_t bits_bytes(const mx_linears *l) {
    return l->dropout.rate > 0 ? aligned((size_t)(l->rows->rows * mx_dropout_row_bytes(l->in))) : 0;
}

static size_t q_bytes(const mx_linears *l, mx_dtype act, int64_t index) {
    const mx_low_rank *t = mx_terms_at(l, index);

    return aligned((size_t)((mx_term_end(l, t) - t->begin) * t->rank) * mx_dtype_bytes(act));
}

/* Where the q of term `index` begins; with index the count of terms, where the z's begin. */
static size_t q_offset(const mx_linears *l, mx_dtype act, int64_t index) {
    size_t at = bits_bytes(l);

    for (int64_t i = 0; i < index; i++) {
        at += q_bytes(l, act, i);
    }
    return at;
}

static size_t z_offset(const mx_linears *l, mx_dtype act, int64_t linear) {
    size_t at = q_offset(l, act, mx_terms_count(l));

    for (int64_t j = 0; j < linear; j++) {
        at += l->linear[j].c ? aligned((size_t)(l->rows->rows * l->linear[j].out) * mx_dtype_bytes(act)) : 0;
    }
    return at;
}

uint8_t *mx_linears_bits(const mx_linears *l, void *saved) {
    return l->dropout.rate > 0 ? saved : NULL;
}

void *mx_linears_q(const mx_linears *l, mx_dtype act, void *saved, int64_t index) {
    return (char *)saved + q_offset(l, act, index);
}

void *mx_linears_z(const mx_linears *l, mx_dtype act, void *saved, int64_t linear) {
    return (char *)saved + z_offset(l, act, linear);
}

size_t mx_cpu_linears_saved_bytes(const mx_backend *q, const mx_linears *l) {
    return l->training ? z_offset(l, mx_activation_type(q), l->linears) : 0;
}

/* ------------------------------------------------------------------ pieces both directions use */

void mx_terms_stack(const mx_linears *l, const mx_term_group *g, mx_dtype act, void *ret) {
    int64_t count = mx_terms_count(l), at = 0;

    for (int64_t i = 0; i < count; i++) {
        const mx_low_rank *t = mx_terms_at(l, i);

        if (mx_term_in(l, t, g)) {
            mx_values_convert_all((char *)ret + (size_t)(at * l->in) * mx_dtype_bytes(act), act, t->a, MX_F32,
                                  t->rank * l->in);
            at += t->rank;
        }
    }
}

MX_INLINE void u_row(const mx_low_rank *t, float scale, mx_dtype act, void *ret, const void *q) {
    for (int64_t r = 0; r < t->rank; r++) {
        mx_put(ret, act, r, scale * (t->rank_scale ? t->rank_scale[r] : 1.0f) * mx_get(q, act, r));
    }
}

MX_CLONES static void u_row_f32(const mx_low_rank *t, float scale, void *ret, const void *q) {
    u_row(t, scale, MX_F32, ret, q);
}
MX_CLONES static void u_row_bf16(const mx_low_rank *t, float scale, void *ret, const void *q) {
    u_row(t, scale, MX_BF16, ret, q);
}

void mx_term_u_row(const mx_low_rank *t, int64_t row, mx_dtype act, void *ret, const void *q_row) {
    float scale = t->scale * (t->row_weight ? t->row_weight[row] : 1.0f);

    if (act == MX_BF16) {
        u_row_bf16(t, scale, ret, q_row);
    } else {
        u_row_f32(t, scale, ret, q_row);
    }
}

void mx_term_b_row(const mx_low_rank *t, int64_t o, mx_dtype act, void *ret) {
    const float *b = t->b + o * t->rank;

    if (!t->out_scale) {
        mx_values_convert(ret, act, b, MX_F32, t->rank);
        return;
    }
    for (int64_t r = 0; r < t->rank; r++) {
        mx_put(ret, act, r, t->out_scale[o] * b[r]);
    }
}

const void *mx_linears_dropped(const mx_linears *l, const uint8_t *bits, void *scratch) {
    int64_t row_bytes = mx_dropout_row_bytes(l->in);
    mx_tensor to = mx_tensor_2d(scratch, l->x.dtype, l->rows->rows, l->in);

    if (!bits) {
        return l->x.data;
    }
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < l->rows->rows; t++) {
        mx_mask_row(bits + t * row_bytes, mx_row_of(&to, t), mx_row_of(&l->x, t), l->x.dtype, l->in);
    }
    return scratch;
}

/* ------------------------------------------------------------------ forward */

typedef struct work {
    mx_dtype act;
    size_t size;      /* of an act */
    int64_t width;    /* of [x | u]: in + the largest rank of a linear, padded */
    void *saved;      /* l->saved, or scratch when nothing is kept */
    void *dropped;    /* act (T, in) */
    void *stacked;    /* act (rank of a group, in) */
    float *projected; /* (T, rank of a group) */
    void *x;          /* act (T, width) */
    void *w;          /* act (out, width) */
    float *z;         /* (T, out): linears with c or bias */
} work;

static bool has_terms(const mx_linear *linear) {
    return mx_linear_rank(linear) > 0;
}

static int64_t most_group_rank(const mx_linears *l) {
    int64_t count = mx_terms_count(l), most = 0, column;
    bool first;

    for (int64_t i = 0; i < count; i++) {
        mx_term_group g = mx_terms_group(l, i, &first, &column);

        most = g.rank > most ? g.rank : most;
    }
    return most;
}

static work take(const mx_backend *q, mx_scratch *s, const mx_linears *l) {
    work w = { .act = mx_activation_type(q), .saved = l->saved };
    int64_t rows = l->rows->rows, group_rank = most_group_rank(l), rank = 0, out = 0, out_f32 = 0;

    w.size = mx_dtype_bytes(w.act);
    for (int64_t j = 0; j < l->linears; j++) {
        const mx_linear *linear = &l->linear[j];
        int64_t own = mx_linear_rank(linear);

        rank = own > rank ? own : rank;
        out = own > 0 && linear->out > out ? linear->out : out;
        out_f32 = (linear->c || linear->bias) && linear->out > out_f32 ? linear->out : out_f32;
    }
    w.width = (l->in + rank + WIDTH_STEP - 1) / WIDTH_STEP * WIDTH_STEP;
    if (!l->training) {
        w.saved = mx_scratch_take(s, z_offset(l, w.act, l->linears));
    }
    if (rank > 0) {
        w.dropped = l->dropout.rate > 0 ? mx_scratch_take(s, (size_t)(rows * l->in) * w.size) : NULL;
        w.stacked = mx_scratch_take(s, (size_t)(group_rank * l->in) * w.size);
        w.projected = MX_SCRATCH(s, float, rows * group_rank);
        w.x = mx_scratch_take(s, (size_t)(rows * w.width) * w.size);
        w.w = mx_scratch_take(s, (size_t)(out * w.width) * w.size);
    }
    w.z = MX_SCRATCH(s, float, rows * out_f32);
    return w;
}

/* q = A drop(x) / (1 - rate) of each of the group's terms; one product. */
static void project(mx_cpu *cpu, const mx_linears *l, const work *w, const mx_term_group *g, const void *dropped) {
    int64_t n = g->end - g->begin, count = mx_terms_count(l), column = 0;
    float scale = l->dropout.rate > 0 ? 1.0f / (1.0f - l->dropout.rate) : 1.0f;

    mx_terms_stack(l, g, w->act, w->stacked);
    mx_gemm(cpu, n, g->rank, l->in,
            mx_factor_of((const char *)dropped + (size_t)(g->begin * l->in) * w->size, w->act, l->in),
            mx_factor_transposed(w->stacked, w->act, l->in), mx_product_of(w->projected, MX_F32, g->rank), false);
    for (int64_t i = 0; i < count; i++) {
        const mx_low_rank *t = mx_terms_at(l, i);

        if (!mx_term_in(l, t, g)) {
            continue;
        }
        char *q = mx_linears_q(l, w->act, w->saved, i);

#pragma omp parallel for schedule(static)
        for (int64_t row = 0; row < n; row++) {
            float *from = w->projected + row * g->rank + column;

            for (int64_t r = 0; r < t->rank; r++) {
                from[r] *= scale;
            }
            mx_values_convert(q + (size_t)(row * t->rank) * w->size, w->act, from, MX_F32, t->rank);
        }
        column += t->rank;
    }
}

/* [x | anything] */
static void copy_x(const mx_linears *l, const work *w) {
    size_t bytes = (size_t)l->in * w->size;

#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < l->rows->rows; t++) {
        memcpy((char *)w->x + (size_t)(t * w->width) * w->size, mx_row_of(&l->x, t), bytes);
    }
}

/* The columns behind x become linear j's u, zero where a term does not reach and in the padding. */
static void fill_u(const mx_linears *l, const work *w, int64_t j, int64_t first_term) {
    const mx_linear *linear = &l->linear[j];

#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < l->rows->rows; row++) {
        char *u = (char *)w->x + (size_t)(row * w->width + l->in) * w->size;

        memset(u, 0, (size_t)(w->width - l->in) * w->size);
        for (int64_t i = 0; i < linear->terms; i++) {
            const mx_low_rank *t = &linear->term[i];

            if (row >= t->begin && row < mx_term_end(l, t)) {
                const char *q = mx_linears_q(l, w->act, w->saved, first_term + i);

                mx_term_u_row(t, row, w->act, u, q + (size_t)((row - t->begin) * t->rank) * w->size);
            }
            u += (size_t)t->rank * w->size;
        }
    }
}

/* [W | e . B of each term | 0] */
static void fill_w(const mx_linears *l, const work *w, const mx_linear *linear) {
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < linear->out; o++) {
        char *to = (char *)w->w + (size_t)(o * w->width) * w->size;

        memcpy(to, (const char *)linear->w->rows + (size_t)(o * l->in) * w->size, (size_t)l->in * w->size);
        memset(to + (size_t)l->in * w->size, 0, (size_t)(w->width - l->in) * w->size);
        to += (size_t)l->in * w->size;
        for (int64_t i = 0; i < linear->terms; i++) {
            mx_term_b_row(&linear->term[i], o, w->act, to);
            to += (size_t)linear->term[i].rank * w->size;
        }
    }
}

MX_INLINE void finish_row(void *y, void *saved_z, const float *z, const float *c, const float *bias, int64_t n,
                          mx_dtype act) {
    if (saved_z) {
        for (int64_t o = 0; o < n; o++) {
            mx_put(saved_z, act, o, z[o]);
        }
    }
    for (int64_t o = 0; o < n; o++) {
        mx_put(y, act, o, (c ? c[o] : 1.0f) * z[o] + (bias ? bias[o] : 0.0f));
    }
}
MX_CLONES static void finish_row_f32(void *y, void *saved_z, const float *z, const float *c, const float *bias, int64_t n) {
    finish_row(y, saved_z, z, c, bias, n, MX_F32);
}
MX_CLONES static void finish_row_bf16(void *y, void *saved_z, const float *z, const float *c, const float *bias, int64_t n) {
    finish_row(y, saved_z, z, c, bias, n, MX_BF16);
}

/* y = c . z + bias, z kept for dc. */
static void finish(const mx_linears *l, const work *w, int64_t j) {
    const mx_linear *linear = &l->linear[j];
    char *saved_z = linear->c ? mx_linears_z(l, w->act, w->saved, j) : NULL;

#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < l->rows->rows; t++) {
        void *keep = saved_z ? saved_z + (size_t)(t * linear->out) * w->size : NULL;
        const float *z = w->z + t * linear->out;

        if (w->act == MX_BF16) {
            finish_row_bf16(mx_row_of(&linear->y, t), keep, z, linear->c, linear->bias, linear->out);
        } else {
            finish_row_f32(mx_row_of(&linear->y, t), keep, z, linear->c, linear->bias, linear->out);
        }
    }
}

static void multiply(mx_cpu *cpu, const mx_linears *l, const work *w, int64_t j, int64_t first_term) {
    const mx_linear *linear = &l->linear[j];
    bool finished = !linear->c && !linear->bias;
    mx_product to = finished ? mx_product_of(linear->y.data, w->act, linear->out)
                             : mx_product_of(w->z, MX_F32, linear->out);

    if (has_terms(linear)) {
        fill_u(l, w, j, first_term);
        fill_w(l, w, linear);
        mx_gemm(cpu, l->rows->rows, linear->out, w->width, mx_factor_of(w->x, w->act, w->width),
                mx_factor_transposed(w->w, w->act, w->width), to, false);
    } else {
        mx_weight_gemm(cpu, linear->w, false, l->rows->rows, mx_factor_of(l->x.data, w->act, l->in), to, false);
    }
    if (!finished) {
        finish(l, w, j);
    }
}

void mx_cpu_linears_forward(mx_backend *q, const mx_linears *l) {
    mx_cpu *cpu = mx_cpu_of(q);
    size_t mark = cpu->scratch.used;
    work w = take(q, &cpu->scratch, l);
    int64_t count = mx_terms_count(l), first_term = 0;
    uint8_t *bits = mx_linears_bits(l, w.saved);

    assert(l->x.dtype == w.act && l->x.dim[1] == l->in);
    if (mx_terms_rank(l) > 0) {
        if (bits) {
            mx_dropout_draw(&l->dropout, 0, l->rows, NULL, l->rows->rows, l->in, bits);
        }

        const void *dropped = mx_linears_dropped(l, bits, w.dropped);

        for (int64_t i = 0; i < count; i++) {
            int64_t column;
            bool first;
            mx_term_group g = mx_terms_group(l, i, &first, &column);

            if (first) {
                project(cpu, l, &w, &g, dropped);
            }
        }
        copy_x(l, &w);
    }
    for (int64_t j = 0; j < l->linears; j++) {
        multiply(cpu, l, &w, j, first_term);
        first_term += l->linear[j].terms;
    }
    mx_scratch_reset(&cpu->scratch, mark);
}

static size_t forward_scratch_bytes(const mx_backend *q, const mx_linears *l) {
    mx_scratch s = { 0 };

    take(q, &s, l);
    return s.most;
}

size_t mx_cpu_linears_scratch_bytes(const mx_backend *q, const mx_linears *l) {
    size_t forward = forward_scratch_bytes(q, l), backward = l->training ? mx_linears_backward_bytes(q, l) : 0;

    return forward > backward ? forward : backward;
}
