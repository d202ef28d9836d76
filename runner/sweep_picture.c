/* sweep_picture.c - see sweep_picture.h. */
#include "runner/sweep_picture.h"

#include "base/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double live_every = 0.5, plain_every = 60; /* seconds */

void mx_picture_begin(mx_picture *p, bool quiet, bool one, int64_t all) {
    *p = (mx_picture){ .all = all, .one = one };
    mx_progress_begin(&p->progress, quiet, 0);
}

bool mx_picture_due(const mx_picture *p) {
    return !p->progress.quiet && mx_seconds() - p->progress.last >= (p->progress.live ? live_every : plain_every);
}

void mx_picture_clear(mx_picture *p) {
    if (p->lines > 0) {
        fputs("\r\033[K", stderr);
        for (int i = 1; i < p->lines; i++) {
            fputs("\033[A\033[K", stderr);
        }
        fflush(stderr);
        p->lines = 0;
    }
}

/* As much of the line as the terminal is wide: a line that wraps could not be taken back. Counts UTF-8's leading bytes. */
static void put_cut(const char *line) {
    struct winsize size = { 0 };
    int width = 80, taken = 0;
    size_t n = 0;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) {
        width = size.ws_col;
    }
    while (line[n]) {
        taken += ((unsigned char)line[n] & 0xc0) != 0x80;
        if (taken >= width) {
            break;
        }
        n++;
    }
    fwrite(line, 1, n, stderr);
}

static void put(mx_picture *p, const char *line) {
    if (!p->progress.live) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    if (p->lines > 0) {
        fputc('\n', stderr);
    }
    put_cut(line);
    p->lines++;
}

/* What a text takes on the screen: UTF-8's leading bytes. */
static int columns(const char *text) {
    int n = 0;

    for (; *text; text++) {
        n += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return n;
}

void mx_picture_widen(mx_picture *p, const char *title) {
    p->width = columns(title) > p->width ? columns(title) : p->width;
}

static void head(const mx_picture *p, int64_t number, const char *title, mx_text *out) {
    int digits = snprintf(NULL, 0, "%lld", (long long)p->all);

    mx_text_print(out, "[%*lld/%lld] %s%*s", digits, (long long)number, (long long)p->all, title, p->width - columns(title), "");
}

static void draw(mx_picture *p, const mx_picture_line *l, const char *tail) {
    mx_text out;

    mx_text_init(&out, 1 << 16);
    head(p, l->number, l->title, &out);
    if (l->steps == 0) {
        mx_text_print(&out, "  starting");
    } else {
        mx_text_print(&out, "  step %lld/%lld", (long long)l->step, (long long)l->steps);
        if (!isnan(l->loss)) {
            mx_text_print(&out, "  loss %.3f", l->loss);
        }
        if (l->step == l->steps) {
            mx_text_print(&out, "  scoring");
        } else if (!isnan(l->rate)) {
            mx_text_print(&out, "  %.2f ktok/s", l->rate / 1000);
        }
    }
    mx_text_print(&out, "  %s <%s%s", mx_text_seconds(mx_seconds() - l->began), l->left < 0 ? "?" : mx_text_seconds(l->left), tail);
    put(p, out.data);
    mx_text_finish(&out);
}

void mx_picture_show(mx_picture *p, const mx_picture_line *line, int lines, int64_t done, double left) {
    char tail[64], total[160];

    if (p->progress.quiet) {
        return;
    }
    snprintf(tail, sizeof tail, "  all: <%s", left < 0 ? "?" : mx_text_seconds(left));
    mx_picture_clear(p);
    for (int i = 0; i < lines; i++) {
        draw(p, &line[i], p->one ? tail : "");
    }
    if (!p->one && lines > 0) {
        snprintf(total, sizeof total, "all: %lld of %lld done, %d running  %s <%s", (long long)done, (long long)p->all, lines,
                 mx_text_seconds(mx_seconds() - p->progress.began), left < 0 ? "?" : mx_text_seconds(left));
        put(p, total);
    }
    fflush(stderr);
    p->progress.last = mx_seconds();
}

void mx_picture_tell(mx_picture *p, int64_t number, const char *title, const char *fmt, ...) {
    mx_text out;
    char words[1500];
    va_list ap;

    if (p->progress.quiet) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    mx_text_init(&out, 1 << 16);
    head(p, number, title, &out);
    mx_picture_say(p, "%s  %s\n", out.data, words);
    mx_text_finish(&out);
}

void mx_picture_say(mx_picture *p, const char *fmt, ...) {
    va_list ap;

    if (p->progress.quiet) {
        return;
    }
    mx_picture_clear(p);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fflush(stderr);
}
