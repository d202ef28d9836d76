/* sweep_words.c - what a sweep's file says: variants, axes, exclusions, seeds. */
#include "runner/sweep_parts.h"

#include "base/file.h"
#include "datasets/task.h"
#include "eval/metric.h"

#include <stdlib.h>
#include <string.h>

/* -------------------------------------------------------------------- the file's own words */

typedef struct match_words {
    const char *params, *flops;
} match_words;

/* clang-format off */
static const mx_option match_options[] = {
    { .name = "params", .type = MX_TEXT, .offset = offsetof(match_words, params),
      .help = "the variant whose trained values, routers included, this one comes nearest to" },
    { .name = "flops", .type = MX_TEXT, .offset = offsetof(match_words, flops),
      .help = "the variant whose FLOPs per token this one comes nearest to" },
    { 0 },
};
static const mx_synonym match_synonyms[] = {
    { "parameters", "params" }, { "values", "params" }, { "trained", "params" }, { "budget", "params" }, { 0 },
};
/* clang-format on */

static void check_match(const void *config, const mx_node *map, mx_problems *problems) {
    const match_words *m = config;

    if (map && !m->params == !m->flops) {
        mx_problem(problems, map->key_at, "match: {params: VARIANT} or match: {flops: VARIANT}", "match must name one of params and flops");
    }
}

static const mx_option_table match_table = {
    .name = "match", .option = match_options, .synonym = match_synonyms, .size = sizeof(match_words), .check = check_match,
};

typedef struct variant_words {
    const char *name, *recipe;
    const mx_node *set;
    match_words match;
} variant_words;

/* clang-format off */
static const mx_option variant_options[] = {
    { .name = "name", .type = MX_TEXT, .offset = offsetof(variant_words, name),
      .help = "how tables call it; a variant with a recipe of its own may leave it out" },
    { .name = "recipe", .type = MX_TEXT, .offset = offsetof(variant_words, recipe),
      .help = "another recipe than the sweep's, by its place beside this file" },
    { .name = "set", .type = MX_TREE, .offset = offsetof(variant_words, set),
      .help = "recipe words of this variant; keys may be dotted" },
    { .name = "match", .type = MX_TABLE, .offset = offsetof(variant_words, match), .inner = &match_table,
      .help = "solve adapter.lora_r for the budget of another variant" },
    { 0 },
};
static const mx_synonym variant_synonyms[] = {
    { "words", "set" }, { "overrides", "set" }, { "label", "name" }, { "id", "name" }, { "extends", "recipe" }, { 0 },
};
/* clang-format on */

static const mx_option_table variant_table = {
    .name = "a variant", .option = variant_options, .synonym = variant_synonyms, .size = sizeof(variant_words),
};

typedef struct sweep_words {
    const char *recipe;
    const mx_node *set, *grid, *zip, *exclude;
    mx_list variants, include;
    mx_texts seeds;
    const char *baseline;
    int protocol, metric;
} sweep_words;

/* clang-format off */
static const mx_option sweep_options[] = {
    { .name = "recipe", .type = MX_TEXT, .offset = offsetof(sweep_words, recipe), .flags = MX_REQUIRED,
      .help = "the base recipe, by its place beside this file" },
    { .name = "set", .type = MX_TREE, .offset = offsetof(sweep_words, set),
      .help = "recipe words laid on it for every variant; keys may be dotted" },
    { .name = "variants", .type = MX_LIST, .offset = offsetof(sweep_words, variants), .min = 1, .max = MX_MEMBERS_MAX,
      .inner = &variant_table, .help = "named variants: {name: lora, set: {adapter.method: lora}}" },
    { .name = "grid", .type = MX_TREE, .offset = offsetof(sweep_words, grid),
      .help = "every combination of these words' values, times every variant: {adapter.lora_r: [8, 16]}" },
    { .name = "zip", .type = MX_TREE, .offset = offsetof(sweep_words, zip),
      .help = "lists of one length, walked together: one more axis" },
    { .name = "exclude", .type = MX_TREE, .offset = offsetof(sweep_words, exclude),
      .help = "combinations left out: a list of maps, of which every word agrees" },
    { .name = "include", .type = MX_LIST, .offset = offsetof(sweep_words, include), .inner = &variant_table,
      .help = "variants added after the product" },
    { .name = "seeds", .type = MX_TEXTS, .offset = offsetof(sweep_words, seeds), .min = 1, .max = MX_MEMBERS_MAX,
      .help = "each variant runs with each; default: the recipe's own" },
    { .name = "baseline", .type = MX_TEXT, .offset = offsetof(sweep_words, baseline),
      .help = "the variant that compare and report compare with" },
    { .name = "protocol", .type = MX_ENUM, .offset = offsetof(sweep_words, protocol), .flags = MX_AUTO, .preset = "auto",
      .choices = mx_protocol_names, .help = "of the primary comparison; auto: the recipe's first" },
    { .name = "metric", .type = MX_ENUM, .offset = offsetof(sweep_words, metric), .flags = MX_AUTO, .preset = "auto",
      .choices = mx_metric_names, .help = "of the primary comparison; auto: acc_norm for loglikelihood, acc for label_logits" },
    { 0 },
};
static const mx_synonym sweep_synonyms[] = {
    { "base", "recipe" }, { "extends", "recipe" }, { "base_recipe", "recipe" }, { "seed", "seeds" }, { "matrix", "grid" },
    { "axes", "grid" }, { "parameters", "grid" }, { "overrides", "set" }, { "runs", "variants" }, { "variant", "variants" }, { 0 },
};
/* clang-format on */

