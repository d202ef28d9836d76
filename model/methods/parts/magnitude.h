/* magnitude.h - DoRA's trained length of each output row.
 *
 *   y = c . (W x + D(x)) + bias,  c = m / n,  n[o] = ||W[o,:] + s B[o,:] A||, a constant for the gradient
 *   (arXiv:2402.09353, eq. 5 and section 4.3). m starts as n, so step 0 computes the base. Dropout acts inside D only. */
#ifndef MODEL_METHODS_PARTS_MAGNITUDE_H
#define MODEL_METHODS_PARTS_MAGNITUDE_H

#include "model/methods/parts/low_rank.h"

/* After mx_low_rank_declare at the same site. */
void mx_magnitude_declare(mx_layout *l, const mx_low_rank_words *w, int64_t layer, mx_site site, int64_t experts);
/* Scale c and its gradient, where the site has them. */
void mx_magnitude_linear(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret);
void mx_magnitude_expert(const mx_adapter *a, int64_t layer, mx_site site, mx_expert_linear *ret);

/* Over all sites that have a magnitude; `words` gives rank and scale of a site (attention or expert). */
typedef mx_low_rank_words (*mx_magnitude_words)(const void *config, mx_site site);
size_t mx_magnitude_scratch_bytes(const mx_layout *l, const mx_backend *b, mx_magnitude_words words);
void mx_magnitude_start(mx_adapter *a, const mx_frozen *base, mx_magnitude_words words);    /* m = n */
void mx_magnitude_refresh(mx_adapter *a, const mx_frozen *base, mx_magnitude_words words);  /* n, c */
void mx_magnitude_gradient(mx_adapter *a, const mx_frozen *base, mx_magnitude_words words); /* dm += dc / n */

#endif
