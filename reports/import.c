/* import.c - see import.h. */
#include "reports/import.h"

#include "base/text.h"
#include "reports/schema.h"
#include "reports/sql.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* -------------------------------------------------------------------- the other file */

static mx_code broken(const char *path, const char *why, mx_status *st) {
    mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s cannot be imported: %s", path, why);
    mx_hint(st, "nothing was imported from it, and it was left as it is");
    return MX_E_STORE;
}

/* SQLite could not read it. */
static mx_code unreadable(mx_store *s, const char *path, mx_status *st) {
    mx_code code = mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s cannot be imported: %s", path, sqlite3_errmsg(mx_store_handle(s)));

    if (sqlite3_errcode(mx_store_handle(s)) == SQLITE_CANTOPEN) {
        mx_hint(st, "SQLite keeps a file beside a database it reads: copy it to a folder that may be written");
    } else {
        mx_hint(st, "nothing was imported from it, and it was left as it is");
    }
    return code;
}

/* The one number a statement gives. */
static mx_code ask_number(mx_store *s, const char *path, const char *sql, int64_t *ret, mx_status *st) {
    sqlite3_stmt *q = NULL;
    int rc = sqlite3_prepare_v2(mx_store_handle(s), sql, -1, &q, NULL);

    if (rc == SQLITE_OK && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        *ret = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    return rc == SQLITE_ROW ? MX_OK : unreadable(s, path, st);
}

static mx_code check_whole(mx_store *s, const char *path, mx_status *st) {
    static const char *const sql[] = { "PRAGMA theirs.quick_check(1)", "PRAGMA theirs.foreign_key_check" };
    mx_code code = MX_OK;

    for (size_t i = 0; i < sizeof sql / sizeof sql[0] && code == MX_OK; i++) {
        sqlite3_stmt *q = NULL;
        int rc = sqlite3_prepare_v2(mx_store_handle(s), sql[i], -1, &q, NULL);

        rc = rc == SQLITE_OK ? sqlite3_step(q) : rc;
        if (rc == SQLITE_ROW && i == 0 && strcmp(mx_sql_text(q, 0), "ok") != 0) {
            code = broken(path, mx_sql_text(q, 0), st);
        } else if (rc == SQLITE_ROW && i == 1) {
            code = broken(path, "rows are missing that others belong to", st);
        } else if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
            code = unreadable(s, path, st);
        }
        sqlite3_finalize(q);
    }
    return code;
}

/* Read-only, whatever the file's rights are. https://www.sqlite.org/uri.html: %, ? and # would mean something. */
static mx_code attach(mx_store *s, const char *path, const char *told, mx_status *st) {
    sqlite3_stmt *q = NULL;
    mx_text uri;
    int rc;

    mx_text_init(&uri, 1 << 20);
    mx_text_print(&uri, path[0] == '/' ? "file://" : "file:"); /* "//x" alone would name a host */
    for (const char *c = path; *c; c++) {
        if (strchr("%?#", *c)) {
            mx_text_print(&uri, "%%%02X", (unsigned)*c);
        } else {
            mx_text_add(&uri, c, 1);
        }
    }
    mx_text_print(&uri, "?mode=ro");
    rc = sqlite3_prepare_v2(mx_store_handle(s), "ATTACH ? AS theirs", -1, &q, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_text(q, 1, uri.data, -1, SQLITE_TRANSIENT);
        rc = sqlite3_step(q);
    }
    sqlite3_finalize(q);
    mx_text_finish(&uri);
    return rc == SQLITE_DONE ? MX_OK : unreadable(s, told, st);
}

static void detach(mx_store *s) {
    sqlite3_exec(mx_store_handle(s), "DETACH theirs", NULL, NULL, NULL); /* fails when nothing is attached: fine */
}

