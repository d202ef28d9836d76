/* status.c - failures recorded once and told with the line they happened on.
 *
 * What is printed came from files and arguments: control bytes are shown as '?', so that a hostile
 * name cannot steer the terminal, and a long line is shown by a window around its mark. */
#include "base/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum {
    WINDOW = 100,              /* columns of a line shown */
    LINE_READ_MAX = 64 * 1024, /* bytes of a line looked at; a mark further right gets no excerpt */
    FILE_READ_MAX = 256 * 1024 * 1024 /* bytes read in search of a line */
};

mx_code mx_fail(mx_status *st, mx_code code, mx_mark at, const char *fmt, ...) {
    va_list args;

    assert(code != MX_OK);
    if (!st || st->code != MX_OK) {
        return code;
    }
    st->code = code;
    st->at = at;
    st->hint[0] = '\0';
    va_start(args, fmt);
    vsnprintf(st->text, sizeof st->text, fmt, args);
    va_end(args);
    return code;
}

void mx_hint(mx_status *st, const char *fmt, ...) {
    va_list args;

    if (!st || st->code == MX_OK || st->hint[0]) {
        return;
    }
    va_start(args, fmt);
    vsnprintf(st->hint, sizeof st->hint, fmt, args);
    va_end(args);
}

void mx_problems_init(mx_problems *p) {
    *p = (mx_problems){ 0 };
}

void mx_problems_finish(mx_problems *p) {
    free(p->item);
    *p = (mx_problems){ 0 };
}

void mx_problem(mx_problems *p, mx_mark at, const char *hint, const char *fmt, ...) {
    mx_status *item;
    va_list args;

    p->count++;
    if (p->kept == MX_PROBLEMS_MAX) {
        return;
    }
    if ((p->kept & (p->kept - 1)) == 0) { /* room is kept as a power of two */
        item = realloc(p->item, (p->kept ? 2 * p->kept : 1) * sizeof *item);
        if (!item) {
            return; /* still counted: the recipe is refused all the same */
        }
        p->item = item;
    }
    item = &p->item[p->kept++];
    *item = (mx_status){ .code = MX_E_RECIPE, .at = at };
    va_start(args, fmt);
    vsnprintf(item->text, sizeof item->text, fmt, args);
    va_end(args);
    if (hint) {
        snprintf(item->hint, sizeof item->hint, "%s", hint);
    }
}

int mx_exit_code(mx_code code) {
    switch (code) {
    case MX_OK:
        return 0;
    case MX_E_USAGE:
    case MX_E_RECIPE:
        return 2;
    case MX_E_CHECK:
        return 3;
    case MX_E_PARTIAL:
        return 4;
    case MX_E_STOPPED:
        return 75; /* EX_TEMPFAIL of sysexits.h: come again */
    case MX_E_DATA:
    case MX_E_MISSING:
    case MX_E_IO:
    case MX_E_MEMORY:
    case MX_E_DEVICE:
    case MX_E_STORE:
    case MX_E_DIVERGED:
        return 1;
    }
    return 1;
}

/* --- printing --- */

static bool control(unsigned char c) {
    return c < 0x20 || c == 0x7f;
}

/* Continuation bytes of UTF-8 take no column of their own. */
static bool leads(unsigned char c) {
    return (c & 0xc0) != 0x80;
}

static void put_clean(const char *s, size_t length, FILE *out) {
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)s[i];

        fputc(c == '\t' ? ' ' : control(c) ? '?' : c, out);
    }
}

/* Each further line of a text or hint stands under the first one, three spaces in. */
static void put_indented(const char *s, FILE *out) {
    while (*s) {
        size_t length = strcspn(s, "\n");

        fputs("   ", out);
        put_clean(s, length, out);
        fputc('\n', out);
        s += length + (s[length] == '\n');
    }
}

static size_t line_of_text(const char *text, uint32_t line, char *ret, size_t size) {
    size_t length;

    for (uint32_t i = 1; i < line; i++) {
        text = strchr(text, '\n');
        if (!text) {
            return 0;
        }
        text++;
    }
    length = strcspn(text, "\n");
    length = length < size ? length : size;
    memcpy(ret, text, length);
    return length;
}

/* From the file itself, unpacked when it is gzip: what was read was unpacked too. Only regular
 * files: a pipe would not give its bytes a second time. */
