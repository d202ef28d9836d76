/* sweep_measure.c - every variant planned, and those with `match` given the rank whose budget comes nearest.
 *
 * The rank is the only thing searched: budgets grow with it, so the largest rank within the wanted budget and the next one are
 * the candidates. The scaling factor of the update stays as it would be without `match` - lora_alpha / lora_r, or for rsLoRA
 * lora_alpha / sqrt(lora_r) (arXiv:2312.03732) - so that budget and step size are not changed together. */
#include "runner/sweep.h"

#include "model/base_model.h"
#include "model/hub.h"
#include "model/layout.h"
#include "runner/environment.h"
#include "runner/recipe_layers.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { RANK_MAX = 4096, TRIAL_BYTES_MAX = 1 << 30 };

/* -------------------------------------------------------------------- the recipe at another rank */

/* The field of a method's word, or of a word of its nested table; NULL: it has none. */
static const void *word_of(const mx_recipe *r, const char *table, const char *name) {
    const char *config = r->adapter.config;

    for (const mx_option *o = r->method->options->option; o->name; o++) {
        if (!table && strcmp(o->name, name) == 0) {
            return config + o->offset;
        }
        for (const mx_option *i = table && strcmp(o->name, table) == 0 ? o->inner->option : NULL; i && i->name; i++) {
            if (strcmp(i->name, name) == 0) {
                return config + o->offset + i->offset;
            }
        }
    }
    return NULL;
}

static int64_t rank_of(const mx_recipe *r, const char *table) {
    return *(const int64_t *)word_of(r, table, "lora_r");
}

/* What lora_alpha is divided by. */
static double divisor(const mx_recipe *r, const char *table, int64_t rank) {
    const void *rslora = word_of(r, table, "use_rslora"); /* a bool; a choice of two in the experts' table */
    bool root = rslora && (table ? *(const int *)rslora > 0 : *(const bool *)rslora);

    return root ? sqrt((double)rank) : (double)rank;
}

/* The scale a pair has in `from`, as the lora_alpha of rank `rank`. */
static double alpha_at(const mx_recipe *from, const char *table, int64_t rank) {
    double alpha = *(const double *)word_of(from, table, "lora_alpha");

    return alpha * divisor(from, table, rank) / divisor(from, table, rank_of(from, table));
}

static mx_node *add(mx_arena *arena, mx_node *map, const char *key, const char *text, mx_mark at) {
    mx_node *node = mx_node_append(arena, map);

    *node = (mx_node){ .kind = text ? MX_NODE_TEXT : MX_NODE_MAP, .at = at, .key_at = at, .key = key, .layer = MX_LAYER_MATCH };
    node->text = text ? mx_arena_copy(arena, text, strlen(text)) : NULL;
    return node;
}

/* The variant's recipe with this rank. */
static mx_code at_rank(const mx_sweep_variant *v, int64_t rank, mx_arena *arena, mx_recipe **ret, mx_status *st) {
    const mx_recipe *from = v->recipe;
    mx_node over = { .kind = MX_NODE_MAP, .at = from->root->at, .layer = MX_LAYER_MATCH };
    mx_node *adapter = add(arena, &over, "adapter", NULL, v->match_at), *experts;
    mx_problems problems;
    mx_code code;

    add(arena, adapter, "lora_r", mx_arena_text(arena, "%lld", (long long)rank), v->match_at);
    add(arena, adapter, "lora_alpha", mx_text_real(alpha_at(from, NULL, rank)), v->match_at);
    if (word_of(from, "expert_lora", "lora_r")) { /* experts follow the rank, unless they have one of their own */
        const mx_node *own = mx_node_find(mx_node_find(mx_node_find(from->root, "adapter"), "expert_lora"), "lora_r");
        bool follows = !own || own->kind != MX_NODE_TEXT || strcmp(own->text, "auto") == 0;

        experts = add(arena, adapter, "expert_lora", NULL, v->match_at);
        add(arena, experts, "lora_alpha", mx_text_real(alpha_at(from, "expert_lora", follows ? rank : rank_of(from, "expert_lora"))),
            v->match_at);
    }
    mx_problems_init(&problems);
    code = mx_recipe_bind(mx_node_merge(arena, from->root, &over), from->path, arena, ret, &problems, NULL);
    if (code) {
        mx_fail(st, code, problems.kept ? problems.item[0].at : v->match_at, "match of '%s' at rank %lld: %s", v->name, (long long)rank,
                problems.kept ? problems.item[0].text : "the recipe is wrong");
    } else {
        (*ret)->name = from->name;
        (*ret)->db = from->db;
        (*ret)->seed = from->seed;
    }
    mx_problems_finish(&problems);
    return code;
}

