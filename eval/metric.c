/* metric.c - see metric.h. */
#include "eval/metric.h"

#include <math.h>

const char *const mx_metric_names[] = { "acc", "acc_norm", 0 };

int32_t mx_metric_pick(mx_metric metric, const double *score, const int32_t *characters, int32_t choices) {
    int32_t best = 0;
    double best_value = -INFINITY;

    for (int32_t i = 0; i < choices; i++) {
        double value = score[i];

        if (metric == MX_METRIC_ACC_NORM) {
            value /= characters[i] > 0 ? characters[i] : 1;
        }
        if (value > best_value) {
            best_value = value;
            best = i;
        }
    }
    return best;
}

mx_mean mx_mean_of(int64_t correct, int64_t n) {
    mx_mean m = { .n = n };

    if (n > 0) {
        m.value = (double)correct / (double)n;
    }
    if (n > 1) {
        /* 0/1 outcomes: the sample variance is n p (1 - p) / (n - 1) */
        m.stderr_value = sqrt(m.value * (1 - m.value) / (double)(n - 1));
    }
    return m;
}
