/* option_print.c - structs back into words: the resolved recipe, the identity, the reference of all
 * words. */
#include "base/option.h"

#include "base/option_parts.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCRATCH_BYTES = 16 * 1024 * 1024 }; /* ceiling for the presets of one table */

/* --- values --- */

/* A plain scalar that no reader takes for anything but this text; the set is narrower than YAML's.
 */
static bool is_plain(const char *text, bool auto_is_a_word) {
    static const char *const taken[] = { "null", "Null", "NULL", "true", "false",
                                         "yes",  "no",   "on",   "off" };
    size_t length = strlen(text);

    if (length == 0 || (auto_is_a_word && strcmp(text, "auto") == 0)) {
        return false;
    }
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        if (strcmp(text, taken[i]) == 0) {
            return false;
        }
    }
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-") ==
               length &&
           text[0] != '-' && text[0] != '+' && strcmp(text, "...") != 0;
}

void mx_option_quote(const char *text, bool auto_is_a_word, mx_text *out) {
    if (is_plain(text, auto_is_a_word)) {
        mx_text_print(out, "%s", text);
        return;
    }
    mx_text_add(out, "\"", 1);
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            mx_text_print(out, "\\%c", *c);
        } else if (*c == '\n') {
            mx_text_add(out, "\\n", 2);
        } else if (*c == '\t') {
            mx_text_add(out, "\\t", 2);
        } else if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            mx_text_print(out, "\\x%02X", (unsigned char)*c);
        } else {
            mx_text_add(out, c, 1);
        }
    }
    mx_text_add(out, "\"", 1);
}

static bool is_auto(const mx_option *o, const void *slot) {
    if (!(o->flags & MX_AUTO)) {
        return false;
    }
    switch (o->type) {
    case MX_INT:
        return *(const int64_t *)slot == MX_AUTO_INT;
    case MX_REAL:
        return isnan(*(const double *)slot);
    case MX_TEXT:
        return *(const char *const *)slot == NULL;
    case MX_ENUM:
        return *(const int *)slot == -1;
    case MX_SET:
        return *(const uint64_t *)slot == MX_AUTO_SET;
    default:
        return false;
    }
}

static void put_set(const mx_option *o, uint64_t set, mx_text *out) {
    const char *between = "";

    mx_text_add(out, "[", 1);
    for (int i = 0; o->choices[i]; i++) {
        if (set >> i & 1) {
            mx_text_print(out, "%s%s", between, o->choices[i]);
            between = ", ";
        }
    }
    mx_text_add(out, "]", 1);
}

static void put_texts(const mx_texts *texts, mx_text *out) {
    mx_text_add(out, "[", 1);
    for (size_t i = 0; i < texts->count; i++) {
        mx_text_print(out, "%s", i ? ", " : "");
        mx_option_quote(texts->item[i], false, out);
    }
    mx_text_add(out, "]", 1);
}

void mx_option_value(const mx_option *o, const void *slot, mx_text *out) {
    const char *text;

    if (is_auto(o, slot)) {
        mx_text_print(out, "auto");
        return;
    }
    switch (o->type) {
    case MX_BOOL:
        mx_text_print(out, "%s", *(const bool *)slot ? "true" : "false");
        break;
    case MX_INT:
        mx_text_print(out, "%" PRId64, *(const int64_t *)slot);
        break;
    case MX_REAL:
        mx_text_print(out, "%s", mx_text_real(*(const double *)slot));
        break;
    case MX_TEXT:
        text = *(const char *const *)slot;
        if (text) {
            mx_option_quote(text, o->flags & MX_AUTO, out);
        } else {
            mx_text_print(out, "null");
        }
        break;
    case MX_ENUM:
        mx_text_print(out, "%s", o->choices[*(const int *)slot]);
        break;
    case MX_SET:
        put_set(o, *(const uint64_t *)slot, out);
        break;
    case MX_TEXTS:
        put_texts(slot, out);
        break;
    case MX_LIST:
    case MX_TABLE:
    case MX_TREE:
        assert(!"a list of maps and a map have no value on one line");
        break;
    }
}

static bool applies(const mx_option_table *table, const mx_option *o, const void *config) {
    return !(o->flags & MX_UNBUILT) && !mx_option_hindrance(table, o, config, NULL, 0, 0);
}

/* --- the resolved recipe --- */

