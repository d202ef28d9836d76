/* schedule.c - constant, linear, cosine. */
#include "model/schedule.h"

#include <math.h>

const char *const mx_schedule_names[] = { "constant", "linear", "cosine", 0 };

double mx_schedule_at(const mx_schedule *s, int64_t step) {
    double done;

    if (step < s->warmup_steps) {
        return s->peak * (double)(step + 1) / (double)s->warmup_steps;
    }
    if (s->kind == MX_SCHEDULE_CONSTANT) {
        return s->peak;
    }
    if (step >= s->steps) {
        return 0;
    }
    done = (double)(step - s->warmup_steps) / (double)(s->steps - s->warmup_steps);
    return s->peak * (s->kind == MX_SCHEDULE_LINEAR ? 1 - done : 0.5 * (1 + cos(M_PI * done)));
}
