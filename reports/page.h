/* page.h - a report as it is written: sections, words, tables, drawings, and under each of these how it came about.
 *
 * Written as one HTML file (style sheet inside; no script, no network; light, dark, phone, paper), as Markdown (everything but
 * the drawings), or as CSV or LaTeX (the tables alone). Every text given is escaped here. */
#ifndef REPORTS_PAGE_H
#define REPORTS_PAGE_H

#include "reports/ask.h"
#include "reports/table.h"

enum { MX_SECTIONS_MAX = 32, MX_PAGE_TABLES_MAX = 512 };

typedef struct mx_page {
    mx_format format;   /* HTML, MARKDOWN, CSV, LATEX */
    const char *only;   /* the one table to write; NULL: all */
    const char *table[MX_PAGE_TABLES_MAX]; /* ids of all tables, written or not: for a hint */
    int tables;
    struct {
        const char *id, *title;
    } section[MX_SECTIONS_MAX];
    int sections;
    bool block_open;
    mx_text body;
} mx_page;

void mx_page_init(mx_page *p, mx_format format, const char *only);
void mx_page_finish(mx_page *p); /* zeroed is fine */

/* ids and titles are borrowed until mx_page_write. */
void mx_page_section(mx_page *p, const char *id, const char *title);
/* A paragraph; `kind` a class of the style sheet ("lead", "small", "note") or "". */
void mx_page_words(mx_page *p, const char *kind, const char *fmt, ...) MX_PRINTF(3, 4);
/* A smaller heading. */
void mx_page_heading(mx_page *p, const char *fmt, ...) MX_PRINTF(2, 3);
void mx_page_list(mx_page *p, const char *const *item, int items);
/* A long text as it is, folded under `label`. */
void mx_page_folded(mx_page *p, const char *label, const char *text);
/* Commands or the like, as they are. */
void mx_page_code(mx_page *p, const char *text);

/* A table or a drawing with its caption; what follows until mx_page_end belongs to it. */
void mx_page_table(mx_page *p, const char *id, const char *caption, const mx_table *t);
void mx_page_drawing(mx_page *p, const char *id, const char *caption, const mx_text *svg);
/* Under it, folded: the runs, how the numbers were computed from the rows ("": they are the rows), and the statements. */
void mx_page_made(mx_page *p, const char *id, const char *runs, const char *computed, const mx_asked *const *asked, int count);

/* The whole: `subtitle` stands under the title. */
void mx_page_write(mx_page *p, const char *title, const char *subtitle, mx_text *out);

#endif
