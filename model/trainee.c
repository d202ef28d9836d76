/* trainee.c - one allocation for all that is trained, and the optimizer's step over it. */
#include "model/trainee.h"

#include "base/text.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16 }; /* values; 64 bytes */

/* Values of every kind, then (for training) gradient, m, v; all sizes are multiples of ALIGN by the layout. */
static int64_t values_of(const mx_layout *l, bool training) {
    int64_t n = 0;

    for (int k = 0; k < MX_KINDS; k++) {
        n += l->size[k];
    }
    return n + (training ? 3 * l->size[MX_KIND_TRAINED] : 0);
}

static size_t numbers_bytes(void) {
    return (sizeof(mx_numbers) + 63) / 64 * 64;
}

size_t mx_trainee_bytes(const mx_layout *l, bool training) {
    return (size_t)values_of(l, training) * sizeof(float) + numbers_bytes();
}

mx_code mx_trainee_open(mx_backend *b, const mx_layout *layout, const mx_frozen *base, bool training,
                        mx_trainee **ret, mx_status *st) {
    mx_trainee *t = calloc(1, sizeof *t);
    float *at;
    mx_code code;

    *ret = NULL;
    if (!t) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for the trainee's table");
    }
    t->adapter = (mx_adapter){ .layout = layout, .backend = b, .stale = true };
    t->base = base;
    t->optimizer = MX_OPTIMIZER_DEFAULTS;
    code = b->alloc(b, MX_MEMORY_TRAINED, mx_trainee_bytes(layout, training), (void **)&t->memory, st);
    if (code) {
        free(t);
        return code;
    }
    t->numbers = (mx_numbers *)t->memory;
    at = t->memory + numbers_bytes() / sizeof(float);
    for (int k = 0; k < MX_KINDS; k++) {
        t->adapter.value[k] = at;
        at += layout->size[k];
    }
    if (training) {
        t->adapter.gradient = at;
        t->m = at + layout->size[MX_KIND_TRAINED];
        t->v = at + 2 * layout->size[MX_KIND_TRAINED];
    }
    *ret = t;
    return MX_OK;
}

void mx_trainee_close(mx_trainee *t) {
    if (t) {
        t->adapter.backend->release(t->adapter.backend, MX_MEMORY_TRAINED, t->memory);
        free(t);
    }
}

static void zero(mx_trainee *t, float *at, int64_t values) {
    if (values) {
        t->adapter.backend->zero(t->adapter.backend, at, (size_t)values * sizeof(float));
    }
}

mx_code mx_trainee_start(mx_trainee *t, uint64_t seed, mx_status *st) {
    const mx_layout *l = t->adapter.layout;
    mx_backend *b = t->adapter.backend;
    int64_t trained = l->size[MX_KIND_TRAINED];

    t->seed = seed;
    t->step = 0;
    if (t->m) {
        zero(t, t->adapter.gradient, 3 * trained);
        b->zero(b, t->numbers, sizeof *t->numbers);
    }
    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];
        size_t bytes = (size_t)d->count * sizeof(float);
        char name[160];
        float *host;
        mx_rng rng;

        if (d->kind == MX_KIND_DERIVED || d->kind == MX_KIND_SUMMED) {
            continue;
        }
        host = calloc(1, bytes);
        if (!host) {
            return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for starting values (%s)", mx_text_bytes(bytes));
        }
        snprintf(name, sizeof name, "init.%lld.%s.%s", (long long)d->layer, d->module ? d->module : "", d->part);
        mx_rng_init(&rng, seed, name);
        for (int64_t p = 0; l->method->init && p < d->parts; p++) {
            l->method->init(l, d, p, host + p * d->dim[0] * d->dim[1], &rng);
        }
        b->write(b, t->adapter.value[d->kind] + d->offset, host, bytes);
        free(host);
    }
    t->adapter.stale = true;
    if (l->method->start) {
        l->method->start(&t->adapter, t->base);
    }
    return b->sync(b, st);
}

void mx_trainee_begin(mx_trainee *t) {
    const mx_layout *l = t->adapter.layout;

    assert(t->m);
    zero(t, t->adapter.gradient, l->size[MX_KIND_TRAINED]);
    zero(t, t->adapter.value[MX_KIND_SUMMED], l->size[MX_KIND_SUMMED]);
    t->adapter.backend->zero(t->adapter.backend, t->numbers, offsetof(mx_numbers, skipped));
}

double mx_trainee_learning_rate(const mx_trainee *t) {
    return mx_schedule_at(&t->schedule, t->step);
}

