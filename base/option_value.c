/* option_value.c - one value: from its node into its slot, judged by type, range and choices. */
#include "base/option_parts.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#define WHOLE_MAX 9007199254740992.0 /* 2^53: whole numbers up to it are doubles exactly */

__attribute__((format(printf, 4, 5))) static bool wrong(mx_binder *b, mx_mark at, const char *hint,
                                                        const char *fmt, ...) {
    char text[sizeof((mx_status *)0)->text];
    va_list args;

    if (b->problems) {
        va_start(args, fmt);
        vsnprintf(text, sizeof text, fmt, args);
        va_end(args);
        mx_problem(b->problems, at, hint, "%s", text);
    }
    return false;
}

void mx_option_describe(const mx_option *o, mx_text *out) {
    switch (o->type) {
    case MX_BOOL:
        mx_text_print(out, "true or false");
        break;
    case MX_INT:
        mx_text_print(out, "a whole number");
        break;
    case MX_REAL:
        mx_text_print(out, "a number");
        break;
    case MX_TEXT:
        mx_text_print(out, "a text");
        break;
    case MX_ENUM:
        mx_text_print(out, "one of: ");
        for (int i = 0; o->choices[i]; i++) {
            mx_text_print(out, "%s%s", i ? ", " : "", o->choices[i]);
        }
        break;
    case MX_SET:
    case MX_TEXTS:
    case MX_LIST:
        mx_text_print(out, "a list, like [a, b]");
        break;
    case MX_TABLE:
        mx_text_print(out, "words of its own, one on each line below it");
        break;
    case MX_TREE:
        mx_text_print(out, "a map or a list");
        break;
    }
    if (o->flags & MX_AUTO) {
        mx_text_print(out, ", or auto");
    }
}

/* A value of the wrong kind: nothing, a list, a map, a single value. */
static bool wrong_kind(mx_binder *b, const mx_option *o, const mx_node *node) {
    mx_text must;

    if (!b->problems) {
        return false;
    }
    mx_text_init(&must, 64 * 1024);
    mx_option_describe(o, &must);
    if (node->kind == MX_NODE_NULL) {
        wrong(b,
              node->text && node->text[0] ? node->at
              : node->key                 ? node->key_at
                                          : node->at,
              NULL, "%s has no value; it must be %s", o->name, must.data);
    } else if (node->kind == MX_NODE_TEXT) {
        wrong(b, node->at, NULL, "%s is '%.100s', but must be %s", o->name, node->text, must.data);
    } else {
        wrong(b, node->at, NULL, "%s is a %s, but must be %s", o->name,
              node->kind == MX_NODE_LIST ? "list" : "map", must.data);
    }
    mx_text_finish(&must);
    return false;
}

/* --- numbers --- */

void mx_option_range(const mx_option *o, mx_text *out) {
    bool open_min = o->flags & MX_OPEN_MIN, open_max = o->flags & MX_OPEN_MAX;

    if (isfinite(o->min)) {
        mx_text_print(out, "%s %.15g", open_min ? "above" : "at least", o->min);
    }
    if (isfinite(o->max)) {
        mx_text_print(out, "%s%s %.15g", isfinite(o->min) ? " and " : "",
                      open_max ? "below" : "at most", o->max);
    }
}

static bool in_range(const mx_option *o, double value) {
    if (!mx_option_bounded(o)) {
        return true;
    }
    return (o->flags & MX_OPEN_MIN ? value > o->min : value >= o->min) &&
           (o->flags & MX_OPEN_MAX ? value < o->max : value <= o->max);
}

static bool wrong_range(mx_binder *b, const mx_option *o, const mx_node *node) {
    mx_text range;

    mx_text_init(&range, 1024);
    mx_option_range(o, &range);
    wrong(b, node->at, NULL, "%s is %.100s, but must be %s", o->name, node->text, range.data);
    mx_text_finish(&range);
    return false;
}

