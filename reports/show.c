/* show.c - summary.h's one run, whole: for people, or as a JSON object. */
#include "reports/summary.h"

#include "base/file.h"
#include "reports/sql.h"

#include <string.h>

/* ------------------------------------------------------------------------ what was measured by step */

static const char measured_sql[] =
    "WITH ends AS (SELECT name, MIN(step) AS first, MAX(step) AS last FROM metrics WHERE run_id = ?1 GROUP BY name)"
    " SELECT name, (SELECT value FROM metrics m WHERE m.run_id = ?1 AND m.name = e.name AND m.step = e.first),"
    " (SELECT value FROM metrics m WHERE m.run_id = ?1 AND m.name = e.name AND m.step = e.last), e.last FROM ends e ORDER BY name";

static mx_code measured(mx_store *s, int64_t run_id, mx_text *out, mx_status *st) {
    sqlite3_stmt *q;
    mx_table t;
    mx_code code;

    MX_TRY(mx_sql_prepare(s, &q, st, measured_sql, "i", run_id));
    mx_table_init(&t, 4);
    t.right[1] = t.right[2] = t.right[3] = true;
    mx_table_cell(&t, "measured by step");
    mx_table_cell(&t, "first");
    mx_table_cell(&t, "last");
    mx_table_cell(&t, "at step");
    while (mx_sql_row(s, q, &code, st)) {
        mx_table_cell(&t, "%s", mx_sql_text(q, 0));
        mx_table_cell(&t, "%.6g", sqlite3_column_double(q, 1));
        mx_table_cell(&t, "%.6g", sqlite3_column_double(q, 2));
        mx_table_cell(&t, "%lld", (long long)sqlite3_column_int64(q, 3));
    }
    if (t.rows > 1) {
        mx_table_print(&t, 1, out);
        mx_text_print(out, "\n");
    }
    mx_table_finish(&t);
    sqlite3_finalize(q);
    return code;
}

/* ------------------------------------------------------------------------ for people */

static const char *ago(int64_t ms) {
    static char text[32];
    long long seconds = (long long)ms / 1000;

    if (seconds < 172800) {
        return mx_text_seconds((double)seconds);
    }
    snprintf(text, sizeof text, "%lld days", seconds / 86400);
    return text;
}

/* What the run cost, as far as it was told. */
static mx_code budget(mx_store *s, const mx_run_row *r, mx_text *out, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    mx_text_print(out, "  trained  %s values", mx_text_count(r->trained));
    if (r->base_weights > 0 && r->trained > 0) {
        mx_text_print(out, " (%.1f %% of the base)", 100.0 * (double)r->trained / (double)r->base_weights);
    }
    mx_text_print(out, ", %s of them router\n", mx_text_count(r->trained_router));
    if (r->flops > 0) {
        mx_text_print(out, "  flops    %s a token in the adapter, forward and backward, active experts only\n", mx_text_count(r->flops));
    }
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT (SELECT AVG(value) FROM metrics WHERE run_id = ?1 AND name = 'tokens_per_second'),"
                          " (SELECT MAX(value) FROM metrics WHERE run_id = ?1 AND name = 'memory_bytes'),"
                          " (SELECT MAX(value) FROM metrics WHERE run_id = ?1 AND name = 'memory_planned_bytes')",
                          "i", r->run_id));
    if (mx_sql_row(s, q, &code, st)) {
        if (sqlite3_column_double(q, 0) > 0) {
            mx_text_print(out, "  speed    %s tokens a second, mean over logged steps\n", mx_text_count((int64_t)(sqlite3_column_double(q, 0) + 0.5)));
        }
        if (sqlite3_column_double(q, 1) > 0) {
            mx_text_print(out, "  memory   %s used, %s planned\n", mx_text_bytes((uint64_t)sqlite3_column_double(q, 1)),
                          mx_text_bytes((uint64_t)sqlite3_column_double(q, 2)));
        }
    }
    sqlite3_finalize(q);
    return code;
}

static mx_code sweeps(mx_store *s, const mx_run_row *r, mx_text *out, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT sweep, variant FROM sweep_runs WHERE run_id = ? ORDER BY sweep, position", "i", r->run_id));
    while (mx_sql_row(s, q, &code, st)) {
        mx_text_print(out, "  sweep    %s%s%s\n", mx_sql_text(q, 0), *mx_sql_text(q, 1) ? ": " : "", mx_sql_text(q, 1));
    }
    sqlite3_finalize(q);
    return code;
}

