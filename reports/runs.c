/* runs.c - store.h's rows of runs: added, told their state, found again. */
#include "base/text.h"
#include "reports/sql.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { DEAD_AFTER_MS = 10 * 60 * 1000 };

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
    MX_TRY(mx_sql_execute(s, st, "INSERT OR IGNORE INTO environments (hash, text) VALUES (?, ?)", "tt", hash, row->environment));
    MX_TRY(mx_sql_execute(s, st, "INSERT OR IGNORE INTO bases VALUES (?, ?, ?, ?)", "ttti", row->base_hash, row->base_name,
                   row->base_description, row->base_weights));
    MX_TRY(mx_sql_execute(s, st,
                   "INSERT INTO runs (uuid, name, kind, method, state, recipe_hash, recipe, seed, base_hash, tasks_hash,"
                   " data_hash, environment_id, trained, trained_router, flops, steps, limited, folder, host, pid, began_ms,"
                   " heartbeat_ms) VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, ?,"
                   " (SELECT environment_id FROM environments WHERE hash = ?), ?, ?, NULLIF(?, 0), ?, ?, ?, ?, ?, ?, ?)",
                   "ttttttittttiiiiittiii", uuid_text, row->name, row->kind, row->method, row->recipe_hash, row->recipe,
                   row->seed, row->base_hash, row->tasks_hash, row->data_hash, hash, row->trained, row->trained_router,
                   row->flops, row->steps, (int64_t)row->limited, row->folder, host, (int64_t)getpid(), now, now));
    row->run_id = sqlite3_last_insert_rowid(mx_store_handle(s));
    return MX_OK;
}

mx_code mx_store_run_folder(mx_store *s, int64_t run_id, const char *folder, mx_status *st) {
    return mx_sql_execute(s, st, "UPDATE runs SET folder = ? WHERE run_id = ?", "ti", folder, run_id);
}

mx_code mx_store_run_state(mx_store *s, int64_t run_id, const char *state, const char *reason, mx_status *st) {
    char host[256] = "";
    int64_t now = mx_now_ms();

    gethostname(host, sizeof host - 1);
    if (strcmp(state, "running") == 0) {
        return mx_sql_execute(s, st,
                       "UPDATE runs SET state = 'running', reason = '', ended_ms = NULL, host = ?, pid = ?,"
                       " heartbeat_ms = ? WHERE run_id = ?",
                       "tiii", host, (int64_t)getpid(), now, run_id);
    }
    return mx_sql_execute(s, st, "UPDATE runs SET state = ?, reason = ?, ended_ms = ?, heartbeat_ms = ? WHERE run_id = ?", "ttiii",
                   state, reason ? reason : "", now, now, run_id);
}

mx_code mx_store_run_died(mx_store *s, int64_t run_id, int64_t pid, const char *reason, mx_status *st) {
    char host[256] = "";
    int64_t now = mx_now_ms();

    gethostname(host, sizeof host - 1);
    return mx_sql_execute(s, st,
                          "UPDATE runs SET state = 'failed', reason = ?, ended_ms = ?, heartbeat_ms = ? WHERE run_id = ?"
                          " AND state = 'running' AND pid = ? AND host = ?",
                          "tiiiit", reason, now, now, run_id, pid, host);
}

mx_code mx_store_heartbeat(mx_store *s, int64_t run_id, int64_t step, mx_status *st) {
    return mx_sql_execute(s, st, "UPDATE runs SET step = ?, heartbeat_ms = ? WHERE run_id = ?", "iii", step, mx_now_ms(), run_id);
}

mx_code mx_store_alive(mx_store *s, int64_t run_id, mx_status *st) {
    return mx_sql_execute(s, st, "UPDATE runs SET heartbeat_ms = ? WHERE run_id = ?", "ii", mx_now_ms(), run_id);
}