static const mx_option_table sweep_table = {
    .name = "the sweep", .option = sweep_options, .synonym = sweep_synonyms, .size = sizeof(sweep_words),
};

/* -------------------------------------------------------------------- recipe words in maps of the sweep */

static mx_node *deep_copy(mx_arena *arena, const mx_node *from, int layer) {
    mx_node *to = MX_TAKE(arena, mx_node, 1), **tail = &to->child;

    *to = *from;
    to->layer = layer;
    to->next = to->child = NULL;
    for (const mx_node *n = from->child; n; n = n->next) {
        *tail = deep_copy(arena, n, layer);
        tail = &(*tail)->next;
    }
    return to;
}

static mx_node *empty_map(mx_arena *arena, mx_mark at, int layer) {
    mx_node *map = MX_TAKE(arena, mx_node, 1);

    *map = (mx_node){ .kind = MX_NODE_MAP, .at = at, .layer = layer };
    return map;
}

void mx_sweep_lay(mx_arena *arena, mx_problems *problems, mx_node *map, const char *word, mx_mark at, const mx_node *value,
                  int layer) {
    const char *from = word;

    for (;;) {
        size_t length = strcspn(from, ".");
        bool last = from[length] == '\0', is_map = !last || value->kind == MX_NODE_MAP;
        mx_mark here = at;
        mx_node *node, made;

        if (length == 0) {
            mx_problem(problems, at, NULL, "a word is missing in '%s'", word);
            return;
        }
        if (!last || from != word) {
            here.column += (uint32_t)(from - word);
            here.length = (uint32_t)length;
        }
        node = mx_node_find(map, mx_arena_copy(arena, from, length));
        if (node && !(is_map && node->kind == MX_NODE_MAP)) {
            mx_problem(problems, at, NULL, "'%.*s' was already given at line %u", (int)(from + length - word), word,
                       node->key_at.line);
            return;
        }
        if (!node) {
            made = last && !is_map ? *deep_copy(arena, value, layer)
                                   : (mx_node){ .kind = MX_NODE_MAP, .at = last ? value->at : here, .layer = layer };
            made.key = mx_arena_copy(arena, from, length);
            made.key_at = here;
            made.next = NULL;
            node = mx_node_append(arena, map);
            *node = made;
        }
        if (last) {
            for (const mx_node *n = is_map ? value->child : NULL; n; n = n->next) {
                mx_sweep_lay(arena, problems, node, n->key, n->key_at, n, layer);
            }
            return;
        }
        map = node;
        from += length + 1;
    }
}

/* Is there something before, between and after its dots? Else a problem. */
static bool is_whole(mx_sweep_reader *r, const char *word, mx_mark at) {
    size_t length = strlen(word);

    if (length > 0 && word[0] != '.' && word[length - 1] != '.' && !strstr(word, "..")) {
        return true;
    }
    mx_problem(r->problems, at, NULL, "a word is missing in '%s'", word);
    return false;
}

