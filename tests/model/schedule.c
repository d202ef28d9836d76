#include "model/schedule.h"

#include <criterion/criterion.h>
#include <math.h>

Test(schedule, constant_stays_at_the_peak) {
    mx_schedule s = { .kind = MX_SCHEDULE_CONSTANT, .peak = 2e-4, .steps = 10 };

    for (int64_t i = 0; i < 12; i++) {
        cr_expect_eq(mx_schedule_at(&s, i), 2e-4);
    }
}

Test(schedule, warm_up_rises_to_the_peak_and_wastes_no_step) {
    for (int kind = MX_SCHEDULE_CONSTANT; kind <= MX_SCHEDULE_COSINE; kind++) {
        mx_schedule s = { .kind = (mx_schedule_kind)kind, .peak = 1, .warmup_steps = 4, .steps = 20 };

        cr_expect_eq(mx_schedule_at(&s, 0), 0.25);
        cr_expect_eq(mx_schedule_at(&s, 1), 0.5);
        cr_expect_eq(mx_schedule_at(&s, 3), 1);
        cr_expect_eq(mx_schedule_at(&s, 4), 1, "%s: Hugging Face's first step after warm-up is the peak",
                     mx_schedule_names[kind]);
    }
}

Test(schedule, linear_and_cosine_fall_as_hugging_face_does) {
    mx_schedule line = { .kind = MX_SCHEDULE_LINEAR, .peak = 1, .warmup_steps = 2, .steps = 12 };
    mx_schedule wave = { .kind = MX_SCHEDULE_COSINE, .peak = 1, .warmup_steps = 2, .steps = 12 };

    for (int64_t i = 2; i < 12; i++) {
        double done = (double)(i - 2) / 10;

        cr_expect_float_eq(mx_schedule_at(&line, i), 1 - done, 1e-15);
        cr_expect_float_eq(mx_schedule_at(&wave, i), 0.5 * (1 + cos(M_PI * done)), 1e-15);
        cr_expect_gt(mx_schedule_at(&line, i), 0, "the last step still learns");
    }
    cr_expect_eq(mx_schedule_at(&line, 12), 0);
    cr_expect_eq(mx_schedule_at(&wave, 12), 0);
    cr_expect_eq(mx_schedule_at(&line, 1000), 0);
}

Test(schedule, warm_up_as_long_as_the_run_is_a_ramp) {
    mx_schedule s = { .kind = MX_SCHEDULE_LINEAR, .peak = 1, .warmup_steps = 5, .steps = 5 };

    for (int64_t i = 0; i < 5; i++) {
        cr_expect_eq(mx_schedule_at(&s, i), (double)(i + 1) / 5);
    }
    cr_expect_eq(mx_schedule_at(&s, 5), 0);
}
