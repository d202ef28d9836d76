/* block.c - one layer, forward and backward, as calls of ops. */
#include "model/model_parts.h"

#include <assert.h>

static mx_noise noise_at(const mx_model *m, int64_t layer, mx_input input) {
    const mx_layout *l = m->layout;
    mx_noise n = { .seed = m->pass.seed, .step = m->pass.step, .site = mx_input_noise_site(layer, input) };

    if (m->pass.training) {
        n.rate = input == MX_INPUT_JITTER ? (float)(l->method->jitter ? l->method->jitter(l->config) : 0)
                                          : (float)(l->method->dropout ? l->method->dropout(l->config, input) : 0);
    }
    return n;
}

static float *bias_at(const mx_model *m, int64_t layer, mx_site site) {
    return m->bias ? m->bias[layer * MX_SITES + site] : NULL;
}

/* A frozen linear with the method's terms; y and dy are the caller's. */
static void linear_at(mx_model *m, int64_t layer, mx_site site, mx_linear *ret, mx_low_rank *term) {
    int64_t in;

    *ret = (mx_linear){ .term = term, .bias = bias_at(m, layer, site) };
    mx_site_size(&m->shape, site, &ret->out, &in);
    ret->w = m->linear ? m->linear[layer * MX_SITES + site] : NULL;
    if (m->layout->method->linear) {
        m->layout->method->linear(m->adapter, layer, site, ret);
    }
}

static const struct {
    mx_site first;
    int count;
    mx_input input;
} groups[MX_GROUPS] = {
    [MX_GROUP_QKV] = { MX_SITE_Q, 3, MX_INPUT_ATTENTION },
    [MX_GROUP_O] = { MX_SITE_O, 1, MX_INPUT_OUTPUT },
    [MX_GROUP_GATE_UP] = { MX_SITE_GATE, 2, MX_INPUT_FFN },
    [MX_GROUP_DOWN] = { MX_SITE_DOWN, 1, MX_INPUT_DOWN },
};

mx_site mx_group_first(mx_linear_group group) {
    return groups[group].first;
}

int mx_group_count(mx_linear_group group) {
    return groups[group].count;
}

void mx_block_linears(mx_model *m, int64_t layer, mx_linear_group group, mx_group_call *ret) {
    const mx_layer_offsets *at = &m->plan.layer;
    const size_t saved[] = { at->qkv_saved, at->o_saved, at->gate_up_saved, at->down_saved };
    int64_t out;

    ret->op = (mx_linears){ .rows = &m->rows, .linear = ret->linear, .linears = groups[group].count,
                            .dropout = noise_at(m, layer, groups[group].input), .training = m->keeps };
    mx_site_size(&m->shape, groups[group].first, &out, &ret->op.in);
    for (int i = 0; i < groups[group].count; i++) {
        linear_at(m, layer, (mx_site)(groups[group].first + i), &ret->linear[i], ret->term[i]);
    }
    if (m->keeps) {
        ret->op.saved = mx_layer_at(m, layer, saved[group]);
    }
    switch (group) { /* where outputs go that are kept; gradients of them are written over them later */
    case MX_GROUP_QKV:
        ret->linear[0].y = mx_act(m, mx_layer_at(m, layer, at->q), ret->linear[0].out);
        ret->linear[1].y = mx_act(m, mx_layer_at(m, layer, at->k), ret->linear[1].out);
        ret->linear[2].y = mx_act(m, mx_layer_at(m, layer, at->v), ret->linear[2].out);
        ret->linear[0].dy = mx_act(m, mx_scratch_at(m, m->plan.dq), ret->linear[0].out);
        ret->linear[1].dy = mx_act(m, mx_scratch_at(m, m->plan.dk), ret->linear[1].out);
        ret->linear[2].dy = mx_act(m, mx_scratch_at(m, m->plan.dv), ret->linear[2].out);
        ret->op.x = mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden);
        ret->op.dx = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);
        if (layer == 0 && !m->pass.input_gradient) {
            ret->op.dx.data = NULL;
        }
        return;
    case MX_GROUP_O:
        ret->linear[0].y = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);
        ret->linear[0].dy = mx_act(m, mx_scratch_at(m, m->plan.dx), m->shape.hidden);
        ret->op.x = mx_act(m, mx_layer_at(m, layer, at->o), ret->op.in);
        ret->op.dx = mx_act(m, mx_scratch_at(m, m->plan.d_o), ret->op.in);
        return;
    case MX_GROUP_GATE_UP:
        ret->linear[0].y = ret->linear[0].dy = mx_act(m, mx_layer_at(m, layer, at->gate), m->shape.inner);
        ret->linear[1].y = ret->linear[1].dy = mx_act(m, mx_layer_at(m, layer, at->up), m->shape.inner);
        ret->op.x = mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden);
        ret->op.dx = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);
        return;
    case MX_GROUP_DOWN:
        ret->linear[0].y = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);
        ret->linear[0].dy = mx_act(m, mx_scratch_at(m, m->plan.dx), m->shape.hidden);
        ret->op.x = mx_act(m, mx_scratch_at(m, m->plan.wide), m->shape.inner);
        ret->op.dx = mx_act(m, mx_scratch_at(m, m->plan.d_o), m->shape.inner);
        return;
    case MX_GROUPS:
        break;
    }
    assert(!"a group");
}

