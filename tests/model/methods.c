/* The examination that every listed method sits, with no test code of its own (ARCHITECTURE.md 6).
 *
 * Each runs under its defaults made small, and once for each other choice of each of its enumerations and switches. f32,
 * one thread: the sizes are tiny. */
#include "model/adapter_config.h"
#include "model/trial.h"
#include "tests/support/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct bench {
    mx_arena arena;
    mx_backend *b;
    mx_trial_base base;
    mx_status st;
} bench;

#define MUST(call) cr_assert_eq((call), MX_OK, "%s: %s", #call, s->st.text)

static void open_bench(bench *s, bool biases) {
    mx_backend_options o = { .device = KIT_DEVICE, .threads = 1 };
    mx_trial_shape shape = MX_TRIAL_SHAPE;

    memset(s, 0, sizeof *s);
    mx_arena_init(&s->arena, (size_t)1 << 30);
    shape.biases = shape.tied = biases;
    MUST(mx_backend_open(&o, &s->b, &s->st));
    MUST(mx_trial_base_open(&shape, 3, &s->arena, &s->base, &s->st));
}

static void close_bench(bench *s) {
    mx_trial_base_close(&s->base);
    s->b->close(s->b);
    mx_arena_finish(&s->arena);
}

/* ------------------------------------------------------------------ configs */

typedef struct variant {
    const mx_method *m;
    char name[96];
    void *config; /* not resolved yet */
} variant;

static void set_integer(const mx_method *m, void *config, const char *word, int64_t v) {
    int64_t *at = mx_method_word(m, config, word);

    if (at) {
        *at = v;
    }
}

static void set_real(const mx_method *m, void *config, const char *word, double v) {
    double *at = mx_method_word(m, config, word);

    if (at) {
        *at = v;
    }
}

static void *preset(const mx_method *m, mx_arena *arena) {
    void *config = mx_arena_take(arena, m->options->size + 1);
    mx_problems problems;

    mx_problems_init(&problems);
    mx_option_bind(m->options, NULL, config, arena, &problems, NULL);
    cr_assert_eq(problems.count, 0);
    mx_problems_finish(&problems);
    set_integer(m, config, "lora_r", 4);
    set_real(m, config, "lora_alpha", 12);
    set_real(m, config, "lora_dropout", 0);
    set_real(m, config, "jitter_noise", 0);
    set_integer(m, config, "num_experts", 4);
    set_integer(m, config, "expert_capacity", 2);
    set_real(m, config, "router_aux_loss_coef", 0.1);
    set_real(m, config, "router_z_loss_coef", 0.05);
    return config;
}

static bool holds(const mx_method *m, const void *config) {
    mx_problems problems;
    bool good;

    mx_problems_init(&problems);
    if (m->options->check) {
        m->options->check(config, NULL, &problems);
    }
    good = problems.count == 0;
    mx_problems_finish(&problems);
    return good;
}

/* The preset, then each other choice of each enumeration and each switch turned, one at a time. */
static size_t variants(const mx_method *m, mx_arena *arena, variant *ret, size_t room) {
    size_t n = 0;

    ret[n] = (variant){ .m = m, .config = preset(m, arena) };
    snprintf(ret[n].name, sizeof ret->name, "%s", m->name);
    n++;
    for (const mx_option *o = m->options->option; o->name; o++) {
        int choices = o->type == MX_BOOL ? 2 : 0;

        for (; o->type == MX_ENUM && o->choices[choices]; choices++) {
        }
        for (int c = 0; c < choices; c++) {
            void *config = preset(m, arena);
            char *at = (char *)config + o->offset;

            if (o->type == MX_BOOL ? *(bool *)at == c : *(int *)at == c) {
                continue;
            }
            if (o->type == MX_BOOL) {
                *(bool *)at = c;
            } else {
                *(int *)at = c;
            }
            if (holds(m, config)) {
                cr_assert_lt(n, room);
                ret[n] = (variant){ .m = m, .config = config };
                snprintf(ret[n++].name, sizeof ret->name, "%s, %s %s", m->name, o->name,
                         o->type == MX_BOOL ? (c ? "true" : "false") : o->choices[c]);
            }
        }
    }
    return n;
}