static mx_code check_ours(mx_store *s, const char *path, int64_t *ret_version, mx_status *st) {
    int64_t id = 0, own = 0;

    MX_TRY(ask_number(s, path, "PRAGMA theirs.application_id", &id, st));
    MX_TRY(ask_number(s, path, "PRAGMA main.application_id", &own, st));
    MX_TRY(ask_number(s, path, "PRAGMA theirs.user_version", ret_version, st));
    if (id != own || *ret_version < 1) {
        return broken(path, "it is not a mixrun database", st);
    }
    if (*ret_version > MX_SCHEMA_VERSION) {
        mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s was written by a newer mixrun (schema %lld; this program knows %d); it was left as it is",
                path, (long long)*ret_version, MX_SCHEMA_VERSION);
        mx_hint(st, "import it with that mixrun");
        return MX_E_STORE;
    }
    return MX_OK;
}

static void remove_copy(const char *copy) {
    char beside[4096 + 8];

    unlink(copy);
    snprintf(beside, sizeof beside, "%s-wal", copy);
    unlink(beside);
    snprintf(beside, sizeof beside, "%s-shm", copy);
    unlink(beside);
}

/* The whole of `theirs`, by SQLite's own means, so that what is still in its log comes along; then brought forward. */
static mx_code copy_forward(mx_store *s, const char *copy, mx_status *st) {
    sqlite3 *to = NULL;
    sqlite3_backup *b;
    mx_store *renewed;
    int rc = sqlite3_open_v2(copy, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);

    if (rc == SQLITE_OK) {
        b = sqlite3_backup_init(to, "main", mx_store_handle(s), "theirs");
        if (b) {
            rc = sqlite3_backup_step(b, -1); /* finish does not tell of a lock */
            sqlite3_backup_finish(b);
        }
        rc = !b ? sqlite3_errcode(to) : rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    if (rc != SQLITE_OK) {
        mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: making a copy to bring forward: %s", copy, sqlite3_errstr(rc));
        sqlite3_close(to);
        return MX_E_STORE;
    }
    sqlite3_close(to);
    MX_TRY(mx_store_open(copy, true, &renewed, st));
    mx_store_close(renewed);
    return MX_OK;
}

/* Attached as `theirs` afterwards, of our schema and whole. *ret_copy: a copy to be removed, or "". */
static mx_code open_theirs(mx_store *s, const char *path, char *ret_copy, size_t size, mx_status *st) {
    int64_t version;
    int file;

    MX_TRY(attach(s, path, path, st));
    MX_TRY(check_ours(s, path, &version, st));
    if (version < MX_SCHEMA_VERSION) {
        snprintf(ret_copy, size, "%s.import-XXXXXX", mx_store_path(s));
        file = mkstemp(ret_copy);
        if (file < 0) {
            ret_copy[0] = '\0';
            return mx_fail(st, MX_E_IO, MX_NOWHERE, "no place beside %s for a copy of %s, which an older mixrun made", mx_store_path(s), path);
        }
        close(file);
        MX_TRY(copy_forward(s, ret_copy, st));
        detach(s);
        MX_TRY(attach(s, ret_copy, path, st));
    }
    return check_whole(s, path, st);
}

/* -------------------------------------------------------------------- which runs */

static mx_code run_all(mx_store *s, const char *doing, const char *sql, mx_status *st) {
    return sqlite3_exec(mx_store_handle(s), sql, NULL, NULL, NULL) == SQLITE_OK ? MX_OK : mx_sql_fail(s, st, doing);
}

/* state, step, host, pid, heartbeat_ms from column `at` on. */
static mx_run_row standing(sqlite3_stmt *q, int at) {
    return (mx_run_row){ .state = mx_sql_text(q, at), .step = sqlite3_column_int64(q, at + 1), .host = mx_sql_text(q, at + 2),
                         .pid = sqlite3_column_int64(q, at + 3), .heartbeat_ms = sqlite3_column_int64(q, at + 4) };
}

static bool alive(const mx_run_row *r) {
    return strcmp(r->state, "running") == 0 && !mx_run_is_dead(r);
}

static bool further(const mx_run_row *a, const mx_run_row *b) {
    bool done_a = strcmp(a->state, "finished") == 0, done_b = strcmp(b->state, "finished") == 0;

    return done_a != done_b ? done_a : !done_b && a->step > b->step;
}

/* Fills import_runs with the runs to bring, each with its number here; those that are replaced are taken out. */
static mx_code choose(mx_store *s, mx_import *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;
    int64_t next = 1;

    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT IFNULL(MAX(run_id), 0) + 1 FROM main.runs", ""));
    if (mx_sql_row(s, q, &code, st)) {
        next = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    MX_TRY(code);
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT t.run_id, t.state, t.step, t.host, t.pid, t.heartbeat_ms, o.run_id, o.state, o.step, o.host, o.pid,"
                          " o.heartbeat_ms FROM theirs.runs t LEFT JOIN main.runs o ON o.uuid = t.uuid ORDER BY t.run_id", ""));
    while (code == MX_OK && mx_sql_row(s, q, &code, st)) {
        mx_run_row theirs = standing(q, 1), ours = standing(q, 7);
        int64_t here = sqlite3_column_int64(q, 6); /* 0: not here */

        if (alive(&theirs) || (here && alive(&ours))) {
            ret->alive++;
            continue;
        }
        if (here && !further(&theirs, &ours)) {
            ret->here++;
            continue;
        }
        ret->added += !here;
        ret->replaced += here != 0;
        code = mx_sql_execute(s, st, "INSERT INTO temp.import_runs VALUES (?, ?, ?)", "iii", sqlite3_column_int64(q, 0), here ? here : next,
                              here);
        next += !here;
    }
    sqlite3_finalize(q);
    return code;
}

