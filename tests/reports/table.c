/* Tables and summaries as a person sees them. */
#include "reports/summary.h"
#include "reports/table.h"
#include "tests/reports/support.h"

#include <string.h>

Test(table, columns_align_by_characters_not_bytes) {
    mx_table t;
    mx_text out;

    mx_table_init(&t, 3);
    t.right[1] = true;
    mx_table_cell(&t, "café");
    mx_table_cell(&t, "n");
    mx_table_cell(&t, "x");
    mx_table_cell(&t, "b");
    mx_table_cell(&t, "66.7 ± 6.1");
    mx_table_cell(&t, "last");
    mx_text_init(&out, 1 << 12);
    mx_table_print(&t, 1, &out);
    cr_assert_str_eq(out.data, " café           n  x\n b     66.7 ± 6.1  last\n");
    mx_text_finish(&out);
    mx_table_finish(&t);
}

static int64_t evaluation(mx_store *s, int64_t run, int64_t step, double value, bool limited) {
    mx_evaluation_row e = { .task = "sample_arc", .split = "validation", .protocol = "loglikelihood", .epoch = (double)step / 4,
                            .step = step, .n = 60, .limited = limited, .task_hash = "h", .data_hash = "d" };
    mx_status st = { 0 };
    int64_t id;

    cr_assert_eq(mx_store_begin(s, &st), MX_OK);
    cr_assert_eq(mx_store_evaluation(s, run, &e, &id, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_store_score(s, id, "acc", value, 0.0645, 0.2833, &st), MX_OK);
    cr_assert_eq(mx_store_commit(s, &st), MX_OK);
    return id;
}

Test(table, scores_stand_before_and_after_with_their_error_and_the_majority) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t run = add_run(s, "r");
    mx_text out;
    mx_status st = { 0 };

    evaluation(s, run, 0, 0.4833, false);
    evaluation(s, run, 2, 0.55, false);
    evaluation(s, run, 4, 0.6667, false);
    mx_text_init(&out, 1 << 20);
    cr_assert_eq(mx_summary_scores(s, run, &out, &st), MX_OK, "%s", st.text);
    cr_assert(strstr(out.data, " acc, loglikelihood, validation   n      before       after  majority\n"
                               " sample_arc                      60  48.3 ± 6.5  66.7 ± 6.5      28.3\n"),
              "%s", out.data);
    cr_assert(strstr(out.data, "one seed says nothing about seeds"));
    cr_assert_null(strstr(out.data, "limited"));
    mx_text_finish(&out);
    mx_store_close(s);
    scratch_close(&x);
}

Test(table, a_limited_score_is_marked) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t run = add_run(s, "r");
    mx_text out;
    mx_status st = { 0 };

    evaluation(s, run, 0, 0.5, true);
    mx_text_init(&out, 1 << 20);
    cr_assert_eq(mx_summary_scores(s, run, &out, &st), MX_OK);
    cr_assert(strstr(out.data, "sample_arc (limited)"), "%s", out.data);
    mx_text_finish(&out);
    mx_store_close(s);
    scratch_close(&x);
}

Test(table, ls_and_show_tell_of_runs_as_text_and_json) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t run = add_run(s, "quick \"one\"");
    mx_list_filter all = { 0 }, none = { .method = "lora" };
    mx_run_row row;
    mx_text out;
    mx_status st = { 0 };

    evaluation(s, run, 4, 0.6667, false);
    mx_text_init(&out, 1 << 20);
    cr_assert_eq(mx_summary_list(s, &all, &x.arena, &out, &st), MX_OK, "%s", st.text);
    cr_assert(strstr(out.data, "66.7  acc, loglikelihood, validation\n"), "%s", out.data);
    mx_text_finish(&out);
    mx_text_init(&out, 1 << 20);
    cr_assert_eq(mx_summary_list(s, &none, &x.arena, &out, &st), MX_OK);
    cr_assert_str_eq(out.data, " no runs\n");
    mx_text_finish(&out);
    cr_assert_eq(mx_store_run_find(s, "1", &x.arena, &row, &st), MX_OK);
    mx_text_init(&out, 1 << 20);
    cr_assert_eq(mx_summary_show(s, &row, true, &x.arena, &out, &st), MX_OK, "%s", st.text);
    cr_assert(strstr(out.data, "\"name\": \"quick \\\"one\\\"\""), "%s", out.data);
    cr_assert(strstr(out.data, "\"scores\": [\n{\"task\": \"sample_arc\""), "%s", out.data);
    mx_text_finish(&out);
    mx_store_close(s);
    scratch_close(&x);
}
