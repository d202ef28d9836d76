/* trial.c - see trial.h. */
#include "model/trial.h"

#include "base/file.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ a base */

typedef struct writer {
    mx_arena *arena;
    mx_named_values list[512];
    size_t count;
    uint64_t seed;
} writer;

/* Normal values of this deviation around `mean`. */
static void add(writer *w, const char *name, int64_t rows, int64_t columns, double mean, double deviation) {
    mx_named_values *v = &w->list[w->count++];
    float *data = MX_TAKE(w->arena, float, rows * columns);
    mx_rng rng;

    assert(w->count < sizeof w->list / sizeof *w->list);
    mx_rng_init(&rng, w->seed, name);
    for (int64_t i = 0; i < rows * columns; i++) {
        data[i] = (float)(mean + deviation * mx_rng_normal(&rng));
    }
    *v = (mx_named_values){ .name = name, .rank = columns == 1 ? 1 : 2, .dim = { rows, columns, 1, 1 }, .data = data };
}

static void add_layer(writer *w, const mx_trial_shape *s, const mx_shape *shape, int64_t layer) {
    for (int k = 0; k < MX_SITES; k++) {
        int64_t out, in;

        mx_site_size(shape, (mx_site)k, &out, &in);
        add(w, mx_arena_text(w->arena, "model.layers.%lld.%s.weight", (long long)layer, mx_site_module((mx_site)k)), out,
            in, 0, 1.2 / sqrt((double)in));
        if (s->biases) {
            add(w, mx_arena_text(w->arena, "model.layers.%lld.%s.bias", (long long)layer, mx_site_module((mx_site)k)),
                out, 1, 0, 0.1);
        }
    }
    add(w, mx_arena_text(w->arena, "model.layers.%lld.input_layernorm.weight", (long long)layer), s->hidden, 1, 1, 0.1);
    add(w, mx_arena_text(w->arena, "model.layers.%lld.post_attention_layernorm.weight", (long long)layer), s->hidden, 1, 1,
        0.1);
}

static mx_code write_base(const mx_trial_shape *s, uint64_t seed, mx_arena *arena, const char *folder, mx_status *st) {
    mx_shape shape = { .hidden = s->hidden, .inner = s->inner, .layers = s->layers, .heads = s->heads,
                       .kv_heads = s->kv_heads, .head_dim = s->head_dim, .vocab = s->vocab };
    writer *w = MX_TAKE(arena, writer, 1);
    const char *config = mx_arena_text(
        arena,
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": \"silu\", "
        "\"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_hidden_layers\": %lld, \"num_attention_heads\": %lld, "
        "\"num_key_value_heads\": %lld, \"head_dim\": %lld, \"vocab_size\": %lld, \"rms_norm_eps\": 1e-5, "
        "\"rope_theta\": 10000.0, \"max_position_embeddings\": 512, \"attention_bias\": %s, \"mlp_bias\": %s, "
        "\"tie_word_embeddings\": %s}\n",
        (long long)s->hidden, (long long)s->inner, (long long)s->layers, (long long)s->heads, (long long)s->kv_heads,
        (long long)s->head_dim, (long long)s->vocab, s->biases ? "true" : "false", s->biases ? "true" : "false",
        s->tied ? "true" : "false");

    *w = (writer){ .arena = arena, .seed = seed };
    add(w, "model.embed_tokens.weight", s->vocab, s->hidden, 0, 0.5);
    add(w, "model.norm.weight", s->hidden, 1, 1, 0.1);
    if (!s->tied) {
        add(w, "lm_head.weight", s->vocab, s->hidden, 0, 0.3);
    }
    for (int64_t i = 0; i < s->layers; i++) {
        add_layer(w, s, &shape, i);
    }
    MX_TRY(mx_file_write(mx_arena_text(arena, "%s/config.json", folder), config, strlen(config), st));
    return mx_safetensors_write(mx_arena_text(arena, "%s/model.safetensors", folder), w->list, w->count, NULL, st);
}

