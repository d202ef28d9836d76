/* sweep_read.c - drafts times axes become variants, variants times seeds members. */
#include "runner/sweep_parts.h"

#include "datasets/task.h"
#include "eval/metric.h"
#include "runner/validate.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* -------------------------------------------------------------------- problems */

static bool same_place(const mx_mark *a, const mx_mark *b) {
    return a->line == b->line && a->column == b->column && !a->file == !b->file && (!a->file || strcmp(a->file, b->file) == 0);
}

static void tell_once(mx_problems *to, const mx_status *p) {
    for (size_t i = 0; i < to->kept; i++) {
        if (same_place(&to->item[i].at, &p->at) && strcmp(to->item[i].text, p->text) == 0) {
            return;
        }
    }
    mx_problem(to, p->at, p->hint[0] ? p->hint : NULL, "%s", p->text);
}

void mx_sweep_tell(mx_problems *to, const mx_problems *from) {
    for (size_t i = 0; i < from->kept; i++) {
        tell_once(to, &from->item[i]);
    }
}

/* -------------------------------------------------------------------- names */

/* A value in a name: lists by +, maps by their words, paths by their last part. */
static void name_value(const mx_node *value, mx_text *out) {
    const char *text = value->kind == MX_NODE_TEXT && *value->text ? value->text : "none";
    const char *slash = strrchr(text, '/');

    if (value->kind == MX_NODE_TEXT || value->kind == MX_NODE_NULL) {
        mx_text_print(out, "%s", slash && slash[1] ? slash + 1 : slash ? "folder" : text);
        return;
    }
    for (const mx_node *n = value->child; n; n = n->next) {
        mx_text_print(out, "%s", n == value->child ? "" : value->kind == MX_NODE_LIST ? "+" : " ");
        if (value->kind == MX_NODE_MAP && n != value->child) { /* {task: piqa, weight: 2}: "piqa weight 2" */
            mx_text_print(out, "%s ", n->key);
        }
        name_value(n, out);
    }
    if (!value->child) {
        mx_text_print(out, "none");
    }
}

static const char *last_words(const char *path, int words) {
    const char *at = path + strlen(path);

    while (at > path && words > 0) {
        at--;
        words -= *at == '.';
    }
    return *at == '.' ? at + 1 : at;
}

/* A walked word in a name: as few of its last parts as tell it from the other walked words. */
static const char *short_word(const mx_sweep_reader *r, const char *word) {
    const char *before = NULL;

    for (int parts = 1;; parts++) {
        const char *brief = last_words(word, parts);
        int same = 0;

        for (int a = 0; a < r->axes; a++) {
            for (int w = 0; w < r->axis[a].words; w++) {
                same += strcmp(last_words(r->axis[a].word[w], parts), brief) == 0;
            }
        }
        if (same <= 1 || brief == before) { /* alone, or there are no more parts */
            return brief;
        }
        before = brief;
    }
}

static bool walks(const mx_draft *d, const mx_axis *a) {
    return !d->included || a->layer == MX_LAYER_ARGUMENTS;
}

static const char *name_of(const mx_sweep_reader *r, const mx_draft *d, const int64_t *position, int32_t count) {
    const mx_sweep *w = r->sweep;
    const char *name;
    mx_text out;
    int twin = 1;

    mx_text_init(&out, 1 << 20);
    mx_text_print(&out, "%s", d->name ? d->name : "");
    for (int a = 0; a < r->axes; a++) {
        const mx_axis *axis = &r->axis[a];

        for (int i = 0; i < axis->words && walks(d, axis); i++) {
            mx_text_print(&out, "%s%s ", out.length ? " " : "", short_word(r, axis->word[i]));
            name_value(axis->value[i * axis->count + position[a]], &out);
        }
    }
    if (out.length == 0) {
        mx_text_print(&out, "%s", r->base->name);
    }
    if (out.length > MX_SWEEP_NAME_MAX) {
        out.length = MX_SWEEP_NAME_MAX;
        while (((unsigned char)out.data[out.length] & 0xc0) == 0x80) { /* not inside a letter */
            out.length--;
        }
    }
    name = mx_arena_copy(r->arena, out.data, out.length);
    for (int32_t i = 0; i < count; i++) { /* values that differ only where the name does not show it */
        if (strcmp(w->variant[i].name, name) == 0) {
            name = mx_arena_text(r->arena, "%.*s (%d)", (int)out.length, out.data, ++twin);
            i = -1;
        }
    }
    mx_text_finish(&out);
    return name;
}

