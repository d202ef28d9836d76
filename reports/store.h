/* store.h - rows in: the result database's one writer.
 *
 * One SQLite file (WAL, STRICT tables, foreign keys, user_version). Short transactions: what is written between
 * begin and commit is there whole or not at all, whenever the process dies. A database made by an older mixrun is
 * migrated forward when it is opened for writing, a newer one is refused, and one that is not ours is left untouched.
 * Everything fails with MX_E_STORE in words that name the file. Texts are borrowed for the call. */
#ifndef REPORTS_STORE_H
#define REPORTS_STORE_H

#include "base/arena.h"
#include "base/status.h"

typedef struct mx_store mx_store;

enum { MX_UUID_TEXT = 33 }; /* 32 hex digits and the closing 0 */

typedef struct mx_run_row {
    int64_t run_id;
    const char *uuid, *name, *kind, *method, *state, *reason;
    const char *recipe_hash, *recipe;
    int64_t seed;
    const char *base_hash, *base_name, *base_description;
    int64_t base_weights;
    const char *tasks_hash, *data_hash;
    const char *environment; /* JSON */
    int64_t trained, trained_router, steps, step;
    int64_t flops; /* of the adapter per token: forward and backward, active experts only; 0: not told */
    bool limited;
    const char *folder, *host;
    int64_t pid, began_ms, heartbeat_ms, ended_ms;
} mx_run_row;

/* `write` false: must exist, opened read-only (one of an older version is brought forward first). */
MX_MUST_CHECK mx_code mx_store_open(const char *path, bool write, mx_store **ret, mx_status *st);
void mx_store_close(mx_store *s); /* NULL is fine; an open transaction is rolled back */
struct sqlite3 *mx_store_handle(mx_store *s); /* for sql.h and tests */
const char *mx_store_path(const mx_store *s);

/* Waits for other writers up to 30 s. Nested calls are a programmer's error. */
MX_MUST_CHECK mx_code mx_store_begin(mx_store *s, mx_status *st);
MX_MUST_CHECK mx_code mx_store_commit(mx_store *s, mx_status *st);
void mx_store_rollback(mx_store *s);

/* Adds a run in state 'running', now; makes its uuid (getrandom) and fills row->run_id and uuid_text. */
MX_MUST_CHECK mx_code mx_store_run_add(mx_store *s, mx_run_row *row, char uuid_text[MX_UUID_TEXT], mx_status *st);
MX_MUST_CHECK mx_code mx_store_run_folder(mx_store *s, int64_t run_id, const char *folder, mx_status *st);
/* running | finished | failed | stopped; also host, pid and heartbeat are this process's again when 'running'. */
MX_MUST_CHECK mx_code mx_store_run_state(mx_store *s, int64_t run_id, const char *state, const char *reason,
                                         mx_status *st);
/* A process of this host that ended without a word: its run failed, unless another has taken it up since. */
MX_MUST_CHECK mx_code mx_store_run_died(mx_store *s, int64_t run_id, int64_t pid, const char *reason, mx_status *st);
MX_MUST_CHECK mx_code mx_store_heartbeat(mx_store *s, int64_t run_id, int64_t step, mx_status *st);
/* Between rows that are far apart: the run is alive. */
MX_MUST_CHECK mx_code mx_store_alive(mx_store *s, int64_t run_id, mx_status *st);
/* By number, by uuid or its first digits, or by name (the newest). MX_E_USAGE with near names when there is none. */
MX_MUST_CHECK mx_code mx_store_run_find(mx_store *s, const char *what, mx_arena *arena, mx_run_row *ret,
                                        mx_status *st);
/* 'running' but its process is gone (same host: no such pid, or it began after the last heartbeat; another host: no
 * heartbeat for 10 minutes). */
bool mx_run_is_dead(const mx_run_row *row);
/* The run of an identity (recipe_hash, seed, base_hash, tasks_hash, data_hash of `like`; kind 'train'): the newest finished
 * one, else the newest; *ret_found false when there is none. */
