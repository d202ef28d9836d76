/* speeds.h - how long runs took, for estimates of those to come. */
#ifndef REPORTS_SPEEDS_H
#define REPORTS_SPEEDS_H

#include "reports/store.h"

typedef struct mx_speed_row {
    int64_t run_id;
    const char *recipe_hash, *method, *environment; /* environment: JSON */
    int64_t trained, flops;  /* flops 0: not told */
    bool checkpointing;      /* train.gradient_checkpointing: its forward passes were computed twice */
    double tokens_per_second; /* of training, over the steps that were logged */
    double other_s;           /* from the run's begin to its end, without training: evaluations, reading, saving */
    int64_t scored;           /* questions of all its evaluations; 0: none */
} mx_speed_row;

/* The newest finished training runs on this base, newest first, at most 200, in `arena`. A run that was stopped in between counts
 * its pause as other_s. */
MX_MUST_CHECK mx_code mx_store_speeds(mx_store *s, const char *base_hash, mx_arena *arena, mx_speed_row **ret, int64_t *ret_count,
                                      mx_status *st);

#endif
