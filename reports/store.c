/* store.c - see store.h. Statements are prepared once per use and cached by their text. */
#include "reports/store.h"

#include "base/text.h"
#include "reports/schema.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x6d785231, /* "mxR1": tells our files from others' */
    STATEMENTS_MAX = 32,
    BUSY_MS = 30000,
    DEAD_AFTER_MS = 10 * 60 * 1000,
};

struct mx_store {
    sqlite3 *db;
    char *path;
    bool in_transaction;
    struct {
        const char *sql; /* a literal: compared by address */
        sqlite3_stmt *statement;
    } cache[STATEMENTS_MAX];
    int cached;
};

static mx_code fail(mx_store *s, mx_status *st, const char *doing) {
    mx_code code = mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: %s: %s", s->path, doing, sqlite3_errmsg(s->db));

    switch (sqlite3_errcode(s->db)) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        mx_hint(st, "another program keeps the database locked; close it, or use another file with db=OTHER.db");
        break;
    case SQLITE_FULL:
        mx_hint(st, "the disk is full: what was stored until then is kept");
        break;
    case SQLITE_READONLY:
        mx_hint(st, "the file or its folder cannot be written; name another one with db=OTHER.db");
        break;
    case SQLITE_CANTOPEN:
        mx_hint(st, "is its folder there, and may it be written? Another file is named with db=OTHER.db");
        break;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        mx_hint(st, "this is not a database mixrun can read; it was left as it is: name another one with db=OTHER.db");
        break;
    default:
        break;
    }
    return code;
}

static mx_code run_sql(mx_store *s, const char *sql, mx_status *st) {
    if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        return fail(s, st, "writing");
    }
    return MX_OK;
}

static int64_t pragma_value(mx_store *s, const char *sql, int *ret_rc) {
    sqlite3_stmt *q = NULL;
    int64_t value = 0;
    int rc = sqlite3_prepare_v2(s->db, sql, -1, &q, NULL);

    if (rc == SQLITE_OK) {
        rc = sqlite3_step(q);
        if (rc == SQLITE_ROW) {
            value = sqlite3_column_int64(q, 0);
            rc = SQLITE_OK;
        } else if (rc == SQLITE_DONE) {
            rc = SQLITE_OK;
        }
    }
    sqlite3_finalize(q);
    *ret_rc = rc;
    return value;
}

/* A statement for this literal, ready to bind. */
static sqlite3_stmt *prepared(mx_store *s, const char *sql) {
    sqlite3_stmt *q = NULL;

    for (int i = 0; i < s->cached; i++) {
        if (s->cache[i].sql == sql) {
            sqlite3_reset(s->cache[i].statement);
            sqlite3_clear_bindings(s->cache[i].statement);
            return s->cache[i].statement;
        }
    }
    assert(s->cached < STATEMENTS_MAX);
    if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q, NULL) != SQLITE_OK) {
        return NULL;
    }
    s->cache[s->cached].sql = sql;
    s->cache[s->cached++].statement = q;
    return q;
}

/* Binds by letters (i int64, d double, t text) and runs to the end. */
static mx_code execute(mx_store *s, mx_status *st, const char *sql, const char *kinds, ...) {
    sqlite3_stmt *q = prepared(s, sql);
    va_list ap;
    int rc;

    if (!q) {
        return fail(s, st, "preparing");
    }
    va_start(ap, kinds);
    for (int i = 0; kinds[i]; i++) {
        if (kinds[i] == 'i') {
            sqlite3_bind_int64(q, i + 1, va_arg(ap, int64_t));
        } else if (kinds[i] == 'd') {
            sqlite3_bind_double(q, i + 1, va_arg(ap, double));
        } else {
            sqlite3_bind_text(q, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
        }
    }
    va_end(ap);
    rc = sqlite3_step(q);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW) {
        mx_code code = fail(s, st, "writing");

        sqlite3_reset(q);
        return code;
    }
    sqlite3_reset(q);
    return MX_OK;
}

