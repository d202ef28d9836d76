/* query_rows.h - for query.c: the rows of a statement in the wanted format. */
#ifndef REPORTS_QUERY_ROWS_H
#define REPORTS_QUERY_ROWS_H

#include "reports/query.h"

struct sqlite3_stmt;

/* Steps to the end and puts everything; MX_E_STOPPED when it was broken off. */
MX_MUST_CHECK mx_code mx_query_rows(mx_store *s, struct sqlite3_stmt *q, const mx_query_wish *wish, mx_status *st);

#endif
