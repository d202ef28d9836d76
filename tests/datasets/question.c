/* Where files are looked for, what is held out, what a limit leaves. */
#include "tests/datasets/material.h"

#include <unistd.h>

/* n ARC records, ids q0, q1, ...; the right answer goes A, B, A, B. */
static const char *records(const char *folder, const char *name, int n)
{
    mx_text out;
    const char *path;

    mx_text_init(&out, 1 << 22);
    for (int i = 0; i < n; i++) {
        mx_text_print(&out, "{\"id\":\"q%d\",\"question\":{\"stem\":\"s%d\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},"
                            "{\"text\":\"b\",\"label\":\"B\"}]},\"answerKey\":\"%s\"}\n", i, i, i % 2 ? "B" : "A");
    }
    path = write_text(folder, name, out.data);
    mx_text_finish(&out);
    return path;
}

Test(question, a_file_is_looked_for_in_data_dir_then_mixrun_data_then_the_cache)
{
    const char *folder = enter_folder();
    const char *const homes[] = { "dir", "env", "cache/mixrun/data" };
    const mx_task *t = read_task("arc_easy");
    mx_data_request want = { .split = MX_SPLIT_TRAIN, .data_dir = mx_arena_text(arena(), "%s/dir", folder) };
    const char *path;
    mx_status st = { 0 };

    setenv("MIXRUN_DATA", mx_arena_text(arena(), "%s/env", folder), 1);
    setenv("XDG_CACHE_HOME", mx_arena_text(arena(), "%s/cache", folder), 1);
    for (int i = 2; i >= 0; i--) {
        const char *home = mx_arena_text(arena(), "%s/%s/arc_easy", folder, homes[i]);

        cr_assert_eq(mx_folder_make(home, &st), MX_OK, "%s", st.text);
        records(home, "ARC-Easy-Train.jsonl.gz", 2); /* the name tells packed; the content may still be plain */
        cr_assert_eq(mx_data_find(t, &want, false, arena(), &path, &st), MX_OK, "%s", st.text);
        cr_expect_str_eq(path, mx_arena_text(arena(), "%s/ARC-Easy-Train.jsonl.gz", home));
        records(home, "ARC-Easy-Train.jsonl", 2);
        cr_assert_eq(mx_data_find(t, &want, false, arena(), &path, &st), MX_OK, "%s", st.text);
        cr_expect_str_eq(path, mx_arena_text(arena(), "%s/ARC-Easy-Train.jsonl", home));
    }
    leave_folder(folder);
}

Test(question, a_file_that_is_nowhere_says_where_it_was_looked_for_and_how_to_get_it)
{
    const mx_mark at = { .file = "r.yaml", .line = 21, .column = 11 };
    const char *folder = enter_folder();
    mx_data_request want = { .split = MX_SPLIT_TRAIN, .at = at };
    mx_status st = { 0 };
    mx_questions q;

    unsetenv("MIXRUN_DATA");
    setenv("XDG_CACHE_HOME", folder, 1);
    cr_assert_eq(mx_questions_read(read_task("arc_easy"), &want, arena(), &q, &st), MX_E_MISSING);
    cr_expect_str_eq(st.text, mx_arena_text(arena(), "task 'arc_easy' needs ARC-Easy-Train.jsonl, which is in none of:\n"
                                                     "data_dir (not set) \xc2\xb7 $MIXRUN_DATA (not set) \xc2\xb7 "
                                                     "%s/mixrun/data/arc_easy", folder));
    cr_expect_str_eq(st.hint, "get it with: mixrun fetch arc_easy");
    cr_expect_eq(st.at.line, 21u);

    st = (mx_status){ 0 };
    want.path = "mine.jsonl";
    cr_assert_eq(mx_questions_read(read_task("arc_easy"), &want, arena(), &q, &st), MX_E_MISSING);
    cr_expect(strstr(st.text, "needs mine.jsonl, which is not to be found as it stands, nor in"), "%s", st.text);
    cr_expect_str_eq(st.hint, "");

    st = (mx_status){ 0 };
    want = (mx_data_request){ .split = MX_SPLIT_TEST, .at = at };
    cr_assert_eq(mx_questions_read(read_task("piqa"), &want, arena(), &q, &st), MX_E_RECIPE);
    cr_expect_str_eq(st.text, "task 'piqa' has no split 'test' (it has: train validation)");
    leave_folder(folder);
}

