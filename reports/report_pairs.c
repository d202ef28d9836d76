/* report_pairs.c - which experts compute the same tokens. */
#include "reports/chart.h"
#include "reports/report_loads.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The share of a layer's tokens that used both experts: (experts, experts), symmetric, the diagonal blank. */
static double *matrix_of(mx_draft *d, const mx_load *l, const mx_asked *a, int layer, double *ret_most) {
    double *m = MX_TAKE(d->arena, double, (int64_t)l->experts * l->experts);
    int64_t tokens = 0;

    for (int t = 0; t < l->tasks; t++) {
        tokens += l->tokens[t * l->layers + layer];
    }
    for (int e = 0; e < l->experts; e++) {
        m[(int64_t)e * l->experts + e] = NAN;
    }
    *ret_most = 0;
    for (int64_t i = 0; i < a->rows; i++) {
        int64_t first = mx_asked_whole(a, i, 1), second = mx_asked_whole(a, i, 2);

        if (mx_asked_whole(a, i, 0) == layer && first >= 0 && first < l->experts && second >= 0 && second < l->experts && tokens > 0) {
            double share = 100 * mx_asked_number(a, i, 3) / (double)tokens;

            m[first * l->experts + second] = m[second * l->experts + first] = share;
            *ret_most = fmax(*ret_most, share);
        }
    }
    return m;
}

/* Three layers: where the commonest pair is least common, in between, and most common. */
static void choose_layers(mx_draft *d, const mx_load *l, const mx_asked *a, int ret[3], int *ret_count) {
    int *layer = MX_TAKE(d->arena, int, l->layers), layers = 0;
    double *most = MX_TAKE(d->arena, double, l->layers);

    for (int i = 0; i < l->layers; i++) {
        double x;
        int at = layers;

        matrix_of(d, l, a, i, &x);
        if (x == 0) {
            continue;
        }
        for (; at > 0 && most[at - 1] > x; at--) {
            most[at] = most[at - 1];
            layer[at] = layer[at - 1];
        }
        most[at] = x;
        layer[at] = i;
        layers++;
    }
    *ret_count = layers < 3 ? layers : 3;
    for (int k = 0; k < *ret_count; k++) {
        ret[k] = layer[*ret_count < 2 ? 0 : k * (layers - 1) / (*ret_count - 1)];
    }
}

static mx_code draw_pairs(mx_draft *d, const mx_loads *ls, const mx_load *l, bool *headed, mx_status *st) {
    static const char *const word[] = { "least paired", "in between", "most paired" };
    char run[32];
    const char *windows, *at, *id = mx_arena_text(d->arena, "pairs-%d", l->variant + 1), *name = d->variant[l->variant].name;
    mx_asked *a = MX_TAKE(d->arena, mx_asked, 1);
    const mx_asked *list[] = { a, &ls->tokens };
    mx_heat_panel panel[3];
    int layer[3], count;
    double high = 0, x;
    mx_text svg;

    snprintf(run, sizeof run, "%lld", (long long)l->run_id);
    windows = mx_loads_windows(d, run, ls->training);
    at = strstr(windows, "%s");
    MX_TRY(mx_ask(d->store, d->arena, a, st, "router: pairs",
                  "SELECT p.layer, p.first, p.second, SUM(p.tokens) AS tokens FROM %.*srouter_pairs p USING (window_id)%s"
                  " GROUP BY p.layer, p.first, p.second ORDER BY p.layer, p.first, p.second", (int)(at - windows), windows, at + 2));
    choose_layers(d, l, a, layer, &count);
    if (count == 0) {
        return MX_OK; /* one expert a token */
    }
    for (int k = 0; k < count; k++) {
        panel[k] = (mx_heat_panel){ .title = mx_arena_text(d->arena, "layer %d%s%s", layer[k], count == 3 ? ": " : "", count == 3 ? word[k] : ""), .row_word = "expert",
                                    .column_word = "expert", .rows = l->experts, .columns = l->experts, .value = matrix_of(d, l, a, layer[k], &x) };
        high = fmax(high, x);
    }
    if (!*headed) {
        mx_page_heading(d->page, "Which experts work together");
        *headed = true;
    }
    mx_text_init(&svg, (size_t)64 << 20);
    mx_chart_heat(&(mx_heat_chart){ .chart = { id, mx_arena_text(d->arena, "Experts of %s that compute the same tokens", name),
                                               "Up to three layers; a row and a column for each expert; the colour is the share of tokens that used both. The diagonal is blank." },
                                    .label = "tokens that used both experts, %", .low = 0, .high = high, .mark = NAN, .mark_word = "", .panel = panel, .panels = count },
                  &svg);
    mx_draft_drawing(d, id,
                     mx_arena_text(d->arena, "%s: the share of a layer's tokens that used both experts, in %s, all tasks together; the layers whose commonest pair is least, middling and most common. Run %lld.",
                                   name, ls->when, (long long)l->run_id),
                     &svg, mx_arena_text(d->arena, "Run %lld.", (long long)l->run_id), "share = tokens of the pair / tokens the layer's router saw, tasks summed, of this run.", list, 2);
    return MX_OK;
}

mx_code mx_draft_pairs(mx_draft *d, const mx_loads *ls, mx_status *st) {
    bool headed = false;

    for (int i = 0; i < ls->runs; i++) {
        if (mx_loads_first(ls, ls->run[i].variant) == i) {
            MX_TRY(draw_pairs(d, ls, &ls->run[i], &headed, st));
        }
    }
    return MX_OK;
}