/* How YAML loaders disagree about what looks like a number; NULL when it is none of the traps. */
static const char *number_trap(const char *text) {
    const char *digits = text + (*text == '+' || *text == '-');

    if (digits[0] == '0' && digits[1] && strchr("xXoObB", digits[1])) {
        return "write it as a decimal number";
    }
    if (digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9') {
        return "some read a number with a leading 0 as octal; write it without";
    }
    if (*digits >= '0' && *digits <= '9' && text[strspn(text, "+-.0123456789eE_,")] == '\0') {
        return strchr(text, '_')   ? "write it without '_'"
               : strchr(text, ',') ? "write it without ','"
                                   : NULL;
    }
    digits += *digits == '.';
    if (strcasecmp(digits, "inf") == 0 || strcasecmp(digits, "infinity") == 0 ||
        strcasecmp(digits, "nan") == 0) {
        return "it must be a finite number";
    }
    return NULL;
}

/* The number of a node, or false with a problem. */
static bool read_number(mx_binder *b, const mx_option *o, const mx_node *node, double *ret,
                        int64_t *ret_whole) {
    const char *trap = number_trap(node->text);
    bool whole;

    if (node->quoted) {
        return wrong(b, node->at, NULL,
                     "%s is a quoted text, but must be a %snumber: take the quotes away", o->name,
                     o->type == MX_INT ? "whole " : "");
    }
    if (trap) {
        return wrong(b, node->at, NULL, "%s is %.100s: %s", o->name, node->text, trap);
    }
    whole = mx_text_to_int64(node->text, ret_whole);
    if (!mx_text_to_double(node->text, ret)) {
        return wrong_kind(b, o, node);
    }
    if (o->type == MX_INT && !whole) { /* 1e3 is a whole number too */
        if (*ret != floor(*ret)) {
            return wrong(b, node->at, NULL, "%s is %.100s, but must be a whole number", o->name,
                         node->text);
        }
        if (fabs(*ret) > WHOLE_MAX) {
            return wrong(b, node->at, NULL, "%s is %.100s, which is too large", o->name,
                         node->text);
        }
        *ret_whole = (int64_t)*ret;
    }
    if (o->type == MX_INT && *ret_whole == MX_AUTO_INT) {
        return wrong(b, node->at, NULL, "%s is %.100s, which is too large", o->name, node->text);
    }
    return in_range(o, o->type == MX_INT ? (double)*ret_whole : *ret) || wrong_range(b, o, node);
}

/* --- words --- */

static bool read_bool(mx_binder *b, const mx_option *o, const mx_node *node, bool *slot) {
    static const char *const other[] = { "yes",   "no", "on", "off", "true",
                                         "false", "y",  "n",  "1",   "0" };

    if (!node->quoted && (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0)) {
        *slot = node->text[0] == 't';
        return true;
    }
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        if (strcasecmp(node->text, other[i]) == 0) {
            return wrong(b, node->at, NULL, "%s is %s%s: write true or false", o->name, node->text,
                         node->quoted ? " in quotes" : "");
        }
    }
    return wrong_kind(b, o, node);
}

/* The index of a text among the choices; -1 with a problem. */
static int read_choice(mx_binder *b, const mx_option *o, const mx_node *node) {
    size_t count = 0;
    const char *near;
    char hint[128] = "";
    mx_text all;

    for (; o->choices[count]; count++) {
        if (strcmp(o->choices[count], node->text) == 0) {
            return (int)count;
        }
    }
    if (!b->problems) {
        return -1;
    }
    near = mx_text_nearest(node->text, o->choices, count);
    if (near) {
        snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    }
    mx_text_init(&all, 64 * 1024);
    for (size_t i = 0; i < count; i++) {
        mx_text_print(&all, "%s%s", i ? ", " : "", o->choices[i]);
    }
    wrong(b, node->at, hint, "%s '%.100s' is none of: %s%s", o->name, node->text, all.data,
          o->flags & MX_AUTO ? ", auto" : "");
    mx_text_finish(&all);
    return -1;
}

/* --- lists --- */

static size_t count_items(const mx_node *list) {
    size_t count = 0;

    for (const mx_node *n = list->child; n; n = n->next) {
        count++;
    }
    return count;
}

