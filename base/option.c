/* option.c - a map's words into a struct: which are known, which apply, which are missing. */
#include "base/option.h"

#include "base/option_parts.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A map being bound. `outer` is the table of the word that chose `table`, or NULL. */
typedef struct scope {
    const mx_option_table *table, *outer;
    const mx_node *map;
    mx_mark where; /* of what is missing */
    void *config;
    uint64_t bad; /* bit i: table->option[i] has no value to go by */
} scope;

static const char *name_of(const scope *s) {
    return s->outer ? s->outer->name : s->table->name;
}

const mx_option *mx_option_find(const mx_option_table *table, const char *word) {
    for (const mx_option *o = table->option; o && o->name; o++) {
        if (strcmp(o->name, word) == 0) {
            return o;
        }
    }
    return NULL;
}

mx_mark mx_option_place(const mx_node *map, const char *word) {
    const mx_node *node = mx_node_find(map, word);

    return node ? node->at : map ? map->at : MX_NOWHERE;
}

const char *mx_option_said(const mx_node *map, const char *word, mx_mark from) {
    enum { RING = 8 };
    static _Thread_local char ring[RING][160];
    static _Thread_local unsigned next;
    const mx_node *node = mx_node_find(map, word);
    char *text = ring[next++ % RING];

    if (!node || (node->kind == MX_NODE_NULL && !node->text) || !node->at.file) {
        return "the default";
    }
    if (strncmp(node->at.file, "argument ", strlen("argument ")) == 0) {
        snprintf(text, sizeof ring[0], "%s", node->at.file);
    } else if (from.file && strcmp(node->at.file, from.file) == 0) {
        snprintf(text, sizeof ring[0], "line %u", node->at.line);
    } else {
        snprintf(text, sizeof ring[0], "line %u of %s", node->at.line, node->at.file);
    }
    return text;
}

static bool was_removed(const mx_node *node) {
    return node->kind == MX_NODE_NULL && !node->text;
}

/* --- governing words --- */

/* Steps through "word: a | b & other: c": the governing word of the clause at *at; its values from
 * *ret_values up to *ret_end. NULL after the last clause. */
static const mx_option *next_clause(const mx_option_table *table, const mx_option *o,
                                    const char **at, const char **ret_values,
                                    const char **ret_end) {
    const char *from = *at + strspn(*at, " &"), *colon = strchr(from, ':');
    const mx_option *governor = NULL;
    char word[64];

    if (!*from) {
        return NULL;
    }
    assert(colon && colon - from < (int)sizeof word);
    snprintf(word, sizeof word, "%.*s", (int)(colon - from), from);
    governor = mx_option_find(table, word);
    assert(governor && governor < o && "a governing word stands before its dependents");
    *ret_values = colon + 1;
    *ret_end = colon + strcspn(colon, "&");
    *at = *ret_end;
    return governor;
}

static bool is_one_of(const char *value, const char *from, const char *end) {
    while (from < end) {
        size_t length;

        from += strspn(from, " |");
        length = strcspn(from, " |&");
        if (length && length == strlen(value) && memcmp(from, value, length) == 0) {
            return true;
        }
        from += length;
    }
    return false;
}

static int layer_of(const mx_node *map, const char *word) {
    const mx_node *node = mx_node_find(map, word);

    return node ? node->layer : -1;
}

const mx_option *mx_option_hindrance(const mx_option_table *table, const mx_option *o,
                                     const void *config, const mx_node *map, int layer,
                                     uint64_t bad) {
    const mx_option *governor, *first = NULL;
    const char *at = o->only_if, *values, *end;

    while (at && (governor = next_clause(table, o, &at, &values, &end))) {
        const mx_option *hindrance = mx_option_hindrance(table, governor, config, map, layer, bad);

        if (!hindrance && !(bad >> (governor - table->option) & 1)) {
            mx_text value;

            mx_text_init(&value, 64 * 1024);
            mx_option_value(governor, mx_option_slot(governor, config), &value);
            hindrance = is_one_of(value.data, values, end) ? NULL : governor;
            mx_text_finish(&value);
        }
        if (hindrance && layer_of(map, hindrance->name) > layer) {
            return hindrance;
        }
        first = first ? first : hindrance;
    }
    return first;
}

/* A word given under "governor: value", which does not know it. */
static void misplaced(mx_binder *b, const scope *s, const mx_node *node, const char *governor,
                      const char *value, const char *hint) {
    if (layer_of(s->map, governor) > node->layer) {
        if (b->fallen) {
            mx_fallen *fallen = MX_TAKE(b->arena, mx_fallen, 1);

            *fallen = (mx_fallen){ .word = node, .table = s->outer ? s->outer : s->table };
            fallen->because = mx_arena_text(b->arena, "%s.%s: %s", name_of(s), governor, value);
            *b->fallen = fallen;
            b->fallen = &fallen->next;
        }
    } else if (b->problems) {
        mx_problem(b->problems, node->key_at, hint, "'%s' has no effect with %s: %s (%s)",
                   node->key, governor, value, mx_option_said(s->map, governor, node->key_at));
    }
}

/* --- unknown words --- */

