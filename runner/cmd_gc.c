/* cmd_gc.c - mixrun gc: what the database and its folders can do without. */
#include "base/text.h"
#include "reports/remove.h"
#include "runner/command.h"
#include "runner/confirm.h"
#include "runner/verbs.h"

#include <string.h>

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "older-than", 0, "AGE", "failed and dead runs not heard of for so long, too: 12h, 30d, 8w" },
    { "folder", 0, "FOLDER", "one more folder of runs to look into; those of the database's runs are known" },
    { "dry-run", 'n', NULL, "only tell" },
    { "yes", 'y', NULL, "do not ask" },
    { 0 },
};

static mx_code age(const char *word, int64_t *ret_ms, mx_status *st) {
    static const struct {
        char unit;
        int64_t ms;
    } units[] = { { 'h', 3600000 }, { 'd', 86400000 }, { 'w', 604800000 } };
    char digits[8] = "";
    size_t n = word ? strspn(word, "0123456789") : 0;
    int64_t count;

    *ret_ms = -1;
    if (!word) {
        return MX_OK;
    }
    if (n > 0 && n < sizeof digits) {
        memcpy(digits, word, n);
    }
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        if (word[n] == units[u].unit && word[n + 1] == '\0' && mx_text_to_int64(digits, &count)) {
            *ret_ms = count * units[u].ms;
            return MX_OK;
        }
    }
    return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--older-than '%s' is no age such as 12h, 30d or 8w", word);
}

/* What would go; how many things that is. */
static int tell(const mx_gc_plan *p, FILE *out) {
    int64_t bytes = 0;
    int things = p->items + (p->environments + p->bases > 0);

    for (int i = 0; i < p->items; i++) {
        const mx_garbage *g = &p->item[i];

        fprintf(out, " %9s  %s", mx_text_bytes((uint64_t)g->bytes), g->what);
        if (g->kind == MX_GARBAGE_RUN) {
            fprintf(out, ": %s rows", mx_text_count(g->rows));
            if (!g->files.own) {
                fprintf(out, "; %s is left alone: %s", g->run.folder, g->files.because);
            }
        }
        fprintf(out, "%s%s%s\n", g->files.stranger ? "; " : "", g->files.stranger ? g->files.stranger : "", g->files.stranger ? " in it is not ours and stays" : "");
        bytes += g->bytes;
    }
    if (p->environments + p->bases > 0) {
        fprintf(out, " %9s  %lld environments and %lld bases that no run refers to\n", "", (long long)p->environments, (long long)p->bases);
    }
    if (p->free_bytes > 0 && p->alive) {
        fprintf(out, " %9s  %s of free pages, which the database keeps while run %lld is running\n", "", mx_text_bytes((uint64_t)p->free_bytes),
                (long long)p->alive);
    } else if (p->free_bytes > 0) {
        fprintf(out, " %9s  free pages of the database\n", mx_text_bytes((uint64_t)p->free_bytes));
        bytes += p->free_bytes;
        things++;
    }
    if (things > 0) {
        fprintf(out, " %9s  in all, and what removed rows leave free\n", mx_text_bytes((uint64_t)bytes));
    } else {
        fprintf(out, " there is nothing to clear\n");
    }
    return things;
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    bool dry = mx_call_flag(call, "dry-run") != NULL, yes = false;
    mx_gc_plan plan;
    mx_gc_done done;
    mx_store *store;
    int64_t older_ms;
    mx_code code;

    MX_TRY(age(mx_call_flag(call, "older-than"), &older_ms, st));
    MX_TRY(mx_store_open(db, false, &store, st));
    code = mx_gc_look(store, older_ms, mx_call_flag(call, "folder"), call->arena, &plan, st);
    mx_store_close(store);
    MX_TRY(code);
    if (tell(&plan, dry ? stdout : stderr) == 0 || dry) {
        return MX_OK;
    }
    MX_TRY(mx_confirm("remove all this?", mx_call_flag(call, "yes") != NULL, &yes, st));
    if (!yes) {
        return MX_OK;
    }
    MX_TRY(mx_store_open(db, true, &store, st));
    code = mx_gc_clear(store, &plan, &done, st);
    mx_store_close(store);
    MX_TRY(code);
    if (done.kept > 0) {
        fprintf(stderr, "%d of them %s in use again, and stayed\n", done.kept, done.kept == 1 ? "is" : "are");
    }
    if (done.alive) {
        fprintf(stderr, "the database keeps its free pages: giving them back would lock it while run %lld is running; mixrun gc does it afterwards\n",
                (long long)done.alive);
    }
    return MX_OK;
}

const mx_command mx_verb_gc = {
    .name = "gc",
    .usage = "gc [--older-than AGE] [--dry-run] [--yes] [--db FILE]",
    .summary = "clear what is left over: checkpoints, orphaned folders, free pages",
    .help = "Tells what can go, asks, and clears it: checkpoints of finished runs, parts of files that were never finished, folders of runs that\n"
            "are no longer in the database (only where the recipe in it names this database and that folder), environments and bases that no\n"
            "run refers to, with --older-than failed and dead runs; then the database gives its free pages back (VACUUM, which needs as much\n"
            "room again while it works, and is left out while a run is running). Start it in the folder where the runs were started.\n\n"
            "  mixrun gc --older-than 30d --dry-run",
    .flag = flags, .least = 0, .most = 0, .run = run,
};
