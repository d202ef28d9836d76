/* linears.h - what the forward and the backward pass of linears share: terms side by side, where things lie in `saved`, and the
 * kernels (linears_terms.cu: everything of a rank's width; linears_rows.cu: everything of a row's).
 *
 * All terms of a call stand side by side: term i has `rank` columns of q, v and p (T, ranks) from `column` on, and as many rows of
 * the stacked A. A row that a term does not reach has zeros there. Within its linear it has columns from `own` on, where its B
 * stands behind W's columns. */
#ifndef KERNELS_CUDA_LINEARS_H
#define KERNELS_CUDA_LINEARS_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/values.h"

/* A host's tests are small and cross these bounds all the same. */
#ifdef __CUDACC__
enum {
    MX_TERMS_AT_ONCE = 16,   /* of one launch: its arguments hold them */
    MX_LINEARS_ROWS = 4096,  /* of what is kept in f32 at a time, before it is rounded */
    MX_LINEARS_STRETCH = 128 /* rows of a partial sum over rows */
};
#else
enum { MX_TERMS_AT_ONCE = 3, MX_LINEARS_ROWS = 32, MX_LINEARS_STRETCH = 48 };
#endif

struct mx_term {
    const float *a, *b, *rank_scale, *out_scale, *row_weight;
    float *da, *db, *drank_scale, *dout_scale, *drow_weight;
    int64_t begin, end, out, in; /* rows reached; its linear's size */
    int64_t rank, width;         /* width: with the zeros behind it that the last term of a list takes care of */
    int64_t column;
    void *b_to;                  /* where e . B goes: behind W's columns, or into scratch; row o at b_to + o b_ld */
    int64_t b_ld;
    int32_t own;
    float scale;
};
struct mx_terms { /* no gaps anywhere: it goes to the device byte by byte */
    mx_term term[MX_TERMS_AT_ONCE];
    int64_t count;
};

static inline int64_t mx_up(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
}
static inline int64_t mx_linear_rank(const mx_linear *linear) {
    int64_t rank = 0;

    for (int64_t i = 0; i < linear->terms; i++) {
        rank += linear->term[i].rank;
    }
    return rank;
}
static inline int64_t mx_linears_rank(const mx_linears *l) {
    int64_t rank = 0;

    for (int64_t j = 0; j < l->linears; j++) {
        rank += mx_linear_rank(&l->linear[j]);
    }
    return rank;
}
/* Columns of q, v, p: all ranks, in whole eights so that lines are aligned. */
static inline int64_t mx_linears_width(const mx_linears *l) {
    return mx_up(mx_linears_rank(l), 8);
}
static inline bool mx_linears_drops(const mx_linears *l) {
    return l->dropout.rate > 0 && mx_linears_rank(l) > 0;
}
static inline mx_matrix mx_matrix_from_row(mx_matrix m, int64_t row) {
    m.data = static_cast<const char *>(m.data) + row * m.ld * (int64_t)mx_dtype_bytes(m.dtype);
    return m;
}
static inline mx_matrix mx_matrix_turned(mx_matrix m) {
    m.transposed = !m.transposed;
    return m;
}
static inline float mx_linears_kept(const mx_linears *l) {
    return l->dropout.rate > 0 ? 1.0f / (1.0f - l->dropout.rate) : 1.0f;
}

/* Term i of linear j, without a place for its B. `column`: of the linear's first. */
mx_term mx_linears_term(const mx_linears *l, int64_t j, int64_t i);
/* The column of linear j's first term. */
int64_t mx_linears_column(const mx_linears *l, int64_t j);

/* ------------------------------------------------------------------ saved: q (T, width) act, then z (T, out) of each linear with dc */
size_t mx_linears_saved_offset(const mx_cuda *c, const mx_linears *l, int64_t linear);
static inline bool mx_linear_keeps_z(const mx_linears *l, const mx_linear *linear) {
    return l->training && linear->c && linear->dc;
}