static bool enough_items(mx_binder *b, const mx_option *o, const mx_node *list) {
    double count = (double)count_items(list);

    if (!mx_option_bounded(o) || (count >= o->min && count <= o->max)) {
        return true;
    }
    if (count == 0) {
        return wrong(b, list->at, NULL, "%s is an empty list", o->name);
    }
    return wrong(b, list->at, NULL, "%s has %g item%s, but must have at %s %g", o->name, count,
                 count == 1 ? "" : "s", count < o->min ? "least" : "most",
                 count < o->min ? o->min : o->max);
}

static bool read_set(mx_binder *b, const mx_option *o, const mx_node *list, uint64_t *slot) {
    uint64_t set = 0;
    bool good = true;

    for (const mx_node *n = list->child; n; n = n->next) {
        int i;

        if (n->kind != MX_NODE_TEXT) {
            good = wrong(b, n->at, NULL, "an item of %s must be a single word", o->name);
            continue;
        }
        i = read_choice(b, o, n);
        assert(i < 63);
        if (i >= 0 && (set >> i & 1)) {
            good = wrong(b, n->at, NULL, "%s names '%s' twice", o->name, n->text);
        }
        good = good && i >= 0;
        set |= i >= 0 ? (uint64_t)1 << i : 0;
    }
    if (good) {
        *slot = set;
    }
    return good;
}

static bool read_texts(mx_binder *b, const mx_option *o, const mx_node *list, mx_texts *slot) {
    size_t count = count_items(list);
    mx_texts texts = { .item = MX_TAKE(b->arena, const char *, count),
                       .at = MX_TAKE(b->arena, mx_mark, count) };
    bool good = true;

    for (const mx_node *n = list->child; n; n = n->next) {
        if (n->kind != MX_NODE_TEXT) {
            good = wrong(b, n->at, NULL, "an item of %s must be a single text", o->name);
            continue;
        }
        texts.item[texts.count] = n->text;
        texts.at[texts.count++] = n->at;
    }
    if (good) {
        *slot = texts;
    }
    return good;
}

/* arc_easy stands for {task: arc_easy}. */
static const mx_node *spelled_out(mx_binder *b, const char *word, const mx_node *text) {
    mx_node *map = MX_TAKE(b->arena, mx_node, 1), *value = MX_TAKE(b->arena, mx_node, 1);

    *value = *text;
    value->key = word;
    value->key_at = text->at;
    value->next = NULL;
    *map = (mx_node){ .kind = MX_NODE_MAP, .at = text->at, .layer = text->layer, .child = value };
    return map;
}

static bool read_maps(mx_binder *b, const mx_option *o, const mx_node *list, mx_list *slot) {
    size_t count = count_items(list);
    mx_list items = { .item = mx_arena_take(b->arena, count * o->inner->size),
                      .at = MX_TAKE(b->arena, mx_mark, count) };
    bool good = true;

    for (const mx_node *n = list->child; n; n = n->next) {
        const mx_node *item =
            n->kind == MX_NODE_TEXT && o->inner->bare ? spelled_out(b, o->inner->bare, n) : n;

        if (item->kind != MX_NODE_MAP) {
            good = wrong(b, n->at, NULL, "an item of %s must be %s{word: value, ...}", o->name,
                         o->inner->bare ? "a name or " : "");
            continue;
        }
        mx_option_bind_map(b, o->inner, item, n->at,
                           (char *)items.item + items.count * o->inner->size);
        items.at[items.count++] = n->at;
    }
    *slot = items;
    return good;
}

/* --- all types --- */

static bool read_auto(const mx_option *o, void *slot) {
    switch (o->type) {
    case MX_INT:
        *(int64_t *)slot = MX_AUTO_INT;
        return true;
    case MX_REAL:
        *(double *)slot = NAN;
        return true;
    case MX_TEXT:
        *(const char **)slot = NULL;
        return true;
    case MX_ENUM:
        *(int *)slot = -1;
        return true;
    case MX_SET:
        *(uint64_t *)slot = MX_AUTO_SET;
        return true;
    default:
        assert(!"MX_AUTO is for numbers, texts, choices and sets");
        return false;
    }
}

