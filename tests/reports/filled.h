/* filled.h - a database in which every table has something to tell: a sweep of lora and mixlora with two seeds each, and a run that failed.
 *
 *   runs 1, 2: lora, seeds 1, 2       runs 3, 4: mixlora, seeds 1, 2       run 5: failed
 *   tasks alpha (6 questions) and beta (4), before training (step 0) and after (step 4); run r answers question q right after training
 *   when q is less than 1 + r.
 *   router of runs 3, 4: 2 layers, 4 experts, training in windows of 2 steps. Layer 0 loads all experts alike for both tasks; in layer 1
 *   task alpha uses experts 0 and 1, beta only expert 2, and 3 is dead. */
#ifndef TESTS_REPORTS_FILLED_H
#define TESTS_REPORTS_FILLED_H

#include "reports/sweeps.h"
#include "tests/reports/support.h"

#include <string.h>

#define MUST(call) cr_assert((call) == MX_OK, "%s", st.text)

static inline int64_t filled_run(mx_store *s, const char *method, int64_t seed, const char *folder) {
    mx_run_row row = some_run(method);
    char uuid[MX_UUID_TEXT], hash[16];
    mx_status st = { 0 };
    static const char environment[] = "{\"backend\":\"2 threads\",\"commit\":\"abc1234\",\"mixrun\":\"0.1.0\",\"precision\":\"f32\",\"processor\":\"P\","
                                      "\"release\":\"6\",\"system\":\"Linux\"}";

    snprintf(hash, sizeof hash, "hash-%s", method);
    row.method = method;
    row.seed = seed;
    row.recipe_hash = hash;
    row.recipe = strcmp(method, "lora") == 0 ? "name: lora\nprecision: f32\nadapter:\n  method: lora\n  lora_r: 8\ntrain:\n  learning_rate: 0.001\n"
                                             : "name: mixlora\nprecision: f32\nadapter:\n  method: mixlora\n  lora_r: 4\n  num_experts: 4\n"
                                               "train:\n  learning_rate: 0.001\n";
    row.environment = environment;
    row.folder = folder;
    row.flops = 60;
    MUST(mx_store_begin(s, &st));
    MUST(mx_store_run_add(s, &row, uuid, &st));
    MUST(mx_store_word(s, row.run_id, "adapter.method", method, &st));
    MUST(mx_store_word(s, row.run_id, "adapter.lora_r", strcmp(method, "lora") == 0 ? "8" : "4", &st));
    MUST(mx_store_data_file(s, row.run_id, "alpha", "validation", "a.jsonl", "aaaaaaaaaaaaaaaa", 6, 0, &st));
    MUST(mx_store_data_file(s, row.run_id, "beta", "validation", "b.jsonl", "bbbbbbbbbbbbbbbb", 4, 0, &st));
    for (int64_t step = 1; step <= 4; step++) {
        MUST(mx_store_metric(s, row.run_id, step, "loss", 1.0 / (double)step, &st));
        MUST(mx_store_metric(s, row.run_id, step, "tokens", 100, &st));
        MUST(mx_store_metric(s, row.run_id, step, "tokens_per_second", 50, &st));
    }
    MUST(mx_store_metric(s, row.run_id, 4, "memory_bytes", 1073741824, &st));
    MUST(mx_store_heartbeat(s, row.run_id, 4, &st));
    MUST(mx_store_commit(s, &st));
    return row.run_id;
}

static inline void filled_window(mx_store *s, int64_t run, const char *split, int64_t first, int64_t last, int64_t evaluation_id) {
    static const char *const task[] = { "alpha", "beta" };
    static const int64_t tokens[2 * 2 * 4] = { 5, 5, 5, 5, 10, 10, 10, 10, 10, 10, 0, 0, 0, 0, 40, 0 }, routed[4] = { 10, 20, 10, 20 };
    static const int64_t dropped[16] = { 0 };
    static const double probability[16] = { 2.5, 2.5, 2.5, 2.5, 5, 5, 5, 5, 5, 5, 0, 0, 0, 0, 20, 0 }, entropy[4] = { 13.8, 27.7, 7, 1 };
    int64_t pairs[2 * 2 * 16] = { 0 };
    mx_status st = { 0 };
    mx_router_window w = { .split = split, .first_step = first, .last_step = last, .evaluation_id = evaluation_id, .task = task, .tasks = 2,
                           .layers = 2, .experts = 4, .tokens = tokens, .dropped = dropped, .probability = probability, .routed = routed,
                           .entropy = entropy, .pairs = evaluation_id ? pairs : NULL };

    pairs[1] = 7; /* layer 0, alpha, experts 0 and 1 */
    MUST(mx_store_router(s, run, &w, &st));
}