/* Creates the schema, or brings an older one forward, in one exclusive transaction. */
static mx_code bring_forward(mx_store *s, mx_status *st) {
    int rc;
    int64_t version, tables, id;
    mx_code code;

    MX_TRY(run_sql(s, "BEGIN EXCLUSIVE", st));
    version = pragma_value(s, "PRAGMA user_version", &rc);
    if (rc == SQLITE_OK) {
        tables = pragma_value(s, "SELECT COUNT(*) FROM sqlite_schema", &rc);
    }
    id = rc == SQLITE_OK ? pragma_value(s, "PRAGMA application_id", &rc) : 0;
    if (rc != SQLITE_OK) {
        code = fail(s, st, "opening");
        goto undo;
    }
    if (id != APPLICATION_ID && tables > 0) {
        code = mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s is a database of another program; it was left as it is", s->path);
        mx_hint(st, "name another file with db=OTHER.db");
        goto undo;
    }
    if (version < 0 || version > MX_SCHEMA_VERSION) {
        code = mx_fail(st, MX_E_STORE, MX_NOWHERE,
                       "%s was written by %s mixrun (schema %lld; this program knows %d); it was left as it is", s->path,
                       version < 0 ? "no known" : "a newer", (long long)version, MX_SCHEMA_VERSION);
        goto undo;
    }
    for (int64_t v = version; v < MX_SCHEMA_VERSION; v++) {
        code = run_sql(s, mx_schema_step[v], st);
        if (code) {
            goto undo;
        }
    }
    if (version < MX_SCHEMA_VERSION) {
        char sql[128];

        snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID,
                 MX_SCHEMA_VERSION);
        code = run_sql(s, sql, st);
        if (code) {
            goto undo;
        }
    }
    return run_sql(s, "COMMIT", st);
undo:
    sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return code;
}

static mx_code check_readable(mx_store *s, mx_status *st) {
    int rc;
    int64_t version = pragma_value(s, "PRAGMA user_version", &rc), id;

    if (rc != SQLITE_OK) {
        return fail(s, st, "opening");
    }
    id = pragma_value(s, "PRAGMA application_id", &rc);
    if (rc != SQLITE_OK || id != APPLICATION_ID) {
        return mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s is not a mixrun database", s->path);
    }
    if (version != MX_SCHEMA_VERSION) {
        mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s has schema %lld, this program reads %d", s->path, (long long)version,
                MX_SCHEMA_VERSION);
        if (version < MX_SCHEMA_VERSION) {
            mx_hint(st, "any run that writes to it brings it forward");
        }
        return MX_E_STORE;
    }
    return MX_OK;
}

mx_code mx_store_open(const char *path, bool write, mx_store **ret, mx_status *st) {
    mx_store *s = calloc(1, sizeof *s);
    int flags = write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    mx_code code = MX_OK;

    *ret = NULL;
    if (!s || !(s->path = strdup(path))) {
        free(s);
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory to open %s", path);
    }
    if (!write && access(path, F_OK) != 0) {
        code = mx_fail(st, MX_E_STORE, MX_NOWHERE, "there is no database %s", path);
        mx_hint(st, "a run makes it; another file is named with --db FILE");
        goto done;
    }
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) {
        code = fail(s, st, "opening");
        goto done;
    }
    sqlite3_busy_timeout(s->db, BUSY_MS);
    sqlite3_exec(s->db, "PRAGMA foreign_keys = ON", NULL, NULL, NULL);
    if (!write) {
        code = check_readable(s, st);
        goto done;
    }
    code = bring_forward(s, st);
    if (code == MX_OK) {
        code = run_sql(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", st);
    }
done:
    if (code) {
        mx_store_close(s);
    } else {
        *ret = s;
    }
    return code;
}

void mx_store_close(mx_store *s) {
    if (!s) {
        return;
    }
    mx_store_rollback(s);
    for (int i = 0; i < s->cached; i++) {
        sqlite3_finalize(s->cache[i].statement);
    }
    sqlite3_close(s->db);
    free(s->path);
    free(s);
}

struct sqlite3 *mx_store_handle(mx_store *s) {
    return s->db;
}

const char *mx_store_path(const mx_store *s) {
    return s->path;
}

