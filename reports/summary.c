/* summary.c - see summary.h. */
#include "reports/summary.h"

#include "reports/sql.h"
#include "reports/table.h"

#include <string.h>

enum { EXPERTS_SHOWN = 77 }; /* in a line of the terminal */

static mx_code prepare(mx_store *s, const char *sql, sqlite3_stmt **ret, mx_status *st) {
    return mx_sql_prepare(s, ret, st, sql, "");
}

static void score_cell(mx_table *t, sqlite3_stmt *q, int i) {
    if (sqlite3_column_type(q, i) == SQLITE_NULL) {
        mx_table_cell(t, "-");
    } else {
        mx_table_cell(t, "%.1f ± %.1f", 100 * sqlite3_column_double(q, i), 100 * sqlite3_column_double(q, i + 1));
    }
}

/* Before is step 0; after is the last evaluation. */
static const char scores_sql[] =
    "SELECT e.protocol, s.metric, e.split, e.task, e.n, b.value, b.stderr, s.value, s.stderr, s.majority, e.limited, e.step,"
    " (SELECT kind FROM runs WHERE runs.run_id = e.run_id)"
    " FROM evaluations e JOIN scores s USING (evaluation_id)"
    " LEFT JOIN evaluations e0 ON e0.run_id = e.run_id AND e0.task = e.task AND e0.split = e.split"
    "   AND e0.protocol = e.protocol AND e0.step = 0 AND e.step > 0"
    " LEFT JOIN scores b ON b.evaluation_id = e0.evaluation_id AND b.metric = s.metric"
    " WHERE e.run_id = ?1 AND e.step = (SELECT MAX(step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task"
    "   AND l.split = e.split AND l.protocol = e.protocol)"
    " ORDER BY e.protocol DESC, s.metric, e.split, (SELECT MIN(f.evaluation_id) FROM evaluations f"
    "   WHERE f.run_id = e.run_id AND f.task = e.task)";

static void close_block(mx_table *t, mx_text *out) {
    if (t->rows > 0) {
        mx_table_print(t, 1, out);
        mx_text_print(out, "\n");
    }
    mx_table_finish(t);
}

/* A run that only evaluates has one score, neither before nor after. */
static bool only_scored(sqlite3_stmt *q) {
    return strcmp(mx_sql_text(q, 12), "eval") == 0;
}

static void open_block(mx_table *t, sqlite3_stmt *q) {
    mx_table_init(t, only_scored(q) ? 4 : 5);
    t->right[1] = t->right[2] = t->right[3] = t->right[4] = true;
    mx_table_cell(t, "%s, %s, %s", mx_sql_text(q, 1), mx_sql_text(q, 0), mx_sql_text(q, 2));
    mx_table_cell(t, "n");
    if (only_scored(q)) {
        mx_table_cell(t, "score");
    } else {
        mx_table_cell(t, "before");
        mx_table_cell(t, "after");
    }
    mx_table_cell(t, "majority");
}

mx_code mx_summary_scores(mx_store *s, int64_t run_id, mx_text *out, mx_status *st) {
    sqlite3_stmt *q = NULL;
    mx_table table = { 0 };
    char block[256] = "", now[256];
    bool limited = false;
    mx_code code = prepare(s, scores_sql, &q, st);

    if (code) {
        return code;
    }
    sqlite3_bind_int64(q, 1, run_id);
    while (mx_sql_row(s, q, &code, st)) {
        snprintf(now, sizeof now, "%s %s %s", mx_sql_text(q, 0), mx_sql_text(q, 1), mx_sql_text(q, 2));
        if (strcmp(now, block) != 0) {
            close_block(&table, out);
            open_block(&table, q);
            memcpy(block, now, sizeof block);
        }
        limited |= sqlite3_column_int(q, 10) != 0;
        mx_table_cell(&table, "%s%s", mx_sql_text(q, 3), sqlite3_column_int(q, 10) ? " (limited)" : "");
        mx_table_cell(&table, "%s", mx_text_count(sqlite3_column_int64(q, 4)));
        if (only_scored(q)) {
            score_cell(&table, q, 7);
        } else if (sqlite3_column_int64(q, 11) == 0) { /* nothing but the evaluation before training */
            score_cell(&table, q, 7);
            mx_table_cell(&table, "-");
        } else {
            score_cell(&table, q, 5);
            score_cell(&table, q, 7);
        }
        mx_table_cell(&table, "%.1f", 100 * sqlite3_column_double(q, 9));
    }
    close_block(&table, out);
    sqlite3_finalize(q);
    if (block[0]) {
        mx_text_print(out, " In percent; ± is one standard error over questions; one seed says nothing about seeds.\n");
    }
    if (limited) {
        mx_text_print(out, " (limited): eval.limit left questions out; such a score is for trying things, not a result.\n");
    }
    return code;
}

