/* report_recipes.c - what the recipes say, and in which words they differ. */
#include "base/yaml.h"
#include "reports/report_draft.h"

#include <stdio.h>
#include <string.h>

enum { VARIANTS_IN_TABLE = MX_COLUMNS_MAX - 1 };

/* The resolved recipe's value of a word as `words` names it ("train.tasks[0].weight"); NULL: it has none. */
static const mx_node *node_at(const mx_node *root, const char *word) {
    const mx_node *at = root;

    while (at && *word) {
        size_t n = strcspn(word, ".[");

        if (*word == '[') {
            int64_t index = 0;

            for (word++; *word >= '0' && *word <= '9'; word++) {
                index = index < 1000000 ? 10 * index + (*word - '0') : index;
            }
            at = at->child;
            for (; at && index > 0; index--) {
                at = at->next;
            }
            word += *word == ']';
        } else {
            char key[256];

            snprintf(key, sizeof key, "%.*s", (int)n, word);
            at = mx_node_find(at, key);
            word += n;
        }
        word += *word == '.';
    }
    return at;
}

static const char *value_of(mx_arena *arena, const mx_node *node) {
    const char *text = "[";

    if (!node) {
        return "";
    }
    if (node->kind == MX_NODE_TEXT) {
        return node->text;
    }
    if (node->kind == MX_NODE_NULL) {
        return "null";
    }
    for (const mx_node *c = node->child; c; c = c->next) {
        text = mx_arena_text(arena, "%s%s%s%s%s", text, c == node->child ? "" : ", ", c->key ? c->key : "", c->key ? ": " : "", value_of(arena, c));
    }
    return mx_arena_text(arena, "%s]", text);
}

/* The recipes as trees; one that cannot be read (another version's) is NULL, and its words are those that were stored. */
static mx_node *tree_of(mx_draft *d, const char *recipe) {
    mx_problems problems;
    mx_node *root = NULL;
    mx_status ignored = { 0 };

    mx_problems_init(&problems);
    if (mx_yaml_parse(recipe, "recipe", 0, d->arena, &root, &problems, &ignored) != MX_OK) {
        root = NULL;
    }
    mx_problems_finish(&problems);
    return root;
}

typedef struct recipes {
    const mx_draft_variant **variant;
    mx_node **tree;
    int count;
    mx_asked words, texts;
} recipes;

static const char *word_value(mx_draft *d, const recipes *r, int v, const char *word) {
    const mx_node *node = r->tree[v] ? node_at(r->tree[v], word) : NULL;

    for (int64_t i = 0; i < r->words.rows; i++) {
        if (mx_asked_whole(&r->words, i, 0) == r->variant[v]->run_id[0] && strcmp(mx_asked_text(&r->words, i, 1), word) == 0) {
            return mx_asked_text(&r->words, i, 2);
        }
    }
    return value_of(d->arena, node);
}

static mx_code ask(mx_draft *d, recipes *r, mx_status *st) {
    int64_t *first = MX_TAKE(d->arena, int64_t, d->variants + 1);

    r->variant = MX_TAKE(d->arena, const mx_draft_variant *, d->variants + 1);
    r->tree = MX_TAKE(d->arena, mx_node *, d->variants + 1);
    for (int v = 0; v < d->variants; v++) {
        if (d->variant[v].runs > 0) {
            first[r->count] = d->variant[v].run_id[0];
            r->variant[r->count++] = &d->variant[v];
        }
    }
    MX_TRY(mx_ask(d->store, d->arena, &r->words, st, "words that differ from their defaults",
                  "SELECT run_id, word, value FROM words WHERE run_id IN (%s) ORDER BY word, run_id", mx_draft_numbers(d->arena, first, r->count)));
    MX_TRY(mx_ask(d->store, d->arena, &r->texts, st, "resolved recipes", "SELECT run_id, recipe FROM runs WHERE run_id IN (%s) ORDER BY run_id",
                  mx_draft_numbers(d->arena, first, r->count)));
    for (int v = 0; v < r->count; v++) {
        for (int64_t i = 0; i < r->texts.rows; i++) {
            if (mx_asked_whole(&r->texts, i, 0) == first[v]) {
                r->tree[v] = tree_of(d, mx_asked_text(&r->texts, i, 1));
            }
        }
    }
    return MX_OK;
}

/* Words in which variants differ (several), or which the recipe sets (one). */
static void words_table(mx_draft *d, const recipes *r) {
    const mx_asked *list[] = { &r->words, &r->texts };
    int shown = r->count < VARIANTS_IN_TABLE ? r->count : VARIANTS_IN_TABLE;
    bool several = r->count > 1;
    mx_table t;

    mx_table_init(&t, shown + 1);
    mx_table_cell(&t, "word");
    for (int v = 0; v < shown; v++) {
        mx_table_cell(&t, "%s", several ? r->variant[v]->name : "value");
    }
    for (int64_t i = 0; i < r->words.rows; i++) {
        const char *word = mx_asked_text(&r->words, i, 1);
        bool differs = !several;

        if (i > 0 && strcmp(word, mx_asked_text(&r->words, i - 1, 1)) == 0) {
            continue;
        }
        for (int v = 1; v < r->count && !differs; v++) {
            differs = strcmp(word_value(d, r, v, word), word_value(d, r, 0, word)) != 0;
        }
        for (int v = -1; v < shown && differs; v++) {
            mx_table_cell(&t, "%s", v < 0 ? word : word_value(d, r, v, word));
        }
    }
    if (t.rows > 1) {
        mx_page_table(d->page, "words",
                      !several ? "The words of the recipe that differ from their defaults."
                      : shown < r->count ? mx_arena_text(d->arena, "The words in which the variants' recipes differ, seeds aside: the first %d variants.", shown)
                                         : "The words in which the variants' recipes differ, seeds aside.",
                      &t);
        mx_page_made(d->page, "words", d->runs, several ? "Of each variant's first run; a word that stands at its default is read from the resolved recipe." : "", list, several ? 2 : 1);
    } else if (several) {
        mx_page_words(d->page, "", "The recipes differ in no word that may change results, seeds aside.");
    }
    mx_table_finish(&t);
}

mx_code mx_draft_recipes(mx_draft *d, mx_status *st) {
    recipes r = { 0 };

    MX_TRY(ask(d, &r, st));
    mx_page_section(d->page, "recipes", "Recipes");
    words_table(d, &r);
    for (int v = 0; v < r.count; v++) {
        for (int64_t i = 0; i < r.texts.rows; i++) {
            if (mx_asked_whole(&r.texts, i, 0) == r.variant[v]->run_id[0]) {
                mx_page_folded(d->page, mx_arena_text(d->arena, "resolved recipe of %s, run %lld", r.variant[v]->name, (long long)r.variant[v]->run_id[0]),
                               mx_asked_text(&r.texts, i, 1));
            }
        }
    }
    return MX_OK;
}
