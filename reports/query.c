/* query.c - see query.h: a query compiled so that it can only read, its parameters bound, its mistakes shown. */
#include "reports/query.h"

#include "reports/query_rows.h"
#include "reports/sql.h"
#include "reports/sweeps.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>

enum { NAMES_MAX = 2048 };

/* ------------------------------------------------------------------------ only reading */

/* A PRAGMA that tells and changes nothing. */
static bool telling(const char *name, const char *argument) {
    static const char *const with_any[] = { "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo",
                                            "foreign_key_list", "integrity_check", "quick_check", "foreign_key_check" };
    static const char *const with_none[] = { "user_version", "application_id", "page_count", "page_size", "freelist_count",
                                             "compile_options", "database_list", "encoding", "journal_mode", "function_list",
                                             "collation_list" };

    for (size_t i = 0; i < sizeof with_any / sizeof with_any[0]; i++) {
        if (sqlite3_stricmp(name, with_any[i]) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof with_none / sizeof with_none[0]; i++) {
        if (sqlite3_stricmp(name, with_none[i]) == 0) {
            return !argument;
        }
    }
    return false;
}

/* SQLite asks this about everything a statement would do; `denied` remembers what it was. */
static int only_reading(void *denied, int action, const char *first, const char *second, const char *database, const char *view) {
    const char **what = denied;

    (void)database;
    (void)view;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_FUNCTION: /* load_extension is off unless a program turns it on, and we do not */
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_PRAGMA:
        if (telling(first, second)) {
            return SQLITE_OK;
        }
        *what = "use this PRAGMA";
        return SQLITE_DENY;
    case SQLITE_UPDATE: /* SQLite asks so when it declares json_each and its like; a user's own meets sqlite3_stmt_readonly */
        if (strcmp(first, "sqlite_master") == 0) {
            return SQLITE_OK;
        }
        *what = "write";
        return SQLITE_DENY;
    case SQLITE_ATTACH:
    case SQLITE_DETACH: *what = "attach another database"; return SQLITE_DENY;
    default: *what = "write"; return SQLITE_DENY;
    }
}

/* ------------------------------------------------------------------------ mistakes, with their place */

static mx_mark place(const mx_query *q, const char *at, size_t length) {
    mx_mark mark = { .file = q->name, .text = q->sql, .line = 1, .column = 1, .length = (uint32_t)length };

    for (const char *c = q->sql; c < at; c++) {
        mark.column = *c == '\n' ? 1 : mark.column + 1;
        mark.line += *c == '\n';
    }
    return mark;
}

static size_t word_length(const char *at) {
    size_t n = 0;

    while (isalnum((unsigned char)at[n]) || at[n] == '_') {
        n++;
    }
    return n ? n : 1;
}

/* Where the word stands by itself in the text, or NULL. */
static const char *word_in(const char *text, const char *word) {
    size_t n = strlen(word);

    for (const char *at = text; n && (at = strstr(at, word)); at++) {
        bool begins = at == text || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');

        if (begins && !(isalnum((unsigned char)at[n]) || at[n] == '_')) {
            return at;
        }
    }
    return NULL;
}

/* Names of the schema: tables and views, or their columns. */
static size_t schema_names(mx_store *s, bool columns, const char *names[NAMES_MAX], mx_arena *arena) {
    sqlite3_stmt *q = NULL;
    size_t count = 0;

    if (sqlite3_prepare_v2(mx_store_handle(s),
                           columns ? "SELECT DISTINCT c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type IN ('table', 'view')"
                                   : "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')",
                           -1, &q, NULL) == SQLITE_OK) {
        while (count < NAMES_MAX && sqlite3_step(q) == SQLITE_ROW) {
            names[count++] = mx_sql_copy(q, 0, arena);
        }
    }
    sqlite3_finalize(q);
    return count;
}

