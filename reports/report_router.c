/* report_router.c - where the router sent the tokens: by layer and expert, task by task, and over training. */
#include "reports/chart.h"
#include "reports/report_loads.h"

#include <math.h>
#include <string.h>

enum { WINDOWS = 24 }; /* columns of a picture of training */

/* Why only one run of several is drawn. */
static const char *which_run(mx_draft *d, const mx_load *l) {
    const mx_draft_variant *v = &d->variant[l->variant];

    return v->runs < 2 ? mx_arena_text(d->arena, "Run %lld.", (long long)l->run_id)
                       : mx_arena_text(d->arena, "Run %lld (the first seed: experts of different seeds are not the same experts, so seeds are not averaged; mixrun report RUN draws another).",
                                       (long long)l->run_id);
}

/* Layer by expert, one panel a task. The colours end at the variant's own largest share: on a common scale one router that sends all
 * to one expert would leave the others blank. */
static void by_task(mx_draft *d, const mx_loads *ls, const mx_load *l) {
    const mx_asked *list[] = { &ls->slots, &ls->tokens };
    mx_heat_panel *panel = MX_TAKE(d->arena, mx_heat_panel, l->tasks);
    const char *id = mx_arena_text(d->arena, "router-%d", l->variant + 1);
    double most = 0;
    mx_text svg;

    for (int t = 0; t < l->tasks; t++) {
        double *value = MX_TAKE(d->arena, double, (int64_t)l->layers * l->experts);

        for (int i = 0; i < l->layers; i++) {
            mx_load_share(l, t, i, value + (int64_t)i * l->experts);
        }
        for (int64_t k = 0; k < (int64_t)l->layers * l->experts; k++) {
            value[k] *= 100;
            most = value[k] > most ? value[k] : most;
        }
        panel[t] = (mx_heat_panel){ .title = l->task[t], .row_word = "layer", .column_word = "expert", .rows = l->layers, .columns = l->experts, .value = value };
    }
    mx_text_init(&svg, (size_t)256 << 20);
    mx_chart_heat(&(mx_heat_chart){ .chart = { id, mx_arena_text(d->arena, "Router load of %s", d->variant[l->variant].name),
                                               "One panel a task; a row a layer, a column an expert; the darker (in the dark: the brighter), the larger the expert's share of its layer's token slots." },
                                    .label = "share of the layer's token slots, %", .low = 0, .high = most, .mark = 100.0 / l->experts,
                                    .mark_word = mx_arena_text(d->arena, "even: %.1f %%", 100.0 / l->experts), .panel = panel, .panels = l->tasks },
                  &svg);
    mx_draft_drawing(d, id, mx_arena_text(d->arena, "%s: each expert's share of its layer's token slots, by task, in %s. Colours are on this variant's own scale. %s",
                                   d->variant[l->variant].name, ls->when, which_run(d, l)),
                     &svg, mx_arena_text(d->arena, "Run %lld.", (long long)l->run_id),
                     "share = slots / sum of slots over the experts of the same task and layer, of this run.", list, 2);
}

/* --- over training --- */

typedef struct course {
    mx_asked asked;
    const char **column; /* the last step of each group of windows */
    int columns;
    double *share;       /* (layers, experts, columns) */
} course;

static mx_code ask_course(mx_draft *d, const mx_load *l, course *c, mx_status *st) {
    mx_asked count;
    int64_t together;

    MX_TRY(mx_ask(d->store, d->arena, &count, st, "windows",
                  "SELECT COUNT(*) FROM router_windows WHERE run_id = %lld AND split = 'train' AND evaluation_id IS NULL", (long long)l->run_id));
    together = (mx_asked_whole(&count, 0, 0) + WINDOWS - 1) / WINDOWS;
    together = together < 1 ? 1 : together;
    MX_TRY(mx_ask(d->store, d->arena, &c->asked, st, "router: training",
                  "WITH w AS (SELECT window_id, last_step, (ROW_NUMBER() OVER (ORDER BY first_step, window_id) - 1) / %lld AS part FROM router_windows"
                  " WHERE run_id = %lld AND split = 'train' AND evaluation_id IS NULL)"
                  " SELECT w.part, l.layer, l.expert, SUM(l.tokens) AS slots, MAX(w.last_step) AS last_step FROM w CROSS JOIN router_loads l USING (window_id)"
                  " GROUP BY w.part, l.layer, l.expert ORDER BY w.part, l.layer, l.expert",
                  (long long)together, (long long)l->run_id));
    c->column = MX_TAKE(d->arena, const char *, WINDOWS + 1);
    c->share = MX_TAKE(d->arena, double, (int64_t)l->layers * l->experts * WINDOWS + 1);
    for (int64_t i = 0; i < c->asked.rows; i++) {
        int64_t part = mx_asked_whole(&c->asked, i, 0), layer = mx_asked_whole(&c->asked, i, 1), expert = mx_asked_whole(&c->asked, i, 2);

        if (layer < 0 || layer >= l->layers || expert < 0 || expert >= l->experts || part < 0 || part >= WINDOWS) {
            return mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: run %lld has router loads in training of layers or experts that its evaluation lacks",
                           mx_store_path(d->store), (long long)l->run_id);
        }
        c->columns = part >= c->columns ? (int)part + 1 : c->columns;
        c->column[part] = mx_asked_text(&c->asked, i, 4);
        c->share[(layer * l->experts + expert) * WINDOWS + part] = mx_asked_number(&c->asked, i, 3);
    }
    for (int64_t layer = 0; layer < l->layers; layer++) { /* slots become shares */
        for (int k = 0; k < c->columns; k++) {
            double all = 0;

            for (int64_t e = 0; e < l->experts; e++) {
                all += c->share[(layer * l->experts + e) * WINDOWS + k];
            }
            for (int64_t e = 0; e < l->experts; e++) {
                double *x = &c->share[(layer * l->experts + e) * WINDOWS + k];

                *x = all > 0 ? *x / all : NAN;
            }
        }
    }
    return MX_OK;
}

