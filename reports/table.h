/* table.h - rows of cells, written as aligned text, JSON, CSV, Markdown, LaTeX or HTML. Widths are measured in characters of
 * UTF-8, not bytes. */
#ifndef REPORTS_TABLE_H
#define REPORTS_TABLE_H

#include "base/status.h"
#include "base/text.h"

enum { MX_COLUMNS_MAX = 256 };

typedef enum mx_format { MX_FORMAT_TABLE, MX_FORMAT_JSON, MX_FORMAT_CSV, MX_FORMAT_MARKDOWN, MX_FORMAT_LATEX, MX_FORMAT_HTML } mx_format;

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

/* The word of --format ("table", "json", "csv", "markdown", "latex"; not html, which is report's); NULL means table.
 * MX_E_USAGE otherwise, with the near word. */
MX_MUST_CHECK mx_code mx_format_find(const char *word, mx_format *ret, mx_status *st);
/* The whole table:
 *   table     as mx_table_print, indent 1
 *   json      an array of objects, one a line, keys from the head; a cell of a `right` column that reads as a number is
 *             one, an empty cell is null, everything else is text
 *   csv       RFC 4180, head first, lines end with \r\n
 *   markdown  a pipe table; what Markdown would take for its own is escaped
 *   latex     a tabular of booktabs; special characters escaped, ± and - become \pm and minus
 *   html      <table> with thead and tbody; class "n" on cells of `right` columns; everything escaped */
void mx_table_write(const mx_table *t, mx_format format, mx_text *out);
/* Escaped for HTML text and attribute values / for LaTeX text / for Markdown, tables' cells too (a line's end becomes <br>). */
void mx_html_escape(mx_text *out, const char *text);
void mx_latex_escape(mx_text *out, const char *text);
void mx_markdown_escape(mx_text *out, const char *text);

/* Text as a JSON string, quotes included. */
void mx_json_quote(mx_text *out, const char *text);

#endif
