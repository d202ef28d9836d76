/* train.h - the loop. */
#ifndef RUNNER_TRAIN_H
#define RUNNER_TRAIN_H

#include "runner/session.h"

/* From the session's first step to the plan's last: steps, evaluations, checkpoints, rows; at the end the adapter. A resumed
 * run's rows, scores and adapter equal the uninterrupted run's. MX_E_STOPPED after saving when *s->stop; MX_E_DIVERGED
 * with what to look at. */
MX_MUST_CHECK mx_code mx_train(mx_session *s, mx_status *st);

#endif
