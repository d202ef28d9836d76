/* routed.c - see routed.h; its words are in routed_words.c. */
#include "model/methods/parts/routed.h"

#include <assert.h>

static bool in_ffn(mx_site site) {
    return site >= MX_SITE_GATE;
}

mx_low_rank_words mx_routed_words_at(const void *config, mx_site site) {
    const mx_routed_words *w = config;
    mx_low_rank_words ret = w->lora;

    if (in_ffn(site)) {
        ret.r = w->expert.r;
        ret.alpha = w->expert.alpha;
        ret.dropout = w->expert.dropout;
        ret.rslora = w->expert.rslora > 0;
    }
    return ret;
}

void mx_routed_layout(const mx_routed_words *w, bool dora, mx_layout *l) {
    for (int64_t i = 0; i < l->shape->layers; i++) {
        mx_declaration router = { .kind = MX_KIND_TRAINED, .scope = MX_SCOPE_FFN, .layer = i, .role = MX_ROLE_ROUTER,
                                  .parts = 1, .rank = 2, .dim = { w->num_experts, l->shape->hidden }, .lr_ratio = 1,
                                  .decays = true, .router = true, .module = "mlp.moe_gate", .part = "weight" };

        for (int s = 0; s < MX_SITES; s++) {
            mx_low_rank_words here = mx_routed_words_at(w, (mx_site)s);
            int64_t experts = in_ffn((mx_site)s) ? w->num_experts : 0;

            if (!(w->lora.targets >> s & 1)) {
                continue;
            }
            mx_low_rank_declare(l, &here, i, (mx_site)s, experts);
            if (dora) {
                mx_magnitude_declare(l, &here, i, (mx_site)s, experts);
            }
        }
        mx_layout_add(l, &router);
    }
}

void mx_routed_init(const mx_layout *l, const mx_declaration *d, int64_t part, float *to, mx_rng *rng) {
    const mx_routed_words *w = l->config;
    mx_low_rank_words words = mx_routed_words_at(w, d->site);

    (void)part;
    if (d->role != MX_ROLE_ROUTER) {
        mx_low_rank_init(&words, d, to, rng);
        return;
    }
    for (int64_t i = 0; i < d->count; i++) {
        to[i] = (float)(mx_rng_normal(rng) * w->init_range);
    }
}

int64_t mx_routed_experts(const void *config) {
    return ((const mx_routed_words *)config)->num_experts;
}

int64_t mx_routed_slots(const void *config) {
    const mx_routed_words *w = config;

    return w->routing == MX_ROUTE_TOP_K ? w->top_k : w->routing == MX_ROUTE_SWITCH ? 1 : w->num_experts;
}

bool mx_routed_slots_vary(const void *config) {
    return ((const mx_routed_words *)config)->routing == MX_ROUTE_TOP_P;
}

/* The gates of top_p and switch do not sum to 1, so they scale the block from the start. */
bool mx_routed_starts_at_base(const void *config) {
    return ((const mx_routed_words *)config)->routing == MX_ROUTE_TOP_K;
}

double mx_routed_dropout(const void *config, mx_input input) {
    const mx_routed_words *w = config;

    return input >= MX_INPUT_FFN ? w->expert.dropout : w->lora.dropout;
}

double mx_routed_jitter(const void *config) {
    return ((const mx_routed_words *)config)->jitter;
}

void mx_routed_coefficients(const void *config, double *ret_balance, double *ret_z) {
    const mx_routed_words *w = config;

    *ret_balance = w->balance_coef;
    *ret_z = w->routing == MX_ROUTE_SWITCH ? w->z_coef : 0;
}

void mx_routed_linear(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret) {
    assert(!in_ffn(site));
    mx_low_rank_linear(a, &((const mx_routed_words *)a->layout->config)->lora, layer, site, ret);
}

static void fill_expert(const mx_adapter *a, const mx_low_rank_words *w, int64_t layer, mx_site site,
                        mx_expert_linear *ret) {
    ret->a = mx_adapter_value(a, MX_SCOPE_SITE, layer, site, MX_ROLE_A);
    ret->b = mx_adapter_value(a, MX_SCOPE_SITE, layer, site, MX_ROLE_B);
    ret->da = mx_adapter_gradient(a, MX_SCOPE_SITE, layer, site, MX_ROLE_A);
    ret->db = mx_adapter_gradient(a, MX_SCOPE_SITE, layer, site, MX_ROLE_B);
    ret->rank = w->r;
    ret->scale = (float)mx_low_rank_scale(w->r, w->alpha, w->rslora);
    mx_magnitude_expert(a, layer, site, ret); /* NULL where none is declared */
}

void mx_routed_ffn(const mx_adapter *a, int64_t layer, mx_router *router, mx_experts *experts) {
    const mx_routed_words *w = a->layout->config;
    mx_low_rank_words expert = mx_routed_words_at(w, MX_SITE_GATE);

    router->routing = (mx_routing)w->routing;
    router->top_p = w->top_p;
    router->temperature = w->temperature;
    router->capacity = w->capacity;
    mx_routed_coefficients(w, &router->balance_coef, &router->z_coef);
    router->w = mx_adapter_value(a, MX_SCOPE_FFN, layer, MX_SITES, MX_ROLE_ROUTER);
    router->dw = mx_adapter_gradient(a, MX_SCOPE_FFN, layer, MX_SITES, MX_ROLE_ROUTER);
    experts->form = (mx_experts_form)w->form;
    fill_expert(a, &expert, layer, MX_SITE_GATE, &experts->gate_proj);
    fill_expert(a, &expert, layer, MX_SITE_UP, &experts->up_proj);
    fill_expert(a, &expert, layer, MX_SITE_DOWN, &experts->down_proj);
}