mx_code mx_store_begin(mx_store *s, mx_status *st) {
    assert(!s->in_transaction);
    MX_TRY(run_sql(s, "BEGIN IMMEDIATE", st));
    s->in_transaction = true;
    return MX_OK;
}

mx_code mx_store_commit(mx_store *s, mx_status *st) {
    assert(s->in_transaction);
    MX_TRY(run_sql(s, "COMMIT", st));
    s->in_transaction = false;
    return MX_OK;
}

void mx_store_rollback(mx_store *s) {
    if (s->in_transaction) {
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        s->in_transaction = false;
    }
}

int64_t mx_now_ms(void) {
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static mx_code make_uuid(char text[MX_UUID_TEXT], mx_status *st) {
    unsigned char bits[16];

    if (getrandom(bits, sizeof bits, 0) != (ssize_t)sizeof bits) {
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "no random numbers from the system: %s", strerror(errno));
    }
    for (size_t i = 0; i < sizeof bits; i++) {
        snprintf(text + 2 * i, 3, "%02x", bits[i]);
    }
    return MX_OK;
}

static void text_hash(const char *text, char ret[17]) {
    uint64_t h = 14695981039346656037u; /* FNV-1a: names equal environments within one database */

    for (const char *c = text; *c; c++) {
        h = (h ^ (unsigned char)*c) * 1099511628211u;
    }
    snprintf(ret, 17, "%016llx", (unsigned long long)h);
}

mx_code mx_store_run_add(mx_store *s, mx_run_row *row, char uuid_text[MX_UUID_TEXT], mx_status *st) {
    char host[256] = "", hash[17];
    int64_t now = mx_now_ms();

    gethostname(host, sizeof host - 1);
    text_hash(row->environment, hash);
    MX_TRY(make_uuid(uuid_text, st));
    row->uuid = uuid_text;
    MX_TRY(execute(s, st, "INSERT OR IGNORE INTO environments (hash, text) VALUES (?, ?)", "tt", hash, row->environment));
    MX_TRY(execute(s, st, "INSERT OR IGNORE INTO bases VALUES (?, ?, ?, ?)", "ttti", row->base_hash, row->base_name,
                   row->base_description, row->base_weights));
    MX_TRY(execute(s, st,
                   "INSERT INTO runs (uuid, name, kind, method, state, recipe_hash, recipe, seed, base_hash, tasks_hash,"
                   " data_hash, environment_id, trained, trained_router, steps, limited, folder, host, pid, began_ms,"
                   " heartbeat_ms) VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, ?,"
                   " (SELECT environment_id FROM environments WHERE hash = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   "ttttttittttiiiittiii", uuid_text, row->name, row->kind, row->method, row->recipe_hash, row->recipe,
                   row->seed, row->base_hash, row->tasks_hash, row->data_hash, hash, row->trained, row->trained_router,
                   row->steps, (int64_t)row->limited, row->folder, host, (int64_t)getpid(), now, now));
    row->run_id = sqlite3_last_insert_rowid(s->db);
    return MX_OK;
}

mx_code mx_store_run_folder(mx_store *s, int64_t run_id, const char *folder, mx_status *st) {
    return execute(s, st, "UPDATE runs SET folder = ? WHERE run_id = ?", "ti", folder, run_id);
}

mx_code mx_store_run_state(mx_store *s, int64_t run_id, const char *state, const char *reason, mx_status *st) {
    char host[256] = "";
    int64_t now = mx_now_ms();

    gethostname(host, sizeof host - 1);
    if (strcmp(state, "running") == 0) {
        return execute(s, st,
                       "UPDATE runs SET state = 'running', reason = '', ended_ms = NULL, host = ?, pid = ?,"
                       " heartbeat_ms = ? WHERE run_id = ?",
                       "tiii", host, (int64_t)getpid(), now, run_id);
    }
    return execute(s, st, "UPDATE runs SET state = ?, reason = ?, ended_ms = ?, heartbeat_ms = ? WHERE run_id = ?", "ttiii",
                   state, reason ? reason : "", now, now, run_id);
}

