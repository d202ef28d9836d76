/* remove.h - runs and what they left, taken away again.
 *
 * Of the file system only what mixrun made is touched: a folder is a run's own when it is a folder, no link, and holds as recipe.yaml
 * the run's recipe byte for byte, and no other run names it. In it, files are removed by name (recipe, checkpoint, adapter, their
 * unfinished parts); whatever else lies there stays, and the folder with it. Links are never followed. */
#ifndef REPORTS_REMOVE_H
#define REPORTS_REMOVE_H

#include "reports/store.h"

typedef struct mx_own_files {
    const char *folder;
    bool own;             /* false: nothing of it is touched */
    const char *because;  /* not own: "there is no such folder", "its recipe.yaml is not this run's", ... */
    const char **name;    /* own: files mixrun made, below the folder */
    int64_t *bytes_of;    /* of each */
    int count;
    int64_t bytes;
    const char *stranger; /* a file that mixrun did not make, for which the folder stays; NULL: none */
} mx_own_files;

/* What of a run's folder is its own. */
MX_MUST_CHECK mx_code mx_own_files_find(mx_store *s, const mx_run_row *run, mx_arena *arena, mx_own_files *ret, mx_status *st);
/* Rows a run has in all tables, its own included. */
MX_MUST_CHECK mx_code mx_run_rows(mx_store *s, int64_t run_id, int64_t *ret, mx_status *st);

/* Takes the runs' rows away in one transaction, then their files. A run that is running by then is refused, and nothing is
 * removed. `s` is open to write. Rows go first: files without rows can be found again (gc), rows without files could not be told. */
MX_MUST_CHECK mx_code mx_runs_remove(mx_store *s, const mx_run_row *run, const mx_own_files *files, int count, mx_status *st);

/* ---- gc: what can go ---- */

typedef enum mx_garbage_kind {
    MX_GARBAGE_FILE,   /* a checkpoint of a finished run, or the unfinished part of a file */
    MX_GARBAGE_FOLDER, /* of a run that is no longer in the database */
    MX_GARBAGE_RUN,    /* failed or dead, and old */
} mx_garbage_kind;

typedef struct mx_garbage {
    mx_garbage_kind kind;
    const char *what;   /* "checkpoint of run 7, which is finished" */
    int64_t bytes, rows;
    mx_run_row run;     /* of a file or a run */
    mx_own_files files; /* what of it is removed */
} mx_garbage;

typedef struct mx_gc_plan {
    mx_garbage *item;
    int items;
    int64_t environments, bases; /* rows that no run refers to */
    int64_t free_bytes;          /* of the database file, given back by VACUUM */
    int64_t alive;               /* a run that is running, for which the database keeps its free pages; 0: none */
} mx_gc_plan;

typedef struct mx_gc_done {
    int kept;      /* things that were in use again by the time their turn came */
    int64_t alive; /* a run that is running, for which VACUUM was left out: it would lock the run out; 0: none */
} mx_gc_done;

/* `older_ms`: failed and dead runs not heard of for so long go as well; negative: none. `more` is one more folder of runs to look
 * into, or NULL. A folder without a run is ours only when its recipe.yaml names this database, that folder of runs, and its name. */
MX_MUST_CHECK mx_code mx_gc_look(mx_store *s, int64_t older_ms, const char *more, mx_arena *arena, mx_gc_plan *ret, mx_status *st);
/* Does it. `s` is open to write. What a run took up or began since the look is left alone: each thing is looked at again, and
 * removed, in a transaction that keeps other writers out. */
MX_MUST_CHECK mx_code mx_gc_clear(mx_store *s, const mx_gc_plan *plan, mx_gc_done *ret, mx_status *st);

#endif
