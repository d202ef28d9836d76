/* export.c - see export.h. */
#include "reports/export.h"

#include "base/file.h"
#include "base/json.h"
#include "reports/sql.h"
#include "reports/table.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { TASKS_MAX = 256, SAMPLES_BYTES = 1 << 30 };

typedef struct exported {
    int64_t evaluation_id, n, original; /* original: questions of the split, 0: not told */
    const char *task, *name, *split, *protocol, *task_hash, *samples_path;
} exported;

/* ------------------------------------------------------------------------ names */

/* lm-eval's sanitize_model_name: what troubles a path becomes __. */
static const char *sanitized(const char *name, mx_arena *arena) {
    mx_text out;
    const char *kept;
    bool in_run = false;

    mx_text_init(&out, 4096);
    for (const char *c = name; *c && out.length < 200; c++) {
        bool bad = strchr("\"<>:/|\\?*[] ", *c) || (unsigned char)*c < 0x20;

        if (!bad) {
            mx_text_add(&out, c, 1);
        } else if (!in_run) {
            mx_text_print(&out, "__");
        }
        in_run = bad;
    }
    kept = mx_arena_copy(arena, out.data, out.length);
    mx_text_finish(&out);
    return kept;
}

/* datetime.isoformat() with '-' for ':' */
static const char *when(int64_t ms, mx_arena *arena) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm t;
    char text[32];

    gmtime_r(&seconds, &t);
    strftime(text, sizeof text, "%Y-%m-%dT%H-%M-%S", &t);
    return mx_arena_text(arena, "%s.%06d", text, (int)(ms % 1000) * 1000);
}

/* ------------------------------------------------------------------------ what there is */

/* The last evaluation of each task, split and protocol. */
static mx_code find_evaluations(mx_store *s, const mx_run_row *run, exported *ret, int *ret_count, mx_arena *arena, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;
    int n = 0;

    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT e.evaluation_id, e.n, COALESCE((SELECT MAX(f.questions) FROM data_files f WHERE f.run_id = e.run_id"
                          "   AND f.task = e.task AND f.split = e.split), 0), e.task, e.split, e.protocol, e.task_hash,"
                          " (SELECT COUNT(DISTINCT o.split) FROM evaluations o WHERE o.run_id = e.run_id AND o.task = e.task)"
                          " FROM evaluations e WHERE e.run_id = ? AND e.step = (SELECT MAX(l.step) FROM evaluations l"
                          "   WHERE l.run_id = e.run_id AND l.task = e.task AND l.split = e.split AND l.protocol = e.protocol)"
                          " ORDER BY e.task, e.protocol DESC, e.split",
                          "i", run->run_id));
    while (n < TASKS_MAX && mx_sql_row(s, q, &code, st)) {
        exported *e = &ret[n++];

        *e = (exported){ .evaluation_id = sqlite3_column_int64(q, 0), .n = sqlite3_column_int64(q, 1), .original = sqlite3_column_int64(q, 2),
                         .task = mx_sql_copy(q, 3, arena), .split = mx_sql_copy(q, 4, arena), .protocol = mx_sql_copy(q, 5, arena),
                         .task_hash = mx_sql_copy(q, 6, arena) };
        e->name = mx_arena_text(arena, "%s%s%s%s%s", e->task, strcmp(e->protocol, "loglikelihood") == 0 ? "" : "_",
                                strcmp(e->protocol, "loglikelihood") == 0 ? "" : e->protocol, sqlite3_column_int(q, 7) > 1 ? "_" : "",
                                sqlite3_column_int(q, 7) > 1 ? e->split : "");
    }
    sqlite3_finalize(q);
    *ret_count = n;
    if (code == MX_OK && n == 0) {
        code = mx_fail(st, MX_E_DATA, MX_NOWHERE, "run %lld has no evaluation to export", (long long)run->run_id);
    }
    return code;
}

/* ------------------------------------------------------------------------ samples */

static void sample(sqlite3_stmt *q, mx_text *out) {
    mx_text_print(out, "{\"doc_id\": %lld, \"doc\": {\"id\": ", (long long)sqlite3_column_int64(q, 0));
    mx_json_quote(out, mx_sql_text(q, 1));
    mx_text_print(out, "}");
    if (sqlite3_column_int64(q, 2) >= 0) {
        mx_text_print(out, ", \"target\": \"%lld\"", (long long)sqlite3_column_int64(q, 2));
    }
    mx_text_print(out, ", \"resps\": %s, \"filtered_resps\": %s, \"filter\": \"none\", \"metrics\": %s%s}\n", mx_sql_text(q, 3), mx_sql_text(q, 4),
                  mx_sql_text(q, 5), mx_sql_text(q, 6));
}