mx_code mx_store_heartbeat(mx_store *s, int64_t run_id, int64_t step, mx_status *st) {
    return execute(s, st, "UPDATE runs SET step = ?, heartbeat_ms = ? WHERE run_id = ?", "iii", step, mx_now_ms(), run_id);
}

static const char *column_text(sqlite3_stmt *q, int i, mx_arena *arena) {
    const char *text = (const char *)sqlite3_column_text(q, i);

    return text ? mx_arena_copy(arena, text, strlen(text)) : "";
}

static void read_run(sqlite3_stmt *q, mx_arena *arena, mx_run_row *r) {
    int i = 0;

    r->run_id = sqlite3_column_int64(q, i++);
    r->uuid = column_text(q, i++, arena);
    r->name = column_text(q, i++, arena);
    r->kind = column_text(q, i++, arena);
    r->method = column_text(q, i++, arena);
    r->state = column_text(q, i++, arena);
    r->reason = column_text(q, i++, arena);
    r->recipe_hash = column_text(q, i++, arena);
    r->recipe = column_text(q, i++, arena);
    r->seed = sqlite3_column_int64(q, i++);
    r->base_hash = column_text(q, i++, arena);
    r->base_name = column_text(q, i++, arena);
    r->base_description = column_text(q, i++, arena);
    r->base_weights = sqlite3_column_int64(q, i++);
    r->tasks_hash = column_text(q, i++, arena);
    r->data_hash = column_text(q, i++, arena);
    r->environment = column_text(q, i++, arena);
    r->trained = sqlite3_column_int64(q, i++);
    r->trained_router = sqlite3_column_int64(q, i++);
    r->steps = sqlite3_column_int64(q, i++);
    r->step = sqlite3_column_int64(q, i++);
    r->limited = sqlite3_column_int64(q, i++) != 0;
    r->folder = column_text(q, i++, arena);
    r->host = column_text(q, i++, arena);
    r->pid = sqlite3_column_int64(q, i++);
    r->began_ms = sqlite3_column_int64(q, i++);
    r->heartbeat_ms = sqlite3_column_int64(q, i++);
    r->ended_ms = sqlite3_column_int64(q, i++);
}

#define RUN_COLUMNS                                                                                                    \
    "r.run_id, r.uuid, r.name, r.kind, r.method, r.state, r.reason, r.recipe_hash, r.recipe, r.seed, r.base_hash,"     \
    " b.name, b.description, b.weights, r.tasks_hash, r.data_hash, v.text, r.trained, r.trained_router, r.steps,"      \
    " r.step, r.limited, r.folder, r.host, r.pid, r.began_ms, r.heartbeat_ms, r.ended_ms"                              \
    " FROM runs r JOIN bases b USING (base_hash) JOIN environments v USING (environment_id)"

/* "there is no run 'arc_obaq'; did you mean 'arc_obqa'?" */
static mx_code no_such_run(mx_store *s, const char *what, mx_arena *arena, mx_status *st) {
    const char *names[64];
    size_t count = 0;
    const char *near;
    sqlite3_stmt *q = NULL;
    mx_code code = mx_fail(st, MX_E_USAGE, MX_NOWHERE, "there is no run '%s' in %s", what, s->path);

    if (sqlite3_prepare_v2(s->db, "SELECT DISTINCT name FROM runs ORDER BY run_id DESC LIMIT 64", -1, &q, NULL) == SQLITE_OK) {
        while (count < 64 && sqlite3_step(q) == SQLITE_ROW) {
            names[count++] = column_text(q, 0, arena);
        }
    }
    sqlite3_finalize(q);
    near = mx_text_nearest(what, names, count);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    } else {
        mx_hint(st, "mixrun ls lists the runs");
    }
    return code;
}

