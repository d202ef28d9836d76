/* JSONL files: records with their places, plain or packed, and what is refused. */
#include "datasets/jsonl.h"

#include "tests/datasets/material.h"

#include <zlib.h>

Test(jsonl, records_come_with_their_line_and_blank_lines_count)
{
    const char *folder = enter_folder();
    const char *path = write_text(folder, "a.jsonl", "{\"n\": 1}\n\n  \r\n{\"n\": 2}\r\n{\"n\": 3}");
    mx_status st = { 0 };
    mx_jsonl j;
    const uint32_t lines[] = { 1, 4, 5 };
    json_t *record;

    cr_assert_eq(mx_jsonl_open(&j, path, &st), MX_OK, "%s", st.text);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(mx_jsonl_next(&j, &record, &st), MX_OK, "%s", st.text);
        cr_assert_eq(json_integer_value(json_object_get(record, "n")), i + 1);
        cr_assert_eq(j.line, lines[i]);
        json_decref(record);
    }
    cr_assert_eq(mx_jsonl_next(&j, &record, &st), MX_OK);
    cr_assert_null(record);
    mx_jsonl_close(&j);
    leave_folder(folder);
}

Test(jsonl, a_packed_file_reads_and_hashes_as_the_plain_one)
{
    const char *folder = enter_folder();
    const char *text = "{\"n\": 1}\n", *plain = write_text(folder, "a.jsonl", text);
    const char *packed = mx_arena_text(arena(), "%s/b.jsonl.gz", folder);
    gzFile f = gzopen(packed, "wb");
    mx_status st = { 0 };
    mx_jsonl a, b;
    json_t *record;

    cr_assert_eq(gzwrite(f, text, (unsigned)strlen(text)), (int)strlen(text));
    gzclose(f);
    cr_assert_eq(mx_jsonl_open(&a, plain, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_jsonl_open(&b, packed, &st), MX_OK, "%s", st.text);
    cr_assert_str_eq(a.sha256, b.sha256);
    cr_assert_eq(mx_jsonl_next(&b, &record, &st), MX_OK);
    cr_assert_not_null(record);
    json_decref(record);
    mx_jsonl_close(&a);
    mx_jsonl_close(&b);
    leave_folder(folder);
}

Test(jsonl, what_is_no_record_is_refused_at_its_line_and_column)
{
    static const struct {
        const char *text;
        uint32_t line, column;
        const char *says;
    } wrong[] = {
        { "{\"a\": 1}\n{\"a\": tru}\n", 2, 7, "not JSON" },
        { "{\"a\": 1}\n\n[1, 2]\n", 3, 1, "a record must be a JSON object" },
        { "{\"a\": 1} {\"b\": 2}\n", 1, 10, "not JSON" },
        { "{\"a\": 1, \"a\": 2}\n", 1, 10, "duplicate" },
        { "{\"a\": \"\xff\"}\n", 1, 0, "not JSON" },
        { "{\"a\":\n1}\n", 1, 0, "not JSON" },
    };

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mx_status st = { 0 };
        mx_code code = MX_OK;
        mx_jsonl j;
        json_t *record;

        mx_jsonl_over(&j, "x.jsonl", wrong[i].text, strlen(wrong[i].text));
        do {
            code = mx_jsonl_next(&j, &record, &st);
            json_decref(record);
        } while (!code && record);
        cr_expect_eq(code, MX_E_DATA, "case %zu", i);
        cr_expect_str_eq(st.at.file, "x.jsonl");
        cr_expect_eq(st.at.line, wrong[i].line, "case %zu: line %u", i, st.at.line);
        if (wrong[i].column) {
            cr_expect_eq(st.at.column, wrong[i].column, "case %zu: column %u", i, st.at.column);
        }
        cr_expect(strstr(st.text, wrong[i].says), "case %zu says: %s", i, st.text);
        mx_jsonl_close(&j);
    }
}

Test(jsonl, a_line_without_end_is_refused_before_it_is_parsed)
{
    size_t size = MX_JSONL_LINE_MAX + 10;
    char *text = malloc(size);
    mx_status st = { 0 };
    mx_jsonl j;
    json_t *record;

    memset(text, '[', size);
    mx_jsonl_over(&j, "x.jsonl", text, size);
    cr_assert_eq(mx_jsonl_next(&j, &record, &st), MX_E_DATA);
    cr_assert(strstr(st.text, "one record a line"), "%s", st.text);
    mx_jsonl_close(&j);
    free(text);
}

/* --- records that are JSON, but no questions of the task --- */

