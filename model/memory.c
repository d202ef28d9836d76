/* memory.c - where everything of a model lies, and how much that is, from sizes alone.
 *
 * The same plan places the buffers when a model opens and counts them before anything is loaded, so the two cannot
 * drift apart. Ops are asked for their needs with the very structs that block.c will run, built on probe pointers
 * that stand for "there will be one". */
#include "model/model_parts.h"

#include <string.h>

#define PROBE ((void *)(uintptr_t)4096)
enum { LOGIT_ROWS = 32 }; /* whole-vocabulary rows held at once for label_logits: 6 MB at 49 k entries */

/* Takes `bytes` from a region that grows. */
static size_t take(size_t *used, size_t bytes) {
    size_t at = *used;

    *used += (bytes + 63) / 64 * 64;
    return at;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Room for all terms of a group, A's under and B's behind its weights (kernels/backend.h). */
static mx_weight_room room_of(const mx_group_call *call) {
    int64_t rank = 0;

    for (int64_t j = 0; j < call->op.linears; j++) {
        for (int64_t i = 0; i < call->linear[j].terms; i++) {
            rank += call->linear[j].term[i].rank;
        }
    }
    return (mx_weight_room){ .columns = rank, .rows = rank };
}

static int64_t rank_of(const mx_expert_linear *linear) {
    return linear->a ? linear->rank : 0;
}

/* What the ops keep and need in one kind of pass, asked with one layer's calls: all layers are alike. */
static void ask_ops(mx_model *m, bool keeps, size_t saved[4], size_t *experts_saved, size_t *scratch) {
    const mx_ops *ops = m->b->ops;
    mx_group_call call;
    mx_attention attention;

    m->keeps = m->pass.training = keeps;
    for (int g = 0; g < (m->experts ? MX_GROUP_GATE_UP : MX_GROUP_DOWN + 1); g++) {
        mx_block_linears(m, 0, (mx_linear_group)g, &call);
        m->plan.room[g] = room_of(&call);
        if (keeps) {
            saved[g] = ops->linears_saved_bytes(m->b, &call.op);
        }
        *scratch = larger(*scratch, ops->linears_scratch_bytes(m->b, &call.op));
    }
    mx_block_attention(m, 0, &attention);
    *scratch = larger(*scratch, ops->attention_scratch_bytes(m->b, &attention));
    if (m->experts) {
        mx_router router;
        mx_experts experts;

        mx_block_ffn(m, 0, &router, &experts);
        m->plan.room[MX_GROUP_GATE_UP] = (mx_weight_room){
            .rows = experts.experts * (rank_of(&experts.gate_proj) + rank_of(&experts.up_proj)) };
        m->plan.room[MX_GROUP_DOWN] = (mx_weight_room){ .columns = experts.experts * rank_of(&experts.down_proj) };
        if (keeps) {
            *experts_saved = ops->experts_saved_bytes(m->b, &experts);
        }
        *scratch = larger(*scratch, ops->router_scratch_bytes(m->b, &router));
        *scratch = larger(*scratch, ops->experts_scratch_bytes(m->b, &experts));
        m->plan.slow = ops->experts_slow(m->b, &experts);
    }
}

static size_t ask_head(const mx_model *m) {
    mx_head head = { .w = PROBE, .vocab = m->shape.vocab, .rows = m->limits.loss_rows, .target = PROBE, .nll = PROBE,
                     .x = mx_tensor_2d(PROBE, mx_activation_type(m->b), m->limits.loss_rows, m->shape.hidden) };

    if (m->limits.training) {
        head.g = head.x;
    }
    return m->b->ops->head_scratch_bytes(m->b, &head);
}

static void plan_saved(mx_model *m, const size_t op_saved[4], size_t experts_saved) {
    mx_memory_plan *p = &m->plan;
    mx_layer_offsets *at = &p->layer;
    size_t rows = (size_t)m->limits.rows, act = mx_dtype_bytes(mx_activation_type(m->b)), used = 0;
    size_t stream = (rows * (size_t)m->shape.hidden * act + 63) / 64 * 64;
    size_t wide = rows * (size_t)(m->shape.heads * m->shape.head_dim) * act;
    size_t narrow = rows * (size_t)(m->shape.kv_heads * m->shape.head_dim) * act;
    size_t inner = rows * (size_t)m->shape.inner * act;
    size_t layers = m->limits.training ? (size_t)m->shape.layers : 1, shares = mx_keeps_layers(m) ? layers : 1;

    at->rstd1 = take(&used, rows * 4);
    at->rstd2 = take(&used, rows * 4);
    at->x_mid = take(&used, m->limits.training ? stream : 0);
    at->q = take(&used, wide);
    at->k = take(&used, narrow);
    at->v = take(&used, narrow);
    at->o = take(&used, wide);
    at->lse = take(&used, rows * (size_t)m->shape.heads * 4);
    at->qkv_saved = take(&used, op_saved[MX_GROUP_QKV]);
    at->o_saved = take(&used, op_saved[MX_GROUP_O]);
    if (m->experts) {
        size_t e = (size_t)m->experts, k = (size_t)m->slots;

        at->logits = take(&used, rows * e * 4);
        at->prob = take(&used, rows * e * 4);
        at->chosen = take(&used, rows * k * 4);
        at->gates = take(&used, rows * k * 4);
        at->passed = take(&used, rows * 4);
        at->experts_saved = take(&used, experts_saved);
    } else {
        at->gate = take(&used, inner);
        at->up = take(&used, inner);
        at->gate_up_saved = take(&used, op_saved[MX_GROUP_GATE_UP]);
        at->down_saved = take(&used, op_saved[MX_GROUP_DOWN]);
    }
    at->bytes = used;
    used = 0;
    p->x_stride = m->limits.training ? stream : 0;
    p->x = take(&used, m->limits.training ? stream * (layers + 1) : stream);
    p->layers = take(&used, shares * at->bytes);
    p->saved_bytes = used;
}

static void plan_scratch(mx_model *m) {
    mx_memory_plan *p = &m->plan;
    size_t rows = (size_t)m->limits.rows, act = mx_dtype_bytes(mx_activation_type(m->b)), used = 0, head = 0;
    size_t stream = rows * (size_t)m->shape.hidden * act, inner = rows * (size_t)m->shape.inner * act;
    size_t wide = rows * (size_t)(m->shape.heads * m->shape.head_dim) * act;
    size_t narrow = rows * (size_t)(m->shape.kv_heads * m->shape.head_dim) * act;
    size_t loss_rows = (size_t)m->limits.loss_rows, loss = loss_rows * (size_t)m->shape.hidden * act;
    bool backward = m->limits.training;
    bool shaken = m->layout->method->jitter && m->layout->method->jitter(m->layout->config) > 0;

    p->h = take(&used, stream);
    p->y = take(&used, stream);
    p->wide = take(&used, m->experts ? 0 : inner);
    if (backward) {
        p->d_o = take(&used, larger(m->experts ? 0 : inner, larger(wide, stream)));
        p->dq = take(&used, wide);
        p->dk = take(&used, narrow);
        p->dv = take(&used, narrow);
        p->xr = take(&used, shaken ? stream : 0);
        p->dgate = take(&used, rows * (size_t)m->slots * 4);
        p->dpassed = take(&used, m->experts ? rows * 4 : 0);
    }
    p->loss_x = take(&head, loss);
    p->loss_y = take(&head, loss);
    p->loss_rstd = take(&head, loss_rows * 4);
    if (backward) {
        p->loss_g = take(&head, loss);
        p->loss_dx = take(&head, loss);
    }
    p->logit_rows = m->limits.label_logits ? (m->limits.loss_rows < LOGIT_ROWS ? m->limits.loss_rows : LOGIT_ROWS) : 0;
    p->logits = take(&head, (size_t)p->logit_rows * (size_t)m->shape.vocab * 4);
    used = larger(used, head);
    p->dx = take(&used, backward ? stream : 0);
    p->ops = take(&used, p->ops_bytes);
    p->scratch_bytes = used;
}

static void plan_batch(mx_model *m) {
    mx_memory_plan *p = &m->plan;
    const mx_model_limits *lim = &m->limits;
    size_t rows = (size_t)lim->rows, n = (size_t)lim->loss_rows, used = 0;
    size_t e = (size_t)m->experts, planes = (size_t)(m->shape.layers * lim->tasks), cells = planes * e;

    p->token = take(&used, rows * 4);
    p->position = take(&used, rows * 4);
    p->question = take(&used, rows * 4);
    p->task = take(&used, rows * 4);
    p->row_segment = take(&used, rows * 4);
    p->segment = take(&used, (size_t)lim->segments * sizeof(mx_segment));
    p->loss_row = take(&used, n * 4);
    p->loss_target = take(&used, n * 4);
    p->nll = take(&used, n * 4);
    p->scale = take(&used, n * 4);
    p->span = take(&used, (size_t)lim->spans * sizeof(mx_span));
    p->gold = take(&used, (size_t)lim->questions * 4);
    p->first_span = take(&used, (size_t)(lim->questions + 1) * 4);
    if (m->experts) {
        size_t tally = 0;

        p->sums_bytes = (2 * e + 1) * 8;
        p->sums = take(&used, p->sums_bytes);
        p->tally_tokens = take(&tally, cells * 8);
        p->tally_dropped = take(&tally, cells * 8);
        p->tally_probability = take(&tally, cells * 8);
        p->tally_pairs = take(&tally, cells * e * 8);
        p->tally_rows = take(&tally, planes * 8);
        p->tally_entropy = take(&tally, planes * 8);
        p->tally_bytes = tally;
        p->tally = take(&used, tally);
    }
    p->batch_bytes = used;
}

/* Norm weights, biases and rope's frequencies: everything frozen that is not a matrix. */
static size_t vectors_bytes(const mx_shape *s) {
    size_t n = 0;

    take(&n, (size_t)s->hidden * 4);
    take(&n, (size_t)(s->head_dim / 2) * 4);
    for (int64_t i = 0; i < s->layers; i++) {
        take(&n, (size_t)s->hidden * 4);
        take(&n, (size_t)s->hidden * 4);
        for (int k = 0; k < MX_SITES; k++) {
            int64_t out, in;

            mx_site_size(s, (mx_site)k, &out, &in);
            take(&n, mx_site_has_bias(s, (mx_site)k) ? (size_t)out * 4 : 0);
        }
    }
    return n;
}

void mx_model_plan(mx_model *m) {
    mx_model probe = *m; /* as it will be when the largest batch runs */
    mx_adapter adapter = { .layout = m->layout, .backend = m->b, .gradient = m->limits.training ? PROBE : NULL };
    const mx_method *method = m->layout->method;
    size_t saved[4] = { 0 }, experts_saved = 0, scratch = 0;

    for (int k = 0; k < MX_KINDS; k++) {
        adapter.value[k] = PROBE;
    }
    probe.adapter = &adapter;
    probe.saved = probe.scratch = probe.batch = PROBE;
    probe.rows = (mx_rows){ .rows = m->limits.rows, .live = m->limits.rows, .token = PROBE, .position = PROBE,
                            .question = PROBE, .task = PROBE, .segment = PROBE, .segments = m->limits.segments,
                            .row_segment = PROBE };
    probe.pass.input_gradient = probe.pass.count_pairs = true;
    probe.plan = (mx_memory_plan){ 0 };
    ask_ops(&probe, false, saved, &experts_saved, &scratch);
    if (m->limits.training) { /* a pass may need more scratch because it keeps nothing */
        ask_ops(&probe, true, saved, &experts_saved, &scratch);
    }
    scratch = larger(scratch, ask_head(m));
    probe.plan.ops_bytes = larger(scratch, method->scratch_bytes ? method->scratch_bytes(m->layout, m->b) : 0);
    plan_saved(&probe, saved, experts_saved);
    plan_scratch(&probe);
    plan_batch(&probe);
    probe.plan.vectors_bytes = vectors_bytes(&m->shape);
    m->plan = probe.plan;
}
