/* cmd_import.c - mixrun import OTHER.db ...: runs of other machines into one database. */
#include "reports/import.h"

#include "base/file.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database they come into; default mixrun.db" },
    { 0 },
};

static void tell(const char *path, const mx_import *n) {
    printf(" %s: imported %lld run%s", path, (long long)n->added, n->added == 1 ? "" : "s");
    if (n->replaced) {
        printf(", %lld of ours gave way to a copy that is further on", (long long)n->replaced);
    }
    if (n->here) {
        printf(", %lld %s here already", (long long)n->here, n->here == 1 ? "was" : "were");
    }
    if (n->alive) {
        printf(", %lld left alone: still running", (long long)n->alive);
    }
    if (n->sweeps) {
        printf("; %lld sweep%s", (long long)n->sweeps, n->sweeps == 1 ? "" : "s");
    }
    printf("\n");
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    mx_store *store;
    mx_code code = MX_OK;

    for (int i = 0; i < call->words; i++) { /* before a database is made for nothing */
        if (!mx_file_exists(call->word[i])) {
            return mx_fail(st, MX_E_STORE, MX_NOWHERE, "there is no database %s", call->word[i]);
        }
    }
    MX_TRY(mx_store_open(db, true, &store, st));
    for (int i = 0; i < call->words && code == MX_OK; i++) {
        mx_import n;

        code = mx_store_import(store, call->word[i], &n, st);
        if (code == MX_OK) {
            tell(call->word[i], &n);
        }
    }
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_import = {
    .name = "import",
    .usage = "import OTHER.db [MORE.db ...] [--db FILE]",
    .summary = "bring the runs of other databases into this one",
    .help = "Runs are known by their uuid: importing twice changes nothing, and numbers are given anew. A run that is here already is\n"
            "replaced only by a copy that is further on (finished, or more steps); runs that a process is at are left alone. Sweeps\n"
            "come along by name; the one started later stays. The other files are only read. Folders of imported runs (adapters,\n"
            "checkpoints) are not copied.\n\n"
            "  mixrun import node1.db node2.db --db all.db",
    .flag = flags, .least = 1, .most = -1, .run = run,
};
