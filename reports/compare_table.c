/* compare_table.c - a comparison as tables for people: percent with one decimal, budgets beside every score. */
#include "reports/compare.h"

#include <math.h>
#include <string.h>

enum { NAME_MAX_BYTES = 512 };

static const char *dash = "-";

static void head(mx_table *t, const char *const *name, int columns, int texts) {
    mx_table_init(t, columns);
    for (int i = 0; i < columns; i++) {
        t->right[i] = i >= texts;
        mx_table_cell(t, "%s", name[i]);
    }
}

static void task_cell(mx_table *t, const mx_compare *c, int32_t task, int32_t over) {
    if (task < c->tasks || c->tasks == 1) {
        mx_table_cell(t, "%s", c->task[c->tasks == 1 ? 0 : task]);
    } else {
        mx_table_cell(t, over < c->tasks ? "mean of %d of %d tasks" : "mean of %d tasks", over, c->tasks);
    }
}

static void interval_cell(mx_table *t, const mx_estimate *e, bool sign) {
    if (isnan(e->low)) {
        mx_table_cell(t, "%s", dash);
    } else {
        mx_table_cell(t, sign ? "[%+.1f, %+.1f]" : "[%.1f, %.1f]", mx_compare_points(e->low), mx_compare_points(e->high));
    }
}

static void p_cell(mx_table *t, double p) {
    if (isnan(p)) {
        mx_table_cell(t, "%s", dash);
    } else {
        mx_table_cell(t, p < 0.001 ? "<0.001" : "%.3f", p);
    }
}

/* "26,254,080", and where it is not the baseline's: "4,884,480 (0.19x)" */
static void trained_cell(mx_table *t, const mx_compare_side *s) {
    if (s->unequal && !s->by_flops) {
        mx_table_cell(t, isinf(s->times) ? "%s (unequal)" : "%s (%.2fx)", mx_text_count(s->trained), s->times);
    } else {
        mx_table_cell(t, "%s", mx_text_count(s->trained));
    }
}

static void budget_cells(mx_table *t, const mx_compare_side *s) {
    trained_cell(t, s);
    mx_table_cell(t, "%s", mx_text_count(s->trained_router));
    if (s->unequal && s->by_flops) {
        mx_table_cell(t, "%s (%.2fx)", mx_text_count(s->flops), s->times);
    } else {
        mx_table_cell(t, "%s", s->flops ? mx_text_count(s->flops) : dash);
    }
    if (s->tokens_per_second > 0) {
        mx_table_cell(t, "%.0f", s->tokens_per_second);
    } else {
        mx_table_cell(t, "%s", dash);
    }
    mx_table_cell(t, "%s", s->memory_bytes > 0 ? mx_text_bytes((uint64_t)s->memory_bytes) : dash);
}

void mx_compare_accuracy_table(const mx_compare *c, int32_t task, mx_table *ret) {
    static const char *const columns[] = { "variant", "n", "seeds", "accuracy", "95 % interval", "majority", "trained values", "router's",
                                           "FLOPs/token", "tokens/s", "memory" };
    enum { COLUMNS = sizeof columns / sizeof columns[0] };
    const char *name[COLUMNS + 1] = { "task" };
    int32_t last = c->tasks > 1 ? c->tasks : 0;
    char title[NAME_MAX_BYTES];

    memcpy(name + 1, columns, sizeof columns);
    if (task >= 0) { /* the task is the table's name */
        if (task < c->tasks) {
            snprintf(title, sizeof title, "%s", c->task[task]);
        } else {
            snprintf(title, sizeof title, "mean of %d tasks", c->tasks);
        }
        name[1] = title;
    }
    head(ret, task < 0 ? name : name + 1, task < 0 ? COLUMNS + 1 : COLUMNS, task < 0 ? 2 : 1);
    for (int32_t t = 0; t <= last; t++) {
        for (int32_t i = 0; i < c->sides && (task < 0 || task == t); i++) {
            const mx_compare_score *x = mx_compare_score_of(c, i, t);

            if (!x->there) {
                continue;
            }
            if (task < 0) {
                task_cell(ret, c, t, c->tasks);
            }
            mx_table_cell(ret, "%s%s%s%s", c->side[i].name, i == c->baseline ? " (baseline)" : "", x->limited ? " (limited)" : "",
                          c->best_epoch ? " (BEST EPOCH)" : "");
            mx_table_cell(ret, "%s", mx_text_count(x->n));
            mx_table_cell(ret, "%d", c->side[i].runs);
            mx_table_cell(ret, "%.1f", 100 * x->accuracy.value);
            interval_cell(ret, &x->accuracy, false);
            mx_table_cell(ret, "%.1f", 100 * x->majority);
            budget_cells(ret, &c->side[i]);
        }
    }
}

void mx_compare_difference_table(const mx_compare *c, int32_t task, mx_table *ret) {
    const char *name[10] = { "task" };
    char title[NAME_MAX_BYTES];
    bool mid = false;
    int n = 1;

    for (int32_t i = 0; i < c->rows; i++) {
        mid |= !isnan(c->row[i].difference.mid_p) && (task < 0 || c->row[i].task == task);
    }
    snprintf(title, sizeof title, "%s%sagainst %s", task >= 0 ? (task < c->tasks ? c->task[task] : "mean over tasks") : "", task >= 0 ? ", " : "",
             c->baseline >= 0 ? c->side[c->baseline].name : "none");
    name[n++] = title;
    name[n++] = "n";
    name[n++] = "seeds";
    name[n++] = "difference";
    name[n++] = "95 % interval";
    name[n++] = "p";
    if (mid) {
        name[n++] = "mid-p";
    }
    name[n++] = "p (Holm)";
    name[n++] = "";
    head(ret, task < 0 ? name : name + 1, task < 0 ? n : n - 1, task < 0 ? 2 : 1);
    ret->right[task < 0 ? n - 1 : n - 2] = false;
    for (int32_t i = 0; i < c->rows; i++) {
        const mx_compare_row *r = &c->row[i];
        const mx_compare_side *s = &c->side[r->side];

        if (task >= 0 && r->task != task) {
            continue;
        }
        if (task < 0) {
            task_cell(ret, c, r->task, r->over);
        }
        mx_table_cell(ret, s->unequal && s->by_flops ? "%s%s%s (%.2fx the FLOPs)" : s->unequal && !isinf(s->times) ? "%s%s%s (%.2fx the values)" : s->unequal ? "%s%s%s (unequal budgets)" : "%s%s%s", s->name,
                      r->limited ? " (limited)" : "", c->best_epoch ? " (BEST EPOCH)" : "", s->times);
        mx_table_cell(ret, "%s", mx_text_count(r->n));
        mx_table_cell(ret, "%d", r->seeds);
        mx_table_cell(ret, "%+.1f", mx_compare_points(r->difference.value));
        interval_cell(ret, &r->difference, true);
        p_cell(ret, r->difference.p);
        if (mid) {
            p_cell(ret, r->difference.mid_p);
        }
        p_cell(ret, r->p_holm);
        mx_table_cell(ret, "%s", mx_word_text(r->word));
    }
}
