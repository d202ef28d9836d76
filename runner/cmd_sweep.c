/* cmd_sweep.c - mixrun sweep FILE: run what the store lacks of many variants and seeds. */
#include "runner/progress.h"
#include "runner/sweep_emit.h"
#include "runner/verbs.h"

#include "base/text.h"

#include <string.h>

static const mx_flag flags[] = {
    { "jobs", 'j', "N", "runs at once, each a process of its own; default 1" },
    { "threads", 0, "N", "processor threads of each run, where the recipe has threads: 0; default: its share of all" },
    { "rerun", 0, NULL, "run everything anew, finished or not" },
    { "db", 0, "FILE", "the database; default: the recipe's" },
    { "emit", 0, "FORM", "start nothing; print what is left to do: slurm (a job-array script) or commands (a line for each)" },
    { "own-db", 0, NULL, "with --emit: every run writes a database of its own, for mixrun import" },
    { "member", 0, "N[:DIGITS]", "run only this member, in this process; refused when DIGITS no longer name it" },
    { "memory-limit", 0, "SIZE", "what all runs at once may need together (4GiB) of the GPU's memory, or the machine's; default: what is free" },
    { "quiet", 'q', NULL, "no progress on stderr, only the result" },
    { 0 },
};

static mx_progress progress;

static void measuring(int32_t done, int32_t all) {
    if (progress.live) {
        fprintf(stderr, "\r\033[Kmeasuring variant %d of %d", done + 1 < all ? done + 1 : all, all);
        fflush(stderr);
    }
}

/* Flags that would say nothing together are refused. */
static mx_code check_flags(const mx_call *call, mx_status *st) {
    static const struct {
        const char *flag, *with, *why;
    } clash[] = {
        { "member", "jobs", "a member is one run" },
        { "member", "emit", "a member is run here and now" },
    };
    const char *emit = mx_call_flag(call, "emit");

    for (size_t i = 0; i < sizeof clash / sizeof clash[0]; i++) {
        if (mx_call_flag(call, clash[i].flag) && mx_call_flag(call, clash[i].with)) {
            return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--%s has no effect with --%s: %s", clash[i].with, clash[i].flag, clash[i].why);
        }
    }
    if (mx_call_flag(call, "own-db") && !emit) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--own-db goes with --emit: runs of one machine share a database");
    }
    if (emit && strcmp(emit, "slurm") != 0 && strcmp(emit, "commands") != 0) {
        const char *const forms[] = { "slurm", "commands" };
        const char *near = mx_text_nearest(emit, forms, 2);

        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--emit '%s' is none of: slurm, commands", emit);
        if (near) {
            mx_hint(st, "did you mean '%s'?", near);
        }
        return MX_E_USAGE;
    }
    if (emit && strcmp(emit, "commands") == 0 && mx_call_flag(call, "jobs")) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--jobs has no effect with --emit commands: the queue decides");
    }
    return MX_OK;
}

static mx_code emit(const mx_call *call, mx_sweep_wish *wish, mx_status *st) {
    mx_text out;
    mx_code code;

    wish->jobs = mx_call_flag(call, "jobs") ? wish->jobs : 0;
    mx_text_init(&out, 64 << 20);
    code = mx_sweep_emit(wish, strcmp(mx_call_flag(call, "emit"), "slurm") == 0 ? MX_EMIT_SLURM : MX_EMIT_COMMANDS,
                         mx_call_flag(call, "own-db"), call->arena, &out, st);
    if (code == MX_OK) {
        fputs(out.data, stdout);
    }
    mx_text_finish(&out);
    return code;
}

static mx_code run(const mx_call *call, mx_status *st) {
    mx_sweep_wish wish = { .word = call->word, .words = call->words, .jobs = 1, .rerun = mx_call_flag(call, "rerun"),
                           .quiet = mx_call_flag(call, "quiet") };
    mx_sweep *sweep;
    mx_code code;

    MX_TRY(check_flags(call, st));
    MX_TRY(mx_call_number(call, "jobs", false, &wish.jobs, st));
    MX_TRY(mx_call_number(call, "threads", false, &wish.threads, st));
    MX_TRY(mx_call_number(call, "memory-limit", true, &wish.memory_limit, st));
    if (wish.jobs < 1 || wish.jobs > 256) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--jobs is %lld, but must be 1 to 256", (long long)wish.jobs);
    }
    if (wish.threads > 1024) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--threads is %lld, but must be at most 1024", (long long)wish.threads);
    }
    MX_TRY(mx_sweep_read(call, &sweep, st));
    wish.sweep = sweep;
    wish.db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : sweep->db;
    mx_progress_begin(&progress, wish.quiet, 0);
    code = mx_sweep_measure(sweep, (size_t)wish.memory_limit, mx_call_flag(call, "emit") != NULL, call->arena, measuring, st);
    mx_progress_clear(&progress);
    MX_TRY(code);
    if (mx_call_flag(call, "emit")) {
        return emit(call, &wish, st);
    }
    return mx_call_flag(call, "member") ? mx_sweep_run_member(&wish, mx_call_flag(call, "member"), call->arena, st)
                                        : mx_sweep_run(&wish, call->arena, st);
}

const mx_command mx_verb_sweep = {
    .name = "sweep",
    .usage = "sweep FILE [word=value ...] [--jobs N] [--rerun] [--emit slurm|commands]",
    .summary = "run what the database lacks of many variants and seeds",
    .help = "FILE is a sweep (a base recipe, variants, axes, seeds), or a recipe with arguments that list values:\n\n"
            "  mixrun sweep configs/sweeps/methods.yaml\n"
            "  mixrun sweep configs/quickstart.yaml adapter.lora_r=8,16 seed=1,2,3 --jobs 2\n\n"
            "A run that the database has finished is not made again; one that was stopped, died or failed goes on from its\n"
            "checkpoint; equal variants run once. Every run is a process of its own: one that fails says why in the database\n"
            "(mixrun show RUN) and touches no other. Starting the same sweep twice at once shares the work.\n"
            "Ctrl-C lets the running ones save their state and exits with 75; starting the sweep again continues. A second\n"
            "Ctrl-C stops at once. mixrun plan FILE tells what it would do.\n"
            "On more machines: --emit slurm > job.sh; sbatch job.sh, or --emit commands for any other queue. Nodes that share no\n"
            "file system SQLite can trust take --own-db, and mixrun import merges what they wrote.\n"
            "Exit codes: 0 all finished, 1 it could not be done, 2 a recipe or the command line is wrong, 4 some runs failed,\n"
            "75 stopped and resumable.",
    .flag = flags, .least = 1, .most = -1, .asks_to_stop = true, .run = run,
};
