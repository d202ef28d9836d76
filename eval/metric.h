/* metric.h - from the scores of a question's choices to a number with an error bar.
 *
 * acc:      the highest score is right (ties to the first choice, as numpy's argmax in lm-evaluation-harness)
 * acc_norm: the highest score divided by the number of characters of the choice's text (lm-eval 0.4.13, task.py)
 * stderr:   sample standard deviation (n - 1) / sqrt(n), as lm-eval's mean_stderr; 0 for one question. */
#ifndef EVAL_METRIC_H
#define EVAL_METRIC_H

#include <stdbool.h>
#include <stdint.h>

typedef enum mx_metric { MX_METRIC_ACC, MX_METRIC_ACC_NORM, MX_METRICS } mx_metric;
extern const char *const mx_metric_names[]; /* "acc", "acc_norm", NULL */

/* Which choice the metric picks; characters may be NULL for acc. A choice without characters counts as one long. */
int32_t mx_metric_pick(mx_metric metric, const double *score, const int32_t *characters, int32_t choices);

typedef struct mx_mean {
    double value, stderr_value;
    int64_t n;
} mx_mean;
/* Of 0/1 outcomes. */
mx_mean mx_mean_of(int64_t correct, int64_t n);

#endif
