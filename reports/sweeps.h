/* sweeps.h - what a sweep asks for, and the runs that answer it.
 *
 * A sweep is known by its name. Its members are identities (recipe, seed, base, tasks, data), not runs: whichever run has a
 * member's identity answers it, whoever started it (view sweep_runs). */
#ifndef REPORTS_SWEEPS_H
#define REPORTS_SWEEPS_H

#include "reports/store.h"

typedef struct mx_sweep_row {
    const char *name, *path, *text, *arguments;
    const char *baseline;          /* a variant; "": none */
    const char *protocol, *metric; /* of the primary comparison */
} mx_sweep_row;

typedef struct mx_member_row {
    int64_t position; /* from 1 */
    const char *variant;
    int64_t seed;
    const char *recipe_hash, *base_hash, *tasks_hash, *data_hash, *method;
    int64_t trained, trained_router, flops;
    const char *matched; /* "params: mixlora, -0.2 %"; "": none */
    int64_t run_id;      /* read: the run that answers it, 0: none yet */
    const char *state, *reason; /* read: of that run; "" without one */
} mx_member_row;

/* Puts the sweep and its members in place of what it asked for before, in one transaction of its own. */
MX_MUST_CHECK mx_code mx_store_sweep(mx_store *s, const mx_sweep_row *sweep, const mx_member_row *member, int64_t members,
                                     mx_status *st);
/* By name; MX_E_USAGE with the near names when there is none. Everything lives in `arena`; `ret_sweep` may be NULL. */
MX_MUST_CHECK mx_code mx_store_sweep_find(mx_store *s, const char *name, mx_arena *arena, mx_sweep_row *ret_sweep,
                                          mx_member_row **ret_member, int64_t *ret_members, mx_status *st);

#endif
