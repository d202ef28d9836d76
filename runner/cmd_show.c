/* cmd_show.c - mixrun show RUN: everything about one run. */
#include "reports/summary.h"
#include "runner/command.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "json", 0, NULL, "one JSON object" },
    { 0 },
};

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    mx_run_row row;
    mx_store *store;
    mx_text out;
    mx_code code;

    MX_TRY(mx_store_open(db, false, &store, st));
    mx_text_init(&out, (size_t)64 << 20);
    code = mx_store_run_find(store, call->word[0], call->arena, &row, st);
    if (code == MX_OK) {
        code = mx_summary_show(store, &row, mx_call_flag(call, "json") != NULL, call->arena, &out, st);
    }
    if (code == MX_OK) {
        fputs(out.data, stdout);
    }
    mx_text_finish(&out);
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_show = {
    .name = "show",
    .usage = "show RUN [--db FILE] [--json]",
    .summary = "one run: recipe, scores, losses, router, files",
    .help = "RUN is a run's number, its name (the newest of that name) or the first six or more digits of its uuid.",
    .flag = flags, .least = 1, .most = 1, .run = run,
};
