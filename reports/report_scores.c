/* report_scores.c - accuracy with intervals, and the differences from the baseline: tables, and the same as drawings. */
#include "reports/chart.h"
#include "reports/report_draft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ESTIMATORS_MAX = 16 };

/* The estimators that were used, each once. */
typedef struct estimators {
    const char *name[ESTIMATORS_MAX];
    int count;
} estimators;

static void used(estimators *e, const char *name) {
    for (int i = 0; i < e->count; i++) {
        if (strcmp(e->name[i], name) == 0) {
            return;
        }
    }
    if (name && e->count < ESTIMATORS_MAX) {
        e->name[e->count++] = name;
    }
}

static const char *told(mx_arena *arena, const char *what, const estimators *e) {
    const char *text = what;

    for (int i = 0; i < e->count; i++) {
        text = mx_arena_text(arena, "%s%s%s", text, i ? "; " : " ", e->name[i]);
    }
    return mx_arena_text(arena, "%s.", text);
}

static double *percent(mx_arena *arena, const double *fraction, int count) {
    double *x = MX_TAKE(arena, double, count + 1);

    for (int i = 0; i < count; i++) {
        x[i] = 100 * fraction[i];
    }
    return x;
}

/* --- accuracy --- */

/* The statements behind a comparison's accuracies: which runs, and per side its scores and its answers. */
static mx_code ask_scores(mx_draft *d, const mx_compare *c, bool answers, const mx_asked ***ret, int *ret_count, mx_status *st) {
    const mx_asked **list = MX_TAKE(d->arena, const mx_asked *, 2 * c->sides + 2);
    int n = 0;

    for (int32_t i = 0; i < c->sides; i++) {
        for (int32_t t = c->tasks; t >= 0; t--) { /* over tasks says all; a side that lacks a task has only the others */
            const mx_compare_score *x = mx_compare_score_of(c, i, t);
            mx_asked *scores = MX_TAKE(d->arena, mx_asked, 2), *cells = scores + 1;
            bool all = t == c->tasks;

            if (!x->there) {
                continue;
            }
            MX_TRY(mx_ask_hash(d->store, scores, st, mx_arena_text(d->arena, "scores: %s", c->side[i].name), x->sql_scores));
            list[n++] = scores;
            if (answers) {
                MX_TRY(mx_ask_hash(d->store, cells, st, mx_arena_text(d->arena, "answers: %s", c->side[i].name), x->sql));
                list[n++] = cells;
            }
            if (all) {
                break;
            }
        }
    }
    *ret = list;
    *ret_count = n;
    return MX_OK;
}

static const char *score_words(mx_arena *arena, const mx_compare_score *x) {
    const char *limited = x->limited ? " (limited)" : "";

    if (!isfinite(x->accuracy.low)) {
        return mx_arena_text(arena, "%.1f%s", 100 * x->accuracy.value, limited);
    }
    return mx_arena_text(arena, "%.1f [%.1f, %.1f]%s", 100 * x->accuracy.value, 100 * x->accuracy.low, 100 * x->accuracy.high, limited);
}

static void draw_accuracy(mx_draft *d, const mx_compare *c, const char *runs, const char *computed, const mx_asked *const *asked, int count) {
    mx_interval_row *row = MX_TAKE(d->arena, mx_interval_row, (c->tasks + 1) * c->sides);
    int rows = 0;
    mx_text svg;

    for (int32_t t = 0; t <= (c->tasks > 1 ? c->tasks : 0); t++) {
        for (int32_t i = 0; i < c->sides; i++) {
            const mx_compare_score *x = mx_compare_score_of(c, i, t);

            if (x->there) {
                row[rows++] = (mx_interval_row){
                    .group = mx_compare_task_name(c, t, d->arena), .name = c->side[i].name, .style = i, .estimate = 100 * x->accuracy.value,
                    .low = 100 * x->accuracy.low, .high = 100 * x->accuracy.high, .dots = c->side[i].runs > 1 ? c->side[i].runs : 0,
                    .dot = percent(d->arena, x->seed_value, c->side[i].runs), .reference = 100 * x->majority, .text = score_words(d->arena, x) };
            }
        }
    }
    if (rows == 0) {
        return;
    }
    mx_text_init(&svg, (size_t)64 << 20);
    mx_chart_intervals(&(mx_interval_chart){ .chart = { "accuracy-drawing", "Accuracy by task and variant",
                                                        "One row a variant, in groups by task: a marker at the accuracy, a line for its 95 % interval, a dot for "
                                                        "each seed, a short upright mark for the majority baseline. The same numbers stand in the table above." },
                                             .x_label = "accuracy, %", .text_label = "accuracy [95 % interval], %", .reference = "majority baseline",
                                             .row = row, .rows = rows, .line = NAN },
                       &svg);
    mx_draft_drawing(d, "accuracy-drawing", "The same, drawn. The axis need not begin at zero.", &svg, runs, computed, asked, count);
}

