/* ask.c - see ask.h. */
#include "reports/ask.h"

#include "base/text.h"
#include "reports/sql.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *mx_sql_quote(mx_arena *arena, const char *text) {
    char *quoted = mx_arena_take(arena, 2 * strlen(text) + 3), *to = quoted;

    *to++ = '\'';
    for (; *text; text++) {
        if (*text == '\'') {
            *to++ = '\'';
        }
        *to++ = *text;
    }
    *to++ = '\'';
    return quoted;
}

/* `keep` NULL: only counted and hashed. */
static mx_code read_rows(mx_store *s, mx_arena *keep, mx_asked *a, mx_status *st) {
    int64_t room = 0;
    mx_text printed;
    sqlite3_stmt *q;
    mx_code code;

    MX_TRY(mx_sql_prepare(s, &q, st, a->sql, ""));
    mx_text_init(&printed, (size_t)4 << 30);
    a->columns = sqlite3_column_count(q);
    while (mx_sql_row(s, q, &code, st)) {
        if (keep && a->rows == room) {
            const char **old = a->cell;

            room = room ? 2 * room : 64;
            a->cell = MX_TAKE(keep, const char *, room * a->columns);
            if (old) {
                memcpy(a->cell, old, sizeof *old * (size_t)(a->rows * a->columns));
            }
        }
        for (int i = 0; i < a->columns; i++) {
            const char *text = (const char *)sqlite3_column_text(q, i);

            if (keep) {
                a->cell[a->rows * a->columns + i] = text ? mx_arena_copy(keep, text, strlen(text)) : NULL;
            }
            if (i) {
                mx_text_add(&printed, "|", 1);
            }
            mx_text_add(&printed, text ? text : "", text ? strlen(text) : 0);
        }
        mx_text_add(&printed, "\n", 1);
        a->rows++;
    }
    sqlite3_finalize(q);
    mx_sha256(printed.data, printed.length, a->sha256);
    mx_text_finish(&printed);
    return code;
}

mx_code mx_ask(mx_store *s, mx_arena *arena, mx_asked *ret, mx_status *st, const char *name, const char *fmt, ...) {
    char *sql = NULL;
    va_list ap;
    int length;

    va_start(ap, fmt);
    length = vasprintf(&sql, fmt, ap);
    va_end(ap);
    assert(length >= 0);
    *ret = (mx_asked){ .name = name, .sql = mx_arena_copy(arena, sql, (size_t)length) };
    free(sql);
    return read_rows(s, arena, ret, st);
}

mx_code mx_ask_hash(mx_store *s, mx_asked *ret, mx_status *st, const char *name, const char *sql) {
    *ret = (mx_asked){ .name = name, .sql = sql };
    return read_rows(s, NULL, ret, st);
}

const char *mx_asked_text(const mx_asked *a, int64_t row, int column) {
    const char *text;

    assert(row >= 0 && row < a->rows && column >= 0 && column < a->columns);
    text = a->cell[row * a->columns + column];
    return text ? text : "";
}

int64_t mx_asked_whole(const mx_asked *a, int64_t row, int column) {
    return strtoll(mx_asked_text(a, row, column), NULL, 10);
}

double mx_asked_number(const mx_asked *a, int64_t row, int column) {
    const char *text = mx_asked_text(a, row, column);

    return *text ? strtod(text, NULL) : NAN;
}
