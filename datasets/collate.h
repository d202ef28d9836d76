/* collate.h - encoded questions in, one packed mx_batch out.
 *
 * Sequences lie end to end; no padding is computed but the bucket's. Where a question's choices share their context, it
 * is one segment, and each choice's own tokens a segment that points at it: the context's last row then predicts the
 * first token of every choice, so a choice of one token needs no rows of its own, and no segment.
 * Only rows that predict a target are loss rows. */
#ifndef DATASETS_COLLATE_H
#define DATASETS_COLLATE_H

#include "datasets/encode.h"
#include "model/batch.h"

/* How large a batch is, or the largest of each over many batches (the plan's). rows: live ones. */
typedef struct mx_extent {
    int64_t rows, loss_rows, spans, segments, questions;
} mx_extent;

typedef struct mx_collate_options {
    bool unshared;  /* every choice with a context of its own (tests) */
    int64_t bucket; /* rows are rounded up to a multiple; 0 counts as 1 */
} mx_collate_options;

mx_extent mx_extent_of(const mx_encoded *e, bool unshared);
mx_extent mx_extent_add(mx_extent a, mx_extent b);
mx_extent mx_extent_max(mx_extent a, mx_extent b);

/* How many of the questions, in order, go into one micro-batch of at most max_rows rows; at least 1. */
int64_t mx_collate_fit(const mx_encoded *const *item, int64_t count, int64_t max_rows, const mx_collate_options *o);

/* Packs them. The step_ fields are those of this batch alone; the stream overwrites them with the step's. A label
 * question's one loss row is its prompt's last: its logits are what is wanted, the target is 0, and gold counts among the candidates.
 * Borrowed from the arena until it is rewound. */
mx_batch *mx_collate(const mx_encoded *const *item, int64_t count, const mx_collate_options *o, mx_arena *arena);

#endif
