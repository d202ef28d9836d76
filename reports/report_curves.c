/* report_curves.c - losses and scores over the steps of training. */
#include "reports/chart.h"
#include "reports/report_draft.h"

#include <math.h>
#include <string.h>

enum { BINS = 24 }; /* single steps are noise: at most this many means of neighbouring steps */

/* Rows (run_id, x, y), sorted by run, become one faint line a run and one line a variant: the mean over its runs at the x that all
 * of them have. A variant with one run has only its line. */
static int lines_of(mx_draft *d, const mx_asked *a, int64_t first, int64_t last, int x_at, int y_at, mx_line *line) {
    int lines = 0;

    for (int v = 0; v < d->variants; v++) {
        const mx_draft_variant *x = &d->variant[v];
        mx_line *run = MX_TAKE(d->arena, mx_line, x->runs + 1), mean = { .name = x->name, .style = v };
        int runs = 0;

        for (int r = 0; r < x->runs; r++) {
            double *px = MX_TAKE(d->arena, double, last - first + 1), *py = MX_TAKE(d->arena, double, last - first + 1);
            int64_t n = 0;

            for (int64_t i = first; i < last; i++) {
                if (mx_asked_whole(a, i, 0) == x->run_id[r]) {
                    px[n] = mx_asked_number(a, i, x_at);
                    py[n++] = mx_asked_number(a, i, y_at);
                }
            }
            if (n) {
                run[runs++] = (mx_line){ .name = mx_arena_text(d->arena, "%s, run %lld", x->name, (long long)x->run_id[r]), .style = v,
                                         .faint = true, .n = n, .x = px, .y = py };
            }
        }
        if (runs == 0) {
            continue;
        }
        mean.n = run[0].n;
        mean.x = run[0].x;
        mean.y = run[0].y;
        for (int r = 1; r < runs; r++) {
            mean.n = run[r].n < mean.n ? run[r].n : mean.n;
        }
        if (runs > 1) {
            double *y = MX_TAKE(d->arena, double, mean.n + 1);

            for (int64_t i = 0; i < mean.n; i++) {
                for (int r = 0; r < runs; r++) {
                    y[i] = run[r].x[i] == mean.x[i] ? y[i] + run[r].y[i] / runs : NAN; /* not the same steps: no mean */
                }
            }
            mean.y = y;
            for (int r = 0; r < runs; r++) {
                line[lines++] = run[r];
            }
        }
        line[lines++] = mean;
    }
    return lines;
}

static int most_lines(const mx_draft *d) {
    int n = d->variants + 1;

    for (int v = 0; v < d->variants; v++) {
        n += d->variant[v].runs;
    }
    return n;
}

/* A metric of training, averaged over neighbouring steps. */
static mx_code training_curve(mx_draft *d, const char *metric, const char *id, const char *label, const char *caption, int64_t bin, bool *some,
                              mx_status *st) {
    mx_asked *a = MX_TAKE(d->arena, mx_asked, 1);
    const mx_asked *list[1] = { a };
    mx_line_panel panel = { .title = "", .line = NULL, .reference = NAN };
    mx_line *line = MX_TAKE(d->arena, mx_line, most_lines(d));
    const char *seeds = "";
    mx_text svg;

    MX_TRY(mx_ask(d->store, d->arena, a, st, mx_arena_text(d->arena, "curve: %s", metric),
                  "SELECT run_id, AVG(step) AS step, AVG(value) AS %s, COUNT(*) AS steps FROM metrics WHERE run_id IN (%s) AND name = %s"
                  " GROUP BY run_id, (step - 1) / %lld ORDER BY run_id, MIN(step)", metric, d->all, mx_sql_quote(d->arena, metric), (long long)bin));
    panel.line = line;
    panel.lines = lines_of(d, a, 0, a->rows, 1, 2, line);
    *some = panel.lines > 0;
    if (!*some) {
        return MX_OK;
    }
    for (int v = 0; v < d->variants; v++) {
        seeds = d->variant[v].runs > 1 ? " Thick: mean over the seeds; faint: one seed." : seeds;
    }
    mx_text_init(&svg, (size_t)64 << 20);
    mx_chart_lines(&(mx_line_chart){ .chart = { id, label, mx_arena_text(d->arena, "Lines over the steps of training, one a variant. %s", caption) },
                                     .x_label = "step", .y_label = label, .panel = &panel, .panels = 1, .whole_x = true },
                   &svg);
    mx_draft_drawing(d, id,
                     mx_arena_text(d->arena, "%s%s%s The axis need not begin at zero.", caption,
                                   bin > 1 ? mx_arena_text(d->arena, " Every point is the mean of %lld steps.", (long long)bin) : "", seeds),
                     &svg, d->runs, "Thick lines: unweighted mean over a variant's runs at the same steps.", list, 1);
    return MX_OK;
}

