/* cmd_diff.c - mixrun diff A B: what differs in meaning. */
#include "reports/diff.h"
#include "runner/command.h"
#include "runner/recipe_layers.h"
#include "runner/verbs.h"

#include "model/methods/method.h"

#include <string.h>

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "format", 0, "FORMAT", "table, csv, json, markdown or latex" },
    { 0 },
};

/* Follows "train.tasks[0].weight" down the tables: true when the option at its end may change results. */
static bool bears(const mx_option_table *table, const char *word) {
    size_t n = strcspn(word, ".[");
    const char *rest = word + n;

    if (*rest == '[') {
        rest += strcspn(rest, "]");
        rest += *rest == ']';
    }
    rest += *rest == '.';
    if (table->choose) { /* the words of any method: a recipe of another method has others */
        for (const char *const *choice = table->choosers(); *choice; choice++) {
            const mx_option_table *chosen = table->choose(*choice);

            if (chosen && chosen->option && !chosen->choose && bears(chosen, word)) {
                return true;
            }
        }
        return strlen(table->chooser) == n && strncmp(word, table->chooser, n) == 0;
    }
    for (const mx_option *o = table->option; o && o->name; o++) {
        if (strlen(o->name) == n && strncmp(o->name, word, n) == 0) {
            return o->inner && *rest ? bears(o->inner, rest) : (o->flags & MX_RESULT) != 0;
        }
    }
    return false;
}

static bool word_bears(const char *word) {
    return bears(&mx_recipe_table, word);
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    mx_run_row a, b;
    mx_format format;
    mx_store *store;
    mx_table t = { 0 };
    mx_text out;
    mx_code code;

    MX_TRY(mx_format_find(mx_call_flag(call, "format"), &format, st));
    MX_TRY(mx_store_open(db, false, &store, st));
    if ((code = mx_store_run_find(store, call->word[0], call->arena, &a, st)) ||
        (code = mx_store_run_find(store, call->word[1], call->arena, &b, st)) ||
        (code = mx_diff_runs(store, &a, &b, word_bears, call->arena, &t, st))) {
        goto done;
    }
    if (t.rows == 1 && format == MX_FORMAT_TABLE) {
        printf(" nothing differs in meaning\n");
        goto done;
    }
    mx_text_init(&out, (size_t)1 << 30);
    mx_table_write(&t, format, &out);
    fputs(out.data, stdout);
    mx_text_finish(&out);
done:
    mx_table_finish(&t);
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_diff = {
    .name = "diff",
    .usage = "diff A B [--db FILE] [--format FORMAT]",
    .summary = "what differs in meaning between two runs",
    .help = "A and B are runs: a number, a name (the newest of that name) or the first six or more digits of a uuid. Told are words that may\n"
            "change results, defaults among them, and seed, base, task definitions, data, and the environment; a word the other run's\n"
            "method does not know is '-'. Names, folders and what is logged are no difference. mixrun compare says what came of it.\n\n"
            "  mixrun diff 7 12",
    .flag = flags, .least = 2, .most = 2, .run = run,
};
