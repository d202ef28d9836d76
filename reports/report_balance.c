/* report_balance.c - how evenly the router loads its experts, how differently it treats tasks, and which experts work together. */
#include "reports/chart.h"
#include "reports/report_loads.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PAIRS_DRAWN = 6 }; /* panels of pairs of tasks; with more their mean is drawn, and the table has them all */

/* --- evenness --- */

/* Sums over the layers of one run. */
typedef struct evenness {
    int layers, dead;
    double entropy, most, worst; /* means over layers; of the most uneven one */
    int worst_layer;
    int64_t slots, dropped, tokens;
    double softmax;              /* mean entropy of the router's own distribution, bits */
    double *entropy_by, *most_by; /* by layer */
} evenness;

static evenness measure(mx_arena *arena, const mx_load *l) {
    evenness x = { .entropy_by = MX_TAKE(arena, double, l->layers), .most_by = MX_TAKE(arena, double, l->layers) };
    double *p = MX_TAKE(arena, double, l->experts), softmax = 0;

    for (int i = 0; i < l->layers; i++) {
        if (!mx_load_share(l, -1, i, p)) {
            x.entropy_by[i] = x.most_by[i] = NAN;
            continue;
        }
        x.entropy_by[i] = mx_share_entropy(p, l->experts);
        x.most_by[i] = mx_share_most(p, l->experts);
        x.entropy += x.entropy_by[i];
        x.most += x.most_by[i];
        if (x.most_by[i] > x.worst) {
            x.worst = x.most_by[i];
            x.worst_layer = i;
        }
        for (int e = 0; e < l->experts; e++) {
            x.dead += p[e] == 0;
        }
        x.layers++;
    }
    x.entropy /= x.layers;
    x.most /= x.layers;
    for (int64_t k = 0; k < (int64_t)l->tasks * l->layers * l->experts; k++) {
        x.slots += l->slots[k];
        x.dropped += l->dropped[k];
    }
    for (int64_t k = 0; k < (int64_t)l->tasks * l->layers; k++) {
        x.tokens += l->tokens[k];
        softmax += l->entropy[k];
    }
    x.softmax = x.tokens ? softmax / (double)x.tokens / log(2) : NAN;
    return x;
}

static void balance_table(mx_draft *d, const mx_loads *ls, const evenness *x) {
    static const char *const head[] = { "variant", "run", "layers", "experts", "slots/token", "entropy, bits", "max/mean", "worst layer", "its max/mean",
                                        "dead", "dropped, %", "softmax, bits" };
    enum { COLUMNS = sizeof head / sizeof head[0] };
    const mx_asked *list[] = { &ls->slots, &ls->tokens };
    mx_table t;

    mx_table_init(&t, COLUMNS);
    for (int i = 0; i < COLUMNS; i++) {
        t.right[i] = i > 0;
        mx_table_cell(&t, "%s", head[i]);
    }
    for (int i = 0; i < ls->runs; i++) {
        const mx_load *l = &ls->run[i];

        mx_table_cell(&t, "%s", d->variant[l->variant].name);
        mx_table_cell(&t, "%lld", (long long)l->run_id);
        mx_table_cell(&t, "%d", x[i].layers);
        mx_table_cell(&t, "%d", l->experts);
        if (x[i].tokens) {
            mx_table_cell(&t, "%.2f", (double)x[i].slots / (double)x[i].tokens);
        } else {
            mx_table_cell(&t, "%s", "");
        }
        mx_table_cell(&t, "%.2f of %.2f", x[i].entropy, log2(l->experts));
        mx_table_cell(&t, "%.2f", x[i].most);
        mx_table_cell(&t, "%d", x[i].worst_layer);
        mx_table_cell(&t, "%.2f", x[i].worst);
        mx_table_cell(&t, "%d of %d", x[i].dead, x[i].layers * l->experts);
        mx_table_cell(&t, "%.1f", x[i].slots + x[i].dropped ? 100 * (double)x[i].dropped / (double)(x[i].slots + x[i].dropped) : 0.0);
        if (isfinite(x[i].softmax)) {
            mx_table_cell(&t, "%.2f", x[i].softmax);
        } else {
            mx_table_cell(&t, "%s", "");
        }
    }
    mx_page_table(d->page, "balance",
                  mx_arena_text(d->arena, "How evenly the experts are loaded in %s, all tasks together; the entropy of the load and max/mean are means over layers. Dead: experts that computed not one token there. Softmax: the mean entropy of the router's own distribution.", ls->when),
                  &t);
    mx_page_made(d->page, "balance", d->runs,
                 "share p = slots / sum over the layer's experts, tasks summed; entropy = -sum p log2 p; max/mean = experts x max p; dropped = dropped / (slots + dropped);"
                 " softmax = sum of the softmax's entropies / tokens / ln 2.", list, 2);
    mx_table_finish(&t);
}

