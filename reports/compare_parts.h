/* compare_parts.h - what the files of compare.h share while a comparison is put together. */
#ifndef REPORTS_COMPARE_PARTS_H
#define REPORTS_COMPARE_PARTS_H

#include "reports/ask.h"
#include "reports/compare.h"

enum { MX_COMPARE_NOTES_MAX = 1000 };

/* One evaluation of a run under one metric, as stored; its answers are read when they are needed. */
typedef struct mx_compare_exam {
    int64_t evaluation_id, step, n;
    const char *task, *split, *protocol, *metric, *task_hash, *data_hash;
    double value, majority;
    bool limited;
    const int64_t *number;  /* [n] rows in the file, ascending; NULL: not read, or no answers were kept */
    const int8_t *correct;  /* [n] */
} mx_compare_exam;

/* A run's part that its reader need not see. Parallel to mx_compare_side.run. */
typedef struct mx_compare_work {
    const char *base_hash, *base_name, *recipe_hash;
    int64_t trained, trained_steps;
    mx_compare_exam *exam; /* every one of it */
    int32_t exams;
    mx_compare_exam **of_task; /* [tasks]: the one compared; NULL: this run lacks the task */
} mx_compare_work;

typedef struct mx_comparing {
    mx_store *store;
    const mx_compare_wish *wish;
    mx_arena *arena;
    mx_compare *c;
    mx_compare_work **work; /* [side][run] */
    const char *note[MX_COMPARE_NOTES_MAX];
} mx_comparing;

void mx_comparing_note(mx_comparing *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* compare_sides.c: who is compared: fills sweep, side, sides, baseline, sql_runs, and the protocol and metric a sweep names. */
MX_MUST_CHECK mx_code mx_compare_sides(mx_comparing *k, mx_status *st);
/* compare_exams.c: which evaluations: fills work, protocol, metric, split, task, tasks and every run's step, and reads the answers;
 * refuses what cannot be compared. */
MX_MUST_CHECK mx_code mx_compare_exams(mx_comparing *k, mx_status *st);
/* True when all runs of the side were scored on it. */
bool mx_compare_has(const mx_comparing *k, int32_t side, int32_t task);
/* The word without the blanks around it, cut in place. */
char *mx_compare_trim(char *word);
/* "run 3", "runs 3, 4 and 5". */
const char *mx_compare_run_list(mx_arena *arena, const mx_compare_run *run, int32_t n);
/* compare_sql.c: the SELECTs a reader can execute. */
const char *mx_compare_sql_budgets(mx_arena *arena, const mx_compare_run *run, int32_t runs);
const char *mx_compare_sql_answers(mx_comparing *k, int32_t side, int32_t task);
const char *mx_compare_sql_scores(mx_comparing *k, int32_t side, int32_t task);
const char *mx_compare_sql_pairs(mx_comparing *k, const mx_compare_row *row, const int32_t *variant_run, const int32_t *baseline_run);

#endif
