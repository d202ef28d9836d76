/* report_draft.h - a report while it is written: for report.c and the files of its sections. */
#ifndef REPORTS_REPORT_DRAFT_H
#define REPORTS_REPORT_DRAFT_H

#include "reports/compare.h"
#include "reports/page.h"
#include "reports/report.h"

/* A variant with the runs that are shown of it: its finished ones, by seed; where there is none, what there is. */
typedef struct mx_draft_variant {
    const char *name;
    const int64_t *run_id, *seed;
    int runs;
} mx_draft_variant;

typedef struct mx_draft {
    mx_store *store;
    mx_arena *arena;
    mx_page *page;
    const mx_report_wish *wish;
    mx_draft_variant *variant; /* in the sweep's order, or as named; the index is the drawing style */
    int variants;
    const char *all;           /* "1, 2, 3": every run shown */
    const char *runs;          /* "lora r16: runs 1, 8 (seeds 1, 2); ..." */
    mx_asked which;            /* which runs: members, or runs by number */
    const mx_compare *compare; /* NULL: no finished run has a score, or `refused` */
    const char *refused;       /* why nothing is compared with the baseline; NULL: nothing hinders it */
} mx_draft;

/* The sections, each in its place. */
MX_MUST_CHECK mx_code mx_draft_answer(mx_draft *d, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_scores(mx_draft *d, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_curves(mx_draft *d, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_router(mx_draft *d, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_budgets(mx_draft *d, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_recipes(mx_draft *d, mx_status *st);
MX_MUST_CHECK mx_code mx_draft_machines(mx_draft *d, mx_status *st);
void mx_draft_methods(mx_draft *d);

/* "1, 2, 3" */
const char *mx_draft_numbers(mx_arena *arena, const int64_t *number, int count);
/* Which variant a run is shown for, -1: none; its place among the variant's runs in *ret_run (may be NULL). */
int mx_draft_variant_of(const mx_draft *d, int64_t run_id, int *ret_run);
/* The variant of that name, or -1. */
int mx_draft_variant_named(const mx_draft *d, const char *name);
/* A drawing with its caption and sources, and the drawing's text given back. */
void mx_draft_drawing(mx_draft *d, const char *id, const char *caption, mx_text *svg, const char *runs, const char *computed,
                      const mx_asked *const *asked, int count);

#endif