enum { VARIANTS_MAX = 24 };

/* Runs `check` on every variant of every method. */
static void for_each_variant(bool biases, void (*check)(bench *s, const variant *v)) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        bench s;
        variant list[VARIANTS_MAX];
        size_t n;

        open_bench(&s, biases);
        n = variants(*m, &s.arena, list, VARIANTS_MAX);
        for (size_t i = 0; i < n; i++) {
            check(&s, &list[i]);
        }
        close_bench(&s);
    }
}

/* On a resolved copy of `config`. */
static mx_trial open_trial(bench *s, const mx_method *m, const void *config) {
    void *resolved = mx_arena_take(&s->arena, m->options->size + 1);
    mx_trial t;

    memcpy(resolved, config, m->options->size);
    mx_method_resolve(m, resolved);
    MUST(mx_trial_open(s->b, &s->base, m, resolved, true, &s->arena, &t, &s->st));
    return t;
}

static mx_trial open_shaken(bench *s, const mx_method *m, const void *config) {
    mx_trial t = open_trial(s, m, config);

    mx_trial_shake(&t, 11);
    return t;
}

static const mx_trial_questions QUESTIONS = { .questions = 3, .choices = 3, .seed = 5, .tasks = 2 };

static float *floats(bench *s, int64_t n) {
    return MX_TAKE(&s->arena, float, n + 1);
}

static float *scores(bench *s, mx_trial *t, const mx_batch *batch) {
    float *nll = floats(s, batch->loss_rows);

    MUST(mx_trial_scores(t, batch, nll, &s->st));
    return nll;
}

static double furthest(const float *a, const float *b, int64_t n) {
    double most = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);

        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

/* ------------------------------------------------------------------ what every method promises */

Test(methods, tell_what_they_are_and_every_word_has_help) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        cr_expect_eq(mx_method_find((*m)->name), *m);
        cr_expect_str_not_empty((*m)->summary, "%s", (*m)->name);
        cr_expect_str_not_empty((*m)->paper, "%s", (*m)->name);
        cr_expect_str_eq((*m)->options->name, (*m)->name);
        for (const mx_option *o = (*m)->options->option; o->name; o++) {
            cr_expect(o->help && strlen(o->help) > 10, "%s.%s has no help", (*m)->name, o->name);
            cr_expect(o->flags & MX_RESULT, "%s.%s: a method's word changes results", (*m)->name, o->name);
            cr_expect(o->type == MX_TABLE || o->preset, "%s.%s has no preset", (*m)->name, o->name);
        }
    }
    cr_expect_null(mx_method_find("lore"));
}

static void starts_at_base(bench *s, const variant *v) {
    const mx_method *base = mx_method_find("base");
    mx_trial plain, t;
    mx_batch batch;
    float *a, *b;

    if (!mx_method_starts_at_base(v->m, v->config)) {
        return;
    }
    plain = open_trial(s, base, mx_method_defaults(base, &s->arena));
    t = open_trial(s, v->m, v->config);
    batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    a = scores(s, &plain, &batch);
    b = scores(s, &t, &batch);
    /* B is 0, m equals n, gates sum to 1: what is left is the rounding of sums */
    cr_expect_leq(furthest(a, b, batch.loss_rows), 1e-5, "%s: off by %g", v->name, furthest(a, b, batch.loss_rows));
    mx_trial_close(&t);
    mx_trial_close(&plain);
}

Test(methods, start_at_the_base_unless_they_say_otherwise) {
    for_each_variant(true, starts_at_base);
}

