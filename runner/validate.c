/* validate.c - see validate.h. */
#include "runner/validate.h"

#include "datasets/task.h"
#include "model/hub.h"

#include <string.h>

static mx_code check_task(const char *name, mx_mark at, const mx_call *call, mx_status *st) {
    mx_task *task;
    mx_status inner = { 0 };
    mx_code code = mx_task_read(name, at, call->arena, &task, call->problems, &inner);

    if (code && code != MX_E_RECIPE) {
        *st = inner;
        return code;
    }
    return MX_OK; /* problems were added; the rest is judged too */
}

mx_code mx_validate(const mx_call *call, mx_recipe **ret, mx_status *st) {
    mx_recipe *r = NULL;
    mx_code code = mx_recipe_read(call->word[0], call->word + 1, call->words - 1, call->words > 1 ? call->word_number[1] : 0,
                                  call->arena, &r, call->problems, st);

    *ret = r;
    if (!r || (code && code != MX_E_RECIPE)) {
        return code;
    }
    for (size_t i = 0; i < r->train.data.tasks.count; i++) {
        const char *name = ((const mx_task_item *)r->train.data.tasks.item)[i].task;

        if (name) {
            MX_TRY(check_task(name, r->train.data.tasks.at[i], call, st));
        }
    }
    for (size_t i = 0; i < r->eval.tasks.count; i++) {
        bool trained = false;

        for (size_t j = 0; j < r->train.data.tasks.count; j++) {
            const char *name = ((const mx_task_item *)r->train.data.tasks.item)[j].task;

            trained |= name && strcmp(name, r->eval.tasks.item[i]) == 0;
        }
        if (!trained) { /* what is wrong in a task's YAML is told once */
            MX_TRY(check_task(r->eval.tasks.item[i], r->eval.tasks.at[i], call, st));
        }
    }
    if (r->base_model) {
        mx_hub_validate_name(r->base_model, mx_recipe_place(r, "base_model"), call->arena, call->problems);
    }
    return call->problems->count > 0 ? MX_E_RECIPE : code;
}
