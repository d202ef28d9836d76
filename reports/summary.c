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

static const char *state_of(const mx_run_row *run) {
    return mx_run_is_dead(run) ? "dead" : run->state;
}

static const char *ago(int64_t ms) {
    static char ring[4][32];
    static int turn;
    char *t = ring[turn++ & 3];
    int64_t s = (mx_now_ms() - ms) / 1000;

    if (s < 120) {
        snprintf(t, 32, "%lld s", (long long)s);
    } else if (s < 7200) {
        snprintf(t, 32, "%lld min", (long long)(s / 60));
    } else if (s < 172800) {
        snprintf(t, 32, "%lld h", (long long)(s / 3600));
    } else {
        snprintf(t, 32, "%lld days", (long long)(s / 86400));
    }
    return t;
}

static mx_code show_losses(mx_store *s, int64_t run_id, bool json, mx_text *out, mx_status *st) {
    sqlite3_stmt *q = NULL;
    mx_code code = prepare(s,
                           "SELECT a.name, a.value, b.value, b.step FROM metrics a JOIN metrics b USING (run_id, name)"
                           " WHERE run_id = ?1"
                           " AND a.step = (SELECT MIN(step) FROM metrics m WHERE m.run_id = ?1 AND m.name = a.name)"
                           " AND b.step = (SELECT MAX(step) FROM metrics m WHERE m.run_id = ?1 AND m.name = a.name)"
                           " ORDER BY a.name",
                           &q, st);
    mx_table t;
    int n = 0;

    if (code) {
        return code;
    }
    sqlite3_bind_int64(q, 1, run_id);
    mx_table_init(&t, 4);
    t.right[1] = t.right[2] = t.right[3] = true;
    mx_table_cell(&t, "measured by step");
    mx_table_cell(&t, "first");
    mx_table_cell(&t, "last");
    mx_table_cell(&t, "at step");
    while (mx_sql_row(s, q, &code, st)) {
        if (json) {
            mx_text_print(out, "%s", n ? "," : "");
            mx_json_quote(out, mx_sql_text(q, 0));
            mx_text_print(out, ":%.9g", sqlite3_column_double(q, 2));
        } else {
            mx_table_cell(&t, "%s", mx_sql_text(q, 0));
            mx_table_cell(&t, "%.6g", sqlite3_column_double(q, 1));
            mx_table_cell(&t, "%.6g", sqlite3_column_double(q, 2));
            mx_table_cell(&t, "%lld", (long long)sqlite3_column_int64(q, 3));
        }
        n++;
    }
    if (n && !json) {
        mx_table_print(&t, 1, out);
        mx_text_print(out, "\n");
    }
    mx_table_finish(&t);
    sqlite3_finalize(q);
    return code;
}

static mx_code scores_json(mx_store *s, int64_t run_id, mx_text *out, mx_status *st) {
    sqlite3_stmt *q = NULL;
    bool first = true;
    mx_code code = prepare(s,
                           "SELECT task, split, protocol, metric, epoch, step, value, stderr, n, majority, limited"
                           " FROM accuracy WHERE run_id = ?1 ORDER BY step, task, protocol, metric, split",
                           &q, st);

    if (code) {
        return code;
    }
    sqlite3_bind_int64(q, 1, run_id);
    while (mx_sql_row(s, q, &code, st)) {
        static const char *const word[] = { "task", "split", "protocol", "metric" };

        mx_text_print(out, "%s{", first ? "" : ",");
        first = false;
        for (int i = 0; i < 4; i++) {
            mx_text_print(out, "\"%s\":", word[i]);
            mx_json_quote(out, mx_sql_text(q, i));
            mx_text_print(out, ",");
        }
        mx_text_print(out, "\"epoch\":%.9g,\"step\":%lld,\"value\":%.9g,\"stderr\":%.9g,\"n\":%lld,\"majority\":%.9g,\"limited\":%s}",
                      sqlite3_column_double(q, 4), (long long)sqlite3_column_int64(q, 5), sqlite3_column_double(q, 6),
                      sqlite3_column_double(q, 7), (long long)sqlite3_column_int64(q, 8), sqlite3_column_double(q, 9),
                      sqlite3_column_int(q, 10) ? "true" : "false");
    }
    sqlite3_finalize(q);
    return code;
}