static void counts(bench *s, const variant *v) {
    mx_trial t = open_trial(s, v->m, v->config);
    const mx_layout *l = t.layout;
    int64_t on_disk = 0, routers = 0, in_groups = 0;

    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        if (d->kind == MX_KIND_TRAINED) {
            on_disk += d->parts * d->dim[0] * d->dim[1];
            routers += d->router ? d->count : 0;
            cr_expect_not_null(mx_adapter_gradient(&t.trainee->adapter, d->scope, d->layer, d->site, d->role));
        }
    }
    for (int64_t g = 0; g < l->groups; g++) {
        in_groups += l->group[g].count;
    }
    cr_expect_eq(on_disk, l->trained, "%s", v->name);
    cr_expect_eq(routers, l->trained_router, "%s", v->name);
    cr_expect_eq(in_groups, l->size[MX_KIND_TRAINED], "%s: the optimizer must reach every value once", v->name);
    cr_expect_eq(s->b->used_bytes(s->b, MX_MEMORY_TRAINED), mx_trainee_bytes(l, true), "%s", v->name);
    mx_trial_close(&t);
}

Test(methods, train_as_many_values_as_their_layout_says) {
    for_each_variant(false, counts);
}

/* ------------------------------------------------------------------ gradients */

static double total(bench *s, mx_trial *t, const mx_batch *batch, const mx_pass *pass) {
    mx_numbers n;

    MUST(mx_trial_step(t, batch, 1, pass, &n, NULL, &s->st));
    return mx_method_total(t->layout->method, t->layout->config, &n, NULL);
}

/* Which experts each token uses in each layer and in which order (slots have dropout masks of their own), as of the
 * last pass. */
static float *routing_now(bench *s, mx_trial *t) {
    int64_t experts = mx_method_experts(t->layout->method, t->layout->config), layers = mx_model_shape(t->model)->layers;
    float *weight = floats(s, experts * layers * 512), *place = floats(s, experts * layers * 512);

    for (int64_t i = 0; experts && i < layers; i++) {
        mx_model_read_router(t->model, i, NULL, weight + i * experts * 512, NULL);
    }
    for (int64_t i = 0; i < experts * layers * 512; i++) {
        const float *row = weight + i / experts * experts;

        for (int64_t e = 0; weight[i] > 0 && e < experts; e++) {
            place[i] += row[e] >= weight[i];
        }
    }
    return place;
}

/* Slope along `direction` (nonzero within one tensor) by central differences. What is derived from other tensors than
 * this one is a constant for the gradient (DoRA's norms), so it is not refreshed. NAN when a token was routed otherwise
 * on the way: the loss has a step there. */
static double slope(bench *s, mx_trial *t, const mx_batch *batch, const mx_pass *pass, const mx_declaration *d,
                    const float *start, const float *direction, double h, const float *used) {
    int64_t size = t->layout->size[MX_KIND_TRAINED];
    int64_t marks = mx_method_experts(t->layout->method, t->layout->config) * mx_model_shape(t->model)->layers * 512;
    float *moved = floats(s, size);
    double value[2];
    bool jumped = false;

    for (int side = 0; side < 2; side++) {
        memcpy(moved, start, (size_t)size * sizeof *moved);
        for (int64_t i = d->offset; i < d->offset + d->count; i++) {
            moved[i] = (float)(start[i] + (side ? -h : h) * direction[i - d->offset]);
        }
        mx_trainee_write_values(t->trainee, moved);
        t->trainee->adapter.stale = d->derives;
        value[side] = total(s, t, batch, pass);
        jumped |= marks && memcmp(used, routing_now(s, t), (size_t)marks * sizeof *used) != 0;
    }
    return jumped ? NAN : (value[0] - value[1]) / (2 * h);
}