MX_MUST_CHECK mx_code mx_store_run_like(mx_store *s, const mx_run_row *like, mx_arena *arena, bool *ret_found, mx_run_row *ret,
                                        mx_status *st);
/* The run a process of this host is at: state 'running', that pid, begun or taken up since `since_ms`. */
MX_MUST_CHECK mx_code mx_store_run_of_process(mx_store *s, int64_t pid, int64_t since_ms, mx_arena *arena, bool *ret_found,
                                              mx_run_row *ret, mx_status *st);
/* The run a process of this host was last at since then, whatever became of it. */
MX_MUST_CHECK mx_code mx_store_run_left_by(mx_store *s, int64_t pid, int64_t since_ms, mx_arena *arena, bool *ret_found,
                                           mx_run_row *ret, mx_status *st);
/* A run of this identity (as above) that is 'running' and not dead, whoever runs it. Asked inside the transaction that adds or
 * takes up a run, the answer holds until its end. */
MX_MUST_CHECK mx_code mx_store_run_alive(mx_store *s, const mx_run_row *like, mx_arena *arena, bool *ret_found, mx_run_row *ret,
                                         mx_status *st);
/* Forget what a run wrote after `step`, before it goes on from there: metrics and router windows past it, and evaluations from
 * it on (that at `step` itself is made again: it may have been cut short). */
MX_MUST_CHECK mx_code mx_store_drop_after(mx_store *s, int64_t run_id, int64_t step, mx_status *st);

MX_MUST_CHECK mx_code mx_store_word(mx_store *s, int64_t run_id, const char *word, const char *value, mx_status *st);
MX_MUST_CHECK mx_code mx_store_data_file(mx_store *s, int64_t run_id, const char *task, const char *split,
                                         const char *path, const char *sha256, int64_t questions, int64_t truncated,
                                         mx_status *st);
MX_MUST_CHECK mx_code mx_store_metric(mx_store *s, int64_t run_id, int64_t step, const char *name, double value,
                                      mx_status *st);

/* The newest value of that name; NaN when there is none. */
MX_MUST_CHECK mx_code mx_store_metric_last(mx_store *s, int64_t run_id, const char *name, double *ret, mx_status *st);

typedef struct mx_evaluation_row {
    const char *task, *split, *protocol;
    double epoch;
    int64_t step, n, truncated;
    bool limited;
    const char *task_hash, *data_hash;
} mx_evaluation_row;
MX_MUST_CHECK mx_code mx_store_evaluation(mx_store *s, int64_t run_id, const mx_evaluation_row *row, int64_t *ret_id,
                                          mx_status *st);
MX_MUST_CHECK mx_code mx_store_score(mx_store *s, int64_t evaluation_id, const char *metric, double value,
                                     double stderr_value, double majority, mx_status *st);
MX_MUST_CHECK mx_code mx_store_prediction(mx_store *s, int64_t evaluation_id, int64_t number, const char *item,
                                          int gold, const double *choice_score, int choices, mx_status *st);
MX_MUST_CHECK mx_code mx_store_outcome(mx_store *s, int64_t evaluation_id, const char *metric, int64_t number,
                                       int chosen, bool correct, mx_status *st);

/* One router window. Arrays are [layer][task][expert]; a task no token belonged to writes no rows. */
typedef struct mx_router_window {
    const char *split;
    int64_t first_step, last_step, evaluation_id; /* 0: none */
    const char *const *task;
    int64_t tasks, layers, experts;
    const int64_t *tokens, *dropped; /* (layers, tasks, experts) */
    const double *probability;       /* (layers, tasks, experts) */
    const int64_t *routed;           /* (layers, tasks) */
    const double *entropy;           /* (layers, tasks) */
    const int64_t *pairs;            /* (layers, tasks, experts, experts), i < j; NULL: none */
} mx_router_window;
MX_MUST_CHECK mx_code mx_store_router(mx_store *s, int64_t run_id, const mx_router_window *w, mx_status *st);

int64_t mx_now_ms(void); /* UTC, since 1970 */

#endif