static bool read_scalar(mx_binder *b, const mx_option *o, const mx_node *node, void *slot) {
    int64_t whole;
    double value;
    int choice;

    switch (o->type) {
    case MX_BOOL:
        return read_bool(b, o, node, slot);
    case MX_INT:
        if (!read_number(b, o, node, &value, &whole)) {
            return false;
        }
        *(int64_t *)slot = whole;
        return true;
    case MX_REAL:
        if (!read_number(b, o, node, &value, &whole)) {
            return false;
        }
        *(double *)slot = value;
        return true;
    case MX_TEXT:
        if (!node->text[0] && (o->flags & MX_REQUIRED)) {
            return wrong(b, node->at, NULL, "%s is empty", o->name);
        }
        *(const char **)slot = node->text;
        return true;
    case MX_ENUM:
        choice = read_choice(b, o, node);
        if (choice < 0) {
            return false;
        }
        *(int *)slot = choice;
        return true;
    default:
        return wrong_kind(b, o, node);
    }
}

bool mx_option_read(mx_binder *b, const mx_option *o, const mx_node *node, void *slot) {
    bool list = o->type == MX_SET || o->type == MX_TEXTS || o->type == MX_LIST;

    if (o->type == MX_TABLE) {
        if (node->kind != MX_NODE_MAP) {
            return wrong_kind(b, o, node);
        }
        mx_option_bind_map(b, o->inner, node, node->at, slot);
        return true; /* what is wrong inside was told inside */
    }
    if (o->type == MX_TREE && (node->kind == MX_NODE_MAP || node->kind == MX_NODE_LIST)) {
        *(const mx_node **)slot = node;
        return true;
    }
    if ((o->flags & MX_AUTO) && node->kind == MX_NODE_TEXT && !node->quoted &&
        strcmp(node->text, "auto") == 0) {
        return read_auto(o, slot);
    }
    if (node->kind == MX_NODE_NULL && node->text[0] && o->type == MX_TEXT && !o->preset &&
        !(o->flags & MX_REQUIRED)) {
        *(const char **)slot = NULL; /* `null` takes an inherited text away */
        return true;
    }
    if (node->kind == MX_NODE_TEXT && !list) {
        return read_scalar(b, o, node, slot);
    }
    if (node->kind != MX_NODE_LIST || !list) {
        return wrong_kind(b, o, node);
    }
    if (!enough_items(b, o, node)) {
        return false;
    }
    return o->type == MX_SET     ? read_set(b, o, node, slot)
           : o->type == MX_TEXTS ? read_texts(b, o, node, slot)
                                 : read_maps(b, o, node, slot);
}

void mx_option_preset(mx_binder *b, const mx_option *o, void *slot) {
    static const size_t size[] = {
        [MX_BOOL] = sizeof(bool),      [MX_INT] = sizeof(int64_t), [MX_REAL] = sizeof(double),
        [MX_TEXT] = sizeof(char *),    [MX_ENUM] = sizeof(int),    [MX_SET] = sizeof(uint64_t),
        [MX_TEXTS] = sizeof(mx_texts), [MX_LIST] = sizeof(mx_list),
        [MX_TREE] = sizeof(mx_node *)
    };
    mx_binder quiet = { .root = b->root, .arena = b->arena };
    mx_node *node;
    mx_problems problems;
    mx_code code;
    bool good;

    if (o->flags & MX_UNBUILT) {
        return; /* has no field */
    }
    if (o->type == MX_TABLE) {
        mx_option_bind_map(&quiet, o->inner, NULL, MX_NOWHERE, slot);
        return;
    }
    memset(slot, 0, size[o->type]);
    if (!o->preset) {
        return;
    }
    mx_problems_init(&problems);
    code = mx_yaml_parse_value(o->preset, 0, o->name, 0, b->arena, &node, &problems, NULL);
    good = code == MX_OK && mx_option_read(&quiet, o, node, slot);
    mx_problems_finish(&problems);
    assert(good && "a preset breaks its own option's rules");
    (void)good;
}
