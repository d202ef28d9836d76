/* rows.c - store.h's rows of what a run measured: metrics, evaluations, the router's windows. */
#include "base/text.h"
#include "reports/sql.h"

#include <math.h>

mx_code mx_store_drop_after(mx_store *s, int64_t run_id, int64_t step, mx_status *st) {
    MX_TRY(mx_sql_execute(s, st, "DELETE FROM metrics WHERE run_id = ? AND step > ?", "ii", run_id, step));
    MX_TRY(mx_sql_execute(s, st, "DELETE FROM evaluations WHERE run_id = ? AND step >= ?", "ii", run_id, step));
    MX_TRY(mx_sql_execute(s, st, "DELETE FROM router_windows WHERE run_id = ? AND last_step > ?", "ii", run_id, step));
    return mx_sql_execute(s, st, "UPDATE runs SET step = MIN(step, ?) WHERE run_id = ?", "ii", step, run_id);
}

mx_code mx_store_word(mx_store *s, int64_t run_id, const char *word, const char *value, mx_status *st) {
    return mx_sql_execute(s, st, "INSERT OR REPLACE INTO words VALUES (?, ?, ?)", "itt", run_id, word, value);
}

mx_code mx_store_data_file(mx_store *s, int64_t run_id, const char *task, const char *split, const char *path,
                           const char *sha256, int64_t questions, int64_t truncated, mx_status *st) {
    return mx_sql_execute(s, st, "INSERT OR REPLACE INTO data_files VALUES (?, ?, ?, ?, ?, ?, ?)", "ittttii", run_id, task, split,
                   path, sha256, questions, truncated);
}

mx_code mx_store_metric(mx_store *s, int64_t run_id, int64_t step, const char *name, double value, mx_status *st) {
    return mx_sql_execute(s, st, "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)", "iitd", run_id, step, name, value);
}

mx_code mx_store_metric_last(mx_store *s, int64_t run_id, const char *name, double *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = NAN;
    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT value FROM metrics WHERE run_id = ? AND name = ? ORDER BY step DESC LIMIT 1", "it",
                          run_id, name));
    if (mx_sql_row(s, q, &code, st)) {
        *ret = sqlite3_column_double(q, 0);
    }
    sqlite3_finalize(q);
    return code;
}

mx_code mx_store_evaluation(mx_store *s, int64_t run_id, const mx_evaluation_row *row, int64_t *ret_id, mx_status *st) {
    MX_TRY(mx_sql_execute(s, st,
                   "INSERT INTO evaluations (run_id, task, split, protocol, epoch, step, n, limited, truncated, task_hash,"
                   " data_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   "itttdiiiitt", run_id, row->task, row->split, row->protocol, row->epoch, row->step, row->n,
                   (int64_t)row->limited, row->truncated, row->task_hash, row->data_hash));
    *ret_id = sqlite3_last_insert_rowid(mx_store_handle(s));
    return MX_OK;
}

mx_code mx_store_score(mx_store *s, int64_t evaluation_id, const char *metric, double value, double stderr_value,
                       double majority, mx_status *st) {
    return mx_sql_execute(s, st, "INSERT INTO scores VALUES (?, ?, ?, ?, ?)", "itddd", evaluation_id, metric, value, stderr_value,
                   majority);
}

mx_code mx_store_prediction(mx_store *s, int64_t evaluation_id, int64_t number, const char *item, int gold,
                            const double *choice_score, int choices, mx_status *st) {
    mx_text json;
    mx_code code;

    mx_text_init(&json, 1 << 16);
    for (int i = 0; i < choices; i++) {
        mx_text_print(&json, "%c%.9g", i ? ',' : '[', choice_score[i]);
    }
    mx_text_print(&json, "%s", choices ? "]" : "[]");
    code = mx_sql_execute(s, st, "INSERT INTO predictions VALUES (?, ?, ?, ?, ?)", "iitit", evaluation_id, number, item,
                   (int64_t)gold, json.data);
    mx_text_finish(&json);
    return code;
}

mx_code mx_store_outcome(mx_store *s, int64_t evaluation_id, const char *metric, int64_t number, int chosen, bool correct,
                         mx_status *st) {
    return mx_sql_execute(s, st, "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?)", "itiii", evaluation_id, metric, number,
                   (int64_t)chosen, (int64_t)correct);
}

/* Rows of one task and layer. */
static mx_code store_layer(mx_store *s, const mx_router_window *w, int64_t window_id, int64_t task, int64_t layer,
                           mx_status *st) {
    int64_t at = layer * w->tasks + task, e = w->experts;

    MX_TRY(mx_sql_execute(s, st, "INSERT INTO router_tokens VALUES (?, ?, ?, ?, ?)", "itiid", window_id, w->task[task], layer,
                   w->routed[at], w->entropy[at]));
    for (int64_t i = 0; i < e; i++) {
        MX_TRY(mx_sql_execute(s, st, "INSERT INTO router_loads VALUES (?, ?, ?, ?, ?, ?, ?)", "itiiiid", window_id, w->task[task],
                       layer, i, w->tokens[at * e + i], w->dropped[at * e + i], w->probability[at * e + i]));
    }
    for (int64_t i = 0; w->pairs && i < e; i++) {
        for (int64_t j = i + 1; j < e; j++) {
            int64_t n = w->pairs[(at * e + i) * e + j];

            if (n > 0) {
                MX_TRY(mx_sql_execute(s, st, "INSERT INTO router_pairs VALUES (?, ?, ?, ?, ?, ?)", "itiiii", window_id,
                               w->task[task], layer, i, j, n));
            }
        }
    }
    return MX_OK;
}

mx_code mx_store_router(mx_store *s, int64_t run_id, const mx_router_window *w, mx_status *st) {
    int64_t window_id;

    MX_TRY(mx_sql_execute(s, st,
                   "INSERT INTO router_windows (run_id, split, first_step, last_step, evaluation_id)"
                   " VALUES (?, ?, ?, ?, NULLIF(?, 0))",
                   "itiii", run_id, w->split, w->first_step, w->last_step, w->evaluation_id));
    window_id = sqlite3_last_insert_rowid(mx_store_handle(s));
    for (int64_t t = 0; t < w->tasks; t++) {
        for (int64_t l = 0; l < w->layers; l++) {
            if (w->routed[l * w->tasks + t] > 0) {
                MX_TRY(store_layer(s, w, window_id, t, l, st));
            }
        }
    }
    return MX_OK;
}