mx_code mx_trial_base_open(const mx_trial_shape *s, uint64_t seed, mx_arena *arena, mx_trial_base *ret, mx_status *st) {
    const char *root = getenv("TMPDIR");
    mx_code code;

    *ret = (mx_trial_base){ 0 };
    snprintf(ret->folder, sizeof ret->folder, "%.200s/mixrun-trial-XXXXXX", root ? root : "/tmp");
    if (!mkdtemp(ret->folder)) {
        code = mx_fail(st, MX_E_IO, (mx_mark){ .file = root ? root : "/tmp" }, "no folder can be made here");
        ret->folder[0] = 0;
        return code;
    }
    code = write_base(s, seed, arena, ret->folder, st);
    if (!code) {
        code = mx_base_file_open(ret->folder, arena, &ret->file, st);
    }
    if (code) {
        mx_trial_base_close(ret);
    }
    return code;
}

void mx_trial_base_close(mx_trial_base *b) {
    mx_base_file_close(b->file);
    if (b->folder[0] && mx_folder_remove(b->folder, NULL)) {
        /* a folder of kilobytes stays behind in the temporary directory; nothing depends on it */
    }
    *b = (mx_trial_base){ 0 };
}

/* ------------------------------------------------------------------ model and trainee */

enum { ROWS_MAX = 512, SEGMENTS_MAX = 64, TASKS_MAX = 3 };

mx_code mx_trial_open(mx_backend *b, const mx_trial_base *base, const mx_method *m, const void *config, bool training,
                      mx_arena *arena, mx_trial *ret, mx_status *st) {
    mx_model_limits limits = { .rows = ROWS_MAX, .loss_rows = ROWS_MAX, .segments = SEGMENTS_MAX,
                               .spans = SEGMENTS_MAX, .questions = SEGMENTS_MAX, .tasks = TASKS_MAX,
                               .training = training, .label_logits = true };
    mx_code code;

    *ret = (mx_trial){ .b = b, .arena = arena };
    ret->layout = mx_layout_make(m, config, mx_base_file_shape(base->file), arena);
    code = mx_model_open(b, base->file, ret->layout, &limits, &ret->model, st);
    if (!code) {
        code = mx_trainee_open(b, ret->layout, mx_model_frozen(ret->model), training, &ret->trainee, st);
    }
    if (!code) {
        code = mx_trainee_start(ret->trainee, 1, st);
    }
    if (code) {
        mx_trial_close(ret);
    }
    return code;
}

void mx_trial_close(mx_trial *t) {
    mx_trainee_close(t->trainee);
    mx_model_close(t->model);
    *t = (mx_trial){ 0 };
}

void mx_trial_shake(mx_trial *t, uint64_t seed) {
    const mx_layout *l = t->layout;
    float *value = calloc((size_t)l->size[MX_KIND_TRAINED] + 1, sizeof *value);
    mx_rng rng;

    assert(value);
    mx_trainee_read_values(t->trainee, value);
    mx_rng_init(&rng, seed, "shake");
    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        for (int64_t j = 0; d->kind == MX_KIND_TRAINED && j < d->count; j++) {
            float *v = &value[d->offset + j];
            double spread = d->router ? 0.4 : *v == 0 ? 0.1 : 0.04 * fabs(*v);

            *v += (float)(spread * mx_rng_normal(&rng));
        }
    }
    mx_trainee_write_values(t->trainee, value);
    free(value);
}

void mx_trial_copy(mx_trial *to, const mx_trial *from) {
    const mx_layout *l = to->layout;
    float *a = calloc((size_t)from->layout->size[MX_KIND_TRAINED] + 1, sizeof *a);
    float *b = calloc((size_t)l->size[MX_KIND_TRAINED] + 1, sizeof *b);

    assert(a && b);
    mx_trainee_read_values(from->trainee, a);
    mx_trainee_read_values(to->trainee, b);
    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];
        const mx_declaration *s = mx_layout_find(from->layout, d->scope, d->layer, d->site, d->role);
        int64_t n = d->dim[0] * d->dim[1];

        for (int64_t p = 0; d->kind == MX_KIND_TRAINED && s && p < d->parts; p++) {
            assert(s->dim[0] * s->dim[1] == n);
            memcpy(b + d->offset + p * n, a + s->offset + (s->parts == d->parts ? p * n : 0), (size_t)n * sizeof *a);
        }
    }
    mx_trainee_write_values(to->trainee, b);
    free(b);
    free(a);
}

