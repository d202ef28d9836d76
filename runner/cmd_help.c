/* cmd_help.c - mixrun help [VERB]. */
#include "runner/commands.h"
#include "runner/environment.h"
#include "runner/verbs.h"

void mx_commands_overview(FILE *out) {
    fprintf(out,
            "%s - fine-tuning experiments from one YAML recipe: LoRA, DoRA, MixLoRA, MixDoRA\n\n"
            "usage: mixrun RECIPE [word=value ...]     train and evaluate what the recipe says\n"
            "       mixrun VERB ...                    mixrun VERB --help tells more\n\n",
            mx_version_text());
    for (const mx_command *const *c = mx_commands; *c; c++) {
        fprintf(out, "  %-10s %s\n", (*c)->name, (*c)->summary);
    }
    fprintf(out, "\nstart with: mixrun configs/quickstart.yaml\n");
}

static mx_code run(const mx_call *call, mx_status *st) {
    const mx_command *c = call->words ? mx_command_find(call->word[0]) : NULL;

    if (call->words && !c) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "there is no verb '%s'; mixrun help lists them", call->word[0]);
    }
    if (c) {
        mx_command_help(c, stdout);
    } else {
        mx_commands_overview(stdout);
    }
    return MX_OK;
}

const mx_command mx_verb_help = {
    .name = "help", .usage = "help [VERB]", .summary = "this page, or a verb's", .help = "Lists the verbs, or tells about one.",
    .least = 0, .most = 1, .run = run,
};
