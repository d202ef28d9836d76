/* page.c - see page.h. */
#include "reports/page.h"

#include "reports/chart.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mx_page_init(mx_page *p, mx_format format, const char *only) {
    *p = (mx_page){ .format = format, .only = only };
    mx_text_init(&p->body, (size_t)1 << 30);
}

void mx_page_finish(mx_page *p) {
    mx_text_finish(&p->body);
}

/* Words outside tables are for readers, not for other programs. */
static bool tells(const mx_page *p) {
    return (p->format == MX_FORMAT_HTML || p->format == MX_FORMAT_MARKDOWN) && !p->only;
}

static bool html(const mx_page *p) {
    return p->format == MX_FORMAT_HTML && !p->only;
}

/* Markdown's own characters stay themselves. */
static void markdown_escape(mx_text *out, const char *text) {
    for (; *text; text++) {
        if (strchr("\\`*_[]<>|", *text)) {
            mx_text_print(out, "\\");
        }
        mx_text_add(out, text, 1);
    }
}

static void words(mx_page *p, const char *text) {
    if (p->format == MX_FORMAT_HTML) {
        mx_html_escape(&p->body, text);
    } else {
        markdown_escape(&p->body, text);
    }
}

static void end_block(mx_page *p) {
    if (p->block_open && html(p)) {
        mx_text_print(&p->body, "</figure>\n");
    }
    p->block_open = false;
}

void mx_page_section(mx_page *p, const char *id, const char *title) {
    end_block(p);
    assert(p->sections < MX_SECTIONS_MAX);
    if (html(p)) {
        mx_text_print(&p->body, "%s<section id=\"%s\">\n<h2>", p->sections ? "</section>\n" : "", id);
        words(p, title);
        mx_text_print(&p->body, "</h2>\n");
    } else if (tells(p)) {
        mx_text_print(&p->body, "## ");
        words(p, title);
        mx_text_print(&p->body, "\n\n");
    }
    p->section[p->sections].id = id;
    p->section[p->sections++].title = title;
}

#define FORMATTED(text, fmt)                                                                                           \
    do {                                                                                                               \
        va_list ap;                                                                                                    \
        int length;                                                                                                    \
        va_start(ap, fmt);                                                                                             \
        length = vasprintf(&(text), fmt, ap);                                                                          \
        va_end(ap);                                                                                                    \
        assert(length >= 0);                                                                                           \
    } while (0)

void mx_page_words(mx_page *p, const char *kind, const char *fmt, ...) {
    char *text = NULL;

    FORMATTED(text, fmt);
    end_block(p);
    if (html(p)) {
        mx_text_print(&p->body, *kind ? "<p class=\"%s\">" : "<p>", kind);
        words(p, text);
        mx_text_print(&p->body, "</p>\n");
    } else if (tells(p)) {
        words(p, text);
        mx_text_print(&p->body, "\n\n");
    }
    free(text);
}

void mx_page_heading(mx_page *p, const char *fmt, ...) {
    char *text = NULL;

    FORMATTED(text, fmt);
    end_block(p);
    if (tells(p)) {
        mx_text_print(&p->body, html(p) ? "<h3>" : "### ");
        words(p, text);
        mx_text_print(&p->body, html(p) ? "</h3>\n" : "\n\n");
    }
    free(text);
}

void mx_page_list(mx_page *p, const char *const *item, int items) {
    end_block(p);
    if (!tells(p) || items == 0) {
        return;
    }
    mx_text_print(&p->body, html(p) ? "<ul>\n" : "");
    for (int i = 0; i < items; i++) {
        mx_text_print(&p->body, html(p) ? "<li>" : "- ");
        words(p, item[i]);
        mx_text_print(&p->body, html(p) ? "</li>\n" : "\n");
    }
    mx_text_print(&p->body, html(p) ? "</ul>\n" : "\n");
}

/* A fence longer than any run of its character inside. */
static void fenced(mx_text *out, const char *language, const char *text) {
    size_t longest = 2, run = 0;

    for (const char *c = text; *c; c++) {
        run = *c == '`' ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i <= longest; i++) {
            mx_text_print(out, "`");
        }
        if (side == 0) {
            mx_text_print(out, "%s\n%s%s", language, text, *text && text[strlen(text) - 1] == '\n' ? "" : "\n");
        }
    }
    mx_text_print(out, "\n\n");
}

void mx_page_code(mx_page *p, const char *text) {
    end_block(p);
    if (html(p)) {
        mx_text_print(&p->body, "<pre>");
        words(p, text);
        mx_text_print(&p->body, "</pre>\n");
    } else if (tells(p)) {
        fenced(&p->body, "", text);
    }
}

