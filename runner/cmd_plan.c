/* cmd_plan.c - mixrun plan RECIPE: what it would do, before any weight is loaded. */
#include "runner/plan.h"
#include "runner/validate.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "memory-limit", 0, "SIZE", "refuse a plan that needs more (4GiB); default: what is available" },
    { 0 },
};

static mx_code run(const mx_call *call, mx_status *st) {
    mx_plan_wish wish = { .trains = true };
    int64_t limit = 0;
    mx_recipe *recipe;
    mx_plan *plan;
    mx_text out;

    MX_TRY(mx_validate(call, &recipe, st));
    MX_TRY(mx_call_number(call, "memory-limit", true, &limit, st));
    wish.memory_limit = (size_t)limit;
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
    .usage = "plan RECIPE [word=value ...]",
    .summary = "tell what a recipe would do: trained values, steps, tokens, memory",
    .help = "Reads the base's headers, its tokenizer and the data, but no weights, and prints trained values (routers apart),\n"
            "steps, tokens and memory by purpose. A recipe that would not fit into memory is refused, as run would.",
    .flag = flags, .least = 1, .most = -1, .run = run,
};