mx_code mx_store_run_find(mx_store *s, const char *what, mx_arena *arena, mx_run_row *ret, mx_status *st) {
    static const char *const ways[] = {
        "SELECT " RUN_COLUMNS " WHERE CAST(r.run_id AS TEXT) = ?1",
        "SELECT " RUN_COLUMNS " WHERE r.name = ?1 ORDER BY r.run_id DESC LIMIT 1",
        "SELECT " RUN_COLUMNS " WHERE LENGTH(?1) >= 6 AND SUBSTR(r.uuid, 1, LENGTH(?1)) = LOWER(?1) ORDER BY r.run_id LIMIT 1",
    };

    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        sqlite3_stmt *q = NULL;
        int rc = sqlite3_prepare_v2(s->db, ways[i], -1, &q, NULL);

        if (rc == SQLITE_OK) {
            sqlite3_bind_text(q, 1, what, -1, SQLITE_TRANSIENT);
            rc = sqlite3_step(q);
        }
        if (rc == SQLITE_ROW) {
            read_run(q, arena, ret);
            sqlite3_finalize(q);
            return MX_OK;
        }
        sqlite3_finalize(q);
        if (rc != SQLITE_DONE) {
            return fail(s, st, "reading");
        }
    }
    return no_such_run(s, what, arena, st);
}

/* The number after `word` on its line of a file of /proc; 0: none. */
static int64_t proc_number(const char *path, const char *word) {
    char line[512];
    int64_t value = 0;
    FILE *f = fopen(path, "r");

    while (f && value == 0 && fgets(line, sizeof line, f)) {
        if (strncmp(line, word, strlen(word)) == 0) {
            value = strtoll(line + strlen(word), NULL, 10);
        }
    }
    if (f) {
        fclose(f);
    }
    return value;
}

/* When a process of this machine began, as mx_now_ms; 0: not told. proc(5): field 22 of stat, in ticks since boot; the name in
 * field 2 may hold anything, so fields are counted from its last ')'. */
static int64_t process_began_ms(int64_t pid) {
    enum { AFTER_NAME = 20 };
    char path[64], line[1024] = "", *at;
    int64_t boot = proc_number("/proc/stat", "btime ");
    FILE *f;

    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    f = fopen(path, "r");
    if (f) {
        line[fread(line, 1, sizeof line - 1, f)] = '\0';
        fclose(f);
    }
    at = strrchr(line, ')');
    for (int field = 0; at && field < AFTER_NAME; field++) {
        at = strchr(at + 1, ' ');
    }
    return at && boot ? boot * 1000 + strtoll(at, NULL, 10) * 1000 / sysconf(_SC_CLK_TCK) : 0;
}

bool mx_run_is_dead(const mx_run_row *row) {
    enum { CLOCK_MS = 5000 }; /* boot time is told in whole seconds, and clocks are set now and then */
    char host[256] = "";

    if (strcmp(row->state, "running") != 0) {
        return false;
    }
    gethostname(host, sizeof host - 1);
    if (strcmp(host, row->host) == 0) {
        if (kill((pid_t)row->pid, 0) != 0 && errno == ESRCH) {
            return true;
        }
        return process_began_ms(row->pid) > row->heartbeat_ms + CLOCK_MS; /* another process has its number */
    }
    return mx_now_ms() - row->heartbeat_ms > DEAD_AFTER_MS;
}

mx_code mx_store_drop_after(mx_store *s, int64_t run_id, int64_t step, mx_status *st) {
    MX_TRY(execute(s, st, "DELETE FROM metrics WHERE run_id = ? AND step > ?", "ii", run_id, step));
    MX_TRY(execute(s, st, "DELETE FROM evaluations WHERE run_id = ? AND step >= ?", "ii", run_id, step));
    MX_TRY(execute(s, st, "DELETE FROM router_windows WHERE run_id = ? AND last_step > ?", "ii", run_id, step));
    return execute(s, st, "UPDATE runs SET step = MIN(step, ?) WHERE run_id = ?", "ii", step, run_id);
}

mx_code mx_store_word(mx_store *s, int64_t run_id, const char *word, const char *value, mx_status *st) {
    return execute(s, st, "INSERT OR REPLACE INTO words VALUES (?, ?, ?)", "itt", run_id, word, value);
}

