/* support.h - a model with the untrained base, and a task's questions, ready to be asked. */
#ifndef TESTS_EVAL_SUPPORT_H
#define TESTS_EVAL_SUPPORT_H

#include "eval/score.h"
#include "model/hub.h"
#include "model/trainee.h"

#include <criterion/criterion.h>

typedef struct asked {
    mx_arena arena, step;
    mx_backend *backend;
    mx_base_file *file;
    mx_tokenizer *tokenizer;
    mx_questions questions;
    mx_exam exam;
    mx_model *model;
    mx_trainee *trainee;
} asked;

#define OK(call) cr_assert_eq((call), MX_OK, "%s %s", st.text, st.hint)

static inline void asked_open(asked *a, const char *base, mx_precision precision, const char *task, mx_split split,
                              mx_protocol protocol, int64_t limit, int64_t max_rows) {
    mx_backend_options o = { .device = "cpu", .precision = precision };
    mx_data_request want = { .split = split, .limit = limit };
    const mx_method *base_method = mx_method_find("base");
    const mx_layout *layout;
    mx_model_limits limits = { .tasks = 1, .label_logits = protocol == MX_PROTOCOL_LABEL_LOGITS };
    mx_extent e;
    mx_task *t;
    mx_problems problems;
    mx_status st = { 0 };

    *a = (asked){ 0 };
    mx_arena_init(&a->arena, (size_t)1 << 30);
    mx_arena_init(&a->step, (size_t)1 << 30);
    mx_problems_init(&problems);
    OK(mx_task_read(task, MX_NOWHERE, &a->arena, &t, &problems, &st));
    OK(mx_questions_read(t, &want, &a->arena, &a->questions, &st));
    OK(mx_base_file_open(base, &a->arena, &a->file, &st));
    OK(mx_tokenizer_open(base, &a->arena, &a->tokenizer, &st));
    OK(mx_exam_prepare(&a->questions, protocol, a->tokenizer, 1024, &a->arena, &a->exam, &st));
    OK(mx_backend_open(&o, &a->backend, &st));
    layout = mx_layout_make(base_method, mx_method_defaults(base_method, &a->arena), mx_base_file_shape(a->file), &a->arena);
    e = mx_exam_extent(&a->exam, max_rows);
    limits.rows = e.rows;
    limits.loss_rows = e.loss_rows;
    limits.segments = e.segments;
    limits.spans = e.spans;
    limits.questions = e.questions;
    OK(mx_model_open(a->backend, a->file, layout, &limits, &a->model, &st));
    OK(mx_trainee_open(a->backend, layout, mx_model_frozen(a->model), false, &a->trainee, &st));
    OK(mx_trainee_start(a->trainee, 1, &st));
    mx_problems_finish(&problems);
}

static inline mx_exam_result asked_run(asked *a, int64_t max_rows) {
    mx_exam_options o = { .max_rows = max_rows };
    mx_exam_result r;
    mx_status st = { 0 };

    OK(mx_exam_run(&a->exam, a->model, &a->trainee->adapter, &o, &a->step, &a->arena, &r, &st));
    return r;
}

static inline void asked_close(asked *a) {
    mx_trainee_close(a->trainee);
    mx_model_close(a->model);
    a->backend->close(a->backend);
    mx_tokenizer_close(a->tokenizer);
    mx_base_file_close(a->file);
    mx_arena_finish(&a->step);
    mx_arena_finish(&a->arena);
}

/* The default base in the cache, or the test is skipped. */
static inline const char *default_base(mx_arena *arena) {
    mx_hub_base base;
    mx_status st = { 0 };

    if (mx_hub_resolve("smollm2-135m-instruct", MX_NOWHERE, arena, &base, &st)) {
        cr_skip_test("the default base is not in the Hugging Face cache (./setup.sh fetches it)");
    }
    return base.path;
}

#endif
