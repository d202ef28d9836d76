/* report_loads.c - see report_loads.h. */
#include "reports/report_loads.h"

#include <math.h>
#include <string.h>

enum { TASKS_MAX = 64, LAYERS_MAX = 4096, EXPERTS_MAX = 1024 };

const char *mx_loads_windows(const mx_draft *d, const char *runs, bool training) {
    if (training) {
        return mx_arena_text(d->arena, "router_windows w CROSS JOIN %%s WHERE w.run_id IN (%s) AND w.split = 'train' AND w.evaluation_id IS NULL", runs);
    }
    return mx_arena_text(d->arena,
                         "router_windows w CROSS JOIN evaluations e USING (evaluation_id) CROSS JOIN %%s WHERE w.run_id IN (%s)%s%s"
                         " AND e.step = (SELECT MAX(x.step) FROM evaluations x WHERE x.run_id = w.run_id AND x.task = e.task"
                         " AND x.split = e.split AND x.protocol = e.protocol)",
                         runs,
                         d->compare ? mx_arena_text(d->arena, " AND w.split = %s", mx_sql_quote(d->arena, d->compare->split)) : "",
                         d->compare ? mx_arena_text(d->arena, " AND e.protocol = %s", mx_sql_quote(d->arena, d->compare->protocol)) : "");
}

/* The windows' statement with the table joined to them. */
static const char *from(const mx_draft *d, bool training, const char *table) {
    const char *windows = mx_loads_windows(d, d->all, training), *at = strstr(windows, "%s");

    return mx_arena_text(d->arena, "%.*s%s%s", (int)(at - windows), windows, table, at + 2);
}

static mx_code ask(mx_draft *d, bool training, mx_loads *l, mx_status *st) {
    MX_TRY(mx_ask(d->store, d->arena, &l->slots, st, "router: token slots",
                  "SELECT w.run_id, l.task, l.layer, l.expert, SUM(l.tokens) AS slots, SUM(l.dropped) AS dropped FROM %s"
                  " GROUP BY w.run_id, l.task, l.layer, l.expert ORDER BY w.run_id, l.task, l.layer, l.expert",
                  from(d, training, "router_loads l USING (window_id)")));
    return mx_ask(d->store, d->arena, &l->tokens, st, "router: tokens",
                  "SELECT w.run_id, t.task, t.layer, SUM(t.tokens) AS tokens, SUM(t.entropy) AS entropy FROM %s"
                  " GROUP BY w.run_id, t.task, t.layer ORDER BY w.run_id, t.task, t.layer",
                  from(d, training, "router_tokens t USING (window_id)"));
}

static int task_of(const mx_load *l, const char *name) {
    for (int t = 0; t < l->tasks; t++) {
        if (strcmp(l->task[t], name) == 0) {
            return t;
        }
    }
    return -1;
}

/* The rows of one run become arrays. */
static mx_code fill(mx_draft *d, const mx_loads *ls, int64_t run_id, int variant, mx_load *l, bool *ret_routed, mx_status *st) {
    const char **task = MX_TAKE(d->arena, const char *, TASKS_MAX);
    int64_t *slots, *dropped, *tokens;
    double *entropy;

    *l = (mx_load){ .run_id = run_id, .variant = variant, .task = task };
    for (int64_t i = 0; i < ls->slots.rows; i++) {
        const char *name = mx_asked_text(&ls->slots, i, 1);
        int64_t layer = mx_asked_whole(&ls->slots, i, 2), expert = mx_asked_whole(&ls->slots, i, 3);

        if (mx_asked_whole(&ls->slots, i, 0) != run_id) {
            continue;
        }
        if (layer < 0 || layer >= LAYERS_MAX || expert < 0 || expert >= EXPERTS_MAX || (task_of(l, name) < 0 && l->tasks == TASKS_MAX)) {
            return mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: the router of run %lld has layer %lld, expert %lld: more than %d layers, %d experts or %d tasks",
                           mx_store_path(d->store), (long long)run_id, (long long)layer, (long long)expert, LAYERS_MAX, EXPERTS_MAX, TASKS_MAX);
        }
        if (task_of(l, name) < 0) {
            task[l->tasks++] = name;
        }
        l->layers = layer >= l->layers ? (int)layer + 1 : l->layers;
        l->experts = expert >= l->experts ? (int)expert + 1 : l->experts;
    }
    *ret_routed = l->experts > 0;
    l->slots = slots = MX_TAKE(d->arena, int64_t, (int64_t)l->tasks * l->layers * l->experts + 1);
    l->dropped = dropped = MX_TAKE(d->arena, int64_t, (int64_t)l->tasks * l->layers * l->experts + 1);
    l->tokens = tokens = MX_TAKE(d->arena, int64_t, (int64_t)l->tasks * l->layers + 1);
    l->entropy = entropy = MX_TAKE(d->arena, double, (int64_t)l->tasks * l->layers + 1);
    for (int64_t i = 0; i < ls->slots.rows; i++) {
        if (mx_asked_whole(&ls->slots, i, 0) == run_id) {
            int64_t at = ((int64_t)task_of(l, mx_asked_text(&ls->slots, i, 1)) * l->layers + mx_asked_whole(&ls->slots, i, 2)) * l->experts +
                         mx_asked_whole(&ls->slots, i, 3);

            slots[at] = mx_asked_whole(&ls->slots, i, 4);
            dropped[at] = mx_asked_whole(&ls->slots, i, 5);
        }
    }
    for (int64_t i = 0; i < ls->tokens.rows; i++) {
        int t = mx_asked_whole(&ls->tokens, i, 0) == run_id ? task_of(l, mx_asked_text(&ls->tokens, i, 1)) : -1;
        int64_t layer = mx_asked_whole(&ls->tokens, i, 2);

        if (t >= 0 && layer >= 0 && layer < l->layers) {
            tokens[t * l->layers + layer] = mx_asked_whole(&ls->tokens, i, 3);
            entropy[t * l->layers + layer] = mx_asked_number(&ls->tokens, i, 4);
        }
    }
    return MX_OK;
}