static void check_gradients(bench *s, const variant *v, double noise, bool choice) {
    mx_pass pass = { .training = true, .seed = 9, .step = 2, .choice = choice };
    mx_trial t;
    mx_batch batch;
    mx_numbers n;
    float *start, *gradient, *direction, *used;
    int64_t size, measured = 0, jumped = 0;

    set_real(v->m, v->config, "lora_dropout", noise);
    set_real(v->m, v->config, "jitter_noise", noise / 10);
    t = open_shaken(s, v->m, v->config);
    size = t.layout->size[MX_KIND_TRAINED];
    batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    start = floats(s, size);
    gradient = floats(s, size);
    mx_trainee_read_values(t.trainee, start);
    MUST(mx_trial_step(&t, &batch, 1, &pass, &n, gradient, &s->st));
    for (size_t i = 0; i < t.layout->count; i++) {
        const mx_declaration *d = &t.layout->item[i];
        double norm = 0, found, h;

        if (d->kind != MX_KIND_TRAINED) {
            continue;
        }
        for (int64_t j = 0; j < d->count; j++) {
            norm += (double)gradient[d->offset + j] * gradient[d->offset + j];
        }
        norm = sqrt(norm);
        if (norm < 1e-7) {
            continue; /* nothing flows here (top_k: 1 without router losses) */
        }
        direction = floats(s, d->count); /* along the gradient: the steepest slope there is, which noise hides least */
        for (int64_t j = 0; j < d->count; j++) {
            direction[j] = (float)(gradient[d->offset + j] / norm);
        }
        mx_trainee_write_values(t.trainee, start);
        (void)total(s, &t, &batch, &pass); /* derived values as of the start */
        used = routing_now(s, &t);
        h = fmin(0.1, 4e-3 / norm); /* far enough to change a loss that f32 knows to some 1e-6 */
        found = slope(s, &t, &batch, &pass, d, start, direction, h, used);
        for (int finer = 0; isnan(found) && finer < 3; finer++) {
            h /= 4;
            found = slope(s, &t, &batch, &pass, d, start, direction, h, used);
        }
        if (isnan(found)) {
            jumped++;
            continue;
        }
        measured++;
        cr_expect_leq(fabs(found - norm), 0.01 * norm + 3e-6 / h,
                      "%s, noise %g, layer %lld %s %s: gradient %g, slope %g over %g", v->name, noise,
                      (long long)d->layer, d->module, d->part, norm, found, h);
    }
    cr_expect_geq(measured, 3 * jumped, "%s: %lld tensors measured, %lld jumped", v->name, (long long)measured,
                  (long long)jumped);
    mx_trial_close(&t);
}

static void gradients_without_noise(bench *s, const variant *v) {
    check_gradients(s, v, 0, true);
    check_gradients(s, v, 0, false);
}

static void gradients_with_noise(bench *s, const variant *v) {
    check_gradients(s, v, 0.3, true);
}

Test(methods, gradients_equal_finite_differences, .timeout = 3000) {
    for_each_variant(true, gradients_without_noise);
}

Test(methods, gradients_equal_finite_differences_with_dropout, .timeout = 3000) {
    for_each_variant(false, gradients_with_noise);
}

/* ------------------------------------------------------------------ batching changes nothing */

static void same_step(bench *s, const char *name, const char *what, mx_trial *t, const mx_batch *a, int64_t as,
                      const mx_batch *b, int64_t bs, const mx_pass *pass) {
    int64_t size = t->layout->size[MX_KIND_TRAINED];
    float *one = floats(s, size), *two = floats(s, size);
    mx_numbers n[2];

    MUST(mx_trial_step(t, a, as, pass, &n[0], one, &s->st));
    MUST(mx_trial_step(t, b, bs, pass, &n[1], two, &s->st));
    /* the same sums in another order: f32 rounding, 1e-7 each, grown through two layers */
    cr_expect_leq(fabs(n[0].loss - n[1].loss), 1e-5, "%s, %s: losses %.9g and %.9g", name, what, n[0].loss, n[1].loss);
    cr_expect_leq(mx_trial_difference(one, two, size), 1e-4, "%s, %s: gradients differ by %g", name, what,
                  mx_trial_difference(one, two, size));
}

