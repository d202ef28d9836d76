/* Exported files are what lm-evaluation-harness writes, say what the store knows, and are never half there. */
#include "reports/export.h"

#include "base/json.h"
#include "tests/reports/filled.h"

#include <unistd.h>

static json_t *at(json_t *o, const char *a, const char *b) {
    json_t *inner = json_object_get(o, a);

    cr_assert(inner, "no '%s'", a);
    inner = b ? json_object_get(inner, b) : inner;
    cr_assert(inner, "no '%s' in '%s'", b, a);
    return inner;
}

Test(export, results_and_samples_have_the_harness_keys_and_the_stores_numbers) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_run_row run;
    const char *path, *slash;
    int64_t samples;
    json_t *o, *sample;
    char *text, *line, *save = NULL;
    size_t size;
    int lines = 0;
    mx_status st = { 0 };

    fill(s);
    MUST(mx_store_run_find(s, "3", &x.arena, &run, &st));
    MUST(mx_export_run(s, &run, scratch_path(&x, "out"), false, &x.arena, &path, &samples, &st));
    cr_assert_eq(samples, 2);
    slash = strrchr(path, '/');
    cr_assert(strstr(path, "/out/tiny__3-mixlora/results_20") && strcmp(path + strlen(path) - 5, ".json") == 0, "%s", path);
    cr_assert_null(strchr(slash, ':'));
    MUST(mx_json_read(path, 1 << 20, &o, &st));
    cr_assert_float_eq(json_number_value(at(at(o, "results", "alpha"), "acc,none", NULL)), 4.0 / 6, 0, "the last evaluation, to the bit");
    cr_assert_float_eq(json_number_value(at(at(o, "results", "alpha"), "acc_stderr,none", NULL)), 0.1, 0);
    cr_assert_str_eq(json_string_value(at(at(o, "results", "alpha"), "alias", NULL)), "alpha");
    cr_assert_eq(json_integer_value(at(at(o, "n-samples", "beta"), "original", NULL)), 4);
    cr_assert_eq(json_integer_value(at(at(o, "n-samples", "beta"), "effective", NULL)), 4);
    cr_assert_eq(json_integer_value(at(o, "n-shot", "beta")), 0);
    cr_assert(json_is_true(at(at(o, "higher_is_better", "alpha"), "acc", NULL)));
    cr_assert(json_is_array(at(o, "group_subtasks", "alpha")));
    cr_assert_str_eq(json_string_value(at(at(o, "configs", "alpha"), "output_type", NULL)), "multiple_choice");
    cr_assert_str_eq(json_string_value(at(o, "task_hashes", "alpha")), "alpha");
    cr_assert_str_eq(json_string_value(at(o, "config", "model_args")), "pretrained=tiny,peft=runs/3-mixlora/adapter,dtype=f32");
    cr_assert_eq(json_integer_value(at(o, "config", "random_seed")), 1);
    cr_assert(json_is_null(at(o, "config", "limit")));
    cr_assert_str_eq(json_string_value(at(o, "git_hash", NULL)), "abc1234");
    cr_assert_str_eq(json_string_value(at(o, "model_name_sanitized", NULL)), "tiny__3-mixlora");
    cr_assert_str_eq(json_string_value(at(o, "mixrun", "uuid")), run.uuid);
    cr_assert_null(json_object_get(o, "total_evaluation_time_seconds"), "of a training run it is not known");
    json_decref(o);

    path = mx_arena_text(&x.arena, "%.*s/samples_alpha_%.*s.jsonl", (int)(slash - path), path, (int)strlen(slash + 9) - 5, slash + 9);
    MUST(mx_file_read(path, 1 << 20, &text, &size, &st));
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++) {
        MUST(mx_json_parse(line, strlen(line), "line", 1, &sample, &st));
        cr_assert_eq(json_integer_value(at(sample, "doc_id", NULL)), lines);
        cr_assert_str_eq(json_string_value(at(sample, "doc", "id")), mx_arena_text(&x.arena, "alpha-%d", lines));
        cr_assert_str_eq(json_string_value(at(sample, "target", NULL)), lines < 4 ? "0" : "1");
        cr_assert_float_eq(json_number_value(at(sample, "acc", NULL)), lines < 4 ? 1 : 0, 0);
        cr_assert_eq(json_array_size(at(sample, "filtered_resps", NULL)), 2);
        cr_assert_str_eq(json_string_value(json_array_get(json_array_get(at(sample, "filtered_resps", NULL), 1), 0)), "-2.25");
        cr_assert_null(json_object_get(sample, "arguments"), "prompts are not in the store, and not invented");
        json_decref(sample);
    }
    cr_assert_eq(lines, 6);
    free(text);
    mx_store_close(s);
    scratch_close(&x);
}

Test(export, what_is_there_is_refused_before_anything_is_written) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_run_row run, none;
    const char *path, *again;
    int64_t samples;
    mx_status st = { 0 };

    fill(s);
    MUST(mx_store_run_find(s, "1", &x.arena, &run, &st));
    MUST(mx_store_run_find(s, "5", &x.arena, &none, &st));
    MUST(mx_export_run(s, &run, scratch_path(&x, "out"), false, &x.arena, &path, &samples, &st));
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mx_export_run(s, &run, scratch_path(&x, "out"), false, &x.arena, &again, &samples, &st), MX_E_USAGE);
    cr_assert(strstr(st.text, "is there already") && strstr(st.at.file, "samples_alpha") && strstr(st.hint, "--force"), "%s %s", st.text, st.hint);
    cr_assert_not(mx_file_exists(path));
    st = (mx_status){ 0 };
    MUST(mx_export_run(s, &run, scratch_path(&x, "out"), true, &x.arena, &again, &samples, &st));
    cr_assert_str_eq(path, again, "the same run has the same names");
    cr_assert(mx_file_exists(path));
    cr_assert_eq(mx_export_run(s, &none, scratch_path(&x, "none"), false, &x.arena, &again, &samples, &st), MX_E_DATA);
    cr_assert(strstr(st.text, "run 5 has no evaluation to export"), "%s", st.text);
    cr_assert_not(mx_folder_exists(scratch_path(&x, "none")));
    mx_store_close(s);
    scratch_close(&x);
}
