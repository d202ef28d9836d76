/* diff.c - see diff.h. */
#include "reports/diff.h"

#include "base/json.h"
#include "base/yaml.h"
#include "reports/sql.h"

#include <string.h>

/* ------------------------------------------------------------------------ pairs of a name and what it is */

typedef struct pair {
    const char *name, *value;
    struct pair *next;
} pair;

typedef struct pairs {
    pair *first, **end;
} pairs;

static void add(pairs *p, const char *name, const char *value, mx_arena *arena) {
    pair *one = MX_TAKE(arena, pair, 1);

    *one = (pair){ name, value, NULL };
    if (!p->first) {
        p->end = &p->first;
    }
    *p->end = one;
    p->end = &one->next;
}

static const char *value_of(const pairs *p, const char *name) {
    for (const pair *one = p->first; one; one = one->next) {
        if (strcmp(one->name, name) == 0) {
            return one->value;
        }
    }
    return NULL;
}

static void row(mx_table *t, const char *what, const char *a, const char *b) {
    mx_table_cell(t, "%s", what);
    mx_table_cell(t, "%s", a ? a : "-");
    mx_table_cell(t, "%s", b ? b : "-");
}

/* Rows for what differs: in the order of a, then what only b has. `counts` may leave names out. */
static int rows(mx_table *t, const char *prefix, const pairs *a, const pairs *b, bool (*counts)(const char *name, void *who), void *who,
                mx_arena *arena) {
    int added = 0;

    for (int side = 0; side < 2; side++) {
        for (const pair *one = side ? b->first : a->first; one; one = one->next) {
            const char *other = value_of(side ? a : b, one->name);
            bool same = other && strcmp(other, one->value) == 0;

            if (same || (side && other) || (counts && !counts(one->name, who))) {
                continue;
            }
            row(t, mx_arena_text(arena, "%s%s", prefix, one->name), side ? NULL : one->value, side ? one->value : other);
            added++;
        }
    }
    return added;
}

/* ------------------------------------------------------------------------ recipes */

static bool flat(const mx_node *list) {
    for (const mx_node *item = list->child; item; item = item->next) {
        if (item->kind == MX_NODE_LIST || item->kind == MX_NODE_MAP) {
            return false;
        }
    }
    return true;
}

/* A resolved recipe as its words are kept: train.tasks[0].weight, eval.tasks = [a, b]. */
static void words_of(const mx_node *node, const char *path, pairs *p, mx_arena *arena) {
    mx_text list;
    int i = 0;

    switch (node->kind) {
    case MX_NODE_TEXT: add(p, path, node->text, arena); break;
    case MX_NODE_NULL: add(p, path, "null", arena); break;
    case MX_NODE_MAP:
        for (const mx_node *item = node->child; item; item = item->next) {
            words_of(item, mx_arena_text(arena, "%s%s%s", path, *path ? "." : "", item->key), p, arena);
        }
        break;
    case MX_NODE_LIST:
        if (!flat(node)) {
            for (const mx_node *item = node->child; item; item = item->next) {
                words_of(item, mx_arena_text(arena, "%s[%d]", path, i++), p, arena);
            }
            break;
        }
        mx_text_init(&list, 1 << 20);
        for (const mx_node *item = node->child; item; item = item->next) {
            mx_text_print(&list, "%s%s", i++ ? ", " : "", item->text ? item->text : "null");
        }
        add(p, path, mx_arena_text(arena, "[%s]", list.data), arena);
        mx_text_finish(&list);
        break;
    }
}

static mx_code recipe_of(const mx_run_row *r, pairs *ret, mx_arena *arena, mx_status *st) {
    const char *name = mx_arena_text(arena, "recipe of run %lld", (long long)r->run_id);
    mx_problems problems;
    mx_node *root = NULL;
    mx_code code;

    *ret = (pairs){ 0 };
    mx_problems_init(&problems);
    code = mx_yaml_parse(r->recipe, name, 0, arena, &root, &problems, st);
    if (code == MX_E_RECIPE) {
        code = mx_fail(st, MX_E_DATA, MX_NOWHERE, "the %s cannot be read: %.500s", name, problems.kept ? problems.item[0].text : "");
    }
    mx_problems_finish(&problems);
    if (code == MX_OK && root) {
        words_of(root, "", ret, arena);
    }
    return code;
}

/* Pairs from a SELECT of name and value. */
static mx_code read_pairs(mx_store *s, const char *sql, int64_t run_id, pairs *ret, mx_arena *arena, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = (pairs){ 0 };
    MX_TRY(mx_sql_prepare(s, &q, st, sql, "i", run_id));
    while (mx_sql_row(s, q, &code, st)) {
        add(ret, mx_sql_copy(q, 0, arena), mx_sql_copy(q, 1, arena), arena);
    }
    sqlite3_finalize(q);
    return code;
}

typedef struct bearing {
    pairs kept_a, kept_b; /* table words: result-bearing when the run was made, and no default */
    bool (*bears)(const char *word);
} bearing;

static bool word_counts(const char *word, void *who) {
    const bearing *b = who;

    return value_of(&b->kept_a, word) || value_of(&b->kept_b, word) || b->bears(word);
}

