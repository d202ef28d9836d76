/* schedule.h - the learning rate of a step.
 *
 * Hugging Face's shapes, except that warm-up's first step is not wasted on a rate of 0: step s of w warm-up steps
 * gets (s+1)/w of the peak. After it constant, or falling to 0 just past the last step. */
#ifndef MODEL_SCHEDULE_H
#define MODEL_SCHEDULE_H

#include <stdint.h>

typedef enum mx_schedule_kind { MX_SCHEDULE_CONSTANT, MX_SCHEDULE_LINEAR, MX_SCHEDULE_COSINE } mx_schedule_kind;
extern const char *const mx_schedule_names[]; /* "constant", "linear", "cosine", NULL */

typedef struct mx_schedule {
    mx_schedule_kind kind;
    double peak;          /* learning_rate */
    int64_t warmup_steps; /* 0: none */
    int64_t steps;        /* of the whole run */
} mx_schedule;

/* step from 0. */
double mx_schedule_at(const mx_schedule *s, int64_t step);

#endif
