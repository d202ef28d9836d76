/* sweep_picture.h - one picture for all running members, on stderr.
 *
 * On a terminal a line for each, redrawn in place, and below them all of it together; elsewhere a plain line now and then. */
#ifndef RUNNER_SWEEP_PICTURE_H
#define RUNNER_SWEEP_PICTURE_H

#include "runner/progress.h"

typedef struct mx_picture_line {
    int64_t number;          /* from 1, among `all` */
    const char *title;
    int64_t step, steps;     /* steps 0: still starting */
    double loss, rate;       /* NaN: not known; tokens per second */
    double began, left;      /* mx_seconds(); seconds, negative: not known */
} mx_picture_line;

typedef struct mx_picture {
    mx_progress progress;
    int lines; /* on the screen now */
    int width; /* of the widest title */
    int64_t all;
    bool one;  /* one member at a time: its line and the whole's are one */
} mx_picture;

void mx_picture_begin(mx_picture *p, bool quiet, bool one, int64_t all);
/* Room for this title: what stands behind titles is aligned. */
void mx_picture_widen(mx_picture *p, const char *title);
/* Is it time to look and draw again? */
bool mx_picture_due(const mx_picture *p);
/* `left` of everything, in seconds; negative: not known. */
void mx_picture_show(mx_picture *p, const mx_picture_line *line, int lines, int64_t done, double left);
/* A lasting line about one member: "[ 4/15] lora r80 seed 2  ...". */
void mx_picture_tell(mx_picture *p, int64_t number, const char *title, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Any lasting line. */
void mx_picture_say(mx_picture *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void mx_picture_clear(mx_picture *p);

#endif
