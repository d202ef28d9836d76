/* The default base as a whole: logits and log-likelihoods of eight prompts against float64 (vectors/smollm2).
 *
 * Tolerances are those of the vectors' README for a float32 engine: 1e-3 for logits and their log-sum-exp, 1e-4 per token for
 * the log-likelihood; plain transformers in float32 shows 4e-5 and 5.3e-5. In bf16 everything is reported, and held to what
 * half a unit in the eighth bit, over thirty layers, was measured to do. */
#include "model/hub.h"
#include "model/trial.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct prompts {
    mx_arena arena;
    json_t *json;
    json_t *list;
    mx_base_file *file;
} prompts;

static void open_prompts(prompts *p, size_t most_tokens) {
    const char *root = getenv("MIXRUN_VECTORS");
    mx_hub_base base;
    mx_status st = { 0 };

    mx_arena_init(&p->arena, (size_t)1 << 30);
    if (!root) {
        cr_skip_test("MIXRUN_VECTORS is not set");
    }
    if (mx_hub_resolve("smollm2-135m-instruct", MX_NOWHERE, &p->arena, &base, &st)) {
        cr_skip_test("the default base is not in the cache: %s", st.text);
    }
    cr_assert_eq(mx_json_read(mx_arena_text(&p->arena, "%s/smollm2/expected.json", root), 1 << 24, &p->json, &st), MX_OK,
                 "%s", st.text);
    p->list = json_object_get(p->json, "prompts");
    for (size_t i = json_array_size(p->list); i-- > 0;) { /* for time: the long one is two thirds of all tokens */
        if (json_array_size(json_object_get(json_array_get(p->list, i), "ids")) > most_tokens) {
            json_array_remove(p->list, i);
        }
    }
    cr_assert_geq(json_array_size(p->list), 7);
    cr_assert_eq(mx_base_file_open(base.path, &p->arena, &p->file, &st), MX_OK, "%s", st.text);
}

/* All prompts end to end. For each, its tokens but the first are targets; with `last`, its last row is asked instead. */
static mx_batch pack(prompts *p, bool last) {
    int64_t count = (int64_t)json_array_size(p->list), rows = 0, n = 0;
    mx_segment *segment = MX_TAKE(&p->arena, mx_segment, count);
    mx_sequence *sequence = MX_TAKE(&p->arena, mx_sequence, count);
    mx_span *span = MX_TAKE(&p->arena, mx_span, count);
    int32_t *all[7]; /* token, position, question, task, row_segment, loss_row, loss_target */

    for (int i = 0; i < 7; i++) {
        all[i] = MX_TAKE(&p->arena, int32_t, 4096);
    }
    for (int64_t i = 0; i < count; i++) {
        const json_t *ids = json_object_get(json_array_get(p->list, (size_t)i), "ids");
        int64_t length = (int64_t)json_array_size(ids);

        segment[i] = (mx_segment){ .begin = (int32_t)rows, .count = (int32_t)length };
        span[i].begin = (int32_t)n;
        cr_assert_lt(rows + length, 4096);
        for (int64_t j = 0; j < length; j++, rows++) {
            all[0][rows] = (int32_t)json_integer_value(json_array_get(ids, (size_t)j));
            all[1][rows] = (int32_t)j;
            all[2][rows] = (int32_t)i;
            all[4][rows] = (int32_t)i;
            if (last ? j == length - 1 : j > 0) {
                all[5][n] = (int32_t)(last ? rows : rows - 1);
                all[6][n++] = last ? 0 : all[0][rows];
            }
        }
        span[i].count = (int32_t)n - span[i].begin;
    }
    return (mx_batch){ .rows = rows, .live = rows, .token = all[0], .position = all[1], .question = all[2], .task = all[3],
                       .row_segment = all[4], .segment = segment, .segments = count, .sequence = sequence,
                       .loss_rows = n, .loss_row = all[5], .loss_target = all[6], .span = span, .spans = count };
}

