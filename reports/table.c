/* table.c - see table.h. */
#include "reports/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mx_table_init(mx_table *t, int columns) {
    assert(columns > 0 && columns <= MX_COLUMNS_MAX);
    memset(t, 0, sizeof *t);
    t->columns = columns;
    mx_text_init(&t->cells, (size_t)64 << 20);
}

void mx_table_finish(mx_table *t) {
    mx_text_finish(&t->cells);
}

void mx_table_cell(mx_table *t, const char *fmt, ...) {
    va_list ap;
    char *text = NULL;
    int length;

    va_start(ap, fmt);
    length = vasprintf(&text, fmt, ap);
    va_end(ap);
    assert(length >= 0);
    mx_text_add(&t->cells, text, strlen(text) + 1); /* the 0 parts the cells */
    free(text);
    if (++t->filled == t->columns) {
        t->filled = 0;
        t->rows++;
    }
}

/* Characters, not bytes: continuation bytes of UTF-8 take no room. */
static int width_of(const char *s) {
    int n = 0;

    for (; *s; s++) {
        n += ((unsigned char)*s & 0xC0) != 0x80;
    }
    return n;
}

void mx_table_print(const mx_table *t, int indent, mx_text *out) {
    int width[MX_COLUMNS_MAX] = { 0 };
    const char *cell = t->cells.data;

    for (int r = 0; r < t->rows; r++) {
        for (int c = 0; c < t->columns; c++, cell += strlen(cell) + 1) {
            int w = width_of(cell);

            width[c] = w > width[c] ? w : width[c];
        }
    }
    cell = t->cells.data;
    for (int r = 0; r < t->rows; r++) {
        mx_text_print(out, "%*s", indent, "");
        for (int c = 0; c < t->columns; c++, cell += strlen(cell) + 1) {
            int pad = width[c] - width_of(cell);

            mx_text_print(out, "%*s%s%*s%s", t->right[c] ? pad : 0, "", cell, t->right[c] || c == t->columns - 1 ? 0 : pad,
                          "", c == t->columns - 1 ? "" : "  ");
        }
        while (out->length > 0 && out->data[out->length - 1] == ' ') { /* an empty cell at the end */
            out->data[--out->length] = '\0';
        }
        mx_text_print(out, "\n");
    }
}

void mx_json_quote(mx_text *out, const char *text) {
    mx_text_print(out, "\"");
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            mx_text_print(out, "\\%c", *c);
        } else if (*c == '\n') {
            mx_text_print(out, "\\n");
        } else if (*c < 0x20) {
            mx_text_print(out, "\\u%04x", *c);
        } else {
            mx_text_add(out, (const char *)c, 1);
        }
    }
    mx_text_print(out, "\"");
}
