/* gpu_batch.h - see gpu_batch.c. */
#ifndef TESTS_PERF_GPU_BATCH_H
#define TESTS_PERF_GPU_BATCH_H

#include "model/batch.h"

#include "base/arena.h"

/* Sequences of about 256 tokens, `rows` together, with loss on their last 8 tokens. `peers`: each 256, loss on all its tokens
 * but the first. */
const mx_batch *perf_batch_sequences(mx_arena *a, int64_t rows, int64_t vocab, bool peers);
/* Questions with four choices of 8 tokens that share a context of 96, as many as fit. */
const mx_batch *perf_batch_questions(mx_arena *a, int64_t rows, int64_t vocab);

#endif
