/* batch.h - what the model eats: the consumer's contract. Made by datasets/collate and eval, read by model.
 *
 * A micro-batch is packed: sequences lie end to end, no padding is computed. A question's choices may share
 * their context: the context is one segment (the prefix), each choice's own tokens another segment that points at it.
 * Shared equals unshared in every score, loss and gradient.
 *
 * Everything is host memory, borrowed from the maker's arena until that is rewound. */
#ifndef MODEL_BATCH_H
#define MODEL_BATCH_H

#include "kernels/ops.h"

/* One sequence (a whole text, or one choice of a question). */
typedef struct mx_sequence {
    int32_t task;     /* index into the run's task list: the router's load is told apart by it */
    int32_t tag;      /* a dataset's own integer (LoRAMoE's task type); 0 */
    int32_t cluster;  /* a sequence-level cluster id (MoCLE); 0 */
    int32_t question; /* number of the question in its task's file: names dropout masks; >= 0 */
    int32_t choice;   /* which choice, or 0 */
    int32_t trainee;  /* which of the trainees trains on it; 0 */
} mx_sequence;

typedef struct mx_batch {
    int64_t rows; /* length of the row arrays: `live` rounded up to the backend's bucket */
    int64_t live;
    const int32_t *token, *position, *question, *task, *row_segment; /* (rows); question = dropout's row name: unique
                                        in the run: the mix's running number, see datasets/stream.h */
    const mx_segment *segment;
    int64_t segments; /* prefixes come before the segments that read them */
    const mx_sequence *sequence; /* (segments): who a segment belongs to; for a prefix choice = -1 */

    /* Loss rows: row[n]'s logits are asked for target[n]. The same row may be asked several times (a shared
     * context's last token predicts the first token of every choice). Ordered by span. */
    int64_t loss_rows;
    const int32_t *loss_row, *loss_target;
    const mx_span *span; /* a choice's answer or a sequence's targets: a run of loss rows */
    int64_t spans;
    int64_t questions;          /* in this micro-batch */
    const int32_t *gold;        /* (questions): right choice; -1 unknown (evaluation only) */
    const int32_t *first_span;  /* (questions + 1) */

    /* Of the whole optimizer step this micro-batch belongs to: what its losses are divided by. */
    double step_loss_tokens, step_questions, step_rows;
} mx_batch;

#endif