/* -------------------------------------------------------------------- exclude */

static bool agrees(const mx_node *said, const mx_node *is);

/* Every word of `said` is in the map, and agrees. */
static bool words_agree(const mx_node *said, const mx_node *map) {
    for (const mx_node *n = said->child; n; n = n->next) {
        const mx_node *is = mx_node_find(map, n->key);

        if (!is || !agrees(n, is)) {
            return false;
        }
    }
    return true;
}

static bool holds(const mx_node *list, const mx_node *item) {
    for (const mx_node *n = list->child; n; n = n->next) {
        if (agrees(item, n)) {
            return true;
        }
    }
    return false;
}

static int count_of(const mx_node *list) {
    int count = 0;

    for (const mx_node *n = list->child; n; n = n->next) {
        count++;
    }
    return count;
}

/* Without regard to order: those of a set have none, and of tasks it means little. */
static bool lists_agree(const mx_node *said, const mx_node *is) {
    for (const mx_node *n = said->child; n; n = n->next) {
        if (!holds(is, n)) {
            return false;
        }
    }
    return count_of(said) == count_of(is);
}

static bool agrees(const mx_node *said, const mx_node *is) {
    double a, b;

    if (said->kind == MX_NODE_TEXT && is->kind == MX_NODE_MAP) { /* a bare item: "piqa" is {task: piqa, ...} */
        is = is->child;
    }
    if (!is || said->kind != is->kind) {
        return false;
    }
    switch (said->kind) {
    case MX_NODE_TEXT:
        return strcmp(said->text, is->text) == 0 ||
               (mx_text_to_double(said->text, &a) && mx_text_to_double(is->text, &b) && a == b);
    case MX_NODE_LIST:
        return lists_agree(said, is);
    case MX_NODE_MAP:
        return words_agree(said, is);
    case MX_NODE_NULL:
        return true;
    }
    return false;
}

/* The recipe as a tree with every default spelled out. */
static const mx_node *resolved(const mx_recipe *recipe, mx_arena *arena) {
    mx_problems quiet;
    mx_node *root = NULL;
    mx_text text;

    mx_problems_init(&quiet);
    mx_text_init(&text, 1 << 22);
    mx_recipe_print(recipe, &text);
    (void)!mx_yaml_parse(text.data, "resolved", 0, arena, &root, &quiet, NULL);
    mx_text_finish(&text);
    mx_problems_finish(&quiet);
    return root;
}

static bool is_excluded(mx_sweep_reader *r, const mx_draft *d, const char *name, const mx_recipe *recipe) {
    const mx_node *now = r->exclusions && !d->included && recipe->method ? resolved(recipe, r->arena) : NULL;
    bool excluded = false;

    for (int i = 0; now && i < r->exclusions; i++) {
        mx_exclusion *x = &r->exclusion[i];
        bool named = !x->name || strcmp(x->name, name) == 0 || (d->name && strcmp(x->name, d->name) == 0);

        if (named && words_agree(x->words, now)) {
            x->used = excluded = true;
        }
    }
    return excluded;
}

/* -------------------------------------------------------------------- one variant */

/* Where it came from, to find partners of `match`. */
typedef struct origin {
    const mx_draft *draft;
    const int64_t *position;
} origin;

static const mx_node *axes_overlay(mx_sweep_reader *r, const mx_draft *d, const int64_t *position, int layer) {
    mx_node *map = MX_TAKE(r->arena, mx_node, 1);

    *map = (mx_node){ .kind = MX_NODE_MAP, .at = d->root->at, .layer = layer };
    for (int a = 0; a < r->axes; a++) {
        const mx_axis *axis = &r->axis[a];

        for (int i = 0; i < axis->words && axis->layer == layer && walks(d, axis); i++) {
            const mx_node *value = axis->value[i * axis->count + position[a]];
            mx_problems quiet;

            mx_problems_init(&quiet); /* words inside each other: told where they collide, once */
            mx_sweep_lay(r->arena, &quiet, map, axis->word[i], axis->at[i], value, layer);
            mx_sweep_tell(r->problems, &quiet);
            mx_problems_finish(&quiet);
        }
    }
    return map;
}