void mx_block_attention(mx_model *m, int64_t layer, mx_attention *ret) {
    const mx_layer_offsets *at = &m->plan.layer;
    int64_t d = m->shape.head_dim, wide = m->shape.heads * d, narrow = m->shape.kv_heads * d;

    *ret = (mx_attention){
        .rows = &m->rows,
        .heads = m->shape.heads, .kv_heads = m->shape.kv_heads, .head_dim = d,
        .q = mx_act(m, mx_layer_at(m, layer, at->q), wide),
        .k = mx_act(m, mx_layer_at(m, layer, at->k), narrow),
        .v = mx_act(m, mx_layer_at(m, layer, at->v), narrow),
        .o = mx_act(m, mx_layer_at(m, layer, at->o), wide),
        .lse = mx_layer_at(m, layer, at->lse),
        .dq = mx_act(m, mx_scratch_at(m, m->plan.dq), wide),
        .dk = mx_act(m, mx_scratch_at(m, m->plan.dk), narrow),
        .dv = mx_act(m, mx_scratch_at(m, m->plan.dv), narrow),
        .d_o = mx_act(m, mx_scratch_at(m, m->plan.d_o), wide),
    };
}

/* One layer's planes of the tally. */
static mx_router_tally tally_at(const mx_model *m, int64_t layer) {
    unsigned char *base = m->batch + m->plan.tally;
    int64_t tasks = m->limits.tasks, e = m->experts, plane = layer * tasks, cell = plane * e;

    return (mx_router_tally){
        .tasks = tasks,
        .tokens = (int64_t *)(base + m->plan.tally_tokens) + cell,
        .dropped = (int64_t *)(base + m->plan.tally_dropped) + cell,
        .rows = (int64_t *)(base + m->plan.tally_rows) + plane,
        .pairs = m->pass.count_pairs ? (int64_t *)(base + m->plan.tally_pairs) + cell * e : NULL,
        .probability = (double *)(base + m->plan.tally_probability) + cell,
        .entropy = (double *)(base + m->plan.tally_entropy) + plane,
    };
}

static mx_expert_linear expert_linear_at(const mx_model *m, int64_t layer, mx_site site) {
    return (mx_expert_linear){ .w = m->linear ? m->linear[layer * MX_SITES + site] : NULL,
                               .bias = bias_at(m, layer, site) };
}

