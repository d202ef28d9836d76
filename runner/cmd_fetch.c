/* cmd_fetch.c - mixrun fetch TASK...: the official data into the cache. */
#include "datasets/fetch.h"
#include "runner/command.h"
#include "runner/progress.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "to", 0, "DIR", "put the files into DIR/TASK instead of the cache" },
    { "again", 0, NULL, "fetch what is already there as well" },
    { "quiet", 'q', NULL, "no progress" },
    { 0 },
};

static void show(void *who, const mx_fetch_progress *f) {
    mx_progress *p = who;

    p->work_done = f->done;
    p->work_all = f->total;
    if (mx_progress_due(p)) {
        mx_progress_show(p, "%s  %s of %s", f->file, mx_text_bytes((uint64_t)f->done),
                         f->total ? mx_text_bytes((uint64_t)f->total) : "?");
    }
}

static mx_code fetch_one(const mx_call *call, const char *name, mx_status *st) {
    mx_progress progress;
    const char *to = mx_call_flag(call, "to");
    mx_fetch_options o = { .again = mx_call_flag(call, "again"), .progress = show, .who = &progress, .stop = &mx_stop };
    mx_fetch_report report = { 0 };
    mx_task *task;
    mx_code code;

    MX_TRY(mx_task_read(name, MX_NOWHERE, call->arena, &task, call->problems, st));
    o.folder = to ? mx_arena_text(call->arena, "%s/%s", to, task->name) : NULL;
    mx_progress_begin(&progress, mx_call_flag(call, "quiet") != NULL, 0);
    code = mx_fetch_task(task, &o, call->arena, &report, st);
    mx_progress_clear(&progress);
    for (size_t i = 0; i < report.count; i++) {
        const mx_fetched *f = &report.file[i];

        printf("%s  %s  %s  sha256 %s  %s\n", f->path, mx_text_bytes((uint64_t)f->bytes),
               f->state == MX_FETCHED_NEW ? "fetched" : "was here", f->sha256, f->verified ? "verified" : "not verified");
    }
    return code;
}

static mx_code run(const mx_call *call, mx_status *st) {
    for (int i = 0; i < call->words; i++) {
        MX_TRY(fetch_one(call, call->word[i], st));
    }
    return MX_OK;
}

const mx_command mx_verb_fetch = {
    .name = "fetch",
    .usage = "fetch TASK [TASK ...] [--to DIR]",
    .summary = "get a task's official data",
    .help = "Downloads the files that the task's YAML names from their official places, checks their sha256 and puts them into\n"
            "the cache, where every run finds them. A download that broke off is taken up where it stopped. Where no sum is\n"
            "known the file is kept and its sum printed with the words 'not verified'.",
    .flag = flags, .least = 1, .most = -1, .asks_to_stop = true, .run = run,
};
