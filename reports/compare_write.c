/* compare_write.c - a whole comparison, for people (table, markdown, latex) and for programs (csv, json: fractions, full precision). */
#include "reports/compare.h"

#include <math.h>
#include <string.h>

/* -------------------------------------------------------------- for people */

static void write_note(const char *note, mx_format format, mx_text *out) {
    if (format == MX_FORMAT_MARKDOWN) {
        mx_text_print(out, "- %s\n", note);
    } else if (format == MX_FORMAT_LATEX) {
        mx_text_print(out, "%% %s\n", note);
    } else {
        mx_text_print(out, " %s\n", note);
    }
}

static void write_title(const mx_compare *c, const char *what, mx_format format, mx_text *out) {
    mx_text_print(out, "%s%s, %s %s, %s%s%s%s%s\n%s", format == MX_FORMAT_LATEX ? "% " : format == MX_FORMAT_MARKDOWN ? "**" : " ", what,
                  c->protocol, c->metric, c->split, *c->sweep ? ", sweep " : "", c->sweep, c->best_epoch ? ", BEST EPOCH" : "",
                  format == MX_FORMAT_MARKDOWN ? "**" : "", format == MX_FORMAT_MARKDOWN ? "\n" : "");
}

/* On the terminal a block for every task; else one table with a column for it. */
static void write_tables(const mx_compare *c, void (*fill)(const mx_compare *, int32_t, mx_table *), mx_format format, mx_text *out) {
    bool blocks = format == MX_FORMAT_TABLE;
    int32_t last = !blocks || c->tasks == 0 ? -1 : c->tasks > 1 ? c->tasks : 0;

    for (int32_t t = blocks && c->tasks > 0 ? 0 : -1; t <= last; t++) {
        mx_table table;

        fill(c, t, &table);
        if (table.rows > 1) {
            mx_table_write(&table, format, out);
            mx_text_print(out, "\n");
        }
        mx_table_finish(&table);
    }
}

static void for_people(const mx_compare *c, mx_format format, mx_text *out) {
    write_title(c, "Accuracy in percent", format, out);
    write_tables(c, mx_compare_accuracy_table, format, out);
    if (c->rows > 0) {
        write_title(c, "Difference in points", format, out);
        write_tables(c, mx_compare_difference_table, format, out);
    }
    for (int32_t i = 0; i < c->notes; i++) {
        write_note(c->note[i], format, out);
    }
}

/* --------------------------------------------------------------------- csv */

static void number_cell(mx_table *t, double value) {
    if (isfinite(value)) {
        mx_table_cell(t, "%.12g", value);
    } else {
        mx_table_cell(t, "%s", "");
    }
}

static void count_cell(mx_table *t, int64_t value) {
    mx_table_cell(t, "%lld", (long long)value);
}

static void estimate_cells(mx_table *t, const mx_compare_score *x) {
    number_cell(t, x->there ? x->accuracy.value : NAN);
    number_cell(t, x->there ? x->accuracy.low : NAN);
    number_cell(t, x->there ? x->accuracy.high : NAN);
}

static void side_cells(mx_table *t, const mx_compare_side *s) {
    count_cell(t, s->trained);
    count_cell(t, s->trained_router);
    number_cell(t, s->flops ? (double)s->flops : NAN);
    number_cell(t, s->tokens_per_second > 0 ? s->tokens_per_second : NAN);
    number_cell(t, s->memory_bytes > 0 ? s->memory_bytes : NAN);
}

static void ids_cell(mx_table *t, const int64_t *id, int32_t n) {
    mx_text ids;

    mx_text_init(&ids, (size_t)1 << 24);
    for (int32_t i = 0; i < n; i++) {
        mx_text_print(&ids, "%s%lld", i ? " " : "", (long long)id[i]);
    }
    mx_table_cell(t, "%s", ids.data ? ids.data : "");
    mx_text_finish(&ids);
}

