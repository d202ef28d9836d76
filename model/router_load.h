/* router_load.h - what routers did over a window, on the host: integers and sums, by layer, task, expert.
 *
 * Shares, entropies, imbalance and dead experts are derived from these, here for the terminal and in SQL for reports. */
#ifndef MODEL_ROUTER_LOAD_H
#define MODEL_ROUTER_LOAD_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mx_router_load {
    int64_t layers, tasks, experts;
    int64_t *tokens, *dropped; /* [layer][task][expert]: slots computed; past the capacity */
    double *probability;       /* [layer][task][expert]: sum of softmax over all experts */
    double *entropy;           /* [layer][task]: sum of token entropies, nats */
    int64_t *rows;             /* [layer][task]: tokens seen */
    int64_t *pairs;            /* [layer][task][expert][expert], i < j: used by one token together */
} mx_router_load;

/* Zeroed memory; with experts 0 everything is NULL. */
void mx_router_load_init(mx_router_load *l, int64_t layers, int64_t tasks, int64_t experts);
void mx_router_load_finish(mx_router_load *l); /* zeroed is fine */
void mx_router_load_clear(mx_router_load *l);
void mx_router_load_add(mx_router_load *to, const mx_router_load *from); /* of the same sizes */

static inline int64_t mx_router_load_at(const mx_router_load *l, int64_t layer, int64_t task, int64_t expert) {
    return (layer * l->tasks + task) * l->experts + expert;
}
/* Over all layers and tasks: largest share times E (1 is even), and experts of any layer that got nothing. 0 rows: 1, 0. */
void mx_router_load_balance(const mx_router_load *l, double *ret_max_over_mean, int64_t *ret_dead);

#endif
