/* well_formed.h - does a text of HTML or SVG, as we write it, nest and escape as it should? */
#ifndef TESTS_SUPPORT_WELL_FORMED_H
#define TESTS_SUPPORT_WELL_FORMED_H

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { TAGS_DEEP = 256 };

/* A tag: its end, or NULL with `why`. Attribute values stand in double quotes and hold no '<'. */
static inline const char *tag_end(const char *at, char why[256]) {
    bool quoted = false;

    for (const char *c = at + 1; *c; c++) {
        if (*c == '"') {
            quoted = !quoted;
        } else if (*c == '<') {
            break;
        } else if (*c == '>' && !quoted) {
            return c;
        }
    }
    snprintf(why, 256, "a tag that does not end: %.60s", at);
    return NULL;
}

static inline bool known_entity(const char *at) {
    return strncmp(at, "&amp;", 5) == 0 || strncmp(at, "&lt;", 4) == 0 || strncmp(at, "&gt;", 4) == 0 || strncmp(at, "&quot;", 6) == 0;
}

/* Tags close in the order they opened (void ones of HTML aside), every & is an entity's; what <style> holds is passed over. */
static inline bool well_formed(const char *text, char why[256]) {
    static const char *const alone[] = { "!DOCTYPE", "meta", "br", "hr", "link" };
    char open[TAGS_DEEP][32];
    int depth = 0;

    for (const char *c = text; *c; c++) {
        const char *end;
        char name[32] = "";
        int n = 0;
        bool closes, single = false;

        if (*c == '&' && !known_entity(c)) {
            snprintf(why, 256, "a bare &: %.60s", c);
            return false;
        }
        if (*c == '>') {
            snprintf(why, 256, "a bare >: %.60s", c);
            return false;
        }
        if (*c != '<') {
            continue;
        }
        end = tag_end(c, why);
        if (!end) {
            return false;
        }
        closes = c[1] == '/';
        while (n < 31 && (isalnum((unsigned char)c[1 + closes + n]) || c[1 + closes + n] == '!')) {
            name[n] = c[1 + closes + n];
            n++;
        }
        for (size_t i = 0; i < sizeof alone / sizeof alone[0]; i++) {
            single |= strcmp(name, alone[i]) == 0;
        }
        single |= end[-1] == '/';
        if (closes && (depth == 0 || strcmp(open[--depth], name) != 0)) {
            snprintf(why, 256, "</%.60s> closes <%.60s>: %.60s", name, depth >= 0 ? open[depth] : "nothing", c);
            return false;
        }
        if (!closes && !single) {
            if (depth == TAGS_DEEP || n == 0) {
                snprintf(why, 256, "not a tag: %.60s", c);
                return false;
            }
            memcpy(open[depth++], name, sizeof name);
        }
        for (const char *k = c; k < end; k++) {
            if (*k == '&' && !known_entity(k)) {
                snprintf(why, 256, "a bare & in a tag: %.60s", k);
                return false;
            }
        }
        c = end;
        if (!closes && strcmp(name, "style") == 0) {
            c = strstr(c, "</style>");
            if (!c) {
                snprintf(why, 256, "<style> is not closed");
                return false;
            }
            depth--;
            c += strlen("</style>") - 1;
        }
    }
    snprintf(why, 256, "<%s> is not closed", depth ? open[depth - 1] : "");
    return depth == 0;
}

#endif