static const char *synonym_of(const mx_option_table *table, const char *word) {
    for (const mx_synonym *y = table->synonym; y && y->word; y++) {
        if (strcmp(y->word, word) == 0) {
            return y->here;
        }
    }
    return NULL;
}

typedef struct search {
    const char *word;
    const char *here; /* found: how it is called */
} search;

static bool knows(const mx_option_table *table, search *wanted) {
    wanted->here =
        mx_option_find(table, wanted->word) ? wanted->word : synonym_of(table, wanted->word);
    return wanted->here != NULL;
}

/* The table elsewhere in the recipe that knows the word. */
static const mx_option_table *find_elsewhere(const mx_option_table *table,
                                             const mx_option_table *not_here, search *wanted) {
    if (table != not_here && knows(table, wanted)) {
        return table;
    }
    for (const char *const *c = table->choosers ? table->choosers() : NULL; c && *c; c++) {
        if (table != not_here && knows(table->choose(*c), wanted)) {
            return table;
        }
    }
    for (const mx_option *o = table->option; o && o->name; o++) {
        const mx_option_table *found = o->inner ? find_elsewhere(o->inner, not_here, wanted) : NULL;

        if (found) {
            return found;
        }
    }
    return NULL;
}

enum { CANDIDATES_MAX = 256 };
typedef struct candidates {
    const char *word[CANDIDATES_MAX], *here[CANDIDATES_MAX];
    size_t count;
} candidates;

static void add_candidate(candidates *c, const char *word, const char *here) {
    if (c->count < CANDIDATES_MAX) {
        c->word[c->count] = word;
        c->here[c->count++] = here;
    }
}

static void add_candidates(candidates *c, const mx_option_table *table) {
    if (table->chooser) {
        add_candidate(c, table->chooser, table->chooser);
    }
    for (const mx_option *o = table->option; o && o->name; o++) {
        add_candidate(c, o->name, o->name);
    }
    for (const mx_synonym *y = table->synonym; y && y->word; y++) {
        add_candidate(c, y->word, y->here);
    }
}

/* "did you mean 'lora_r'?": among this map's words and their other names; false when none is near.
 */
static bool suggest(const scope *s, const char *word, char *hint, size_t size) {
    candidates c = { .count = 0 };
    const char *near;

    add_candidates(&c, s->table);
    if (s->outer) {
        add_candidates(&c, s->outer);
    }
    near = mx_text_nearest(word, c.word, c.count);
    for (size_t i = 0; near && i < c.count; i++) {
        if (c.word[i] == near) {
            snprintf(hint, size, "did you mean '%s'?", c.here[i]);
            return true;
        }
    }
    return false;
}

/* A word that other choices of the governing word know (top_k under method: lora). */
static bool belongs_to_another_choice(mx_binder *b, const scope *s, const mx_node *node) {
    char hint[200];
    mx_text names;
    bool any;

    mx_text_init(&names, 64 * 1024);
    for (const char *const *c = s->outer ? s->outer->choosers() : NULL; c && *c; c++) {
        if (mx_option_find(s->outer->choose(*c), node->key)) {
            mx_text_print(&names, "%s%s", names.length ? ", " : "", *c);
        }
    }
    any = names.length > 0;
    if (any) {
        snprintf(hint, sizeof hint, "it belongs to %s: %s", s->outer->chooser, names.data);
        misplaced(b, s, node, s->outer->chooser, s->table->name, hint);
    }
    mx_text_finish(&names);
    return any;
}

static void unknown(mx_binder *b, const scope *s, const mx_node *node) {
    const char *here = synonym_of(s->table, node->key);
    const mx_option_table *elsewhere;
    search wanted = { .word = node->key };
    char hint[200] = "";

    if (!here && s->outer) {
        here = synonym_of(s->outer, node->key);
    }
    if (!here && belongs_to_another_choice(b, s, node)) {
        return;
    }
    if (!b->problems) {
        return;
    }
    if (here) {
        mx_problem(b->problems, node->key_at, NULL, "'%s' is called %s here", node->key, here);
        return;
    }
    elsewhere = find_elsewhere(b->root, s->outer ? s->outer : s->table, &wanted);
    if (elsewhere && strcmp(wanted.here, node->key) == 0) {
        snprintf(hint, sizeof hint, "it is a word of %s", elsewhere->name);
    } else if (elsewhere) {
        snprintf(hint, sizeof hint, "it is called %s in %s", wanted.here, elsewhere->name);
    } else {
        suggest(s, node->key, hint, sizeof hint);
    }
    mx_problem(b->problems, node->key_at, hint, "unknown word '%.100s' in %s", node->key,
               name_of(s));
}

/* --- one map --- */

static void missing(mx_binder *b, const scope *s, const char *word, const char *help) {
    if (b->problems) {
        mx_problem(b->problems, s->where, help, "%s is missing in %s", word, name_of(s));
    }
}