static void shared_equals_unshared(bench *s, const variant *v) {
    set_real(v->m, v->config, "router_aux_loss_coef", 0); /* count a shared token once, so they are meant to differ */
    set_real(v->m, v->config, "router_z_loss_coef", 0);
    for (int noisy = 0; noisy < 2; noisy++) {
        mx_trial t;
        mx_batch shared, alone;

        set_real(v->m, v->config, "lora_dropout", noisy ? 0.3 : 0);
        set_real(v->m, v->config, "jitter_noise", noisy ? 0.05 : 0);
        t = open_shaken(s, v->m, v->config);
        shared = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
        alone = mx_trial_batch(&QUESTIONS, &t, 0, 3, false, &s->arena);
        if (!noisy) {
            double off = furthest(scores(s, &t, &shared), scores(s, &t, &alone), shared.loss_rows);

            cr_expect_leq(off, 2e-5, "%s: scores differ by %g", v->name, off);
        }
        for (int choice = 0; choice < 2; choice++) {
            mx_pass pass = { .training = true, .seed = 4, .step = 1, .choice = choice };

            same_step(s, v->name, noisy ? "shared with dropout" : "shared", &t, &shared, 1, &alone, 1, &pass);
        }
        mx_trial_close(&t);
    }
}

Test(methods, a_shared_context_equals_an_unshared_one, .timeout = 1200) {
    for_each_variant(false, shared_equals_unshared);
}

static void repacked_equals_packed(bench *s, const variant *v) {
    mx_pass pass = { .training = true, .seed = 4, .step = 1, .choice = true };
    mx_batch packed, one[3];
    mx_trial t;

    set_real(v->m, v->config, "router_aux_loss_coef", 0); /* not linear: per micro-batch by definition */
    set_real(v->m, v->config, "router_z_loss_coef", 0);
    set_real(v->m, v->config, "lora_dropout", 0.3);
    t = open_shaken(s, v->m, v->config);
    packed = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    for (int64_t i = 0; i < 3; i++) {
        one[i] = mx_trial_batch(&QUESTIONS, &t, i, 1, true, &s->arena);
    }
    same_step(s, v->name, "repacked", &t, &packed, 1, one, 3, &pass);
    mx_trial_close(&t);
}

Test(methods, repacking_changes_nothing_but_rounding, .timeout = 1200) {
    for_each_variant(false, repacked_equals_packed);
}

/* ------------------------------------------------------------------ learning */

static void learns(bench *s, const variant *v) {
    mx_pass pass = { .training = true, .seed = 4 };
    mx_trial t = open_trial(s, v->m, v->config);
    mx_batch batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
    mx_adapter *list[] = { &t.trainee->adapter };
    mx_numbers first = { 0 }, n = { 0 };

    t.trainee->schedule = (mx_schedule){ .peak = 1e-2, .steps = 40 };
    t.trainee->optimizer.max_grad_norm = 1;
    for (int64_t step = 0; step < 40 && t.layout->trained; step++) {
        pass.step = (uint64_t)step;
        mx_trainee_begin(t.trainee);
        mx_model_forward(t.model, list, 1, &batch, &pass);
        mx_model_losses(t.model, t.trainee->numbers);
        mx_model_backward(t.model);
        mx_trainee_end(t.trainee);
        MUST(mx_trainee_numbers(t.trainee, &n, &s->st));
        first = step ? first : n;
    }
    if (t.layout->trained) {
        cr_expect_lt(n.loss, 0.7 * first.loss, "%s: from %g to %g only", v->name, first.loss, n.loss);
        cr_expect_eq(t.trainee->step, 40);
    }
    mx_trial_close(&t);
}

Test(methods, forty_steps_on_one_batch_bring_the_loss_down, .timeout = 1200) {
    for_each_variant(false, learns);
}