/* A record for ARC's YAML with one thing wrong, on line 2, and what is said of it. */
static const struct {
    const char *record, *says;
} MALFORMED[] = {
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},{\"text\":\"b\",\"label\":\"B\"},"
      "{\"text\":\"c\",\"label\":\"C\"},{\"text\":\"d\",\"label\":\"D\"}]},\"answerKey\":\"F\"}",
      "answerKey 'F' names none of the choices A, B, C, D" },
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},{\"text\":\"b\",\"label\":\"B\"}]}}",
      "the record has no 'answerKey'" },
    { "{\"question\":{\"stem\":\"s\",\"choices\":[]},\"answerKey\":\"A\"}", "the record has no 'id'" },
    { "{\"id\":\"q\",\"question\":{\"choices\":[]},\"answerKey\":\"A\"}", "the record has no 'question.stem'" },
    { "{\"id\":\"q\",\"question\":{\"stem\":[\"s\"],\"choices\":[]},\"answerKey\":\"A\"}",
      "'question.stem' is a list, not a text" },
    { "{\"id\":\"q\",\"question\":\"s\",\"answerKey\":\"A\"}", "the record has no 'question.stem'" },
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\"},\"answerKey\":\"A\"}", "the record has no 'question.choices'" },
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\",\"choices\":\"a\"},\"answerKey\":\"A\"}",
      "'question.choices' is a text, not a list" },
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"}]},\"answerKey\":\"A\"}",
      "1 choices; a question has 2 to 64" },
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},{\"label\":\"B\"}]},\"answerKey\":\"A\"}",
      "the record has no 'text'" },
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},{\"text\":\"b\",\"label\":\"A\"}]},"
      "\"answerKey\":\"A\"}",
      "two choices are labelled 'A'" },
    { "{\"id\":\"q\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},{\"text\":\"\",\"label\":\"B\"}]},"
      "\"answerKey\":\"A\"}",
      "choice 'B' has no text" },
    { "{\"id\":null,\"question\":{\"stem\":\"s\",\"choices\":[]},\"answerKey\":\"A\"}", "'id' is null, not a text" },
};

Test(jsonl, a_malformed_record_names_its_file_and_line_and_says_what_is_missing)
{
    static const char right[] = "{\"id\":\"p\",\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},"
                                "{\"text\":\"b\",\"label\":\"B\"}]},\"answerKey\":\"B\"}";
    const char *folder = enter_folder();
    const mx_task *task = read_task("arc_easy");

    for (size_t i = 0; i < sizeof MALFORMED / sizeof *MALFORMED; i++) {
        const char *text = mx_arena_text(arena(), "%s\n%s\n", right, MALFORMED[i].record);
        const char *path = write_text(folder, "x.jsonl", text);
        mx_data_request want = { .split = MX_SPLIT_TRAIN, .path = path };
        mx_status st = { 0 };
        mx_questions q;

        cr_expect_eq(mx_questions_read(task, &want, arena(), &q, &st), MX_E_DATA, "case %zu", i);
        cr_expect_str_eq(st.at.file, path);
        cr_expect_eq(st.at.line, 2u, "case %zu: line %u", i, st.at.line);
        cr_expect_str_eq(st.text, MALFORMED[i].says, "case %zu says: %s", i, st.text);
    }
    leave_folder(folder);
}

Test(jsonl, side_files_must_fit_their_records_line_by_line)
{
    static const struct {
        const char *labels;
        bool at_labels;
        uint32_t line;
        const char *says;
    } wrong[] = {
        { "0\n2\n", true, 2, "label '2' names none of the choices 0, 1" },
        { "0\n", true, 0, "1 labels, but" },
        { "0\n1\n1\n", true, 3, "a label more than" },
        { "0\nB\n", true, 2, "label 'B' names none of the choices 0, 1" },
    };
    const char *folder = enter_folder();
    const mx_task *task = read_task("piqa");
    const char *path = write_text(folder, "t.jsonl",
                                  "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}\n{\"goal\":\"h\",\"sol1\":\"c\",\"sol2\":\"d\"}\n");

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *labels = write_text(folder, "t.lst", wrong[i].labels);
        mx_data_request want = { .split = MX_SPLIT_TRAIN, .path = path, .labels = labels };
        mx_status st = { 0 };
        mx_questions q;

        cr_expect_eq(mx_questions_read(task, &want, arena(), &q, &st), MX_E_DATA, "case %zu", i);
        cr_expect_str_eq(st.at.file, labels);
        cr_expect_eq(st.at.line, wrong[i].line, "case %zu: line %u", i, st.at.line);
        cr_expect(strstr(st.text, wrong[i].says) == st.text, "case %zu says: %s", i, st.text);
    }
    leave_folder(folder);
}
