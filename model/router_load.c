/* router_load.c - the sums of a window, and the two figures a person looks at first. */
#include "model/router_load.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void *zeroed(int64_t count) {
    void *p = calloc((size_t)count, 8);

    assert(p || !count); /* a few megabytes at most */
    return p;
}

void mx_router_load_init(mx_router_load *l, int64_t layers, int64_t tasks, int64_t experts) {
    int64_t cells = layers * tasks * experts;

    *l = (mx_router_load){ .layers = layers, .tasks = tasks, .experts = experts };
    if (!cells) {
        return;
    }
    l->tokens = zeroed(cells);
    l->dropped = zeroed(cells);
    l->probability = zeroed(cells);
    l->entropy = zeroed(layers * tasks);
    l->rows = zeroed(layers * tasks);
    l->pairs = zeroed(cells * experts);
}

void mx_router_load_finish(mx_router_load *l) {
    free(l->tokens);
    free(l->dropped);
    free(l->probability);
    free(l->entropy);
    free(l->rows);
    free(l->pairs);
    *l = (mx_router_load){ 0 };
}

void mx_router_load_clear(mx_router_load *l) {
    size_t cells = (size_t)(l->layers * l->tasks * l->experts), planes = (size_t)(l->layers * l->tasks);

    if (!cells) {
        return;
    }
    memset(l->tokens, 0, 8 * cells);
    memset(l->dropped, 0, 8 * cells);
    memset(l->probability, 0, 8 * cells);
    memset(l->entropy, 0, 8 * planes);
    memset(l->rows, 0, 8 * planes);
    memset(l->pairs, 0, 8 * cells * (size_t)l->experts);
}

void mx_router_load_add(mx_router_load *to, const mx_router_load *from) {
    int64_t cells = to->layers * to->tasks * to->experts;

    assert(to->layers == from->layers && to->tasks == from->tasks && to->experts == from->experts);
    for (int64_t i = 0; i < cells; i++) {
        to->tokens[i] += from->tokens[i];
        to->dropped[i] += from->dropped[i];
        to->probability[i] += from->probability[i];
    }
    for (int64_t i = 0; cells && i < to->layers * to->tasks; i++) {
        to->entropy[i] += from->entropy[i];
        to->rows[i] += from->rows[i];
    }
    for (int64_t i = 0; i < cells * to->experts; i++) {
        to->pairs[i] += from->pairs[i];
    }
}

void mx_router_load_balance(const mx_router_load *l, double *ret_max_over_mean, int64_t *ret_dead) {
    int64_t total = 0, most = 0;

    *ret_dead = 0;
    for (int64_t e = 0; e < l->experts; e++) {
        int64_t all = 0;

        for (int64_t i = 0; i < l->layers; i++) {
            int64_t here = 0;

            for (int64_t t = 0; t < l->tasks; t++) {
                here += l->tokens[mx_router_load_at(l, i, t, e)];
            }
            *ret_dead += here == 0;
            all += here;
        }
        total += all;
        most = all > most ? all : most;
    }
    *ret_max_over_mean = total ? (double)most * (double)l->experts / (double)total : 1;
    *ret_dead = total ? *ret_dead : 0;
}