static mx_code add_variant(mx_sweep_reader *r, const mx_draft *d, const int64_t *position, origin *origins, mx_status *st) {
    mx_sweep *w = r->sweep;
    mx_sweep_variant *v = &w->variant[w->variants];
    const mx_node *root = mx_node_merge(r->arena, d->root, axes_overlay(r, d, position, MX_LAYER_AXES));
    mx_status inner = { 0 };
    mx_problems found;
    mx_code code = MX_OK;
    bool excluded;

    mx_problems_init(&found);
    root = mx_layers_override(root, r->argument, r->arguments, r->first, r->arena, &found);
    root = mx_node_merge(r->arena, root, axes_overlay(r, d, position, MX_LAYER_ARGUMENTS));
    *v = (mx_sweep_variant){ .at = d->at, .match = d->match, .match_at = d->match_at, .match_to = -1 };
    (void)!mx_recipe_bind(root, r->recipe, r->arena, &v->recipe, &found, &inner);
    v->name = name_of(r, d, position, w->variants);
    excluded = is_excluded(r, d, v->name, v->recipe);
    if (!excluded) {
        code = mx_validate_recipe(v->recipe, r->arena, &found, st);
        mx_sweep_tell(r->problems, &found);
        v->recipe->name = v->name;
        v->recipe->db = w->db;
        origins[w->variants].draft = d;
        origins[w->variants].position = position;
        w->variants++;
    }
    mx_problems_finish(&found);
    return code;
}

/* -------------------------------------------------------------------- all variants */

static int64_t combinations(const mx_sweep_reader *r, const mx_draft *d) {
    int64_t n = 1;

    for (int a = 0; a < r->axes && n <= MX_MEMBERS_MAX; a++) {
        n *= walks(d, &r->axis[a]) ? r->axis[a].count : 1;
    }
    return n;
}

static mx_code expand(mx_sweep_reader *r, origin **ret_origins, mx_status *st) {
    mx_sweep *w = r->sweep;
    int64_t all = 0;

    for (int i = 0; i < r->drafts && all <= MX_MEMBERS_MAX; i++) {
        all += combinations(r, &r->draft[i]);
    }
    if (all * (w->seeds > 0 ? w->seeds : 1) > MX_MEMBERS_MAX) { /* before anything is left out: each is looked at */
        return mx_fail(st, MX_E_USAGE, (mx_mark){ .file = r->path }, "this sweep would have more than %d runs", MX_MEMBERS_MAX);
    }
    w->variant = MX_TAKE(r->arena, mx_sweep_variant, all + 1);
    *ret_origins = MX_TAKE(r->arena, origin, all + 1);
    for (int i = 0; i < r->drafts; i++) {
        const mx_draft *d = &r->draft[i];

        for (int64_t c = 0, n = d->root ? combinations(r, d) : 0; c < n; c++) {
            int64_t *position = MX_TAKE(r->arena, int64_t, MX_AXES_MAX), rest = c;

            for (int a = r->axes - 1; a >= 0; a--) { /* the last axis walks fastest */
                if (walks(d, &r->axis[a])) {
                    position[a] = rest % r->axis[a].count;
                    rest /= r->axis[a].count;
                }
            }
            MX_TRY(add_variant(r, d, position, *ret_origins, st));
        }
    }
    return MX_OK;
}

/* -------------------------------------------------------------------- match */

