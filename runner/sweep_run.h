/* sweep_run.h - what the store lacks of a sweep is run, each member in a process of its own.
 *
 * A child that fails, is killed or runs out of memory takes nothing with it: its run says why, the others go on. Children save
 * and stop when the parent dies. Two sweeps on one store share the work: a member that is running elsewhere is left alone. */
#ifndef RUNNER_SWEEP_RUN_H
#define RUNNER_SWEEP_RUN_H

#include "runner/sweep.h"

typedef struct mx_sweep_wish {
    const mx_sweep *sweep;
    const char *db;
    const char *const *word; /* the command line's file and arguments: children read them again */
    int words;
    int64_t jobs;            /* at once */
    int64_t threads;         /* of a run whose recipe leaves it open (threads: 0); 0: its share of the processors */
    int64_t memory_limit;    /* bytes for all of them together, of the memory they compute in; 0: what is free */
    bool rerun, quiet;
} mx_sweep_wish;

/* Runs to the end. MX_E_PARTIAL when a run failed or is still running elsewhere, MX_E_STOPPED when it was asked to stop. */
MX_MUST_CHECK mx_code mx_sweep_run(const mx_sweep_wish *wish, mx_arena *arena, mx_status *st);
/* Runs the member `which`, "4" or "4:1a2b3c4d" (mx_member_digits), in this process: anew, or on from where it stopped. */
MX_MUST_CHECK mx_code mx_sweep_run_member(const mx_sweep_wish *wish, const char *which, mx_arena *arena, mx_status *st);

/* The sweep's record in the store becomes this; when it asked for other runs before, stderr says so (unless quiet). */
MX_MUST_CHECK mx_code mx_sweep_put(const mx_sweep *w, mx_store *store, bool quiet, mx_arena *arena, mx_status *st);

/* How the store answers a member. */
typedef enum mx_member_state {
    MX_MEMBER_NONE,      /* no run, or none that could go on */
    MX_MEMBER_RESUMABLE, /* stopped, dead or failed: its run goes on from its checkpoint */
    MX_MEMBER_ALIVE,     /* some process is at it */
    MX_MEMBER_FINISHED,
} mx_member_state;
/* *ret_run is filled unless MX_MEMBER_NONE. */
MX_MUST_CHECK mx_code mx_member_look(mx_store *s, const mx_sweep *w, const mx_sweep_member *m, mx_arena *arena,
                                     mx_member_state *ret, mx_run_row *ret_run, mx_status *st);

enum { MX_MEMBER_DIGITS = 9 };
/* Eight digits of the member's whole identity: recipe, seed, base, tasks, data. */
void mx_member_digits(const mx_sweep *w, const mx_sweep_member *m, char ret[MX_MEMBER_DIGITS]);
/* "lora r80 seed 2". */
const char *mx_member_title(const mx_sweep *w, const mx_sweep_member *m, mx_arena *arena);

#endif
