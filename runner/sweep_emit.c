/* sweep_emit.c - see sweep_emit.h. */
#include "runner/sweep_emit.h"

#include "base/text.h"
#include "runner/device.h"
#include "runner/environment.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

enum {
    ARRAY_MAX = 1000,
    PROGRAM_BYTES = 256 << 20, /* beside what the plan counts: code, libraries; a fifth of the plan is added for the system's own */
};

typedef struct emission {
    const mx_sweep_wish *wish;
    mx_arena *arena;
    mx_text *out;
    const char *program, *folder, *db_folder; /* db_folder NULL: all share wish->db */
    const mx_sweep_member **member;           /* what is left to do */
    int64_t members;
} emission;

const char *mx_shell_word(const char *word, mx_arena *arena) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
    mx_text out;
    const char *kept;

    if (word[0] && word[strspn(word, plain)] == '\0') {
        return word;
    }
    mx_text_init(&out, 1 << 20);
    mx_text_add(&out, "'", 1);
    for (const char *c = word; *c; c++) {
        if (*c == '\'') {
            mx_text_print(&out, "'\\''");
        } else {
            mx_text_add(&out, c, 1);
        }
    }
    mx_text_add(&out, "'", 1);
    kept = mx_arena_copy(arena, out.data, out.length);
    mx_text_finish(&out);
    return kept;
}

static const char *quoted(const emission *e, const char *word) {
    return mx_shell_word(word, e->arena);
}

/* This program and this folder: what commands say must not depend on where they are started. */
static mx_code find_place(emission *e, mx_status *st) {
    static const char gone[] = " (deleted)";
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);

    if (n <= 0) {
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "cannot tell where this program is: %s", strerror(errno));
    }
    path[n] = '\0';
    if ((size_t)n > sizeof gone && strcmp(path + n - (sizeof gone - 1), gone) == 0) {
        path[n - (ssize_t)(sizeof gone - 1)] = '\0';
    }
    e->program = mx_arena_copy(e->arena, path, strlen(path));
    if (!getcwd(path, sizeof path)) {
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "cannot tell which folder this is: %s", strerror(errno));
    }
    e->folder = mx_arena_copy(e->arena, path, strlen(path));
    return MX_OK;
}

static mx_code gather(emission *e, mx_store *store, mx_status *st) {
    const mx_sweep *w = e->wish->sweep;
    mx_arena look;
    mx_code code = MX_OK;

    e->member = MX_TAKE(e->arena, const mx_sweep_member *, w->members + 1);
    mx_arena_init(&look, (size_t)1 << 30);
    for (int64_t i = 0; i < w->members && code == MX_OK; i++) {
        mx_member_state state = MX_MEMBER_NONE;
        mx_run_row run;

        if (w->member[i].same_as) {
            continue;
        }
        mx_arena_rewind(&look);
        code = mx_member_look(store, w, &w->member[i], &look, &state, &run, st);
        if (state == MX_MEMBER_ALIVE || (state == MX_MEMBER_FINISHED && !e->wish->rerun)) {
            continue;
        }
        e->member[e->members++] = &w->member[i];
    }
    mx_arena_finish(&look);
    return code;
}

/* "sweep FLAGS -- FILE ARGUMENTS"; `member` and `db` are put in as they are. */
static void put_words(const emission *e, const char *member, const char *db) {
    mx_text_print(e->out, "sweep --member %s --db %s%s", member, db, e->wish->rerun ? " --rerun" : "");
    if (e->wish->threads > 0) {
        mx_text_print(e->out, " --threads %lld", (long long)e->wish->threads);
    }
    if (e->wish->memory_limit > 0) {
        mx_text_print(e->out, " --memory-limit %lld", (long long)e->wish->memory_limit);
    }
    mx_text_print(e->out, " --");
    for (int i = 0; i < e->wish->words; i++) {
        mx_text_print(e->out, " %s", quoted(e, e->wish->word[i]));
    }
    mx_text_print(e->out, "\n");
}

static const char *name_of(const emission *e, const mx_sweep_member *m) {
    char digits[MX_MEMBER_DIGITS];

    mx_member_digits(e->wish->sweep, m, digits);
    return mx_arena_text(e->arena, "%lld:%s", (long long)m->position, digits);
}

static void put_commands(const emission *e) {
    for (int64_t i = 0; i < e->members; i++) {
        const char *db = e->wish->db;

        mx_text_print(e->out, "cd %s && ", quoted(e, e->folder));
        if (e->db_folder) {
            db = mx_arena_text(e->arena, "%s/member-%lld.db", e->db_folder, (long long)e->member[i]->position);
            mx_text_print(e->out, "mkdir -p %s && ", quoted(e, e->db_folder));
        }
        mx_text_print(e->out, "%s ", quoted(e, e->program));
        put_words(e, name_of(e, e->member[i]), quoted(e, db));
    }
}

/* The text without what would end a comment or a directive. */
static const char *one_line(const emission *e, const char *text) {
    char *copy = mx_arena_copy(e->arena, text, strlen(text));

    for (char *c = copy; *c; c++) {
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    }
    return copy;
}

/* What the recipes ask for counts, not what is here. */
static void put_gpu(const emission *e) {
    bool asked = false, may = false;

    for (int64_t i = 0; i < e->members; i++) {
        const mx_recipe *r = e->wish->sweep->variant[e->member[i]->variant].recipe;

        asked |= mx_device_is_gpu(r->device);
        may |= strcmp(r->device, "auto") == 0;
    }
    if (asked) {
        mx_text_print(e->out, "#SBATCH --gres=gpu:1\n");
    } else if (may) {
        mx_text_print(e->out, "# device: auto: with one # less each run has a GPU, and takes it.\n##SBATCH --gres=gpu:1\n");
    }
}

