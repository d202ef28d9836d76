/* vectors_run.c - computes all that a case's files speak of: logits, hidden states, routing, losses, gradients, steps. */
#include "model/vectors_parts.h"

#include <assert.h>
#include <string.h>

typedef enum which { ANSWERS, ALL, EVERY_ROW } which; /* loss_mask, loss_mask_all, a logit row for each token */

typedef struct run {
    const mx_vectors_set *set;
    const mx_vectors_case *c;
    mx_backend *b;
    mx_model *model;
    mx_trainee *trainee;
    bool packed;
    mx_arena *arena;
    mx_vectors_computed *got;
} run;

/* Sequences [first, first + count) as one micro-batch of the whole set. */
static mx_batch make_batch(const run *r, int64_t first, int64_t count, which mask) {
    const mx_vectors_set *set = r->set;
    int64_t rows = 0, n = 0, at = 0;
    int32_t *token, *position, *question, *task, *row_segment, *loss_row, *loss_target;
    mx_segment *segment = MX_TAKE(r->arena, mx_segment, count);
    mx_sequence *sequence = MX_TAKE(r->arena, mx_sequence, count);
    mx_span *span = MX_TAKE(r->arena, mx_span, count);

    for (int64_t i = 0; i < count; i++) {
        rows += set->sequence[first + i].length;
    }
    token = MX_TAKE(r->arena, int32_t, rows);
    position = MX_TAKE(r->arena, int32_t, rows);
    question = MX_TAKE(r->arena, int32_t, rows);
    task = MX_TAKE(r->arena, int32_t, rows);
    row_segment = MX_TAKE(r->arena, int32_t, rows);
    loss_row = MX_TAKE(r->arena, int32_t, rows);
    loss_target = MX_TAKE(r->arena, int32_t, rows);
    for (int64_t i = 0; i < count; i++) {
        const mx_vectors_sequence *s = &set->sequence[first + i];

        segment[i] = (mx_segment){ .begin = (int32_t)at, .count = (int32_t)s->length };
        sequence[i] = (mx_sequence){ .question = (int32_t)(first + i) };
        span[i] = (mx_span){ .begin = (int32_t)n, .question = (int32_t)i };
        for (int64_t j = 0; j < s->length; j++, at++) {
            bool target = mask == EVERY_ROW || (j + 1 < s->length && s->mask[mask][j + 1]);

            token[at] = s->id[j];
            position[at] = (int32_t)j;
            question[at] = (int32_t)(first + i);
            row_segment[at] = (int32_t)i;
            if (target) {
                loss_row[n] = (int32_t)at;
                loss_target[n++] = mask == EVERY_ROW ? 0 : s->id[j + 1];
            }
        }
        span[i].count = (int32_t)n - span[i].begin;
    }
    return (mx_batch){
        .rows = rows, .live = rows,
        .token = token, .position = position, .question = question, .task = task, .row_segment = row_segment,
        .segment = segment, .segments = count, .sequence = sequence,
        .loss_rows = n, .loss_row = loss_row, .loss_target = loss_target, .span = span, .spans = count,
        .step_loss_tokens = (double)set->targets[mask == ALL], .step_rows = (double)set->rows,
    };
}

static int64_t micro_batches(const run *r) {
    return r->packed ? 1 : r->set->sequences;
}

static mx_batch micro_batch(const run *r, int64_t i, which mask) {
    return r->packed ? make_batch(r, 0, r->set->sequences, mask) : make_batch(r, i, 1, mask);
}

static void forward(const run *r, const mx_batch *batch, const mx_pass *pass) {
    mx_adapter *list[] = { &r->trainee->adapter };

    mx_model_forward(r->model, list, 1, batch, pass);
}

static mx_code losses_of(const run *r, mx_vectors_losses *ret, mx_status *st) {
    mx_numbers n;

    MX_TRY(mx_trainee_numbers(r->trainee, &n, st));
    *ret = (mx_vectors_losses){ .ce = n.loss, .balance = n.balance, .z = n.z };
    return MX_OK;
}

/* Hidden states and routing of a micro-batch whose first row is row `begin` of the set. */
static void look(const run *r, int64_t begin) {
    const mx_shape *s = mx_model_shape(r->model);
    mx_vectors_computed *got = r->got;
    int64_t rows = r->set->rows, e = got->experts;

    for (int64_t i = 0; i <= s->layers; i++) {
        mx_model_read_hidden(r->model, i, got->hidden + (i * rows + begin) * s->hidden);
    }
    for (int64_t i = 0; e && i < s->layers; i++) {
        mx_model_read_router(r->model, i, got->router + (i * rows + begin) * e, got->weight + (i * rows + begin) * e,
                             got->passed + i * rows + begin);
    }
}