static void run_json(const mx_run_row *r, mx_text *out) {
    const struct {
        const char *word, *value;
    } texts[] = { { "uuid", r->uuid },           { "name", r->name },           { "kind", r->kind },
                  { "method", r->method },       { "state", state_of(r) },      { "reason", r->reason },
                  { "recipe_hash", r->recipe_hash }, { "base", r->base_name },  { "base_hash", r->base_hash },
                  { "tasks_hash", r->tasks_hash },   { "data_hash", r->data_hash }, { "folder", r->folder } };

    mx_text_print(out, "{\"run_id\":%lld", (long long)r->run_id);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        mx_text_print(out, ",\"%s\":", texts[i].word);
        mx_json_quote(out, texts[i].value);
    }
    mx_text_print(out,
                  ",\"seed\":%lld,\"trained\":%lld,\"trained_router\":%lld,\"step\":%lld,\"steps\":%lld,\"limited\":%s"
                  ",\"began_ms\":%lld,\"ended_ms\":%lld",
                  (long long)r->seed, (long long)r->trained, (long long)r->trained_router, (long long)r->step,
                  (long long)r->steps, r->limited ? "true" : "false", (long long)r->began_ms, (long long)r->ended_ms);
}

mx_code mx_summary_show(mx_store *s, const mx_run_row *r, bool json, mx_text *out, mx_status *st) {
    if (json) {
        run_json(r, out);
        mx_text_print(out, ",\"last\":{");
        MX_TRY(show_losses(s, r->run_id, true, out, st));
        mx_text_print(out, "},\"scores\":[");
        MX_TRY(scores_json(s, r->run_id, out, st));
        mx_text_print(out, "]}\n");
        return MX_OK;
    }
    mx_text_print(out, "run %lld  %s  %s  seed %lld  recipe %.6s  %s%s%s\n", (long long)r->run_id, r->name, r->method,
                  (long long)r->seed, r->recipe_hash, state_of(r), r->reason[0] ? ": " : "", r->reason);
    mx_text_print(out, "  uuid     %s\n  base     %s  %s  sha256 %.12s\n", r->uuid, r->base_name, r->base_description, r->base_hash);
    mx_text_print(out, "  trained  %s values, %s of them router\n", mx_text_count(r->trained), mx_text_count(r->trained_router));
    mx_text_print(out, "  steps    %lld of %lld%s\n", (long long)r->step, (long long)r->steps,
                  r->limited ? "  (limited: for trying things, not a result)" : "");
    mx_text_print(out, "  began    %s ago%s%s\n", ago(r->began_ms), r->ended_ms ? ", took " : "",
                  r->ended_ms ? mx_text_seconds((double)(r->ended_ms - r->began_ms) / 1000) : "");
    mx_text_print(out, "  files    %s\n  hashes   tasks %.12s  data %.12s\n\n", r->folder, r->tasks_hash, r->data_hash);
    MX_TRY(show_losses(s, r->run_id, false, out, st));
    MX_TRY(mx_summary_scores(s, r->run_id, out, st));
    MX_TRY(mx_summary_router(s, r->run_id, out, st));
    mx_text_print(out, "\n recipe (resolved)\n%s", r->recipe);
    return MX_OK;
}

