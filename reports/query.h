/* query.h - questions to the database: named ones kept in reports/queries, a user's file, or a line of SQL.
 *
 * A query is a SELECT that begins with comments for people and for the program:
 *
 *   -- router-load: how much of each layer's work every expert did       its name and what it tells
 *   -- :run (any) a run                                                  a parameter: (any) not asked when not given,
 *   -- :split (train) train: the whole training; ...                     (VALUE) its default, (needed) must be given
 *
 * The parameters run, a and b name runs (a number, a name, a uuid's first digits), sweep a sweep; others are values. Nothing can be
 * written: the database is open to read only, and whatever is not reading is refused before it is compiled. */
#ifndef REPORTS_QUERY_H
#define REPORTS_QUERY_H

#include "base/arena.h"
#include "reports/store.h"
#include "reports/table.h"

enum { MX_PARAMETERS_MAX = 16 };

typedef struct mx_parameter {
    const char *name, *help;
    const char *preset; /* NULL: none */
    bool needed;
} mx_parameter;

typedef struct mx_query {
    const char *name;    /* of a named query or a file; "the query" for a line of SQL */
    const char *summary; /* what it tells; "" when it does not say */
    const char *sql;
    mx_parameter parameter[MX_PARAMETERS_MAX];
    int parameters;
} mx_query;

/* The named queries, alphabetical. */
int mx_queries(mx_arena *arena, const mx_query **ret);
/* By name; MX_E_USAGE with the near name when there is none. */
MX_MUST_CHECK mx_code mx_query_find(const char *name, mx_arena *arena, mx_query *ret, mx_status *st);
/* A text of SQL; its header is read, `name` is what errors call it. */
void mx_query_of(const char *name, const char *sql, mx_arena *arena, mx_query *ret);

typedef struct mx_given {
    const char *name, *value;
} mx_given;

typedef struct mx_query_wish {
    const mx_given *given; /* parameters' values */
    int givens;
    mx_format format;
    const volatile int *stop; /* becomes nonzero: the query is broken off with MX_E_STOPPED; NULL: never */
    mx_code (*put)(void *to, const char *bytes, size_t length, mx_status *st); /* where the text goes, piece by piece */
    void *to;
} mx_query_wish;

/* Runs it. Mistakes in the SQL are MX_E_USAGE with the place in its text; nothing was put then. CSV and JSON go out row by row;
 * other formats need all rows first, and refuse more than fits a page of memory. `s` must have been opened to read. */
MX_MUST_CHECK mx_code mx_query_run(mx_store *s, const mx_query *q, const mx_query_wish *wish, mx_arena *arena, mx_status *st);

#endif