/* Words that are the sweep's own business. `in_set`: the map that holds for every variant. */
bool mx_sweep_may_set(mx_sweep_reader *r, const char *word, mx_mark at, bool in_set) {
    static const struct {
        const char *word, *why, *hint;
        bool in_set; /* allowed there */
    } own[] = {
        { "extends", "extends is a recipe's word", "a variant may name a recipe: {name: x, recipe: other.yaml}", false },
        { "name", "runs are called by their variants", "variants: [{name: x, set: {...}}]", false },
        { "seed", "seeds are walked by every variant", "seeds: [1, 2, 3]", true },
        { "db", "a sweep has one database", "set: {db: FILE} holds for every variant", true },
    };

    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strcmp(own[i].word, word) == 0 && !(in_set && own[i].in_set)) {
            mx_problem(r->problems, at, own[i].hint, "'%s' cannot be set here: %s", word, own[i].why);
            return false;
        }
    }
    return is_whole(r, word, at);
}

/* A map of recipe words as an overlay; NULL when there is none. */
static const mx_node *overlay(mx_sweep_reader *r, const mx_node *map, int layer) {
    mx_node *to;

    if (!map) {
        return NULL;
    }
    if (map->kind != MX_NODE_MAP) {
        mx_problem(r->problems, map->at, NULL, "%s must be a map of recipe words: {adapter.lora_r: 16}", map->key);
        return NULL;
    }
    to = empty_map(r->arena, map->at, layer);
    for (const mx_node *n = map->child; n; n = n->next) {
        if (mx_sweep_may_set(r, n->key, n->key_at, layer == MX_LAYER_SET)) {
            mx_sweep_lay(r->arena, r->problems, to, n->key, n->key_at, n, layer);
        }
    }
    return to;
}

/* -------------------------------------------------------------------- axes */

static bool is_walked(const mx_sweep_reader *r, const char *word) {
    for (int a = 0; a < r->axes; a++) {
        for (int w = 0; w < r->axis[a].words; w++) {
            if (strcmp(r->axis[a].word[w], word) == 0) {
                return true;
            }
        }
    }
    return false;
}

void mx_sweep_axis_word(mx_sweep_reader *r, mx_axis *axis, const char *word, mx_mark at, const mx_node *list) {
    int64_t count = 0, n = 0;
    int w = axis->words;
    const mx_node **value;

    for (const mx_node *v = list->child; v; v = v->next) {
        count++;
    }
    if (is_walked(r, word)) {
        mx_problem(r->problems, at, NULL, "'%s' is walked twice", word);
        return;
    }
    if (count == 0) {
        mx_problem(r->problems, list->at, NULL, "'%s' has no values to walk", word);
        return;
    }
    if (w > 0 && count != axis->count) {
        mx_problem(r->problems, list->at, NULL, "zip walks its words together, but '%s' has %lld values and '%s' (line %u) %lld", word,
                   (long long)count, axis->word[0], axis->at[0].line, (long long)axis->count);
        return;
    }
    value = MX_TAKE(r->arena, const mx_node *, (w + 1) * count);
    if (w > 0) {
        memcpy(value, axis->value, (size_t)w * (size_t)count * sizeof(*value));
    } else {
        axis->word = MX_TAKE(r->arena, const char *, MX_AXES_MAX);
        axis->at = MX_TAKE(r->arena, mx_mark, MX_AXES_MAX);
    }
    if (w == MX_AXES_MAX) {
        mx_problem(r->problems, at, NULL, "more than %d words walk together", MX_AXES_MAX);
        return;
    }
    for (const mx_node *v = list->child; v; v = v->next) {
        value[w * count + n++] = v;
    }
    axis->word[w] = word;
    axis->at[w] = at;
    axis->value = value;
    axis->count = count;
    axis->words = w + 1;
}

mx_axis *mx_sweep_axis(mx_sweep_reader *r, mx_mark at, int layer) {
    if (r->axes == MX_AXES_MAX) {
        mx_problem(r->problems, at, NULL, "more than %d axes", MX_AXES_MAX);
        return NULL;
    }
    r->axis[r->axes] = (mx_axis){ .layer = layer };
    return &r->axis[r->axes];
}

