/* Metrics against arithmetic by hand and lm-evaluation-harness's conventions. */
#include "eval/metric.h"

#include <criterion/criterion.h>
#include <math.h>

Test(metric, acc_takes_the_highest_and_the_first_of_equals) {
    const double score[] = { -3.5, -1.25, -1.25, -9 };

    cr_assert_eq(mx_metric_pick(MX_METRIC_ACC, score, NULL, 4), 1);
}

Test(metric, acc_norm_divides_by_characters) {
    const double score[] = { -4, -6, -5 };
    const int32_t characters[] = { 4, 12, 0 }; /* -1, -0.5, and a text without characters: -5 */

    cr_assert_eq(mx_metric_pick(MX_METRIC_ACC, score, characters, 3), 0);
    cr_assert_eq(mx_metric_pick(MX_METRIC_ACC_NORM, score, characters, 3), 1);
}

Test(metric, the_standard_error_is_the_sample_deviation_over_root_n) {
    mx_mean m = mx_mean_of(1182, 1838);
    double p = 1182.0 / 1838, sum = 0;

    for (int i = 0; i < 1838; i++) {
        double d = (i < 1182 ? 1 : 0) - p;

        sum += d * d;
    }
    cr_assert_float_eq(m.value, 0.64309, 5e-6, "lm-evaluation-harness's acc on PIQA");
    cr_assert_float_eq(m.stderr_value, sqrt(sum / 1837 / 1838), 1e-15);
    cr_assert_float_eq(m.stderr_value, 0.01118, 5e-6, "and its stderr");
    cr_assert_eq(mx_mean_of(1, 1).stderr_value, 0);
    cr_assert_eq(mx_mean_of(0, 0).value, 0);
}