static size_t line_of_file(const char *path, uint32_t line, char *ret, size_t size) {
    struct stat info;
    gzFile f;
    char buffer[8192];
    uint32_t at = 1;
    size_t length = 0, seen = 0;
    int n;

    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || !(f = gzopen(path, "rb"))) {
        return 0;
    }
    while (at <= line && seen < FILE_READ_MAX && (n = gzread(f, buffer, sizeof buffer)) > 0) {
        seen += (size_t)n;
        for (int i = 0; i < n && at <= line; i++) {
            if (buffer[i] == '\n') {
                at++;
            } else if (at == line && length < size) {
                ret[length++] = buffer[i];
            }
        }
    }
    gzclose(f);
    return length;
}

static void put_excerpt(const mx_mark *at, FILE *out) {
    char *line = malloc(LINE_READ_MAX);
    size_t length, column = at->column, from = 0, to, mark_end;

    if (!line) {
        return;
    }
    length = at->text ? line_of_text(at->text, at->line, line, LINE_READ_MAX)
                      : line_of_file(at->file, at->line, line, LINE_READ_MAX);
    while (length && line[length - 1] == '\r') {
        length--;
    }
    if (length == 0 || column > length + 1) {
        goto done; /* the file is gone or changed, or the mark stands at its end: nothing to show */
    }
    if (column > WINDOW - 20) {
        from = column - WINDOW / 2;
        while (from > 0 && !leads((unsigned char)line[from])) {
            from--;
        }
    }
    to = from + WINDOW < length ? from + WINDOW : length;
    while (to < length && !leads((unsigned char)line[to])) {
        to++;
    }
    fprintf(out, "%5u | %s", at->line, from ? "..." : "");
    put_clean(line + from, to - from, out);
    fprintf(out, "%s\n      | %s", to < length ? "..." : "", from ? "   " : "");
    for (size_t i = from; i + 1 < column; i++) {
        if (leads((unsigned char)line[i])) {
            fputc(' ', out);
        }
    }
    fputc('^', out);
    mark_end = column - 1 + (at->length ? at->length : 1);
    for (size_t i = column; i < mark_end && i < to; i++) {
        if (leads((unsigned char)line[i])) {
            fputc('~', out);
        }
    }
    fputc('\n', out);
done:
    free(line);
}

void mx_status_print(const mx_status *st, FILE *out) {
    size_t first = strcspn(st->text, "\n");

    if (!st->at.file) {
        fputs("mixrun: ", out);
    } else {
        put_clean(st->at.file, strlen(st->at.file), out);
        if (st->at.line && st->at.column) {
            fprintf(out, ":%u:%u: ", st->at.line, st->at.column);
        } else if (st->at.line) {
            fprintf(out, ":%u: ", st->at.line);
        } else {
            fputs(": ", out);
        }
    }
    if (st->code != MX_E_STOPPED) { /* stopping is what was asked for */
        fputs("error: ", out);
    }
    put_clean(st->text, first, out);
    fputc('\n', out);
    if (st->at.file && st->at.line && st->at.column) {
        put_excerpt(&st->at, out);
    }
    put_indented(st->text + first + (st->text[first] == '\n'), out);
    put_indented(st->hint, out);
}

/* By place; what stands at one place stays in the order it was found (item addresses tell). */
static int by_place(const void *va, const void *vb) {
    const mx_status *a = *(const mx_status *const *)va, *b = *(const mx_status *const *)vb;
    int order = strverscmp(a->at.file ? a->at.file : "", b->at.file ? b->at.file : "");

    if (order == 0 && a->at.line != b->at.line) {
        order = a->at.line < b->at.line ? -1 : 1;
    }
    if (order == 0 && a->at.column != b->at.column) {
        order = a->at.column < b->at.column ? -1 : 1;
    }
    return order ? order : a < b ? -1 : a > b;
}

void mx_problems_print(mx_problems *p, FILE *out) {
    const mx_status *order[MX_PROBLEMS_MAX];

    for (size_t i = 0; i < p->kept; i++) {
        order[i] = &p->item[i];
    }
    qsort(order, p->kept, sizeof order[0], by_place);
    for (size_t i = 0; i < p->kept; i++) {
        mx_status_print(order[i], out);
    }
    if (p->count > p->kept) {
        fprintf(out, "... and %zu more\n", p->count - p->kept);
    }
    fprintf(out, "%zu error%s; nothing was started\n", p->count, p->count == 1 ? "" : "s");
}
