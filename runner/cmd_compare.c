/* cmd_compare.c - mixrun compare: is it better, by how much, how sure, at what cost. */
#include "reports/compare.h"
#include "runner/command.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "sweep", 's', "NAME", "compare a sweep's variants instead of two runs" },
    { "baseline", 'b', "V", "with this variant of the sweep; default: the sweep's own baseline" },
    { "variant", 'v', "V,...", "only these variants of the sweep, parted by commas (their names may hold commas)" },
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "task", 't', "TASK", "only this task; default: all that both sides were scored on" },
    { "protocol", 'p', "NAME", "loglikelihood, label_logits, ...; default: the sweep's, else loglikelihood where all have it" },
    { "metric", 'm', "NAME", "acc, acc_norm, ...; default: the sweep's, else acc_norm for loglikelihood, acc otherwise" },
    { "split", 0, "NAME", "validation, test or held_out; default: the one that was scored" },
    { "best-epoch", 0, NULL, "each run's best epoch instead of its last: too optimistic, and marked everywhere" },
    { "format", 'f', "FORMAT", "table (default), json, csv, markdown or latex" },
    { 0 },
};

/* Two runs, or a sweep: what does not go together is refused before the database is looked for. */
static mx_code check(const mx_call *call, mx_status *st) {
    bool sweep = mx_call_flag(call, "sweep");

    if (sweep ? call->words > 0 : call->words != 2) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, sweep ? "--sweep compares its variants; runs cannot be named beside it" :
                                                    "two sides are compared: A and B, or the variants of --sweep NAME");
        mx_hint(st, "mixrun compare 7 12   mixrun compare 3,4,5 6,7,8   mixrun compare --sweep methods --baseline \"lora r80\"");
        return MX_E_USAGE;
    }
    if (!sweep && (mx_call_flag(call, "baseline") || mx_call_flag(call, "variant"))) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--baseline and --variant belong to --sweep; of two runs the second is the baseline");
    }
    return MX_OK;
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db", *variants = mx_call_flag(call, "variant");
    mx_compare_wish wish = {
        .sweep = mx_call_flag(call, "sweep"), .baseline = mx_call_flag(call, "baseline"), .side = call->word, .sides = call->words, .against = 1,
        .task = mx_call_flag(call, "task"), .protocol = mx_call_flag(call, "protocol"), .metric = mx_call_flag(call, "metric"),
        .split = mx_call_flag(call, "split"), .variant = &variants, .variants = variants != NULL, .best_epoch = mx_call_flag(call, "best-epoch") != NULL };
    mx_compare *c;
    mx_format format;
    mx_store *store;
    mx_text out;
    mx_code code;

    MX_TRY(check(call, st));
    MX_TRY(mx_format_find(mx_call_flag(call, "format"), &format, st));
    MX_TRY(mx_store_open(db, false, &store, st));
    mx_text_init(&out, (size_t)256 << 20);
    code = mx_compare_read(store, &wish, call->arena, &c, st);
    if (code == MX_OK) {
        mx_compare_write(c, format, &out);
        fputs(out.data, stdout);
        for (int32_t i = 0; format == MX_FORMAT_CSV && i < c->notes; i++) { /* a csv has no place for sentences */
            fprintf(stderr, "%s\n", c->note[i]);
        }
    }
    mx_text_finish(&out);
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_compare = {
    .name = "compare",
    .usage = "compare A B | compare --sweep NAME [--baseline V] [--variant V,...]",
    .summary = "is it better: differences with intervals, p values and a plain word",
    .help = "A and B are each a run (number, name or the beginning of its uuid) or several of one recipe, one a seed: 3,4,5. The\n"
            "difference is A minus B; B is the baseline. With --sweep every variant is compared with the baseline.\n"
            "Items are paired by identity, seeds by their number. Runs that are not finished and seeds without a partner are\n"
            "listed and left out; other data, prompts, questions, protocols or base models are refused.\n"
            "  one seed       exact McNemar test with mid-p beside it, interval by Tango 1998\n"
            "  several seeds  two-way layout of items and seeds, both random; t interval with Satterthwaite degrees of freedom\n"
            "The word (better, worse, not resolved) follows Holm's p over all rows of the table; intervals are 95 % and\n"
            "unadjusted. Budgets stand beside every score; trained values more than 2 % apart are marked.\n"
            "Example:\n"
            "  mixrun compare --sweep methods --baseline \"lora matched\"\n"
            "  mixrun compare 3,4,5 6,7,8 --protocol label_logits --metric acc --format markdown",
    .flag = flags, .least = 0, .most = 2, .run = run,
};
