/* format.c - table.h's tables for other programs to read. */
#include "reports/table.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = { "table", "json", "csv", "markdown", "latex" };
enum { NAMES = sizeof names / sizeof names[0] };

mx_code mx_format_find(const char *word, mx_format *ret, mx_status *st) {
    const char *near;

    *ret = MX_FORMAT_TABLE;
    for (int i = 0; word && i < NAMES; i++) {
        if (strcmp(word, names[i]) == 0) {
            *ret = (mx_format)i;
            return MX_OK;
        }
    }
    if (!word) {
        return MX_OK;
    }
    near = mx_text_nearest(word, names, NAMES);
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--format '%.100s' is none of: table, json, csv, markdown, latex", word);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    }
    return MX_E_USAGE;
}

void mx_html_escape(mx_text *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&': mx_text_print(out, "&amp;"); break;
        case '<': mx_text_print(out, "&lt;"); break;
        case '>': mx_text_print(out, "&gt;"); break;
        case '"': mx_text_print(out, "&quot;"); break;
        default: mx_text_add(out, text, 1);
        }
    }
}

void mx_latex_escape(mx_text *out, const char *text) {
    const char *begin = text;

    for (; *text; text++) {
        bool before = text == begin || strchr(" [(,", text[-1]); /* a number begins here: "-5", not the hyphen of "top-2" */

        if (strchr("&%$#_{}", *text)) {
            mx_text_print(out, "\\%c", *text);
        } else if (*text == '\\') {
            mx_text_print(out, "\\textbackslash{}");
        } else if (*text == '~' || *text == '^') {
            mx_text_print(out, "\\%c{}", *text);
        } else if (*text == '<' || *text == '>' || *text == '|') {
            mx_text_print(out, "$%c$", *text);
        } else if (strncmp(text, "±", strlen("±")) == 0) {
            mx_text_print(out, "$\\pm$");
            text += strlen("±") - 1;
        } else if (before && (*text == '-' || *text == '+') && text[1] >= '0' && text[1] <= '9') {
            mx_text_print(out, "$%c$", *text);
        } else {
            mx_text_add(out, text, 1);
        }
    }
}

void mx_markdown_escape(mx_text *out, const char *text) {
    bool link = strstr(text, "](") != NULL;

    for (const char *c = text; *c; c++) {
        bool inside = c > text && isalnum((unsigned char)c[-1]) && isalnum((unsigned char)c[1]);

        if (*c == '\n') {
            mx_text_print(out, "<br>");
            continue;
        }
        if (strchr("\\`*<|", *c) || (*c == '_' && !inside) || (*c == '[' && link)) { /* arc_easy and [1, 2] stay as they are */
            mx_text_print(out, "\\");
        }
        mx_text_add(out, c, 1);
    }
}

static bool is_number(const char *text) {
    char *end;
    double value;

    if (!((*text >= '0' && *text <= '9') || (*text == '-' && text[1] >= '0' && text[1] <= '9'))) {
        return false; /* JSON knows no "+1", ".5", "inf" */
    }
    if (text[*text == '-'] == '0' && text[(*text == '-') + 1] >= '0' && text[(*text == '-') + 1] <= '9') {
        return false; /* nor "007" */
    }
    value = strtod(text, &end);
    return *end == '\0' && isfinite(value) && end[-1] != '.' && !strpbrk(text, "xX");
}

static void json(const mx_table *t, mx_text *out) {
    const char *head[MX_COLUMNS_MAX], *cell = t->cells.data;

    for (int c = 0; c < t->columns && t->rows > 0; c++, cell += strlen(cell) + 1) {
        head[c] = cell;
    }
    mx_text_print(out, "[");
    for (int r = 1; r < t->rows; r++) {
        mx_text_print(out, "%s\n{", r > 1 ? "," : "");
        for (int c = 0; c < t->columns; c++, cell += strlen(cell) + 1) {
            mx_text_print(out, "%s", c ? ", " : "");
            mx_json_quote(out, head[c]);
            mx_text_print(out, ": ");
            if (!*cell) {
                mx_text_print(out, "null");
            } else if (t->right[c] && is_number(cell)) {
                mx_text_print(out, "%s", cell);
            } else {
                mx_json_quote(out, cell);
            }
        }
        mx_text_print(out, "}");
    }
    mx_text_print(out, "\n]\n");
}

