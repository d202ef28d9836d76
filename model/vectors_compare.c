/* vectors_compare.c - every key of a case's two files against what was computed.
 *
 * The files are walked, not the results: a key nobody knows fails the case. Tolerances are those the makers of the
 * vectors found reasonable for a float32 engine (their README), which leaves room of 10 to 100 over what a float32 run of
 * their own reference shows. In bfloat16 a few tokens are routed otherwise (measured: up to 4 %), which moves whatever
 * hangs on them, so there everything is reported and must be finite, and only the mean losses at the start are held, to
 * eight times what was measured (0.013). */
#include "model/vectors_parts.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const double ABSOLUTE = 1e-4;  /* logits, hidden states, router logits, expert weights */
static const double LOSS = 1e-5, LOSS_BF16 = 0.1; /* means over tokens, at the start */
static const double GRADIENT = 2e-4;  /* norm of the difference over the norm, each tensor */
static const double AFTER_STEP = 1e-4; /* losses after steps */
static const double ZERO = 1e-6;      /* where the true value is 0 */

typedef struct comparison {
    const mx_vectors_set *set;
    const mx_vectors_case *c;
    const mx_vectors_computed *got;
    const mx_shape *shape;
    bool exact; /* f32 */
    mx_vectors_result *r;
    json_t *trained; /* name on disk -> declaration and part */
} comparison;

static void MX_PRINTF(2, 3) beyond(comparison *x, const char *fmt, ...) {
    va_list list;

    if (x->r->verdict != MX_VERDICT_BEYOND) {
        x->r->verdict = MX_VERDICT_BEYOND;
        va_start(list, fmt);
        vsnprintf(x->r->why, sizeof x->r->why, fmt, list);
        va_end(list);
    }
}

/* Keeps the largest error of a quantity. */
static void note(comparison *x, const char *quantity, double error, double tolerance, const char *key) {
    mx_vectors_result *r = x->r;
    mx_vectors_error *e = NULL;

    if (!x->exact) {
        tolerance = strcmp(quantity, "loss") == 0 || strcmp(quantity, "loss, all tokens") == 0 ? LOSS_BF16 : -1;
    }
    if (!isfinite(error)) {
        error = INFINITY;
    }
    for (int i = 0; i < r->errors && !e; i++) {
        if (strcmp(r->error[i].quantity, quantity) == 0) {
            e = &r->error[i];
        }
    }
    if (!e) {
        assert(r->errors < MX_VECTORS_QUANTITIES);
        e = &r->error[r->errors++];
        *e = (mx_vectors_error){ .quantity = quantity, .error = -1, .tolerance = tolerance };
    }
    if (error > e->error) {
        e->error = error;
        snprintf(e->worst, sizeof e->worst, "%s", key);
    }
    if (tolerance >= 0 ? error > tolerance : !isfinite(error)) {
        beyond(x, "%s: %s is off by %.3g (tolerance %.3g)", key, quantity, error, tolerance);
    }
}

/* ------------------------------------------------------------------ tensors */

static bool shaped(comparison *x, const mx_safetensor *t, int64_t rows, int64_t columns) {
    bool good = t->type == MX_FILE_F32 && t->dim[0] == rows &&
                (columns == 1 ? t->rank == 1 : t->rank == 2 && t->dim[1] == columns);

    if (!good) {
        beyond(x, "%s: not %lld x %lld f32", t->name, (long long)rows, (long long)columns);
    }
    return good;
}

static double value_at(const mx_safetensor *t, int64_t i) {
    float v;

    memcpy(&v, (const char *)t->bytes + 4 * i, 4);
    return v;
}

/* Largest absolute difference. */
static void compare_absolute(comparison *x, const char *quantity, const mx_safetensor *t, const float *ours, int64_t rows,
                             int64_t columns) {
    double most = 0;

    if (!shaped(x, t, rows, columns)) {
        return;
    }
    for (int64_t i = 0; i < rows * columns; i++) {
        double d = fabs((double)ours[i] - value_at(t, i));

        most = d > most || isnan(d) ? d : most;
    }
    note(x, quantity, most, ABSOLUTE, t->name);
}