/* A line a question; nothing at all when its answers were not kept. Numbers are texts, as sanitize_list leaves them. */
static mx_code samples(mx_store *s, const exported *e, mx_text *out, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT p.number, p.item, p.gold,"
                          " (SELECT '[' || GROUP_CONCAT('[[\"' || atom || '\"]]', ', ') || ']' FROM json_each(p.choices)),"
                          " (SELECT '[' || GROUP_CONCAT('[\"' || atom || '\"]', ', ') || ']' FROM json_each(p.choices)),"
                          " COALESCE((SELECT '[' || GROUP_CONCAT('\"' || metric || '\"', ', ') || ']' FROM outcomes o"
                          "   WHERE o.evaluation_id = p.evaluation_id AND o.number = p.number AND o.metric IN ('acc', 'acc_norm')), '[]'),"
                          " COALESCE((SELECT GROUP_CONCAT(', \"' || metric || '\": ' || correct || '.0', '') FROM outcomes o"
                          "   WHERE o.evaluation_id = p.evaluation_id AND o.number = p.number AND o.metric IN ('acc', 'acc_norm')), '')"
                          " FROM predictions p WHERE p.evaluation_id = ? ORDER BY p.number",
                          "i", e->evaluation_id));
    while (mx_sql_row(s, q, &code, st)) {
        sample(q, out);
    }
    sqlite3_finalize(q);
    return code;
}

/* ------------------------------------------------------------------------ results */

static void put(json_t *o, const char *key, json_t *value) {
    json_object_set_new(o, key, value);
}

/* results[task]: "acc,none" and its like; returns higher_is_better of the task. */
static mx_code scores(mx_store *s, const exported *e, json_t *results, json_t *higher, mx_arena *arena, mx_status *st) {
    json_t *task = json_object(), *better = json_object();
    sqlite3_stmt *q;
    mx_code code;

    put(results, e->name, task);
    put(higher, e->name, better);
    put(task, "alias", json_string(e->name));
    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT metric, value, stderr FROM scores WHERE evaluation_id = ? ORDER BY metric", "i", e->evaluation_id));
    while (mx_sql_row(s, q, &code, st)) {
        put(task, mx_arena_text(arena, "%s,none", mx_sql_text(q, 0)), json_real(sqlite3_column_double(q, 1)));
        put(task, mx_arena_text(arena, "%s_stderr,none", mx_sql_text(q, 0)), json_real(sqlite3_column_double(q, 2)));
        put(better, mx_sql_text(q, 0), json_true());
    }
    sqlite3_finalize(q);
    return code;
}

static json_t *config_of_task(const exported *e) {
    json_t *o = json_object(), *meta = json_object();

    put(o, "task", json_string(e->name));
    put(o, "output_type", json_string("multiple_choice"));
    put(o, "num_fewshot", json_integer(0));
    put(meta, "mixrun_task", json_string(e->task));
    put(meta, "mixrun_split", json_string(e->split));
    put(meta, "mixrun_protocol", json_string(e->protocol));
    put(meta, "mixrun_definition_sha256", json_string(e->task_hash));
    put(o, "metadata", meta);
    return o;
}

static mx_code eval_limit(mx_store *s, int64_t run_id, json_t **ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = json_null();
    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT CAST(value AS INTEGER) FROM words WHERE run_id = ? AND word = 'eval.limit'", "i", run_id));
    if (mx_sql_row(s, q, &code, st) && sqlite3_column_int64(q, 0) > 0) {
        *ret = json_integer(sqlite3_column_int64(q, 0));
    }
    sqlite3_finalize(q);
    return code;
}

/* The harness's own `config`, as far as a run of ours has one. */
static mx_code config_of_run(mx_store *s, const mx_run_row *r, const json_t *environment, json_t *root, mx_arena *arena, mx_status *st) {
    json_t *o = json_object(), *limit, *precision = json_object_get(environment, "precision");
    bool trained = strcmp(r->kind, "train") == 0 && r->step > 0 && r->trained > 0;

    put(root, "config", o);
    put(o, "model", json_string("mixrun"));
    put(o, "model_args", json_string(mx_arena_text(arena, "pretrained=%s%s%s%s%s%s", r->base_name, trained ? ",peft=" : "",
                                                   trained ? r->folder : "", trained ? "/adapter" : "",
                                                   json_is_string(precision) ? ",dtype=" : "",
                                                   json_is_string(precision) ? json_string_value(precision) : "")));
    put(o, "model_num_parameters", json_integer(r->base_weights + r->trained));
    MX_TRY(eval_limit(s, r->run_id, &limit, st));
    put(o, "limit", limit);
    put(o, "random_seed", json_integer(r->seed));
    return MX_OK;
}

static json_t *about_run(const mx_run_row *r) {
    json_t *o = json_object();

    put(o, "run_id", json_integer(r->run_id));
    put(o, "uuid", json_string(r->uuid));
    put(o, "name", json_string(r->name));
    put(o, "method", json_string(r->method));
    put(o, "state", json_string(r->state));
    put(o, "limited", json_boolean(r->limited));
    put(o, "steps", json_integer(r->step));
    put(o, "base_sha256", json_string(r->base_hash));
    put(o, "recipe_hash", json_string(r->recipe_hash));
    put(o, "recipe", json_string(r->recipe));
    return o;
}

