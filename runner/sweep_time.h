/* sweep_time.h - how long each variant of a sweep will take on this machine.
 *
 * From the store's record of this machine where there is one: runs of the same recipe, else of the same method and the nearest
 * budget, on the same base, processor, threads and precision. Where there is none, one step of each method is timed. */
#ifndef RUNNER_SWEEP_TIME_H
#define RUNNER_SWEEP_TIME_H

#include "reports/store.h"
#include "runner/sweep.h"

typedef enum mx_time_source { MX_TIME_NONE, MX_TIME_SAME_RECIPE, MX_TIME_SAME_METHOD, MX_TIME_STEP } mx_time_source;

typedef struct mx_sweep_time {
    mx_time_source source;
    double seconds; /* of one run, evaluations included */
} mx_sweep_time;

/* Fills ret[variant] for a measured sweep; variants that do not fit stay MX_TIME_NONE. `store` NULL: there is none yet.
 * `progress` is told the method before one of its steps is timed (seconds each); may be NULL. */
MX_MUST_CHECK mx_code mx_sweep_times(const mx_sweep *w, mx_store *store, mx_arena *arena, mx_sweep_time *ret,
                                     void (*progress)(const char *method), mx_status *st);

#endif
