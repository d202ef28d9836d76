/* gates.c - METHODS.md 9 a-h on this machine, with this backend. */
#include "model/gates.h"

#include "base/file.h"
#include "model/trial.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct gates {
    mx_arena arena;
    mx_backend *b;
    mx_trial_base base;
    void (*report)(void *context, const mx_gate_result *r);
    void *context;
    int failed;
    mx_status *st;
} gates;

static const mx_trial_questions QUESTIONS = { .questions = 3, .choices = 3, .seed = 5, .tasks = 2 };

static void tell(gates *g, const char *name, double error, double tolerance) {
    mx_gate_result r = { .name = name, .error = error, .tolerance = tolerance, .ok = error <= tolerance };

    g->failed += !r.ok;
    if (g->report) {
        g->report(g->context, &r);
    }
}

/* Rounding of activations: f32 sums in another order, or bf16 values half a step apart. */
static double scaled(const gates *g, double f32, double bf16) {
    return g->b->precision == MX_PRECISION_F32 ? f32 : bf16;
}

/* ------------------------------------------------------------------ words */

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

static void set_choice(const mx_method *m, void *config, const char *word, int v) {
    int *at = mx_method_word(m, config, word);

    if (at) {
        *at = v;
    }
}

/* Defaults, made small and quiet, not resolved yet. */
static void *words_of(gates *g, const mx_method *m) {
    void *config = mx_arena_take(&g->arena, m->options->size + 1);
    mx_problems problems;

    mx_problems_init(&problems);
    mx_option_bind(m->options, NULL, config, &g->arena, &problems, NULL);
    assert(!problems.count);
    mx_problems_finish(&problems);
    set_integer(m, config, "lora_r", 4);
    set_real(m, config, "lora_alpha", 8);
    set_real(m, config, "lora_dropout", 0);
    set_real(m, config, "jitter_noise", 0);
    set_integer(m, config, "num_experts", 4);
    set_real(m, config, "router_aux_loss_coef", 0);
    return config;
}

static mx_code open_trial(gates *g, const mx_method *m, void *config, mx_trial *ret) {
    mx_method_resolve(m, config);
    return mx_trial_open(g->b, &g->base, m, config, true, &g->arena, ret, g->st);
}

static bool allowed(const mx_method *m, const void *config) {
    mx_problems problems;
    bool good;

    mx_problems_init(&problems);
    if (m->options->check) {
        m->options->check(config, NULL, &problems);
    }
    good = !problems.count;
    mx_problems_finish(&problems);
    return good;
}

/* ------------------------------------------------------------------ what is compared */

typedef struct outcome {
    float *nll, *gradient;
    int64_t rows, size;
    double loss, balance;
} outcome;

static mx_code run(gates *g, mx_trial *t, outcome *ret) {
    mx_pass pass = { .training = true, .choice = true };
    mx_batch batch = mx_trial_batch(&QUESTIONS, t, 0, QUESTIONS.questions, true, &g->arena);
    mx_numbers n;

    ret->rows = batch.loss_rows;
    ret->size = t->layout->size[MX_KIND_TRAINED];
    ret->nll = MX_TAKE(&g->arena, float, ret->rows);
    ret->gradient = MX_TAKE(&g->arena, float, ret->size + 1);
    MX_TRY(mx_trial_scores(t, &batch, ret->nll, g->st));
    MX_TRY(mx_trial_step(t, &batch, 1, &pass, &n, ret->gradient, g->st));
    ret->loss = n.loss;
    ret->balance = n.balance;
    return MX_OK;
}

static double worst(double a, double b) {
    return a > b || isnan(a) ? a : b;
}

static double score_error(const outcome *a, const outcome *b) {
    double most = 0;

    for (int64_t i = 0; i < a->rows; i++) {
        most = worst(fabs((double)a->nll[i] - b->nll[i]), most);
    }
    return most;
}

/* ------------------------------------------------------------------ the gates */

/* a: with its starting values a method computes the base. */
static mx_code starts_at_base(gates *g) {
    const mx_method *base = mx_method_find("base");
    outcome plain = { 0 };
    double most = 0;
    mx_trial t;

    MX_TRY(open_trial(g, base, words_of(g, base), &t));
    mx_code code = run(g, &t, &plain);

    mx_trial_close(&t);
    for (const mx_method *const *m = mx_methods; !code && *m; m++) {
        outcome o;

        code = open_trial(g, *m, words_of(g, *m), &t);
        if (!code && mx_method_starts_at_base(*m, t.layout->config)) {
            code = run(g, &t, &o);
            most = code ? most : worst(score_error(&o, &plain), most);
        }
        mx_trial_close(&t);
    }
    if (!code) {
        tell(g, "a  step 0 computes the base, for every method that starts there", most, scaled(g, 1e-5, 0.1));
    }
    return code;
}