/* ------------------------------------------------------------------ saving */

static void saves(bench *s, const variant *v) {
    char folder[] = "/tmp/mixrun-adapter-XXXXXX", path[64];
    mx_trial t = open_shaken(s, v->m, v->config), other;
    int64_t size = t.layout->size[MX_KIND_TRAINED];
    float *a = floats(s, size), *b = floats(s, size);
    mx_adapter_file *f = NULL;
    const mx_method *method;
    void *config;

    if (!t.layout->trained) {
        mx_trial_close(&t);
        return;
    }
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/adapter", folder);
    MUST(mx_adapter_export(&t.trainee->adapter, "some/base", path, &s->st));
    MUST(mx_adapter_open(path, &s->arena, &f, &s->st));
    MUST(mx_adapter_config_read(mx_adapter_config(f), mx_adapter_config_path(f), &s->arena, &method, &config, &s->st));
    cr_expect_eq(method, v->m, "%s came back as %s", v->name, method->name);
    other = open_trial(s, method, config);
    MUST(mx_adapter_import(&other.trainee->adapter, f, &s->st));
    mx_trainee_read_values(t.trainee, a);
    mx_trainee_read_values(other.trainee, b);
    cr_expect_eq(size, other.layout->size[MX_KIND_TRAINED], "%s", v->name);
    cr_expect_arr_eq(a, b, (size_t)size * sizeof *a, "%s: a bit changed", v->name);
    {
        mx_batch batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
        double off = furthest(scores(s, &t, &batch), scores(s, &other, &batch), batch.loss_rows);

        cr_expect_leq(off, 2e-5, "%s: the saved words compute something else, by %g", v->name, off);
    }
    mx_adapter_close(f);
    mx_trial_close(&other);
    mx_trial_close(&t);
    MUST(mx_folder_remove(folder, &s->st));
}

Test(methods, saving_and_loading_changes_no_bit, .timeout = 1200) {
    for_each_variant(true, saves);
}

/* ------------------------------------------------------------------ routed methods */

/* The dense method with the same tensors at a site, or NULL. */
static const mx_method *twin(bench *s, const mx_layout *l) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        const mx_layout *dense;
        bool same = true;

        if ((*m)->experts) {
            continue;
        }
        dense = mx_layout_make(*m, mx_method_defaults(*m, &s->arena), l->shape, &s->arena);
        for (int role = 0; role < MX_ROLES; role++) {
            same &= !mx_layout_find(dense, MX_SCOPE_SITE, 0, MX_SITE_Q, role) ==
                    !mx_layout_find(l, MX_SCOPE_SITE, 0, MX_SITE_Q, role);
        }
        if (same) {
            return *m;
        }
    }
    return NULL;
}

/* A dense trial with the same words and random values; `t` gets them in every expert. */
static mx_trial open_twin(bench *s, mx_trial *t, double dropout) {
    const mx_method *m = twin(s, t->layout);
    mx_trial dense;
    void *config;

    cr_assert_not_null(m, "%s has no dense twin", t->layout->method->name);
    config = preset(m, &s->arena);
    set_real(m, config, "lora_dropout", dropout);
    dense = open_shaken(s, m, config);
    mx_trial_copy(t, &dense);
    return dense;
}

