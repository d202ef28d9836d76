/* session.h - everything a plan needs opened, in order; closed in reverse.
 *
 *   store > run row and folder > model (weights) > trainee
 *
 * A session writes to the store and to its folder, and tells the terminal on stderr. */
#ifndef RUNNER_SESSION_H
#define RUNNER_SESSION_H

#include "model/checkpoint.h"
#include "reports/store.h"
#include "runner/plan.h"
#include "runner/progress.h"

typedef struct mx_session {
    const mx_plan *plan;
    mx_arena *arena; /* run's */
    mx_arena step;   /* rewound after every step and batch */
    mx_store *store;
    mx_run_row row;
    char uuid[MX_UUID_TEXT];
    const char *folder, *adapter_folder, *checkpoint_path;
    const char *db_flag; /* " --db FILE" for commands in hints, "" for the default database */
    mx_model *model;
    mx_trainee *trainee;
    mx_progress progress;
    const volatile int *stop; /* set by a signal */

    int64_t first_step;       /* where training begins: 0, or a checkpoint's step */
    int64_t window_first;     /* first step (from 1) of the open router window */
    mx_router_load window;    /* what it has so far */
    bool resumed;
    double rate;              /* tokens per second, lately */
    double alive;             /* mx_seconds() when the store was last told that this run is alive */
} mx_session;

typedef struct mx_session_wish {
    const char *kind;         /* "train", "eval" */
    const mx_run_row *resume; /* go on with this run; NULL: a new one */
    const char *adapter;      /* eval: a folder to load; NULL: the method's starting values */
    bool once;                /* refuse to begin or go on while another run of this identity is alive, or when one is finished */
    bool again;               /* with once: finished ones do not count */
    bool quiet;
    const volatile int *stop;
} mx_session_wish;

/* May a stored run go on? MX_E_USAGE when it is finished, or when its process is alive. */
MX_MUST_CHECK mx_code mx_session_may_resume(const mx_run_row *row, mx_status *st);

/* The run is 'running' afterwards. On failure it is recorded with its reason, when it got that far. */
MX_MUST_CHECK mx_code mx_session_open(const mx_plan *plan, const mx_session_wish *wish, mx_arena *arena, mx_session **ret,
                                      mx_status *st);
/* To be called often: once a minute it tells the store that this run is alive, so that other machines do not take it for dead
 * during a long evaluation. Silent: a store that fails is told of when results are stored. No transaction may be open. */
void mx_session_alive(mx_session *s);
/* Closes; `outcome` MX_OK marks the run finished and removes its checkpoint, MX_E_STOPPED stopped, anything else failed with
 * st's text. NULL is fine. */
void mx_session_close(mx_session *s, mx_code outcome, const mx_status *st);

#endif