static mx_code accuracy(mx_draft *d, mx_status *st) {
    const mx_compare *c = d->compare;
    const char *caption = mx_arena_text(d->arena, "Accuracy, in percent: %s, protocol %s, split %s, %s; 95 %% intervals, unadjusted. Majority: always the commonest answer.",
                                        c->metric, c->protocol, c->split, c->best_epoch ? "each run's best epoch (optimistic)" : "last evaluation");
    const mx_asked **asked;
    estimators e = { 0 };
    mx_table table;
    const char *computed;
    int count;

    MX_TRY(ask_scores(d, c, true, &asked, &count, st));
    for (int32_t i = 0; i < c->sides * (c->tasks + 1); i++) {
        if (c->score[i].there) {
            used(&e, c->score[i].accuracy.estimator);
        }
    }
    computed = told(d->arena, "Computed from the answers by:", &e);
    mx_compare_accuracy_table(c, -1, &table);
    mx_page_table(d->page, "accuracy", caption, &table);
    mx_page_made(d->page, "accuracy", d->runs, computed, asked, count);
    mx_table_finish(&table);
    draw_accuracy(d, c, d->runs, computed, asked, count);
    return MX_OK;
}

/* --- differences --- */

static mx_code ask_pairs(mx_draft *d, const mx_compare *c, const mx_asked ***ret, int *ret_count, mx_status *st) {
    const mx_asked **list = MX_TAKE(d->arena, const mx_asked *, c->rows + 1);
    int n = 0;

    for (int32_t i = 0; i < c->sides; i++) {
        int32_t most = 0;

        for (int32_t k = 0; k < c->rows; k++) { /* the row over tasks holds the others' questions */
            most = c->row[k].side == i && c->row[k].over > most ? c->row[k].over : most;
        }
        for (int32_t k = 0; k < c->rows; k++) {
            if (c->row[k].side == i && c->row[k].over == most) {
                mx_asked *a = MX_TAKE(d->arena, mx_asked, 1);

                MX_TRY(mx_ask_hash(d->store, a, st, mx_arena_text(d->arena, "pairs: %s", c->side[i].name), c->row[k].sql));
                list[n++] = a;
            }
        }
    }
    *ret = list;
    *ret_count = n;
    return MX_OK;
}

/* What must stand beside the intervals, as it is in their notes: a caption is read where a note may not be. */
static const char *seed_words(mx_draft *d, const mx_compare *c) {
    const char *words[MX_COMPARE_SEED_WORDS], *text = "";
    int n = mx_compare_seed_words(c, words);

    for (int i = 0; i < n; i++) {
        text = mx_arena_text(d->arena, "%s %s", text, words[i]);
    }
    return text;
}

static void draw_differences(mx_draft *d, const mx_compare *c, const char *computed, const mx_asked *const *asked, int count) {
    mx_interval_row *row = MX_TAKE(d->arena, mx_interval_row, c->rows + 1);
    mx_text svg;

    for (int32_t i = 0; i < c->rows; i++) {
        const mx_compare_row *r = &c->row[i];
        const char *interval = isfinite(r->difference.low) ? mx_arena_text(d->arena, " [%+.1f, %+.1f]", mx_compare_points(r->difference.low), mx_compare_points(r->difference.high)) : "";

        row[i] = (mx_interval_row){
            .group = mx_compare_row_name(c, r, d->arena),
            .name = mx_arena_text(d->arena, "%s%s", c->side[r->side].name, c->side[r->side].unequal ? " *" : ""), .style = r->side,
            .estimate = 100 * r->difference.value, .low = 100 * r->difference.low, .high = 100 * r->difference.high,
            .dots = r->seeds > 1 ? r->seeds : 0, .dot = percent(d->arena, r->seed_difference, r->seeds), .reference = NAN,
            .text = mx_arena_text(d->arena, "%+.1f%s %s", mx_compare_points(r->difference.value), interval, mx_word_text(r->word)) };
    }
    mx_text_init(&svg, (size_t)64 << 20);
    mx_chart_intervals(&(mx_interval_chart){ .chart = { "differences-drawing", "Differences from the baseline",
                                                        "A forest plot. One row a variant, in groups by task: a marker at the difference in accuracy, a line for its "
                                                        "95 % interval, a dot for each seed; a dashed upright line at no difference. The numbers stand in the table above." },
                                             .x_label = "difference in accuracy, points", .text_label = "difference [95 % interval]",
                                             .row = row, .rows = c->rows, .line = 0,
                                             .left = "baseline is better", .right = "variant is better" },
                       &svg);
    mx_draft_drawing(d, "differences-drawing",
                     mx_arena_text(d->arena, "The same, drawn: every variant against %s, percentage points. * an unequal budget: over 2 %% off the baseline's trained values (or FLOPs per token, where these were matched).%s",
                                   c->side[c->baseline].name, seed_words(d, c)),
                     &svg, d->runs, computed, asked, count);
}