static void files(const mx_run_row *r, mx_arena *arena, mx_text *out) {
    static const char *const name[] = { "adapter", "checkpoint.bin", "recipe.yaml" };
    int shown = 0;

    mx_text_print(out, "  files    %s", r->folder);
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++) {
        const char *path = mx_arena_text(arena, "%s/%s", r->folder, name[i]);

        if (mx_file_exists(path) || mx_folder_exists(path)) {
            mx_text_print(out, "%s%s", shown++ ? ", " : ": ", name[i]);
        }
    }
    mx_text_print(out, "%s\n", shown ? "" : "  (not here: it is named from where the run was started)");
}

static mx_code for_people(mx_store *s, const mx_run_row *r, mx_arena *arena, mx_text *out, mx_status *st) {
    mx_text_print(out, "run %lld  %s  %s  seed %lld  recipe %.6s  %s%s%s\n", (long long)r->run_id, r->name, r->method, (long long)r->seed,
                  r->recipe_hash, mx_summary_state(r), r->reason[0] ? ": " : "", r->reason);
    mx_text_print(out, "  uuid     %s\n", r->uuid);
    MX_TRY(sweeps(s, r, out, st));
    mx_text_print(out, "  base     %s  %s  sha256 %.12s\n", r->base_name, r->base_description, r->base_hash);
    MX_TRY(budget(s, r, out, st));
    mx_text_print(out, "  steps    %lld of %lld%s\n", (long long)r->step, (long long)r->steps,
                  r->limited ? "  (limited: for trying things, not a result)" : "");
    mx_text_print(out, "  began    %s ago on %s%s%s\n", ago(mx_now_ms() - r->began_ms), r->host, r->ended_ms ? ", took " : "",
                  r->ended_ms ? mx_text_seconds((double)(r->ended_ms - r->began_ms) / 1000) : "");
    files(r, arena, out);
    mx_text_print(out, "  hashes   tasks %.12s  data %.12s\n\n", r->tasks_hash, r->data_hash);
    MX_TRY(measured(s, r->run_id, out, st));
    MX_TRY(mx_summary_scores(s, r->run_id, out, st));
    MX_TRY(mx_summary_router(s, r->run_id, out, st));
    mx_text_print(out, "\n recipe (resolved)\n%s", r->recipe);
    return MX_OK;
}

/* ------------------------------------------------------------------------ JSON */

static void json_row(mx_run_row const *r, mx_text *out) {
    const struct {
        const char *word, *value;
    } texts[] = { { "uuid", r->uuid },         { "name", r->name },
                  { "kind", r->kind },         { "method", r->method },
                  { "state", mx_summary_state(r) }, { "reason", r->reason },
                  { "recipe_hash", r->recipe_hash }, { "recipe", r->recipe },
                  { "base", r->base_name },    { "base_description", r->base_description },
                  { "base_hash", r->base_hash }, { "tasks_hash", r->tasks_hash },
                  { "data_hash", r->data_hash }, { "folder", r->folder },
                  { "host", r->host } };

    mx_text_print(out, "{\"run_id\": %lld", (long long)r->run_id);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        mx_text_print(out, ",\n\"%s\": ", texts[i].word);
        mx_json_quote(out, texts[i].value);
    }
    mx_text_print(out,
                  ",\n\"seed\": %lld, \"trained\": %lld, \"trained_router\": %lld, \"base_values\": %lld, \"step\": %lld, \"steps\": %lld,"
                  " \"limited\": %s, \"began_ms\": %lld",
                  (long long)r->seed, (long long)r->trained, (long long)r->trained_router, (long long)r->base_weights, (long long)r->step,
                  (long long)r->steps, r->limited ? "true" : "false", (long long)r->began_ms);
    if (r->ended_ms) {
        mx_text_print(out, ", \"ended_ms\": %lld", (long long)r->ended_ms);
    }
    if (r->flops) {
        mx_text_print(out, ", \"flops\": %lld", (long long)r->flops);
    }
    mx_text_print(out, ",\n\"environment\": %s", r->environment[0] == '{' ? r->environment : "{}"); /* it is JSON in the store */
}