static void balance_drawing(mx_draft *d, const mx_loads *ls, const evenness *x) {
    const mx_asked *list[] = { &ls->slots };
    mx_line_panel panel[2] = { { .title = "entropy of the load, bits", .reference = log2(ls->run[0].experts) }, { .title = "max/mean load", .reference = 1 } };
    mx_text svg;

    for (int i = 1; i < ls->runs; i++) { /* routers of different sizes have no common bound */
        if (ls->run[i].experts != ls->run[0].experts) {
            panel[0].reference = NAN;
        }
    }
    for (int k = 0; k < 2; k++) {
        mx_line *line = MX_TAKE(d->arena, mx_line, 2 * ls->runs + 1);

        panel[k].line = line;
        for (int v = 0; v < d->variants; v++) {
            int first = mx_loads_first(ls, v), seeds = 0;
            double *layer, *mean;

            if (first < 0) {
                continue;
            }
            layer = MX_TAKE(d->arena, double, ls->run[first].layers);
            mean = MX_TAKE(d->arena, double, ls->run[first].layers);
            for (int i = 0; i < ls->run[first].layers; i++) {
                layer[i] = i;
            }
            while (first + seeds < ls->runs && ls->run[first + seeds].variant == v && ls->run[first + seeds].layers == ls->run[first].layers) {
                seeds++;
            }
            for (int r = first; r < first + seeds; r++) {
                const double *y = k ? x[r].most_by : x[r].entropy_by;

                for (int i = 0; i < ls->run[first].layers; i++) {
                    mean[i] += y[i] / seeds;
                }
                if (seeds > 1) {
                    line[panel[k].lines++] = (mx_line){ .name = mx_arena_text(d->arena, "%s, run %lld", d->variant[v].name, (long long)ls->run[r].run_id),
                                                        .style = v, .faint = true, .n = ls->run[r].layers, .x = layer, .y = y };
                }
            }
            line[panel[k].lines++] = (mx_line){ .name = d->variant[v].name, .style = v, .n = ls->run[first].layers, .x = layer, .y = mean };
        }
    }
    mx_text_init(&svg, (size_t)64 << 20);
    mx_chart_lines(&(mx_line_chart){ .chart = { "balance-drawing", "Evenness of the load by layer",
                                                "Two panels over the layers, one line a variant: the entropy of the experts' load, and the largest load over the mean; dashed: even load." },
                                     .x_label = "layer", .y_label = "", .panel = panel, .panels = 2, .whole_x = true, .reference = "even load" },
                   &svg);
    mx_draft_drawing(d, "balance-drawing",
                     mx_arena_text(d->arena, "The load by layer, all tasks together, in %s. Thick: mean over the seeds; faint: one seed. Axes need not begin at zero.", ls->when), &svg, d->runs,
                     "By layer as in the table; thick lines: unweighted mean over a variant's runs.", list, 1);
}

mx_code mx_draft_balance(mx_draft *d, const mx_loads *ls, mx_status *st) {
    evenness *x = MX_TAKE(d->arena, evenness, ls->runs);

    (void)st;
    for (int i = 0; i < ls->runs; i++) {
        x[i] = measure(d->arena, &ls->run[i]);
    }
    balance_table(d, ls, x);
    balance_drawing(d, ls, x);
    return MX_OK;
}