static void task_cell(mx_table *t, const mx_compare *c, int32_t task, int32_t over) {
    if (task < c->tasks) {
        mx_table_cell(t, "%s", c->task[task]);
    } else {
        mx_table_cell(t, over < c->tasks ? "mean of %d of %d tasks" : "mean of %d tasks", over, c->tasks);
    }
}

static void where_cells(mx_table *t, const mx_compare *c, int32_t task, int32_t over, const char *variant) {
    task_cell(t, c, task, over);
    mx_table_cell(t, "%s", c->protocol);
    mx_table_cell(t, "%s", c->metric);
    mx_table_cell(t, "%s", c->split);
    mx_table_cell(t, "%s", variant);
}

static void start(mx_table *t, const char *const *column, int columns) {
    mx_table_init(t, columns);
    for (int i = 0; i < columns; i++) {
        mx_table_cell(t, "%s", column[i]);
    }
}

static void csv_rows(const mx_compare *c, mx_table *t) {
    static const char *const columns[] = {
        "task", "protocol", "metric", "split", "variant", "baseline", "n", "seeds", "difference", "low", "high", "p", "mid_p", "p_holm", "word",
        "detectable", "variance", "freedom", "estimator", "accuracy", "accuracy_low", "accuracy_high", "baseline_accuracy",
        "baseline_accuracy_low", "baseline_accuracy_high", "majority", "trained", "trained_router", "flops", "tokens_per_second", "memory_bytes",
        "baseline_trained", "baseline_trained_router", "baseline_flops", "baseline_tokens_per_second", "baseline_memory_bytes", "unequal",
        "limited", "best_epoch", "runs", "baseline_runs" };

    start(t, columns, sizeof columns / sizeof columns[0]);
    for (int32_t i = 0; i < c->rows; i++) {
        const mx_compare_row *r = &c->row[i];
        const mx_estimate *e = &r->difference;

        where_cells(t, c, r->task, r->over, c->side[r->side].name);
        mx_table_cell(t, "%s", c->side[c->baseline].name);
        count_cell(t, r->n);
        count_cell(t, r->seeds);
        number_cell(t, e->value);
        number_cell(t, e->low);
        number_cell(t, e->high);
        number_cell(t, e->p);
        number_cell(t, e->mid_p);
        number_cell(t, r->p_holm);
        mx_table_cell(t, "%s", mx_word_text(r->word));
        number_cell(t, e->detectable <= 1 ? e->detectable : NAN);
        number_cell(t, e->variance);
        number_cell(t, e->freedom);
        mx_table_cell(t, "%s", e->estimator);
        estimate_cells(t, mx_compare_score_of(c, r->side, r->task));
        estimate_cells(t, mx_compare_score_of(c, c->baseline, r->task));
        number_cell(t, r->majority);
        side_cells(t, &c->side[r->side]);
        side_cells(t, &c->side[c->baseline]);
        count_cell(t, c->side[r->side].unequal);
        count_cell(t, r->limited);
        count_cell(t, c->best_epoch);
        ids_cell(t, r->run_id, r->seeds);
        ids_cell(t, r->baseline_run_id, r->seeds);
    }
}

/* Without a baseline there are only accuracies. */
static void csv_scores(const mx_compare *c, mx_table *t) {
    static const char *const columns[] = { "task", "protocol", "metric", "split", "variant", "n", "seeds", "accuracy", "accuracy_low",
                                           "accuracy_high", "estimator", "majority", "trained", "trained_router", "flops", "tokens_per_second",
                                           "memory_bytes", "limited", "best_epoch" };

    start(t, columns, sizeof columns / sizeof columns[0]);
    for (int32_t task = 0; task < c->tasks + (c->tasks > 1); task++) {
        for (int32_t i = 0; i < c->sides; i++) {
            const mx_compare_score *x = mx_compare_score_of(c, i, task);

            if (!x->there) {
                continue;
            }
            where_cells(t, c, task, c->tasks, c->side[i].name);
            count_cell(t, x->n);
            count_cell(t, c->side[i].runs);
            estimate_cells(t, x);
            mx_table_cell(t, "%s", x->accuracy.estimator);
            number_cell(t, x->majority);
            side_cells(t, &c->side[i]);
            count_cell(t, x->limited);
            count_cell(t, c->best_epoch);
        }
    }
}

