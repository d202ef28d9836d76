/* cmd_plan.c - mixrun plan RECIPE|SWEEP: what it would do, before anything starts. */
#include "runner/plan.h"
#include "runner/sweep_plan.h"
#include "runner/validate.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "memory-limit", 0, "SIZE", "refuse a plan that needs more (4GiB) of the GPU's memory, or the machine's; default: what is free" },
    { "db", 0, "FILE", "of a sweep: the database that tells what is done and how fast; default: the recipe's" },
    { "format", 0, "FORMAT", "of a sweep: table, json, csv, markdown or latex" },
    { 0 },
};

static mx_code run(const mx_call *call, mx_status *st) {
    mx_plan_wish wish = { .trains = true };
    int64_t limit = 0;
    mx_format format;
    mx_recipe *recipe;
    mx_plan *plan;
    mx_text out;

    MX_TRY(mx_call_number(call, "memory-limit", true, &limit, st));
    MX_TRY(mx_format_find(mx_call_flag(call, "format"), &format, st));
    wish.memory_limit = (size_t)limit;
    if (mx_sweep_is(call->word[0], call->word + 1, call->words - 1, call->arena)) {
        return mx_sweep_plan(call, wish.memory_limit, mx_call_flag(call, "db"), format, st);
    }
    if (mx_call_flag(call, "format") || mx_call_flag(call, "db")) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--%s is for sweeps, and '%s' is a recipe", mx_call_flag(call, "db") ? "db" : "format",
                       call->word[0]);
    }
    MX_TRY(mx_validate(call, &recipe, st));
    MX_TRY(mx_plan_make(recipe, &wish, call->arena, &plan, st));
    mx_text_init(&out, 1 << 20);
    mx_text_print(&out, "%s  recipe %.6s  seed %lld\n", recipe->name, plan->recipe_hash, (long long)recipe->seed);
    mx_plan_print(plan, true, &out);
    fputs(out.data, stdout);
    mx_text_finish(&out);
    mx_plan_close(plan);
    return MX_OK;
}

const mx_command mx_verb_plan = {
    .name = "plan",
    .usage = "plan RECIPE|SWEEP [word=value ...]",
    .summary = "tell what a recipe or a sweep would do: trained values, steps, tokens, memory, time",
    .help = "Reads the base's headers, its tokenizer and the data, but no weights, and prints trained values (routers apart),\n"
            "steps, tokens, the device (with device: auto, why the processor was taken) and its memory by purpose. A recipe that would\n"
            "not fit, or whose device is not here, is refused, as run would.\n\n"
            "Of a sweep (a file of variants, or a recipe with lists of values) it prints a row for each variant, besides with its\n"
            "FLOPs per token (of the adapter, forward and backward), how near `match` came, the time one run takes, and what the\n"
            "database has already. Times come from runs of this machine in the database; of a method it does not know, one step\n"
            "is timed, which loads the base for some seconds.\n\n"
            "  mixrun plan configs/sweeps/methods.yaml\n"
            "  mixrun plan configs/quickstart.yaml adapter.lora_r=8,16 seed=1,2,3",
    .flag = flags, .least = 1, .most = -1, .run = run,
};