/* ------------------------------------------------------------------ weights while a call lasts */
/* The group whose values stand ready; a quantised one's are gone when another takes the buffer. */
struct mx_linears_weights {
    mx_cuda *c;
    const mx_cuda_weights *now;
    char *dense;
};
/* Linear j's W and whether its B's fit behind its columns. When its group was not the ready one, the B's of all its linears that
 * fit are written. `spare`: for a B that does not, written by each call. */
struct mx_linear_weight {
    mx_matrix w;    /* (out, in), ld */
    void *b;        /* (out, ranks of the linear, in eights) */
    int64_t b_ld;
    bool fits;
};
mx_linear_weight mx_linears_weight(mx_linears_weights *w, const mx_linears *l, int64_t j, void *spare);
size_t mx_linears_spare_bytes(const mx_cuda *c, const mx_linears *l);

/* ------------------------------------------------------------------ linears_terms.cu */
/* The A's under one another (width, in) act at `to`, zeros in the rows past the ranks. */
void mx_terms_stack(mx_cuda *c, const mx_linears *l, void *to, int64_t ld);
/* b_to of each of the list's = act(e . B), and zeros. */
void mx_terms_fill_b(mx_cuda *c, const mx_terms *list);
/* u of linear j (T, its ranks in eights) act at `to`, from q. */
void mx_terms_u(mx_cuda *c, const mx_linears *l, int64_t j, void *to, int64_t to_ld, const void *q);
/* u (T, width) and p (T, width; p_ld) act of all terms, from q and v (T, width) f32. */
void mx_terms_u_and_p(mx_cuda *c, const mx_linears *l, void *u, void *p, int64_t p_ld, const void *q, const float *v);
/* dd and dw of all terms that want them. */
void mx_terms_vector_gradients(mx_cuda *c, const mx_linears *l, const void *q, const float *v);
/* da += rows of g (width, in). */
void mx_terms_add_da(mx_cuda *c, const mx_linears *l, const float *g);
/* Linear j's db and de, from g (out, its ranks in eights) = dz^T u. */
void mx_terms_add_db(mx_cuda *c, const mx_linears *l, int64_t j, const float *g);

/* ------------------------------------------------------------------ linears_rows.cu */
/* y = c . z + bias for `rows` rows; saved_z NULL: not kept. */
void mx_rows_finish(mx_cuda *c, const mx_linear *linear, int64_t first, int64_t rows, const float *z, void *saved_z);
/* dz (T, out; dz_ld) = c . dy, or a copy (c NULL); dc += sum over live rows of dy z, where there is a z. */
void mx_rows_gradient(mx_cuda *c, const mx_linears *l, int64_t j, void *dz, int64_t dz_ld, const void *z, float *partial);
size_t mx_rows_partial_bytes(const mx_linears *l);
/* dx = (dx +) sum + mask . low for rows first .. first + rows; low NULL: none. */
void mx_rows_finish_dx(mx_cuda *c, const mx_linears *l, int64_t first, int64_t rows, const float *sum, const float *low);

/* ------------------------------------------------------------------ linears_input.cu */
/* Whether dx's last step multiplies p and A itself: in bf16, when lines are whole eights. */
static inline bool mx_linears_masks_inside(const mx_cuda *c, const mx_linears *l) {
    return mx_cuda_bf16(c) && mx_linears_drops(l) && l->in % 8 == 0;
}
/* dx = (dx +) sum + mask . (p A) for rows first .. first + rows; p (T, width; p_ld) and A (width, in) act, aligned to 16 bytes. */
void mx_rows_masked_dx(mx_cuda *c, const mx_linears *l, int64_t first, int64_t rows, const float *sum, const void *p, int64_t p_ld,
                       const void *a);

/* ------------------------------------------------------------------ linears_backward.cu */
size_t mx_linears_backward_bytes(const mx_cuda *c, const mx_linears *l);

#endif
