/* jsonl.c - any bytes as a file of records, read as four tasks that between them use all the format has: a question that
 * can be asked, or a line of the file. */
#include "datasets/jsonl.h"
#include "datasets/record.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TASKS = 4 };
static mx_task *tasks[TASKS];

static void read_tasks(void) {
    static const char *const PATHS[TASKS] = { "configs/tasks/arc_easy.yaml", "configs/tasks/piqa.yaml",
                                              "tests/datasets/tasks/hellaswag.yaml", "tests/datasets/tasks/winogrande.yaml" };
    static mx_arena arena;
    mx_problems problems;
    mx_status st = { 0 };

    mx_arena_init(&arena, (size_t)64 << 20);
    mx_problems_init(&problems);
    for (int i = 0; i < TASKS; i++) {
        const char *path = mx_arena_text(&arena, "%s/%s", mx_path_home(&arena), PATHS[i]);

        if (mx_task_read(path, MX_NOWHERE, &arena, &tasks[i], &problems, &st)) {
            mx_problems_print(&problems, stderr);
            abort();
        }
    }
    mx_problems_finish(&problems);
}

static void check(bool holds) {
    if (!holds) {
        abort();
    }
}

static void ask(const mx_question *q) {
    check(q->choices >= 2 && q->choices <= MX_CHOICES_MAX && q->gold >= -1 && q->gold < q->choices && q->id);
    for (int form = 0; form < MX_PROMPT_FORMS; form++) {
        for (int32_t c = 0; c < q->choices; c++) {
            mx_text out;

            mx_text_init(&out, MX_FIELD_BYTES_MAX);
            mx_question_context(q, form, c, &out);
            mx_question_continuation(q, form, c, &out);
            check(strlen(out.data) == out.length);
            mx_text_finish(&out);
            check(q->choice[c].characters >= 0 && (size_t)q->choice[c].characters <= strlen(q->choice[c].text));
        }
    }
}

static void read_as(const mx_task *task, const json_t *record, uint32_t line) {
    mx_question q = { .line = line };
    mx_status st = { 0 };
    mx_arena arena;
    mx_code code;

    mx_arena_init(&arena, (size_t)256 << 20);
    code = mx_record_read(task, record, "x.jsonl", &arena, &q, &st);
    if (!code) {
        ask(&q);
        code = task->answer.at ? mx_record_answer(task, record, "x.jsonl", &arena, &q, &st)
                               : mx_record_match(task, "1", "label", (mx_mark){ "x.jsonl", NULL, line, 0, 0 }, &q, &st);
        check(code || q.gold >= 0);
    }
    check(!code || (code == MX_E_DATA && st.at.line == line && st.text[0]));
    mx_arena_finish(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mx_status st = { 0 };
    uint32_t lines = 1;
    json_t *record;
    mx_code code;
    mx_jsonl j;

    if (!tasks[0]) {
        read_tasks();
    }
    for (size_t i = 0; i < size; i++) {
        lines += data[i] == '\n';
    }
    mx_jsonl_over(&j, "x.jsonl", (const char *)data, size);
    while ((code = mx_jsonl_next(&j, &record, &st)) == MX_OK && record) {
        check(json_is_object(record) && j.line <= lines);
        for (int i = 0; i < TASKS; i++) {
            read_as(tasks[i], record, j.line);
        }
        json_decref(record);
    }
    check(!code || (code == MX_E_DATA && st.at.line >= 1 && st.at.line <= lines));
    mx_jsonl_close(&j);
    return 0;
}