/* Lines of one map. `first` is what the first line begins with instead of its indent ("- " of a
 * list), or NULL. */
static void print_map(const mx_option_table *table, const void *config, int indent,
                      const char *first, mx_text *out);

static void print_word(const mx_option *o, const void *slot, int indent, mx_text *out) {
    const mx_list *list = slot;

    if (o->type == MX_TABLE) {
        mx_text_print(out, "%s:\n", o->name);
        print_map(o->inner, slot, indent + 2, NULL, out);
    } else if (o->type == MX_LIST && list->count) {
        mx_text_print(out, "%s:\n", o->name);
        for (size_t i = 0; i < list->count; i++) {
            print_map(o->inner, (const char *)list->item + i * o->inner->size, indent + 4, "- ",
                      out);
        }
    } else {
        mx_text_print(out, "%s: ", o->name);
        if (o->type == MX_LIST) {
            mx_text_print(out, "[]");
        } else {
            mx_option_value(o, slot, out);
        }
        mx_text_print(out, "\n");
    }
}

static void print_map(const mx_option_table *table, const void *config, int indent,
                      const char *first, mx_text *out) {
    const mx_chosen *chosen = config;

    if (table->chooser) {
        mx_text_print(out, "%*s%s: %s\n", indent, "", table->chooser, chosen->table->name);
        table = chosen->table;
        config = chosen->config;
    }
    for (const mx_option *o = table->option; o && o->name; o++) {
        if (applies(table, o, config)) {
            mx_text_print(out, "%*s%s", first ? indent - (int)strlen(first) : indent, "",
                          first ? first : "");
            print_word(o, mx_option_slot(o, config), indent, out);
            first = NULL;
        }
    }
}

void mx_option_print(const mx_option_table *table, const void *config, int indent, mx_text *out) {
    print_map(table, config, indent, NULL, out);
}

/* --- the identity --- */

static void put_results(const mx_option_table *table, const void *config, const char *path,
                        mx_arena *scratch, mx_text *out) {
    mx_binder quiet = { .root = table, .arena = scratch };
    const mx_chosen *chosen = config;
    char *preset;
    mx_text line, usual;

    if (table->chooser) {
        mx_text_print(out, "%s.%s=%s\n", path, table->chooser, chosen->table->name);
        table = chosen->table;
        config = chosen->config;
    }
    preset = mx_arena_take(scratch, table->size);
    mx_text_init(&line, 4 * 1024 * 1024);
    mx_text_init(&usual, 4 * 1024 * 1024);
    for (const mx_option *o = table->option; o && o->name; o++) {
        const void *slot = mx_option_slot(o, config);
        const char *word = mx_arena_text(scratch, "%s%s%s", path, *path ? "." : "", o->name);
        const mx_list *list = slot;

        if (!applies(table, o, config)) {
            continue;
        }
        if (o->type == MX_TABLE) {
            put_results(o->inner, slot, word, scratch, out);
            continue;
        }
        if (!(o->flags & MX_RESULT)) {
            continue;
        }
        if (o->type == MX_LIST) {
            for (size_t i = 0; i < list->count; i++) {
                put_results(o->inner, (const char *)list->item + i * o->inner->size,
                            mx_arena_text(scratch, "%s[%zu]", word, i), scratch, out);
            }
            continue;
        }
        mx_option_preset(&quiet, o, preset + o->offset);
        line.length = usual.length = 0;
        mx_option_value(o, slot, &line);
        mx_option_value(o, preset + o->offset, &usual);
        if ((o->flags & MX_REQUIRED) || strcmp(line.data, usual.data) != 0) {
            mx_text_print(out, "%s=%s\n", word, line.data);
        }
    }
    mx_text_finish(&line);
    mx_text_finish(&usual);
}

void mx_option_results(const mx_option_table *table, const void *config, const char *path,
                       mx_text *out) {
    mx_arena scratch;

    mx_arena_init(&scratch, SCRATCH_BYTES);
    put_results(table, config, path, &scratch, out);
    mx_arena_finish(&scratch);
}

/* --- the reference --- */

