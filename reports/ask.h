/* ask.h - a SELECT as it will be printed, its rows, and their hash.
 *
 * A number gets into a report only through a statement that stands in it complete, parameters written out, so that whoever reads it
 * can ask again. The hash is of what `sqlite3 -readonly FILE "SELECT ..."` prints (list mode: columns parted by |, lines by \n). */
#ifndef REPORTS_ASK_H
#define REPORTS_ASK_H

#include "base/file.h"
#include "reports/store.h"

typedef struct mx_asked {
    const char *name; /* what it gives, for people */
    const char *sql;  /* complete, no semicolon */
    int columns;
    int64_t rows;
    const char **cell; /* row by row; NULL: NULL, or rows not kept */
    char sha256[MX_SHA256_TEXT];
} mx_asked;

/* Writes out the statement, runs it and keeps its rows in `arena`. A text parameter goes in by mx_sql_quote. */
MX_MUST_CHECK mx_code mx_ask(mx_store *s, mx_arena *arena, mx_asked *ret, mx_status *st, const char *name, const char *fmt, ...)
    MX_PRINTF(6, 7);
/* Only counts and hashes the rows of a statement somebody else wrote (and reads): cell stays NULL. */
MX_MUST_CHECK mx_code mx_ask_hash(mx_store *s, mx_asked *ret, mx_status *st, const char *name, const char *sql);

const char *mx_asked_text(const mx_asked *a, int64_t row, int column); /* "" for NULL */
int64_t mx_asked_whole(const mx_asked *a, int64_t row, int column);    /* 0 for NULL */
double mx_asked_number(const mx_asked *a, int64_t row, int column);    /* NAN for NULL */

/* 'it''s' */
const char *mx_sql_quote(mx_arena *arena, const char *text);

#endif