/* A member whose value is an array of objects or an object of name: value, from a SELECT. Column names become keys; a column
 * named *_json is JSON already. */
static mx_code json_rows(mx_store *s, const char *name, bool object, const char *sql, int64_t run_id, mx_text *out, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;
    int rows = 0;

    MX_TRY(mx_sql_prepare(s, &q, st, sql, "i", run_id));
    mx_text_print(out, ",\n\"%s\": %c", name, object ? '{' : '[');
    for (; mx_sql_row(s, q, &code, st); rows++) {
        mx_text_print(out, "%s%s", rows ? ",\n" : "\n", object ? "" : "{");
        for (int c = 0; c < sqlite3_column_count(q); c++) {
            const char *column = sqlite3_column_name(q, c), *json = strstr(column, "_json");
            int type = sqlite3_column_type(q, c);

            if (!object) {
                mx_text_print(out, "%s\"%.*s\": ", c ? ", " : "", (int)(json ? json - column : (long)strlen(column)), column);
            } else if (c == 1) {
                mx_text_print(out, ": ");
            }
            if (type == SQLITE_INTEGER && strcmp(column, "limited") == 0) {
                mx_text_print(out, "%s", sqlite3_column_int(q, c) ? "true" : "false");
            } else if (type == SQLITE_INTEGER || json) {
                mx_text_print(out, "%s", mx_sql_text(q, c));
            } else if (type == SQLITE_FLOAT) {
                mx_text_print(out, "%.9g", sqlite3_column_double(q, c));
            } else if (type == SQLITE_NULL) {
                mx_text_print(out, "null");
            } else {
                mx_json_quote(out, mx_sql_text(q, c));
            }
        }
        mx_text_print(out, "%s", object ? "" : "}");
    }
    mx_text_print(out, "%s%c", rows ? "\n" : "", object ? '}' : ']');
    sqlite3_finalize(q);
    return code;
}

static mx_code as_json(mx_store *s, const mx_run_row *r, mx_text *out, mx_status *st) {
    static const struct {
        const char *name;
        bool object;
        const char *sql;
    } part[] = {
        { "words", true, "SELECT word, value FROM words WHERE run_id = ? ORDER BY word" },
        { "sweeps", false, "SELECT sweep, variant, seed FROM sweep_runs WHERE run_id = ? ORDER BY sweep, position" },
        { "data_files", false, "SELECT task, split, path, sha256, questions, truncated FROM data_files WHERE run_id = ? ORDER BY task, split, path" },
        { "last", true,
          "WITH ends AS (SELECT run_id, name, MAX(step) AS step FROM metrics WHERE run_id = ? GROUP BY name)"
          " SELECT name, value FROM ends JOIN metrics USING (run_id, name, step) ORDER BY name" },
        { "scores", false,
          "SELECT task, split, protocol, metric, epoch, step, value, stderr, n, majority, limited FROM accuracy WHERE run_id = ?"
          " ORDER BY step, task, protocol, metric, split" },
        { "router", false, /* of the whole training */
          "WITH loads AS (SELECT layer, expert, SUM(tokens) AS tokens, SUM(dropped) AS dropped FROM router_load"
          "   WHERE run_id = ? AND split = 'train' GROUP BY layer, expert),"
          " shares AS (SELECT *, 1.0 * tokens / NULLIF(SUM(tokens) OVER (PARTITION BY layer), 0) AS p FROM loads)"
          " SELECT layer, '[' || GROUP_CONCAT(tokens, ', ') || ']' AS tokens_json, SUM(dropped) AS dropped,"
          " -SUM(CASE WHEN p > 0 THEN p * LOG2(p) ELSE 0 END) AS load_entropy_bits, MAX(p) * COUNT(*) AS max_over_mean,"
          " SUM(tokens = 0) AS dead FROM (SELECT * FROM shares ORDER BY layer, expert) GROUP BY layer ORDER BY layer" },
    };

    json_row(r, out);
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
        MX_TRY(json_rows(s, part[i].name, part[i].object, part[i].sql, r->run_id, out, st));
    }
    mx_text_print(out, "}\n");
    return MX_OK;
}

mx_code mx_summary_show(mx_store *s, const mx_run_row *r, bool json, mx_arena *arena, mx_text *out, mx_status *st) {
    return json ? as_json(s, r, out, st) : for_people(s, r, arena, out, st);
}
