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
    { "sweep", 0, "NAME", "only the runs that answer this sweep" },
    { "name", 0, "NAME", "only runs of this name; * and ? stand for any letters" },
    { "limited", 0, "YES|NO", "only runs cut short by max_steps or a limit, or none of them" },
    { "sort", 0, "KEY", "run, name, method, seed, state, steps, score, began, took or trained; -KEY: largest first" },
    { "limit", 'n', "N", "the first N" },
    { "json", 0, NULL, "one JSON object a line" },
    { "format", 0, "FORMAT", "table, json, csv, markdown or latex" },
    { 0 },
};

static mx_code limited(const char *word, mx_limited *ret, mx_status *st) {
    if (word && strcmp(word, "yes") != 0 && strcmp(word, "no") != 0) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--limited is yes or no, not '%s'", word);
    }
    *ret = !word ? MX_LIMITED_ANY : word[0] == 'y' ? MX_LIMITED_ONLY : MX_LIMITED_NO;
    return MX_OK;
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    mx_list_filter filter = { .method = mx_call_flag(call, "method"), .state = mx_call_flag(call, "state"),
                              .task = mx_call_flag(call, "task"), .sweep = mx_call_flag(call, "sweep"), .name = mx_call_flag(call, "name"),
                              .sort = mx_call_flag(call, "sort"), .lines = mx_call_flag(call, "json") != NULL };
    mx_store *store;
    mx_text out;
    mx_code code;

    if (filter.lines && mx_call_flag(call, "format")) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--json and --format say different things: give one");
    }
    MX_TRY(mx_format_find(mx_call_flag(call, "format"), &filter.format, st));
    MX_TRY(limited(mx_call_flag(call, "limited"), &filter.limited, st));
    MX_TRY(mx_call_number(call, "limit", false, &filter.limit, st));
    MX_TRY(mx_store_open(db, false, &store, st));
    mx_text_init(&out, (size_t)1 << 30);
    code = mx_summary_list(store, &filter, call->arena, &out, st);
    if (code == MX_OK) {
        fputs(out.data, stdout);
    }
    mx_text_finish(&out);
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_ls = {
    .name = "ls",
    .usage = "ls [--method M] [--state S] [--task T] [--sweep NAME] [--name NAME] [--sort KEY] [-n N]",
    .summary = "list the runs of a database, newest first",
    .help = "One line a run: number, name, method, seed, state, steps, age, and the mean over tasks of its last scores, in percent: of one\n"
            "split (validation, else test, else held_out), protocol and metric, which are named. A run that max_steps or a limit cut short is\n"
            "marked: such a score is for trying things.\n\n"
            "  mixrun ls --sweep methods --sort -score\n"
            "  mixrun ls --state failed --json",
    .flag = flags, .least = 0, .most = 0, .run = run,
};