/* -------------------------------------------------------------------- json */

static void key(mx_text *out, const char *name) {
    mx_text_print(out, "%s\"%s\": ", out->data[out->length - 1] == '{' ? "" : ", ", name);
}

static void text_of(mx_text *out, const char *name, const char *text) {
    key(out, name);
    mx_json_quote(out, text ? text : "");
}

static void number_of(mx_text *out, const char *name, double value) {
    key(out, name);
    mx_text_print(out, isfinite(value) ? "%.17g" : "null", value);
}

static void whole_of(mx_text *out, const char *name, int64_t value) {
    key(out, name);
    mx_text_print(out, "%lld", (long long)value);
}

static void truth_of(mx_text *out, const char *name, bool value) {
    key(out, name);
    mx_text_print(out, value ? "true" : "false");
}

static void wholes_of(mx_text *out, const char *name, const int64_t *value, int32_t n) {
    key(out, name);
    mx_text_print(out, "[");
    for (int32_t i = 0; i < n; i++) {
        mx_text_print(out, "%s%lld", i ? ", " : "", (long long)value[i]);
    }
    mx_text_print(out, "]");
}

static void numbers_of(mx_text *out, const char *name, const double *value, int32_t n) {
    key(out, name);
    mx_text_print(out, "[");
    for (int32_t i = 0; i < n; i++) {
        mx_text_print(out, "%s%.17g", i ? ", " : "", value[i]);
    }
    mx_text_print(out, "]");
}

static void estimate_of(mx_text *out, const char *name, const mx_estimate *e, bool difference) {
    number_of(out, name, e->value);
    number_of(out, "low", e->low);
    number_of(out, "high", e->high);
    number_of(out, "variance", e->variance);
    number_of(out, "freedom", e->freedom); /* null: normal, or none */
    if (difference) {
        number_of(out, "p", e->p);
        number_of(out, "mid_p", e->mid_p);
        number_of(out, "detectable", e->detectable <= 1 ? e->detectable : NAN); /* null: none, or more than there can be */
    }
    text_of(out, "estimator", e->estimator);
}

static void json_sides(const mx_compare *c, mx_text *out) {
    key(out, "sides");
    mx_text_print(out, "[");
    for (int32_t i = 0; i < c->sides; i++) {
        const mx_compare_side *s = &c->side[i];

        mx_text_print(out, "%s\n{", i ? "," : "");
        text_of(out, "name", s->name);
        truth_of(out, "baseline", i == c->baseline);
        text_of(out, "method", s->method);
        text_of(out, "matched", s->matched);
        whole_of(out, "trained", s->trained);
        whole_of(out, "trained_router", s->trained_router);
        number_of(out, "flops", s->flops ? (double)s->flops : NAN);
        number_of(out, "tokens_per_second", s->tokens_per_second > 0 ? s->tokens_per_second : NAN);
        number_of(out, "memory_bytes", s->memory_bytes > 0 ? s->memory_bytes : NAN);
        truth_of(out, "unequal", s->unequal);
        text_of(out, "sql", s->sql);
        key(out, "runs");
        mx_text_print(out, "[");
        for (int32_t r = 0; r < s->runs; r++) {
            mx_text_print(out, "%s{", r ? ", " : "");
            whole_of(out, "run_id", s->run[r].run_id);
            text_of(out, "uuid", s->run[r].uuid);
            whole_of(out, "seed", s->run[r].seed);
            whole_of(out, "step", s->run[r].step);
            mx_text_print(out, "}");
        }
        mx_text_print(out, "]}");
    }
    mx_text_print(out, "]");
}

