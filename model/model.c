/* model.c - opening a model, and its passes. */
#include "model/model_parts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ the plan */

static void set_up(mx_model *m, mx_backend *b, const mx_shape *shape, const mx_layout *layout,
                   const mx_model_limits *limits) {
    const mx_method *method = layout->method;

    assert(limits->rows > 0 && limits->segments > 0 && limits->tasks > 0 && limits->loss_rows > 0);
    *m = (mx_model){ .b = b, .shape = *shape, .layout = layout, .limits = *limits };
    m->experts = mx_method_experts(method, layout->config);
    m->slots = m->experts ? method->slots(layout->config) : 0;
    mx_model_plan(m);
}

static const char *tensor_name(char name[96], int64_t layer, mx_site site, const char *what) {
    snprintf(name, 96, "model.layers.%lld.%s.%s", (long long)layer, mx_site_module(site), what);
    return name;
}

/* Bytes of matrices; `shared` grows to what the hungriest group needs of the place they share. */
static size_t matrix_bytes(const mx_backend *b, const mx_base_file *f, const char *name, unsigned use, size_t *shared) {
    mx_weight_room none = { 0 };
    mx_weight_source w;
    size_t also;

    mx_base_file_find(f, name, &w);
    also = b->weights_shared_bytes(b, &w, 1, none, use);
    *shared = also > *shared ? also : *shared;
    return b->weights_bytes(b, &w, 1, none, use);
}

static size_t group_bytes(const mx_model *m, const mx_base_file *f, int64_t layer, mx_linear_group group, size_t *shared) {
    mx_weight_room room = m->plan.room[group];
    int count = mx_group_count(group);
    size_t also;
    mx_weight_source w[MX_WEIGHT_GROUP];
    char name[96];

    for (int i = 0; i < count; i++) {
        mx_base_file_find(f, tensor_name(name, layer, (mx_site)(mx_group_first(group) + i), "weight"), &w[i]);
    }
    also = m->b->weights_shared_bytes(m->b, w, count, room, MX_USE_LINEAR);
    *shared = also > *shared ? also : *shared;
    return m->b->weights_bytes(m->b, w, count, room, MX_USE_LINEAR);
}

/* Of all that is frozen, without and with what groups share. */
static void weights_bytes(const mx_model *m, const mx_base_file *file, size_t *ret_own, size_t *ret_shared) {
    const mx_shape *shape = &m->shape;
    size_t own = m->plan.vectors_bytes, shared = 0;

    for (int64_t i = 0; i < shape->layers; i++) {
        for (int g = 0; g < MX_GROUPS; g++) {
            own += group_bytes(m, file, i, (mx_linear_group)g, &shared);
        }
    }
    own += matrix_bytes(m->b, file, "model.embed_tokens.weight",
                        shape->tied_head ? MX_USE_EMBEDDING | MX_USE_LINEAR : MX_USE_EMBEDDING, &shared);
    if (!shape->tied_head) {
        own += matrix_bytes(m->b, file, "lm_head.weight", MX_USE_LINEAR, &shared);
    }
    *ret_own = own;
    *ret_shared = shared;
}

const char *mx_model_bytes(const mx_backend *b, const mx_base_file *file, const mx_layout *layout,
                           const mx_model_limits *limits, size_t ret[MX_MEMORY_PURPOSES]) {
    size_t own, shared;
    mx_model m;

    set_up(&m, (mx_backend *)b, mx_base_file_shape(file), layout, limits); /* only asked for sizes */
    memset(ret, 0, MX_MEMORY_PURPOSES * sizeof *ret);
    ret[MX_MEMORY_SAVED] = m.plan.saved_bytes;
    ret[MX_MEMORY_SCRATCH] = m.plan.scratch_bytes;
    ret[MX_MEMORY_BATCH] = m.plan.batch_bytes;
    weights_bytes(&m, file, &own, &shared);
    ret[MX_MEMORY_WEIGHTS] = own + shared;
    return m.plan.slow;
}

/* ------------------------------------------------------------------ opening */

static mx_code open_matrix(mx_model *m, const mx_base_file *f, const char *name, unsigned use, mx_weight **ret,
                           mx_status *st) {
    mx_weight_source w;

    MX_TRY(mx_base_file_weight(f, name, &w, st));
    return mx_weight_open(m->b, &w, use, ret, st);
}

static mx_code open_group(mx_model *m, const mx_base_file *f, int64_t layer, mx_linear_group group, mx_status *st) {
    mx_weight_source w[MX_WEIGHT_GROUP];
    int first = (int)mx_group_first(group), count = mx_group_count(group);
    char name[96];

    for (int i = 0; i < count; i++) {
        MX_TRY(mx_base_file_weight(f, tensor_name(name, layer, (mx_site)(first + i), "weight"), &w[i], st));
    }
    return m->b->weights_open(m->b, w, count, m->plan.room[group], MX_USE_LINEAR, &m->linear[layer * MX_SITES + first], st);
}

