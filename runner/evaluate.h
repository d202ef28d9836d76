/* evaluate.h - all of a plan's exams at one point of a run, into the store. */
#ifndef RUNNER_EVALUATE_H
#define RUNNER_EVALUATE_H

#include "runner/session.h"

/* Every exam is stored in one transaction of its own with its router window. `title`: "before training", "epoch 1". */
MX_MUST_CHECK mx_code mx_evaluate(mx_session *s, int64_t step, double epoch, const char *title, mx_status *st);

/* Router load of the device into s->window; then into the store as `split` for steps first..last, and cleared. */
MX_MUST_CHECK mx_code mx_store_window(mx_session *s, const char *split, int64_t first, int64_t last, int64_t evaluation_id,
                                      mx_status *st);

#endif