void mx_block_ffn(mx_model *m, int64_t layer, mx_router *ret_router, mx_experts *ret_experts) {
    const mx_layer_offsets *at = &m->plan.layer;
    double *sums = (double *)(m->batch + m->plan.sums);
    mx_noise jitter = noise_at(m, layer, MX_INPUT_JITTER);
    mx_tensor clean = mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden);
    mx_tensor shaken = jitter.rate > 0 ? mx_act(m, mx_scratch_at(m, m->plan.xr), m->shape.hidden) : clean;
    mx_tensor dx = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);

    *ret_router = (mx_router){
        .rows = &m->rows,
        .experts = m->experts, .slots = m->slots,
        .x = shaken,
        .logits = mx_layer_at(m, layer, at->logits), .prob = mx_layer_at(m, layer, at->prob),
        .chosen = mx_layer_at(m, layer, at->chosen), .gate = mx_layer_at(m, layer, at->gates),
        .tally = tally_at(m, layer),
        .dgate = mx_scratch_at(m, m->plan.dgate), .share = m->share,
        .rows_all = (double)m->shape.layers * (double)m->rows.live,
        .dx = dx,
    };
    if (m->pass.training) {
        ret_router->sums = (mx_router_sums){ .chosen = sums, .probability = sums + m->experts,
                                             .z = sums + 2 * m->experts };
    }
    *ret_experts = (mx_experts){
        .rows = &m->rows,
        .experts = m->experts, .slots = m->slots, .hidden = m->shape.hidden, .inner = m->shape.inner,
        .gate_proj = expert_linear_at(m, layer, MX_SITE_GATE),
        .up_proj = expert_linear_at(m, layer, MX_SITE_UP),
        .down_proj = expert_linear_at(m, layer, MX_SITE_DOWN),
        .dropout = noise_at(m, layer, MX_INPUT_FFN),
        .chosen = ret_router->chosen, .gate = ret_router->gate,
        .x = clean, .y = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden),
        .training = m->keeps, .saved = m->keeps ? mx_layer_at(m, layer, at->experts_saved) : NULL,
        .dy = mx_act(m, mx_scratch_at(m, m->plan.dx), m->shape.hidden),
        .dx = dx,
        .dgate = mx_scratch_at(m, m->plan.dgate),
    };
    m->layout->method->ffn(m->adapter, layer, ret_router, ret_experts);
    if (ret_router->routing == MX_ROUTE_SWITCH) { /* its experts see x itself, and may pass it on */
        ret_router->passed = mx_layer_at(m, layer, at->passed);
        ret_experts->passed = ret_router->passed;
        ret_experts->dpassed = mx_scratch_at(m, m->plan.dpassed);
        ret_router->dpassed = ret_experts->dpassed;
    } else {
        ret_experts->x = shaken;
    }
}

static void routed_forward(mx_model *m, int64_t layer) {
    const mx_ops *ops = m->b->ops;
    mx_noise jitter = noise_at(m, layer, MX_INPUT_JITTER);
    mx_router router;
    mx_experts experts;

    mx_block_ffn(m, layer, &router, &experts);
    if (jitter.rate > 0) {
        ops->jitter_forward(m->b, router.x, mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden), &m->rows, jitter);
    }
    if (m->again) {
        router.tally = (mx_router_tally){ 0 };
        router.sums = (mx_router_sums){ 0 };
    }
    ops->router_forward(m->b, &router);
    ops->experts_forward(m->b, &experts);
}

static void dense_forward(mx_model *m, int64_t layer) {
    const mx_ops *ops = m->b->ops;
    mx_group_call call;
    mx_tensor gate, up;

    mx_block_linears(m, layer, MX_GROUP_GATE_UP, &call);
    ops->linears_forward(m->b, &call.op);
    gate = call.linear[0].y;
    up = call.linear[1].y;
    mx_block_linears(m, layer, MX_GROUP_DOWN, &call);
    ops->swiglu_forward(m->b, call.op.x, gate, up);
    ops->linears_forward(m->b, &call.op);
}

void mx_block_forward(mx_model *m, int64_t layer) {
    const mx_ops *ops = m->b->ops;
    const mx_layer_offsets *at = &m->plan.layer;
    mx_tensor x = mx_stream_at(m, layer), next = mx_stream_at(m, layer + 1);
    mx_tensor middle = m->limits.training ? mx_act(m, mx_layer_at(m, layer, at->x_mid), m->shape.hidden) : x;
    mx_tensor h = mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden);
    mx_tensor y = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);
    float eps = (float)m->shape.rms_eps;
    mx_attention attention;
    mx_group_call call;

    ops->rmsnorm_forward(m->b, h, mx_layer_at(m, layer, at->rstd1), x, m->norm1[layer], eps);
    mx_block_linears(m, layer, MX_GROUP_QKV, &call);
    ops->linears_forward(m->b, &call.op);
    mx_block_attention(m, layer, &attention);
    ops->rope(m->b, attention.q, m->shape.heads, m->shape.head_dim, &m->rows, m->rope_inverse, false);
    ops->rope(m->b, attention.k, m->shape.kv_heads, m->shape.head_dim, &m->rows, m->rope_inverse, false);
    ops->attention_forward(m->b, &attention);
    mx_block_linears(m, layer, MX_GROUP_O, &call);
    ops->linears_forward(m->b, &call.op);
    ops->add(m->b, middle, x, y);

    ops->rmsnorm_forward(m->b, h, mx_layer_at(m, layer, at->rstd2), middle, m->norm2[layer], eps);
    if (m->experts) {
        routed_forward(m, layer);
    } else {
        dense_forward(m, layer);
    }
    ops->add(m->b, next, middle, y);
}