/* --- tasks --- */

/* By layer, of tasks a and b; NAN where one of them has no slots. */
static double *divergences(mx_arena *arena, const mx_load *l, int a, int b) {
    double *by = MX_TAKE(arena, double, l->layers), *p = MX_TAKE(arena, double, l->experts), *q = MX_TAKE(arena, double, l->experts);

    for (int i = 0; i < l->layers; i++) {
        bool both = mx_load_share(l, a, i, p);

        both &= mx_load_share(l, b, i, q);
        by[i] = both ? mx_share_divergence(p, q, l->experts) : NAN;
    }
    return by;
}

static int task_named(const mx_load *l, const char *name) {
    for (int t = 0; t < l->tasks; t++) {
        if (strcmp(l->task[t], name) == 0) {
            return t;
        }
    }
    return -1;
}

static double mean_of(const double *x, int n) {
    double sum = 0;
    int count = 0;

    for (int i = 0; i < n; i++) {
        sum += isfinite(x[i]) ? x[i] : 0;
        count += isfinite(x[i]);
    }
    return count ? sum / count : NAN;
}

/* One row a variant and pair of tasks; the pairs are those of its first run. */
static void divergence_row(mx_draft *d, const mx_loads *ls, int v, int a, int b, mx_table *t) {
    const mx_load *one = &ls->run[mx_loads_first(ls, v)];
    double sum = 0, least = INFINITY, most = -INFINITY;
    int64_t na = 0, nb = 0;
    int runs = 0;

    for (const mx_load *l = one; l < ls->run + ls->runs && l->variant == v; l++) {
        int i = task_named(l, one->task[a]), j = task_named(l, one->task[b]);
        double mean = i < 0 || j < 0 ? NAN : mean_of(divergences(d->arena, l, i, j), l->layers);

        if (isnan(mean)) {
            continue;
        }
        sum += mean;
        least = fmin(least, mean);
        most = fmax(most, mean);
        runs++;
        for (int k = 0; k < l->layers; k++) { /* layers without a router saw none */
            na = l->tokens[i * l->layers + k] > na ? l->tokens[i * l->layers + k] : na;
            nb = l->tokens[j * l->layers + k] > nb ? l->tokens[j * l->layers + k] : nb;
        }
    }
    if (runs == 0) {
        return;
    }
    mx_table_cell(t, "%s", d->variant[v].name);
    mx_table_cell(t, "%s", one->task[a]);
    mx_table_cell(t, "%s", one->task[b]);
    mx_table_cell(t, "%d", runs);
    mx_table_cell(t, "%.4f", sum / runs);
    mx_table_cell(t, "%.4f", least);
    mx_table_cell(t, "%.4f", most);
    mx_table_cell(t, "%s", mx_text_count(na));
    mx_table_cell(t, "%s", mx_text_count(nb));
}

static void divergence_table(mx_draft *d, const mx_loads *ls) {
    static const char *const head[] = { "variant", "task", "other task", "runs", "divergence, bits", "least run", "most run", "tokens a layer", "of the other" };
    enum { COLUMNS = sizeof head / sizeof head[0] };
    const mx_asked *list[] = { &ls->slots, &ls->tokens };
    mx_table t;

    mx_table_init(&t, COLUMNS);
    for (int i = 0; i < COLUMNS; i++) {
        t.right[i] = i > 2;
        mx_table_cell(&t, "%s", head[i]);
    }
    for (int v = 0; v < d->variants; v++) {
        int first = mx_loads_first(ls, v);

        for (int a = 0; first >= 0 && a < ls->run[first].tasks; a++) {
            for (int b = a + 1; b < ls->run[first].tasks; b++) {
                divergence_row(d, ls, v, a, b, &t);
            }
        }
    }
    mx_page_table(d->page, "divergence",
                  mx_arena_text(d->arena, "How differently tasks are routed in %s: Jensen-Shannon divergence of two tasks' expert shares, base 2, equal weights, mean over layers"
                                " and runs; 0: alike, 1: no expert in common. Tokens: those a router saw in one run; few make it too large.", ls->when),
                  &t);
    mx_page_made(d->page, "divergence", d->runs,
                 "share p = slots / sum over the layer's experts of one task; divergence = (sum p log2(p/m) + sum q log2(q/m)) / 2, m = (p + q) / 2 (Lin 1991);"
                 " unweighted mean over layers, then over runs.", list, 2);
    mx_table_finish(&t);
}

