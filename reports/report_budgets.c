/* report_budgets.c - what accuracy cost: trained values, arithmetic, speed, memory. */
#include "reports/chart.h"
#include "reports/report_draft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* "1.23 M" */
static const char *large(mx_arena *arena, double x) {
    return x >= 1e9 ? mx_arena_text(arena, "%.2f G", x / 1e9) : x >= 1e6 ? mx_arena_text(arena, "%.2f M", x / 1e6)
           : x >= 1e4 ? mx_arena_text(arena, "%.1f k", x / 1e3) : mx_arena_text(arena, "%.0f", x);
}

static void budget_table(mx_draft *d, const mx_asked *const *asked, int count) {
    static const char *const head[] = { "variant", "method", "accuracy, %", "trained values", "router's", "times baseline", "budget", "FLOPs/token", "tokens/s", "memory", "seeds" };
    enum { COLUMNS = sizeof head / sizeof head[0] };
    const mx_compare *c = d->compare;
    mx_table t;

    mx_table_init(&t, COLUMNS);
    for (int i = 0; i < COLUMNS; i++) {
        t.right[i] = i > 1 && i != 6;
        mx_table_cell(&t, "%s", head[i]);
    }
    for (int32_t i = 0; i < c->sides; i++) {
        const mx_compare_side *s = &c->side[i];
        const mx_compare_score *x = mx_compare_score_of(c, i, c->tasks);
        bool compared = c->baseline >= 0 && i != c->baseline;

        mx_table_cell(&t, "%s", s->name);
        mx_table_cell(&t, "%s", s->method);
        mx_table_cell(&t, "%s", x->there ? mx_arena_text(d->arena, "%.1f", 100 * x->accuracy.value) : "");
        mx_table_cell(&t, "%s", mx_text_count(s->trained));
        mx_table_cell(&t, "%s", mx_text_count(s->trained_router));
        mx_table_cell(&t, "%s", c->baseline < 0 ? "" : !compared ? "baseline" : isinf(s->times) ? "trains nothing" :
                              mx_arena_text(d->arena, s->by_flops ? "%.2f in FLOPs" : "%.2f", s->times));
        mx_table_cell(&t, "%s%s%s", compared ? s->unequal ? "unequal" : "equal" : "", !*s->matched ? "" : compared ? "; matched on " : "matched on ", s->matched);
        mx_table_cell(&t, "%s", s->flops ? large(d->arena, (double)s->flops) : "");
        mx_table_cell(&t, "%s", s->tokens_per_second > 0 ? mx_arena_text(d->arena, "%.0f", s->tokens_per_second) : "");
        mx_table_cell(&t, "%s", s->memory_bytes > 0 ? mx_text_bytes((uint64_t)s->memory_bytes) : "");
        mx_table_cell(&t, "%d", s->runs);
    }
    mx_page_table(d->page, "budgets",
                  mx_arena_text(d->arena, "Budgets beside accuracy (%s, %s, %s). Equal: within 2 %% of the baseline's trained values (of its FLOPs per token, where these were matched). FLOPs: of the adapter alone, forward and backward, active experts only."
                                " Tokens/s depend on what else the machine did; memory is the most measured.",
                                c->metric, c->protocol, mx_compare_task_name(c, c->tasks, d->arena)),
                  &t);
    mx_page_made(d->page, "budgets", d->runs, "tokens/s: mean over the runs; memory: largest of the runs; accuracy as in the table of accuracies.", asked, count);
    mx_table_finish(&t);
}

static void scatter(mx_draft *d, const char *id, const char *title, const char *label, bool log, const mx_point *point, int points,
                    const mx_asked *const *asked, int count) {
    double low = NAN, high = NAN;
    mx_text svg;

    for (int i = 0; i < points; i++) {
        low = isnan(low) || point[i].x < low ? point[i].x : low;
        high = isnan(high) || point[i].x > high ? point[i].x : high;
    }
    if (points < 2 || !(high > low)) {
        return; /* nothing to set against each other */
    }
    mx_text_init(&svg, (size_t)16 << 20);
    mx_chart_points(&(mx_point_chart){ .chart = { id, title, "One marker a variant, an upright line for the 95 % interval of its accuracy. The numbers stand in the table above." },
                                       .x_label = label, .y_label = "accuracy, %", .point = point, .points = points, .log_x = log },
                    &svg);
    mx_draft_drawing(d, id, mx_arena_text(d->arena, "%s. Markers that nearly coincide are set side by side. Axes need not begin at zero.", title), &svg, d->runs, "As in the tables of budgets and accuracies.", asked, count);
}

mx_code mx_draft_budgets(mx_draft *d, mx_status *st) {
    const mx_compare *c = d->compare;
    const mx_asked **asked;
    mx_point *values, *speeds, *flops;
    int count = 0, nv = 0, ns = 0, nf = 0;

    if (!c) {
        return MX_OK;
    }
    asked = MX_TAKE(d->arena, const mx_asked *, 2 * c->sides + 1);
    values = MX_TAKE(d->arena, mx_point, c->sides);
    speeds = MX_TAKE(d->arena, mx_point, c->sides);
    flops = MX_TAKE(d->arena, mx_point, c->sides);
    mx_page_section(d->page, "budgets-section", "What it cost");
    for (int32_t i = 0; i < c->sides; i++) {
        const mx_compare_side *s = &c->side[i];
        const mx_compare_score *x = mx_compare_score_of(c, i, c->tasks);
        mx_point p = { .name = s->name, .style = i, .y = 100 * x->accuracy.value, .low = 100 * x->accuracy.low, .high = 100 * x->accuracy.high };
        mx_asked *budget = MX_TAKE(d->arena, mx_asked, 2), *scores = budget + 1;

        if (s->runs == 0) {
            continue;
        }
        MX_TRY(mx_ask_hash(d->store, budget, st, mx_arena_text(d->arena, "budget: %s", s->name), s->sql));
        asked[count++] = budget;
        if (!x->there) {
            continue;
        }
        MX_TRY(mx_ask_hash(d->store, scores, st, mx_arena_text(d->arena, "scores: %s", s->name), x->sql_scores));
        asked[count++] = scores;
        p.x = (double)s->trained;
        values[nv++] = p;
        if (s->tokens_per_second > 0) {
            p.x = s->tokens_per_second;
            speeds[ns++] = p;
        }
        if (s->flops > 0) {
            p.x = (double)s->flops;
            flops[nf++] = p;
        }
    }
    budget_table(d, asked, count);
    scatter(d, "accuracy-values", "Accuracy against trained values", "trained values", true, values, nv, asked, count);
    scatter(d, "accuracy-flops", "Accuracy against the adapter's arithmetic", "adapter FLOPs per token", true, flops, nf, asked, count);
    scatter(d, "accuracy-speed", "Accuracy against speed of training", "tokens per second, training", false, speeds, ns, asked, count);
    return MX_OK;
}