static mx_code differences(mx_draft *d, mx_status *st) {
    const mx_compare *c = d->compare;
    estimators e = { 0 };
    const mx_asked **asked;
    const char *computed;
    mx_table table;
    int count;

    MX_TRY(ask_pairs(d, c, &asked, &count, st));
    for (int32_t i = 0; i < c->rows; i++) {
        used(&e, c->row[i].difference.estimator);
    }
    computed = told(d->arena, "Computed from the paired answers by:", &e);
    mx_compare_difference_table(c, -1, &table);
    mx_page_table(d->page, "differences",
                  mx_arena_text(d->arena, "Differences from %s, in percentage points, paired by question and seed; 95 %% intervals, unadjusted; p by Holm over all rows.%s",
                                c->side[c->baseline].name, seed_words(d, c)),
                  &table);
    mx_page_made(d->page, "differences", d->runs, computed, asked, count);
    mx_table_finish(&table);
    draw_differences(d, c, computed, asked, count);
    return MX_OK;
}

/* --- other protocols and metrics: for the record, never for the answer --- */

static mx_code other_metrics(mx_draft *d, mx_status *st) {
    const mx_compare *c = d->compare;
    const char *task = mx_sql_quote(d->arena, c->split);
    mx_asked kinds;
    bool headed = false;

    MX_TRY(mx_ask(d->store, d->arena, &kinds, st, "kinds",
                  "SELECT DISTINCT e.protocol, s.metric FROM evaluations e JOIN scores s USING (evaluation_id)"
                  " WHERE e.run_id IN (%s) AND e.split = %s ORDER BY e.protocol DESC, s.metric", d->all, task));
    for (int64_t i = 0; i < kinds.rows; i++) {
        const char *protocol = mx_asked_text(&kinds, i, 0), *metric = mx_asked_text(&kinds, i, 1), *id;
        mx_compare_wish wish = { .sweep = d->wish->sweep, .baseline = d->wish->baseline, .side = d->wish->side, .sides = d->wish->sides,
                                 .against = c->baseline, .apart = d->refused != NULL, .alone = true, .protocol = protocol, .metric = metric, .split = c->split };
        const mx_asked **asked;
        mx_compare *other;
        mx_status why = { 0 };
        mx_table table;
        mx_code code;
        int count;

        if (strcmp(protocol, c->protocol) == 0 && strcmp(metric, c->metric) == 0) {
            continue;
        }
        if (!headed) {
            mx_page_heading(d->page, "Other protocols and metrics");
            mx_page_words(d->page, "", "For the record: the answer above was sought under %s, %s alone.", c->metric, c->protocol);
            headed = true;
        }
        code = mx_compare_read(d->store, &wish, d->arena, &other, &why);
        if (code == MX_E_DATA) { /* what cannot be put side by side is said, and hinders nothing else */
            mx_page_words(d->page, "note", "%s, %s: %s", metric, protocol, why.text);
            continue;
        }
        if (code) {
            *st = why;
            return code;
        }
        id = mx_arena_text(d->arena, "accuracy-%s-%s", protocol, metric);
        MX_TRY(ask_scores(d, other, false, &asked, &count, st));
        mx_compare_accuracy_table(other, -1, &table);
        mx_page_table(d->page, id, mx_arena_text(d->arena, "Accuracy, in percent: %s, protocol %s, split %s.", metric, protocol, c->split), &table);
        mx_page_made(d->page, id, d->runs, "Intervals as in the table of accuracies, from the questions under this protocol and metric.", asked, count);
        mx_table_finish(&table);
    }
    return MX_OK;
}

mx_code mx_draft_scores(mx_draft *d, mx_status *st) {
    if (!d->compare) {
        return MX_OK;
    }
    mx_page_section(d->page, "accuracy-section", "Accuracy");
    MX_TRY(accuracy(d, st));
    if (d->compare->rows > 0) {
        mx_page_section(d->page, "differences-section", "Differences from the baseline");
        MX_TRY(differences(d, st));
    }
    return other_metrics(d, st);
}