static void compare(mx_precision precision, double logit_tolerance, double token_tolerance) {
    mx_backend_options o = { .device = "cpu", .precision = precision };
    const mx_method *base = mx_method_find("base");
    mx_adapter *list[1];
    mx_pass pass = { 0 };
    mx_model_limits limits;
    mx_status st = { 0 };
    const mx_layout *layout;
    mx_backend *b;
    mx_model *model;
    mx_trainee *t;
    mx_batch every, last;
    float *nll, *logits;
    int64_t vocab;
    double worst_logit = 0, worst_token = 0;
    prompts p;

    open_prompts(&p, precision == MX_PRECISION_F32 ? 1000 : 100);
    every = pack(&p, false);
    last = pack(&p, true);
    limits = (mx_model_limits){ .rows = every.rows, .loss_rows = every.loss_rows, .segments = every.segments,
                                .spans = every.spans, .tasks = 1, .label_logits = true };
    layout = mx_layout_make(base, mx_method_defaults(base, &p.arena), mx_base_file_shape(p.file), &p.arena);
    vocab = mx_base_file_shape(p.file)->vocab;
    cr_assert_eq(mx_backend_open(&o, &b, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_model_open(b, p.file, layout, &limits, &model, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_trainee_open(b, layout, mx_model_frozen(model), false, &t, &st), MX_OK, "%s", st.text);
    list[0] = &t->adapter;
    nll = MX_TAKE(&p.arena, float, every.loss_rows);
    logits = MX_TAKE(&p.arena, float, last.loss_rows * vocab);
    mx_model_forward(model, list, 1, &every, &pass);
    cr_assert_eq(mx_model_nll(model, nll, &st), MX_OK);
    mx_model_forward(model, list, 1, &last, &pass);
    cr_assert_eq(mx_model_label_logits(model, NULL, 0, logits, &st), MX_OK);

    for (int64_t i = 0; i < every.spans; i++) {
        const json_t *one = json_array_get(p.list, (size_t)i), *top = json_object_get(one, "last_top20"), *pair;
        const float *row = logits + i * vocab;
        double sum = 0, likelihood = 0, per_token, off;
        size_t k;

        for (int64_t j = 0; j < every.span[i].count; j++) {
            likelihood -= nll[every.span[i].begin + j];
        }
        per_token = fabs(likelihood - json_number_value(json_object_get(one, "log_likelihood"))) / every.span[i].count;
        worst_token = fmax(worst_token, per_token);
        for (int64_t v = 0; v < vocab; v++) {
            sum += exp((double)row[v]);
        }
        off = fabs(log(sum) - json_number_value(json_object_get(one, "last_logsumexp")));
        json_array_foreach(top, k, pair) {
            off = fmax(off, fabs(row[json_integer_value(json_array_get(pair, 0))] -
                                 json_number_value(json_array_get(pair, 1))));
        }
        worst_logit = fmax(worst_logit, off);
        cr_expect_leq(per_token, token_tolerance, "%s: log-likelihood off by %g per token",
                      json_string_value(json_object_get(one, "name")), per_token);
        cr_expect_leq(off, logit_tolerance, "%s: logits off by %g", json_string_value(json_object_get(one, "name")), off);
    }
    if (getenv("MIXRUN_SHOW")) {
        fprintf(stderr, "smollm2 %s: logits %.2e, log-likelihood per token %.2e\n",
                precision == MX_PRECISION_F32 ? "f32" : "bf16", worst_logit, worst_token);
    }
    mx_trainee_close(t);
    mx_model_close(model);
    b->close(b);
    mx_base_file_close(p.file);
    json_decref(p.json);
    mx_arena_finish(&p.arena);
}

Test(smollm2, agrees_with_float64_in_f32, .timeout = 240) {
    compare(MX_PRECISION_F32, 1e-3, 1e-4);
}

Test(smollm2, is_near_in_bf16, .timeout = 240) {
    compare(MX_PRECISION_BF16, 1.0, 0.05);
}