static void read_run(sqlite3_stmt *q, mx_arena *arena, mx_run_row *r) {
    int i = 0;

    r->run_id = sqlite3_column_int64(q, i++);
    r->uuid = mx_sql_copy(q, i++, arena);
    r->name = mx_sql_copy(q, i++, arena);
    r->kind = mx_sql_copy(q, i++, arena);
    r->method = mx_sql_copy(q, i++, arena);
    r->state = mx_sql_copy(q, i++, arena);
    r->reason = mx_sql_copy(q, i++, arena);
    r->recipe_hash = mx_sql_copy(q, i++, arena);
    r->recipe = mx_sql_copy(q, i++, arena);
    r->seed = sqlite3_column_int64(q, i++);
    r->base_hash = mx_sql_copy(q, i++, arena);
    r->base_name = mx_sql_copy(q, i++, arena);
    r->base_description = mx_sql_copy(q, i++, arena);
    r->base_weights = sqlite3_column_int64(q, i++);
    r->tasks_hash = mx_sql_copy(q, i++, arena);
    r->data_hash = mx_sql_copy(q, i++, arena);
    r->environment = mx_sql_copy(q, i++, arena);
    r->trained = sqlite3_column_int64(q, i++);
    r->trained_router = sqlite3_column_int64(q, i++);
    r->flops = sqlite3_column_int64(q, i++);
    r->steps = sqlite3_column_int64(q, i++);
    r->step = sqlite3_column_int64(q, i++);
    r->limited = sqlite3_column_int64(q, i++) != 0;
    r->folder = mx_sql_copy(q, i++, arena);
    r->host = mx_sql_copy(q, i++, arena);
    r->pid = sqlite3_column_int64(q, i++);
    r->began_ms = sqlite3_column_int64(q, i++);
    r->heartbeat_ms = sqlite3_column_int64(q, i++);
    r->ended_ms = sqlite3_column_int64(q, i++);
}

#define RUN_COLUMNS                                                                                                    \
    "r.run_id, r.uuid, r.name, r.kind, r.method, r.state, r.reason, r.recipe_hash, r.recipe, r.seed, r.base_hash,"     \
    " b.name, b.description, b.weights, r.tasks_hash, r.data_hash, v.text, r.trained, r.trained_router, r.flops, r.steps," \
    " r.step, r.limited, r.folder, r.host, r.pid, r.began_ms, r.heartbeat_ms, r.ended_ms"                              \
    " FROM runs r JOIN bases b USING (base_hash) JOIN environments v USING (environment_id)"

/* "there is no run 'arc_obaq'; did you mean 'arc_obqa'?" */
static mx_code no_such_run(mx_store *s, const char *what, mx_arena *arena, mx_status *st) {
    const char *names[64];
    size_t count = 0;
    const char *near;
    sqlite3_stmt *q = NULL;
    mx_code code = mx_fail(st, MX_E_USAGE, MX_NOWHERE, "there is no run '%s' in %s", what, mx_store_path(s));

    if (sqlite3_prepare_v2(mx_store_handle(s), "SELECT DISTINCT name FROM runs ORDER BY run_id DESC LIMIT 64", -1, &q, NULL) == SQLITE_OK) {
        while (count < 64 && sqlite3_step(q) == SQLITE_ROW) {
            names[count++] = mx_sql_copy(q, 0, arena);
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
        int rc = sqlite3_prepare_v2(mx_store_handle(s), ways[i], -1, &q, NULL);

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
            return mx_sql_fail(s, st, "reading");
        }
    }
    return no_such_run(s, what, arena, st);
}

static mx_code first_run(mx_store *s, sqlite3_stmt *q, mx_arena *arena, bool *ret_found, mx_run_row *ret, mx_status *st) {
    mx_code code;

    *ret_found = mx_sql_row(s, q, &code, st);
    if (*ret_found) {
        read_run(q, arena, ret);
    }
    sqlite3_finalize(q);
    return code;
}

mx_code mx_store_run_like(mx_store *s, const mx_run_row *like, mx_arena *arena, bool *ret_found, mx_run_row *ret, mx_status *st) {
    sqlite3_stmt *q;

    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT " RUN_COLUMNS " WHERE r.recipe_hash = ? AND r.seed = ? AND r.base_hash = ? AND r.data_hash = ?"
                          " AND r.tasks_hash = ? AND r.kind = 'train' ORDER BY r.state = 'finished' DESC, r.run_id DESC LIMIT 1",
                          "tittt", like->recipe_hash, like->seed, like->base_hash, like->data_hash, like->tasks_hash));
    return first_run(s, q, arena, ret_found, ret, st);
}

