/* fetch.h - a task's official files, from the official places into the cache.
 *
 * Downloads go to <folder>/<name>.part and are taken up again where they stopped (Range); an archive is kept until all its
 * members wanted are out. The unpacked file is checked against the YAML's sha256 and then moved into place in one rename: a
 * file under its final name is whole. http(s) only; proxies as libcurl reads them from the environment. */
#ifndef DATASETS_FETCH_H
#define DATASETS_FETCH_H

#include "datasets/task.h"

typedef struct mx_fetch_progress {
    const char *file, *url;
    int64_t done, total; /* bytes; total 0: the server did not say */
} mx_fetch_progress;

typedef struct mx_fetch_options {
    const char *folder;    /* NULL: <cache>/data/<task> */
    bool again;            /* fetch files that are there already as well */
    int64_t stall_seconds; /* give up on a URL that sends nothing for so long; 0: 60 */
    void (*progress)(void *who, const mx_fetch_progress *p); /* may be NULL; returns nothing, never prints for us */
    void *who;
    const volatile int *stop; /* non-zero: leave with MX_E_STOPPED, the .part stays; may be NULL */
} mx_fetch_options;

typedef enum mx_fetched_state { MX_FETCHED_PRESENT, MX_FETCHED_NEW } mx_fetched_state;
typedef struct mx_fetched {
    const char *name, *path;
    char sha256[MX_SHA256_TEXT];
    int64_t bytes;
    mx_fetched_state state;
    bool verified; /* false: the YAML knows no hash; tell the sum and "not verified" */
} mx_fetched;
typedef struct mx_fetch_report {
    mx_fetched *file;
    size_t count;
} mx_fetch_report;

/* All files of the task's splits. Stops at the first that cannot be had (every URL tried; the error names the last one's
 * trouble); those already fetched stay and are in the report. The report lives in the arena. */
MX_MUST_CHECK mx_code mx_fetch_task(const mx_task *task, const mx_fetch_options *o, mx_arena *arena, mx_fetch_report *ret,
                                    mx_status *st);

#endif
