/* model_read.c - what is read back from a model: scores, router loads, and what checks look at. */
#include "model/model_parts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

mx_code mx_model_nll(mx_model *m, float *ret, mx_status *st) {
    if (!m->loss_rows) {
        return MX_OK;
    }
    mx_model_head(m, false);
    m->b->read(m->b, ret, m->batch + m->plan.nll, (size_t)m->loss_rows * 4);
    return m->b->sync(m->b, st);
}

mx_code mx_model_label_logits(mx_model *m, const int32_t *id, int64_t ids, float *ret, mx_status *st) {
    int64_t vocab = m->shape.vocab, width = ids ? ids : vocab, chunk = m->plan.logit_rows;
    size_t row_bytes = (size_t)m->shape.hidden * mx_dtype_bytes(mx_activation_type(m->b));
    float *host;

    assert(m->limits.label_logits);
    if (!m->loss_rows) {
        return MX_OK;
    }
    host = malloc((size_t)(chunk * vocab) * sizeof *host);
    if (!host) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for %lld rows of logits", (long long)chunk);
    }
    mx_model_gather(m);
    for (int64_t n = 0; n < m->loss_rows; n += chunk) {
        int64_t rows = m->loss_rows - n < chunk ? m->loss_rows - n : chunk;
        mx_tensor x = mx_tensor_2d((unsigned char *)mx_scratch_at(m, m->plan.loss_y) + (size_t)n * row_bytes,
                                   mx_activation_type(m->b), rows, m->shape.hidden);
        float *logits = mx_scratch_at(m, m->plan.logits);

        m->b->ops->head_logits(m->b, logits, m->head, x);
        m->b->read(m->b, host, logits, (size_t)(rows * vocab) * sizeof *host);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t i = 0; i < width; i++) {
                ret[(n + r) * width + i] = host[r * vocab + (ids ? id[i] : i)];
            }
        }
    }
    free(host);
    return m->b->sync(m->b, st);
}

void mx_model_init_load(const mx_model *m, mx_router_load *ret) {
    mx_router_load_init(ret, m->shape.layers, m->limits.tasks, m->experts);
}

static void add_integers(int64_t *to, const void *from, int64_t n) {
    const int64_t *v = from;

    for (int64_t i = 0; i < n; i++) {
        to[i] += v[i];
    }
}

static void add_reals(double *to, const void *from, int64_t n) {
    const double *v = from;

    for (int64_t i = 0; i < n; i++) {
        to[i] += v[i];
    }
}

size_t mx_model_tally_bytes(const mx_model *m) {
    return m->experts ? m->plan.tally_bytes : 0;
}

void mx_model_queue_load(mx_model *m, void *host) {
    if (m->experts) {
        m->b->queue_read(m->b, host, m->batch + m->plan.tally, m->plan.tally_bytes);
        m->b->zero(m->b, m->batch + m->plan.tally, m->plan.tally_bytes);
    }
}

void mx_model_add_load(const mx_model *m, const void *host, mx_router_load *into) {
    const mx_memory_plan *p = &m->plan;
    const unsigned char *from = host;
    int64_t planes = m->shape.layers * m->limits.tasks, cells = planes * m->experts;

    if (!m->experts) {
        return;
    }
    assert(into->layers == m->shape.layers && into->tasks == m->limits.tasks && into->experts == m->experts);
    add_integers(into->tokens, from + p->tally_tokens, cells);
    add_integers(into->dropped, from + p->tally_dropped, cells);
    add_reals(into->probability, from + p->tally_probability, cells);
    add_integers(into->pairs, from + p->tally_pairs, cells * m->experts);
    add_integers(into->rows, from + p->tally_rows, planes);
    add_reals(into->entropy, from + p->tally_entropy, planes);
}

mx_code mx_model_read_load(mx_model *m, mx_router_load *into, mx_status *st) {
    unsigned char *host;
    mx_code code;

    if (!m->experts) {
        return MX_OK;
    }
    host = malloc(m->plan.tally_bytes);
    if (!host) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory to read the router's load");
    }
    m->b->read(m->b, host, m->batch + m->plan.tally, m->plan.tally_bytes);
    code = m->b->sync(m->b, st);
    if (!code) {
        mx_model_add_load(m, host, into);
        m->b->zero(m->b, m->batch + m->plan.tally, m->plan.tally_bytes);
    }
    free(host);
    return code;
}

/* ------------------------------------------------------------------ for checks */

/* An act tensor as f32 on the host. */
static void read_act(mx_model *m, mx_tensor t, float *ret) {
    int64_t n = t.dim[0] * t.dim[1];

    m->b->read(m->b, ret, t.data, mx_tensor_bytes(&t));
    if (t.dtype == MX_BF16) { /* widened in place, from the end */
        for (int64_t i = n; i-- > 0;) {
            uint16_t half;
            uint32_t bits;

            memcpy(&half, (const char *)ret + 2 * i, 2);
            bits = (uint32_t)half << 16;
            memcpy(&ret[i], &bits, 4);
        }
    }
}

void mx_model_read_hidden(mx_model *m, int64_t layer, float *ret) {
    mx_tensor x;

    assert(m->limits.training && layer >= 0 && layer <= m->shape.layers);
    if (layer < m->shape.layers) {
        read_act(m, mx_stream_at(m, layer + 1), ret);
        return;
    }
    x = mx_act(m, mx_scratch_at(m, m->plan.h), m->shape.hidden);
    m->b->ops->rmsnorm_forward(m->b, x, mx_layer_at(m, 0, m->plan.layer.rstd1), mx_stream_at(m, layer), m->final_norm,
                               (float)m->shape.rms_eps);
    read_act(m, x, ret);
}

void mx_model_read_router(mx_model *m, int64_t layer, float *ret_logits, float *ret_weight, float *ret_passed) {
    const mx_layer_offsets *at = &m->plan.layer;
    int64_t rows = m->rows.rows, e = m->experts, k = m->slots;

    assert(m->experts && m->limits.training);
    if (ret_logits) {
        m->b->read(m->b, ret_logits, mx_layer_at(m, layer, at->logits), (size_t)(rows * e) * 4);
    }
    if (ret_passed) {
        m->b->read(m->b, ret_passed, mx_layer_at(m, layer, at->passed), (size_t)rows * 4);
    }
    if (ret_weight) {
        int32_t *chosen = malloc((size_t)(rows * k) * sizeof *chosen);
        float *gate = malloc((size_t)(rows * k) * sizeof *gate);

        assert(chosen && gate); /* checks only, small batches */
        m->b->read(m->b, chosen, mx_layer_at(m, layer, at->chosen), (size_t)(rows * k) * 4);
        m->b->read(m->b, gate, mx_layer_at(m, layer, at->gates), (size_t)(rows * k) * 4);
        memset(ret_weight, 0, (size_t)(rows * e) * sizeof *ret_weight);
        for (int64_t i = 0; i < rows * k; i++) {
            if (chosen[i] >= 0) {
                ret_weight[i / k * e + chosen[i]] = gate[i];
            }
        }
        free(gate);
        free(chosen);
    }
}

void mx_model_read_input_gradient(mx_model *m, float *ret) {
    assert(m->pass.input_gradient);
    read_act(m, mx_act(m, mx_scratch_at(m, m->plan.dx), m->shape.hidden), ret);
}