/* -------------------------------------------------------------------- rows */

/* Columns are named: a schema that grows makes the test that compares all of them fail, not rows be put askew. CROSS JOIN
 * keeps SQLite at walking the few runs that come, in the order in which they are put. */
static const char rows[] =
    "DELETE FROM main.runs WHERE run_id IN (SELECT here FROM temp.import_runs WHERE here > 0);"

    "INSERT OR IGNORE INTO main.environments (hash, text) SELECT e.hash, e.text FROM theirs.environments e WHERE e.environment_id IN"
    " (SELECT r.environment_id FROM temp.import_runs i JOIN theirs.runs r ON r.run_id = i.theirs) ORDER BY e.environment_id;"

    "INSERT OR IGNORE INTO main.bases (base_hash, name, description, weights) SELECT b.base_hash, b.name, b.description, b.weights"
    " FROM theirs.bases b WHERE b.base_hash IN (SELECT r.base_hash FROM temp.import_runs i JOIN theirs.runs r ON r.run_id = i.theirs);"

    "INSERT INTO main.runs (run_id, uuid, name, kind, method, state, reason, recipe_hash, recipe, seed, base_hash, tasks_hash,"
    " data_hash, environment_id, trained, trained_router, steps, step, limited, folder, host, pid, began_ms, heartbeat_ms, ended_ms,"
    " flops)"
    " SELECT i.ours, r.uuid, r.name, r.kind, r.method, r.state, r.reason, r.recipe_hash, r.recipe, r.seed, r.base_hash, r.tasks_hash,"
    " r.data_hash, o.environment_id, r.trained, r.trained_router, r.steps, r.step, r.limited, r.folder, r.host, r.pid, r.began_ms,"
    " r.heartbeat_ms, r.ended_ms, r.flops"
    " FROM temp.import_runs i CROSS JOIN theirs.runs r ON r.run_id = i.theirs"
    " JOIN theirs.environments e ON e.environment_id = r.environment_id JOIN main.environments o ON o.hash = e.hash;"

    "INSERT INTO main.words (run_id, word, value) SELECT i.ours, x.word, x.value"
    " FROM temp.import_runs i CROSS JOIN theirs.words x ON x.run_id = i.theirs;"

    "INSERT INTO main.data_files (run_id, task, split, path, sha256, questions, truncated)"
    " SELECT i.ours, x.task, x.split, x.path, x.sha256, x.questions, x.truncated"
    " FROM temp.import_runs i CROSS JOIN theirs.data_files x ON x.run_id = i.theirs;"

    "INSERT INTO main.metrics (run_id, step, name, value) SELECT i.ours, x.step, x.name, x.value"
    " FROM temp.import_runs i CROSS JOIN theirs.metrics x ON x.run_id = i.theirs;"

    "INSERT INTO temp.import_evaluations (theirs, ours) SELECT x.evaluation_id,"
    " (SELECT IFNULL(MAX(evaluation_id), 0) FROM main.evaluations) + ROW_NUMBER() OVER (ORDER BY x.evaluation_id)"
    " FROM temp.import_runs i JOIN theirs.evaluations x ON x.run_id = i.theirs;"

    "INSERT INTO main.evaluations (evaluation_id, run_id, task, split, protocol, epoch, step, n, limited, truncated, task_hash,"
    " data_hash) SELECT v.ours, i.ours, x.task, x.split, x.protocol, x.epoch, x.step, x.n, x.limited, x.truncated, x.task_hash,"
    " x.data_hash FROM temp.import_evaluations v CROSS JOIN theirs.evaluations x ON x.evaluation_id = v.theirs"
    " JOIN temp.import_runs i ON i.theirs = x.run_id;"

    "INSERT INTO main.scores (evaluation_id, metric, value, stderr, majority) SELECT v.ours, x.metric, x.value, x.stderr, x.majority"
    " FROM temp.import_evaluations v CROSS JOIN theirs.scores x ON x.evaluation_id = v.theirs;"

    "INSERT INTO main.predictions (evaluation_id, number, item, gold, choices) SELECT v.ours, x.number, x.item, x.gold, x.choices"
    " FROM temp.import_evaluations v CROSS JOIN theirs.predictions x ON x.evaluation_id = v.theirs;"

    "INSERT INTO main.outcomes (evaluation_id, metric, number, chosen, correct)"
    " SELECT v.ours, x.metric, x.number, x.chosen, x.correct"
    " FROM temp.import_evaluations v CROSS JOIN theirs.outcomes x ON x.evaluation_id = v.theirs;"

    "INSERT INTO temp.import_windows (theirs, ours) SELECT x.window_id,"
    " (SELECT IFNULL(MAX(window_id), 0) FROM main.router_windows) + ROW_NUMBER() OVER (ORDER BY x.window_id)"
    " FROM temp.import_runs i JOIN theirs.router_windows x ON x.run_id = i.theirs;"

    "INSERT INTO main.router_windows (window_id, run_id, split, first_step, last_step, evaluation_id)"
    " SELECT w.ours, i.ours, x.split, x.first_step, x.last_step, v.ours"
    " FROM temp.import_windows w CROSS JOIN theirs.router_windows x ON x.window_id = w.theirs"
    " JOIN temp.import_runs i ON i.theirs = x.run_id LEFT JOIN temp.import_evaluations v ON v.theirs = x.evaluation_id;"

    "INSERT INTO main.router_loads (window_id, task, layer, expert, tokens, dropped, probability)"
    " SELECT w.ours, x.task, x.layer, x.expert, x.tokens, x.dropped, x.probability"
    " FROM temp.import_windows w CROSS JOIN theirs.router_loads x ON x.window_id = w.theirs;"

    "INSERT INTO main.router_tokens (window_id, task, layer, tokens, entropy) SELECT w.ours, x.task, x.layer, x.tokens, x.entropy"
    " FROM temp.import_windows w CROSS JOIN theirs.router_tokens x ON x.window_id = w.theirs;"

    "INSERT INTO main.router_pairs (window_id, task, layer, first, second, tokens)"
    " SELECT w.ours, x.task, x.layer, x.first, x.second, x.tokens"
    " FROM temp.import_windows w CROSS JOIN theirs.router_pairs x ON x.window_id = w.theirs;";