/* -------------------------------------------------------------------- the search */

typedef struct search {
    const mx_sweep_variant *variant;
    const mx_shape *shape;
    double wanted;
    mx_arena trial; /* rewound for every rank */
} search;

static mx_code budget_at(search *s, int64_t rank, double *ret, mx_status *st) {
    const mx_layout *layout;
    mx_recipe *recipe;

    mx_arena_rewind(&s->trial);
    MX_TRY(at_rank(s->variant, rank, &s->trial, &recipe, st));
    layout = mx_layout_make(recipe->method, recipe->adapter.config, s->shape, &s->trial);
    *ret = s->variant->match == MX_MATCH_PARAMS ? (double)layout->trained : mx_layout_flops(layout);
    return MX_OK;
}

/* low: a rank within the budget (or 1); high: one past it. */
static mx_code nearest_rank(search *s, int64_t *ret_rank, double *ret_budget, mx_status *st) {
    int64_t low = 1, high = 2;
    double below, above, middle;

    MX_TRY(budget_at(s, low, &below, st));
    MX_TRY(budget_at(s, high, &above, st));
    if (above <= below) {
        return mx_fail(st, MX_E_RECIPE, s->variant->match_at, "adapter.lora_r does not change the budget of '%s': match has nothing to solve",
                       s->variant->name);
    }
    while (above < s->wanted && high < RANK_MAX) {
        low = high;
        below = above;
        high = 2 * high < RANK_MAX ? 2 * high : RANK_MAX;
        MX_TRY(budget_at(s, high, &above, st));
    }
    if (above < s->wanted) {
        return mx_fail(st, MX_E_RECIPE, s->variant->match_at, "no adapter.lora_r up to %d gives '%s' that budget", RANK_MAX, s->variant->name);
    }
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;

        MX_TRY(budget_at(s, mid, &middle, st));
        if (middle <= s->wanted) {
            low = mid;
            below = middle;
        } else {
            high = mid;
            above = middle;
        }
    }
    *ret_rank = fabs(s->wanted - below) <= fabs(above - s->wanted) ? low : high; /* a tie: the smaller */
    *ret_budget = *ret_rank == low ? below : above;
    return MX_OK;
}

static mx_code solve(const mx_sweep *w, mx_sweep_variant *v, mx_arena *arena, mx_status *st) {
    const mx_sweep_variant *to = &w->variant[v->match_to];
    search s = { .variant = v, .wanted = v->match == MX_MATCH_PARAMS ? (double)to->trained : to->flops };
    mx_base_file *base = NULL;
    mx_hub_base hub;
    int64_t rank = 0;
    double budget = 0;
    mx_code code;

    if (s.wanted <= 0) {
        return mx_fail(st, MX_E_RECIPE, v->match_at, "'%s' trains nothing: there is no budget to match", to->name);
    }
    mx_arena_init(&s.trial, TRIAL_BYTES_MAX);
    code = mx_hub_resolve(v->recipe->base_model, mx_recipe_place(v->recipe, "base_model"), arena, &hub, st);
    if (code == MX_OK) {
        code = mx_base_file_open(hub.path, arena, &base, st);
    }
    if (code == MX_OK) {
        s.shape = mx_base_file_shape(base);
        code = nearest_rank(&s, &rank, &budget, st);
    }
    if (code == MX_OK) {
        code = at_rank(v, rank, arena, &v->recipe, st);
        v->match_off = budget / s.wanted - 1;
    }
    mx_base_file_close(base);
    mx_arena_finish(&s.trial);
    return code;
}