static int32_t find_variant(const mx_sweep *w, const char *name) {
    for (int32_t i = 0; i < w->variants; i++) {
        if (strcmp(w->variant[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* The named draft's variant at the same place of the axes, else the variant of exactly that name. */
static int32_t partner(const mx_sweep_reader *r, const origin *origins, int32_t of, const char *name) {
    const mx_sweep *w = r->sweep;

    for (int32_t i = 0; i < w->variants; i++) {
        const mx_draft *d = origins[i].draft;
        bool same = d->name && strcmp(d->name, name) == 0;

        for (int a = 0; a < r->axes && same; a++) {
            same = !walks(d, &r->axis[a]) || !walks(origins[of].draft, &r->axis[a]) ||
                   origins[i].position[a] == origins[of].position[a];
        }
        if (same) {
            return i;
        }
    }
    return find_variant(w, name);
}

/* `drafts`: variants may be meant without their places on the axes too. */
static const char *near_variant(const mx_sweep_reader *r, const char *name, bool drafts) {
    const char **names = MX_TAKE(r->arena, const char *, r->sweep->variants + r->drafts + 1), *near;
    size_t count = 0;

    for (int i = 0; i < r->drafts && drafts; i++) {
        if (r->draft[i].name) {
            names[count++] = r->draft[i].name;
        }
    }
    for (int32_t i = 0; i < r->sweep->variants; i++) {
        names[count++] = r->sweep->variant[i].name;
    }
    near = mx_text_nearest(name, names, count);
    return near ? mx_arena_text(r->arena, "did you mean '%s'?", near) : NULL;
}

static void tell(mx_sweep_reader *r, mx_mark at, const char *hint, const char *text) {
    mx_status p = { .code = MX_E_RECIPE, .at = at };

    snprintf(p.text, sizeof p.text, "%s", text);
    snprintf(p.hint, sizeof p.hint, "%s", hint ? hint : "");
    tell_once(r->problems, &p);
}

static bool slots_vary(const mx_recipe *r) {
    return r->method->slots_vary && r->method->slots_vary(r->adapter.config);
}

static void check_match(mx_sweep_reader *r, const origin *origins, int32_t i) {
    mx_sweep *w = r->sweep;
    mx_sweep_variant *v = &w->variant[i];
    const char *to = origins[i].draft->match_to;

    v->match_to = partner(r, origins, i, to);
    if (v->match_to < 0) {
        tell(r, v->match_at, near_variant(r, to, true), mx_arena_text(r->arena, "match: there is no variant '%s' here", to));
    } else if (v->match_to == i) {
        tell(r, v->match_at, NULL, mx_arena_text(r->arena, "variant '%s' is matched with itself", to));
        v->match_to = -1;
    } else if (v->recipe->method && !mx_method_word(v->recipe->method, v->recipe->adapter.config, "lora_r")) {
        tell(r, v->match_at, NULL, mx_arena_text(r->arena, "match solves adapter.lora_r, which method %s does not have",
                                                 v->recipe->method->name));
    } else if (v->match == MX_MATCH_FLOPS && v->recipe->method && w->variant[v->match_to].recipe->method &&
               (slots_vary(v->recipe) || slots_vary(w->variant[v->match_to].recipe))) {
        tell(r, v->match_at, mx_arena_text(r->arena, "match: {params: %s}", to),
             mx_arena_text(r->arena, "with top_p the experts a token uses, and so its FLOPs, are not known before: '%s' and '%s' cannot be "
                                     "matched by them", v->name, w->variant[v->match_to].name));
    }
}

static void check_cycles(mx_sweep_reader *r) {
    mx_sweep *w = r->sweep;

    for (int32_t i = 0; i < w->variants; i++) {
        int32_t at = w->variant[i].match_to, steps = 0;

        while (at >= 0 && at != i && steps++ < w->variants) {
            at = w->variant[at].match_to;
        }
        if (at == i) {
            tell(r, w->variant[i].match_at, NULL,
                 mx_arena_text(r->arena, "variant '%s' is matched in a circle: '%s' waits for it", w->variant[i].name,
                               w->variant[w->variant[i].match_to].name));
        }
    }
}

/* -------------------------------------------------------------------- the comparison */

/* As the recipe writes them: the first of eval.protocols; -1: none. */
static int first_protocol(const mx_recipe *recipe) {
    const mx_node *list = mx_node_find(mx_node_find(recipe->root, "eval"), "protocols");

    for (int p = 0; p < MX_PROTOCOLS; p++) {
        const mx_node *first = list && list->kind == MX_NODE_LIST ? list->child : NULL;

        if (first && first->kind == MX_NODE_TEXT && strcmp(first->text, mx_protocol_names[p]) == 0) {
            return p;
        }
    }
    for (int p = 0; p < MX_PROTOCOLS; p++) {
        if (recipe->eval.protocols >> p & 1) {
            return p;
        }
    }
    return -1;
}

/* A variant that axes multiplied is meant at one of its places: the first is shown. */
static const char *near_baseline(const mx_sweep_reader *r, const origin *origins) {
    for (int32_t i = 0; i < r->sweep->variants; i++) {
        if (origins[i].draft->name && strcmp(origins[i].draft->name, r->baseline) == 0) {
            return mx_arena_text(r->arena, "did you mean '%s'?", r->sweep->variant[i].name);
        }
    }
    return near_variant(r, r->baseline, false);
}

static void settle_comparison(mx_sweep_reader *r, const origin *origins) {
    mx_sweep *w = r->sweep;
    int protocol = r->protocol >= 0 ? r->protocol : first_protocol(w->variant[0].recipe);
    int metric = r->metric >= 0                             ? r->metric
                 : protocol == MX_PROTOCOL_LOGLIKELIHOOD ? MX_METRIC_ACC_NORM
                                                            : MX_METRIC_ACC;

    w->protocol = protocol >= 0 ? mx_protocol_names[protocol] : "";
    w->metric = protocol >= 0 ? mx_metric_names[metric] : "";
    if (protocol == MX_PROTOCOL_LABEL_LOGITS && metric != MX_METRIC_ACC) {
        tell(r, r->metric_at, NULL, mx_arena_text(r->arena, "label_logits has no %s, only acc", mx_metric_names[metric]));
    }
    for (int32_t i = 0; i < w->variants && protocol >= 0; i++) {
        const mx_sweep_variant *v = &w->variant[i];

        if (!(v->recipe->eval.protocols >> protocol & 1)) {
            tell(r, r->protocol >= 0 ? r->protocol_at : mx_recipe_place(v->recipe, "eval.protocols"), NULL,
                 mx_arena_text(r->arena, "the comparison is by %s, which variant '%s' is not scored by", mx_protocol_names[protocol],
                               v->name));
        }
    }
    w->baseline = r->baseline ? r->baseline : "";
    if (r->baseline && find_variant(w, r->baseline) < 0) {
        tell(r, r->baseline_at, near_baseline(r, origins), mx_arena_text(r->arena, "baseline '%.100s' is none of the variants", r->baseline));
    }
}

/* -------------------------------------------------------------------- members */

static void make_members(mx_sweep_reader *r) {
    mx_sweep *w = r->sweep;

    if (w->seeds == 0) {
        w->seed[w->seeds++] = r->base->seed;
    }
    w->members = (int64_t)w->seeds * w->variants;
    w->member = MX_TAKE(r->arena, mx_sweep_member, w->members + 1);
    for (int64_t i = 0; i < w->members; i++) { /* whole comparisons first */
        w->member[i] = (mx_sweep_member){
            .position = i + 1, .variant = (int32_t)(i % w->variants), .seed = w->seed[i / w->variants],
        };
    }
    for (int32_t i = 0; i < w->variants; i++) {
        w->variant[i].recipe->seed = w->seed[0];
    }
}

mx_code mx_sweep_read(const mx_call *call, mx_sweep **ret, mx_status *st) {
    mx_sweep_reader *r = MX_TAKE(call->arena, mx_sweep_reader, 1);
    mx_sweep *w = MX_TAKE(call->arena, mx_sweep, 1);
    origin *origins = NULL;
    bool good;

    *ret = NULL;
    r->arena = call->arena;
    r->problems = call->problems;
    r->sweep = w;
    MX_TRY(mx_sweep_words(r, call, st));
    w->name = w->name ? w->name : r->base->name;
    w->db = r->base->db;
    MX_TRY(expand(r, &origins, st));
    good = r->problems->count == 0;
    for (int i = 0; i < r->exclusions; i++) { /* a misspelt word would go unseen; arguments may rightly leave nothing to exclude */
        if (!r->exclusion[i].used && good && w->arguments[0] == '\0') {
            tell(r, r->exclusion[i].at, NULL, "this leaves nothing out: no combination has these words");
        }
    }
    if (w->variants > 0) {
        for (int32_t i = 0; i < w->variants; i++) {
            if (w->variant[i].match) {
                check_match(r, origins, i);
            }
        }
        check_cycles(r);
        settle_comparison(r, origins);
        make_members(r);
    } else if (r->problems->count == 0) {
        mx_problem(r->problems, (mx_mark){ .file = r->path }, NULL, "exclude leaves no variant");
    }
    *ret = w;
    if (r->problems->count > 0) {
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = r->path }, "the sweep is wrong");
    }
    return MX_OK;
}
