/* stream.h - the training questions of a mix in a seeded order, cut into steps and micro-batches.
 *
 * An epoch gives each task round(weight * its questions) questions: whole passes over all of them, then the first of
 * one more shuffled pass. All tasks' questions are then shuffled together. The order is a function of (seed, epoch), what a step
 * reads one of the step's number: a resumed run redraws nothing. The last step of an epoch takes what remains.
 *
 * A step's questions are cut, in order, into the fewest micro-batches of at most micro_batch_tokens rows, as even as that
 * allows; a question is never cut, and one that is larger gets a micro-batch of its own.
 *
 * Question numbers (mx_batch.question, which name dropout masks) are mx_question.running: the order of the mix's
 * tasks and the questions in their files decide them; seed, weight, limit, hold_out and packing do not. */
#ifndef DATASETS_STREAM_H
#define DATASETS_STREAM_H

#include "datasets/collate.h"

typedef struct mx_stream mx_stream;

typedef struct mx_stream_part {
    const mx_encoded_list *questions;
    double weight; /* > 0 */
} mx_stream_part;

typedef struct mx_stream_options {
    uint64_t seed;
    int64_t epochs, max_steps; /* max_steps 0: none */
    int64_t batch_size;        /* questions */
    int64_t micro_batch_tokens;
    mx_collate_options collate;
} mx_stream_options;

/* Of the whole run, known before it starts. */
typedef struct mx_stream_totals {
    int64_t epoch_questions, steps_per_epoch, steps;
    int64_t questions, rows, loss_rows; /* of all steps; rows are the tokens fed */
    int64_t micro_batches;
    mx_extent largest; /* of each the largest over all micro-batches */
} mx_stream_totals;

typedef struct mx_stream_step {
    const mx_batch *const *batch; /* micro-batches */
    int64_t batches;
    int64_t epoch; /* from 0 */
    bool ends_epoch;
    int64_t questions, rows, loss_rows;
} mx_stream_step;

/* The encoded lists must outlive the stream, which lives in the arena. MX_E_DATA when there is no question to train on. */
MX_MUST_CHECK mx_code mx_stream_open(const mx_stream_part *part, int64_t parts, const mx_stream_options *o, mx_arena *arena,
                                     mx_stream **ret, mx_status *st);
const mx_stream_totals *mx_stream_measure(const mx_stream *s);
/* Step 0 .. totals.steps - 1, in any order. Batches are borrowed from `arena` until it is rewound. */
void mx_stream_read(mx_stream *s, int64_t step, mx_arena *arena, mx_stream_step *ret);

#endif