/* ------------------------------------------------------------------ batches */

/* Lengths and tokens are functions of (seed, question, choice), so every way of batching sees the same texts. */
static int64_t context_length(const mx_trial_questions *q, int64_t i) {
    return 5 + (int64_t)(q->seed + 3 * (uint64_t)i) % 7;
}

static int64_t choice_length(const mx_trial_questions *q, int64_t i, int64_t c) {
    return 1 + (int64_t)(q->seed + 5 * (uint64_t)i + 2 * (uint64_t)c) % 5;
}

static int32_t token_at(const mx_trial_questions *q, int64_t i, int64_t c, int64_t position, int64_t vocab) {
    char name[64];
    mx_rng rng;

    snprintf(name, sizeof name, "%lld.%lld.%lld", (long long)i, (long long)c, (long long)position);
    mx_rng_init(&rng, q->seed, name);
    return (int32_t)mx_rng_below(&rng, (uint64_t)vocab);
}

typedef struct maker {
    const mx_trial_questions *q;
    mx_batch *b;
    int32_t *token, *position, *question, *task, *row_segment, *loss_row, *loss_target, *gold, *first_span;
    mx_segment *segment;
    mx_sequence *sequence;
    mx_span *span;
    int64_t vocab;
} maker;

/* Rows of one text: tokens from `from` on; choice -1: the context. */
static void add_rows(maker *m, int64_t i, int64_t choice, int64_t from, int64_t count) {
    mx_batch *b = m->b;

    for (int64_t j = 0; j < count; j++) {
        m->token[b->live] = token_at(m->q, i, choice, from + j, m->vocab);
        m->position[b->live] = (int32_t)(from + j);
        m->question[b->live] = (int32_t)(100 + i);
        m->task[b->live] = (int32_t)i % m->q->tasks;
        m->row_segment[b->live] = (int32_t)b->segments;
        b->live++;
    }
}

static void close_segment(maker *m, int64_t i, int64_t choice, int64_t begin, const mx_segment *prefix) {
    mx_batch *b = m->b;

    m->segment[b->segments] = (mx_segment){ .begin = (int32_t)begin, .count = (int32_t)(b->live - begin),
                                            .prefix_begin = prefix ? prefix->begin : 0,
                                            .prefix_count = prefix ? prefix->count : 0 };
    m->sequence[b->segments++] = (mx_sequence){ .task = (int32_t)i % m->q->tasks, .question = (int32_t)(100 + i),
                                                .choice = (int32_t)choice };
}

/* The choice's tokens are predicted by the context's last row and the choice's own rows but the last. */
static void add_targets(maker *m, int64_t i, int64_t question, int64_t choice, int64_t last_of_context, int64_t first_own,
                        int64_t length, int64_t context) {
    mx_batch *b = m->b;

    m->span[b->spans++] = (mx_span){ .begin = (int32_t)b->loss_rows, .count = (int32_t)length,
                                     .question = (int32_t)question, .choice = (int32_t)choice };
    for (int64_t j = 0; j < length; j++) {
        m->loss_row[b->loss_rows] = (int32_t)(j ? first_own + j - 1 : last_of_context);
        m->loss_target[b->loss_rows++] = token_at(m->q, i, choice, context + j, m->vocab);
    }
}

static void add_question(maker *m, int64_t i, int64_t question, bool shared, const mx_segment *prefix) {
    int64_t context = context_length(m->q, i);

    for (int64_t c = 0; c < m->q->choices; c++) {
        int64_t length = choice_length(m->q, i, c), begin = m->b->live;

        if (!shared) {
            add_rows(m, i, -1, 0, context);
        }
        add_rows(m, i, c, context, length);
        add_targets(m, i, question, c, shared ? prefix->begin + prefix->count - 1 : begin + context - 1,
                    m->b->live - length, length, context);
        close_segment(m, i, c, begin, shared ? prefix : NULL);
    }
}

static int64_t rows_of(const mx_trial_questions *q, int64_t i, bool shared) {
    int64_t rows = shared ? context_length(q, i) : q->choices * context_length(q, i);

    for (int64_t c = 0; c < q->choices; c++) {
        rows += choice_length(q, i, c);
    }
    return rows;
}

