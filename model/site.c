/* site.c - names and sizes of the seven linears. */
#include "model/site.h"

#include <assert.h>

const char *const mx_site_names[MX_SITES + 1] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", NULL,
};

const char *mx_site_module(mx_site s) {
    static const char *const module[MX_SITES] = {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",
    };

    assert(s < MX_SITES);
    return module[s];
}

void mx_site_size(const mx_shape *shape, mx_site s, int64_t *ret_out, int64_t *ret_in) {
    int64_t attention = shape->heads * shape->head_dim, pair = shape->kv_heads * shape->head_dim;

    switch (s) {
    case MX_SITE_Q:
        *ret_out = attention, *ret_in = shape->hidden;
        return;
    case MX_SITE_K:
    case MX_SITE_V:
        *ret_out = pair, *ret_in = shape->hidden;
        return;
    case MX_SITE_O:
        *ret_out = shape->hidden, *ret_in = attention;
        return;
    case MX_SITE_GATE:
    case MX_SITE_UP:
        *ret_out = shape->inner, *ret_in = shape->hidden;
        return;
    case MX_SITE_DOWN:
        *ret_out = shape->hidden, *ret_in = shape->inner;
        return;
    case MX_SITES:
        break;
    }
    assert(!"a site");
}

bool mx_site_has_bias(const mx_shape *shape, mx_site s) {
    return s <= MX_SITE_V ? shape->qkv_bias : s == MX_SITE_O ? shape->output_bias : shape->mlp_bias;
}

uint32_t mx_input_noise_site(int64_t layer, mx_input input) {
    /* 4096 numbers a layer leave room for a down-projection input per slot. */
    return (uint32_t)layer * 4096 + (uint32_t)input;
}