void mx_page_folded(mx_page *p, const char *label, const char *text) {
    end_block(p);
    if (html(p)) {
        mx_text_print(&p->body, "<details><summary>");
        words(p, label);
        mx_text_print(&p->body, "</summary>\n<pre>");
        words(p, text);
        mx_text_print(&p->body, "</pre></details>\n");
    } else if (tells(p)) {
        mx_text_print(&p->body, "<details><summary>");
        mx_html_escape(&p->body, label);
        mx_text_print(&p->body, "</summary>\n\n");
        fenced(&p->body, "", text);
        mx_text_print(&p->body, "</details>\n\n");
    }
}

void mx_page_table(mx_page *p, const char *id, const char *caption, const mx_table *t) {
    end_block(p);
    assert(p->tables < MX_PAGE_TABLES_MAX);
    p->table[p->tables++] = id;
    if (p->only && strcmp(p->only, id) != 0) {
        return;
    }
    if (html(p)) {
        mx_text_print(&p->body, "<figure id=\"%s\" class=\"table\">\n<figcaption>", id);
        words(p, caption);
        mx_text_print(&p->body, "</figcaption>\n<div class=\"scroll\" tabindex=\"0\">\n");
        mx_table_write(t, MX_FORMAT_HTML, &p->body);
        mx_text_print(&p->body, "</div>\n");
        p->block_open = true;
        return;
    }
    if (p->only) { /* nothing but the table: for a pipe or an \input */
        mx_table_write(t, p->format, &p->body);
        return;
    }
    if (p->format == MX_FORMAT_MARKDOWN) {
        mx_text_print(&p->body, "**%s.** ", id);
        words(p, caption);
        mx_text_print(&p->body, "\n\n");
    } else if (p->format == MX_FORMAT_LATEX) {
        mx_text_print(&p->body, "%% %s: ", id);
        for (const char *c = caption; *c; c++) { /* a name may hold a line end, a comment not */
            mx_text_add(&p->body, *c == '\n' || *c == '\r' ? " " : c, 1);
        }
        mx_text_print(&p->body, "\n");
    } else { /* CSV knows no captions: one cell alone in its line, an empty line between tables */
        mx_text_print(&p->body, "%s%s\r\n", p->body.length ? "\r\n" : "", id);
    }
    mx_table_write(t, p->format, &p->body);
    mx_text_print(&p->body, p->format == MX_FORMAT_CSV ? "" : "\n");
    p->block_open = true;
}

void mx_page_drawing(mx_page *p, const char *id, const char *caption, const mx_text *svg) {
    end_block(p);
    if (!html(p)) {
        return;
    }
    mx_text_print(&p->body, "<figure id=\"%s\">\n<figcaption>", id);
    words(p, caption);
    mx_text_print(&p->body, "</figcaption>\n<div class=\"scroll\" tabindex=\"0\">\n");
    mx_text_add(&p->body, svg->data, svg->length);
    mx_text_print(&p->body, "</div>\n");
    p->block_open = true;
}

static void made_html(mx_page *p, const char *id, const char *runs, const char *computed, const mx_asked *const *asked, int count) {
    mx_text_print(&p->body, "<details class=\"made\"><summary>runs and SELECT</summary>\n<p>");
    words(p, runs);
    mx_text_print(&p->body, "</p>\n");
    if (*computed) {
        mx_text_print(&p->body, "<p>");
        words(p, computed);
        mx_text_print(&p->body, "</p>\n");
    }
    for (int i = 0; i < count; i++) {
        mx_text_print(&p->body, "<p class=\"small\">");
        words(p, asked[i]->name);
        mx_text_print(&p->body, ": %s row%s</p>\n<pre class=\"sql\" data-for=\"%s\" data-name=\"", mx_text_count(asked[i]->rows),
                      asked[i]->rows == 1 ? "" : "s", id);
        words(p, asked[i]->name);
        mx_text_print(&p->body, "\" data-rows=\"%lld\" data-sha256=\"%s\">", (long long)asked[i]->rows, asked[i]->sha256);
        words(p, asked[i]->sql);
        mx_text_print(&p->body, "</pre>\n");
    }
    mx_text_print(&p->body, "</details>\n");
}

void mx_page_made(mx_page *p, const char *id, const char *runs, const char *computed, const mx_asked *const *asked, int count) {
    if (html(p)) {
        made_html(p, id, runs, computed, asked, count);
    } else if (tells(p) && p->block_open) { /* drawings, and with them how they were made, are HTML's */
        mx_text_print(&p->body, "<details><summary>runs and SELECT</summary>\n\n");
        words(p, runs);
        mx_text_print(&p->body, *computed ? "\n\n" : "");
        words(p, computed);
        mx_text_print(&p->body, "\n\n");
        for (int i = 0; i < count; i++) {
            words(p, asked[i]->name);
            mx_text_print(&p->body, ":\n\n");
            fenced(&p->body, "sql", asked[i]->sql);
        }
        mx_text_print(&p->body, "</details>\n\n");
    }
}