/* `together`: all words of the map are this one axis; NULL: each is an axis of its own. */
static void read_axes(mx_sweep_reader *r, const mx_node *map, const char *prefix, mx_axis *together) {
    for (const mx_node *n = map->child; n; n = n->next) {
        const char *word = *prefix ? mx_arena_text(r->arena, "%s.%s", prefix, n->key) : n->key;
        mx_axis *axis = together;

        if (*prefix ? !is_whole(r, n->key, n->key_at) : !mx_sweep_may_set(r, n->key, n->key_at, false)) {
            continue;
        }
        if (n->kind == MX_NODE_MAP) {
            read_axes(r, n, word, together);
        } else if (n->kind != MX_NODE_LIST) {
            mx_problem(r->problems, n->at, NULL, "'%s' must be a list of values to walk: [a, b]", word);
        } else if (axis || (axis = mx_sweep_axis(r, n->key_at, MX_LAYER_AXES))) {
            mx_sweep_axis_word(r, axis, word, n->key_at, n);
            r->axes += !together && axis->words > 0;
        }
    }
}

static void read_all_axes(mx_sweep_reader *r, const sweep_words *w) {
    mx_axis *zip;

    if (w->grid && w->grid->kind == MX_NODE_MAP) {
        read_axes(r, w->grid, "", NULL);
    } else if (w->grid) {
        mx_problem(r->problems, w->grid->at, NULL, "grid must be a map of words and their values: {adapter.lora_r: [8, 16]}");
    }
    if (w->zip && w->zip->kind == MX_NODE_MAP) {
        if ((zip = mx_sweep_axis(r, w->zip->at, MX_LAYER_AXES))) {
            read_axes(r, w->zip, "", zip);
            r->axes += zip->words > 0;
        }
    } else if (w->zip) {
        mx_problem(r->problems, w->zip->at, NULL,
                   "zip must be a map of words and their values: {adapter.lora_r: [8, 16], adapter.lora_alpha: [16, 32]}");
    }
}

static void read_exclusions(mx_sweep_reader *r, const mx_node *list) {
    int count = 0;

    for (const mx_node *n = list && list->kind == MX_NODE_LIST ? list->child : NULL; n; n = n->next) {
        count++;
    }
    if (list && list->kind != MX_NODE_LIST) {
        mx_problem(r->problems, list->at, NULL, "exclude must be a list of maps: [{adapter.num_experts: 2, adapter.top_k: 4}]");
        return;
    }
    r->exclusion = MX_TAKE(r->arena, mx_exclusion, count + 1);
    for (const mx_node *n = count ? list->child : NULL; n; n = n->next) {
        mx_exclusion *x = &r->exclusion[r->exclusions];
        mx_node *words;

        if (n->kind != MX_NODE_MAP || !n->child) {
            mx_problem(r->problems, n->at, NULL, "an item of exclude must be a map of words: {adapter.num_experts: 2, adapter.top_k: 4}");
            continue;
        }
        words = empty_map(r->arena, n->at, MX_LAYER_ARGUMENTS);
        for (const mx_node *c = n->child; c; c = c->next) {
            if (strcmp(c->key, "name") == 0 && c->kind == MX_NODE_TEXT) {
                x->name = c->text;
            } else if (mx_sweep_may_set(r, c->key, c->key_at, false)) {
                mx_sweep_lay(r->arena, r->problems, words, c->key, c->key_at, c, MX_LAYER_ARGUMENTS);
            }
        }
        x->words = words;
        x->at = n->at;
        r->exclusions++;
    }
}

/* -------------------------------------------------------------------- variants */

/* A recipe's layers, read once for a path; NULL with a problem. */
static const mx_node *read_recipe(mx_sweep_reader *r, const char *name, mx_mark at) {
    const char *path = mx_layers_beside(r->path, name, r->arena);
    mx_node *root = NULL;
    mx_status inner = { 0 };
    mx_problems found;

    mx_problems_init(&found);
    if (mx_layers_read(path, r->arena, &root, &found, &inner)) {
        mx_problem(r->problems, at, inner.hint[0] ? inner.hint : NULL, "recipe '%s': %s", name, inner.text);
    } else if (mx_node_find(root, "recipe")) {
        mx_problem(r->problems, at, NULL, "'%s' is itself a sweep: name a recipe", name);
        root = NULL;
    }
    mx_sweep_tell(r->problems, &found);
    mx_problems_finish(&found);
    return root;
}

static const char *stem(const char *path, mx_arena *arena) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');

    return mx_arena_copy(arena, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
}

bool mx_sweep_name_good(const char *name) {
    bool visible = true;

    for (const char *c = name; *c; c++) {
        visible &= (unsigned char)*c >= 0x20 && *c != 0x7f;
    }
    return *name && !strchr(name, '/') && visible && strlen(name) <= MX_SWEEP_NAME_MAX;
}