static mx_code recipes(mx_store *s, const mx_run_row *a, const mx_run_row *b, bool (*bears)(const char *), mx_arena *arena, mx_table *t,
                       mx_status *st) {
    static const char kept[] = "SELECT word, value FROM words WHERE run_id = ? ORDER BY word";
    bearing who = { .bears = bears };
    pairs of_a, of_b;
    int found;

    MX_TRY(recipe_of(a, &of_a, arena, st));
    MX_TRY(recipe_of(b, &of_b, arena, st));
    MX_TRY(read_pairs(s, kept, a->run_id, &who.kept_a, arena, st));
    MX_TRY(read_pairs(s, kept, b->run_id, &who.kept_b, arena, st));
    found = rows(t, "", &of_a, &of_b, word_counts, &who, arena);
    if (found == 0 && strcmp(a->recipe_hash, b->recipe_hash) != 0) {
        row(t, "what the same words mean to the program", mx_arena_copy(arena, a->recipe_hash, 6), mx_arena_copy(arena, b->recipe_hash, 6));
    }
    return MX_OK;
}

/* ------------------------------------------------------------------------ tasks, data, environment */

static mx_code from_tables(mx_store *s, const mx_run_row *a, const mx_run_row *b, const char *prefix, const char *sql, const char *whole,
                           const char *hash_a, const char *hash_b, mx_arena *arena, mx_table *t, mx_status *st) {
    pairs of_a, of_b;

    MX_TRY(read_pairs(s, sql, a->run_id, &of_a, arena, st));
    MX_TRY(read_pairs(s, sql, b->run_id, &of_b, arena, st));
    if (rows(t, prefix, &of_a, &of_b, NULL, NULL, arena) == 0 && strcmp(hash_a, hash_b) != 0) {
        row(t, whole, mx_arena_text(arena, "sha256 %.12s", hash_a), mx_arena_text(arena, "sha256 %.12s", hash_b));
    }
    return MX_OK;
}

static mx_code environment_of(const mx_run_row *r, pairs *ret, mx_arena *arena, mx_status *st) {
    const char *key, *name = mx_arena_text(arena, "environment of run %lld", (long long)r->run_id);
    json_t *o = NULL, *value;

    *ret = (pairs){ 0 };
    MX_TRY(mx_json_parse(r->environment, strlen(r->environment), name, 1, &o, st));
    json_object_foreach(o, key, value) {
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
        const char *shown = text ? text : json_string_value(value);

        if (shown) {
            add(ret, mx_arena_copy(arena, key, strlen(key)), mx_arena_copy(arena, shown, strlen(shown)), arena);
        }
        free(text);
    }
    json_decref(o);
    return MX_OK;
}

/* The recipe's own word tells of precision; the kernel's release changes no number. */
static bool environment_counts(const char *name, void *who) {
    (void)who;
    return strcmp(name, "precision") != 0 && strcmp(name, "release") != 0;
}

static const char *base_of(const mx_run_row *r, mx_arena *arena) {
    return mx_arena_text(arena, "%s, %s, sha256 %.12s", r->base_name, r->base_description, r->base_hash);
}

static mx_code compare(mx_store *s, const mx_run_row *a, const mx_run_row *b, bool (*bears)(const char *), mx_arena *arena, mx_table *t,
                       mx_status *st) {
    pairs of_a, of_b;

    if (strcmp(a->kind, b->kind) != 0) {
        row(t, "kind of run", a->kind, b->kind);
    }
    if (a->seed != b->seed) {
        row(t, "seed", mx_arena_text(arena, "%lld", (long long)a->seed), mx_arena_text(arena, "%lld", (long long)b->seed));
    }
    if (strcmp(a->base_hash, b->base_hash) != 0) {
        row(t, "base", base_of(a, arena), base_of(b, arena));
    }
    MX_TRY(recipes(s, a, b, bears, arena, t, st));
    MX_TRY(from_tables(s, a, b, "definition of task ",
                       "SELECT task, 'sha256 ' || SUBSTR(MIN(task_hash), 1, 12) FROM evaluations WHERE run_id = ? GROUP BY task",
                       "definitions of tasks", a->tasks_hash, b->tasks_hash, arena, t, st));
    MX_TRY(from_tables(s, a, b, "data of ",
                       "SELECT task || ', ' || split, 'sha256 ' || GROUP_CONCAT(SUBSTR(sha256, 1, 12), ' ') || ', ' || MAX(questions) || ' questions'"
                       " || CASE WHEN MAX(truncated) > 0 THEN ', ' || MAX(truncated) || ' cut' ELSE '' END"
                       " FROM (SELECT * FROM data_files WHERE run_id = ? ORDER BY task, split, path) GROUP BY task, split",
                       "data files", a->data_hash, b->data_hash, arena, t, st));
    MX_TRY(environment_of(a, &of_a, arena, st));
    MX_TRY(environment_of(b, &of_b, arena, st));
    rows(t, "environment: ", &of_a, &of_b, environment_counts, NULL, arena);
    return MX_OK;
}

mx_code mx_diff_runs(mx_store *s, const mx_run_row *a, const mx_run_row *b, bool (*bears)(const char *word), mx_arena *arena, mx_table *ret,
                     mx_status *st) {
    mx_table_init(ret, 3);
    mx_table_cell(ret, "what differs");
    mx_table_cell(ret, "run %lld  %s", (long long)a->run_id, a->name);
    mx_table_cell(ret, "run %lld  %s", (long long)b->run_id, b->name);
    return compare(s, a, b, bears, arena, ret, st);
}
