/* A whole run as a person starts it: exit code, what is printed, what is stored, what is on disk. */
#include "tests/runner/support.h"

static const char mixlora[] = "  method: mixlora\n  lora_r: 4\n  lora_alpha: 8\n  num_experts: 4\n  top_k: 2\n";

Test(run, trains_scores_stores_and_tells) {
    scratch x = scratch_open();
    char *out, *err;

    tiny_recipe(&x, "r.yaml", mixlora);
    program(&x, 0, "r.yaml");
    out = output(&x, "out.txt");
    err = output(&x, "err.txt");
    cr_assert(strstr(out, "acc_norm, loglikelihood, validation"), "%s", out);
    cr_assert(strstr(out, "acc, label_logits, validation"), "%s", out);
    cr_assert(strstr(out, "sample_obqa (limited)"), "%s", out);
    cr_assert(strstr(out, "router load, share of tokens, training"), "%s", out);
    cr_assert(strstr(out, "stored in mixrun.db (run 1); adapter in runs/1-r/adapter"), "%s", out);
    cr_assert(strstr(err, "before training"), "%s", err);
    cr_assert(strstr(err, "22 questions, 2 epochs, 12 steps"), "%s", err);
    cr_assert(mx_file_exists(scratch_path(&x, "runs/1-r/adapter/adapter_model.safetensors")));
    cr_assert(mx_file_exists(scratch_path(&x, "runs/1-r/recipe.yaml")));
    cr_assert_not(mx_file_exists(scratch_path(&x, "runs/1-r/checkpoint.bin")), "nothing to go back to");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT state, step, steps, limited FROM runs"), "finished|12|12|1\n");
    scratch_close(&x);
}

Test(run, integers_of_the_router_hold_their_identities) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", mixlora);
    program(&x, 0, "r.yaml --quiet");
    cr_assert_str_eq(rows(&x, "mixrun.db",
                          "SELECT COUNT(*) FROM (SELECT SUM(tokens) + SUM(dropped) AS n, MAX(routed) AS t, SUM(probability_mass) AS m"
                          " FROM router_load GROUP BY window_id, task, layer) WHERE n <> 2 * t OR ABS(m - t) > 1e-3 * t"),
                     "0\n", "loads sum to tokens times k, probabilities to tokens");
    cr_assert_str_eq(rows(&x, "mixrun.db",
                          "SELECT (SELECT SUM(value) FROM metrics WHERE name = 'tokens') ="
                          " (SELECT SUM(tokens) FROM router_tokens JOIN router_windows USING (window_id) WHERE split = 'train' AND layer = 0)"),
                     "1\n", "the training windows saw every token once");
    cr_assert_str_eq(rows(&x, "mixrun.db",
                          "SELECT COUNT(*) FROM (SELECT SUM(p.tokens) AS n, MAX(t.tokens) AS t FROM router_pairs p JOIN router_tokens t"
                          " USING (window_id, task, layer) GROUP BY window_id, task, layer) WHERE n <> t"),
                     "0\n", "with top-2 every token has one pair");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT COUNT(*) > 0 FROM router_windows WHERE evaluation_id IS NOT NULL"), "1\n");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT COUNT(*) FROM outcomes o JOIN predictions p USING (evaluation_id, number)"
                                           " WHERE o.correct <> (o.chosen = p.gold)"), "0\n");
    scratch_close(&x);
}

Test(run, the_same_recipe_gives_the_same_bytes_twice) {
    static const char *const way[] = { "threads=1 precision=f32", "threads=2 precision=f32", "threads=2 precision=bf16" };
    scratch x = scratch_open();
    mx_status st = { 0 };

    tiny_recipe(&x, "r.yaml", "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n  lora_dropout: 0.1\n");
    for (int i = 0; i < 3; i++) {
        char first[MX_SHA256_TEXT], second[MX_SHA256_TEXT];

        program(&x, 0, "r.yaml --quiet db=a%d.db output_dir=a%d %s", i, i, way[i]);
        program(&x, 0, "r.yaml --quiet db=b%d.db output_dir=b%d %s", i, i, way[i]);
        cr_assert_str_eq(measured(&x, mx_arena_text(&x.arena, "a%d.db", i)), measured(&x, mx_arena_text(&x.arena, "b%d.db", i)), "%s", way[i]);
        cr_assert_eq(mx_sha256_file(scratch_path(&x, mx_arena_text(&x.arena, "a%d/1-r/adapter/adapter_model.safetensors", i)), first, &st), MX_OK);
        cr_assert_eq(mx_sha256_file(scratch_path(&x, mx_arena_text(&x.arena, "b%d/1-r/adapter/adapter_model.safetensors", i)), second, &st), MX_OK);
        cr_assert_str_eq(first, second, "%s", way[i]);
    }
    program(&x, 0, "r.yaml --quiet db=c.db output_dir=c seed=4");
    cr_assert_str_neq(measured(&x, "a0.db"), measured(&x, "c.db"), "another seed is another run");
    scratch_close(&x);
}