/* -------------------------------------------------------------------- plans */

static mx_mark keep(mx_mark at, mx_arena *arena) {
    at.file = at.file ? mx_arena_copy(arena, at.file, strlen(at.file)) : NULL;
    at.text = at.text ? mx_arena_copy(arena, at.text, strlen(at.text)) : NULL;
    return at;
}

static void take(mx_sweep_variant *v, const mx_plan *p, mx_arena *arena) {
    int64_t evaluations = 0;
    mx_text environment;

    v->trained = p->layout->trained;
    v->trained_router = p->layout->trained_router;
    v->base_values = mx_base_file_values(p->base_file);
    for (int32_t i = 0; i < p->exams; i++) {
        v->scored += p->exam[i].questions.count;
        v->scored_tokens += mx_exam_rows(&p->exam[i].exam);
    }
    for (int64_t step = 0; step <= p->totals.steps; step++) {
        evaluations += mx_plan_scores_at(p, step);
    }
    v->scored *= evaluations;
    v->scored_tokens *= evaluations;
    v->steps = p->totals.steps;
    v->tokens = p->totals.rows;
    v->flops = p->flops;
    v->base_flops = p->base_flops;
    v->again_flops = p->again_flops;
    v->device = mx_arena_copy(arena, p->device, strlen(p->device));
    v->memory = p->total_bytes;
    v->device_memory = p->device_bytes;
    v->device_free = p->backend->free_bytes;
    v->memory_limit_hit = p->refusal.code != MX_OK;
    v->refusal = p->refusal;
    mx_text_init(&environment, 1 << 16);
    mx_environment_json(p->backend, &environment);
    v->environment = mx_arena_copy(arena, environment.data, environment.length);
    mx_text_finish(&environment);
    v->description = mx_arena_copy(arena, p->description, strlen(p->description));
    memcpy(v->recipe_hash, p->recipe_hash, sizeof v->recipe_hash);
    memcpy(v->base_hash, p->base_hash, sizeof v->base_hash);
    memcpy(v->tasks_hash, p->tasks_hash, sizeof v->tasks_hash);
    memcpy(v->data_hash, p->data_hash, sizeof v->data_hash);
}

typedef struct walk {
    mx_sweep *sweep;
    size_t memory_limit;
    bool elsewhere;
    mx_arena *arena;
    void (*progress)(int32_t done, int32_t all);
    bool *seen;
    int32_t done;
    mx_plan *plan; /* the last one whose data was read: variants alike share it */
    mx_arena read; /* its own */
} walk;

static mx_code look_at(walk *k, mx_sweep_variant *v, mx_status *st) {
    mx_plan_wish wish = { .trains = true, .memory_limit = k->memory_limit, .look_only = true, .elsewhere = k->elsewhere };
    mx_status inner = { 0 };
    mx_plan *plan = NULL;
    mx_arena own;
    mx_code code;

    if (k->plan && mx_plan_alike(k->plan->recipe, v->recipe)) {
        mx_arena_init(&own, (size_t)1 << 30);
        code = mx_plan_vary(k->plan, v->recipe, &wish, &own, &plan, st);
        take(v, plan, k->arena);
        mx_arena_finish(&own);
        return code;
    }
    mx_plan_close(k->plan);
    k->plan = NULL;
    mx_arena_finish(&k->read);
    mx_arena_init(&k->read, (size_t)16 << 30);
    code = mx_plan_make(v->recipe, &wish, &k->read, &k->plan, &inner);
    if (code) {
        inner.at = keep(inner.at, k->arena); /* its file's name may live in what is given back */
        *st = st->code ? *st : inner;
    } else {
        take(v, k->plan, k->arena);
    }
    return code;
}

