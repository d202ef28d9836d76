/* sweep.h - one YAML file becomes many recipes, each a member with its seed.
 *
 *   recipe: ../ablation.yaml            the base recipe, by its place beside this file (required)
 *   set: {train.num_epochs: 1}          words laid on it for every variant; keys may be dotted, values may be maps
 *   variants:                           named; each a few words, or another recipe
 *     - name: lora r16
 *       set: {adapter.method: lora}
 *     - {name: lora matched, set: {adapter.method: lora}, match: {params: mixlora}}
 *     - {name: other, recipe: ../other.yaml}
 *   grid: {adapter.num_experts: [2, 4], adapter.top_k: [1, 2]}      every combination, times every variant
 *   zip: {adapter.lora_r: [8, 16], adapter.lora_alpha: [16, 32]}    walked together: one more axis
 *   exclude: [{adapter.num_experts: 2, adapter.top_k: 2}]           combinations left out: every word of the map agrees
 *   include: [{name: big, set: {adapter.num_experts: 64}}]          variants added after the product
 *   seeds: [1, 2, 3]                    default: the recipe's own
 *   baseline: lora matched              what compare and report compare with
 *   protocol: loglikelihood             of the primary comparison; default: the recipe's first
 *   metric: acc_norm                    default: acc_norm for loglikelihood, acc for label_logits
 *
 * Without variants there is one, nameless; a variant of axes is called by its words: "mixlora num_experts 4 top_k 2".
 * A recipe becomes a sweep when arguments list values: adapter.lora_r=8,16 seed=1,2,3. Other arguments are laid on every variant.
 * Layers, lowest first: recipe, set, variant's set, axes, arguments; what match solves lies above all. Every problem of every
 * variant is told with its place in one pass. Variants whose recipe and seed mean the same run (equal hashes) are one member: the first. */
#ifndef RUNNER_SWEEP_H
#define RUNNER_SWEEP_H

#include "runner/command.h"
#include "runner/plan.h"
#include "runner/recipe.h"
#include "reports/sweeps.h"

enum { MX_MEMBERS_MAX = 10000 };

typedef enum mx_match { MX_MATCH_NONE, MX_MATCH_PARAMS, MX_MATCH_FLOPS } mx_match;

typedef struct mx_sweep_variant {
    const char *name;
    mx_mark at;               /* for errors about the variant as a whole */
    mx_recipe *recipe;        /* of the first seed; db is the sweep's */
    mx_match match;
    int32_t match_to;         /* index into variants */
    mx_mark match_at;

    /* known after mx_sweep_measure */
    double match_off;         /* solved budget over the wanted one, minus 1: -0.002 is 0.2 % less */
    int64_t trained, trained_router, base_values, steps, tokens; /* of the first seed */
    double flops;             /* of the adapter per token: forward and backward, active experts only (mx_layout_flops) */
    double base_flops;        /* the frozen base's per token: forward, and backward to the activations */
    double again_flops;       /* of both together, computed a second time (gradient_checkpointing) */
    const char *device;       /* "cpu", "cuda", "cuda:1": what the recipe's word means here */
    size_t memory;            /* of the host's, which is all there is on the CPU */
    size_t device_memory;     /* of the GPU's, CUDA's own included; 0: it has none of its own, or is not here */
    size_t device_free;       /* of it, before anything runs */
    int64_t scored, scored_tokens; /* questions, and their tokens, of all evaluations of a run together */
    int64_t memory_limit_hit; /* 1: does not fit; `refusal` says it */
    mx_status refusal;
    const char *description;  /* mx_plan.description */
    const char *environment;  /* JSON, as a run of it would store */
    char recipe_hash[MX_SHA256_TEXT], base_hash[MX_SHA256_TEXT], tasks_hash[MX_SHA256_TEXT], data_hash[MX_SHA256_TEXT];
} mx_sweep_variant;

typedef struct mx_sweep_member {
    int64_t position;         /* from 1; seeds are walked outside, variants inside: a stopped sweep has whole comparisons */
    int32_t variant;
    int64_t seed;
    const mx_sweep_variant *same_as; /* an earlier variant that means the same run; NULL: none. It is not run again */
} mx_sweep_member;

typedef struct mx_sweep {
    const char *name;         /* the file's; of a recipe with lists: its name */
    const char *path, *text, *arguments;
    const char *baseline, *protocol, *metric, *db;
    mx_sweep_variant *variant;
    int32_t variants;
    int64_t *seed;
    int32_t seeds;
    mx_sweep_member *member;
    int64_t members;
} mx_sweep;

/* Is this command line a sweep: a file with the word `recipe` (or with variants, grid, zip or include, and no word that
 * only recipes have), or a recipe with an argument that lists values? */
bool mx_sweep_is(const char *path, const char *const *argument, int count, mx_arena *arena);
/* Reads and expands; recipes are bound and validated (tasks, base's name) as mx_validate does. Nothing of data or base
 * is read. call->word[0] is the file, the rest are arguments. */
MX_MUST_CHECK mx_code mx_sweep_read(const mx_call *call, mx_sweep **ret, mx_status *st);
/* Reads bases' headers, tokenizers and data; solves `match`; fills the second half of every variant; drops doubles. A variant
 * that does not fit is marked, not an error. `progress` is told which variant is looked at; may be NULL. */
/* `elsewhere`: the members will run on other machines; a GPU that is not here is no failure. */
MX_MUST_CHECK mx_code mx_sweep_measure(mx_sweep *w, size_t memory_limit, bool elsewhere, mx_arena *arena,
                                       void (*progress)(int32_t done, int32_t all), mx_status *st);
/* Every word of a sweep's file, with help. */
void mx_sweep_schema(mx_text *out);

/* Rows for the store, in the arena. */
const mx_member_row *mx_sweep_rows(const mx_sweep *w, mx_arena *arena);
mx_sweep_row mx_sweep_row_of(const mx_sweep *w);
/* The variant's recipe with this seed and the variant's name as its own: what a member runs. */
mx_recipe *mx_sweep_recipe(const mx_sweep *w, const mx_sweep_member *m, mx_arena *arena);

#endif
