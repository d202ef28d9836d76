/* summary.h - what the terminal is told about runs: the table at the end of a run, `show`, `ls`.
 *
 * Everything is read from the store, so what is printed is what was stored. Text goes into `out`. */
#ifndef REPORTS_SUMMARY_H
#define REPORTS_SUMMARY_H

#include "base/text.h"
#include "reports/store.h"

/* Accuracy before and after by task (one block per protocol, metric and split), then the router's load in training. */
MX_MUST_CHECK mx_code mx_summary_scores(mx_store *s, int64_t run_id, mx_text *out, mx_status *st);
MX_MUST_CHECK mx_code mx_summary_router(mx_store *s, int64_t run_id, mx_text *out, mx_status *st);

/* One run: what it was, its scores, losses, router, files. `json`: the same as one JSON object. */
MX_MUST_CHECK mx_code mx_summary_show(mx_store *s, const mx_run_row *run, bool json, mx_text *out, mx_status *st);

typedef struct mx_list_filter {
    const char *method, *state, *task; /* NULL: any */
    int64_t limit;                     /* newest first; 0: all */
} mx_list_filter;
/* Runs, one a line. */
MX_MUST_CHECK mx_code mx_summary_list(mx_store *s, const mx_list_filter *filter, bool json, mx_text *out, mx_status *st);

#endif