static inline void filled_scores(mx_store *s, int64_t run, int64_t step) {
    static const char *const task[] = { "alpha", "beta" };
    static const char *const data[] = { "data-a", "data-b" };
    int64_t id = 0;
    mx_status st = { 0 };

    MUST(mx_store_begin(s, &st));
    for (int t = 0; t < 2; t++) {
        int64_t n = t ? 4 : 6, right = 0;
        mx_evaluation_row e = { .task = task[t], .split = "validation", .protocol = "loglikelihood", .epoch = step ? 1 : 0, .step = step, .n = n,
                                .task_hash = task[t], .data_hash = data[t] };

        MUST(mx_store_evaluation(s, run, &e, &id, &st));
        for (int64_t q = 0; q < n; q++) {
            double score[2] = { -1.5, -2.25 };
            char item[16];
            bool correct = step > 0 && q < 1 + run;

            snprintf(item, sizeof item, "%s-%d", task[t], (int)q);
            right += correct;
            MUST(mx_store_prediction(s, id, q, item, correct ? 0 : 1, score, 2, &st));
            MUST(mx_store_outcome(s, id, "acc", q, 0, correct, &st));
        }
        MUST(mx_store_score(s, id, "acc", (double)right / (double)n, 0.1, 0.5, &st));
    }
    if (step > 0 && run >= 3) {
        filled_window(s, run, "validation", step, step, id);
    }
    MUST(mx_store_commit(s, &st));
}

static inline void fill(mx_store *s) {
    mx_status st = { 0 };
    mx_sweep_row sweep = { .name = "methods", .path = "methods.yaml", .text = "recipe: x\n", .arguments = "", .baseline = "lora",
                           .protocol = "loglikelihood", .metric = "acc" };
    mx_member_row member[5];

    for (int i = 0; i < 4; i++) {
        const char *method = i < 2 ? "lora" : "mixlora", *folder[] = { "runs/1-lora", "runs/2-lora", "runs/3-mixlora", "runs/4-mixlora" };
        int64_t run = filled_run(s, method, i % 2 + 1, folder[i]);

        cr_assert_eq(run, i + 1);
        filled_scores(s, run, 0);
        filled_scores(s, run, 4);
        MUST(mx_store_begin(s, &st));
        if (i >= 2) {
            filled_window(s, run, "train", 1, 2, 0);
            filled_window(s, run, "train", 3, 4, 0);
        }
        MUST(mx_store_run_state(s, run, "finished", "", &st));
        MUST(mx_store_commit(s, &st));
        member[i] = (mx_member_row){ .position = i + 1, .variant = method, .seed = i % 2 + 1, .recipe_hash = i < 2 ? "hash-lora" : "hash-mixlora",
                                     .base_hash = "b0", .tasks_hash = "t0", .data_hash = "d0", .method = method, .trained = 10,
                                     .trained_router = 2, .flops = 60, .matched = "" };
    }
    filled_run(s, "dora", 1, "runs/5-dora");
    MUST(mx_store_begin(s, &st));
    MUST(mx_store_run_state(s, 5, "failed", "loss is not finite at step 3", &st));
    MUST(mx_store_commit(s, &st));
    member[4] = member[3];
    member[4].position = 5;
    member[4].variant = "not begun";
    member[4].recipe_hash = "hash-none";
    MUST(mx_store_sweep(s, &sweep, member, 5, &st));
}

/* The same, closed again. */
static inline void filled(const char *path) {
    mx_store *s = open_store(path);

    fill(s);
    mx_store_close(s);
}

#endif