static void check_name(mx_sweep_reader *r, const mx_draft *d, mx_mark at) {
    if (!mx_sweep_name_good(d->name)) {
        mx_problem(r->problems, at, NULL, "a variant's name must be 1 to %d letters on one line, without '/'", MX_SWEEP_NAME_MAX);
    }
    for (const mx_draft *other = r->draft; other < d; other++) {
        if (other->name && strcmp(other->name, d->name) == 0) {
            mx_problem(r->problems, at, NULL, "variant '%.100s' was already named at line %u", d->name, other->at.line);
            return;
        }
    }
}

static void read_variant(mx_sweep_reader *r, const variant_words *v, const mx_node *map, const mx_node *base, const mx_node *set,
                         bool included) {
    mx_draft *d = &r->draft[r->drafts];
    const mx_node *own = overlay(r, v->set, MX_LAYER_VARIANT), *root = base;
    mx_mark name_at = mx_option_place(map, "name");

    *d = (mx_draft){ .name = v->name, .at = v->name ? name_at : map->at, .included = included };
    if (v->recipe) {
        root = read_recipe(r, v->recipe, mx_option_place(map, "recipe"));
        d->name = d->name ? d->name : stem(v->recipe, r->arena);
    }
    if (!d->name) {
        mx_problem(r->problems, map->at, "{name: x, set: {...}}", "a variant needs a name");
        d->name = "";
    } else {
        check_name(r, d, name_at);
    }
    if (root) {
        root = set ? mx_node_merge(r->arena, root, set) : root;
        d->root = own ? mx_node_merge(r->arena, root, own) : root;
    }
    if (v->match.params || v->match.flops) {
        d->match = v->match.params ? MX_MATCH_PARAMS : MX_MATCH_FLOPS;
        d->match_to = v->match.params ? v->match.params : v->match.flops;
        d->match_at = mx_option_place(mx_node_find(map, "match"), v->match.params ? "params" : "flops");
    }
    r->drafts++;
}

/* The items of a list that are maps: those the option table read. */
static void read_variants(mx_sweep_reader *r, const mx_node *file, const char *word, const mx_list *list, const mx_node *base,
                          const mx_node *set, bool included) {
    const mx_node *node = mx_node_find(file, word), *n = node && node->kind == MX_NODE_LIST ? node->child : NULL;
    size_t i = 0;

    for (; n && i < list->count; n = n->next) {
        if (n->kind == MX_NODE_MAP) {
            read_variant(r, (const variant_words *)list->item + i++, n, base, set, included);
        }
    }
}

/* -------------------------------------------------------------------- all of it */

/* db, seed and name are the base's with set and arguments; what is wrong in it is told by the variants. */
static void read_base(mx_sweep_reader *r, const mx_node *root, const mx_node *set) {
    mx_problems quiet;
    mx_status inner = { 0 };

    mx_problems_init(&quiet);
    root = set ? mx_node_merge(r->arena, root, set) : root;
    root = mx_layers_override(root, r->argument, r->arguments, r->first, r->arena, &quiet);
    (void)!mx_recipe_bind(root, r->recipe, r->arena, &r->base, &quiet, &inner);
    mx_problems_finish(&quiet);
}

static mx_code read_sweep_file(mx_sweep_reader *r, const mx_node *file, const mx_call *call, mx_status *st) {
    sweep_words w;
    const mx_node *base, *set;

    mx_option_bind(&sweep_table, file, &w, r->arena, r->problems, NULL);
    r->recipe = w.recipe ? mx_layers_beside(r->path, w.recipe, r->arena) : NULL;
    base = w.recipe ? read_recipe(r, w.recipe, mx_option_place(file, "recipe")) : NULL;
    if (!base) {
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = r->path }, "the sweep is wrong");
    }
    set = overlay(r, w.set, MX_LAYER_SET);
    r->draft = MX_TAKE(r->arena, mx_draft, w.variants.count + w.include.count + 1);
    if (w.variants.count == 0) {
        r->draft[r->drafts++] = (mx_draft){ .root = set ? mx_node_merge(r->arena, base, set) : base, .at = { .file = r->path } };
    }
    read_variants(r, file, "variants", &w.variants, base, set, false);
    read_variants(r, file, "include", &w.include, base, set, true);
    read_all_axes(r, &w);
    read_exclusions(r, w.exclude);
    for (size_t i = 0; i < w.seeds.count; i++) {
        mx_sweep_seed(r, w.seeds.item[i], w.seeds.at[i]);
    }
    r->baseline = w.baseline;
    r->baseline_at = mx_option_place(file, "baseline");
    r->protocol = w.protocol;
    r->protocol_at = mx_option_place(file, "protocol");
    r->metric = w.metric;
    r->metric_at = mx_option_place(file, "metric");
    mx_sweep_arguments(r, call);
    read_base(r, base, set);
    return MX_OK;
}

