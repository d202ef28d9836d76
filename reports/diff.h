/* diff.h - what differs in meaning between two runs. */
#ifndef REPORTS_DIFF_H
#define REPORTS_DIFF_H

#include "reports/store.h"
#include "reports/table.h"

/* Fills `ret` (mx_table_init is done here, mx_table_finish is the caller's) with one row for each thing that may change results
 * and is not the same: kind, seed, base, words of the resolved recipes (so that a default stands against a said value), task
 * definitions, data, environment. Names, folders, dates and how often something is logged are no difference. Only a head: there
 * is none.
 * `bears` tells whether a word of today's recipes may change results; words that either run kept as such count in any case. */
MX_MUST_CHECK mx_code mx_diff_runs(mx_store *s, const mx_run_row *a, const mx_run_row *b, bool (*bears)(const char *word),
                                   mx_arena *arena, mx_table *ret, mx_status *st);

#endif