Test(question, a_task_with_a_side_file_wants_labels_beside_a_path)
{
    const char *folder = enter_folder();
    mx_data_request want = { .split = MX_SPLIT_TRAIN, .path = write_text(folder, "a.jsonl", "{}") };
    mx_status st = { 0 };
    mx_questions q;

    cr_assert_eq(mx_questions_read(read_task("piqa"), &want, arena(), &q, &st), MX_E_RECIPE);
    cr_expect(strstr(st.text, "'path' needs 'labels' beside it"), "%s", st.text);
    leave_folder(folder);
}

Test(question, held_out_and_trained_questions_share_nothing_and_make_up_the_file)
{
    const char *folder = enter_folder();
    const mx_task *t = read_task("arc_easy");
    mx_data_request want = { .split = MX_SPLIT_TRAIN, .path = records(folder, "x.jsonl", 200), .hold_out = 60,
                             .first_running = 1000 };
    mx_questions train = read_questions(t, want), held, all;
    bool seen[200] = { false };

    want.split = MX_SPLIT_HELD_OUT;
    held = read_questions(t, want);
    want.split = MX_SPLIT_TRAIN;
    want.hold_out = 0;
    all = read_questions(t, want);
    cr_assert_eq(train.count, 140);
    cr_assert_eq(held.count, 60);
    cr_assert_eq(all.count, 200);
    cr_expect_eq(train.in_file, 200);
    cr_expect_str_eq(train.file[0].sha256, all.file[0].sha256);
    for (int64_t i = 0; i < 200; i++) {
        const mx_question *q = i < 140 ? &train.item[i] : &held.item[i - 140];

        cr_assert(!seen[q->number], "question %d is on both sides", q->number);
        seen[q->number] = true;
        cr_expect_eq(q->running, 1000 + q->number);
        cr_expect_str_eq(q->id, all.item[q->number].id);
        cr_expect(i == 0 || i == 140 || q[-1].number < q->number, "the file's order is kept");
    }
    leave_folder(folder);
}

Test(question, what_is_held_out_depends_on_ids_alone_and_grows_by_adding)
{
    const char *folder = enter_folder();
    const mx_task *t = read_task("arc_easy");
    mx_data_request want = { .split = MX_SPLIT_HELD_OUT, .path = records(folder, "x.jsonl", 200), .hold_out = 20 };
    mx_questions few = read_questions(t, want), many, limited;
    int64_t found = 0, early = 0;

    want.hold_out = 40;
    many = read_questions(t, want);
    want.limit = 10;
    limited = read_questions(t, want);
    for (int64_t i = 0; i < few.count; i++) {
        early += few.item[i].number < 100;
        for (int64_t k = 0; k < many.count; k++) {
            found += few.item[i].number == many.item[k].number;
        }
    }
    cr_expect_eq(found, 20, "holding out more keeps those held out before");
    cr_expect(early > 3 && early < 17, "spread over the file, not its beginning: %lld of 20", (long long)early);
    cr_expect_eq(limited.count, 10);
    for (int64_t i = 0; i < 10; i++) {
        cr_expect_eq(limited.item[i].number, many.item[i].number, "a limit takes the first, it does not choose others");
    }
    leave_folder(folder);
}

Test(question, holding_out_everything_or_nothing_is_refused)
{
    const char *folder = enter_folder();
    const mx_task *t = read_task("arc_easy");
    mx_data_request want = { .split = MX_SPLIT_TRAIN, .path = records(folder, "x.jsonl", 5), .hold_out = 5 };
    mx_status st = { 0 };
    mx_questions q;

    cr_assert_eq(mx_questions_read(t, &want, arena(), &q, &st), MX_E_RECIPE);
    cr_expect_str_eq(st.text, "hold_out is 5, but task 'arc_easy' has only 5 training questions");
    st = (mx_status){ 0 };
    want.split = MX_SPLIT_HELD_OUT;
    want.hold_out = 0;
    cr_assert_eq(mx_questions_read(t, &want, arena(), &q, &st), MX_E_RECIPE);
    cr_expect(strstr(st.text, "nothing is held out of task 'arc_easy'"), "%s", st.text);
    st = (mx_status){ 0 };
    want = (mx_data_request){ .split = MX_SPLIT_TRAIN, .path = write_text(folder, "e.jsonl", "\n\n") };
    cr_assert_eq(mx_questions_read(t, &want, arena(), &q, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "there is no question in it");
    leave_folder(folder);
}

Test(question, the_majority_is_that_of_the_questions_taken)
{
    const char *folder = enter_folder();
    const mx_task *t = read_task("arc_easy");
    mx_data_request want = { .split = MX_SPLIT_VALIDATION, .path = records(folder, "x.jsonl", 7) };

    cr_expect_eq(read_questions(t, want).majority, 4);
    want.limit = 2;
    cr_expect_eq(read_questions(t, want).majority, 1);
    leave_folder(folder);
}