/* The share of each expert in one layer (or all: -1) over the whole training. */
static mx_code share_row(mx_store *s, int64_t run_id, int64_t layer, const char *label, int64_t experts, mx_table *t,
                         mx_status *st) {
    sqlite3_stmt *q = NULL;
    double share[MX_COLUMNS_MAX] = { 0 }, most = 0, entropy = 0;
    mx_code code = prepare(s,
                           "SELECT expert, SUM(tokens) * 1.0 / SUM(SUM(tokens)) OVER () AS share FROM router_load"
                           " WHERE run_id = ?1 AND split = 'train' AND (?2 < 0 OR layer = ?2) GROUP BY expert ORDER BY expert",
                           &q, st);

    if (code) {
        return code;
    }
    sqlite3_bind_int64(q, 1, run_id);
    sqlite3_bind_int64(q, 2, layer);
    for (int64_t e = 0; mx_sql_row(s, q, &code, st) && e < experts; e++) {
        share[e] = sqlite3_column_double(q, 1);
    }
    sqlite3_finalize(q);
    mx_table_cell(t, "%s", label);
    for (int64_t e = 0; e < experts; e++) {
        mx_table_cell(t, "%.2f", share[e]);
        most = share[e] > most ? share[e] : most;
    }
    q = NULL;
    if (code == MX_OK) {
        code = prepare(s,
                       "WITH l AS (SELECT SUM(tokens) * 1.0 / SUM(SUM(tokens)) OVER () AS p FROM router_load"
                       " WHERE run_id = ?1 AND split = 'train' AND (?2 < 0 OR layer = ?2) GROUP BY expert)"
                       " SELECT -SUM(CASE WHEN p > 0 THEN p * LOG2(p) ELSE 0 END) FROM l",
                       &q, st);
    }
    if (code == MX_OK) {
        sqlite3_bind_int64(q, 1, run_id);
        sqlite3_bind_int64(q, 2, layer);
        if (mx_sql_row(s, q, &code, st)) {
            entropy = sqlite3_column_double(q, 0);
        }
    }
    sqlite3_finalize(q);
    mx_table_cell(t, "%.2f", entropy);
    mx_table_cell(t, "%.2f", most * (double)experts);
    return code;
}

mx_code mx_summary_router(mx_store *s, int64_t run_id, mx_text *out, mx_status *st) {
    sqlite3_stmt *q = NULL;
    mx_table t;
    int64_t experts = 0, uneven = -1, dead = 0, dropped = 0;
    char label[64];
    mx_code code = prepare(s,
                           "WITH l AS (SELECT layer, expert, SUM(tokens) AS n, SUM(dropped) AS d FROM router_load"
                           " WHERE run_id = ?1 AND split = 'train' GROUP BY layer, expert)"
                           " SELECT (SELECT COUNT(DISTINCT expert) FROM l),"
                           " (SELECT layer FROM l GROUP BY layer ORDER BY MAX(n) * 1.0 / MAX(SUM(n), 1) DESC, layer LIMIT 1),"
                           " (SELECT COUNT(*) FROM l WHERE n = 0), (SELECT SUM(d) FROM l)",
                           &q, st);

    if (code) {
        return code;
    }
    sqlite3_bind_int64(q, 1, run_id);
    if (mx_sql_row(s, q, &code, st)) {
        experts = sqlite3_column_int64(q, 0);
        uneven = sqlite3_column_int64(q, 1);
        dead = sqlite3_column_int64(q, 2);
        dropped = sqlite3_column_int64(q, 3);
    }
    sqlite3_finalize(q);
    if (code || experts == 0 || experts > EXPERTS_SHOWN) {
        return code; /* not routed, or too many to print in a line: the views tell */
    }
    mx_table_init(&t, (int)experts + 3);
    mx_table_cell(&t, "router load, share of tokens, training");
    for (int64_t e = 0; e < experts; e++) {
        t.right[e + 1] = true;
        mx_table_cell(&t, "e%lld", (long long)e);
    }
    t.right[experts + 1] = t.right[experts + 2] = true;
    mx_table_cell(&t, "entropy, bits");
    mx_table_cell(&t, "max/mean");
    snprintf(label, sizeof label, "most uneven: layer %lld", (long long)uneven);
    code = share_row(s, run_id, -1, "all layers", experts, &t, st);
    if (code == MX_OK) {
        code = share_row(s, run_id, uneven, label, experts, &t, st);
    }
    if (code == MX_OK) {
        mx_text_print(out, "\n");
        mx_table_print(&t, 1, out);
        if (dead > 0) {
            mx_text_print(out, " %lld of the experts (counted by layer) never worked.\n", (long long)dead);
        }
        if (dropped > 0) {
            mx_text_print(out, " %s tokens were past their expert's capacity.\n", mx_text_count(dropped));
        }
    }
    mx_table_finish(&t);
    return code;
}
