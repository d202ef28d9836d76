/* cmd_export.c - mixrun export RUN...: as lm-evaluation-harness writes it. */
#include "reports/export.h"
#include "runner/command.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "output", 'o', "FOLDER", "where the files go; default export" },
    { "force", 0, NULL, "write files anew that are there already" },
    { 0 },
};

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    const char *folder = mx_call_flag(call, "output") ? mx_call_flag(call, "output") : "export", *path;
    mx_run_row *row = MX_TAKE(call->arena, mx_run_row, call->words);
    int64_t samples;
    mx_store *store;
    mx_code code = MX_OK;

    MX_TRY(mx_store_open(db, false, &store, st));
    for (int i = 0; code == MX_OK && i < call->words; i++) { /* all are found before the first is written */
        code = mx_store_run_find(store, call->word[i], call->arena, &row[i], st);
    }
    for (int i = 0; code == MX_OK && i < call->words; i++) {
        code = mx_export_run(store, &row[i], folder, mx_call_flag(call, "force") != NULL, call->arena, &path, &samples, st);
        if (code == MX_OK) {
            printf("%s\n", path);
            if (samples == 0) {
                fprintf(stderr, "run %lld kept no answers (eval.save_predictions): there are no samples\n", (long long)row[i].run_id);
            }
        }
    }
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_export = {
    .name = "export",
    .usage = "export RUN ... [-o FOLDER] [--force] [--db FILE]",
    .summary = "runs as lm-evaluation-harness results and samples",
    .help = "Writes FOLDER/<base>__<run>/results_<when>.json and samples_<task>_<when>.jsonl as the harness does, of the last evaluation of every\n"
            "task, and prints the results' paths. label_logits is the task <task>_label_logits. What the database does not know (documents,\n"
            "prompts, greedy or not) is left out; versions are the first digits of the task definition's sha256.\n\n"
            "  mixrun export 7 12 -o lm-eval",
    .flag = flags, .least = 1, .most = -1, .run = run,
};