/* Partners first: mx_sweep_read made sure that they do not wait for each other. */
static mx_code measure(walk *k, int32_t i, mx_status *st) {
    mx_sweep_variant *v = &k->sweep->variant[i];

    if (k->seen[i]) {
        return MX_OK;
    }
    k->seen[i] = true;
    if (v->match) {
        MX_TRY(measure(k, v->match_to, st));
        MX_TRY(solve(k->sweep, v, k->arena, st));
    }
    if (k->progress) {
        k->progress(k->done, k->sweep->variants);
    }
    MX_TRY(look_at(k, v, st));
    k->done++;
    return MX_OK;
}

static bool same_run(const mx_sweep_variant *a, const mx_sweep_variant *b) {
    return strcmp(a->recipe_hash, b->recipe_hash) == 0 && strcmp(a->base_hash, b->base_hash) == 0 &&
           strcmp(a->tasks_hash, b->tasks_hash) == 0 && strcmp(a->data_hash, b->data_hash) == 0;
}

static void drop_doubles(mx_sweep *w, mx_arena *arena) {
    const mx_sweep_variant **same = MX_TAKE(arena, const mx_sweep_variant *, w->variants + 1);

    for (int32_t i = 0; i < w->variants; i++) {
        for (int32_t j = 0; j < i && !same[i]; j++) {
            same[i] = !same[j] && same_run(&w->variant[i], &w->variant[j]) ? &w->variant[j] : NULL;
        }
    }
    for (int64_t m = 0; m < w->members; m++) {
        w->member[m].same_as = same[w->member[m].variant];
    }
}

mx_code mx_sweep_measure(mx_sweep *w, size_t memory_limit, bool elsewhere, mx_arena *arena,
                         void (*progress)(int32_t done, int32_t all), mx_status *st) {
    walk k = { .sweep = w, .memory_limit = memory_limit, .elsewhere = elsewhere, .arena = arena, .progress = progress };

    mx_code code = MX_OK;

    k.seen = MX_TAKE(arena, bool, w->variants + 1);
    for (int32_t i = 0; i < w->variants && code == MX_OK; i++) {
        code = measure(&k, i, st);
    }
    mx_plan_close(k.plan);
    mx_arena_finish(&k.read);
    MX_TRY(code);
    if (progress) {
        progress(w->variants, w->variants);
    }
    drop_doubles(w, arena);
    return MX_OK;
}

/* -------------------------------------------------------------------- for the store and for running */

const mx_member_row *mx_sweep_rows(const mx_sweep *w, mx_arena *arena) {
    mx_member_row *row = MX_TAKE(arena, mx_member_row, w->members + 1);

    for (int64_t m = 0; m < w->members; m++) {
        const mx_sweep_variant *v = &w->variant[w->member[m].variant];
        const char *matched = "";

        if (v->match) {
            matched = mx_arena_text(arena, "%s: %s, %+.1f %%", v->match == MX_MATCH_PARAMS ? "params" : "flops",
                                    w->variant[v->match_to].name, 100 * v->match_off);
        }
        row[m] = (mx_member_row){
            .position = w->member[m].position, .variant = v->name, .seed = w->member[m].seed, .recipe_hash = v->recipe_hash,
            .base_hash = v->base_hash, .tasks_hash = v->tasks_hash, .data_hash = v->data_hash, .method = v->recipe->method->name,
            .trained = v->trained, .trained_router = v->trained_router, .flops = (int64_t)v->flops, .matched = matched,
            .state = "", .reason = "",
        };
    }
    return row;
}

mx_sweep_row mx_sweep_row_of(const mx_sweep *w) {
    return (mx_sweep_row){ .name = w->name, .path = w->path, .text = w->text, .arguments = w->arguments, .baseline = w->baseline,
                           .protocol = w->protocol, .metric = w->metric };
}

mx_recipe *mx_sweep_recipe(const mx_sweep *w, const mx_sweep_member *m, mx_arena *arena) {
    const mx_sweep_variant *v = &w->variant[m->variant];
    mx_recipe *r = MX_TAKE(arena, mx_recipe, 1);

    *r = *v->recipe;
    r->name = v->name;
    r->db = w->db;
    r->seed = m->seed;
    return r;
}
