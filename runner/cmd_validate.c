/* cmd_validate.c - mixrun validate RECIPE: is every word right? */
#include "runner/validate.h"
#include "runner/verbs.h"

static mx_code run(const mx_call *call, mx_status *st) {
    mx_recipe *recipe;

    MX_TRY(mx_validate(call, &recipe, st));
    printf("%s: good. mixrun plan %s tells what it would do\n", call->word[0], call->word[0]);
    return MX_OK;
}

const mx_command mx_verb_validate = {
    .name = "validate",
    .usage = "validate RECIPE [word=value ...]",
    .summary = "check a recipe's words, tasks and model; needs no data and no model on disk",
    .help = "Reads the recipe with all it extends, the YAML of its tasks and of its base model, and tells every problem in one\n"
            "pass with its place. Nothing is opened, loaded or written. Exit codes: 0 good, 2 not.",
    .least = 1, .most = -1, .run = run,
};
