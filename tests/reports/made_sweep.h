/* made_sweep.h - a database with a sweep in it: variants, seeds, tasks, curves and routers, the same every time. */
#ifndef TESTS_REPORTS_MADE_SWEEP_H
#define TESTS_REPORTS_MADE_SWEEP_H

#include "reports/sweeps.h"
#include "tests/reports/support.h"

#include <math.h>

/* A name that breaks whatever does not escape. */
#define ODD_NAME "mix <b>&\"'x'|"

enum { MADE_VARIANTS = 5, MADE_SEEDS = 3, MADE_TASKS = 3, MADE_ITEMS = 40, MADE_LAYERS = 6, MADE_EXPERTS = 4, MADE_STEPS = 60 };

typedef struct made_variant {
    const char *name, *method;
    int64_t trained, router;
    double skill;  /* chance of being right */
    int experts, used; /* experts a token uses; 0: no router */
} made_variant;

static const made_variant made_variants[MADE_VARIANTS] = {
    { "lora r16", "lora", 1000, 0, 0.45, 0, 0 },
    { "lora matched", "lora", 5000, 0, 0.5, 0, 0 },
    { "mixlora", "mixlora", 5040, 40, 0.68, MADE_EXPERTS, 2 },
    { ODD_NAME, "mixlora", 5040, 40, 0.5, MADE_EXPERTS, 1 },
    { "never run", "dora", 5020, 0, 0, 0, 0 },
};
static const char *const made_tasks[MADE_TASKS] = { "arc_easy", "arc_challenge", "openbookqa" };

