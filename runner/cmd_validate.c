/* cmd_validate.c - mixrun validate RECIPE|SWEEP: is every word right? */
#include "runner/sweep.h"
#include "runner/validate.h"
#include "runner/verbs.h"

static mx_code run(const mx_call *call, mx_status *st) {
    mx_recipe *recipe;

    if (mx_sweep_is(call->word[0], call->word + 1, call->words - 1, call->arena)) {
        mx_sweep *sweep;

        MX_TRY(mx_sweep_read(call, &sweep, st));
        printf("%s: good: %d variant%s x %d seed%s = %lld runs. mixrun plan %s tells what they would do\n", call->word[0],
               sweep->variants, sweep->variants == 1 ? "" : "s", sweep->seeds, sweep->seeds == 1 ? "" : "s", (long long)sweep->members,
               call->word[0]);
        return MX_OK;
    }
    MX_TRY(mx_validate(call, &recipe, st));
    printf("%s: good. mixrun plan %s tells what it would do\n", call->word[0], call->word[0]);
    return MX_OK;
}

const mx_command mx_verb_validate = {
    .name = "validate",
    .usage = "validate RECIPE|SWEEP [word=value ...]",
    .summary = "check a recipe's or sweep's words, tasks and model; needs no data, no model on disk, no GPU",
    .help = "Reads the recipe with all it extends, the YAML of its tasks and of its base model, and tells every problem in one\n"
            "pass with its place; of a sweep, those of all its variants. Nothing is opened, loaded or written, and a device that is not\n"
            "here is no mistake: plan and run look for it. Exit codes: 0 good, 2 not.\n\n"
            "  mixrun validate configs/sweeps/methods.yaml",
    .least = 1, .most = -1, .run = run,
};
