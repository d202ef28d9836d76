/* progress.h - one live line on a terminal; plain lines, now and then, elsewhere. All on stderr. */
#ifndef RUNNER_PROGRESS_H
#define RUNNER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mx_progress {
    bool live, quiet;   /* stderr is a terminal; say nothing */
    double began, last; /* seconds, monotonic */
    int64_t work_done, work_all; /* of the whole job, in the same unit: for the ETA */
} mx_progress;

double mx_seconds(void); /* monotonic */
void mx_progress_begin(mx_progress *p, bool quiet, int64_t work_all);
/* Is it time for another line? Terminals five times a second, else every `plain_every` seconds. */
bool mx_progress_due(const mx_progress *p);
/* Shows the line with "elapsed <left" behind it. */
void mx_progress_show(mx_progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Wipes the live line, so that something lasting can be printed. */
void mx_progress_clear(mx_progress *p);
/* A lasting line on stderr, unless quiet. */
void mx_progress_say(mx_progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Seconds left by what was done so far; negative: not known yet. */
double mx_progress_left(const mx_progress *p);

#endif