static void put_type(const mx_option *o, mx_text *out) {
    static const char *const name[] = {
        [MX_BOOL] = "true or false",  [MX_INT] = "whole number", [MX_REAL] = "number",
        [MX_TEXT] = "text",           [MX_ENUM] = "one of",      [MX_SET] = "list of",
        [MX_TEXTS] = "list of texts", [MX_LIST] = "list",        [MX_TABLE] = "words",
        [MX_TREE] = "recipe words",
    };

    mx_text_print(out, "%s", name[o->type]);
    if (o->type == MX_ENUM || o->type == MX_SET) {
        for (int i = 0; o->choices[i]; i++) {
            mx_text_print(out, "%s%s", i ? " | " : " ", o->choices[i]);
        }
    }
    if ((o->type == MX_INT || o->type == MX_REAL) && mx_option_bounded(o)) {
        mx_text_add(out, " ", 1);
        mx_option_range(o, out);
    }
    if (o->flags & MX_AUTO) {
        mx_text_print(out, " or auto");
    }
}

/* "lora_r: whole number at least 1; default 8; changes results", and its help under it. */
static void put_entry(const mx_option *o, const char *with, int indent, mx_text *out) {
    mx_text_print(out, "%*s%s: ", indent, "", o->name);
    put_type(o, out);
    if (o->flags & MX_UNBUILT) {
        mx_text_print(out, "; not built yet");
    } else if (o->flags & MX_REQUIRED) {
        mx_text_print(out, "; required");
    } else if (o->type != MX_TABLE) {
        mx_text_print(out, "; default %s",
                      o->preset            ? o->preset
                      : o->type == MX_TEXT || o->type == MX_TREE ? "none"
                                           : "[]");
    }
    if (o->flags & MX_RESULT) {
        mx_text_print(out, "; changes results");
    }
    mx_text_print(out, "\n");
    if (o->help) {
        mx_text_print(out, "%*s%s\n", indent + 4, "", o->help);
    }
    if (with) {
        mx_text_print(out, "%*swith %s\n", indent + 4, "", with);
    }
    if (o->only_if) {
        mx_text_print(out, "%*sonly with %s\n", indent + 4, "", o->only_if);
    }
}

static bool same_entry(const mx_option *a, const mx_option *b) {
    return strcmp(a->name, b->name) == 0 && a->type == b->type && a->flags == b->flags &&
           a->min == b->min && a->max == b->max &&
           strcmp(a->preset ? a->preset : "", b->preset ? b->preset : "") == 0 &&
           strcmp(a->help ? a->help : "", b->help ? b->help : "") == 0 &&
           strcmp(a->only_if ? a->only_if : "", b->only_if ? b->only_if : "") == 0;
}

/* The same word of the same meaning in another choice's table, or NULL. */
static const mx_option *twin(const mx_option_table *table, const mx_option *o) {
    const mx_option *other = mx_option_find(table, o->name);

    return other && same_entry(o, other) ? other : NULL;
}

/* The words of all choices, each told once with the choices that know it so. */
static void put_choices(const mx_option_table *table, int indent, mx_text *out) {
    const char *const *choice = table->choosers();

    mx_text_print(out, "%*s%s: one of ", indent, "", table->chooser);
    for (int i = 0; choice[i]; i++) {
        mx_text_print(out, "%s%s", i ? " | " : "", choice[i]);
    }
    mx_text_print(out, "; required; changes results\n");
    for (int i = 0; choice[i]; i++) {
        for (const mx_option *o = table->choose(choice[i])->option; o && o->name; o++) {
            mx_text with;
            bool told = false;

            for (int before = 0; before < i; before++) {
                told = told || twin(table->choose(choice[before]), o);
            }
            if (told) {
                continue;
            }
            mx_text_init(&with, 64 * 1024);
            mx_text_print(&with, "%s: %s", table->chooser, choice[i]);
            for (int after = i + 1; choice[after]; after++) {
                if (twin(table->choose(choice[after]), o)) {
                    mx_text_print(&with, " | %s", choice[after]);
                }
            }
            put_entry(o, with.data, indent, out);
            if (o->inner) {
                mx_option_schema(o->inner, indent + 2, out);
            }
            mx_text_finish(&with);
        }
    }
}

void mx_option_schema(const mx_option_table *table, int indent, mx_text *out) {
    if (table->chooser) {
        put_choices(table, indent, out);
        return;
    }
    for (const mx_option *o = table->option; o && o->name; o++) {
        put_entry(o, NULL, indent, out);
        if (o->inner) {
            mx_option_schema(o->inner, indent + 2, out);
        }
    }
}
