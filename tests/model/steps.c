/* Steps without waiting: numbers and router counts that are copied behind a step's work and read later, steps queued behind a
 * broken one, and layers whose forward pass is computed again (gradient_checkpointing). */
#include "model/trial.h"
#include "tests/support/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    mx_arena arena;
    mx_backend *b;
    mx_trial_base base;
    mx_status st;
} bench;

#define MUST(call) cr_assert_eq((call), MX_OK, "%s: %s", #call, s->st.text)

static void open_bench(bench *s, mx_precision precision) {
    mx_backend_options o = { .device = KIT_DEVICE, .threads = 1, .precision = precision };
    mx_trial_shape shape = MX_TRIAL_SHAPE;

    memset(s, 0, sizeof *s);
    mx_arena_init(&s->arena, (size_t)1 << 30);
    shape.layers = 3;
    MUST(mx_backend_open(&o, &s->b, &s->st));
    MUST(mx_trial_base_open(&shape, 3, &s->arena, &s->base, &s->st));
}

static void close_bench(bench *s) {
    mx_trial_base_close(&s->base);
    s->b->close(s->b);
    mx_arena_finish(&s->arena);
}

static mx_trial open_trial(bench *s, const mx_method *m, bool checkpointing) {
    mx_model_limits limits = { .rows = 512, .loss_rows = 512, .segments = 64, .spans = 64, .questions = 64, .tasks = 3,
                               .training = true, .checkpointing = true };
    mx_trial t;

    MUST(mx_trial_open(s->b, &s->base, m, mx_method_defaults(m, &s->arena), true, &s->arena, &t, &s->st));
    if (checkpointing) {
        mx_trainee_close(t.trainee);
        mx_model_close(t.model);
        MUST(mx_model_open(s->b, s->base.file, t.layout, &limits, &t.model, &s->st));
        MUST(mx_trainee_open(s->b, t.layout, mx_model_frozen(t.model), true, &t.trainee, &s->st));
        MUST(mx_trainee_start(t.trainee, 1, &s->st));
    }
    mx_trial_shake(&t, 11);
    t.trainee->schedule = (mx_schedule){ .peak = 1e-2, .steps = 8 };
    return t;
}

static const mx_trial_questions QUESTIONS = { .questions = 3, .choices = 3, .seed = 5, .tasks = 2 };

static void queue(mx_trial *t, const mx_batch *batch, int step) {
    mx_adapter *list[] = { &t->trainee->adapter };
    mx_pass pass = { .training = true, .seed = 9, .step = (uint64_t)step, .choice = true };

    mx_trainee_begin(t->trainee);
    mx_model_forward(t->model, list, 1, batch, &pass);
    mx_model_losses(t->model, t->trainee->numbers);
    mx_model_backward(t->model);
    mx_trainee_end(t->trainee);
}

static float *values_of(bench *s, const mx_trial *t) {
    float *v = MX_TAKE(&s->arena, float, t->layout->size[MX_KIND_TRAINED] + 1);

    mx_trainee_read_values(t->trainee, v);
    return v;
}

static void expect_same_load(const mx_router_load *a, const mx_router_load *b, const char *name) {
    int64_t cells = a->layers * a->tasks * a->experts;

    if (cells) {
        cr_expect_arr_eq(a->tokens, b->tokens, (size_t)cells * sizeof *a->tokens, "%s", name);
        cr_expect_arr_eq(a->probability, b->probability, (size_t)cells * sizeof *a->probability, "%s", name);
        cr_expect_arr_eq(a->rows, b->rows, (size_t)(a->layers * a->tasks) * sizeof *a->rows, "%s", name);
    }
}

/* Three steps with dropout; what is trained and what routers counted is the same to the bit, and less is kept. */
Test(steps, a_layer_computed_again_changes_no_bit) {
    for (int p = MX_PRECISION_F32; p <= MX_PRECISION_BF16; p++) {
        for (const mx_method *const *m = mx_methods; *m; m++) {
            bench bench_memory, *s = &bench_memory;
            mx_router_load load[2];
            float *value[2];
            size_t kept[2];
            int64_t size = 0;

            open_bench(s, (mx_precision)p);
            for (int again = 0; again < 2; again++) {
                mx_trial t = open_trial(s, *m, again == 1);
                mx_batch batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
                mx_numbers n;

                mx_model_init_load(t.model, &load[again]);
                for (int step = 0; step < 3; step++) {
                    queue(&t, &batch, step);
                    MUST(mx_trainee_numbers(t.trainee, &n, &s->st));
                    MUST(mx_model_read_load(t.model, &load[again], &s->st));
                }
                size = t.layout->size[MX_KIND_TRAINED];
                kept[again] = s->b->used_bytes(s->b, MX_MEMORY_SAVED);
                value[again] = values_of(s, &t);
                mx_trial_close(&t);
            }
            cr_expect_arr_eq(value[0], value[1], (size_t)size * sizeof(float), "%s", (*m)->name);
            expect_same_load(&load[0], &load[1], (*m)->name);
            cr_expect_lt((double)kept[1], 0.6 * (double)kept[0], "%s: %zu of %zu bytes", (*m)->name, kept[1], kept[0]);
            mx_router_load_finish(&load[0]);
            mx_router_load_finish(&load[1]);
            close_bench(s);
        }
    }
}