/* "no such column: r.lyer": the word, and the schema's word nearest to it. */
static const char *unknown_name(mx_store *s, const char *says, mx_arena *arena, const char **ret_near) {
    static const char *const kinds[] = { "no such column: ", "no such table: " };
    static const char *names[NAMES_MAX];

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strncmp(says, kinds[i], strlen(kinds[i])) == 0) {
            const char *word = says + strlen(kinds[i]), *dot = strrchr(word, '.');

            word = dot ? dot + 1 : word;
            *ret_near = mx_text_nearest(word, names, schema_names(s, i == 0, names, arena));
            return word;
        }
    }
    return NULL;
}

static mx_code wrong_sql(mx_store *s, const mx_query *q, const char *denied, mx_arena *arena, mx_status *st) {
    sqlite3 *db = mx_store_handle(s);
    int offset = sqlite3_error_offset(db), rc = sqlite3_errcode(db);
    const char *says = mx_arena_copy(arena, sqlite3_errmsg(db), strlen(sqlite3_errmsg(db))), *near = NULL, *word;
    const char *at = offset >= 0 ? q->sql + offset : NULL;

    if (denied) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "a query only reads: it may not %s", denied);
        return MX_E_USAGE;
    }
    if (rc != SQLITE_ERROR) { /* not a mistake in the text: locked, corrupt, ... */
        return mx_sql_fail(s, st, "reading");
    }
    word = unknown_name(s, says, arena, &near);
    if (word && (!at || strncmp(at, word, strlen(word)) != 0)) {
        at = word_in(at ? at : q->sql, word);
    }
    mx_fail(st, MX_E_USAGE, at ? place(q, at, word_length(at)) : MX_NOWHERE, "%s", says);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    } else if (word) {
        mx_hint(st, "tables and columns: mixrun query \"SELECT sql FROM sqlite_schema\"");
    }
    return MX_E_USAGE;
}

/* ------------------------------------------------------------------------ compiling */

/* The statement, with nothing but comments after it. */
static mx_code compile(mx_store *s, const mx_query *q, sqlite3_stmt **ret, mx_arena *arena, mx_status *st) {
    const char *rest, *denied = NULL, *after;
    sqlite3_stmt *more = NULL;
    int rc;

    *ret = NULL;
    sqlite3_limit(mx_store_handle(s), SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_set_authorizer(mx_store_handle(s), only_reading, &denied);
    rc = sqlite3_prepare_v2(mx_store_handle(s), q->sql, -1, ret, &rest);
    sqlite3_set_authorizer(mx_store_handle(s), NULL, NULL);
    if (rc != SQLITE_OK) {
        return wrong_sql(s, q, denied, arena, st);
    }
    if (!*ret) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%s holds no statement", q->name);
    }
    if (!sqlite3_stmt_readonly(*ret) || sqlite3_column_count(*ret) == 0) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "a query only reads, and this is not a SELECT");
    }
    after = rest + strspn(rest, " \t\r\n;");
    rc = sqlite3_prepare_v2(mx_store_handle(s), after, -1, &more, NULL);
    sqlite3_finalize(more);
    if (rc != SQLITE_OK || more) {
        return mx_fail(st, MX_E_USAGE, place(q, after, word_length(after)), "a second statement: a query is one SELECT");
    }
    return MX_OK;
}

/* ------------------------------------------------------------------------ parameters */

static const mx_parameter *described(const mx_query *q, const char *name) {
    for (int i = 0; i < q->parameters; i++) {
        if (strcmp(q->parameter[i].name, name) == 0) {
            return &q->parameter[i];
        }
    }
    return NULL;
}

static mx_code check_given(const mx_query *q, sqlite3_stmt *statement, const mx_query_wish *wish, mx_arena *arena, mx_status *st) {
    int count = sqlite3_bind_parameter_count(statement);
    const char **names = MX_TAKE(arena, const char *, count + 1), *near;
    mx_text list;

    for (int i = 0; i < count; i++) {
        names[i] = sqlite3_bind_parameter_name(statement, i + 1);
        if (!names[i] || *names[i] == '?') {
            return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%s has a parameter without a name: write :name", q->name);
        }
        names[i]++;
    }
    for (int g = 0; g < wish->givens; g++) {
        bool known = false;

        for (int i = 0; i < count; i++) {
            known |= strcmp(names[i], wish->given[g].name) == 0;
        }
        if (known) {
            continue;
        }
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%s has no parameter '%s'", q->name, wish->given[g].name);
        near = mx_text_nearest(wish->given[g].name, names, (size_t)count);
        if (near) {
            mx_hint(st, "did you mean '%s'?", near);
            return MX_E_USAGE;
        }
        mx_text_init(&list, 4096);
        for (int i = 0; i < count && list.length < 200; i++) {
            mx_text_print(&list, "%s%.100s", i ? ", " : "it has: ", names[i]);
        }
        mx_hint(st, "%s", count ? list.data : "it has none");
        mx_text_finish(&list);
        return MX_E_USAGE;
    }
    return MX_OK;
}