/* One panel a task; only when something was scored more than once. */
static mx_code score_curves(mx_draft *d, mx_status *st) {
    const mx_compare *c = d->compare;
    mx_asked *a = MX_TAKE(d->arena, mx_asked, 1);
    const mx_asked *list[1] = { a };
    mx_line_panel *panel = MX_TAKE(d->arena, mx_line_panel, c->tasks + 1);
    bool curve = false;
    int panels = 0;
    mx_text svg;

    MX_TRY(mx_ask(d->store, d->arena, a, st, "curve: scores",
                  "SELECT e.run_id, e.task, e.step, 100 * s.value AS percent, 100 * s.majority AS majority FROM evaluations e JOIN scores s USING (evaluation_id)"
                  " WHERE e.run_id IN (%s) AND e.protocol = %s AND e.split = %s AND s.metric = %s ORDER BY e.task, e.run_id, e.step",
                  d->all, mx_sql_quote(d->arena, c->protocol), mx_sql_quote(d->arena, c->split), mx_sql_quote(d->arena, c->metric)));
    for (int32_t t = 0; t < c->tasks; t++) {
        mx_line *line = MX_TAKE(d->arena, mx_line, most_lines(d));
        int64_t first = 0, last;

        while (first < a->rows && strcmp(mx_asked_text(a, first, 1), c->task[t]) != 0) {
            first++;
        }
        last = first;
        while (last < a->rows && strcmp(mx_asked_text(a, last, 1), c->task[t]) == 0) {
            last++;
        }
        if (last > first) {
            panel[panels] = (mx_line_panel){ .title = c->task[t], .line = line, .lines = lines_of(d, a, first, last, 2, 3, line),
                                             .reference = mx_asked_number(a, first, 4) };
            for (int i = 0; i < panel[panels].lines; i++) {
                curve |= line[i].n > 1;
            }
            panels++;
        }
    }
    if (!curve) {
        mx_page_words(d->page, "small", "Every run was scored once (eval.every_epochs, eval.before_training), so there is no curve of scores.");
        return MX_OK;
    }
    mx_text_init(&svg, (size_t)64 << 20);
    mx_chart_lines(&(mx_line_chart){ .chart = { "score-curves", "Accuracy over the steps of training",
                                                "One panel a task, one line a variant, from before training (step 0) to the last evaluation; dashed: the majority baseline." },
                                     .x_label = "step", .y_label = "accuracy, %", .panel = panel, .panels = panels, .whole_x = true,
                                     .markers = true, .reference = "majority baseline" },
                   &svg);
    mx_draft_drawing(d, "score-curves",
                     mx_arena_text(d->arena, "Accuracy (%s, %s) at every evaluation; step 0 is before training. Thick: mean over the seeds; faint: one seed. Axes need not begin at zero.",
                                   c->metric, c->protocol),
                     &svg, d->runs, "Thick lines: unweighted mean over a variant's runs at the same steps.", list, 1);
    return MX_OK;
}

mx_code mx_draft_curves(mx_draft *d, mx_status *st) {
    mx_asked longest;
    int64_t bin;
    bool losses, balance;

    MX_TRY(mx_ask(d->store, d->arena, &longest, st, "longest", "SELECT MAX(step) FROM runs WHERE run_id IN (%s)", d->all));
    bin = (mx_asked_whole(&longest, 0, 0) + BINS - 1) / BINS;
    bin = bin < 1 ? 1 : bin;
    mx_page_section(d->page, "curves", "Training");
    MX_TRY(training_curve(d, "loss", "losses", "loss", "Training loss (of the task alone, as the recipe's objective has it).", bin, &losses, st));
    MX_TRY(training_curve(d, "balance", "balance-losses", "balance loss", "The router's balance loss, before its coefficient; under an even load it is the number of experts a token uses.", bin,
                          &balance, st));
    if (!losses) {
        mx_page_words(d->page, "small", "None of these runs was trained, or none kept its losses.");
    }
    return d->compare ? score_curves(d, st) : MX_OK;
}
