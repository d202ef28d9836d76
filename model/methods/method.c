/* method.c - the list of methods, looked at from outside. */
#include "model/methods/method.h"

#include <assert.h>
#include <string.h>

const mx_method *mx_method_find(const char *name) {
    for (const mx_method *const *m = mx_methods; *m; m++) {
        if (strcmp((*m)->name, name) == 0) {
            return *m;
        }
    }
    return NULL;
}

const mx_option_table *mx_method_options(const char *name) {
    const mx_method *m = mx_method_find(name);

    return m ? m->options : NULL;
}

void *mx_method_word(const mx_method *m, void *config, const char *name) {
    for (const mx_option *o = m->options->option; o->name; o++) {
        if (strcmp(o->name, name) == 0) {
            return (char *)config + o->offset;
        }
    }
    return NULL;
}

double mx_method_total(const mx_method *m, const void *config, const mx_numbers *n, double *ret_aux) {
    double balance = 0, z = 0, aux;

    if (m->coefficients) {
        m->coefficients(config, &balance, &z);
    }
    aux = balance * n->balance + z * n->z;
    if (ret_aux) {
        *ret_aux = aux;
    }
    return n->loss + aux;
}

void *mx_method_defaults(const mx_method *m, mx_arena *arena) {
    void *config = mx_arena_take(arena, m->options->size ? m->options->size : 1);
    mx_problems problems;

    mx_problems_init(&problems);
    mx_option_bind(m->options, NULL, config, arena, &problems, NULL);
    assert(!problems.count); /* a preset that its own table refuses */
    mx_problems_finish(&problems);
    mx_method_resolve(m, config);
    return config;
}