/* In: plan.dx = gradient of the block's output, plan.h = its input. Out: plan.y = gradient of its input. */
static void routed_backward(mx_model *m, int64_t layer) {
    const mx_ops *ops = m->b->ops;
    mx_noise jitter = noise_at(m, layer, MX_INPUT_JITTER);
    mx_tensor h = mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden);
    mx_tensor dh = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);
    mx_router router;
    mx_experts experts;

    mx_block_ffn(m, layer, &router, &experts);
    if (jitter.rate > 0) {
        mx_tensor dxr = mx_act(m, mx_scratch_at(m, m->plan.d_o), m->shape.hidden);

        ops->jitter_forward(m->b, router.x, h, &m->rows, jitter);
        router.dx = dxr;
        if (router.routing == MX_ROUTE_SWITCH) {
            m->b->zero(m->b, dxr.data, mx_tensor_bytes(&dxr));
        } else {
            experts.dx = dxr;
            m->b->zero(m->b, dh.data, mx_tensor_bytes(&dh));
        }
    }
    ops->experts_backward(m->b, &experts);
    ops->router_backward(m->b, &router);
    if (jitter.rate > 0) {
        ops->jitter_backward(m->b, dh, router.dx, &m->rows, jitter);
    }
}

static void dense_backward(mx_model *m, int64_t layer) {
    const mx_ops *ops = m->b->ops;
    mx_group_call down, wide;
    mx_tensor gate, up;

    mx_block_linears(m, layer, MX_GROUP_GATE_UP, &wide);
    mx_block_linears(m, layer, MX_GROUP_DOWN, &down);
    gate = wide.linear[0].y;
    up = wide.linear[1].y;
    ops->swiglu_forward(m->b, down.op.x, gate, up);
    ops->linears_backward(m->b, &down.op);
    ops->swiglu_backward(m->b, gate, up, down.op.dx, gate, up);
    ops->linears_backward(m->b, &wide.op);
}

/* plan.dx: in, the gradient of the layer's output; out, that of its input (of layer 0 only when asked for). */
void mx_block_backward(mx_model *m, int64_t layer) {
    const mx_ops *ops = m->b->ops;
    const mx_layer_offsets *at = &m->plan.layer;
    mx_tensor x = mx_stream_at(m, layer);
    mx_tensor middle = mx_act(m, mx_layer_at(m, layer, at->x_mid), m->shape.hidden);
    mx_tensor h = mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden);
    mx_tensor dh = mx_act(m, mx_scratch_at(m, m->plan.y), m->shape.hidden);
    mx_tensor dx = mx_act(m, mx_scratch_at(m, m->plan.dx), m->shape.hidden);
    float *rstd1 = mx_layer_at(m, layer, at->rstd1), *rstd2 = mx_layer_at(m, layer, at->rstd2);
    float eps = (float)m->shape.rms_eps;
    mx_attention attention;
    mx_group_call call;

    ops->rmsnorm_forward(m->b, h, rstd2, middle, m->norm2[layer], eps);
    if (m->experts) {
        routed_backward(m, layer);
    } else {
        dense_backward(m, layer);
    }
    ops->rmsnorm_backward(m->b, dx, dh, middle, rstd2, m->norm2[layer]);

    mx_block_linears(m, layer, MX_GROUP_O, &call);
    ops->linears_backward(m->b, &call.op);
    mx_block_attention(m, layer, &attention);
    ops->attention_backward(m->b, &attention);
    ops->rope(m->b, attention.dq, m->shape.heads, m->shape.head_dim, &m->rows, m->rope_inverse, true);
    ops->rope(m->b, attention.dk, m->shape.kv_heads, m->shape.head_dim, &m->rows, m->rope_inverse, true);
    ops->rmsnorm_forward(m->b, h, rstd1, x, m->norm1[layer], eps);
    mx_block_linears(m, layer, MX_GROUP_QKV, &call);
    ops->linears_backward(m->b, &call.op);
    if (call.op.dx.data) {
        ops->rmsnorm_backward(m->b, dx, dh, x, rstd1, m->norm1[layer]);
    }
}
