/* cmd_run.c - mixrun RECIPE [overrides]: plan, train, evaluate, store, tell. */
#include "runner/job.h"
#include "runner/validate.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "quiet", 'q', NULL, "no progress on stderr, only the result" },
    { "memory-limit", 0, "SIZE", "refuse to start when the plan needs more (4GiB) of the GPU's memory, or the machine's; default: what is free" },
    { 0 },
};

static mx_code run(const mx_call *call, mx_status *st) {
    mx_job_wish wish = { .kind = "train", .quiet = mx_call_flag(call, "quiet") };
    mx_recipe *recipe;

    MX_TRY(mx_validate(call, &recipe, st));
    MX_TRY(mx_call_number(call, "memory-limit", true, &wish.memory_limit, st));
    return mx_job_run(recipe, &wish, call->arena, st);
}

const mx_command mx_verb_run = {
    .name = "run",
    .usage = "[run] RECIPE [word=value ...]",
    .summary = "train and evaluate what a recipe says, and store it",
    .help = "Trains the recipe's adapter on its tasks, evaluates before and after, stores everything in the recipe's\n"
            "database (db:) and prints the result. Words are overridden by a.b=c, added by +a.b=c, removed by ~a.b:\n\n"
            "  mixrun configs/quickstart.yaml adapter.method=lora adapter.lora_r=80 seed=7\n\n"
            "Ctrl-C saves a checkpoint and exits with 75; mixrun resume RUN goes on from it. A second Ctrl-C stops at once.\n"
            "Exit codes: 0 done, 1 the run failed, 2 the recipe or command line is wrong, 75 stopped and resumable.",
    .flag = flags, .least = 1, .most = -1, .asks_to_stop = true, .run = run,
};
