/* progress.c - see progress.h. */
#include "runner/progress.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double live_every = 0.2, plain_every = 30; /* seconds */

double mx_seconds(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void mx_progress_begin(mx_progress *p, bool quiet, int64_t work_all) {
    const char *term = getenv("TERM");

    *p = (mx_progress){ .quiet = quiet, .work_all = work_all };
    p->live = !quiet && isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    p->began = p->last = mx_seconds();
}

bool mx_progress_due(const mx_progress *p) {
    return !p->quiet && mx_seconds() - p->last >= (p->live ? live_every : plain_every);
}

double mx_progress_left(const mx_progress *p) {
    double spent = mx_seconds() - p->began;

    if (p->work_done <= 0 || p->work_all <= 0) {
        return -1;
    }
    return spent / (double)p->work_done * (double)(p->work_all - p->work_done);
}

void mx_progress_show(mx_progress *p, const char *fmt, ...) {
    char line[512], tail[64];
    double left = mx_progress_left(p);
    va_list ap;

    if (p->quiet) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    snprintf(tail, sizeof tail, "%s <%s", mx_text_seconds(mx_seconds() - p->began), left < 0 ? "?" : mx_text_seconds(left));
    fprintf(stderr, p->live ? "\r\033[K%s   %s" : "%s   %s\n", line, tail);
    fflush(stderr);
    p->last = mx_seconds();
}

void mx_progress_clear(mx_progress *p) {
    if (p->live) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}

void mx_progress_say(mx_progress *p, const char *fmt, ...) {
    va_list ap;

    if (p->quiet) {
        return;
    }
    mx_progress_clear(p);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
}
