/* train_options.c - see train_options.h. */
#include "model/train_options.h"

#include <math.h>

void mx_optimizer_options_check(const mx_optimizer_options *o, const mx_node *map, mx_problems *problems) {
    if (o->warmup_steps > 0 && o->warmup_ratio > 0) {
        mx_problem(problems, mx_option_place(map, "warmup_ratio"), NULL,
                   "warmup_ratio and warmup_steps (line %u) say the same thing; give one of them",
                   mx_option_place(map, "warmup_steps").line);
    }
}

mx_schedule mx_optimizer_schedule(const mx_optimizer_options *o, int64_t steps) {
    mx_schedule s = { .kind = (mx_schedule_kind)o->lr_scheduler, .peak = o->learning_rate, .steps = steps,
                      .warmup_steps = o->warmup_steps };

    if (o->warmup_ratio > 0) {
        s.warmup_steps = (int64_t)ceil(o->warmup_ratio * (double)steps);
    }
    return s;
}