mx_code mx_store_data_file(mx_store *s, int64_t run_id, const char *task, const char *split, const char *path,
                           const char *sha256, int64_t questions, int64_t truncated, mx_status *st) {
    return execute(s, st, "INSERT OR REPLACE INTO data_files VALUES (?, ?, ?, ?, ?, ?, ?)", "ittttii", run_id, task, split,
                   path, sha256, questions, truncated);
}

mx_code mx_store_metric(mx_store *s, int64_t run_id, int64_t step, const char *name, double value, mx_status *st) {
    return execute(s, st, "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)", "iitd", run_id, step, name, value);
}

mx_code mx_store_evaluation(mx_store *s, int64_t run_id, const mx_evaluation_row *row, int64_t *ret_id, mx_status *st) {
    MX_TRY(execute(s, st,
                   "INSERT INTO evaluations (run_id, task, split, protocol, epoch, step, n, limited, truncated, task_hash,"
                   " data_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   "itttdiiiitt", run_id, row->task, row->split, row->protocol, row->epoch, row->step, row->n,
                   (int64_t)row->limited, row->truncated, row->task_hash, row->data_hash));
    *ret_id = sqlite3_last_insert_rowid(s->db);
    return MX_OK;
}

mx_code mx_store_score(mx_store *s, int64_t evaluation_id, const char *metric, double value, double stderr_value,
                       double majority, mx_status *st) {
    return execute(s, st, "INSERT INTO scores VALUES (?, ?, ?, ?, ?)", "itddd", evaluation_id, metric, value, stderr_value,
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
    code = execute(s, st, "INSERT INTO predictions VALUES (?, ?, ?, ?, ?)", "iitit", evaluation_id, number, item,
                   (int64_t)gold, json.data);
    mx_text_finish(&json);
    return code;
}

mx_code mx_store_outcome(mx_store *s, int64_t evaluation_id, const char *metric, int64_t number, int chosen, bool correct,
                         mx_status *st) {
    return execute(s, st, "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?)", "itiii", evaluation_id, metric, number,
                   (int64_t)chosen, (int64_t)correct);
}

/* Rows of one task and layer. */
static mx_code store_layer(mx_store *s, const mx_router_window *w, int64_t window_id, int64_t task, int64_t layer,
                           mx_status *st) {
    int64_t at = layer * w->tasks + task, e = w->experts;

    MX_TRY(execute(s, st, "INSERT INTO router_tokens VALUES (?, ?, ?, ?, ?)", "itiid", window_id, w->task[task], layer,
                   w->routed[at], w->entropy[at]));
    for (int64_t i = 0; i < e; i++) {
        MX_TRY(execute(s, st, "INSERT INTO router_loads VALUES (?, ?, ?, ?, ?, ?, ?)", "itiiiid", window_id, w->task[task],
                       layer, i, w->tokens[at * e + i], w->dropped[at * e + i], w->probability[at * e + i]));
    }
    for (int64_t i = 0; w->pairs && i < e; i++) {
        for (int64_t j = i + 1; j < e; j++) {
            int64_t n = w->pairs[(at * e + i) * e + j];

            if (n > 0) {
                MX_TRY(execute(s, st, "INSERT INTO router_pairs VALUES (?, ?, ?, ?, ?, ?)", "itiiii", window_id,
                               w->task[task], layer, i, j, n));
            }
        }
    }
    return MX_OK;
}

mx_code mx_store_router(mx_store *s, int64_t run_id, const mx_router_window *w, mx_status *st) {
    int64_t window_id;

    MX_TRY(execute(s, st,
                   "INSERT INTO router_windows (run_id, split, first_step, last_step, evaluation_id)"
                   " VALUES (?, ?, ?, ?, NULLIF(?, 0))",
                   "itiii", run_id, w->split, w->first_step, w->last_step, w->evaluation_id));
    window_id = sqlite3_last_insert_rowid(s->db);
    for (int64_t t = 0; t < w->tasks; t++) {
        for (int64_t l = 0; l < w->layers; l++) {
            if (w->routed[l * w->tasks + t] > 0) {
                MX_TRY(store_layer(s, w, window_id, t, l, st));
            }
        }
    }
    return MX_OK;
}
