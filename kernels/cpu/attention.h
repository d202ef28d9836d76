/* attention.h - what attention's two directions share.
 *
 * One thread works on one segment and one key/value head at a time: it widens the segment's keys (its prefix's, then its
 * own) to f32 once and runs the query heads that read them over blocks of 32 queries, each against all the
 * keys it sees; a row of scores is whole, so its softmax needs no rescaling. Head width and keys are padded to 16. */
#ifndef KERNELS_CPU_ATTENTION_H
#define KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/block.h"
#include "kernels/cpu/cpu.h"

enum { MX_QUERY_BLOCK = 32 };

/* A segment's keys in the order its queries see them. */
typedef struct mx_key_run {
    const mx_segment *segment;
    int64_t prefix, keys, padded; /* keys = prefix + own; padded to 16 */
} mx_key_run;

static inline mx_key_run mx_key_run_of(const mx_segment *s, int64_t own) {
    mx_key_run run = { .segment = s, .prefix = s->prefix_count, .keys = s->prefix_count + own };

    run.padded = mx_block_up(run.keys, MX_BLOCK_COLUMNS);
    return run;
}
/* The batch's row of key i. */
static inline int64_t mx_key_row(const mx_key_run *run, int64_t i) {
    return i < run->prefix ? run->segment->prefix_begin + i : run->segment->begin + i - run->prefix;
}

/* `count` rows of one head (rows from + i), widened, times `scale`, to (padded count, width): zeros beyond. */
void mx_head_rows(float *to, int64_t width, const mx_tensor *x, int64_t head, int64_t head_dim, int64_t from,
                  int64_t count, int64_t padded, float scale);
/* The keys of a run: (padded, width) row-major, and the same transposed (width, padded); either may be NULL. */
void mx_head_keys(float *to, float *to_transposed, int64_t width, const mx_tensor *x, int64_t head, int64_t head_dim,
                  const mx_key_run *run);
/* Rows past `live` are nobody's: zeros. */
void mx_rows_clear_padding(const mx_tensor *x, const mx_rows *rows);
size_t mx_attention_backward_bytes(const mx_cpu *cpu, const mx_attention *a);

#endif