static void csv_cell(const char *cell, mx_text *out) {
    if (!strpbrk(cell, ",\"\r\n")) {
        mx_text_print(out, "%s", cell);
        return;
    }
    mx_text_print(out, "\"");
    for (; *cell; cell++) {
        mx_text_print(out, *cell == '"' ? "\"\"" : "%c", *cell);
    }
    mx_text_print(out, "\"");
}

static void csv(const mx_table *t, mx_text *out) {
    const char *cell = t->cells.data;

    for (int r = 0; r < t->rows; r++) {
        for (int c = 0; c < t->columns; c++, cell += strlen(cell) + 1) {
            csv_cell(cell, out);
            mx_text_print(out, c == t->columns - 1 ? "\r\n" : ",");
        }
    }
}

static void markdown(const mx_table *t, mx_text *out) {
    const char *cell = t->cells.data;

    for (int r = 0; r < t->rows; r++) {
        for (int c = 0; c < t->columns; c++, cell += strlen(cell) + 1) {
            mx_text_print(out, "%s", c ? " " : "| ");
            mx_markdown_escape(out, cell);
            mx_text_print(out, " |");
        }
        mx_text_print(out, "\n");
        for (int c = 0; r == 0 && c < t->columns; c++) {
            mx_text_print(out, "%s%s%s", c ? "" : "|", t->right[c] ? "---:|" : "---|", c == t->columns - 1 ? "\n" : "");
        }
    }
}

static void latex(const mx_table *t, mx_text *out) {
    const char *cell = t->cells.data;

    mx_text_print(out, "%% needs \\usepackage{booktabs}\n\\begin{tabular}{");
    for (int c = 0; c < t->columns; c++) {
        mx_text_print(out, t->right[c] ? "r" : "l");
    }
    mx_text_print(out, "}\n\\toprule\n");
    for (int r = 0; r < t->rows; r++) {
        for (int c = 0; c < t->columns; c++, cell += strlen(cell) + 1) {
            if (c == 0 && (*cell == '[' || *cell == '*')) { /* after \\\\ and rules these would be their arguments */
                mx_text_print(out, "{}");
            }
            mx_latex_escape(out, cell);
            mx_text_print(out, c == t->columns - 1 ? " \\\\\n" : " & ");
        }
        mx_text_print(out, "%s", r == 0 ? "\\midrule\n" : "");
    }
    mx_text_print(out, "\\bottomrule\n\\end{tabular}\n");
}

static void html(const mx_table *t, mx_text *out) {
    const char *cell = t->cells.data;

    mx_text_print(out, "<table>\n");
    for (int r = 0; r < t->rows; r++) {
        const char *tag = r == 0 ? "th" : "td";

        mx_text_print(out, "%s<tr>", r == 0 ? "<thead>" : r == 1 ? "<tbody>" : "");
        for (int c = 0; c < t->columns; c++, cell += strlen(cell) + 1) {
            mx_text_print(out, "<%s%s>", tag, t->right[c] ? " class=\"n\"" : "");
            mx_html_escape(out, cell);
            mx_text_print(out, "</%s>", tag);
        }
        mx_text_print(out, "</tr>%s\n", r == 0 ? "</thead>" : "");
    }
    mx_text_print(out, "%s</table>\n", t->rows > 1 ? "</tbody>" : "");
}

void mx_table_write(const mx_table *t, mx_format format, mx_text *out) {
    switch (format) {
    case MX_FORMAT_TABLE: mx_table_print(t, 1, out); break;
    case MX_FORMAT_JSON: json(t, out); break;
    case MX_FORMAT_CSV: csv(t, out); break;
    case MX_FORMAT_MARKDOWN: markdown(t, out); break;
    case MX_FORMAT_LATEX: latex(t, out); break;
    case MX_FORMAT_HTML: html(t, out); break;
    }
}