static mx_code open_matrices(mx_model *m, const mx_base_file *f, mx_status *st) {
    for (int64_t i = 0; i < m->shape.layers; i++) {
        for (int g = 0; g < MX_GROUPS; g++) {
            MX_TRY(open_group(m, f, i, (mx_linear_group)g, st));
        }
    }
    if (m->shape.tied_head) {
        MX_TRY(open_matrix(m, f, "model.embed_tokens.weight", MX_USE_EMBEDDING | MX_USE_LINEAR, &m->embedding, st));
        m->head = m->embedding;
        return MX_OK;
    }
    MX_TRY(open_matrix(m, f, "model.embed_tokens.weight", MX_USE_EMBEDDING, &m->embedding, st));
    return open_matrix(m, f, "lm_head.weight", MX_USE_LINEAR, &m->head, st);
}

/* Reads n values into host memory that mirrors the device's, and says where on the device they will be. */
static mx_code add_vector(mx_model *m, const mx_base_file *f, const char *name, int64_t n, float *host, size_t *used,
                          float **ret, mx_status *st) {
    MX_TRY(mx_base_file_vector(f, name, host + *used / 4, n, st));
    *ret = m->vectors + *used / 4;
    *used += ((size_t)n * 4 + 63) / 64 * 64;
    return MX_OK;
}

static mx_code read_vectors(mx_model *m, const mx_base_file *f, float *host, mx_status *st) {
    const mx_shape *s = &m->shape;
    size_t used = 0;
    char name[96];

    MX_TRY(add_vector(m, f, "model.norm.weight", s->hidden, host, &used, &m->final_norm, st));
    mx_shape_rope_inverse(s, host + used / 4);
    m->rope_inverse = m->vectors + used / 4;
    used += ((size_t)(s->head_dim / 2) * 4 + 63) / 64 * 64;
    for (int64_t i = 0; i < s->layers; i++) {
        snprintf(name, sizeof name, "model.layers.%lld.input_layernorm.weight", (long long)i);
        MX_TRY(add_vector(m, f, name, s->hidden, host, &used, &m->norm1[i], st));
        snprintf(name, sizeof name, "model.layers.%lld.post_attention_layernorm.weight", (long long)i);
        MX_TRY(add_vector(m, f, name, s->hidden, host, &used, &m->norm2[i], st));
        for (int k = 0; k < MX_SITES; k++) {
            int64_t out, in;

            mx_site_size(s, (mx_site)k, &out, &in);
            if (mx_site_has_bias(s, (mx_site)k)) {
                MX_TRY(add_vector(m, f, tensor_name(name, i, (mx_site)k, "bias"), out, host, &used,
                                  &m->bias[i * MX_SITES + k], st));
            }
        }
    }
    assert(used == m->plan.vectors_bytes);
    m->b->write(m->b, m->vectors, host, used);
    return MX_OK;
}

static mx_code open_vectors(mx_model *m, const mx_base_file *f, mx_status *st) {
    float *host = calloc(1, m->plan.vectors_bytes);
    mx_code code;

    if (!host) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for norm weights");
    }
    code = m->b->alloc(m->b, MX_MEMORY_WEIGHTS, m->plan.vectors_bytes, (void **)&m->vectors, st);
    if (!code) {
        code = read_vectors(m, f, host, st);
    }
    free(host);
    return code;
}

/* Hundreds of matrices in one allocation of the device, which rounds each to its alignment. */
static mx_code reserve(mx_model *m, const mx_base_file *file, mx_status *st) {
    enum { ROUNDING = 512 };
    size_t own, shared;

    weights_bytes(m, file, &own, &shared);
    return m->b->reserve(m->b, MX_MEMORY_WEIGHTS, own + (size_t)(m->shape.layers * MX_SITES + 3) * ROUNDING, st);
}