mx_code mx_store_run_of_process(mx_store *s, int64_t pid, int64_t since_ms, mx_arena *arena, bool *ret_found, mx_run_row *ret,
                                mx_status *st) {
    char host[256] = "";
    sqlite3_stmt *q;

    gethostname(host, sizeof host - 1);
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT " RUN_COLUMNS " WHERE r.state = 'running' AND r.pid = ? AND r.host = ? AND r.heartbeat_ms >= ?"
                          " ORDER BY r.heartbeat_ms DESC LIMIT 1",
                          "iti", pid, host, since_ms));
    return first_run(s, q, arena, ret_found, ret, st);
}

mx_code mx_store_run_left_by(mx_store *s, int64_t pid, int64_t since_ms, mx_arena *arena, bool *ret_found, mx_run_row *ret,
                             mx_status *st) {
    char host[256] = "";
    sqlite3_stmt *q;

    gethostname(host, sizeof host - 1);
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT " RUN_COLUMNS " WHERE r.pid = ? AND r.host = ? AND r.heartbeat_ms >= ?"
                          " ORDER BY r.heartbeat_ms DESC LIMIT 1",
                          "iti", pid, host, since_ms));
    return first_run(s, q, arena, ret_found, ret, st);
}

mx_code mx_store_run_alive(mx_store *s, const mx_run_row *like, mx_arena *arena, bool *ret_found, mx_run_row *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret_found = false;
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT " RUN_COLUMNS " WHERE r.recipe_hash = ? AND r.seed = ? AND r.base_hash = ? AND r.data_hash = ?"
                          " AND r.tasks_hash = ? AND r.kind = 'train' AND r.state = 'running' ORDER BY r.run_id DESC",
                          "tittt", like->recipe_hash, like->seed, like->base_hash, like->data_hash, like->tasks_hash));
    while (!*ret_found && mx_sql_row(s, q, &code, st)) {
        read_run(q, arena, ret);
        *ret_found = !mx_run_is_dead(ret);
    }
    sqlite3_finalize(q);
    return *ret_found ? MX_OK : code;
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

/* What /proc/PID/stat says from its field 3 on, or NULL: the name in field 2 may hold anything, so fields are counted from its
 * last ')' (proc(5)). */
static const char *process_stat(int64_t pid, char *line, size_t size) {
    char path[64], *at;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    line[0] = '\0';
    f = fopen(path, "r");
    if (f) {
        line[fread(line, 1, size - 1, f)] = '\0';
        fclose(f);
    }
    at = strrchr(line, ')');
    return at && at[1] == ' ' ? at + 2 : NULL;
}

/* When it began, as mx_now_ms; 0: not told. Field 22, in ticks since boot. */
static int64_t began_ms(const char *stat) {
    int64_t boot = proc_number("/proc/stat", "btime ");

    for (int field = 3; stat && field < 22; field++) {
        stat = strchr(stat, ' ');
        stat += stat != NULL;
    }
    return stat && boot ? boot * 1000 + strtoll(stat, NULL, 10) * 1000 / sysconf(_SC_CLK_TCK) : 0;
}

bool mx_run_is_dead(const mx_run_row *row) {
    enum { CLOCK_MS = 5000 }; /* boot time is told in whole seconds, and clocks are set now and then */
    char host[256] = "", line[1024];
    const char *stat;

    if (strcmp(row->state, "running") != 0) {
        return false;
    }
    gethostname(host, sizeof host - 1);
    if (strcmp(host, row->host) == 0) {
        if (kill((pid_t)row->pid, 0) != 0 && errno == ESRCH) {
            return true;
        }
        stat = process_stat(row->pid, line, sizeof line);
        return (stat && *stat == 'Z') || /* it ended, and whoever should look after it has not yet */
               began_ms(stat) > row->heartbeat_ms + CLOCK_MS; /* another process has its number */
    }
    return mx_now_ms() - row->heartbeat_ms > DEAD_AFTER_MS;
}
