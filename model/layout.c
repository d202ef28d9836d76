/* layout.c - declarations collected, ordered into learning-rate groups, given offsets, and found again. */
#include "model/layout.h"

#include "model/methods/method.h"

#include <assert.h>
#include <string.h>

enum { ALIGN = 16 }; /* values; 64 bytes */
enum { PLACE_ATTENTION = MX_SITES, PLACE_FFN, PLACE_LAYER, PLACE_ADAPTER, PLACES };

static int place_of(mx_scope scope, mx_site site) {
    switch (scope) {
    case MX_SCOPE_SITE:
        assert(site < MX_SITES);
        return (int)site;
    case MX_SCOPE_ATTENTION:
        return PLACE_ATTENTION;
    case MX_SCOPE_FFN:
        return PLACE_FFN;
    case MX_SCOPE_LAYER:
        return PLACE_LAYER;
    case MX_SCOPE_ADAPTER:
        return PLACE_ADAPTER;
    }
    assert(!"a scope");
    return 0;
}

static int32_t *slot(const mx_layout *l, mx_scope scope, int64_t layer, mx_site site, int role) {
    assert(layer >= 0 && layer < l->shape->layers && role >= 0 && role < MX_ROLES);
    return &l->index[(layer * PLACES + place_of(scope, site)) * MX_ROLES + role];
}

void mx_layout_add(mx_layout *l, const mx_declaration *d) {
    mx_declaration *to;

    assert(d->parts >= 1 && d->rank >= 1 && d->rank <= 2 && d->dim[0] >= 1);
    if (l->count == l->capacity) {
        mx_declaration *old = l->item;

        l->capacity = l->capacity ? 2 * l->capacity : 256;
        l->item = MX_TAKE(l->arena, mx_declaration, l->capacity);
        if (old) {
            memcpy(l->item, old, l->count * sizeof *old);
        }
    }
    to = &l->item[l->count];
    *to = *d;
    if (to->rank == 1) {
        to->dim[1] = 1;
    }
    if (!to->module && to->scope == MX_SCOPE_SITE) {
        to->module = mx_site_module(to->site);
    }
    to->count = to->parts * to->dim[0] * to->dim[1];
    assert(*slot(l, to->scope, to->layer, to->site, to->role) < 0);
    *slot(l, to->scope, to->layer, to->site, to->role) = (int32_t)l->count++;
}

static int64_t group_of(mx_layout *l, const mx_declaration *d) {
    for (int64_t g = 0; g < l->groups; g++) {
        if (l->group[g].lr_ratio == d->lr_ratio && l->group[g].decays == d->decays) {
            return g;
        }
    }
    assert(l->groups < MX_GROUPS_MAX);
    l->group[l->groups] = (mx_layout_group){ .lr_ratio = d->lr_ratio, .decays = d->decays };
    return l->groups++;
}

static void place(mx_layout *l, mx_declaration *d) {
    d->offset = l->size[d->kind];
    l->size[d->kind] += (d->count + ALIGN - 1) / ALIGN * ALIGN;
}

const mx_layout *mx_layout_make(const mx_method *method, const void *config, const mx_shape *shape, mx_arena *arena) {
    mx_layout *l = MX_TAKE(arena, mx_layout, 1);
    size_t slots = (size_t)shape->layers * PLACES * MX_ROLES;

    l->method = method;
    l->config = config;
    l->shape = shape;
    l->arena = arena;
    l->index = MX_TAKE(arena, int32_t, slots);
    memset(l->index, 0xff, slots * sizeof *l->index); /* -1 */
    method->layout(config, l);
    for (size_t i = 0; i < l->count; i++) {
        mx_declaration *d = &l->item[i];

        if (d->kind != MX_KIND_TRAINED) {
            place(l, d);
            continue;
        }
        assert(d->lr_ratio > 0);
        l->trained += d->count;
        l->trained_router += d->router ? d->count : 0;
        (void)group_of(l, d);
    }
    for (int64_t g = 0; g < l->groups; g++) { /* the optimizer wants few, long runs */
        l->group[g].begin = l->size[MX_KIND_TRAINED];
        for (size_t i = 0; i < l->count; i++) {
            if (l->item[i].kind == MX_KIND_TRAINED && group_of(l, &l->item[i]) == g) {
                place(l, &l->item[i]);
            }
        }
        l->group[g].count = l->size[MX_KIND_TRAINED] - l->group[g].begin;
    }
    return l;
}

double mx_layout_flops(const mx_layout *l) {
    double values = 0;

    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];
        int64_t used = d->parts;

        if (d->kind != MX_KIND_TRAINED || d->rank != 2) {
            continue;
        }
        if (d->experts && l->method->slots && l->method->slots(l->config) < used) {
            used = l->method->slots(l->config);
        }
        values += (double)used * (double)d->dim[0] * (double)d->dim[1];
    }
    return 6 * values;
}

double mx_shape_flops(const mx_shape *s) {
    double values = (double)s->vocab * (double)s->hidden;
    int64_t out, in;

    for (int site = 0; site < MX_SITES; site++) {
        mx_site_size(s, (mx_site)site, &out, &in);
        values += (double)s->layers * (double)out * (double)in;
    }
    return 4 * values;
}

const mx_declaration *mx_layout_find(const mx_layout *l, mx_scope scope, int64_t layer, mx_site site, int role) {
    int32_t i = *slot(l, scope, layer, site, role);

    return i < 0 ? NULL : &l->item[i];
}

const char *mx_layout_name(const mx_layout *l, const mx_declaration *d, int64_t part, mx_arena *arena) {
    if (d->scope == MX_SCOPE_ADAPTER) {
        return d->part;
    }
    assert(part >= 0 && part < d->parts && (d->experts || d->parts == 1));
    return mx_adapter_name(arena, l->method->names, d->layer, d->module, d->experts ? part : -1, d->part);
}