Test(run, a_saved_adapter_scores_as_it_did) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", mixlora);
    program(&x, 0, "r.yaml --quiet");
    program(&x, 0, "eval r.yaml --adapter runs/1-r/adapter --quiet");
    cr_assert_str_eq(rows(&x, "mixrun.db",
                          "SELECT COUNT(*) FROM predictions p JOIN evaluations e USING (evaluation_id) JOIN runs r USING (run_id)"
                          " JOIN evaluations f ON f.run_id = 1 AND f.task = e.task AND f.protocol = e.protocol AND f.split = e.split AND f.step = 12"
                          " JOIN predictions g ON g.evaluation_id = f.evaluation_id AND g.number = p.number"
                          " WHERE r.run_id = 2 AND ABS(json_extract(g.choices, '$[0]') - json_extract(p.choices, '$[0]')) > 1e-3"), "0\n",
                     "packed otherwise: the order of float sums differs");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT kind, method, state FROM runs WHERE run_id = 2"), "eval|mixlora|finished\n");
    program(&x, 0, "eval r.yaml --quiet");
    cr_assert_str_eq(rows(&x, "mixrun.db",
                          "SELECT COUNT(*) FROM predictions p JOIN evaluations e USING (evaluation_id)"
                          " JOIN evaluations f ON f.run_id = 1 AND f.task = e.task AND f.protocol = e.protocol AND f.split = e.split AND f.step = 0"
                          " JOIN predictions g ON g.evaluation_id = f.evaluation_id AND g.number = p.number"
                          " WHERE e.run_id = 3 AND ABS(json_extract(g.choices, '$[0]') - json_extract(p.choices, '$[0]')) > 1e-3"), "0\n",
                     "the base is what step 0 was, but for the order of float sums (scores are some -100)");
    scratch_close(&x);
}

Test(run, a_recipe_that_does_not_fit_is_refused_before_anything_is_made) {
    scratch x = scratch_open();
    char *err;

    tiny_recipe(&x, "r.yaml", mixlora);
    program(&x, 1, "r.yaml --memory-limit 100KiB");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "this run needs "), "%s", err);
    cr_assert(strstr(err, "a smaller train.micro_batch_tokens"), "%s", err);
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")));
    cr_assert_not(mx_folder_exists(scratch_path(&x, "runs")));
    scratch_close(&x);
}

Test(run, missing_data_names_where_it_looked_and_the_command_that_gets_it) {
    scratch x = scratch_open();
    char *err;

    tiny_recipe(&x, "r.yaml", mixlora);
    program(&x, 1, "r.yaml train.tasks=[arc_easy] eval.tasks=[arc_easy]");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "task 'arc_easy' needs ARC-Easy-Train.jsonl"), "%s", err);
    cr_assert(strstr(err, "mixrun fetch arc_easy"), "%s", err);
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")));
    scratch_close(&x);
}

Test(run, gradient_checkpointing_changes_no_bit) {
    static const char *const precision[] = { "f32", "bf16" };
    scratch x = scratch_open();
    mx_status st = { 0 };

    tiny_recipe(&x, "r.yaml", "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n  lora_dropout: 0.1\n");
    for (int i = 0; i < 2; i++) {
        char whole[MX_SHA256_TEXT], again[MX_SHA256_TEXT];

        program(&x, 0, "r.yaml --quiet db=a%d.db output_dir=a%d precision=%s train.max_steps=6", i, i, precision[i]);
        program(&x, 0, "r.yaml --quiet db=b%d.db output_dir=b%d precision=%s train.max_steps=6 train.gradient_checkpointing=true", i, i,
                precision[i]);
        cr_assert_str_eq(measured(&x, mx_arena_text(&x.arena, "a%d.db", i)), measured(&x, mx_arena_text(&x.arena, "b%d.db", i)), "%s",
                         precision[i]);
        cr_assert_eq(mx_sha256_file(scratch_path(&x, mx_arena_text(&x.arena, "a%d/1-r/adapter/adapter_model.safetensors", i)), whole, &st), MX_OK);
        cr_assert_eq(mx_sha256_file(scratch_path(&x, mx_arena_text(&x.arena, "b%d/1-r/adapter/adapter_model.safetensors", i)), again, &st), MX_OK);
        cr_assert_str_eq(whole, again, "%s", precision[i]);
    }
    scratch_close(&x);
}

Test(run, every_method_and_routing_runs) {
    static const char *const adapter[] = {
        "  method: base\n", "  method: lora\n  lora_r: 4\n", "  method: dora\n  lora_r: 4\n",
        "  method: mixlora\n  lora_r: 2\n  num_experts: 4\n  routing_strategy: switch\n",
        "  method: mixlora\n  lora_r: 2\n  num_experts: 4\n  routing_strategy: top_p\n",
        "  method: mixdora\n  lora_r: 2\n  num_experts: 4\n",
    };
    scratch x = scratch_open();

    for (size_t i = 1; i < sizeof adapter / sizeof adapter[0]; i++) {
        tiny_recipe(&x, "r.yaml", adapter[i]);
        program(&x, 0, "r.yaml --quiet train.max_steps=3");
    }
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT COUNT(*), MIN(state), MAX(state), SUM(step) FROM runs"), "5|finished|finished|15\n");
    scratch_close(&x);
}

Test(run, a_loss_that_is_not_finite_stops_with_step_and_place_and_keeps_what_was_measured) {
    scratch x = scratch_open();
    char *err;

    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 4\n  target_modules: [q_proj, v_proj]\n");
    program(&x, 1, "r.yaml train.learning_rate=9 train.weight_decay=10 train.max_grad_norm=0 train.num_epochs=60 adapter.lora_alpha=1e6");
    err = output(&x, "err.txt");
    cr_assert(strstr(err, "is not finite"), "%s", err);
    cr_assert(strstr(err, "step "), "%s", err);
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT state, reason <> '' FROM runs"), "failed|1\n");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT COUNT(*) > 0 FROM metrics WHERE name = 'loss'"), "1\n");
    scratch_close(&x);
}