/* Evenly spread over 0..1, the same on every machine (splitmix64). */
static inline double made_chance(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t z = (a * 0x9e3779b97f4a7c15u) ^ (b * 0xbf58476d1ce4e5b9u) ^ (c * 0x94d049bb133111ebu);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

#define MADE(call) cr_assert((call) == MX_OK, "%s", st.text)

static inline void made_router(mx_store *s, int64_t run_id, int64_t evaluation_id, int v, int seed, int task, int64_t first, int64_t last) {
    const made_variant *m = &made_variants[v];
    int64_t tokens[MADE_LAYERS * MADE_TASKS * MADE_EXPERTS] = { 0 }, dropped[MADE_LAYERS * MADE_TASKS * MADE_EXPERTS] = { 0 };
    int64_t routed[MADE_LAYERS * MADE_TASKS] = { 0 }, pairs[MADE_LAYERS * MADE_TASKS * MADE_EXPERTS * MADE_EXPERTS] = { 0 };
    double probability[MADE_LAYERS * MADE_TASKS * MADE_EXPERTS] = { 0 }, entropy[MADE_LAYERS * MADE_TASKS] = { 0 };
    mx_status st = { 0 };

    for (int l = 0; l < MADE_LAYERS; l++) {
        for (int t = 0; t < MADE_TASKS; t++) {
            int at = l * MADE_TASKS + t;

            if (task >= 0 && t != task) {
                continue; /* an evaluation is of one task */
            }
            routed[at] = 500 + 100 * t;
            entropy[at] = (double)routed[at] * (0.9 + 0.05 * l);
            for (int i = 0; i < MADE_EXPERTS; i++) {
                for (int j = i + 1; j < MADE_EXPERTS && m->used == 2; j++) {
                    int64_t n = (int64_t)(routed[at] / 10 * (1 + l * (i == 0) + t * (j == 2)) * (0.5 + made_chance((uint64_t)seed, (uint64_t)(l * 7 + i), (uint64_t)(j + last)))) / 3;

                    pairs[(at * MADE_EXPERTS + i) * MADE_EXPERTS + j] = n;
                    tokens[at * MADE_EXPERTS + i] += n;
                    tokens[at * MADE_EXPERTS + j] += n;
                }
                if (m->used == 1 && !(l == 2 && i == 3)) { /* one expert that never works */
                    tokens[at * MADE_EXPERTS + i] = 20 + (int64_t)(300 * made_chance((uint64_t)(seed + t), (uint64_t)l, (uint64_t)(i + 10 * last)));
                    dropped[at * MADE_EXPERTS + i] = l == 1 ? 3 : 0;
                }
                probability[at * MADE_EXPERTS + i] = (double)tokens[at * MADE_EXPERTS + i] / 2;
            }
        }
    }
    MADE(mx_store_router(s, run_id,
                         &(mx_router_window){ .split = task < 0 ? "train" : "validation", .first_step = first, .last_step = last, .evaluation_id = evaluation_id,
                                              .task = made_tasks, .tasks = MADE_TASKS, .layers = MADE_LAYERS, .experts = MADE_EXPERTS, .tokens = tokens,
                                              .dropped = dropped, .probability = probability, .routed = routed, .entropy = entropy,
                                              .pairs = task < 0 || m->used < 2 ? NULL : pairs },
                         &st));
}

static inline void made_evaluation(mx_store *s, int64_t run_id, int v, int seed, int t, int64_t step) {
    static const char *const metrics[] = { "acc", "acc_norm" };
    char task_hash[16], data_hash[16], item[32];
    mx_evaluation_row row = { .task = made_tasks[t], .split = "validation", .protocol = "loglikelihood", .epoch = (double)step / MADE_STEPS * 2, .step = step,
                              .n = MADE_ITEMS, .task_hash = task_hash, .data_hash = data_hash };
    double grown = step == 0 ? 0.3 : made_variants[v].skill * (step < MADE_STEPS ? 0.9 : 1);
    int64_t id;
    mx_status st = { 0 };

    snprintf(task_hash, sizeof task_hash, "task%d", t);
    snprintf(data_hash, sizeof data_hash, "data%d", t);
    MADE(mx_store_evaluation(s, run_id, &row, &id, &st));
    for (int i = 0; i < MADE_ITEMS; i++) {
        double scores[2] = { -1.5, -2.5 };

        snprintf(item, sizeof item, "%s-%d", made_tasks[t], i);
        MADE(mx_store_prediction(s, id, i, item, 0, scores, 2, &st));
    }
    for (int k = 0; k < 2; k++) {
        int right = 0;

        for (int i = 0; i < MADE_ITEMS; i++) { /* mostly the question's own difficulty, a little the seed's luck */
            double hard = 0.7 * made_chance(11, (uint64_t)t, (uint64_t)i) + 0.3 * made_chance((uint64_t)(100 * v + seed), (uint64_t)(t + 10 * step), (uint64_t)i);
            bool correct = hard < grown + 0.02 * k;

            right += correct;
            MADE(mx_store_outcome(s, id, metrics[k], i, correct ? 0 : 1, correct, &st));
        }
        MADE(mx_store_score(s, id, metrics[k], (double)right / MADE_ITEMS, sqrt((double)right * (MADE_ITEMS - right) / MADE_ITEMS / MADE_ITEMS / (MADE_ITEMS - 1)), 0.275, &st));
    }
    if (made_variants[v].experts) {
        made_router(s, run_id, id, v, seed, t, step, step);
    }
}

static inline int64_t made_run(mx_store *s, int v, int seed) {
    const made_variant *m = &made_variants[v];
    char uuid[MX_UUID_TEXT], hash[16], *recipe;
    mx_run_row row = some_run(m->name);
    mx_status st = { 0 };
    int length = asprintf(&recipe, "seed: %d\nadapter:\n  method: %s\n  lora_r: %d\ntrain:\n  tasks:\n    - task: arc_easy\n      weight: %d\n", seed, m->method, v < 2 ? 16 * (v + 1) : 16, v == 3 ? 2 : 1);

    cr_assert(length > 0);
    snprintf(hash, sizeof hash, "recipe%d", v);
    row.method = m->method;
    row.recipe_hash = hash;
    row.recipe = recipe;
    row.seed = seed;
    row.trained = m->trained;
    row.trained_router = m->router;
    row.flops = m->trained * 6;
    row.steps = MADE_STEPS;
    row.environment = "{\"mixrun\":\"0.1.0\",\"processor\":\"made\"}";
    MADE(mx_store_begin(s, &st));
    MADE(mx_store_run_add(s, &row, uuid, &st));
    MADE(mx_store_word(s, row.run_id, "adapter.method", m->method, &st));
    if (v == 1) {
        MADE(mx_store_word(s, row.run_id, "adapter.lora_r", "32", &st));
    }
    if (v == 3) {
        MADE(mx_store_word(s, row.run_id, "train.tasks[0].weight", "2", &st));
    }
    MADE(mx_store_data_file(s, row.run_id, "arc_easy", "train", "some/folder/x.jsonl", "abcdef0123456789abcdef", 100, 1, &st));
    for (int64_t step = 1; step <= MADE_STEPS; step++) {
        MADE(mx_store_metric(s, row.run_id, step, "loss", 2.0 / (1 + 0.05 * (double)step) + 0.2 * made_chance((uint64_t)v, (uint64_t)seed, (uint64_t)step), &st));
        MADE(mx_store_metric(s, row.run_id, step, "tokens", 1000, &st));
        MADE(mx_store_metric(s, row.run_id, step, "tokens_per_second", 400 - 30 * v + seed, &st));
        if (m->experts) {
            MADE(mx_store_metric(s, row.run_id, step, "balance", 1 + 0.1 * made_chance(3, (uint64_t)seed, (uint64_t)step), &st));
        }
    }
    MADE(mx_store_metric(s, row.run_id, MADE_STEPS, "memory_bytes", 1e9 + 1e7 * v, &st));
    for (int w = 0; w < 30 && m->experts; w++) { /* more than a picture of training has columns */
        made_router(s, row.run_id, 0, v, seed, -1, 2 * w + 1, 2 * w + 2);
    }
    for (int64_t step = 0; step <= MADE_STEPS; step += MADE_STEPS / 2) {
        for (int t = 0; t < MADE_TASKS; t++) {
            made_evaluation(s, row.run_id, v, seed, t, step);
        }
    }
    MADE(mx_store_heartbeat(s, row.run_id, MADE_STEPS, &st));
    MADE(mx_store_run_state(s, row.run_id, "finished", "", &st));
    MADE(mx_store_commit(s, &st));
    free(recipe);
    return row.run_id;
}

/* Four variants with three seeds, one that was never run; and one run that failed. */
static inline void made_sweep(mx_store *s, const char *name) {
    mx_member_row member[MADE_VARIANTS * MADE_SEEDS];
    char hash[MADE_VARIANTS][16];
    int n = 0;
    mx_status st = { 0 };

    for (int seed = 1; seed <= MADE_SEEDS; seed++) {
        for (int v = 0; v < MADE_VARIANTS; v++) {
            const made_variant *m = &made_variants[v];

            if (v < 4) {
                made_run(s, v, seed);
            }
            snprintf(hash[v], sizeof hash[v], "recipe%d", v);
            member[n] = (mx_member_row){ .position = n + 1, .variant = m->name, .seed = seed, .recipe_hash = hash[v], .base_hash = "b0", .tasks_hash = "t0",
                                         .data_hash = "d0", .method = m->method, .trained = m->trained, .trained_router = m->router, .flops = 6 * m->trained,
                                         .matched = v == 1 ? "params: mixlora, -0.8 %" : "" };
            n++;
        }
    }
    MADE(mx_store_sweep(s,
                        &(mx_sweep_row){ .name = name, .path = "configs/sweeps/made.yaml", .text = "recipe: x.yaml # <&>\n", .arguments = "", .baseline = "lora matched",
                                         .protocol = "loglikelihood", .metric = "acc_norm" },
                        member, n, &st));
}

#endif