/* Sums of nll by sequence; `nll` in order of the micro-batch's loss rows. */
static void add_nll(const run *r, int64_t micro, const mx_batch *batch, const float *nll) {
    for (int64_t i = 0; i < batch->spans; i++) {
        for (int64_t j = 0; j < batch->span[i].count; j++) {
            r->got->nll[(r->packed ? 0 : micro) + i] += nll[batch->span[i].begin + j];
        }
    }
}

/* What the router losses alone pull at: through later layers too, so it takes a backward pass of its own. */
static void router_loss_gradient(const run *r) {
    mx_pass pass = { .training = true, .router_losses_alone = true };

    mx_trainee_begin(r->trainee);
    for (int64_t i = 0; i < micro_batches(r); i++) {
        mx_batch batch = micro_batch(r, i, ANSWERS);

        forward(r, &batch, &pass);
        mx_model_losses(r->model, r->trainee->numbers);
        mx_model_backward(r->model);
    }
    mx_trainee_finish_gradient(r->trainee);
    mx_trainee_read_gradient(r->trainee, r->got->aux);
}

/* One round of forward, losses and backward over all micro-batches; the first one is looked at. */
static mx_code round_of(const run *r, bool first, mx_status *st) {
    const mx_shape *s = mx_model_shape(r->model);
    mx_pass pass = { .training = true, .input_gradient = first };
    float *nll = MX_TAKE(r->arena, float, r->set->rows);

    mx_trainee_begin(r->trainee);
    for (int64_t i = 0; i < micro_batches(r); i++) {
        mx_batch batch = micro_batch(r, i, ANSWERS);
        int64_t begin = r->packed ? 0 : r->set->sequence[i].begin;

        forward(r, &batch, &pass);
        if (first) {
            look(r, begin);
            MX_TRY(mx_model_nll(r->model, nll, st));
            add_nll(r, i, &batch, nll);
        }
        mx_model_losses(r->model, r->trainee->numbers);
        mx_model_backward(r->model);
        if (first) {
            mx_model_read_input_gradient(r->model, r->got->input_gradient + begin * s->hidden);
        }
    }
    return MX_OK;
}

/* Losses alone, under the other mask. */
static mx_code losses_of_all_tokens(const run *r, mx_status *st) {
    mx_pass pass = { .training = true };

    mx_trainee_begin(r->trainee);
    for (int64_t i = 0; i < micro_batches(r); i++) {
        mx_batch batch = micro_batch(r, i, ALL);

        forward(r, &batch, &pass);
        mx_model_losses(r->model, r->trainee->numbers);
    }
    return losses_of(r, &r->got->loss_all, st);
}

/* The shown sequence's logits, by the pass that evaluation uses, and the load its routers leave behind. */
static mx_code shown_logits(const run *r, mx_status *st) {
    int64_t vocab = mx_model_shape(r->model)->vocab, shown = r->c->shown;
    mx_pass pass = { .count_pairs = true };

    for (int64_t i = 0; i < micro_batches(r); i++) {
        mx_batch batch = micro_batch(r, i, EVERY_ROW);
        float *logits;

        forward(r, &batch, &pass);
        if (!r->packed && i != shown) {
            continue;
        }
        logits = MX_TAKE(r->arena, float, batch.rows * vocab);
        MX_TRY(mx_model_label_logits(r->model, NULL, 0, logits, st));
        r->got->logits = logits + (r->packed ? r->set->sequence[shown].begin * vocab : 0);
    }
    mx_model_init_load(r->model, &r->got->load);
    return mx_model_read_load(r->model, &r->got->load, st);
}

static mx_code steps(const run *r, mx_status *st) {
    for (int64_t s = 0; s <= r->c->steps; s++) {
        MX_TRY(round_of(r, s == 0, st));
        MX_TRY(losses_of(r, s == 0 ? &r->got->loss : &r->got->after[s - 1], st));
        if (s == r->c->steps) {
            if (s == 0) { /* no step to take: only the gradient */
                mx_trainee_finish_gradient(r->trainee);
                mx_trainee_read_gradient(r->trainee, r->got->gradient);
            }
            break;
        }
        mx_trainee_end(r->trainee);
        if (s == 0) {
            mx_trainee_read_gradient(r->trainee, r->got->gradient); /* the optimizer leaves it as it is */
        }
        if (!r->got->comparable) { /* nothing that follows would be compared */
            break;
        }
    }
    return MX_OK;
}