void mx_trainee_end(mx_trainee *t) {
    const mx_layout *l = t->adapter.layout;
    mx_backend *b = t->adapter.backend;
    mx_adamw_group group[MX_GROUPS_MAX];
    mx_adamw step = {
        .p = t->adapter.value[MX_KIND_TRAINED], .m = t->m, .v = t->v, .g = t->adapter.gradient,
        .count = l->size[MX_KIND_TRAINED],
        .group = group, .groups = l->groups,
        .step = t->step + 1,
        .lr = mx_trainee_learning_rate(t),
        .beta1 = t->optimizer.beta1, .beta2 = t->optimizer.beta2, .eps = t->optimizer.eps,
        .max_norm = t->optimizer.max_grad_norm,
        .numbers = t->numbers,
    };

    for (int64_t g = 0; g < l->groups; g++) {
        group[g] = (mx_adamw_group){ .begin = l->group[g].begin, .count = l->group[g].count,
                                     .lr_ratio = l->group[g].lr_ratio,
                                     .weight_decay = l->group[g].decays ? t->optimizer.weight_decay : 0 };
    }
    mx_trainee_finish_gradient(t);
    if (step.count) {
        b->ops->adamw(b, &step);
    }
    t->adapter.stale = true;
    t->step++;
    if (l->method->after_step) {
        l->method->after_step(&t->adapter, t->step, t->schedule.steps);
    }
}

void mx_trainee_finish_gradient(mx_trainee *t) {
    const mx_method *method = t->adapter.layout->method;

    if (method->finish_backward) {
        method->finish_backward(&t->adapter, t->base);
    }
    if (method->losses) {
        method->losses(&t->adapter, t->numbers);
    }
}

/* The tensor nearest to where the trouble began: the backward pass runs from the last layer to the first, so it is
 * the one of the highest layer among those whose gradient is not finite. */
static const mx_declaration *first_at_fault(const mx_layout *l, const float *gradient, int64_t *ret_part) {
    const mx_declaration *found = NULL;

    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        if (d->kind != MX_KIND_TRAINED || (found && d->layer <= found->layer)) {
            continue;
        }
        for (int64_t j = 0; j < d->count; j++) {
            if (!isfinite(gradient[d->offset + j])) {
                found = d;
                *ret_part = j / (d->dim[0] * d->dim[1]);
                break;
            }
        }
    }
    return found;
}

static mx_code diverged(mx_trainee *t, int64_t step, const mx_numbers *n, mx_status *st) {
    const mx_layout *l = t->adapter.layout;
    float *gradient = malloc((size_t)l->size[MX_KIND_TRAINED] * sizeof *gradient + 1);
    const mx_declaration *d = NULL;
    char expert[32] = "";
    int64_t part = 0;

    if (gradient) {
        mx_trainee_read_gradient(t, gradient);
        d = first_at_fault(l, gradient, &part);
        free(gradient);
    }
    if (d && d->experts) {
        snprintf(expert, sizeof expert, ", expert %lld", (long long)part);
    }
    if (!d) {
        (void)mx_fail(st, MX_E_DIVERGED, MX_NOWHERE, "step %lld: %s is not finite (loss %g, gradient norm %g)",
                      (long long)step, isfinite(n->loss) ? "the gradient's norm" : "the loss", n->loss, n->grad_norm);
    } else {
        (void)mx_fail(st, MX_E_DIVERGED, MX_NOWHERE,
                      "step %lld: %s is not finite (loss %g); the gradient breaks first in layer %lld, %s %s%s",
                      (long long)step, isfinite(n->loss) ? "the gradient" : "the loss", n->loss,
                      (long long)d->layer, d->module ? d->module : "", d->part, expert);
    }
    mx_hint(st, "nothing was changed by this step; look at learning_rate, warmup_steps, max_grad_norm and lora_alpha");
    return MX_E_DIVERGED;
}

void mx_trainee_queue_numbers(mx_trainee *t, mx_numbers *host) {
    t->adapter.backend->queue_read(t->adapter.backend, host, t->numbers, sizeof *host);
}

mx_code mx_trainee_judge(mx_trainee *t, int64_t step, const mx_numbers *n, mx_status *st) {
    return n->skipped != 0 ? diverged(t, step, n, st) : MX_OK;
}

mx_code mx_trainee_numbers(mx_trainee *t, mx_numbers *ret, mx_status *st) {
    mx_backend *b = t->adapter.backend;

    b->read(b, ret, t->numbers, sizeof *ret);
    MX_TRY(b->sync(b, st));
    return mx_trainee_judge(t, t->step, ret, st);
}

static size_t trained_bytes(const mx_trainee *t) {
    return (size_t)t->adapter.layout->size[MX_KIND_TRAINED] * sizeof(float);
}

void mx_trainee_read_values(const mx_trainee *t, float *ret) {
    if (trained_bytes(t)) {
        t->adapter.backend->read(t->adapter.backend, ret, t->adapter.value[MX_KIND_TRAINED], trained_bytes(t));
    }
}

void mx_trainee_write_values(mx_trainee *t, const float *values) {
    if (trained_bytes(t)) {
        t->adapter.backend->write(t->adapter.backend, t->adapter.value[MX_KIND_TRAINED], values, trained_bytes(t));
    }
    t->adapter.stale = true;
}

void mx_trainee_read_gradient(const mx_trainee *t, float *ret) {
    if (trained_bytes(t)) {
        t->adapter.backend->read(t->adapter.backend, ret, t->adapter.gradient, trained_bytes(t));
    }
}