mx_code mx_model_open(mx_backend *b, const mx_base_file *file, const mx_layout *layout,
                      const mx_model_limits *limits, mx_model **ret, mx_status *st) {
    const mx_shape *shape = mx_base_file_shape(file);
    mx_model *m = malloc(sizeof *m);
    size_t sites = (size_t)shape->layers * MX_SITES, layers = (size_t)shape->layers;
    mx_code code;

    *ret = NULL;
    if (!m) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for the model's table");
    }
    set_up(m, b, shape, layout, limits);
    m->linear = calloc(sites, sizeof *m->linear);
    m->bias = calloc(sites, sizeof *m->bias);
    m->norm1 = calloc(layers, sizeof *m->norm1);
    m->norm2 = calloc(layers, sizeof *m->norm2);
    if (!m->linear || !m->bias || !m->norm1 || !m->norm2) {
        code = mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for the model's table");
        goto done;
    }
    m->frozen.weight = (const mx_weight *const *)m->linear;
    code = reserve(m, file, st);
    if (code) {
        goto done;
    }
    code = open_vectors(m, file, st);
    if (code) {
        goto done;
    }
    code = open_matrices(m, file, st);
    if (code) {
        goto done;
    }
    code = b->alloc(b, MX_MEMORY_SAVED, m->plan.saved_bytes, (void **)&m->saved, st);
    if (code) {
        goto done;
    }
    code = b->alloc(b, MX_MEMORY_SCRATCH, m->plan.scratch_bytes, (void **)&m->scratch, st);
    if (code) {
        goto done;
    }
    code = b->alloc(b, MX_MEMORY_BATCH, m->plan.batch_bytes, (void **)&m->batch, st);
    if (code) {
        goto done;
    }
    b->ops->scratch(b, mx_scratch_at(m, m->plan.ops), m->plan.ops_bytes);
    *ret = m;
    m = NULL;
done:
    mx_model_close(m);
    return code;
}

void mx_model_close(mx_model *m) {
    if (!m) {
        return;
    }
    m->b->release(m->b, MX_MEMORY_BATCH, m->batch);
    m->b->release(m->b, MX_MEMORY_SCRATCH, m->scratch);
    m->b->release(m->b, MX_MEMORY_SAVED, m->saved);
    if (m->head != m->embedding) {
        m->b->weight_close(m->b, m->head);
    }
    m->b->weight_close(m->b, m->embedding);
    for (int64_t i = 0; m->linear && i < m->shape.layers * MX_SITES; i++) {
        m->b->weight_close(m->b, m->linear[i]);
    }
    m->b->release(m->b, MX_MEMORY_WEIGHTS, m->vectors);
    free(m->norm2);
    free(m->norm1);
    free(m->bias);
    free(m->linear);
    free(m);
}

const mx_shape *mx_model_shape(const mx_model *m) {
    return &m->shape;
}

const mx_frozen *mx_model_frozen(const mx_model *m) {
    return &m->frozen;
}

mx_backend *mx_model_backend(const mx_model *m) {
    return m->b;
}

/* ------------------------------------------------------------------ passes */

static void *put(mx_model *m, size_t offset, const void *from, int64_t count, size_t size) {
    void *to = m->batch + offset;

    if (count) {
        m->b->write(m->b, to, from, (size_t)count * size);
    }
    return to;
}

static void take_batch(mx_model *m, const mx_batch *batch) {
    const mx_memory_plan *p = &m->plan;
    const mx_model_limits *lim = &m->limits;

    assert(batch->rows <= lim->rows && batch->live <= batch->rows && batch->live > 0);
    assert(batch->segments <= lim->segments && batch->loss_rows <= lim->loss_rows);
    assert(batch->spans <= lim->spans && batch->questions <= lim->questions);
    m->rows = (mx_rows){
        .rows = batch->rows,
        .live = batch->live,
        .token = put(m, p->token, batch->token, batch->rows, 4),
        .position = put(m, p->position, batch->position, batch->rows, 4),
        .question = put(m, p->question, batch->question, batch->rows, 4),
        .task = put(m, p->task, batch->task, batch->rows, 4),
        .segment = put(m, p->segment, batch->segment, batch->segments, sizeof(mx_segment)),
        .segments = batch->segments,
        .row_segment = put(m, p->row_segment, batch->row_segment, batch->rows, 4),
    };
    (void)put(m, p->loss_row, batch->loss_row, batch->loss_rows, 4);
    (void)put(m, p->loss_target, batch->loss_target, batch->loss_rows, 4);
    (void)put(m, p->span, batch->span, batch->spans, sizeof(mx_span));
    if (batch->questions) {
        (void)put(m, p->gold, batch->gold, batch->questions, 4);
        (void)put(m, p->first_span, batch->first_span, batch->questions + 1, 4);
    }
    m->loss_rows = batch->loss_rows;
    m->spans = batch->spans;
    m->questions = batch->questions;
    m->step_loss_tokens = batch->step_loss_tokens;
    m->step_questions = batch->step_questions;
    m->share = batch->step_rows > 0 ? (double)batch->live / batch->step_rows : 1;
}