/* Gates that sum to 1 over equal experts are no experts at all. Gradients: the dense one is the sum over experts. */
static void equal_experts(bench *s, const mx_method *m, int64_t experts, int64_t top_k) {
    double noises[] = { 0, 0.3 };

    for (int i = 0; i < 2; i++) {
        mx_pass pass = { .training = true, .seed = 4, .step = 1 };
        void *config = preset(m, &s->arena);
        mx_batch batch;
        mx_numbers n[2];
        mx_trial t, dense;
        float *one, *two;
        double off;

        set_integer(m, config, "num_experts", experts);
        set_integer(m, config, "top_k", top_k);
        set_real(m, config, "router_aux_loss_coef", 0);
        set_real(m, config, "lora_dropout", noises[i]);
        t = open_shaken(s, m, config);
        dense = open_twin(s, &t, noises[i]);
        batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
        off = furthest(scores(s, &t, &batch), scores(s, &dense, &batch), batch.loss_rows);
        cr_expect_leq(off, 2e-5, "%s E%lld: scores differ by %g", m->name, (long long)experts, off);
        one = floats(s, t.layout->size[MX_KIND_TRAINED]);
        two = floats(s, dense.layout->size[MX_KIND_TRAINED]);
        if (noises[i] == 0 || top_k == 1) { /* with dropout each slot has a mask of its own */
            MUST(mx_trial_step(&t, &batch, 1, &pass, &n[0], one, &s->st));
            MUST(mx_trial_step(&dense, &batch, 1, &pass, &n[1], two, &s->st));
            cr_expect_leq(fabs(n[0].loss - n[1].loss), 1e-5, "%s E%lld: losses", m->name, (long long)experts);
            for (size_t k = 0; k < dense.layout->count; k++) {
                const mx_declaration *d = &dense.layout->item[k];
                const mx_declaration *e = mx_layout_find(t.layout, d->scope, d->layer, d->site, d->role);
                float *sum = floats(s, d->count);

                for (int64_t p = 0; d->kind == MX_KIND_TRAINED && p < e->parts; p++) {
                    for (int64_t j = 0; j < d->count; j++) {
                        sum[j] += one[e->offset + p * d->count + j];
                    }
                }
                if (d->kind == MX_KIND_TRAINED) {
                    double g = mx_trial_difference(sum, two + d->offset, d->count);

                    cr_expect_leq(g, 2e-4, "%s E%lld: gradient of %s %s differs by %g", m->name, (long long)experts,
                                  d->module, d->part, g);
                }
            }
        }
        mx_trial_close(&dense);
        mx_trial_close(&t);
    }
}

static void for_each_routed(void (*check)(bench *s, const mx_method *m)) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        if ((*m)->experts) {
            bench s;

            open_bench(&s, true);
            check(&s, *m);
            close_bench(&s);
        }
    }
}

static void one_expert(bench *s, const mx_method *m) {
    equal_experts(s, m, 1, 1);
}

static void same_experts(bench *s, const mx_method *m) {
    equal_experts(s, m, 4, 2);
    equal_experts(s, m, 3, 3);
}

Test(methods, one_expert_equals_the_dense_method) {
    for_each_routed(one_expert);
}

Test(methods, identical_experts_equal_the_dense_method) {
    for_each_routed(same_experts);
}

/* Values, gradients and losses of every form the words allow, under every routing strategy. */
static void forms_agree(bench *s, const mx_method *m) {
    for (int routing = 0; routing < 3; routing++) {
        mx_pass pass = { .training = true, .seed = 4, .step = 1, .choice = true };
        float *first = NULL, *first_scores = NULL;
        mx_numbers n, n0 = { 0 };

        for (int form = 0; form < 3; form++) {
            void *config = preset(m, &s->arena);
            mx_batch batch;
            mx_trial t;
            float *gradient, *nll;

            *(int *)mx_method_word(m, config, "routing_strategy") = routing;
            *(int *)mx_method_word(m, config, "experts_forward") = form;
            set_real(m, config, "lora_dropout", 0.3);
            if (!holds(m, config)) {
                continue;
            }
            t = open_shaken(s, m, config);
            batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
            gradient = floats(s, t.layout->size[MX_KIND_TRAINED]);
            nll = scores(s, &t, &batch);
            MUST(mx_trial_step(&t, &batch, 1, &pass, &n, gradient, &s->st));
            if (first) {
                double g = mx_trial_difference(gradient, first, t.layout->size[MX_KIND_TRAINED]);

                cr_expect_leq(furthest(nll, first_scores, batch.loss_rows), 2e-5, "%s: form %d's scores", m->name, form);
                cr_expect_leq(fabs(n.loss - n0.loss), 1e-5, "%s: form %d's loss", m->name, form);
                cr_expect_leq(fabs(n.balance - n0.balance), 1e-6, "%s: form %d's balance", m->name, form);
                cr_expect_leq(g, 1e-4, "%s, routing %d: form %d's gradient differs by %g", m->name, routing, form, g);
            } else {
                first = gradient;
                first_scores = nll;
                n0 = n;
            }
            mx_trial_close(&t);
        }
        cr_expect_not_null(first);
    }
}

