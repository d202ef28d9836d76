/* summary.h - what the terminal is told about runs: the table at the end of a run, `show`, `ls`.
 *
 * Everything is read from the store, so what is printed is what was stored. Text goes into `out`. */
#ifndef REPORTS_SUMMARY_H
#define REPORTS_SUMMARY_H

#include "base/text.h"
#include "reports/store.h"
#include "reports/table.h"

/* Accuracy before and after by task (one block per protocol, metric and split), then the router's load in training. */
MX_MUST_CHECK mx_code mx_summary_scores(mx_store *s, int64_t run_id, mx_text *out, mx_status *st);
MX_MUST_CHECK mx_code mx_summary_router(mx_store *s, int64_t run_id, mx_text *out, mx_status *st);

/* running | finished | failed | stopped, or dead: 'running', but its process is gone. */
const char *mx_summary_state(const mx_run_row *run);

/* One run: what it was, its budget, scores, losses, router, recipe, files. `json`: the same as one JSON object. */
MX_MUST_CHECK mx_code mx_summary_show(mx_store *s, const mx_run_row *run, bool json, mx_arena *arena, mx_text *out,
                                       mx_status *st);

typedef enum mx_limited { MX_LIMITED_ANY, MX_LIMITED_NO, MX_LIMITED_ONLY } mx_limited;

typedef struct mx_list_filter {
    const char *method, *state, *task, *sweep; /* NULL: any */
    const char *name;                          /* * and ? stand for any letters; NULL: any */
    mx_limited limited;                        /* runs that max_steps or a limit cut short */
    const char *sort;                          /* a key of mx_list_keys, "-" before it for descending; NULL: -run */
    int64_t limit;                             /* the first so many; 0: all */
    bool lines;                                /* a JSON object a line, instead of `format` */
    mx_format format;
} mx_list_filter;
extern const char *const mx_list_keys[]; /* NULL-terminated */
/* Runs, one a line. MX_E_USAGE for a state, sweep or key that there is not. */
MX_MUST_CHECK mx_code mx_summary_list(mx_store *s, const mx_list_filter *filter, mx_arena *arena, mx_text *out, mx_status *st);

#endif