static const char sweeps[] =
    "INSERT INTO temp.import_sweeps (theirs, name) SELECT t.sweep_id, t.name FROM theirs.sweeps t LEFT JOIN main.sweeps o USING (name)"
    " WHERE o.sweep_id IS NULL OR t.began_ms > o.began_ms ORDER BY t.sweep_id;"

    "INSERT INTO main.sweeps (name, path, text, arguments, baseline, protocol, metric, began_ms)"
    " SELECT t.name, t.path, t.text, t.arguments, t.baseline, t.protocol, t.metric, t.began_ms"
    " FROM temp.import_sweeps i CROSS JOIN theirs.sweeps t ON t.sweep_id = i.theirs WHERE TRUE"
    " ON CONFLICT (name) DO UPDATE SET path = excluded.path, text = excluded.text, arguments = excluded.arguments,"
    " baseline = excluded.baseline, protocol = excluded.protocol, metric = excluded.metric, began_ms = excluded.began_ms;"

    "DELETE FROM main.members WHERE sweep_id IN (SELECT sweep_id FROM main.sweeps WHERE name IN (SELECT name FROM temp.import_sweeps));"

    "INSERT INTO main.members (sweep_id, position, variant, seed, recipe_hash, base_hash, tasks_hash, data_hash, method, trained,"
    " trained_router, flops, matched) SELECT o.sweep_id, m.position, m.variant, m.seed, m.recipe_hash, m.base_hash, m.tasks_hash,"
    " m.data_hash, m.method, m.trained, m.trained_router, m.flops, m.matched"
    " FROM temp.import_sweeps i CROSS JOIN theirs.members m ON m.sweep_id = i.theirs JOIN main.sweeps o ON o.name = i.name;";