static void bind_word(mx_binder *b, scope *s, const mx_option *o) {
    const mx_node *node = mx_node_find(s->map, o->name);
    const mx_option *governor;
    void *slot = mx_option_slot(o, s->config);
    uint64_t bit = (uint64_t)1 << (o - s->table->option);

    node = node && was_removed(node) ? NULL : node;
    governor = mx_option_hindrance(s->table, o, s->config, s->map, node ? node->layer : 0, s->bad);
    if (node && governor) {
        char hint[200];

        mx_text value;

        mx_text_init(&value, 64 * 1024);
        mx_option_value(governor, mx_option_slot(governor, s->config), &value);
        snprintf(hint, sizeof hint, "it is for %s", o->only_if);
        misplaced(b, s, node, governor->name, value.data, hint);
        mx_text_finish(&value);
        return;
    }
    if (o->flags & MX_UNBUILT) {
        if (node && b->problems) {
            mx_problem(b->problems, node->key_at, NULL, "'%s' is not built yet", o->name);
        }
        return;
    }
    if (node) {
        s->bad |= mx_option_read(b, o, node, slot) ? 0 : bit;
    } else if (!governor && (o->flags & MX_REQUIRED)) {
        s->bad |= bit;
        missing(b, s, o->name, o->help);
    } else if (!governor && o->type == MX_TABLE) {
        mx_option_bind_map(b, o->inner, NULL, s->where, slot); /* it may miss a word too */
    }
}

/* Does a sentence speak of a word? */
static bool mentions(const char *text, const char *word) {
    size_t length = strlen(word);

    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
        unsigned char before = at == text ? ' ' : (unsigned char)at[-1],
                      after = (unsigned char)at[length];

        if (!isalnum(before) && before != '_' && !isalnum(after) && after != '_') {
            return true;
        }
    }
    return false;
}

/* The room's own check sees presets where a value was refused: what it says of such a word is not
 * passed on. */
static void check(mx_binder *b, const scope *s) {
    mx_problems found;

    if (!s->table->check || !b->problems) {
        return;
    }
    mx_problems_init(&found);
    s->table->check(s->config, s->map, &found);
    for (size_t i = 0; i < found.kept; i++) {
        const mx_status *p = &found.item[i];
        bool beside = false;

        for (const mx_option *o = s->table->option; o && o->name; o++) {
            beside =
                beside || ((s->bad >> (o - s->table->option) & 1) && mentions(p->text, o->name));
        }
        if (!beside) {
            mx_problem(b->problems, p->at.file ? p->at : s->where, p->hint, "%s", p->text);
        }
    }
    mx_problems_finish(&found);
}

static void bind_scope(mx_binder *b, scope *s) {
    size_t words = 0;

    for (const mx_option *o = s->table->option; o && o->name; o++) {
        assert(++words <= MX_OPTION_WORDS_MAX);
        mx_option_preset(b, o, mx_option_slot(o, s->config));
    }
    for (const mx_node *n = s->map ? s->map->child : NULL; n; n = n->next) {
        bool governs = s->outer && strcmp(n->key, s->outer->chooser) == 0;

        if (!governs && !mx_option_find(s->table, n->key) && !was_removed(n)) {
            unknown(b, s, n);
        }
    }
    for (const mx_option *o = s->table->option; o && o->name; o++) {
        bind_word(b, s, o);
    }
    check(b, s);
    (void)words;
}

/* The words of a map that one of its words chooses. When that word is missing or wrong, nothing is
 * said of the others. */
static void bind_chosen(mx_binder *b, const mx_option_table *table, scope *s) {
    mx_chosen *chosen = s->config;
    const mx_node *node = mx_node_find(s->map, table->chooser);
    mx_option word = { .name = table->chooser, .type = MX_ENUM, .choices = table->choosers() };
    int index;

    *chosen = (mx_chosen){ 0 };
    if (!node || was_removed(node)) {
        mx_text names;

        mx_text_init(&names, 64 * 1024);
        mx_option_describe(&word, &names);
        missing(b, s, table->chooser, names.data);
        mx_text_finish(&names);
        return;
    }
    if (!mx_option_read(b, &word, node, &index)) {
        return;
    }
    chosen->table = table->choose(word.choices[index]);
    chosen->config = mx_arena_take(b->arena, chosen->table->size);
    s->table = chosen->table;
    s->outer = table;
    s->config = chosen->config;
    bind_scope(b, s);
}

void mx_option_bind_map(mx_binder *b, const mx_option_table *table, const mx_node *map,
                        mx_mark where, void *config) {
    scope s = { .table = table, .map = map, .where = where, .config = config };

    if (map && map->key) {
        s.where = map->key_at;
    } else if (map && map->at.file && b->root == table) {
        s.where = (mx_mark){ .file = map->at.file }; /* the recipe as a whole */
    }
    if (table->chooser) {
        bind_chosen(b, table, &s);
    } else {
        bind_scope(b, &s);
    }
}

void mx_option_bind(const mx_option_table *table, const mx_node *map, void *config, mx_arena *arena,
                    mx_problems *problems, mx_fallen **fallen) {
    mx_binder b = { .root = table, .arena = arena, .problems = problems, .fallen = fallen };

    while (b.fallen && *b.fallen) {
        b.fallen = &(*b.fallen)->next;
    }
    mx_option_bind_map(&b, table, map, map ? map->at : MX_NOWHERE, config);
}
