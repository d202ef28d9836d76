/* identity.c - which words make another run, and that a run keeps its hash over the years. */
#include "runner/device.h"
#include "runner/recipe.h"

#include <criterion/criterion.h>
#include <string.h>

#define HEAD "base_model: m\nprecision: f32\nadapter:\n  method: mixlora\n"
#define TAIL "train:\n  tasks: [a]\n"

static void hash_of(const char *text, char hash[MX_SHA256_TEXT], mx_text *lines) {
    mx_arena arena;
    mx_problems problems;
    mx_recipe *recipe;

    mx_arena_init(&arena, 64 << 20);
    mx_problems_init(&problems);
    if (mx_recipe_parse(text, "x.yaml", &arena, &recipe, &problems, NULL)) {
        mx_problems_print(&problems, stderr);
        cr_assert(false, "%s", text);
    }
    mx_recipe_hash(recipe, hash);
    if (lines) {
        mx_recipe_results(recipe, lines);
    }
    mx_problems_finish(&problems);
    mx_arena_finish(&arena);
}

Test(identity, an_old_hash_is_kept) {
    /* When this fails, stored runs no longer match their recipes: keep what a word means and its default, or raise
     * MX_RESULT_VERSION knowingly. */
    static const char text[] = HEAD "  lora_r: 4\n  routing_strategy: switch\n"
                                    "train:\n  tasks: [arc_easy, {task: piqa, weight: 0.5, limit: 100}]\n"
                                    "  learning_rate: 5e-4\n  lr_scheduler: cosine\n  warmup_ratio: 0.05\n"
                                    "eval: {protocols: [label_logits]}\n";
    char hash[MX_SHA256_TEXT];
    mx_text lines;

    mx_text_init(&lines, 1 << 20);
    hash_of(text, hash, &lines);
    cr_expect_str_eq(lines.data, "precision=f32\n"
                           "adapter.method=mixlora\n"
                           "adapter.lora_r=4\n"
                           "adapter.expert_lora.lora_r=4\n"
                           "adapter.expert_lora.lora_alpha=32\n"
                           "adapter.expert_lora.lora_dropout=0.05\n"
                           "adapter.expert_lora.use_rslora=false\n"
                           "adapter.routing_strategy=switch\n"
                           "adapter.jitter_noise=0.01\n"
                           "adapter.router_init_range=1\n"
                           "adapter.experts_forward=factored\n"
                           "train.tasks[0].task=arc_easy\n"
                           "train.tasks[1].task=piqa\n"
                           "train.tasks[1].weight=0.5\n"
                           "train.tasks[1].limit=100\n"
                           "train.learning_rate=0.0005\n"
                           "train.lr_scheduler=cosine\n"
                           "train.warmup_ratio=0.05\n"
                           "eval.protocols=[label_logits]\n");
    cr_assert_str_eq(hash, "3ebedb64b2b3a1d7639983569fd1dd0f75750ffecd1abedb5702de257440794a");
    mx_text_finish(&lines);
}

Test(identity, spelling_out_a_default_changes_nothing) {
    static const char *const same[] = {
        HEAD TAIL,
        HEAD "  lora_r: 16\n" TAIL "  learning_rate: 0.0002\n",
        "seed: 7\nname: other\ndb: other.db\noutput_dir: out\ndata_dir: d\nthreads: 1\n" HEAD TAIL
        "  logging_steps: 5\n  save_steps: 9\n  router_log_steps: 3\n",
        HEAD "train:\n  tasks: [{task: a, path: elsewhere.jsonl}]\n",
        "device: cpu\n" HEAD TAIL "  gradient_checkpointing: true\n",
    };
    char first[MX_SHA256_TEXT], hash[MX_SHA256_TEXT];

    hash_of(same[0], first, NULL);
    for (size_t i = 1; i < sizeof same / sizeof same[0]; i++) {
        hash_of(same[i], hash, NULL);
        cr_assert_str_eq(first, hash, "case %zu", i);
    }
}

Test(identity, every_word_that_may_change_results_makes_another_run) {
    static const char *const different[] = {
        HEAD TAIL,
        HEAD "  lora_r: 8\n" TAIL,
        HEAD "  top_k: 1\n" TAIL,
        HEAD "  target_modules: [q_proj, down_proj]\n" TAIL,
        HEAD TAIL "  learning_rate: 0.00020000000000000004\n",
        HEAD TAIL "  micro_batch_tokens: 1024\n",
        HEAD TAIL "  add_eos: true\n",
        HEAD "train:\n  tasks: [b]\n",
        HEAD "train:\n  tasks: [a, b]\n",
        HEAD "train:\n  tasks: [b, a]\n",
        HEAD "train:\n  tasks: [{task: a, limit: 5}]\n",
        "base_model: m\nprecision: bf16\nadapter:\n  method: mixlora\n" TAIL,
        "base_model: m\nprecision: f32\nadapter:\n  method: lora\n" TAIL,
        "base_model: m\nprecision: f32\nadapter:\n  method: dora\n" TAIL,
    };
    enum { COUNT = sizeof different / sizeof different[0] };
    char hash[COUNT][MX_SHA256_TEXT];

    for (size_t i = 0; i < COUNT; i++) {
        hash_of(different[i], hash[i], NULL);
        for (size_t j = 0; j < i; j++) {
            cr_assert_str_neq(hash[i], hash[j], "cases %zu and %zu", j, i);
        }
    }
}

Test(identity, auto_is_hashed_as_what_it_resolves_to) {
    char by_auto[MX_SHA256_TEXT], spelled[MX_SHA256_TEXT];

    hash_of("base_model: m\nprecision: auto\nadapter: {method: lora}\n" TAIL, by_auto, NULL);
    hash_of(mx_device_is_gpu(mx_device_of("auto", NULL)) || mx_cpu_has_bf16() ? "base_model: m\nprecision: bf16\nadapter: {method: lora}\n" TAIL
                              : "base_model: m\nprecision: f32\nadapter: {method: lora}\n" TAIL,
            spelled, NULL);
    cr_assert_str_eq(by_auto, spelled);
    hash_of(HEAD "  experts_forward: auto\n" TAIL, by_auto, NULL);
    hash_of(HEAD "  experts_forward: factored\n" TAIL, spelled, NULL);
    cr_assert_str_eq(by_auto, spelled);
}