static const char maps[] =
    "CREATE TEMP TABLE import_runs (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL, here INTEGER NOT NULL);"
    "CREATE TEMP TABLE import_evaluations (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL);"
    "CREATE TEMP TABLE import_windows (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL);"
    "CREATE TEMP TABLE import_sweeps (theirs INTEGER PRIMARY KEY, name TEXT NOT NULL);";

static const char no_maps[] = "DROP TABLE IF EXISTS temp.import_runs; DROP TABLE IF EXISTS temp.import_evaluations;"
                              "DROP TABLE IF EXISTS temp.import_windows; DROP TABLE IF EXISTS temp.import_sweeps;";

static mx_code bring(mx_store *s, const char *doing, mx_import *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    MX_TRY(mx_store_begin(s, st));
    MX_TRY(run_all(s, doing, maps, st));
    MX_TRY(choose(s, ret, st));
    MX_TRY(run_all(s, doing, rows, st));
    MX_TRY(run_all(s, doing, sweeps, st));
    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT COUNT(*) FROM temp.import_sweeps", ""));
    if (mx_sql_row(s, q, &code, st)) {
        ret->sweeps = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    MX_TRY(code);
    MX_TRY(run_all(s, doing, no_maps, st));
    return mx_store_commit(s, st);
}

static mx_code refuse_itself(mx_store *s, const char *path, mx_status *st) {
    struct stat theirs, ours;

    if (stat(path, &theirs) != 0) {
        return mx_fail(st, MX_E_STORE, MX_NOWHERE, "there is no database %s", path);
    }
    if (stat(mx_store_path(s), &ours) == 0 && theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%s is the database it would be imported into", path);
        mx_hint(st, "name another file, or another target with --db FILE");
        return MX_E_USAGE;
    }
    return MX_OK;
}

mx_code mx_store_import(mx_store *s, const char *path, mx_import *ret, mx_status *st) {
    char copy[4096] = "", doing[1024];
    mx_code code;

    *ret = (mx_import){ 0 };
    MX_TRY(refuse_itself(s, path, st));
    snprintf(doing, sizeof doing, "importing %s", path);
    code = open_theirs(s, path, copy, sizeof copy, st);
    if (code == MX_OK) {
        code = bring(s, doing, ret, st);
    }
    mx_store_rollback(s);
    detach(s);
    if (copy[0]) {
        remove_copy(copy);
    }
    return code;
}
