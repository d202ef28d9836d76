/* What differs in meaning is told, and nothing else. */
#include "reports/diff.h"

#include "tests/reports/filled.h"

static bool never(const char *word) {
    (void)word;
    return false;
}

static bool learning(const char *word) {
    return strcmp(word, "train.learning_rate") == 0;
}

static char *told(scratch *x, mx_store *s, const char *a, const char *b, bool (*bears)(const char *)) {
    mx_run_row of_a, of_b;
    mx_table t;
    mx_text out;
    mx_status st = { 0 };
    char *kept;

    MUST(mx_store_run_find(s, a, &x->arena, &of_a, &st));
    MUST(mx_store_run_find(s, b, &x->arena, &of_b, &st));
    MUST(mx_diff_runs(s, &of_a, &of_b, bears, &x->arena, &t, &st));
    mx_text_init(&out, 1 << 20);
    mx_table_write(&t, MX_FORMAT_CSV, &out);
    mx_table_finish(&t);
    kept = mx_arena_copy(&x->arena, strstr(out.data, "\r\n") + 2, strlen(strstr(out.data, "\r\n") + 2));
    mx_text_finish(&out);
    return kept;
}

static void change(mx_store *s, const char *sql) {
    cr_assert(sqlite3_exec(mx_store_handle(s), sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(mx_store_handle(s)));
}

Test(diff, equal_runs_differ_in_nothing_whatever_they_are_called) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));

    fill(s);
    cr_assert_str_eq(told(&x, s, "1", "1", never), "");
    cr_assert_str_eq(told(&x, s, "1", "2", never), "seed,1,2\r\n");
    change(s, "UPDATE runs SET seed = 1, name = 'other', folder = 'elsewhere', recipe = 'name: other\nlogging_steps: 7\n' || SUBSTR(recipe, 12)"
              " WHERE run_id = 2; UPDATE environments SET text = REPLACE(text, '\"6\"', '\"7\"')");
    cr_assert_str_eq(told(&x, s, "1", "2", never), "", "a name, a folder, how often it logs, the kernel's release");
    mx_store_close(s);
    scratch_close(&x);
}

Test(diff, a_default_stands_against_a_said_value) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));

    fill(s);
    cr_assert_str_eq(told(&x, s, "1", "3", never), "adapter.method,lora,mixlora\r\nadapter.lora_r,8,4\r\n");
    change(s, "DELETE FROM words WHERE run_id = 1 AND word = 'adapter.lora_r'"); /* 8 was the default then */
    cr_assert_str_eq(told(&x, s, "1", "3", never), "adapter.method,lora,mixlora\r\nadapter.lora_r,8,4\r\n");
    change(s, "INSERT INTO words VALUES (3, 'adapter.num_experts', '4')");
    cr_assert_str_eq(told(&x, s, "1", "3", never), "adapter.method,lora,mixlora\r\nadapter.lora_r,8,4\r\nadapter.num_experts,-,4\r\n");
    cr_assert_str_eq(told(&x, s, "3", "1", never), "adapter.method,mixlora,lora\r\nadapter.lora_r,4,8\r\nadapter.num_experts,4,-\r\n");
    /* a default that another version changed is in nobody's words: today's tables call it result-bearing */
    change(s, "UPDATE runs SET recipe = REPLACE(recipe, '0.001', '0.002') WHERE run_id = 2");
    cr_assert_str_eq(told(&x, s, "1", "2", never), "seed,1,2\r\n");
    cr_assert_str_eq(told(&x, s, "1", "2", learning), "seed,1,2\r\ntrain.learning_rate,0.001,0.002\r\n");
    change(s, "UPDATE runs SET recipe_hash = 'changed' WHERE run_id = 1");
    cr_assert_str_eq(told(&x, s, "1", "2", never), "seed,1,2\r\nwhat the same words mean to the program,change,hash-l\r\n");
    mx_store_close(s);
    scratch_close(&x);
}

Test(diff, base_tasks_data_and_environment_are_told) {
    static const char expected[] = "base,\"tiny, F32 safetensors, sha256 b0\",\"big, Q4, sha256 b1\"\r\n"
                                   "definition of task alpha,sha256 alpha,sha256 changed\r\n"
                                   "\"data of alpha, validation\",\"sha256 aaaaaaaaaaaa, 6 questions\",\"sha256 cccc, 7 questions, 2 cut\"\r\n"
                                   "environment: backend,2 threads,4 threads\r\nenvironment: mixrun,0.1.0,0.2.0\r\n";
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));

    fill(s);
    change(s, "INSERT INTO bases VALUES ('b1', 'big', 'Q4', 9); INSERT INTO environments VALUES (9, 'h9', REPLACE(REPLACE((SELECT text FROM"
              " environments LIMIT 1), '2 threads', '4 threads'), '0.1.0', '0.2.0'));"
              "UPDATE runs SET seed = 1, base_hash = 'b1', environment_id = 9, tasks_hash = 't1', data_hash = 'd1' WHERE run_id = 2;"
              "UPDATE evaluations SET task_hash = 'changed' WHERE run_id = 2 AND task = 'alpha';"
              "UPDATE data_files SET sha256 = 'cccc', questions = 7, truncated = 2 WHERE run_id = 2 AND task = 'alpha'");
    cr_assert_str_eq(told(&x, s, "1", "2", never), expected, "%s", told(&x, s, "1", "2", never));
    mx_store_close(s);
    scratch_close(&x);
}
