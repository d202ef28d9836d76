/* linears.h - what the forward and the backward pass of linears share: where things lie in `saved`, and which terms
 * are computed together. */
#ifndef KERNELS_CPU_LINEARS_H
#define KERNELS_CPU_LINEARS_H

#include "kernels/cpu/tile.h"

/* Terms that read the same rows, of whatever linear, share one product with their A's stacked. The group's matrices
 * have `rank` columns, of which a term has those from `column` on. */
typedef struct mx_term_group {
    int64_t begin, end; /* rows */
    int64_t rank;       /* of all its terms */
} mx_term_group;

static inline int64_t mx_term_end(const mx_linears *l, const mx_low_rank *t) {
    return t->end < 0 ? l->rows->rows : t->end;
}

static inline bool mx_term_in(const mx_linears *l, const mx_low_rank *t, const mx_term_group *g) {
    return t->begin == g->begin && mx_term_end(l, t) == g->end;
}

/* Terms are counted through all linears: 0 .. mx_terms_count - 1. */
int64_t mx_terms_count(const mx_linears *l);
mx_low_rank *mx_terms_at(const mx_linears *l, int64_t index);
/* The group that term `index` belongs to; whether it is the group's first; its first column there. */
mx_term_group mx_terms_group(const mx_linears *l, int64_t index, bool *ret_first, int64_t *ret_column);
/* The sum of all terms' ranks. */
int64_t mx_terms_rank(const mx_linears *l);
int64_t mx_linear_rank(const mx_linear *linear);

/* Saved: dropout's bits, then for each term q = A xd (its rows, R) act, then for each linear with c z (T, out) act. */
uint8_t *mx_linears_bits(const mx_linears *l, void *saved);
void *mx_linears_q(const mx_linears *l, mx_dtype act, void *saved, int64_t index);
void *mx_linears_z(const mx_linears *l, mx_dtype act, void *saved, int64_t linear);

/* A's of a group stacked (rank, in), as act. */
void mx_terms_stack(const mx_linears *l, const mx_term_group *g, mx_dtype act, void *ret);
/* One row of u = s w[t] d . q, as act; q's row is t - begin. */
void mx_term_u_row(const mx_low_rank *t, int64_t row, mx_dtype act, void *ret, const void *q_row);
/* One row of B as act, e[o] B[o,:]. */
void mx_term_b_row(const mx_low_rank *t, int64_t o, mx_dtype act, void *ret);
/* Scratch of the backward pass. */
size_t mx_linears_backward_bytes(const mx_backend *q, const mx_linears *l);
/* xd = x where kept (without 1 / (1 - rate)); x itself when there is no dropout. */
const void *mx_linears_dropped(const mx_linears *l, const uint8_t *bits, void *scratch);

/* ------------------------------------------------------------------ linears_input.c
 * p of a group: act (rows padded to 32, depth), row t at line t, its first `rank` columns used, zeros elsewhere. */
static inline int64_t mx_input_depth(mx_dtype act, const mx_term_group *g) {
    return mx_tile_depth(act, g->rank);
}
size_t mx_input_p_bytes(const mx_linears *l, mx_dtype act); /* of all groups */
/* Where the p of term `index`'s group begins. */
size_t mx_input_p_offset(const mx_linears *l, mx_dtype act, int64_t index);
size_t mx_input_packed_bytes(const mx_linears *l, mx_dtype act);
/* dx = (dx +) sum + mask . (p A) over all groups; in f32 the sum already stands in dx. p NULL: no terms. */
void mx_input_finish(mx_cpu *cpu, const mx_linears *l, const float *sum, const uint8_t *bits, const char *p, void *packed);

#endif