/* Four steps, read one by one; the same queued one ahead, with not a single wait or allocation from the third step on. */
Test(steps, queued_ahead_they_are_the_same_and_nobody_waits) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        enum { STEPS = 4 };
        bench bench_memory, *s = &bench_memory;
        mx_router_load read, queued;
        mx_numbers one[STEPS], *two[STEPS];
        void *load[STEPS] = { NULL };
        uint64_t mark[STEPS], waits = 0, allocations = 0;
        float *value[2];
        int64_t size;
        mx_trial t;

        open_bench(s, MX_PRECISION_BF16);
        t = open_trial(s, *m, false);
        size = t.layout->size[MX_KIND_TRAINED];
        mx_batch batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);

        mx_model_init_load(t.model, &read);
        mx_model_init_load(t.model, &queued);
        for (int i = 0; i < STEPS; i++) {
            queue(&t, &batch, i);
            MUST(mx_trainee_numbers(t.trainee, &one[i], &s->st));
            MUST(mx_model_read_load(t.model, &read, &s->st));
        }
        value[0] = values_of(s, &t);
        mx_trial_close(&t);
        t = open_trial(s, *m, false);
        for (int i = 0; i < STEPS; i++) {
            MUST(s->b->host_alloc(s->b, sizeof *two[i], (void **)&two[i], &s->st));
            MUST(s->b->host_alloc(s->b, mx_model_tally_bytes(t.model), &load[i], &s->st));
        }
        for (int i = 0; i < STEPS; i++) {
            if (i == 2) {
                waits = s->b->waits;
                allocations = s->b->allocations;
            }
            queue(&t, &batch, i);
            mx_trainee_queue_numbers(t.trainee, two[i]);
            mx_model_queue_load(t.model, load[i]);
            mark[i] = s->b->mark(s->b);
        }
        cr_expect_eq(s->b->waits, waits, "%s: %llu waits within two steps", (*m)->name, (unsigned long long)(s->b->waits - waits));
        cr_expect_eq(s->b->allocations, allocations, "%s", (*m)->name);
        for (int i = 0; i < STEPS; i++) {
            MUST(s->b->wait(s->b, mark[i], &s->st));
            MUST(mx_trainee_judge(t.trainee, i + 1, two[i], &s->st));
            mx_model_add_load(t.model, load[i], &queued);
            cr_expect_eq(one[i].loss, two[i]->loss, "%s, step %d", (*m)->name, i + 1);
            cr_expect_eq(one[i].grad_norm, two[i]->grad_norm, "%s, step %d", (*m)->name, i + 1);
        }
        value[1] = values_of(s, &t);
        cr_expect_arr_eq(value[0], value[1], (size_t)size * sizeof(float), "%s", (*m)->name);
        expect_same_load(&read, &queued, (*m)->name);
        for (int i = 0; i < STEPS; i++) {
            s->b->host_release(s->b, two[i]);
            s->b->host_release(s->b, load[i]);
        }
        mx_router_load_finish(&read);
        mx_router_load_finish(&queued);
        mx_trial_close(&t);
        close_bench(s);
    }
}

/* The step after one that was not finite is as good as not taken, though its own numbers are fine. */
Test(steps, behind_a_broken_one_nothing_is_changed) {
    bench bench_memory, *s = &bench_memory;
    float *before, *after, *value;
    const mx_declaration *d;
    mx_numbers n;
    mx_batch batch;
    mx_trial t;

    open_bench(s, MX_PRECISION_F32);
    t = open_trial(s, mx_method_find("mixlora"), false);
    batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    before = values_of(s, &t);
    value = values_of(s, &t);
    d = mx_layout_find(t.layout, MX_SCOPE_SITE, 1, MX_SITE_UP, 1);
    for (int64_t i = 0; i < d->count; i++) {
        value[d->offset + i] = 3e38f;
    }
    mx_trainee_write_values(t.trainee, value);
    queue(&t, &batch, 0);
    mx_trainee_write_values(t.trainee, before);
    queue(&t, &batch, 1);
    cr_expect_eq(mx_trainee_numbers(t.trainee, &n, &s->st), MX_E_DIVERGED);
    cr_expect(isfinite(n.loss) && isfinite(n.grad_norm), "the second step by itself is sound");
    after = values_of(s, &t);
    cr_expect_arr_eq(before, after, (size_t)t.layout->size[MX_KIND_TRAINED] * sizeof(float));
    MUST(mx_trainee_start(t.trainee, 1, &s->st));
    queue(&t, &batch, 0);
    s->st = (mx_status){ 0 };
    MUST(mx_trainee_numbers(t.trainee, &n, &s->st)); /* a new start is one */
    mx_trial_close(&t);
    close_bench(s);
}