/* Norm of the difference over the norm. */
static void compare_gradient(comparison *x, const char *quantity, const mx_safetensor *t, const float *ours, int64_t rows,
                             int64_t columns) {
    double difference = 0, norm = 0;

    if (!x->got->comparable || !shaped(x, t, rows, columns)) {
        return;
    }
    for (int64_t i = 0; i < rows * columns; i++) {
        double v = value_at(t, i), d = ours[i] - v;

        difference += d * d;
        norm += v * v;
    }
    if (sqrt(norm) < 1e-12) { /* nothing flows here, as into an expert that no token chose */
        note(x, "gradients that are 0", sqrt(difference), ZERO, t->name);
    } else {
        note(x, quantity, sqrt(difference / norm), GRADIENT, t->name);
    }
}

/* Does every token use every expert in every layer? Then the balance loss is a constant. */
static bool uses_all(const comparison *x) {
    int64_t n = x->shape->layers * x->set->rows * x->got->experts;

    for (int64_t i = 0; i < n; i++) {
        if (!(x->got->weight[i] > 0)) {
            return false;
        }
    }
    return n > 0 && x->c->method->starts_at_base(x->c->config); /* top_k: no other router loss */
}

static void compare_aux(comparison *x, const mx_safetensor *t, const mx_declaration *d, int64_t part) {
    int64_t n = d->dim[0] * d->dim[1];
    const float *ours = x->got->aux + d->offset + part * n;
    double most = 0;

    if (!x->got->comparable || !shaped(x, t, d->dim[0], d->dim[1])) {
        return;
    }
    if (!uses_all(x)) {
        compare_gradient(x, "grad_aux", t, ours, d->dim[0], d->dim[1]);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        most = fabs(ours[i]) > most ? fabs(ours[i]) : most;
        most = fabs(value_at(t, i)) > most ? fabs(value_at(t, i)) : most;
    }
    note(x, "grad_aux against 0", most, ZERO, t->name);
}

static const char *after(const char *name, const char *prefix) {
    size_t n = strlen(prefix);

    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

/* The declaration and part a name on disk belongs to, or NULL. */
static const mx_declaration *declared(const comparison *x, const char *name, int64_t *ret_part) {
    const json_t *v = json_object_get(x->trained, name);
    int64_t n = json_integer_value(v);

    *ret_part = n & 0xffff;
    return v ? &x->got->layout->item[n >> 16] : NULL;
}

static bool layer_of(const char *digits, int64_t layers, int64_t *ret) {
    return digits && mx_text_to_int64(digits, ret) && *ret >= 0 && *ret < layers;
}

static void compare_tensor(comparison *x, const mx_safetensor *t) {
    const mx_vectors_computed *got = x->got;
    const mx_vectors_sequence *shown = &x->set->sequence[x->c->shown];
    int64_t rows = x->set->rows, hidden = x->shape->hidden, e = got->experts, layer, part;
    const mx_declaration *d;

    if (declared(x, t->name, &part)) {
        return; /* a starting value: it was loaded, with its shape checked */
    }
    if (strcmp(t->name, "logits") == 0) {
        compare_absolute(x, "logits", t, got->logits, shown->length, x->shape->vocab);
    } else if (layer_of(after(t->name, "hidden."), x->shape->layers + 1, &layer)) {
        compare_absolute(x, "hidden", t, got->hidden + (layer * rows + shown->begin) * hidden, shown->length, hidden);
    } else if (e && layer_of(after(t->name, "router_logits."), x->shape->layers, &layer)) {
        compare_absolute(x, "router logits", t, got->router + (layer * rows + shown->begin) * e, shown->length, e);
    } else if (e && layer_of(after(t->name, "expert_weights."), x->shape->layers, &layer)) {
        compare_absolute(x, "expert weights", t, got->weight + (layer * rows + shown->begin) * e, shown->length, e);
    } else if (strcmp(t->name, "grad.inputs_embeds") == 0) {
        compare_gradient(x, "input gradient", t, got->input_gradient + shown->begin * hidden, shown->length, hidden);
    } else if (after(t->name, "grad.") && (d = declared(x, after(t->name, "grad."), &part))) {
        compare_gradient(x, d->router ? "router gradients" : "gradients", t,
                         got->gradient + d->offset + part * d->dim[0] * d->dim[1], d->dim[0], d->dim[1]);
    } else if (after(t->name, "grad_aux.") && (d = declared(x, after(t->name, "grad_aux."), &part))) {
        compare_aux(x, t, d, part);
    } else {
        beyond(x, "%s: nobody knows what to compare this key with", t->name);
    }
}

/* ------------------------------------------------------------------ JSON */

/* An object of losses: ce, and parts with and without their coefficients. */
static void compare_losses(comparison *x, const json_t *from, const mx_vectors_losses *ours, const char *quantity,
                           double tolerance, const char *where) {
    double balance = 0, z = 0;
    const char *key;
    json_t *v;

    if (x->c->method->coefficients) {
        x->c->method->coefficients(x->c->config, &balance, &z);
    }
    balance *= ours->balance;
    z *= ours->z;
    json_object_foreach((json_t *)from, key, v) {
        const struct {
            const char *key;
            double value;
            bool everywhere; /* means the same in micro-batches */
        } known[] = {
            { "ce", ours->ce, true },           { "total", ours->ce + balance + z, false },
            { "balance", balance, false },      { "balance_raw", ours->balance, false },
            { "z", z, false },                  { "z_raw", ours->z, false },
        };
        char name[96];
        bool found = false;

        snprintf(name, sizeof name, "%s.%s", where, key);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            if (strcmp(key, known[i].key) == 0) {
                found = true;
                if (known[i].everywhere || x->got->comparable) {
                    note(x, quantity, json_is_number(v) ? fabs(known[i].value - json_number_value(v)) : NAN, tolerance,
                         name);
                }
            }
        }
        if (!found) {
            beyond(x, "%s: a loss nobody computes", name);
        }
    }
}

