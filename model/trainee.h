/* trainee.h - what is trained, as one object: adapter, gradients, moments, optimizer, schedule, seed, step.
 *
 * All its tensors lie in one device allocation. The base is not part of it: many trainees may stand on one base.
 * A step:
 *
 *     mx_trainee_begin(t);
 *     for each micro-batch: mx_model_forward, mx_model_losses, mx_model_backward
 *     mx_trainee_end(t);
 *     mx_trainee_numbers(t, &numbers, st);       the only one that waits
 */
#ifndef MODEL_TRAINEE_H
#define MODEL_TRAINEE_H

#include "model/adapter.h"
#include "model/methods/method.h"
#include "model/schedule.h"

typedef struct mx_optimizer {
    double beta1, beta2, eps, weight_decay;
    double max_grad_norm; /* 0: no clipping */
} mx_optimizer;
#define MX_OPTIMIZER_DEFAULTS ((mx_optimizer){ .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01 })

typedef struct mx_trainee {
    mx_adapter adapter;
    const mx_frozen *base;
    float *memory;       /* the one allocation: values of all kinds, gradient, m, v */
    float *m, *v;        /* NULL: not opened for training */
    mx_numbers *numbers; /* on the device: of the step under way */
    mx_optimizer optimizer;
    mx_schedule schedule;
    uint64_t seed;
    int64_t step; /* optimizer steps done */
} mx_trainee;

/* Device bytes (MX_MEMORY_TRAINED) of a trainee, for the plan. */
size_t mx_trainee_bytes(const mx_layout *l, bool training);

/* `layout` and `base` (of the model it will train on) are borrowed. Values are zero until mx_trainee_start,
 * mx_adapter_import or mx_checkpoint_load. With training false there are values only. */
MX_MUST_CHECK mx_code mx_trainee_open(mx_backend *b, const mx_layout *layout, const mx_frozen *base, bool training,
                                      mx_trainee **ret, mx_status *st);
void mx_trainee_close(mx_trainee *t); /* NULL is fine */

/* Starting values from the seed, step 0, moments zero. Each tensor draws from a stream named by its place, so that
 * what is declared elsewhere changes nothing here. */
MX_MUST_CHECK mx_code mx_trainee_start(mx_trainee *t, uint64_t seed, mx_status *st);

/* Zeroes gradients and numbers, but for `skipped`, which stays until mx_trainee_start or mx_checkpoint_load. */
void mx_trainee_begin(mx_trainee *t);
/* Method's own gradients and losses, clipping, AdamW with this step's learning rate, after_step. Nothing is read back. */
void mx_trainee_end(mx_trainee *t);
/* The first part of mx_trainee_end alone, for checks that read the gradient: call it once a step, and then not _end. */
void mx_trainee_finish_gradient(mx_trainee *t);
/* The rate mx_trainee_end will use next. */
double mx_trainee_learning_rate(const mx_trainee *t);
/* Waits, and gives the numbers of the step that ended. When the optimizer skipped it (a loss or gradient was not finite):
 * MX_E_DIVERGED with the step, the first tensor at fault and what to look at; *ret is filled nevertheless. */
MX_MUST_CHECK mx_code mx_trainee_numbers(mx_trainee *t, mx_numbers *ret, mx_status *st);

/* The same without waiting: queues the copy of the numbers into `host` (mx_backend.host_alloc); when a wait for a later mark has
 * come back, mx_trainee_judge says what they mean. A skipped step is the last that changed nothing by itself: the optimizer
 * leaves everything alone from then on, so steps queued behind it did no harm, and the gradient at fault can be had by
 * computing that step's once more. `step` counts from 1; the gradient on the device is that step's. */
void mx_trainee_queue_numbers(mx_trainee *t, mx_numbers *host);
MX_MUST_CHECK mx_code mx_trainee_judge(mx_trainee *t, int64_t step, const mx_numbers *n, mx_status *st);

/* Host copies for checks and tests: layout->size[MX_KIND_TRAINED] values. */
void mx_trainee_read_values(const mx_trainee *t, float *ret);
void mx_trainee_write_values(mx_trainee *t, const float *values);
void mx_trainee_read_gradient(const mx_trainee *t, float *ret);

#endif
