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