static void compare_sequences(comparison *x, const json_t *list) {
    if ((int64_t)json_array_size(list) != x->set->sequences) {
        beyond(x, "loss_per_sequence: not one entry for each sequence");
        return;
    }
    for (int64_t i = 0; i < x->set->sequences; i++) {
        const json_t *one = json_array_get(list, (size_t)i), *targets = json_object_get(one, "targets");
        const mx_vectors_sequence *s = &x->set->sequence[i];
        int64_t n = 0;
        char name[64];

        for (int64_t j = 0; j < s->length; j++) {
            n += s->mask[0][j];
        }
        snprintf(name, sizeof name, "loss_per_sequence[%lld]", (long long)i);
        if (json_object_size(one) != 2 || json_integer_value(targets) != n) {
            beyond(x, "%s: not nll_sum with %lld targets", name, (long long)n);
            return;
        }
        /* a sum of n values, each within LOSS on average */
        note(x, "loss by sequence",
             fabs(x->got->nll[i] - json_number_value(json_object_get(one, "nll_sum"))) / (double)(n ? n : 1), LOSS, name);
    }
}

static bool same_count(const json_t *v, int64_t ours) {
    return json_is_integer(v) && json_integer_value(v) == ours;
}

/* In bf16 some tokens are routed otherwise: reported as the share of the list's total that differs. */
static void compare_counts(comparison *x, const json_t *list, const int64_t *ours, int64_t n, const char *name) {
    double off = 0, all = 0;

    if ((int64_t)json_array_size(list) != n) {
        beyond(x, "%s: not %lld counts", name, (long long)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);

        off += same_count(v, ours[i]) ? 0 : fabs((double)ours[i] - json_number_value(v));
        all += (double)ours[i];
    }
    note(x, "routing", all > 0 ? off / all : off, 0, name);
}

static void compare_overflow(comparison *x, const json_t *list, int64_t layer, const char *name) {
    double off = 0;

    if ((int64_t)json_array_size(list) != x->set->sequences) {
        beyond(x, "%s: not one list for each sequence", name);
        return;
    }
    for (int64_t i = 0; i < x->set->sequences; i++) {
        const mx_vectors_sequence *s = &x->set->sequence[i];
        const json_t *positions = json_array_get(list, (size_t)i);
        size_t next = 0;

        for (int64_t j = 0; j < s->length; j++) {
            bool theirs = next < json_array_size(positions) && same_count(json_array_get(positions, next), j);

            next += theirs;
            off += theirs != (x->got->passed[layer * x->set->rows + s->begin + j] > 0);
        }
        off += (double)(json_array_size(positions) - next); /* positions that are none, or not in order */
    }
    note(x, "overflow positions", off / (double)x->set->rows, 0, name);
}

