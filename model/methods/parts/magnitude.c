/* magnitude.c - see magnitude.h. */
#include "model/methods/parts/magnitude.h"

#include <assert.h>
#include <stdlib.h>

void mx_magnitude_declare(mx_layout *l, const mx_low_rank_words *w, int64_t layer, mx_site site, int64_t experts) {
    int64_t out, in;
    mx_declaration d = { .kind = MX_KIND_TRAINED, .scope = MX_SCOPE_SITE, .layer = layer, .site = site,
                         .role = MX_ROLE_MAGNITUDE, .parts = experts ? experts : 1, .experts = experts > 0, .rank = 1,
                         .lr_ratio = w->loraplus_lr_ratio, .decays = true, .derives = true,
                         .part = "lora_magnitude_vector" };

    mx_site_size(l->shape, site, &out, &in);
    d.dim[0] = out;
    mx_layout_add(l, &d);
    d.kind = MX_KIND_DERIVED;
    d.part = NULL;
    d.role = MX_ROLE_NORM;
    mx_layout_add(l, &d);
    d.role = MX_ROLE_FACTOR;
    mx_layout_add(l, &d);
    d.kind = MX_KIND_SUMMED;
    d.role = MX_ROLE_FACTOR_GRADIENT;
    mx_layout_add(l, &d);
}

static float *factor_gradient(const mx_adapter *a, int64_t layer, mx_site site) {
    return a->gradient ? mx_adapter_value(a, MX_SCOPE_SITE, layer, site, MX_ROLE_FACTOR_GRADIENT) : NULL;
}

void mx_magnitude_linear(const mx_adapter *a, int64_t layer, mx_site site, mx_linear *ret) {
    ret->c = mx_adapter_value(a, MX_SCOPE_SITE, layer, site, MX_ROLE_FACTOR);
    ret->dc = factor_gradient(a, layer, site);
}

void mx_magnitude_expert(const mx_adapter *a, int64_t layer, mx_site site, mx_expert_linear *ret) {
    ret->c = mx_adapter_value(a, MX_SCOPE_SITE, layer, site, MX_ROLE_FACTOR);
    ret->dc = factor_gradient(a, layer, site);
}

/* The op's struct for a declared magnitude; pointers only where there is an adapter. */
static mx_dora dora_of(const mx_layout *l, const mx_declaration *d, mx_low_rank_words w) {
    mx_dora ret = { .rank = w.r, .experts = d->parts,
                    .scale = (float)mx_low_rank_scale(w.r, w.alpha, w.rslora) };

    mx_site_size(l->shape, d->site, &ret.out, &ret.in);
    return ret;
}

size_t mx_magnitude_scratch_bytes(const mx_layout *l, const mx_backend *b, mx_magnitude_words words) {
    size_t most = 0;

    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        if (d->role == MX_ROLE_MAGNITUDE) {
            mx_dora op = dora_of(l, d, words(l->config, d->site));
            size_t bytes = b->ops->dora_scratch_bytes(b, &op);

            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

typedef void (*dora_op)(mx_backend *q, const mx_dora *d);

static void each(mx_adapter *a, const mx_frozen *base, mx_magnitude_words words, dora_op op) {
    const mx_layout *l = a->layout;

    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        if (d->role == MX_ROLE_MAGNITUDE) {
            mx_dora x = dora_of(l, d, words(l->config, d->site));

            x.w = base->weight[d->layer * MX_SITES + d->site];
            x.a = mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_A);
            x.b = mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_B);
            x.m = mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_MAGNITUDE);
            x.n = mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_NORM);
            x.c = mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_FACTOR);
            x.dc = mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_FACTOR_GRADIENT);
            x.dm = mx_adapter_gradient(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_MAGNITUDE);
            op(a->backend, &x);
        }
    }
}

void mx_magnitude_refresh(mx_adapter *a, const mx_frozen *base, mx_magnitude_words words) {
    each(a, base, words, a->backend->ops->dora_forward);
}

void mx_magnitude_gradient(mx_adapter *a, const mx_frozen *base, mx_magnitude_words words) {
    each(a, base, words, a->backend->ops->dora_backward);
}

/* Through the same op that computes n later, so that c is exactly 1 at step 0. */
void mx_magnitude_start(mx_adapter *a, const mx_frozen *base, mx_magnitude_words words) {
    const mx_layout *l = a->layout;

    mx_magnitude_refresh(a, base, words);
    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        if (d->role == MX_ROLE_MAGNITUDE) {
            size_t bytes = (size_t)d->count * sizeof(float);
            float *host = malloc(bytes);

            assert(host); /* one row of an op's outputs */
            a->backend->read(a->backend, host, mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_NORM),
                             bytes);
            a->backend->write(a->backend,
                              mx_adapter_value(a, MX_SCOPE_SITE, d->layer, d->site, MX_ROLE_MAGNITUDE), host, bytes);
            free(host);
        }
    }
    a->stale = true;
}