static mx_code build(mx_store *s, const mx_run_row *r, const exported *e, int count, const char *model, json_t *root, mx_arena *arena,
                     mx_status *st) {
    static const char *const by_task[] = { "results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "task_hashes" };
    json_t *part[8], *environment = NULL, *commit;
    mx_code code;

    for (int i = 0; i < 8; i++) {
        part[i] = json_object();
        put(root, by_task[i], part[i]);
    }
    for (int i = 0; i < count; i++) {
        json_t *counts = json_object();

        MX_TRY(scores(s, &e[i], part[0], part[5], arena, st));
        put(part[1], e[i].name, json_array());
        put(part[2], e[i].name, config_of_task(&e[i]));
        put(part[3], e[i].name, json_string(mx_arena_text(arena, "%.12s", e[i].task_hash)));
        put(part[4], e[i].name, json_integer(0));
        if (e[i].original >= e[i].n) {
            put(counts, "original", json_integer(e[i].original));
        }
        put(counts, "effective", json_integer(e[i].n));
        put(part[6], e[i].name, counts);
        put(part[7], e[i].name, json_string(e[i].task_hash));
    }
    MX_TRY(mx_json_parse(r->environment, strlen(r->environment), "the run's environment", 1, &environment, st));
    code = config_of_run(s, r, environment, root, arena, st);
    commit = json_object_get(environment, "commit");
    if (json_is_string(commit) && *json_string_value(commit)) {
        put(root, "git_hash", json_string(json_string_value(commit)));
    }
    json_decref(environment);
    put(root, "date", json_real((double)r->began_ms / 1000));
    put(root, "model_source", json_string("mixrun"));
    put(root, "model_name", json_string(model));
    put(root, "model_name_sanitized", json_string(sanitized(model, arena)));
    if (strcmp(r->kind, "eval") == 0 && r->ended_ms > 0) { /* of a training run it is not known apart */
        put(root, "total_evaluation_time_seconds", json_string(mx_arena_text(arena, "%.3f", (double)(r->ended_ms - r->began_ms) / 1000)));
    }
    put(root, "mixrun", about_run(r));
    return code;
}

static mx_code write_results(mx_store *s, const mx_run_row *r, const exported *e, int count, const char *model, const char *path, mx_arena *arena,
                             mx_status *st) {
    json_t *root = json_object();
    char *text = NULL;
    mx_code code = build(s, r, e, count, model, root, arena, st);

    if (code == MX_OK && !(text = json_dumps(root, JSON_INDENT(2)))) {
        code = mx_fail(st, MX_E_DATA, MX_NOWHERE, "run %lld holds text that is not UTF-8", (long long)r->run_id);
    }
    if (code == MX_OK) {
        code = mx_file_write(path, mx_arena_text(arena, "%s\n", text), strlen(text) + 1, st);
    }
    free(text);
    json_decref(root);
    return code;
}

/* ------------------------------------------------------------------------ files */

static mx_code refuse(const char *path, mx_status *st) {
    mx_fail(st, MX_E_USAGE, (mx_mark){ .file = path }, "is there already; nothing was written");
    mx_hint(st, "--force writes it anew");
    return MX_E_USAGE;
}

static mx_code write_samples(mx_store *s, const exported *e, int64_t *written, mx_status *st) {
    mx_text out;
    mx_code code;

    mx_text_init(&out, SAMPLES_BYTES);
    code = samples(s, e, &out, st);
    if (code == MX_OK && out.length > 0) {
        code = mx_file_write(e->samples_path, out.data, out.length, st);
        *written += code == MX_OK;
    }
    mx_text_finish(&out);
    return code;
}

mx_code mx_export_run(mx_store *s, const mx_run_row *run, const char *folder, bool force, mx_arena *arena, const char **ret_path,
                      int64_t *ret_samples, mx_status *st) {
    const char *slash = strrchr(run->folder, '/'), *model, *home, *date = when(run->ended_ms ? run->ended_ms : run->heartbeat_ms, arena);
    exported *e = MX_TAKE(arena, exported, TASKS_MAX);
    int count;

    MX_TRY(find_evaluations(s, run, e, &count, arena, st));
    model = mx_arena_text(arena, "%s/%s", run->base_name, slash ? slash + 1 : run->folder);
    home = mx_arena_text(arena, "%s/%s", folder, sanitized(model, arena));
    *ret_path = mx_arena_text(arena, "%s/results_%s.json", home, date);
    *ret_samples = 0;
    for (int i = 0; i < count; i++) {
        e[i].samples_path = mx_arena_text(arena, "%s/samples_%s_%s.jsonl", home, sanitized(e[i].name, arena), date);
        if (!force && mx_file_exists(e[i].samples_path)) {
            return refuse(e[i].samples_path, st);
        }
    }
    if (!force && mx_file_exists(*ret_path)) {
        return refuse(*ret_path, st);
    }
    MX_TRY(mx_folder_make(home, st));
    for (int i = 0; i < count; i++) {
        MX_TRY(write_samples(s, &e[i], ret_samples, st));
    }
    return write_results(s, run, e, count, model, *ret_path, arena, st);
}