static void compare_routing(comparison *x, const json_t *list) {
    const mx_vectors_computed *got = x->got;
    int64_t e = got->experts, rows = x->set->rows;

    if (!e || (int64_t)json_array_size(list) != x->shape->layers) {
        beyond(x, "routing: not one entry for each routed layer");
        return;
    }
    for (int64_t i = 0; i < x->shape->layers; i++) {
        const json_t *one = json_array_get(list, (size_t)i);
        const char *key;
        json_t *v;

        json_object_foreach((json_t *)one, key, v) {
            char name[96];

            snprintf(name, sizeof name, "routing[%lld].%s", (long long)i, key);
            if (strcmp(key, "tokens_per_expert") == 0) {
                compare_counts(x, v, got->load.tokens + mx_router_load_at(&got->load, i, 0, 0), e, name);
            } else if (strcmp(key, "overflow_positions") == 0) {
                compare_overflow(x, v, i, name);
            } else if (strcmp(key, "tokens_by_number_of_experts") == 0) {
                int64_t *by = calloc((size_t)e + 1, sizeof *by);

                assert(by);
                for (int64_t t = 0; t < rows; t++) {
                    int64_t n = 0;

                    for (int64_t k = 0; k < e; k++) {
                        n += got->weight[(i * rows + t) * e + k] > 0;
                    }
                    by[n]++;
                }
                compare_counts(x, v, by, e + 1, name);
                free(by);
            } else {
                beyond(x, "%s: a statistic nobody computes", name);
            }
        }
    }
}

static void compare_optimizer(comparison *x, const json_t *from) {
    const json_t *b = json_object_get(from, "lr_of_lora_B");
    const double *ratio = mx_method_word(x->c->method, x->c->config, "loraplus_lr_ratio");

    if (b) { /* said twice: it must be the ratio's */
        note(x, "learning rate of B", fabs(json_number_value(b) - x->c->lr * (ratio ? *ratio : 1)), 1e-12,
             "optimizer.lr_of_lora_B");
    }
}

static void compare_json(comparison *x) {
    /* read elsewhere (vectors.c), or words about how the numbers were made */
    static const char *const others[] = { "case", "peft_type", "hyper_parameters", "adapter_config", "seed", "dtype",
                                          "made_by", "shown_sequence", "smallest_routing_margin_per_step", "checks" };
    const char *key;
    json_t *v;

    json_object_foreach(x->c->json, key, v) {
        bool other = false;

        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            other |= strcmp(key, others[i]) == 0;
        }
        if (strcmp(key, "optimizer") == 0) {
            compare_optimizer(x, v);
        } else if (strcmp(key, "loss") == 0) {
            compare_losses(x, v, &x->got->loss, "loss", LOSS, key);
        } else if (strcmp(key, "loss_all_tokens") == 0) {
            compare_losses(x, v, &x->got->loss_all, "loss, all tokens", LOSS, key);
        } else if (strcmp(key, "loss_per_sequence") == 0) {
            compare_sequences(x, v);
        } else if (strcmp(key, "losses_after_steps") == 0) {
            for (size_t s = 0; x->got->comparable && s < json_array_size(v); s++) {
                char where[48];

                snprintf(where, sizeof where, "losses_after_steps[%zu]", s);
                compare_losses(x, json_array_get(v, s), &x->got->after[s], "loss after steps", AFTER_STEP, where);
            }
        } else if (strcmp(key, "routing") == 0) {
            compare_routing(x, v);
        } else if (!other) {
            beyond(x, "%s: nobody knows what to compare this key with", key);
        }
    }
}

/* Names of the trained tensors, and of the gradients they should have. */
static void name_trained(comparison *x, mx_arena *arena) {
    const mx_layout *l = x->got->layout;

    x->trained = json_object();
    assert(x->trained);
    for (size_t i = 0; i < l->count; i++) {
        for (int64_t p = 0; l->item[i].kind == MX_KIND_TRAINED && p < l->item[i].parts; p++) {
            json_object_set_new(x->trained, mx_layout_name(l, &l->item[i], p, arena),
                                json_integer((json_int_t)i << 16 | p));
        }
    }
}

void mx_vectors_compare(const mx_vectors_set *set, const mx_vectors_case *c, const mx_vectors_computed *got,
                        mx_precision precision, mx_vectors_result *r) {
    comparison x = { .set = set, .c = c, .got = got, .shape = mx_base_file_shape(set->base),
                     .exact = precision == MX_PRECISION_F32, .r = r };
    mx_arena arena;

    mx_arena_init(&arena, (size_t)1 << 28);
    name_trained(&x, &arena);
    for (size_t i = 0; i < mx_safetensors_count(c->values); i++) {
        compare_tensor(&x, mx_safetensors_at(c->values, i));
    }
    compare_json(&x);
    json_decref(x.trained);
    mx_arena_finish(&arena);
}
