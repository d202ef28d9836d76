/* cmd_rm.c - mixrun rm RUN...: runs and their files, taken away. */
#include "base/text.h"
#include "reports/remove.h"
#include "reports/summary.h"
#include "runner/command.h"
#include "runner/confirm.h"
#include "runner/verbs.h"

#include <string.h>
#include <unistd.h>

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "yes", 'y', NULL, "do not ask" },
    { 0 },
};

typedef struct removal {
    mx_run_row *run;
    mx_own_files *files;
    int count;
    int64_t rows, bytes;
} removal;

/* Only here is that number its process; elsewhere it is somebody else's. */
static void hint_at_stopping(const mx_run_row *run, mx_status *st) {
    char host[256] = "";

    gethostname(host, sizeof host - 1);
    if (strcmp(host, run->host) == 0) {
        mx_hint(st, "Ctrl-C stops it, or kill %lld", (long long)run->pid);
    } else {
        mx_hint(st, "stop it on %s first", run->host);
    }
}

static mx_code find(const mx_call *call, mx_store *s, removal *r, mx_status *st) {
    for (int i = 0; i < call->words; i++) {
        mx_run_row *run = &r->run[r->count];
        bool twice = false;

        MX_TRY(mx_store_run_find(s, call->word[i], call->arena, run, st));
        for (int k = 0; k < r->count; k++) {
            twice |= r->run[k].run_id == run->run_id;
        }
        if (twice) {
            continue;
        }
        if (strcmp(mx_summary_state(run), "running") == 0) {
            mx_fail(st, MX_E_USAGE, MX_NOWHERE, "run %lld is running on %s as process %lld; nothing was removed", (long long)run->run_id, run->host,
                    (long long)run->pid);
            hint_at_stopping(run, st);
            return MX_E_USAGE;
        }
        r->count++;
    }
    return MX_OK;
}

/* What will go, a line a run. */
static mx_code tell(const mx_call *call, mx_store *s, removal *r, mx_status *st) {
    for (int i = 0; i < r->count; i++) {
        const mx_run_row *run = &r->run[i];
        mx_own_files *f = &r->files[i];
        int64_t rows;

        MX_TRY(mx_own_files_find(s, run, call->arena, f, st));
        MX_TRY(mx_run_rows(s, run->run_id, &rows, st));
        r->rows += rows;
        r->bytes += f->bytes;
        fprintf(stderr, " run %lld  %s  %s  %s: %s rows", (long long)run->run_id, run->name, run->method, mx_summary_state(run), mx_text_count(rows));
        if (!f->own) {
            fprintf(stderr, "; %s is left alone: %s\n", run->folder, f->because);
        } else {
            fprintf(stderr, ", %s in %s%s%s%s\n", mx_text_bytes((uint64_t)f->bytes), run->folder, f->stranger ? ", where " : "",
                    f->stranger ? f->stranger : "", f->stranger ? " is not ours and stays" : "");
        }
    }
    return MX_OK;
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    removal r = { .run = MX_TAKE(call->arena, mx_run_row, call->words), .files = MX_TAKE(call->arena, mx_own_files, call->words) };
    mx_store *store;
    bool yes = false;
    mx_code code;

    MX_TRY(mx_store_open(db, false, &store, st));
    code = find(call, store, &r, st);
    if (code == MX_OK) {
        code = tell(call, store, &r, st);
    }
    mx_store_close(store);
    if (code == MX_OK) {
        code = mx_confirm(r.count == 1 ? "remove it?" : "remove them?", mx_call_flag(call, "yes") != NULL, &yes, st);
    }
    if (code || !yes) {
        return code;
    }
    MX_TRY(mx_store_open(db, true, &store, st));
    code = mx_runs_remove(store, r.run, r.files, r.count, st);
    mx_store_close(store);
    if (code == MX_OK) {
        fprintf(stderr, "removed %d run%s: %s rows, %s of files; mixrun gc gives the database's space back\n", r.count, r.count == 1 ? "" : "s",
                mx_text_count(r.rows), mx_text_bytes((uint64_t)r.bytes));
    }
    return code;
}

const mx_command mx_verb_rm = {
    .name = "rm",
    .usage = "rm RUN ... [--yes] [--db FILE]",
    .summary = "remove runs, with their files, after asking",
    .help = "Takes the runs' rows out of the database and their files out of their folders: recipe, checkpoint and adapter. A folder goes only\n"
            "when it is the run's own (its recipe.yaml is the run's, byte for byte) and nothing else lies in it; links are not followed. A run\n"
            "that is running is refused, and without a terminal so is all, unless --yes is given. A sweep that lacks a run runs it again.\n"
            "Start it in the folder where the runs were started: their folders are named from there.\n\n"
            "  mixrun rm 3 4 5",
    .flag = flags, .least = 1, .most = -1, .run = run,
};