/* The starting values, exactly as stored. */
static mx_code read_start(const run *r, mx_status *st) {
    const mx_layout *l = r->got->layout;
    float *host = MX_TAKE(r->arena, float, l->size[MX_KIND_TRAINED] + 1);

    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        for (int64_t p = 0; d->kind == MX_KIND_TRAINED && p < d->parts; p++) {
            const char *name = mx_layout_name(l, d, p, r->arena);
            const mx_safetensor *t = mx_safetensors_find(r->c->values, name);

            if (!t || t->type != MX_FILE_F32 || t->rank != d->rank || t->dim[0] != d->dim[0] ||
                (d->rank == 2 && t->dim[1] != d->dim[1])) {
                return mx_fail(st, MX_E_DATA, (mx_mark){ .file = r->c->values_path },
                               "no starting value '%s' of %lld x %lld f32", name, (long long)d->dim[0],
                               (long long)d->dim[1]);
            }
            memcpy(host + d->offset + p * d->dim[0] * d->dim[1], t->bytes, t->size);
        }
    }
    mx_trainee_write_values(r->trainee, host);
    return MX_OK;
}

static bool has_router_losses(const mx_vectors_case *c) {
    double balance = 0, z = 0;

    if (c->method->coefficients) {
        c->method->coefficients(c->config, &balance, &z);
    }
    return balance != 0 || z != 0;
}

static void make_room(const run *r) {
    const mx_shape *s = mx_base_file_shape(r->set->base);
    mx_vectors_computed *got = r->got;
    int64_t rows = r->set->rows, e = got->experts;

    got->hidden = MX_TAKE(r->arena, float, (s->layers + 1) * rows * s->hidden);
    got->router = MX_TAKE(r->arena, float, s->layers * rows * e + 1);
    got->weight = MX_TAKE(r->arena, float, s->layers * rows * e + 1);
    got->passed = MX_TAKE(r->arena, float, s->layers * rows + 1);
    got->gradient = MX_TAKE(r->arena, float, got->layout->size[MX_KIND_TRAINED] + 1);
    got->aux = MX_TAKE(r->arena, float, got->layout->size[MX_KIND_TRAINED] + 1);
    got->input_gradient = MX_TAKE(r->arena, float, rows * s->hidden);
    got->nll = MX_TAKE(r->arena, double, r->set->sequences);
    got->after = MX_TAKE(r->arena, mx_vectors_losses, r->c->steps + 1);
}

mx_code mx_vectors_compute(mx_backend *b, const mx_vectors_set *set, const mx_vectors_case *c, bool packed,
                           mx_arena *arena, mx_vectors_computed *ret, mx_status *st) {
    run r = { .set = set, .c = c, .b = b, .packed = packed, .arena = arena, .got = ret };
    mx_model_limits limits = { .rows = set->rows, .loss_rows = set->rows, .segments = set->sequences,
                               .spans = set->sequences, .tasks = 1, .training = true, .label_logits = true };
    mx_code code;

    ret->layout = mx_layout_make(c->method, c->config, mx_base_file_shape(set->base), arena);
    ret->experts = mx_method_experts(c->method, c->config);
    ret->comparable = packed || !has_router_losses(c) || set->sequences == 1;
    make_room(&r);
    code = mx_model_open(b, set->base, ret->layout, &limits, &r.model, st);
    if (code) {
        goto done;
    }
    code = mx_trainee_open(b, ret->layout, mx_model_frozen(r.model), true, &r.trainee, st);
    if (code) {
        goto done;
    }
    r.trainee->optimizer = c->optimizer;
    r.trainee->schedule = (mx_schedule){ .kind = MX_SCHEDULE_CONSTANT, .peak = c->lr, .steps = c->steps };
    code = read_start(&r, st);
    if (code) {
        goto done;
    }
    code = shown_logits(&r, st);
    if (code) {
        goto done;
    }
    code = losses_of_all_tokens(&r, st);
    if (code) {
        goto done;
    }
    if (ret->experts) {
        router_loss_gradient(&r);
    }
    code = steps(&r, st);
done:
    mx_trainee_close(r.trainee);
    mx_model_close(r.model);
    return code;
}
