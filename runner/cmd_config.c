/* cmd_config.c - mixrun config schema [sweep] | print RECIPE. */
#include "runner/sweep.h"
#include "runner/validate.h"
#include "runner/verbs.h"

#include <string.h>

static mx_code run(const mx_call *call, mx_status *st) {
    mx_text out;

    if (strcmp(call->word[0], "schema") == 0 && call->words == 1) {
        mx_text_init(&out, 1 << 22);
        mx_recipe_schema(&out);
    } else if (strcmp(call->word[0], "schema") == 0 && call->words == 2 && strcmp(call->word[1], "sweep") == 0) {
        mx_text_init(&out, 1 << 22);
        mx_sweep_schema(&out);
    } else if (strcmp(call->word[0], "print") == 0 && call->words >= 2) {
        mx_call inner = *call;
        mx_recipe *recipe;

        inner.words--;
        memmove(inner.word, inner.word + 1, sizeof inner.word - sizeof inner.word[0]);
        memmove(inner.word_number, inner.word_number + 1, sizeof inner.word_number - sizeof inner.word_number[0]);
        MX_TRY(mx_validate(&inner, &recipe, st));
        mx_text_init(&out, 1 << 22);
        mx_recipe_print(recipe, &out);
    } else {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "usage: mixrun %s", call->command->usage);
    }
    fputs(out.data, stdout);
    mx_text_finish(&out);
    return MX_OK;
}

const mx_command mx_verb_config = {
    .name = "config",
    .usage = "config schema [sweep] | config print RECIPE [word=value ...]",
    .summary = "all words of a recipe or sweep with help; or a recipe with every default spelled out",
    .help = "schema  lists every word a recipe may have: type, range, default, whether it may change results, and what it is;\n"
            "        schema sweep those of a sweep's file.\n"
            "print   shows the recipe as it will be run, with everything it extends and every default written out; words that\n"
            "        fell away because a later layer changed what governs them are listed on top. Reading it back gives the\n"
            "        same run.",
    .least = 1, .most = -1, .run = run,
};
