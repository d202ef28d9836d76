/* sql.h - statements, for the files of this room that speak SQL; users of the room include store.h.
 *
 * Every statement that fails says MX_E_STORE with the database's path, what was being done, SQLite's words and a hint. */
#ifndef REPORTS_SQL_H
#define REPORTS_SQL_H

#include "reports/store.h"

#include <sqlite3.h>

/* The failure SQLite just told of. */
mx_code mx_sql_fail(mx_store *s, mx_status *st, const char *doing);

/* Binds by letters (i int64_t, d double, t text, NULL allowed) and runs to the end. The statement is kept for the next
 * call: `sql` is a literal, compared by address. */
MX_MUST_CHECK mx_code mx_sql_execute(mx_store *s, mx_status *st, const char *sql, const char *kinds, ...);

/* A statement to be read row by row, bound by letters as above; sqlite3_finalize is the caller's. */
MX_MUST_CHECK mx_code mx_sql_prepare(mx_store *s, sqlite3_stmt **ret, mx_status *st, const char *sql, const char *kinds, ...);
/* True while there are rows; at the end *code is MX_OK, or the failure. */
bool mx_sql_row(mx_store *s, sqlite3_stmt *q, mx_code *code, mx_status *st);
/* A column's text, "" for NULL: borrowed until the next row. */
const char *mx_sql_text(sqlite3_stmt *q, int column);
/* The same, copied. */
const char *mx_sql_copy(sqlite3_stmt *q, int column, mx_arena *arena);

/* For store.c: statements kept by mx_sql_execute are let go. */
enum { MX_STATEMENTS_MAX = 48 };
typedef struct mx_sql_cache {
    struct {
        const char *sql;
        sqlite3_stmt *statement;
    } item[MX_STATEMENTS_MAX];
    int count;
} mx_sql_cache;
mx_sql_cache *mx_store_cache(mx_store *s);

#endif