static void draw_course(mx_draft *d, const mx_load *l, const course *c) {
    const mx_asked *list[] = { &c->asked };
    const char *id = mx_arena_text(d->arena, "router-course-%d", l->variant + 1), *name = d->variant[l->variant].name;
    double *most = MX_TAKE(d->arena, double, (int64_t)l->layers * c->columns), *one = MX_TAKE(d->arena, double, (int64_t)l->experts * c->columns);
    double high = 1, mean, worst = -1;
    int uneven = 0;
    mx_text svg;

    for (int layer = 0; layer < l->layers; layer++) {
        mean = 0;
        for (int k = 0; k < c->columns; k++) {
            double *x = &most[(int64_t)layer * c->columns + k];

            *x = 0;
            for (int64_t e = 0; e < l->experts; e++) {
                *x = fmax(*x, c->share[((int64_t)layer * l->experts + e) * WINDOWS + k] * l->experts);
            }
            high = fmax(high, *x);
            mean += *x / c->columns;
        }
        if (mean > worst) {
            worst = mean;
            uneven = layer;
        }
    }
    for (int64_t e = 0; e < l->experts; e++) {
        for (int k = 0; k < c->columns; k++) { /* on max/mean's own scale, so that one colour bar serves both */
            one[e * c->columns + k] = c->share[((int64_t)uneven * l->experts + e) * WINDOWS + k] * l->experts;
        }
    }
    mx_text_init(&svg, (size_t)256 << 20);
    mx_chart_heat(&(mx_heat_chart){
                      .chart = { id, mx_arena_text(d->arena, "Router load of %s over training", name),
                                 "Two panels over the steps of training: the largest load over the mean by layer, and every expert's load over the mean in the most uneven layer." },
                      .label = "load over the mean (1: even)", .low = 0, .high = high, .mark = 1, .mark_word = "even: 1",
                      .panel = (mx_heat_panel[]){ { .title = "largest expert of each layer", .row_word = "layer", .column_word = "until step", .rows = l->layers,
                                                    .columns = c->columns, .value = most, .column = c->column },
                                                  { .title = mx_arena_text(d->arena, "experts of layer %d, the most uneven", uneven), .row_word = "expert",
                                                    .column_word = "until step", .rows = l->experts, .columns = c->columns, .value = one, .column = c->column } },
                      .panels = 2 },
                  &svg);
    mx_draft_drawing(d, id, mx_arena_text(d->arena, "%s over training: load over the mean load, all tasks together; columns are router windows, named by their last step. %s", name, which_run(d, l)),
                     &svg, mx_arena_text(d->arena, "Run %lld.", (long long)l->run_id),
                     "load over the mean = experts x slots / sum of slots over the experts of the same layer and windows; the most uneven layer has the largest mean over the columns of its maximum.",
                     list, 1);
}

mx_code mx_draft_router(mx_draft *d, mx_status *st) {
    mx_loads ls;

    MX_TRY(mx_loads_read(d, &ls, st));
    if (ls.runs == 0) {
        return MX_OK; /* nothing was routed: no section */
    }
    mx_page_section(d->page, "router", "What the router did");
    mx_page_words(d->page, "", "A token slot is one token computed by one expert: a token routed to two experts takes two. Loads are counts kept while running, not estimates.");
    MX_TRY(mx_draft_balance(d, &ls, st));
    mx_page_heading(d->page, "By layer and expert, task by task");
    for (int i = 0; i < ls.runs; i++) {
        if (mx_loads_first(&ls, ls.run[i].variant) == i) {
            by_task(d, &ls, &ls.run[i]);
        }
    }
    MX_TRY(mx_draft_divergence(d, &ls, st));
    mx_page_heading(d->page, "Over training");
    for (int i = 0; i < ls.runs; i++) {
        course c = { 0 };

        if (mx_loads_first(&ls, ls.run[i].variant) != i) {
            continue;
        }
        MX_TRY(ask_course(d, &ls.run[i], &c, st));
        if (c.columns > 0) {
            draw_course(d, &ls.run[i], &c);
        }
    }
    return mx_draft_pairs(d, &ls, st);
}
