/* compare.h - sides (a variant's runs, one a seed), their accuracies and budgets, and their differences against a baseline.
 *
 * A side is a variant of a sweep, or runs named by hand ("3,4,5"). Scores are those of each finished run's last evaluation
 * under one protocol, metric and split. Items are paired by identity: the same task definition (task_hash), data file
 * (data_hash) and row in it; seeds by their number. What is not the same is refused with MX_E_DATA and the difference named;
 * runs that are not finished and seeds without a partner are left out and told in `note`.
 * All fractions are 0 to 1 (0.021 is 2.1 points). Everything lives in the caller's arena. */
#ifndef REPORTS_COMPARE_H
#define REPORTS_COMPARE_H

#include "reports/paired.h"
#include "reports/store.h"
#include "reports/table.h"

typedef struct mx_compare_wish {
    /* Either a sweep ... */
    const char *sweep;             /* its name; NULL: none */
    const char *baseline;          /* a variant; NULL: the sweep's own */
    const char *const *variant;    /* only these (and the baseline), each a name or names parted by commas; all when variants is 0 */
    int32_t variants;
    /* ... or sides: runs parted by commas, each a number, a name or a uuid's beginning. */
    const char *const *side;
    int32_t sides;
    int32_t against;               /* the side that is the baseline; -1: none */
    bool apart;                    /* no baseline, even if the sweep names one; goes with `alone` */
    bool alone;                    /* a sweep without a baseline, or none finished of it, is no error: accuracies only; a side that kept no
                                    * answers to single questions is left out of the differences, and told */

    const char *task;              /* only this one; NULL: all that both sides scored */
    const char *protocol, *metric; /* NULL: the sweep's; else loglikelihood acc_norm where it is there, else label_logits acc */
    const char *split;             /* NULL: the one that was scored; held_out only where there is no other */
    bool best_epoch;               /* of each run the step with the highest mean over its tasks, not the last: optimistic */
} mx_compare_wish;

typedef struct mx_compare_run {
    int64_t run_id, seed, step;    /* `step`: of the evaluation used */
    const char *name, *uuid, *method;
    bool limited;                  /* training was cut short: not a result */
    double tokens_per_second;      /* of training, all steps together; 0: not told */
    double memory_bytes;           /* the most that was measured; 0: not told */
} mx_compare_run;

typedef struct mx_compare_side {
    const char *name;              /* the variant's; of runs by hand "mixlora (run 7)", "mixlora (runs 7, 8)" */
    const char *method;
    const char *matched;           /* of a sweep's variant: "params: mixlora, -0.2 %"; "": none */
    mx_compare_run *run;           /* finished ones, by seed */
    int32_t runs;                  /* 0: none finished */
    int64_t trained, trained_router; /* values; router's included in the first */
    int64_t flops;                 /* of the adapter per token, forward and backward, active experts only; 0: not told */
    double tokens_per_second;      /* mean over the runs that tell; 0: none does */
    double memory_bytes;           /* most of any run; 0: not told */
    bool by_flops;                 /* it and the baseline are matched in FLOPs per token: these are held together, not trained values */
    bool unequal;                  /* budgets differ from the baseline's by more than 2 %; false without a baseline */
    double times;                  /* the budget over the baseline's; INFINITY when that is none; 0 without a baseline */
    const char *sql;               /* the budgets: run_id, seed, trained, trained_router, flops, tokens_per_second, memory_bytes */
} mx_compare_side;

/* Accuracy of a side on a task, or over all tasks. */
typedef struct mx_compare_score {
    bool there;                    /* false: the side has no finished run, or lacks this task (over tasks: any of them) */
    mx_estimate accuracy;          /* Wilson's for one run of one task, else the one-sample form; p, mid_p NAN */
    const double *seed_value;      /* [side->runs]: accuracy by run, in the order of side->run */
    int64_t n;                     /* questions; over tasks their sum */
    double majority;               /* always answering the commonest key; over tasks the mean */
    bool limited;                  /* eval.limit or max_steps cut something: not a result */
    const char *sql;               /* one row a question and seed: task, seed, number, correct */
    const char *sql_scores;        /* one row a task and seed: task, seed, run_id, step, n, value, majority, limited */
} mx_compare_score;

