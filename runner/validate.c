/* validate.c - see validate.h. */
#include "runner/validate.h"

#include "datasets/task.h"
#include "runner/sweep.h"
#include "model/hub.h"

#include <string.h>

/* Can the task be asked as the recipe wants it? */
static void check_words(const mx_recipe *r, const mx_task *task, bool trained, bool scored, mx_problems *problems) {
    mx_prompt_form form = (mx_prompt_form)r->train.data.prompt;

    if (trained && !mx_task_prompt_of(task, form)) {
        mx_problem(problems, mx_recipe_place(r, "train.prompt"), NULL, "task '%s' has no prompt '%s'", task->name,
                   mx_prompt_form_names[form]);
    }
    for (int protocol = 0; scored && protocol < MX_PROTOCOLS; protocol++) {
        if ((r->eval.protocols >> protocol & 1) && !(task->protocols >> protocol & 1)) {
            mx_problem(problems, mx_recipe_place(r, "eval.protocols"), NULL, "task '%s' does not offer protocol %s", task->name,
                       mx_protocol_names[protocol]);
        }
    }
}

static mx_code check_task(const mx_recipe *r, const char *name, mx_mark at, bool trained, bool scored, mx_arena *arena,
                          mx_problems *problems, mx_status *st) {
    mx_task *task;
    mx_status inner = { 0 };
    mx_code code = mx_task_read(name, at, arena, &task, problems, &inner);

    if (code && code != MX_E_RECIPE) {
        *st = inner;
        return code;
    }
    if (code == MX_OK) {
        check_words(r, task, trained, scored, problems);
    }
    return MX_OK; /* problems were added; the rest is judged too */
}

mx_code mx_validate_recipe(const mx_recipe *r, mx_arena *arena, mx_problems *problems, mx_status *st) {
    for (size_t i = 0; i < r->train.data.tasks.count; i++) {
        const char *name = ((const mx_task_item *)r->train.data.tasks.item)[i].task;

        bool scored = r->eval.tasks.count == 0;

        for (size_t j = 0; name && j < i; j++) {
            const char *before = ((const mx_task_item *)r->train.data.tasks.item)[j].task;

            if (before && strcmp(before, name) == 0) {
                mx_problem(problems, r->train.data.tasks.at[i], NULL, "train.tasks names '%s' twice; use weight for more of it", name);
            }
        }
        for (size_t j = 0; name && j < r->eval.tasks.count; j++) {
            scored |= strcmp(r->eval.tasks.item[j], name) == 0;
        }
        if (name) {
            MX_TRY(check_task(r, name, r->train.data.tasks.at[i], true, scored, arena, problems, st));
        }
    }
    for (size_t i = 0; i < r->eval.tasks.count; i++) {
        bool trained = false;

        for (size_t j = 0; j < r->train.data.tasks.count; j++) {
            const char *name = ((const mx_task_item *)r->train.data.tasks.item)[j].task;

            trained |= name && strcmp(name, r->eval.tasks.item[i]) == 0;
        }
        if (!trained) { /* what is wrong in a task's YAML is told once */
            MX_TRY(check_task(r, r->eval.tasks.item[i], r->eval.tasks.at[i], false, true, arena, problems, st));
        }
    }
    if (r->base_model) {
        mx_hub_validate_name(r->base_model, mx_recipe_place(r, "base_model"), arena, problems);
    }
    return MX_OK;
}

static mx_code is_a_sweep(const mx_call *call, mx_status *st) {
    bool file = mx_sweep_is(call->word[0], NULL, 0, call->arena);

    mx_fail(st, MX_E_USAGE, MX_NOWHERE, file ? "'%s' is a sweep, not a recipe" : "a list of values makes a sweep of '%s'", call->word[0]);
    mx_hint(st, file ? "mixrun sweep %s runs it, mixrun plan %s tells what it would do"
                     : "mixrun sweep %s ... runs every value; quote a single value that holds a comma: word='\"a,b\"'",
            call->word[0], call->word[0]);
    return MX_E_USAGE;
}

mx_code mx_validate(const mx_call *call, mx_recipe **ret, mx_status *st) {
    mx_recipe *r = NULL;
    mx_code code;

    *ret = NULL;
    if (mx_sweep_is(call->word[0], call->word + 1, call->words - 1, call->arena)) {
        return is_a_sweep(call, st);
    }
    code = mx_recipe_read(call->word[0], call->word + 1, call->words - 1, call->words > 1 ? call->word_number[1] : 0, call->arena, &r,
                          call->problems, st);
    *ret = r;
    if (!r || (code && code != MX_E_RECIPE)) {
        return code;
    }
    MX_TRY(mx_validate_recipe(r, call->arena, call->problems, st));
    return call->problems->count > 0 ? MX_E_RECIPE : code;
}