static void put_directives(const emission *e) {
    const mx_sweep *w = e->wish->sweep;
    size_t memory = 0;
    int64_t threads = 0;
    char *name = mx_arena_copy(e->arena, w->name, strlen(w->name));

    for (char *c = name; *c; c++) {
        *c = strchr(" \t\n/%\"'", *c) ? '-' : *c;
    }
    for (int64_t i = 0; i < e->members; i++) {
        const mx_sweep_variant *v = &w->variant[e->member[i]->variant];
        int64_t own = v->recipe->threads ? v->recipe->threads : e->wish->threads;

        memory = v->memory > memory ? v->memory : memory;
        threads = own > threads ? own : threads;
    }
    mx_text_print(e->out, "#SBATCH --job-name=%s\n#SBATCH --array=1-%lld", name, (long long)e->members);
    if (e->wish->jobs > 0) {
        mx_text_print(e->out, "%%%lld", (long long)e->wish->jobs);
    }
    mx_text_print(e->out, "\n#SBATCH --output=%s-%%A_%%a.log\n", name);
    mx_text_print(e->out, "#SBATCH --mem=%lluM\n", (unsigned long long)(memory + memory / 5 + PROGRAM_BYTES) >> 20);
    put_gpu(e);
    if (threads > 0) {
        mx_text_print(e->out, "#SBATCH --cpus-per-task=%lld\n", (long long)threads);
    } else {
        mx_text_print(e->out, "# Processors for each run: with one # less, as many as wanted.\n##SBATCH --cpus-per-task=8\n");
    }
    mx_text_print(e->out, "# Two minutes before its time is up a run is asked to save its state; the sweep, emitted again, goes on with it.\n"
                          "##SBATCH --time=01:00:00\n#SBATCH --signal=B:INT@120\n");
    if (e->members > ARRAY_MAX) {
        mx_text_print(e->out, "# %lld tasks: many sites allow 1000 in an array (scontrol show config | grep MaxArraySize)\n",
                      (long long)e->members);
    }
}

static void put_script(const emission *e) {
    const mx_sweep *w = e->wish->sweep;

    mx_text_print(e->out, "#!/bin/bash\n# %s: %lld runs that %s lacks. Made by: mixrun sweep", one_line(e, w->name), (long long)e->members,
                  one_line(e, e->wish->db));
    for (int i = 0; i < e->wish->words; i++) {
        mx_text_print(e->out, " %s", one_line(e, quoted(e, e->wish->word[i])));
    }
    mx_text_print(e->out, " --emit slurm%s\n", e->db_folder ? " --own-db" : "");
    put_directives(e);
    mx_text_print(e->out, "set -eu\ncd %s\nmixrun=${MIXRUN_PROGRAM:-%s}\ncase \"$SLURM_ARRAY_TASK_ID\" in\n", quoted(e, e->folder),
                  quoted(e, e->program));
    for (int64_t i = 0; i < e->members; i++) {
        mx_text_print(e->out, "%lld) member=%s ;; # %s\n", (long long)(i + 1), name_of(e, e->member[i]),
                      one_line(e, mx_member_title(w, e->member[i], e->arena)));
    }
    mx_text_print(e->out, "*) echo \"this array has tasks 1 to %lld\" >&2; exit 2 ;;\nesac\n", (long long)e->members);
    if (e->db_folder) {
        mx_text_print(e->out, "folder=${MIXRUN_SWEEP_DB_DIR:-%s}\nmkdir -p \"$folder\"\n", quoted(e, e->db_folder));
    }
    mx_text_print(e->out, "exec \"$mixrun\" ");
    put_words(e, "\"$member\"", e->db_folder ? "\"$folder/member-${member%%:*}.db\"" : quoted(e, e->wish->db));
    if (e->db_folder) {
        mx_text_print(e->out, "# When they are done: mixrun import %s/member-*.db --db %s\n", quoted(e, e->db_folder), quoted(e, e->wish->db));
    }
}

mx_code mx_sweep_emit(const mx_sweep_wish *wish, mx_emit form, bool own_db, mx_arena *arena, mx_text *out, mx_status *st) {
    const mx_sweep *w = wish->sweep;
    emission e = { .wish = wish, .arena = arena, .out = out };
    mx_store *store;
    mx_code code;

    MX_TRY(find_place(&e, st));
    for (int32_t i = 0; wish->memory_limit > 0 && i < w->variants; i++) { /* without one, the other machine may have more */
        if (w->variant[i].memory_limit_hit) {
            return mx_fail(st, MX_E_MEMORY, w->variant[i].at, "variant '%s' does not fit: %s", w->variant[i].name, w->variant[i].refusal.text);
        }
    }
    if (own_db) {
        size_t n = strlen(wish->db);

        e.db_folder = mx_arena_text(arena, "%.*s-members", (int)(n > 3 && strcmp(wish->db + n - 3, ".db") == 0 ? n - 3 : n), wish->db);
    }
    if (!own_db && !wish->quiet) {
        mx_warn_network(wish->db);
    }
    MX_TRY(mx_store_open(wish->db, true, &store, st));
    code = gather(&e, store, st);
    if (code == MX_OK && e.members > 0) {
        code = mx_sweep_put(w, store, wish->quiet, arena, st);
    }
    mx_store_close(store);
    MX_TRY(code);
    if (e.members == 0) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%s has nothing left to do: its runs are finished or running", w->name);
        mx_hint(st, "mixrun compare --sweep %s", mx_shell_word(w->name, arena));
        return MX_E_USAGE;
    }
    if (form == MX_EMIT_SLURM) {
        put_script(&e);
    } else {
        put_commands(&e);
    }
    return MX_OK;
}
