/* adapter.c - values by place, and by their names on disk. */
#include "model/adapter.h"

#include "model/methods/method.h"

#include <stdlib.h>
#include <string.h>

float *mx_adapter_value(const mx_adapter *a, mx_scope scope, int64_t layer, mx_site site, int role) {
    const mx_declaration *d = mx_layout_find(a->layout, scope, layer, site, role);

    return d ? a->value[d->kind] + d->offset : NULL;
}

float *mx_adapter_gradient(const mx_adapter *a, mx_scope scope, int64_t layer, mx_site site, int role) {
    const mx_declaration *d = a->gradient ? mx_layout_find(a->layout, scope, layer, site, role) : NULL;

    return d && d->kind == MX_KIND_TRAINED ? a->gradient + d->offset : NULL;
}

static bool saved(const mx_declaration *d) {
    return d->kind == MX_KIND_TRAINED || d->kind == MX_KIND_FROZEN;
}

/* Host memory for the values of both saved kinds; free() it. */
static mx_code host_values(const mx_adapter *a, float *ret[MX_KINDS], mx_status *st) {
    static const mx_kind kinds[] = { MX_KIND_TRAINED, MX_KIND_FROZEN };

    memset(ret, 0, MX_KINDS * sizeof *ret);
    for (size_t i = 0; i < 2; i++) {
        size_t bytes = (size_t)a->layout->size[kinds[i]] * sizeof(float);

        ret[kinds[i]] = malloc(bytes + 1);
        if (!ret[kinds[i]]) {
            return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for a host copy of the adapter (%s)",
                           mx_text_bytes(bytes));
        }
    }
    return MX_OK;
}

mx_code mx_adapter_export(const mx_adapter *a, const char *base_name, const char *folder, mx_status *st) {
    const mx_layout *l = a->layout;
    mx_backend *b = a->backend;
    float *host[MX_KINDS];
    mx_named_values *list = NULL;
    json_t *config = NULL;
    size_t parts = 0, n = 0;
    mx_arena names;
    mx_code code;

    mx_arena_init(&names, (size_t)1 << 28);
    code = host_values(a, host, st);
    if (code) {
        goto done;
    }
    for (size_t i = 0; i < l->count; i++) {
        parts += saved(&l->item[i]) ? (size_t)l->item[i].parts : 0;
    }
    list = MX_TAKE(&names, mx_named_values, parts + 1);
    for (int k = 0; k < MX_KINDS; k++) {
        if (host[k] && l->size[k]) {
            b->read(b, host[k], a->value[k], (size_t)l->size[k] * sizeof(float));
        }
    }
    code = b->sync(b, st);
    if (code) {
        goto done;
    }
    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        for (int64_t p = 0; saved(d) && p < d->parts; p++) {
            list[n++] = (mx_named_values){ .name = mx_layout_name(l, d, p, &names), .rank = d->rank,
                                           .dim = { d->dim[0], d->dim[1], 1, 1 },
                                           .data = host[d->kind] + d->offset + p * d->dim[0] * d->dim[1] };
        }
    }
    config = mx_adapter_config_write(l->method, l->config, base_name);
    code = mx_adapter_save(folder, list, n, config, st);
done:
    json_decref(config);
    for (int k = 0; k < MX_KINDS; k++) {
        free(host[k]);
    }
    mx_arena_finish(&names);
    return code;
}

mx_code mx_adapter_import(mx_adapter *a, mx_adapter_file *f, mx_status *st) {
    const mx_layout *l = a->layout;
    mx_backend *b = a->backend;
    float *host[MX_KINDS];
    mx_arena names;
    mx_code code;

    mx_arena_init(&names, (size_t)1 << 28);
    code = host_values(a, host, st);
    for (int k = 0; !code && k < MX_KINDS; k++) {
        if (host[k]) {
            memset(host[k], 0, (size_t)l->size[k] * sizeof(float)); /* the gaps between tensors */
        }
    }
    for (size_t i = 0; !code && i < l->count; i++) {
        const mx_declaration *d = &l->item[i];

        for (int64_t p = 0; !code && saved(d) && p < d->parts; p++) {
            code = mx_adapter_read(f, mx_layout_name(l, d, p, &names), d->rank, d->dim,
                                   host[d->kind] + d->offset + p * d->dim[0] * d->dim[1], st);
        }
    }
    if (!code) {
        code = mx_adapter_check_all_read(f, st);
    }
    for (int k = 0; !code && k < MX_KINDS; k++) {
        if (host[k] && l->size[k]) {
            b->write(b, a->value[k], host[k], (size_t)l->size[k] * sizeof(float));
        }
    }
    a->stale = true;
    for (int k = 0; k < MX_KINDS; k++) {
        free(host[k]);
    }
    mx_arena_finish(&names);
    return code;
}