/* --- the whole --- */

static const char style[] =
    ":root{color-scheme:light dark;--paper:#ffffff;--ink:#1d2126;--soft:#59636e;--rule:#dfe3e8;--tint:#f5f7f9;--link:#0b5ea8}\n"
    "@media screen and (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6e9ed;--soft:#9aa5b1;--rule:#303842;--tint:#1c2229;--link:#7ab8f5}}\n"
    "*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}\n"
    "body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,'Segoe UI','DejaVu Sans',Arial,sans-serif}\n"
    "main,header,nav{max-width:77.5rem;margin:0 auto;padding:0 1.1rem}header{padding-top:2.2rem}main{padding-bottom:4rem}\n"
    "h1{font-size:1.75rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}h2{font-size:1.3rem;margin:2.6rem 0 .6rem;padding-top:.4rem;border-top:1px solid var(--rule)}\n"
    "h3{font-size:1.05rem;margin:1.8rem 0 .4rem}p,ul{margin:.55rem 0;max-width:46rem}ul{padding-left:1.2rem}a{color:var(--link)}\n"
    "nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;max-width:none;font-size:.92rem}\n"
    ".lead{font-size:1.13rem}.small,.under{font-size:.875rem;color:var(--soft)}.under{margin-top:0}.note{border-left:3px solid var(--s4);padding-left:.8rem}\n"
    "figure{margin:1.3rem 0 1.7rem}figcaption{font-size:.94rem;margin-bottom:.5rem;max-width:46rem}\n"
    ".scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}.scroll:focus-visible{outline:2px solid var(--link)}\n"
    "table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}th,td{padding:.28rem .65rem .28rem 0;text-align:left;vertical-align:top;white-space:nowrap}\n"
    "th{white-space:normal;font-weight:600;border-bottom:1.5px solid var(--soft);vertical-align:bottom}td{border-bottom:1px solid var(--rule)}th.n,td.n{text-align:right}\n"
    "td:last-child,th:last-child{padding-right:.2rem}\n"
    "details{margin:.5rem 0}summary{cursor:pointer;color:var(--link);font-size:.875rem}details.made{font-size:.9rem}\n"
    "pre{background:var(--tint);padding:.6rem .8rem;border-radius:4px;overflow-x:auto;font:12.5px/1.45 ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0}\n"
    "@page{margin:14mm}@media print{body{font-size:10pt;line-height:1.4}main,header,nav{max-width:none;padding:0}nav,details.made{display:none}.scroll{overflow:visible}"
    "svg.chart{min-width:0!important}table{font-size:7.2pt}th,td{white-space:normal;padding:.15rem .4rem .15rem 0}td.n{white-space:nowrap}p,ul,figcaption{max-width:none}tr,figure:not(.table){break-inside:avoid}h2,h3,figcaption{break-after:avoid}a{color:inherit;text-decoration:none}}\n";

static void write_html(const mx_page *p, const char *title, const char *subtitle, mx_text *out) {
    mx_text_print(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"generator\" content=\"mixrun\">\n<title>");
    mx_html_escape(out, title);
    mx_text_print(out, "</title>\n<style>\n%s", style);
    mx_chart_style(out);
    mx_text_print(out, "</style>\n</head>\n<body>\n<header>\n<h1>");
    mx_html_escape(out, title);
    mx_text_print(out, "</h1>\n<p class=\"under\">");
    mx_html_escape(out, subtitle);
    mx_text_print(out, "</p>\n</header>\n<nav aria-label=\"contents\"><ul>\n");
    for (int i = 0; i < p->sections; i++) {
        mx_text_print(out, "<li><a href=\"#%s\">", p->section[i].id);
        mx_html_escape(out, p->section[i].title);
        mx_text_print(out, "</a></li>\n");
    }
    mx_text_print(out, "</ul></nav>\n<main>\n");
    mx_text_add(out, p->body.data, p->body.length);
    mx_text_print(out, "%s</main>\n</body>\n</html>\n", p->sections ? "</section>\n" : "");
}

void mx_page_write(mx_page *p, const char *title, const char *subtitle, mx_text *out) {
    end_block(p);
    if (html(p)) {
        write_html(p, title, subtitle, out);
        return;
    }
    if (tells(p)) {
        mx_text_print(out, "# ");
        markdown_escape(out, title);
        mx_text_print(out, "\n\n");
        markdown_escape(out, subtitle);
        mx_text_print(out, "\n\n");
    }
    mx_text_add(out, p->body.data, p->body.length);
}
