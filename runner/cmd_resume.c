/* cmd_resume.c - mixrun resume RUN: go on from the checkpoint. */
#include "runner/device.h"
#include "runner/environment.h"
#include "runner/job.h"
#include "runner/session.h"
#include "runner/verbs.h"

#include <string.h>

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "quiet", 'q', NULL, "no progress on stderr, only the result" },
    { 0 },
};

static mx_code find(const mx_call *call, const char *db, mx_run_row *row, mx_status *st) {
    mx_store *store;
    mx_code code;

    MX_TRY(mx_store_open(db, false, &store, st));
    code = mx_store_run_find(store, call->word[0], call->arena, row, st);
    mx_store_close(store);
    return code;
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    mx_job_wish wish = { .kind = "train", .quiet = mx_call_flag(call, "quiet") };
    mx_recipe *recipe;
    mx_run_row row;
    mx_code code;

    MX_TRY(find(call, db, &row, st));
    if (strcmp(row.kind, "train") != 0) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "run %lld only evaluates; start it again instead", (long long)row.run_id);
    }
    MX_TRY(mx_session_may_resume(&row, st));
    MX_TRY(mx_recipe_parse(row.recipe, mx_arena_text(call->arena, "recipe of run %lld", (long long)row.run_id), call->arena,
                           &recipe, call->problems, st));
    recipe->name = row.name;
    recipe->db = db;
    if (strcmp(recipe->device, "auto") == 0) { /* what it was when the run began, whatever it would be here */
        recipe->device = mx_environment_on(row.environment, "cuda") ? "cuda" : "cpu";
    }
    wish.resume = &row;
    code = mx_job_run(recipe, &wish, call->arena, st);
    if (code == MX_E_DEVICE && st->at.file) { /* it could not be opened: other devices than the run's own are no way out */
        snprintf(st->hint, sizeof st->hint, "run %lld was begun on %.160s, and goes on where there is one", (long long)row.run_id,
                 mx_environment_text(row.environment, "backend", call->arena));
    }
    return code;
}

const mx_command mx_verb_resume = {
    .name = "resume",
    .usage = "resume RUN [--db FILE]",
    .summary = "go on with a run that was stopped or died",
    .help = "RUN is a run's number, its name (the newest of that name) or the first six or more digits of its uuid. Training goes on from\n"
            "the last checkpoint, or from the start when there was none yet; what the run had stored past it is dropped, and\n"
            "what comes out equals the uninterrupted run to the bit\n"
            "(on the same machine and with the same number of threads; on another one of the kind a line says so). A run goes on\n"
            "on the kind of device it began on, also with device: auto. Refused when the base, a task or a data file changed.",
    .flag = flags, .least = 1, .most = 1, .asks_to_stop = true, .run = run,
};