/* The mean over tasks of the last evaluation's first protocol and metric: enough to tell runs apart in a list. */
static const char list_sql[] =
    "SELECT r.run_id, r.name, r.method, r.seed, r.state, r.step, r.steps, r.began_ms, r.host, r.pid, r.heartbeat_ms, r.limited,"
    " (SELECT printf('%s %s %.1f', h.protocol, h.metric, 100 * AVG(h.value)) FROM accuracy h WHERE h.run_id = r.run_id"
    "   AND h.step = (SELECT MAX(step) FROM evaluations WHERE run_id = r.run_id)"
    "   GROUP BY h.protocol, h.metric ORDER BY h.protocol DESC, h.metric DESC LIMIT 1), r.uuid"
    " FROM runs r WHERE (?1 IS NULL OR r.method = ?1)"
    " AND (?3 IS NULL OR EXISTS (SELECT 1 FROM evaluations e WHERE e.run_id = r.run_id AND e.task = ?3))"
    " ORDER BY r.run_id DESC";

mx_code mx_summary_list(mx_store *s, const mx_list_filter *f, bool json, mx_text *out, mx_status *st) {
    sqlite3_stmt *q = NULL;
    mx_table t;
    int64_t shown = 0;
    mx_code code = prepare(s, list_sql, &q, st);
    static const char *const head[] = { "run", "name", "method", "seed", "state", "steps", "age", "last score, mean over tasks" };

    if (code) {
        return code;
    }
    sqlite3_bind_text(q, 1, f->method, -1, SQLITE_STATIC);
    sqlite3_bind_text(q, 3, f->task, -1, SQLITE_STATIC);
    mx_table_init(&t, 8);
    t.right[0] = t.right[3] = t.right[5] = t.right[6] = true;
    for (int i = 0; i < 8; i++) {
        mx_table_cell(&t, "%s", head[i]);
    }
    while (mx_sql_row(s, q, &code, st) && (f->limit == 0 || shown < f->limit)) {
        mx_run_row r = { .state = mx_sql_text(q, 4), .host = mx_sql_text(q, 8), .pid = sqlite3_column_int64(q, 9),
                         .heartbeat_ms = sqlite3_column_int64(q, 10) };
        const char *state = state_of(&r);

        if (f->state && strcmp(f->state, state) != 0) {
            continue;
        }
        if (json) {
            mx_text_print(out, "{\"run_id\":%lld,\"name\":", (long long)sqlite3_column_int64(q, 0));
            mx_json_quote(out, mx_sql_text(q, 1));
            mx_text_print(out, ",\"uuid\":\"%s\",\"method\":\"%s\",\"seed\":%lld,\"state\":\"%s\",\"step\":%lld,\"steps\":%lld,\"score\":",
                          mx_sql_text(q, 13), mx_sql_text(q, 2), (long long)sqlite3_column_int64(q, 3), state,
                          (long long)sqlite3_column_int64(q, 5), (long long)sqlite3_column_int64(q, 6));
            mx_json_quote(out, mx_sql_text(q, 12));
            mx_text_print(out, "}\n");
        } else {
            mx_table_cell(&t, "%lld", (long long)sqlite3_column_int64(q, 0));
            mx_table_cell(&t, "%s", mx_sql_text(q, 1));
            mx_table_cell(&t, "%s", mx_sql_text(q, 2));
            mx_table_cell(&t, "%lld", (long long)sqlite3_column_int64(q, 3));
            mx_table_cell(&t, "%s", state);
            mx_table_cell(&t, "%lld/%lld", (long long)sqlite3_column_int64(q, 5), (long long)sqlite3_column_int64(q, 6));
            mx_table_cell(&t, "%s", ago(sqlite3_column_int64(q, 7)));
            mx_table_cell(&t, "%s%s", mx_sql_text(q, 12), sqlite3_column_int(q, 11) ? " (limited)" : "");
        }
        shown++;
    }
    if (!json && shown) {
        mx_table_print(&t, 1, out);
    } else if (!json && code == MX_OK) {
        mx_text_print(out, " no runs\n");
    }
    mx_table_finish(&t);
    sqlite3_finalize(q);
    return code;
}
