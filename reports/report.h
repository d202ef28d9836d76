/* report.h - the report of a sweep or of runs: everything a reader needs to believe or doubt it, in one file.
 *
 * The answer first; then accuracy, differences, curves, what the router did, what it cost, recipes, machines, and how all of it
 * was computed. Statistics are compare's. The same database gives the same bytes: no clock, no paths of this machine. */
#ifndef REPORTS_REPORT_H
#define REPORTS_REPORT_H

#include "base/text.h"
#include "reports/store.h"
#include "reports/table.h"

typedef struct mx_report_wish {
    const char *sweep;         /* its name; NULL: sides */
    const char *baseline;      /* a variant of the sweep, or one of the sides as written; NULL: the sweep's, the last of several sides */
    const char *const *side;   /* runs parted by commas: numbers, names, uuids */
    int32_t sides;
    const char *title;         /* NULL: made from the sweep's or the run's name */
    mx_format format;          /* HTML, MARKDOWN, CSV, LATEX */
    const char *table;         /* only this table; NULL: all */
    int64_t date_s;            /* the report's date, seconds since 1970; -1: when the newest of its runs ended */
    const char *command;       /* the command line that makes it again, for "how to reproduce" */
} mx_report_wish;

MX_MUST_CHECK mx_code mx_report_write(mx_store *s, const mx_report_wish *wish, mx_arena *arena, mx_text *out, mx_status *st);

#endif