static const char *task_name(const mx_compare *c, int32_t task) {
    return task < c->tasks ? c->task[task] : "mean";
}

static void json_scores(const mx_compare *c, mx_text *out) {
    bool first = true;

    key(out, "scores");
    mx_text_print(out, "[");
    for (int32_t t = 0; t < c->tasks + (c->tasks > 1); t++) {
        for (int32_t i = 0; i < c->sides; i++) {
            const mx_compare_score *x = mx_compare_score_of(c, i, t);

            if (!x->there) {
                continue;
            }
            mx_text_print(out, "%s\n{", first ? "" : ",");
            first = false;
            text_of(out, "side", c->side[i].name);
            text_of(out, "task", task_name(c, t));
            whole_of(out, "tasks", t < c->tasks ? 1 : c->tasks);
            whole_of(out, "n", x->n);
            estimate_of(out, "accuracy", &x->accuracy, false);
            numbers_of(out, "seed_accuracy", x->seed_value, c->side[i].runs);
            number_of(out, "majority", x->majority);
            truth_of(out, "limited", x->limited);
            text_of(out, "sql", x->sql);
            text_of(out, "sql_scores", x->sql_scores);
            mx_text_print(out, "}");
        }
    }
    mx_text_print(out, "]");
}

static void json_rows(const mx_compare *c, mx_text *out) {
    key(out, "differences");
    mx_text_print(out, "[");
    for (int32_t i = 0; i < c->rows; i++) {
        const mx_compare_row *r = &c->row[i];

        mx_text_print(out, "%s\n{", i ? "," : "");
        text_of(out, "side", c->side[r->side].name);
        text_of(out, "baseline", c->side[c->baseline].name);
        text_of(out, "task", task_name(c, r->task));
        whole_of(out, "tasks", r->over);
        whole_of(out, "n", r->n);
        estimate_of(out, "difference", &r->difference, true);
        number_of(out, "p_holm", r->p_holm);
        text_of(out, "word", mx_word_text(r->word));
        numbers_of(out, "seed_difference", r->seed_difference, r->seeds);
        wholes_of(out, "seeds", r->seed, r->seeds);
        wholes_of(out, "runs", r->run_id, r->seeds);
        wholes_of(out, "baseline_runs", r->baseline_run_id, r->seeds);
        number_of(out, "majority", r->majority);
        truth_of(out, "unequal", c->side[r->side].unequal);
        truth_of(out, "limited", r->limited);
        text_of(out, "sql", r->sql);
        mx_text_print(out, "}");
    }
    mx_text_print(out, "]");
}

static void json(const mx_compare *c, mx_text *out) {
    mx_text_print(out, "{");
    text_of(out, "sweep", c->sweep);
    text_of(out, "protocol", c->protocol);
    text_of(out, "metric", c->metric);
    text_of(out, "split", c->split);
    truth_of(out, "best_epoch", c->best_epoch);
    text_of(out, "sql_runs", c->sql_runs);
    json_sides(c, out);
    json_scores(c, out);
    json_rows(c, out);
    key(out, "notes");
    mx_text_print(out, "[");
    for (int32_t i = 0; i < c->notes; i++) {
        mx_text_print(out, "%s\n", i ? "," : "");
        mx_json_quote(out, c->note[i]);
    }
    mx_text_print(out, "]}\n");
}

void mx_compare_write(const mx_compare *c, mx_format format, mx_text *out) {
    mx_table t;

    if (format == MX_FORMAT_JSON) {
        json(c, out);
    } else if (format == MX_FORMAT_CSV) {
        if (c->rows > 0) {
            csv_rows(c, &t);
        } else {
            csv_scores(c, &t);
        }
        mx_table_write(&t, format, out);
        mx_table_finish(&t);
    } else {
        for_people(c, format, out);
    }
}
