/* recipe_layers.c - files that extend each other, each in its layer; the deepest is read last and
 * lies lowest. */
#include "runner/recipe_layers.h"

#include "base/file.h"
#include "base/text.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* --- a file that is not there --- */

enum { NAMES_MAX = 512 };
typedef struct names {
    const char *base[NAMES_MAX], *path[NAMES_MAX]; /* "x.yaml"; "configs/x.yaml" */
    size_t count;
} names;

static void add_names(names *n, const char *folder, mx_arena *arena) {
    DIR *dir = opendir(*folder ? folder : ".");
    struct dirent *entry;

    while (dir && (entry = readdir(dir)) && n->count < NAMES_MAX) {
        size_t length = strlen(entry->d_name);

        if (length > 5 && strcmp(entry->d_name + length - 5, ".yaml") == 0) {
            n->base[n->count] = mx_arena_copy(arena, entry->d_name, length);
            n->path[n->count++] = mx_arena_text(arena, "%s%s", folder, entry->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* The recipe that was perhaps meant: a near name beside it, in ./configs, or in the home's configs;
 * NULL: none. */
static const char *suggestion(const char *path, mx_arena *arena) {
    static const char *const folders[] = { "configs/", "configs/sweeps/" };
    names *n = MX_TAKE(arena, names, 1);
    const char *base = base_of(path), *near;
    char *whole;
    size_t length = strlen(base);

    add_names(n, mx_arena_copy(arena, path, (size_t)(base - path)), arena);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        add_names(n, folders[i], arena);
        add_names(n, mx_arena_text(arena, "%s/%s", mx_path_home(arena), folders[i]), arena);
    }
    whole = mx_arena_text(arena, "%s%s", base,
                          length > 5 && strcmp(base + length - 5, ".yaml") == 0 ? "" : ".yaml");
    near = mx_text_nearest(whole, n->base, n->count);
    for (size_t i = 0; near && i < n->count; i++) {
        if (n->base[i] == near) {
            return n->path[i];
        }
    }
    return NULL;
}

/* --- files --- */

typedef struct stack {
    const char *real[MX_EXTENDS_MAX + 1];
    int depth;
} stack;

/* `map` without the word; the rest is shared. */
static mx_node *without(mx_arena *arena, const mx_node *map, const char *word) {
    mx_node *copy = MX_TAKE(arena, mx_node, 1), **tail = &copy->child;

    *copy = *map;
    copy->child = NULL;
    for (const mx_node *n = map->child; n; n = n->next) {
        if (strcmp(n->key, word) != 0) {
            mx_node *kept = MX_TAKE(arena, mx_node, 1);

            *kept = *n;
            kept->next = NULL;
            *tail = kept;
            tail = &kept->next;
        }
    }
    return copy;
}

const char *mx_layers_beside(const char *path, const char *name, mx_arena *arena) {
    const char *base = base_of(path);

    return name[0] == '/' ? name : mx_arena_text(arena, "%.*s%s", (int)(base - path), path, name);
}

static mx_code read_file(stack *s, const char *path, mx_arena *arena, mx_node **ret,
                         mx_problems *problems, mx_status *st);

/* What `path` extends, at `word`; NULL with a problem when it cannot be read. */
static mx_node *read_extended(stack *s, const char *path, const mx_node *word, mx_arena *arena,
                              mx_problems *problems) {
    const char *name, *near;
    char real[PATH_MAX];
    mx_status inner = { 0 };
    mx_node *map;
    mx_code code;

    if (word->kind != MX_NODE_TEXT || !word->text[0]) {
        mx_problem(problems, word->key_at, NULL, "extends must be the name of one file");
        return NULL;
    }
    name = mx_layers_beside(path, word->text, arena);
    if (s->depth == MX_EXTENDS_MAX) {
        mx_problem(problems, word->at, NULL, "more than %d files extend each other",
                   MX_EXTENDS_MAX);
        return NULL;
    }
    for (int i = 0; realpath(name, real) && i < s->depth; i++) {
        if (strcmp(s->real[i], real) == 0) {
            mx_problem(problems, word->at, NULL, "extends comes back to '%s'", word->text);
            return NULL;
        }
    }
    code = read_file(s, name, arena, &map, problems, &inner);
    if (code && code != MX_E_RECIPE) {
        near = suggestion(name, arena);
        mx_problem(problems, word->at,
                   near ? mx_arena_text(arena, "did you mean '%s'?", base_of(near)) : NULL,
                   "extends '%s': %s", name, inner.text);
        return NULL;
    }
    return map;
}

static mx_code read_file(stack *s, const char *path, mx_arena *arena, mx_node **ret,
                         mx_problems *problems, mx_status *st) {
    mx_node *map, *extended;
    const mx_node *word;
    char real[PATH_MAX];
    mx_code code = mx_yaml_read(path, MX_EXTENDS_MAX - s->depth, arena, &map, problems, st);

    *ret = NULL;
    if (code && code != MX_E_RECIPE) {
        return code;
    }
    s->real[s->depth++] = realpath(path, real) ? mx_arena_copy(arena, real, strlen(real)) : "";
    word = mx_node_find(map, "extends");
    if (!word) {
        *ret = map;
        return code;
    }
    extended = read_extended(s, path, word, arena, problems);
    if (extended && map) {
        *ret = mx_node_merge(arena, extended, without(arena, map, "extends"));
    }
    return code;
}

mx_code mx_layers_missing(const char *path, const char *why, mx_arena *arena, mx_status *st) {
    const char *near = suggestion(path, arena);
    mx_code code = mx_fail(st, MX_E_USAGE, (mx_mark){ .file = path }, "%s", why);

    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    }
    return code;
}

mx_code mx_layers_read(const char *path, mx_arena *arena, mx_node **ret, mx_problems *problems,
                       mx_status *st) {
    stack s = { .depth = 0 };
    mx_status inner = { 0 };
    mx_code code = read_file(&s, path, arena, ret, problems, &inner);

    return code && code != MX_E_RECIPE ? mx_layers_missing(path, inner.text, arena, st) : MX_OK;
}

/* --- arguments --- */

typedef struct override {
    const char *name, *text; /* "argument 2", the argument */
    mx_arena *arena;
    mx_problems *problems;
} override;

static mx_mark part(const override *o, const char *from, size_t length) {
    return (mx_mark){ .file = o->name,
                      .text = o->text,
                      .line = 1,
                      .column = (uint32_t)(from - o->text) + 1,
                      .length = (uint32_t)length };
}

static bool is_given(const mx_node *node) {
    return node && !(node->kind == MX_NODE_NULL && !node->text);
}

/* The node of the dotted path in `over`, made where it is not there; NULL with a problem. In
 * *ret_under what lies below. */
static mx_node *make_path(const override *o, mx_node *over, const mx_node *root, const char *path,
                          size_t length, const mx_node **ret_under) {
    const char *at = path, *end = path + length;
    const mx_node *under = root;

    for (;;) {
        size_t word = strcspn(at, ".=");
        const char *key;
        mx_node *node;

        word = at + word > end ? (size_t)(end - at) : word;
        if (word == 0) {
            mx_problem(o->problems, part(o, at, 1), NULL, "a word is missing here");
            return NULL;
        }
        if (memchr(at, '[', word)) {
            mx_problem(o->problems, part(o, at, word), NULL,
                       "a list is replaced whole: word=[a, b]");
            return NULL;
        }
        key = mx_arena_copy(o->arena, at, word);
        under = mx_node_find(under, key);
        node = mx_node_find(over, key);
        if (node && (at + word == end || node->kind != MX_NODE_MAP)) {
            mx_problem(o->problems, part(o, path, length), NULL, "'%.*s' was already given in %s",
                       (int)(at + word - path), path, node->at.file);
            return NULL;
        }
        if (!node) {
            node = mx_node_append(o->arena, over);
            node->layer = MX_LAYER_ARGUMENTS;
            node->kind = MX_NODE_MAP;
            node->key = key;
            node->key_at = node->at = part(o, at, word);
        }
        if (at + word == end) {
            *ret_under = under;
            return node;
        }
        over = node;
        at += word + 1;
    }
}

static void remove_word(const override *o, mx_node *over, const mx_node *root) {
    const char *path = o->text + 1;
    const mx_node *under;
    mx_node *node;

    if (strchr(path, '=')) {
        mx_problem(o->problems, part(o, strchr(path, '='), 1), NULL,
                   "~word takes a word away and has no value");
        return;
    }
    node = make_path(o, over, root, path, strlen(path), &under);
    if (!node) {
        return;
    }
    if (!is_given(under)) {
        mx_problem(o->problems, part(o, path, strlen(path)), NULL, "'%s' is not in the recipe",
                   path);
    }
    node->kind = MX_NODE_NULL; /* its text is NULL: taken away */
}

static void set_word(const override *o, mx_node *over, const mx_node *root) {
    bool adds = o->text[0] == '+';
    const char *path = o->text + adds, *equals = strchr(path, '=');
    const mx_node *under;
    mx_node *node, *value, kept;

    if (!equals) {
        mx_problem(o->problems, part(o, o->text, strlen(o->text)), NULL,
                   "neither word=value, +word=value nor ~word");
        return;
    }
    if ((size_t)(equals - path) == strlen("extends") &&
        strncmp(path, "extends", strlen("extends")) == 0) {
        mx_problem(o->problems, part(o, path, strlen("extends")), NULL,
                   "extends is a file's word, not an argument's");
        return;
    }
    if (mx_yaml_parse_value(o->text, (size_t)(equals + 1 - o->text), o->name, MX_LAYER_ARGUMENTS,
                            o->arena, &value, o->problems, NULL)) {
        return; /* the problem was added */
    }
    node = make_path(o, over, root, path, (size_t)(equals - path), &under);
    if (!node) {
        return;
    }
    if (adds && is_given(under)) {
        mx_problem(o->problems, part(o, path, (size_t)(equals - path)),
                   "leave the + out to change it",
                   "'%.*s' is already in the recipe (line %u of %s)", (int)(equals - path), path,
                   under->at.line, under->at.file);
    }
    kept = *node;
    *node = *value;
    node->key = kept.key;
    node->key_at = kept.key_at;
    node->next = kept.next;
}

mx_node *mx_layers_override(const mx_node *root, const char *const *argument, int count, int first,
                            mx_arena *arena, mx_problems *problems) {
    mx_node *over = MX_TAKE(arena, mx_node, 1);

    *over = (mx_node){ .kind = MX_NODE_MAP, .at = root->at, .layer = MX_LAYER_ARGUMENTS };
    for (int i = 0; i < count; i++) {
        if (!argument[i]) {
            continue;
        }
        override o = { .name = mx_arena_text(arena, "argument %d", first + i),
                       .text = mx_arena_copy(arena, argument[i], strlen(argument[i])),
                       .arena = arena,
                       .problems = problems };

        if (o.text[0] == '~') {
            remove_word(&o, over, root);
        } else {
            set_word(&o, over, root);
        }
    }
    return mx_node_merge(arena, root, over);
}