/* The variant's mean over its runs, of one pair of tasks (a, b) or of all pairs (a < 0), by layer. */
static mx_line divergence_line(mx_draft *d, const mx_loads *ls, int v, int a, int b) {
    int first = mx_loads_first(ls, v), layers = ls->run[first].layers, count = 0;
    double *x = MX_TAKE(d->arena, double, layers), *y = MX_TAKE(d->arena, double, layers);

    for (int r = first; r < ls->runs && ls->run[r].variant == v; r++) {
        const mx_load *l = &ls->run[r];

        for (int i = 0; i < l->tasks && l->layers == layers; i++) {
            for (int j = i + 1; j < l->tasks; j++) {
                if (a < 0 || (i == a && j == b)) {
                    const double *by = divergences(d->arena, l, i, j);

                    for (int k = 0; k < layers; k++) {
                        y[k] += by[k];
                    }
                    count++;
                }
            }
        }
    }
    for (int k = 0; k < layers; k++) {
        x[k] = k;
        y[k] = count ? y[k] / count : NAN;
    }
    return (mx_line){ .name = d->variant[v].name, .style = v, .n = layers, .x = x, .y = y };
}

mx_code mx_draft_divergence(mx_draft *d, const mx_loads *ls, mx_status *st) {
    const mx_load *one = &ls->run[0];
    const mx_asked *list[] = { &ls->slots };
    int pairs = one->tasks * (one->tasks - 1) / 2, panels = 0;
    mx_line_panel *panel = MX_TAKE(d->arena, mx_line_panel, PAIRS_DRAWN + 1);
    bool all_alike = true;
    mx_text svg;

    (void)st;
    for (int i = 0; i < ls->runs; i++) {
        all_alike &= ls->run[i].tasks == one->tasks;
        for (int t = 0; t < one->tasks && all_alike; t++) {
            all_alike = strcmp(ls->run[i].task[t], one->task[t]) == 0;
        }
        pairs = ls->run[i].tasks > 1 && pairs == 0 ? 1 : pairs;
    }
    if (pairs == 0) {
        return MX_OK; /* one task is not unlike itself */
    }
    mx_page_heading(d->page, "How differently tasks are routed");
    divergence_table(d, ls);
    for (int a = all_alike && pairs <= PAIRS_DRAWN ? 0 : -1; a < one->tasks; a = a < 0 ? one->tasks : a + 1) {
        for (int b = a + 1; b < (a < 0 ? 1 : one->tasks); b++) {
            mx_line *line = MX_TAKE(d->arena, mx_line, d->variants + 1);

            panel[panels] = (mx_line_panel){ .title = a < 0 ? "mean over the pairs of tasks" : mx_arena_text(d->arena, "%s, %s", one->task[a], one->task[b]), .line = line, .reference = NAN };
            for (int v = 0; v < d->variants; v++) {
                if (mx_loads_first(ls, v) >= 0) {
                    line[panel[panels].lines++] = divergence_line(d, ls, v, a, b);
                }
            }
            panels++;
        }
    }
    mx_text_init(&svg, (size_t)64 << 20);
    mx_chart_lines(&(mx_line_chart){ .chart = { "divergence-drawing", "Divergence of tasks' routing by layer", "Lines over the layers, one a variant; a panel for each pair of tasks." },
                                     .x_label = "layer", .y_label = "divergence, bits", .panel = panel, .panels = panels, .same_y = true, .from_zero = true, .whole_x = true },
                   &svg);
    mx_draft_drawing(d, "divergence-drawing", "The same by layer; the mean over a variant's seeds.", &svg, d->runs, "By layer as in the table; unweighted mean over a variant's runs.", list, 1);
    return MX_OK;
}