/* b: the forms of the routed block compute the same, forward and backward, under every routing. */
static mx_code forms_agree(gates *g) {
    double scores = 0, gradients = 0;
    mx_code code = MX_OK;

    for (const mx_method *const *m = mx_methods; !code && *m; m++) {
        for (int routing = 0; !code && (*m)->experts && routing <= MX_ROUTE_TOP_P; routing++) {
            outcome first = { 0 }, o;

            for (int form = MX_EXPERTS_FACTORED; !code && form <= MX_EXPERTS_NAIVE; form++) {
                void *config = words_of(g, *m);
                mx_trial t;

                set_choice(*m, config, "routing_strategy", routing);
                set_choice(*m, config, "experts_forward", form);
                set_integer(*m, config, "expert_capacity", 3);
                if (!allowed(*m, config)) {
                    continue;
                }
                code = open_trial(g, *m, config, &t);
                if (!code) {
                    mx_trial_shake(&t, 7);
                    code = run(g, &t, &o);
                }
                mx_trial_close(&t);
                if (!code && first.nll) {
                    scores = worst(score_error(&o, &first), scores);
                    gradients = worst(mx_trial_difference(o.gradient, first.gradient, o.size), gradients);
                }
                first = first.nll ? first : o;
            }
        }
    }
    if (!code) {
        tell(g, "b  factored, shared and naive experts agree: scores", scores, scaled(g, 2e-5, 0.2));
        tell(g, "b  factored, shared and naive experts agree: gradients", gradients, scaled(g, 1e-4, 0.2));
    }
    return code;
}

/* c, d: equal experts behind gates that sum to 1, or one expert alone, are the dense method. */
static mx_code dense_equals(gates *g, const char *routed, const char *dense, int64_t experts, int64_t top_k,
                            double *ret) {
    const mx_method *m = mx_method_find(routed), *d = mx_method_find(dense);
    void *config = words_of(g, m);
    mx_trial t, plain = { 0 };
    outcome a, b;
    mx_code code;

    set_integer(m, config, "num_experts", experts);
    set_integer(m, config, "top_k", top_k);
    code = open_trial(g, m, config, &t);
    if (!code) {
        code = open_trial(g, d, words_of(g, d), &plain);
    }
    if (!code) {
        mx_trial_shake(&plain, 7);
        mx_trial_shake(&t, 8); /* the router; the experts are then overwritten */
        mx_trial_copy(&t, &plain);
        code = run(g, &plain, &b);
    }
    if (!code) {
        code = run(g, &t, &a);
        *ret = code ? *ret : worst(score_error(&a, &b), *ret);
    }
    mx_trial_close(&plain);
    mx_trial_close(&t);
    return code;
}

static mx_code equal_experts(gates *g) {
    double equal = 0, one = 0;

    MX_TRY(dense_equals(g, "mixlora", "lora", 4, 2, &equal));
    MX_TRY(dense_equals(g, "mixdora", "dora", 4, 3, &equal));
    tell(g, "c  equal experts whose gates sum to 1 are one LoRA (one DoRA)", equal, scaled(g, 2e-5, 0.1));
    MX_TRY(dense_equals(g, "mixlora", "lora", 1, 1, &one));
    MX_TRY(dense_equals(g, "mixdora", "dora", 1, 1, &one));
    tell(g, "d  one expert is LoRA (DoRA)", one, scaled(g, 2e-5, 0.1));
    return MX_OK;
}

/* e: p of the k largest over their sum is the softmax over these k logits. f: uniform probabilities make the balance
 * loss k, its value at exact balance. */
static mx_code router_identities(gates *g) {
    const mx_method *m = mx_method_find("mixlora");
    mx_trial t;
    outcome o;
    float *logits, *weight, *zero;
    double most = 0;
    int64_t e = 4, rows;
    mx_code code;

    code = open_trial(g, m, words_of(g, m), &t);
    if (code) {
        return code;
    }
    mx_trial_shake(&t, 7);
    code = run(g, &t, &o);
    if (code) {
        goto done;
    }
    rows = mx_trial_batch(&QUESTIONS, &t, 0, QUESTIONS.questions, true, &g->arena).live;
    logits = MX_TAKE(&g->arena, float, rows * e);
    weight = MX_TAKE(&g->arena, float, rows * e);
    mx_model_read_router(t.model, 0, logits, weight, NULL);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;

        for (int64_t i = 0; i < e; i++) {
            sum += weight[r * e + i] > 0 ? exp((double)logits[r * e + i]) : 0;
        }
        for (int64_t i = 0; i < e; i++) {
            double expected = weight[r * e + i] > 0 ? exp((double)logits[r * e + i]) / sum : 0;

            most = worst(fabs(weight[r * e + i] - expected), most);
        }
    }
    tell(g, "e  renormalised top-k gates are the softmax over the selected logits", most, 1e-6);
    zero = MX_TAKE(&g->arena, float, t.layout->size[MX_KIND_TRAINED]);
    mx_trainee_write_values(t.trainee, zero);
    code = run(g, &t, &o);
    if (!code) {
        tell(g, "f  the balance loss of an even router is top_k", fabs(o.balance - 2), 1e-6);
    }
done:
    mx_trial_close(&t);
    return code;
}