mx_batch mx_trial_batch(const mx_trial_questions *q, const mx_trial *t, int64_t first, int64_t count, bool shared,
                        mx_arena *arena) {
    mx_batch b = { .questions = count };
    maker m = { .q = q, .b = &b, .vocab = mx_model_shape(t->model)->vocab };

    m.token = MX_TAKE(arena, int32_t, ROWS_MAX);
    m.position = MX_TAKE(arena, int32_t, ROWS_MAX);
    m.question = MX_TAKE(arena, int32_t, ROWS_MAX);
    m.task = MX_TAKE(arena, int32_t, ROWS_MAX);
    m.row_segment = MX_TAKE(arena, int32_t, ROWS_MAX);
    m.loss_row = MX_TAKE(arena, int32_t, ROWS_MAX);
    m.loss_target = MX_TAKE(arena, int32_t, ROWS_MAX);
    m.gold = MX_TAKE(arena, int32_t, count);
    m.first_span = MX_TAKE(arena, int32_t, count + 1);
    m.segment = MX_TAKE(arena, mx_segment, SEGMENTS_MAX);
    m.sequence = MX_TAKE(arena, mx_sequence, SEGMENTS_MAX);
    m.span = MX_TAKE(arena, mx_span, SEGMENTS_MAX);
    for (int64_t i = 0; i < count && shared; i++) { /* prefixes come before what reads them */
        int64_t begin = b.live;

        add_rows(&m, first + i, -1, 0, context_length(q, first + i));
        close_segment(&m, first + i, -1, begin, NULL);
    }
    for (int64_t i = 0; i < count; i++) {
        m.gold[i] = (int32_t)((first + i) % q->choices);
        m.first_span[i] = (int32_t)b.spans;
        add_question(&m, first + i, i, shared, &m.segment[i]);
    }
    m.first_span[count] = (int32_t)b.spans;
    assert(b.live <= ROWS_MAX && b.segments <= SEGMENTS_MAX && b.loss_rows <= ROWS_MAX);
    b.rows = b.live;
    b.token = m.token;
    b.position = m.position;
    b.question = m.question;
    b.task = m.task;
    b.row_segment = m.row_segment;
    b.segment = m.segment;
    b.sequence = m.sequence;
    b.loss_row = m.loss_row;
    b.loss_target = m.loss_target;
    b.span = m.span;
    b.gold = m.gold;
    b.first_span = m.first_span;
    b.step_questions = (double)q->questions;
    for (int64_t i = 0; i < q->questions; i++) {
        b.step_rows += (double)rows_of(q, i, shared);
        for (int64_t c = 0; c < q->choices; c++) {
            b.step_loss_tokens += (double)choice_length(q, i, c);
        }
    }
    return b;
}

/* ------------------------------------------------------------------ passes */

mx_code mx_trial_scores(mx_trial *t, const mx_batch *batch, float *ret, mx_status *st) {
    mx_adapter *list[] = { &t->trainee->adapter };
    mx_pass pass = { .count_pairs = true };

    mx_model_forward(t->model, list, 1, batch, &pass);
    return mx_model_nll(t->model, ret, st);
}

mx_code mx_trial_step(mx_trial *t, const mx_batch *batch, int64_t batches, const mx_pass *pass, mx_numbers *ret,
                      float *gradient, mx_status *st) {
    mx_adapter *list[] = { &t->trainee->adapter };

    mx_trainee_begin(t->trainee);
    for (int64_t i = 0; i < batches; i++) {
        mx_model_forward(t->model, list, 1, &batch[i], pass);
        mx_model_losses(t->model, t->trainee->numbers);
        if (gradient) {
            mx_model_backward(t->model);
        }
    }
    if (gradient) {
        mx_trainee_finish_gradient(t->trainee);
        mx_trainee_read_gradient(t->trainee, gradient);
    }
    return mx_trainee_numbers(t->trainee, ret, st);
}

double mx_trial_difference(const float *a, const float *b, int64_t n) {
    double difference = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - b[i];

        difference += d * d;
        norm += (double)b[i] * b[i];
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}