void mx_model_forward(mx_model *m, mx_adapter *const *adapter, int64_t adapters, const mx_batch *batch,
                      const mx_pass *pass) {
    const mx_method *method = m->layout->method;

    assert(adapters == 1 && adapter[0]->layout == m->layout && adapter[0]->backend == m->b);
    assert(!pass->training || m->limits.training);
    m->adapter = adapter[0];
    m->pass = *pass;
    m->keeps = pass->training;
    m->b->ops->scratch(m->b, mx_scratch_at(m, m->plan.ops), m->plan.ops_bytes); /* another model may have been opened since */
    take_batch(m, batch);
    if (m->adapter->stale && method->refresh) {
        method->refresh(m->adapter, &m->frozen);
    }
    m->adapter->stale = false;
    if (m->experts) {
        m->b->zero(m->b, m->batch + m->plan.sums, m->plan.sums_bytes);
    }
    m->b->ops->embed(m->b, mx_stream_at(m, 0), m->embedding, &m->rows);
    for (int64_t i = 0; i < m->shape.layers; i++) {
        mx_block_forward(m, i);
    }
}

/* A tensor over the loss rows. */
static mx_tensor loss_act(const mx_model *m, size_t offset) {
    return mx_tensor_2d(mx_scratch_at(m, offset), mx_activation_type(m->b), m->loss_rows, m->shape.hidden);
}

/* The final norm of the loss rows alone. */
void mx_model_gather(mx_model *m) {
    const mx_ops *ops = m->b->ops;

    ops->gather_rows(m->b, loss_act(m, m->plan.loss_x), mx_stream_at(m, m->shape.layers),
                     (const int32_t *)(m->batch + m->plan.loss_row), m->loss_rows);
    ops->rmsnorm_forward(m->b, loss_act(m, m->plan.loss_y), mx_scratch_at(m, m->plan.loss_rstd),
                         loss_act(m, m->plan.loss_x), m->final_norm, (float)m->shape.rms_eps);
}

void mx_model_head(mx_model *m, bool gradient) {
    mx_head head = { .w = m->head, .vocab = m->shape.vocab, .rows = m->loss_rows,
                     .x = loss_act(m, m->plan.loss_y), .target = (const int32_t *)(m->batch + m->plan.loss_target),
                     .nll = (float *)(m->batch + m->plan.nll) };

    if (gradient) {
        head.g = loss_act(m, m->plan.loss_g);
    }
    mx_model_gather(m);
    m->b->ops->head_loss(m->b, &head);
}

void mx_model_losses(mx_model *m, mx_numbers *numbers) {
    assert(m->keeps);
    if (m->loss_rows && !m->pass.router_losses_alone) {
        mx_objective objective = {
            .choice = m->pass.choice,
            .nll = (const float *)(m->batch + m->plan.nll),
            .rows = m->loss_rows,
            .span = (const mx_span *)(m->batch + m->plan.span),
            .spans = m->spans,
            .gold = (const int32_t *)(m->batch + m->plan.gold),
            .first_span = (const int32_t *)(m->batch + m->plan.first_span),
            .questions = m->questions,
            .step_tokens = m->step_loss_tokens,
            .step_questions = m->step_questions,
            .scale = (float *)(m->batch + m->plan.scale),
            .numbers = numbers,
        };

        mx_model_head(m, true);
        m->b->ops->objective(m->b, &objective);
    }
    if (m->experts) {
        mx_router router;
        mx_experts experts;

        mx_block_ffn(m, m->shape.layers - 1, &router, &experts);
        m->b->ops->router_losses(m->b, &router, numbers);
    }
}

void mx_model_backward(mx_model *m) {
    const mx_ops *ops = m->b->ops;
    mx_tensor dx = mx_act(m, mx_scratch_at(m, m->plan.dx), m->shape.hidden);

    assert(m->keeps);
    if (m->loss_rows && !m->pass.router_losses_alone) {
        mx_tensor d = loss_act(m, m->plan.loss_dx);

        m->b->zero(m->b, d.data, mx_tensor_bytes(&d));
        ops->rmsnorm_backward(m->b, d, loss_act(m, m->plan.loss_g), loss_act(m, m->plan.loss_x),
                              mx_scratch_at(m, m->plan.loss_rstd), m->final_norm);
        ops->scatter_rows(m->b, dx, d, (const float *)(m->batch + m->plan.scale),
                          (const int32_t *)(m->batch + m->plan.loss_row), m->loss_rows);
    } else {
        m->b->zero(m->b, dx.data, mx_tensor_bytes(&dx));
    }
    for (int64_t i = m->shape.layers; i-- > 0;) {
        if (m->limits.checkpointing && i + 1 < m->shape.layers) { /* what is kept is another layer's */
            m->again = true;
            mx_block_forward(m, i);
            m->again = false;
        }
        mx_block_backward(m, i);
    }
    m->keeps = false; /* gradients were written over what was kept */
}