typedef enum mx_word { MX_WORD_NOT_RESOLVED, MX_WORD_BETTER, MX_WORD_WORSE } mx_word;

/* A variant against the baseline, on a task or over the tasks both scored. */
typedef struct mx_compare_row {
    int32_t side;                  /* into mx_compare.side */
    int32_t task;                  /* into mx_compare.task; mx_compare.tasks: over tasks */
    int32_t over;                  /* how many tasks went in: 1, or those both sides scored */
    mx_estimate difference;        /* side minus baseline */
    double p_holm;                 /* over all rows of this comparison */
    mx_word word;                  /* follows p_holm at 0.05 */
    int64_t n;                     /* questions; over tasks their sum */
    int32_t seeds;                 /* pairs */
    const int64_t *seed, *run_id, *baseline_run_id; /* [seeds]; run ids of both sides */
    const double *seed_difference; /* [seeds] */
    double majority;
    bool limited;
    bool few_seeds;                /* fewer than five: say it (mx_compare_few_seeds) */
    bool two_seeds;                /* exactly two: say mx_compare_two_seeds beside the interval */
    const char *sql;               /* one row a question and seed: task, seed, number, variant, baseline (0 or 1) */
} mx_compare_row;

typedef struct mx_compare {
    const char *sweep;             /* "": runs by hand */
    const char *protocol, *metric, *split;
    bool best_epoch;               /* mark it wherever a number stands */
    int32_t baseline;              /* into side; -1: none, and then there are no rows */
    mx_compare_side *side;         /* in the sweep's order, or as named */
    int32_t sides;
    const char *const *task;
    int32_t tasks;
    mx_compare_score *score;       /* [sides][tasks + 1]; the last is over tasks (the task itself when there is one) */
    mx_compare_row *row;           /* by task, then side; over tasks last, when a side and the baseline share more than one */
    int32_t rows;
    const char *const *note;       /* sentences a reader must see, in order: marks, budgets, seeds, that intervals are unadjusted,
                                    * the smallest detectable difference; then what was left out and why; no line ends */
    int32_t notes;
    const char *sql_runs;          /* which runs: sweep_runs of the sweep, or runs by number */
} mx_compare;

MX_MUST_CHECK mx_code mx_compare_read(mx_store *s, const mx_compare_wish *wish, mx_arena *arena, mx_compare **ret, mx_status *st);
static inline const mx_compare_score *mx_compare_score_of(const mx_compare *c, int32_t side, int32_t task) {
    return &c->score[side * (c->tasks + 1) + task];
}
const char *mx_word_text(mx_word w); /* "better", "worse", "not resolved" */
/* "arc_easy", or for the last of several "mean of 3 tasks". */
const char *mx_compare_task_name(const mx_compare *c, int32_t task, mx_arena *arena);

/* "arc_easy", "mean of 3 tasks"; where only some were shared "mean of 2 of 3 tasks". */
const char *mx_compare_row_name(const mx_compare *c, const mx_compare_row *row, mx_arena *arena);
/* Points of a fraction, for %+.1f: what rounds to zero is zero, without a minus sign. */
static inline double mx_compare_points(double fraction) {
    double points = 100 * fraction;

    return points > -0.05 && points < 0.05 ? 0 : points;
}

/* What must be said beside intervals; measured by the benchmark tests/perf/coverage.c. */
extern const char mx_compare_few_seeds[], mx_compare_two_seeds[];
/* Those of them, and that of a single seed, that hold of some row; how many. */
enum { MX_COMPARE_SEED_WORDS = 3 };
int mx_compare_seed_words(const mx_compare *c, const char *ret[MX_COMPARE_SEED_WORDS]);

/* The tables, in percent, for people (mx_table_write them in any format). `task` -1: all, with a column for it. */
void mx_compare_accuracy_table(const mx_compare *c, int32_t task, mx_table *ret);
void mx_compare_difference_table(const mx_compare *c, int32_t task, mx_table *ret);
/* All of a comparison: table and markdown and latex are both tables and the notes, csv one line a row with both sides'
 * numbers (fractions, full precision), json everything, the SELECTs too. */
void mx_compare_write(const mx_compare *c, mx_format format, mx_text *out);

#endif
