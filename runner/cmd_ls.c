/* cmd_ls.c - mixrun ls: the runs of a database. */
#include "reports/summary.h"
#include "runner/command.h"
#include "runner/verbs.h"

#include <string.h>

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "method", 0, "METHOD", "only runs of this method" },
    { "state", 0, "STATE", "only running, finished, failed, stopped or dead ones" },
    { "task", 0, "TASK", "only runs that scored this task" },
    { "limit", 'n', "N", "the newest N" },
    { "json", 0, NULL, "one JSON object a line" },
    { 0 },
};

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    mx_list_filter filter = { .method = mx_call_flag(call, "method"), .state = mx_call_flag(call, "state"),
                              .task = mx_call_flag(call, "task") };
    static const char *const states[] = { "running", "finished", "failed", "stopped", "dead" };
    bool known = !filter.state;
    mx_store *store;
    mx_text out;
    mx_code code;

    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        known |= filter.state && strcmp(filter.state, states[i]) == 0;
    }
    if (!known) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--state is running, finished, failed, stopped or dead, not '%s'", filter.state);
    }
    MX_TRY(mx_call_number(call, "limit", false, &filter.limit, st));
    MX_TRY(mx_store_open(db, false, &store, st));
    mx_text_init(&out, (size_t)64 << 20);
    code = mx_summary_list(store, &filter, mx_call_flag(call, "json") != NULL, &out, st);
    if (code == MX_OK && out.length) {
        fputs(out.data, stdout);
    }
    mx_text_finish(&out);
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_ls = {
    .name = "ls",
    .usage = "ls [--db FILE] [--method M] [--state S] [--task T] [-n N] [--json]",
    .summary = "list the runs of a database, newest first",
    .help = "One line a run: number, name, method, seed, state, steps, age, and the mean over tasks of its last scores.",
    .flag = flags, .least = 0, .most = 0, .run = run,
};