Test(methods, the_forms_of_the_routed_block_agree) {
    for_each_routed(forms_agree);
}

/* Loads sum to tokens times slots (top_k), shared tokens once; tasks are told apart; reading zeroes. */
static void loads_add_up(bench *s, const mx_method *m) {
    for (int routing = 0; routing < 3; routing++) {
        void *config = preset(m, &s->arena);
        mx_router_load load, again;
        mx_batch batch;
        mx_trial t;

        *(int *)mx_method_word(m, config, "routing_strategy") = routing;
        t = open_shaken(s, m, config);
        batch = mx_trial_batch(&QUESTIONS, &t, 0, 3, true, &s->arena);
        (void)scores(s, &t, &batch);
        mx_model_init_load(t.model, &load);
        mx_model_init_load(t.model, &again);
        MUST(mx_model_read_load(t.model, &load, &s->st));
        for (int64_t layer = 0; layer < load.layers; layer++) {
            int64_t tokens = 0, dropped = 0, rows = 0, pairs = 0;
            double probability = 0;

            for (int64_t task = 0; task < load.tasks; task++) {
                int64_t here = 0;

                for (int64_t i = 0; i < batch.live; i++) {
                    here += batch.task[i] == task;
                }
                cr_expect_eq(load.rows[layer * load.tasks + task], here, "%s", m->name);
                rows += here;
                cr_expect_leq(load.entropy[layer * load.tasks + task], (double)here * log((double)load.experts) + 1e-9);
                for (int64_t e = 0; e < load.experts; e++) {
                    int64_t at = mx_router_load_at(&load, layer, task, e);

                    tokens += load.tokens[at];
                    dropped += load.dropped[at];
                    probability += load.probability[at];
                    for (int64_t o = 0; o < load.experts; o++) {
                        pairs += load.pairs[at * load.experts + o];
                        cr_expect(o > e || load.pairs[at * load.experts + o] == 0, "pairs are counted once, i < j");
                    }
                }
            }
            cr_expect_eq(rows, batch.live, "%s: a shared token counts once", m->name);
            cr_expect_leq(fabs(probability - (double)rows), 1e-3, "%s: probabilities sum to the rows", m->name);
            if (routing == MX_ROUTE_TOP_K) {
                cr_expect_eq(tokens, 2 * rows, "%s: loads are tokens times k", m->name);
                cr_expect_eq(pairs, rows, "%s: one pair a token", m->name);
            } else if (routing == MX_ROUTE_SWITCH) {
                cr_expect_eq(tokens + dropped, rows, "%s: each token once, computed or past the capacity", m->name);
                cr_expect_gt(dropped, 0, "the capacity of 2 is meant to overflow here");
                cr_expect_eq(pairs, 0);
            } else {
                cr_expect_geq(tokens, rows, "%s: at least one expert a token", m->name);
            }
        }
        MUST(mx_model_read_load(t.model, &again, &s->st));
        for (int64_t i = 0; i < again.layers * again.tasks; i++) {
            cr_expect_eq(again.rows[i], 0, "reading must zero");
        }
        mx_router_load_finish(&load);
        mx_router_load_finish(&again);
        mx_trial_close(&t);
    }
}

Test(methods, router_loads_add_up) {
    for_each_routed(loads_add_up);
}
