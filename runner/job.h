/* job.h - one run from a recipe to the printed table: what run, resume and eval share. */
#ifndef RUNNER_JOB_H
#define RUNNER_JOB_H

#include "runner/command.h"
#include "runner/recipe.h"
#include "reports/store.h"

typedef struct mx_job_wish {
    const char *kind;         /* "train" or "eval" */
    const char *adapter;      /* eval: its folder; NULL: the untrained model */
    const mx_run_row *resume; /* NULL: a new run */
    bool once, again;         /* as mx_session_wish */
    int64_t memory_limit;     /* bytes; 0: what is available */
    bool quiet;
} mx_job_wish;

/* Prints the head to stderr and the result to stdout. */
MX_MUST_CHECK mx_code mx_job_run(const mx_recipe *recipe, const mx_job_wish *wish, mx_arena *arena, mx_status *st);

#endif
