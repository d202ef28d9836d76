/* store.c - see store.h: opening a database, bringing it forward, transactions. */
#include "reports/store.h"

#include "base/text.h"
#include "reports/schema.h"
#include "reports/sql.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    APPLICATION_ID = 0x6d785231, /* "mxR1": tells our files from others' */
    BUSY_MS = 30000,
};

struct mx_store {
    sqlite3 *db;
    char *path;
    bool in_transaction;
    mx_sql_cache cache;
};

static mx_code run_sql(mx_store *s, const char *sql, mx_status *st) {
    if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        return mx_sql_fail(s, st, "writing");
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
        code = mx_sql_fail(s, st, "opening");
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

/* Is it ours, and of which version? */
static mx_code check_readable(mx_store *s, bool *ret_old, mx_status *st) {
    int rc;
    int64_t version = pragma_value(s, "PRAGMA user_version", &rc), id;

    if (rc != SQLITE_OK) {
        return mx_sql_fail(s, st, "opening");
    }
    id = pragma_value(s, "PRAGMA application_id", &rc);
    if (rc != SQLITE_OK || id != APPLICATION_ID) {
        return mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s is not a mixrun database", s->path);
    }
    if (version > MX_SCHEMA_VERSION) {
        return mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s was written by a newer mixrun (schema %lld; this program knows %d)", s->path,
                       (long long)version, MX_SCHEMA_VERSION);
    }
    *ret_old = version < MX_SCHEMA_VERSION;
    return MX_OK;
}

/* To read a database in WAL mode SQLite makes a file beside it. Where the folder cannot be written, and no log lies there that would have
 * to be read with it, nobody is writing: it is read as it stands. */
static bool stands_still(const char *path) {
    char folder[PATH_MAX], log[PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct stat info;

    if (strlen(path) + 5 > sizeof log) {
        return false;
    }
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    snprintf(log, sizeof log, "%s-wal", path);
    return access(folder, W_OK) != 0 && (stat(log, &info) != 0 || info.st_size == 0);
}

static int open_still(mx_store *s) {
    mx_text uri;
    int rc;

    mx_text_init(&uri, 4 * PATH_MAX);
    mx_text_print(&uri, "file:");
    for (const char *c = s->path + (strncmp(s->path, "//", 2) == 0); *c; c++) { /* "//" would begin a host's name */
        mx_text_print(&uri, strchr("%?#", *c) ? "%%%02X" : "%c", (unsigned char)*c);
    }
    mx_text_print(&uri, "?immutable=1");
    sqlite3_close(s->db);
    rc = sqlite3_open_v2(uri.data, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
    mx_text_finish(&uri);
    return rc;
}

static mx_code check_to_read(mx_store *s, bool *ret_old, mx_status *st) {
    mx_status first = { 0 };
    mx_code code = check_readable(s, ret_old, &first);
    int rc = sqlite3_errcode(s->db) & 0xff;

    if (code && (rc == SQLITE_CANTOPEN || rc == SQLITE_READONLY) && stands_still(s->path)) {
        first = (mx_status){ 0 };
        code = open_still(s) == SQLITE_OK ? check_readable(s, ret_old, &first) : mx_sql_fail(s, &first, "opening");
    }
    if (code && st && st->code == MX_OK) {
        *st = first;
    }
    return code;
}

/* An older database, opened to be read: it has to be written once. */
static mx_code renew(const char *path, mx_status *st) {
    mx_store *s;
    mx_code code = mx_store_open(path, true, &s, st);

    if (code) {
        mx_hint(st, "%s was made by an older mixrun and must be writable once, to be brought forward", path);
    }
    mx_store_close(s);
    return code;
}

mx_code mx_store_open(const char *path, bool write, mx_store **ret, mx_status *st) {
    mx_store *s = calloc(1, sizeof *s);
    int flags = (write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY) | SQLITE_OPEN_URI; /* import attaches by URI */
    bool old = false;
    mx_code code = MX_OK;

    *ret = NULL;
    if (!s || asprintf(&s->path, "%s%s", strncmp(path, "file:", 5) == 0 ? "./" : "", path) < 0) { /* a path, never a URI */
        free(s);
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory to open %s", path);
    }
    if (!write && access(path, F_OK) != 0) {
        code = mx_fail(st, MX_E_STORE, MX_NOWHERE, "there is no database %s", path);
        mx_hint(st, "a run makes it; another file is named with --db FILE");
        goto done;
    }
    if (sqlite3_open_v2(s->path, &s->db, flags, NULL) != SQLITE_OK) {
        code = mx_sql_fail(s, st, "opening");
        goto done;
    }
    sqlite3_busy_timeout(s->db, BUSY_MS);
    sqlite3_exec(s->db, "PRAGMA foreign_keys = ON", NULL, NULL, NULL);
    if (write) {
        code = bring_forward(s, st);
        if (code == MX_OK) {
            code = run_sql(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", st);
        }
    } else {
        code = check_to_read(s, &old, st);
    }
done:
    if (code || old) {
        mx_store_close(s);
        s = NULL;
    }
    if (old) {
        MX_TRY(renew(path, st));
        return mx_store_open(path, false, ret, st);
    }
    *ret = s;
    return code;
}

void mx_store_close(mx_store *s) {
    if (!s) {
        return;
    }
    mx_store_rollback(s);
    for (int i = 0; i < s->cache.count; i++) {
        sqlite3_finalize(s->cache.item[i].statement);
    }
    sqlite3_close(s->db);
    free(s->path);
    free(s);
}

struct sqlite3 *mx_store_handle(mx_store *s) {
    return s->db;
}

mx_sql_cache *mx_store_cache(mx_store *s) {
    return &s->cache;
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

