/* cmd_eval.c - mixrun eval RECIPE [--adapter DIR]: score a saved adapter, or the base. */
#include "runner/job.h"
#include "runner/validate.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "adapter", 'a', "DIR", "a saved adapter (ours, PEFT's LoRA or DoRA); without it the base alone is scored" },
    { "quiet", 'q', NULL, "no progress on stderr, only the result" },
    { "memory-limit", 0, "SIZE", "refuse to start when the plan needs more (4GiB) of the GPU's memory, or the machine's; default: what is free" },
    { 0 },
};

static mx_code run(const mx_call *call, mx_status *st) {
    mx_job_wish wish = { .kind = "eval", .adapter = mx_call_flag(call, "adapter"), .quiet = mx_call_flag(call, "quiet") };
    mx_recipe *recipe;

    MX_TRY(mx_validate(call, &recipe, st));
    MX_TRY(mx_call_number(call, "memory-limit", true, &wish.memory_limit, st));
    return mx_job_run(recipe, &wish, call->arena, st);
}

const mx_command mx_verb_eval = {
    .name = "eval",
    .usage = "eval RECIPE [--adapter DIR] [word=value ...]",
    .summary = "score a saved adapter, or the base, on a recipe's tasks",
    .help = "Scores the tasks of the recipe's eval map on its base with the adapter saved in DIR, whose own files say which\n"
            "method it is; the recipe's adapter map is not asked. The scores are stored as a run of their own;\n"
            "training questions held back (hold_out) are scored by the training run only.",
    .flag = flags, .least = 1, .most = -1, .asks_to_stop = true, .run = run,
};
