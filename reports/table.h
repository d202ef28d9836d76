/* table.h - rows of cells as aligned text or JSON. Widths are measured in characters of UTF-8, not bytes. */
#ifndef REPORTS_TABLE_H
#define REPORTS_TABLE_H

#include "base/text.h"

enum { MX_COLUMNS_MAX = 80 };

typedef struct mx_table {
    mx_text cells; /* all cells, 0-separated */
    int columns, rows, filled;
    bool right[MX_COLUMNS_MAX]; /* numbers stand to the right */
} mx_table;

void mx_table_init(mx_table *t, int columns);
void mx_table_finish(mx_table *t);
/* Fills the next cell, row by row. The first row is the head. */
void mx_table_cell(mx_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Columns two spaces apart, each line `indent` spaces in; no trailing spaces. */
void mx_table_print(const mx_table *t, int indent, mx_text *out);

/* Text as a JSON string, quotes included. */
void mx_json_quote(mx_text *out, const char *text);

#endif
