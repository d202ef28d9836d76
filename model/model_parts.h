/* model_parts.h - what model.c, block.c, memory.c and model_read.c share: the model from the inside.
 *
 * Letters as in kernels/ops.h. One layer, with what is kept for the backward pass in [brackets]:
 *
 *     h = rmsnorm([x]);  [q k v] = linears(h), q and k rotated;  [o] = attention(q, k, v);  [x_mid] = x + linear(o)
 *     h = rmsnorm([x_mid]);  [gate up] = linears(h);  x' = x_mid + linear(silu(gate) up)
 *     or, routed:  [logits prob chosen gates passed] = router(h);  x' = x_mid + experts(h)
 *
 * Norms and elementwise products are computed again in the backward pass; no GEMM is. */
#ifndef MODEL_MODEL_PARTS_H
#define MODEL_MODEL_PARTS_H

#include "model/model.h"

/* The groups of linears of a layer, which read one input each. */
typedef enum mx_linear_group { MX_GROUP_QKV, MX_GROUP_O, MX_GROUP_GATE_UP, MX_GROUP_DOWN, MX_GROUPS } mx_linear_group;

/* Byte offsets. Within a layer's share of `saved`: */
typedef struct mx_layer_offsets {
    size_t x_mid, rstd1, rstd2, q, k, v, o, lse, gate, up;
    size_t qkv_saved, o_saved, gate_up_saved, down_saved, experts_saved; /* the ops' own */
    size_t logits, prob, chosen, gates, passed;
    size_t bytes;
} mx_layer_offsets;

typedef struct mx_memory_plan {
    /* saved */
    size_t x, x_stride; /* the stream before each layer and after the last; stride 0 when nothing is kept */
    size_t layers;      /* where the layers' shares begin */
    mx_layer_offsets layer;
    size_t saved_bytes;
    /* scratch of the layers */
    size_t h, y, wide, d_o, dq, dk, dv, xr, dgate, dpassed;
    /* scratch of the head, over the same bytes */
    size_t loss_x, loss_y, loss_g, loss_dx, loss_rstd, logits;
    int64_t logit_rows;
    /* scratch beside both */
    size_t dx, ops;
    size_t ops_bytes;
    size_t scratch_bytes;
    /* batch */
    size_t token, position, question, task, row_segment, segment, loss_row, loss_target, nll, scale, span, gold,
        first_span, sums, tally;
    size_t sums_bytes, tally_bytes;
    size_t tally_tokens, tally_dropped, tally_rows, tally_pairs, tally_probability, tally_entropy; /* in tally */
    size_t batch_bytes;
    /* weights: vectors as f32 */
    size_t vectors_bytes;
    mx_weight_room room[MX_GROUPS]; /* for the low-rank terms of each group of linears */
    const char *slow;               /* mx_model_bytes */
} mx_memory_plan;

struct mx_model {
    mx_backend *b;
    mx_shape shape;
    const mx_layout *layout;
    mx_model_limits limits;
    int64_t experts, slots;
    mx_memory_plan plan;

    mx_weight **linear; /* [layer * MX_SITES + site] */
    mx_weight *embedding, *head; /* the same when tied */
    float *vectors;              /* the one allocation behind the following */
    float **bias;                /* [layer * MX_SITES + site], NULL: none */
    float **norm1, **norm2;      /* [layer] */
    float *final_norm, *rope_inverse;
    mx_frozen frozen;

    unsigned char *saved, *scratch, *batch; /* device */

    /* the pass under way */
    mx_pass pass;
    mx_adapter *adapter;
    mx_rows rows;
    double step_loss_tokens, step_questions, share;
    int64_t loss_rows, spans, questions;
    bool keeps; /* the forward pass kept its activations */
    bool again; /* a layer is being computed once more: its router has been counted */
};

/* memory.c: fills m->plan from shape, layout, limits and backend; touches no device memory. */
void mx_model_plan(mx_model *m);

/* model.c: the final norm of the loss rows into plan.loss_y; and the head on them, with or without its gradient. */
void mx_model_gather(mx_model *m);
void mx_model_head(mx_model *m, bool gradient);

/* block.c */
void mx_block_forward(mx_model *m, int64_t layer);
void mx_block_backward(mx_model *m, int64_t layer);

mx_site mx_group_first(mx_linear_group group);
int mx_group_count(mx_linear_group group);

/* The groups as op structs; `term` is their terms' memory. With a probe adapter (memory.c) pointers mean nothing but
 * "not NULL". */
typedef struct mx_group_call {
    mx_linears op;
    mx_linear linear[3];
    mx_low_rank term[3][MX_TERMS_MAX];
} mx_group_call;
void mx_block_linears(mx_model *m, int64_t layer, mx_linear_group group, mx_group_call *ret);
void mx_block_attention(mx_model *m, int64_t layer, mx_attention *ret);
void mx_block_ffn(mx_model *m, int64_t layer, mx_router *ret_router, mx_experts *ret_experts);

static inline mx_tensor mx_act(const mx_model *m, void *data, int64_t columns) {
    return mx_tensor_2d(data, mx_activation_type(m->b), m->rows.rows, columns);
}
static inline void *mx_scratch_at(const mx_model *m, size_t offset) {
    return m->scratch + offset;
}
/* Does each layer have a share of `saved` to itself? */
static inline bool mx_keeps_layers(const mx_model *m) {
    return m->limits.training && !m->limits.checkpointing;
}
static inline void *mx_layer_at(const mx_model *m, int64_t layer, size_t offset) {
    return m->saved + m->plan.layers + (mx_keeps_layers(m) ? (size_t)layer : 0) * m->plan.layer.bytes + offset;
}
/* The stream before layer i; i = layers: after the last. */
static inline mx_tensor mx_stream_at(const mx_model *m, int64_t layer) {
    return mx_act(m, m->saved + m->plan.x + (size_t)layer * m->plan.x_stride, m->shape.hidden);
}

#endif