static mx_code read_recipe_with_lists(mx_sweep_reader *r, const mx_call *call, mx_status *st) {
    mx_node *root;
    bool lists = false;

    for (int i = 1; i < call->words; i++) {
        lists |= mx_sweep_list(call->word[i]) != NULL;
    }
    if (!lists) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "'%s' is a recipe, and no argument lists values", r->path);
        mx_hint(st, "mixrun sweep %s adapter.lora_r=8,16 seed=1,2,3, or mixrun run %s", r->path, r->path);
        return MX_E_USAGE;
    }
    MX_TRY(mx_layers_read(r->path, r->arena, &root, r->problems, st));
    if (!root) {
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = r->path }, "the recipe cannot be read");
    }
    r->recipe = r->path;
    r->protocol = r->metric = -1;
    r->draft = MX_TAKE(r->arena, mx_draft, 1);
    r->draft[r->drafts++] = (mx_draft){ .root = root, .at = { .file = r->path } };
    mx_sweep_arguments(r, call);
    read_base(r, root, NULL);
    return MX_OK;
}

void mx_sweep_schema(mx_text *out) {
    mx_option_schema(&sweep_table, 0, out);
}

static bool has_one_of(const mx_node *file, const char *const *word) {
    for (; *word; word++) {
        if (mx_node_find(file, *word)) {
            return true;
        }
    }
    return false;
}

/* With `recipe`, or with words only a sweep has and none that only a recipe has: a recipe with a strange word is a recipe. */
static bool speaks_of_a_sweep(const mx_node *file) {
    static const char *const of_sweeps[] = { "variants", "grid", "zip", "include", NULL },
                      *const of_recipes[] = { "base_model", "adapter", "train", "extends", NULL };

    return mx_node_find(file, "recipe") || (has_one_of(file, of_sweeps) && !has_one_of(file, of_recipes));
}

bool mx_sweep_is(const char *path, const char *const *argument, int count, mx_arena *arena) {
    mx_node *file = NULL;
    mx_problems quiet;
    bool is = false;

    for (int i = 0; i < count; i++) {
        is |= mx_sweep_list(argument[i]) != NULL;
    }
    mx_problems_init(&quiet);
    if (!is && mx_yaml_read(path, 0, arena, &file, &quiet, NULL) != MX_E_IO) {
        is = speaks_of_a_sweep(file);
    }
    mx_problems_finish(&quiet);
    return is;
}

mx_code mx_sweep_words(mx_sweep_reader *r, const mx_call *call, mx_status *st) {
    enum { SWEEP_BYTES_MAX = 1 << 20 };
    mx_status inner = { 0 };
    mx_node *file;
    char *text;
    size_t size;

    r->path = mx_arena_copy(r->arena, call->word[0], strlen(call->word[0]));
    r->sweep->path = r->path;
    r->sweep->seed = MX_TAKE(r->arena, int64_t, MX_MEMBERS_MAX);
    if (mx_file_read(r->path, SWEEP_BYTES_MAX, &text, &size, &inner)) {
        return mx_layers_missing(r->path, inner.text, r->arena, st);
    }
    r->sweep->text = mx_arena_copy(r->arena, text, size);
    free(text);
    if (strlen(r->sweep->text) != size) {
        return mx_fail(st, MX_E_USAGE, (mx_mark){ .file = r->path }, "not a text file: it holds zero bytes");
    }
    if (mx_yaml_parse(r->sweep->text, r->path, 0, r->arena, &file, r->problems, st) && !file) {
        return MX_E_RECIPE;
    }
    if (speaks_of_a_sweep(file)) {
        r->sweep->name = stem(r->path, r->arena);
        return read_sweep_file(r, file, call, st);
    }
    r->problems->count = r->problems->kept = 0; /* of the recipe: its own reading tells them */
    return read_recipe_with_lists(r, call, st);
}
