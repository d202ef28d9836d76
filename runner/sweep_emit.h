/* sweep_emit.h - what a sweep lacks as text for other machines' queues, on stdout. */
#ifndef RUNNER_SWEEP_EMIT_H
#define RUNNER_SWEEP_EMIT_H

#include "base/text.h"
#include "runner/sweep_run.h"

typedef enum mx_emit { MX_EMIT_SLURM, MX_EMIT_COMMANDS } mx_emit;

/* A job-array script, or a command line for each remaining run. wish->jobs 0: as many at once as the queue likes. `own_db`: every
 * run writes a database of its own, for mixrun import. The sweep is put into the store; nothing is started. */
MX_MUST_CHECK mx_code mx_sweep_emit(const mx_sweep_wish *wish, mx_emit form, bool own_db, mx_arena *arena, mx_text *out,
                                    mx_status *st);
/* A word as a shell takes it: as it is, or in quotes. */
const char *mx_shell_word(const char *word, mx_arena *arena);

#endif