/* g: trained values of METHODS.md 1.13, layouts alone. */
static mx_code counts(gates *g) {
    static const struct {
        mx_shape shape;
        int64_t lora, mixlora, router;
    } models[] = {
        { { .hidden = 4096, .inner = 11008, .layers = 32, .heads = 32, .kv_heads = 32, .head_dim = 128 },
          199884800, 203423744, 1048576 }, /* LLaMA-2 7B */
        { { .hidden = 5120, .inner = 13824, .layers = 40, .heads = 40, .kv_heads = 40, .head_dim = 128 },
          312934400, 318832640, 1638400 }, /* LLaMA-2 13B */
        { { .hidden = 4096, .inner = 14336, .layers = 32, .heads = 32, .kv_heads = 8, .head_dim = 128 },
          209715200, 241172480, 1048576 }, /* LLaMA-3 8B */
        { { .hidden = 2048, .inner = 5632, .layers = 22, .heads = 32, .kv_heads = 4, .head_dim = 64 },
          63078400, 69746688, 360448 }, /* TinyLlama 1.1B */
    };
    const mx_method *lora = mx_method_find("lora"), *mixlora = mx_method_find("mixlora");
    double off = 0;

    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        void *a = words_of(g, lora), *b = words_of(g, mixlora);
        const mx_layout *l;

        set_integer(lora, a, "lora_r", 80);
        set_integer(mixlora, b, "lora_r", 16);
        set_integer(mixlora, b, "num_experts", 8);
        mx_method_resolve(lora, a);
        mx_method_resolve(mixlora, b);
        l = mx_layout_make(lora, a, &models[i].shape, &g->arena);
        off += fabs((double)(l->trained - models[i].lora));
        l = mx_layout_make(mixlora, b, &models[i].shape, &g->arena);
        off += fabs((double)(l->trained - models[i].mixlora)) + fabs((double)(l->trained_router - models[i].router));
    }
    tell(g, "g  trained values of four published models", off, 0);
    return MX_OK;
}

/* h: through a folder and back, every value to the bit. */
static mx_code round_trip(gates *g, const mx_method *m, double *changed) {
    const char *folder = mx_arena_text(&g->arena, "%s/adapter-%s", g->base.folder, m->name);
    mx_adapter_file *f = NULL;
    const mx_method *method;
    mx_trial t, other = { 0 };
    float *a, *b;
    void *config;
    mx_code code;

    code = open_trial(g, m, words_of(g, m), &t);
    if (code || !t.layout->trained) {
        goto done;
    }
    mx_trial_shake(&t, 7);
    code = mx_adapter_export(&t.trainee->adapter, "base", folder, g->st);
    if (!code) {
        code = mx_adapter_open(folder, &g->arena, &f, g->st);
    }
    if (!code) {
        code = mx_adapter_config_read(mx_adapter_config(f), mx_adapter_config_path(f), &g->arena, &method, &config, g->st);
    }
    if (!code) {
        code = open_trial(g, method, config, &other);
    }
    if (!code) {
        code = mx_adapter_import(&other.trainee->adapter, f, g->st);
    }
    if (!code) {
        size_t bytes = (size_t)t.layout->size[MX_KIND_TRAINED] * sizeof(float);

        a = mx_arena_take(&g->arena, bytes);
        b = mx_arena_take(&g->arena, bytes);
        mx_trainee_read_values(t.trainee, a);
        mx_trainee_read_values(other.trainee, b);
        *changed += method != m || memcmp(a, b, bytes) != 0;
    }
done:
    mx_adapter_close(f);
    mx_trial_close(&other);
    mx_trial_close(&t);
    return code;
}

static mx_code round_trips(gates *g) {
    double changed = 0;

    for (const mx_method *const *m = mx_methods; *m; m++) {
        MX_TRY(round_trip(g, *m, &changed));
    }
    tell(g, "h  saving and loading changes no bit, for every method", changed, 0);
    return MX_OK;
}

mx_code mx_gates_run(const mx_backend_options *options, void (*report)(void *context, const mx_gate_result *r),
                     void *context, mx_status *st) {
    static mx_code (*const all[])(gates * g) = { starts_at_base, forms_agree, equal_experts, router_identities, counts,
                                                 round_trips };
    gates g = { .report = report, .context = context, .st = st };
    mx_backend_options quick = *options;
    mx_trial_shape shape = MX_TRIAL_SHAPE;
    mx_code code;

    quick.threads = quick.threads ? quick.threads : 1;
    mx_arena_init(&g.arena, (size_t)1 << 30);
    code = mx_backend_open(&quick, &g.b, st);
    if (code) {
        goto done;
    }
    shape.biases = true;
    code = mx_trial_base_open(&shape, 3, &g.arena, &g.base, st);
    for (size_t i = 0; !code && i < sizeof all / sizeof *all; i++) {
        code = all[i](&g);
    }
    if (!code && g.failed) {
        code = mx_fail(st, MX_E_CHECK, MX_NOWHERE, "%d equivalences do not hold on this machine", g.failed);
    }
    mx_trial_base_close(&g.base);
    g.b->close(g.b);
done:
    mx_arena_finish(&g.arena);
    return code;
}