static const char *value_of(const mx_query *q, const char *name, const mx_query_wish *wish) {
    const mx_parameter *p = described(q, name);

    for (int g = wish->givens - 1; g >= 0; g--) { /* the last word wins, as everywhere on the command line */
        if (strcmp(wish->given[g].name, name) == 0) {
            return wish->given[g].value;
        }
    }
    return p ? p->preset : NULL;
}

static mx_code bind_one(mx_store *s, sqlite3_stmt *statement, int at, const char *name, const char *value, mx_arena *arena, mx_status *st) {
    int64_t whole, members;
    double real;
    mx_run_row run;
    mx_member_row *member;

    if (strcmp(name, "run") == 0 || strcmp(name, "a") == 0 || strcmp(name, "b") == 0) {
        MX_TRY(mx_store_run_find(s, value, arena, &run, st));
        sqlite3_bind_int64(statement, at, run.run_id);
    } else if (strcmp(name, "sweep") == 0) {
        MX_TRY(mx_store_sweep_find(s, value, arena, NULL, &member, &members, st));
        sqlite3_bind_text(statement, at, value, -1, SQLITE_TRANSIENT);
    } else if (mx_text_to_int64(value, &whole)) {
        sqlite3_bind_int64(statement, at, whole);
    } else if (mx_text_to_double(value, &real)) {
        sqlite3_bind_double(statement, at, real);
    } else {
        sqlite3_bind_text(statement, at, value, -1, SQLITE_TRANSIENT);
    }
    return MX_OK;
}

static mx_code bind_all(mx_store *s, const mx_query *q, sqlite3_stmt *statement, const mx_query_wish *wish, mx_arena *arena, mx_status *st) {
    MX_TRY(check_given(q, statement, wish, arena, st));
    for (int i = 1; i <= sqlite3_bind_parameter_count(statement); i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i) + 1, *value = value_of(q, name, wish);
        const mx_parameter *p = described(q, name);

        if (value) {
            MX_TRY(bind_one(s, statement, i, name, value, arena, st));
        } else if (!p || p->needed) {
            mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%s needs '%s'%s%s", q->name, name, p && p->help[0] ? ": " : "", p ? p->help : "");
            mx_hint(st, "give it as --%s VALUE", name);
            return MX_E_USAGE;
        } /* else NULL: not asked */
    }
    return MX_OK;
}

/* ------------------------------------------------------------------------ running */

static int asked_to_stop(void *stop) {
    return *(const volatile int *)stop != 0;
}

mx_code mx_query_run(mx_store *s, const mx_query *q, const mx_query_wish *wish, mx_arena *arena, mx_status *st) {
    enum { INSTRUCTIONS = 10000 }; /* of SQLite's machine between two looks at `stop`: well under a millisecond */
    sqlite3 *db = mx_store_handle(s);
    sqlite3_stmt *statement = NULL;
    mx_code code;

    assert(sqlite3_db_readonly(db, "main") == 1);
    code = compile(s, q, &statement, arena, st);
    if (code == MX_OK) {
        code = bind_all(s, q, statement, wish, arena, st);
    }
    if (code == MX_OK) {
        if (wish->stop) {
            sqlite3_progress_handler(db, INSTRUCTIONS, asked_to_stop, (void *)(uintptr_t)wish->stop);
        }
        code = mx_query_rows(s, statement, wish, st);
        sqlite3_progress_handler(db, 0, NULL, NULL);
    }
    sqlite3_finalize(statement);
    return code;
}
