/* sql.c - see sql.h. */
#include "reports/sql.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

mx_code mx_sql_fail(mx_store *s, mx_status *st, const char *doing) {
    mx_code code = mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: %s: %s", mx_store_path(s), doing, sqlite3_errmsg(mx_store_handle(s)));

    switch (sqlite3_errcode(mx_store_handle(s))) {
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
    case SQLITE_IOERR:
        mx_hint(st, "is the disk full, or gone? What was stored until then is kept");
        break;
    case SQLITE_CORRUPT:
        mx_hint(st, "the file is damaged; it was left as it is. What can be saved: sqlite3 FILE .recover | sqlite3 NEW.db");
        break;
    case SQLITE_NOTADB:
        mx_hint(st, "this is not a database mixrun can read; it was left as it is: name another one with db=OTHER.db");
        break;
    default:
        break;
    }
    return code;
}

/* A statement for this literal, ready to bind. */
static sqlite3_stmt *kept(mx_store *s, const char *sql) {
    mx_sql_cache *cache = mx_store_cache(s);
    sqlite3_stmt *q = NULL;

    for (int i = 0; i < cache->count; i++) {
        if (cache->item[i].sql == sql) {
            sqlite3_reset(cache->item[i].statement);
            sqlite3_clear_bindings(cache->item[i].statement);
            return cache->item[i].statement;
        }
    }
    assert(cache->count < MX_STATEMENTS_MAX);
    if (sqlite3_prepare_v3(mx_store_handle(s), sql, -1, SQLITE_PREPARE_PERSISTENT, &q, NULL) != SQLITE_OK) {
        return NULL;
    }
    cache->item[cache->count].sql = sql;
    cache->item[cache->count++].statement = q;
    return q;
}

static void bind(sqlite3_stmt *q, const char *kinds, va_list ap) {
    for (int i = 0; kinds[i]; i++) {
        if (kinds[i] == 'i') {
            sqlite3_bind_int64(q, i + 1, va_arg(ap, int64_t));
        } else if (kinds[i] == 'd') {
            sqlite3_bind_double(q, i + 1, va_arg(ap, double));
        } else {
            assert(kinds[i] == 't');
            sqlite3_bind_text(q, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
        }
    }
}

mx_code mx_sql_execute(mx_store *s, mx_status *st, const char *sql, const char *kinds, ...) {
    sqlite3_stmt *q = kept(s, sql);
    va_list ap;
    int rc;

    if (!q) {
        return mx_sql_fail(s, st, "preparing");
    }
    va_start(ap, kinds);
    bind(q, kinds, ap);
    va_end(ap);
    rc = sqlite3_step(q);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW) {
        mx_code code = mx_sql_fail(s, st, "writing");

        sqlite3_reset(q);
        return code;
    }
    sqlite3_reset(q);
    return MX_OK;
}

mx_code mx_sql_prepare(mx_store *s, sqlite3_stmt **ret, mx_status *st, const char *sql, const char *kinds, ...) {
    va_list ap;

    if (sqlite3_prepare_v2(mx_store_handle(s), sql, -1, ret, NULL) != SQLITE_OK) {
        return mx_sql_fail(s, st, "reading");
    }
    va_start(ap, kinds);
    bind(*ret, kinds, ap);
    va_end(ap);
    return MX_OK;
}

bool mx_sql_row(mx_store *s, sqlite3_stmt *q, mx_code *code, mx_status *st) {
    int rc = sqlite3_step(q);

    *code = rc == SQLITE_ROW || rc == SQLITE_DONE ? MX_OK : mx_sql_fail(s, st, "reading");
    return rc == SQLITE_ROW;
}

const char *mx_sql_text(sqlite3_stmt *q, int column) {
    const char *text = (const char *)sqlite3_column_text(q, column);

    return text ? text : "";
}

const char *mx_sql_copy(sqlite3_stmt *q, int column, mx_arena *arena) {
    const char *text = mx_sql_text(q, column);

    return mx_arena_copy(arena, text, strlen(text));
}
