/* material.h - what the tests of this room share: an arena, a folder to write in, tasks read or made up, the data. */
#ifndef TESTS_DATASETS_MATERIAL_H
#define TESTS_DATASETS_MATERIAL_H

#include "base/file.h"
#include "datasets/question.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Freed by the process's end: Criterion runs each test in one of its own. */
static inline mx_arena *arena(void)
{
    static mx_arena a;

    if (!a.limit) {
        mx_arena_init(&a, (size_t)1 << 30);
    }
    return &a;
}

/* A new empty folder; leave_folder takes it away. */
static inline const char *enter_folder(void)
{
    char *path = mx_arena_text(arena(), "%s/mixrun-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");

    cr_assert(mkdtemp(path), "cannot make a folder to write in");
    return path;
}

static inline void leave_folder(const char *folder)
{
    mx_status st = { 0 };

    cr_assert_eq(mx_folder_remove(folder, &st), MX_OK, "%s", st.text);
}

static inline const char *write_text(const char *folder, const char *name, const char *text)
{
    const char *path = mx_arena_text(arena(), "%s/%s", folder, name);
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(path, text, strlen(text), &st), MX_OK, "%s", st.text);
    return path;
}

/* A task that must be right, by its name or its path. */
static inline mx_task *read_task(const char *name)
{
    mx_problems problems;
    mx_status st = { 0 };
    mx_task *t = NULL;

    mx_problems_init(&problems);
    if (mx_task_read(name, MX_NOWHERE, arena(), &t, &problems, &st)) {
        mx_problems_print(&problems, stderr);
        mx_status_print(&st, stderr);
        cr_assert_fail("task %s cannot be read", name);
    }
    mx_problems_finish(&problems);
    return t;
}

static inline mx_questions read_questions(const mx_task *t, mx_data_request want)
{
    mx_status st = { 0 };
    mx_questions q;

    if (mx_questions_read(t, &want, arena(), &q, &st)) {
        mx_status_print(&st, stderr);
        cr_assert_fail("questions of %s cannot be read", t->name);
    }
    return q;
}

/* A YAML of tests/datasets/tasks. */
static inline const char *local_task(const char *name)
{
    return mx_arena_text(arena(), "%s/tests/datasets/tasks/%s.yaml", mx_path_home(arena()), name);
}

/* $MIXRUN_DATA, or the test is skipped. */
static inline const char *data_or_skip(void)
{
    const char *data = getenv("MIXRUN_DATA");

    if (!data || !mx_folder_exists(data)) {
        cr_skip_test("MIXRUN_DATA names no folder: the official files are needed here");
    }
    return data;
}

static inline const char *context_of(const mx_question *q, mx_prompt_form form, int32_t choice)
{
    mx_text out;
    const char *ret;

    mx_text_init(&out, 1 << 26);
    mx_question_context(q, form, choice, &out);
    ret = mx_arena_copy(arena(), out.data, out.length);
    mx_text_finish(&out);
    return ret;
}

static inline const char *continuation_of(const mx_question *q, mx_prompt_form form, int32_t choice)
{
    mx_text out;
    const char *ret;

    mx_text_init(&out, 1 << 26);
    mx_question_continuation(q, form, choice, &out);
    ret = mx_arena_copy(arena(), out.data, out.length);
    mx_text_finish(&out);
    return ret;
}

#endif