mx_code mx_loads_read(mx_draft *d, mx_loads *ret, mx_status *st) {
    int most = 0;

    *ret = (mx_loads){ .when = "the last evaluation" };
    MX_TRY(ask(d, false, ret, st));
    if (ret->slots.rows == 0) {
        ret->training = true;
        ret->when = "the whole training (no evaluation was routed)";
        MX_TRY(ask(d, true, ret, st));
    }
    for (int v = 0; v < d->variants; v++) {
        most += d->variant[v].runs;
    }
    ret->run = MX_TAKE(d->arena, mx_load, most + 1);
    for (int v = 0; v < d->variants; v++) {
        for (int r = 0; r < d->variant[v].runs; r++) {
            bool routed = false;

            MX_TRY(fill(d, ret, d->variant[v].run_id[r], v, &ret->run[ret->runs], &routed, st));
            ret->runs += routed;
        }
    }
    return MX_OK;
}

bool mx_load_share(const mx_load *l, int task, int layer, double *ret) {
    int64_t all = 0;

    for (int e = 0; e < l->experts; e++) {
        int64_t slots = 0;

        for (int t = task < 0 ? 0 : task; t < (task < 0 ? l->tasks : task + 1); t++) {
            slots += l->slots[((int64_t)t * l->layers + layer) * l->experts + e];
        }
        ret[e] = (double)slots;
        all += slots;
    }
    for (int e = 0; e < l->experts; e++) {
        ret[e] = all ? ret[e] / (double)all : NAN;
    }
    return all > 0;
}

double mx_share_entropy(const double *p, int n) {
    double bits = 0;

    for (int e = 0; e < n; e++) {
        bits -= p[e] > 0 ? p[e] * log2(p[e]) : 0;
    }
    return bits + 0.0; /* no -0 */
}

double mx_share_most(const double *p, int n) {
    double most = 0;

    for (int e = 0; e < n; e++) {
        most = p[e] > most ? p[e] : most;
    }
    return most * n;
}

double mx_share_divergence(const double *p, const double *q, int n) {
    double bits = 0; /* as the mean of the two Kullback-Leibler divergences from the middle: no difference of nearly equal entropies */

    for (int e = 0; e < n; e++) {
        double m = (p[e] + q[e]) / 2;

        bits += (p[e] > 0 ? p[e] * log2(p[e] / m) : 0) + (q[e] > 0 ? q[e] * log2(q[e] / m) : 0);
    }
    return bits > 0 ? bits / 2 : 0;
}

int mx_loads_first(const mx_loads *l, int variant) {
    for (int i = 0; i < l->runs; i++) {
        if (l->run[i].variant == variant) {
            return i;
        }
    }
    return -1;
}

int mx_load_uneven(const mx_load *l) {
    double p[EXPERTS_MAX], most = -1;
    int layer = 0;

    for (int i = 0; i < l->layers; i++) {
        if (mx_load_share(l, -1, i, p) && mx_share_most(p, l->experts) > most) {
            most = mx_share_most(p, l->experts);
            layer = i;
        }
    }
    return layer;
}
