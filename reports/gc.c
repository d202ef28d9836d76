/* gc.c - remove.h's garbage: what a database and its folders can do without. */
#include "reports/remove.h"

#include "base/file.h"
#include "base/yaml.h"
#include "reports/remove_files.h"
#include "reports/sql.h"

#include <ctype.h>
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

typedef struct look {
    mx_store *s;
    mx_arena *arena;
    mx_gc_plan *plan;
    int room;
    mx_run_folders folders; /* of every run there is */
    const char **parent; /* folders of runs */
    int parents;
} look;

static mx_garbage *add(look *l, mx_garbage_kind kind, const char *what) {
    if (l->plan->items == l->room) {
        mx_garbage *grown = MX_TAKE(l->arena, mx_garbage, l->room ? 2 * l->room : 64);

        if (l->room) {
            memcpy(grown, l->plan->item, sizeof *grown * (size_t)l->room);
        }
        l->plan->item = grown;
        l->room = l->room ? 2 * l->room : 64;
    }
    l->plan->item[l->plan->items] = (mx_garbage){ .kind = kind, .what = what };
    return &l->plan->item[l->plan->items++];
}

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* ------------------------------------------------------------------------ runs of the database */

/* A checkpoint that nobody goes back to, and parts of files that were never finished. */
static void leftovers(look *l, const mx_run_row *run, const mx_own_files *f) {
    for (int i = 0; i < f->count; i++) {
        bool checkpoint = strcmp(f->name[i], "checkpoint.bin") == 0, part = strstr(f->name[i], ".tmp-") != NULL;
        mx_garbage *g;

        if (!(checkpoint && strcmp(run->state, "finished") == 0) && !part) {
            continue;
        }
        g = add(l, MX_GARBAGE_FILE,
                checkpoint ? mx_arena_text(l->arena, "checkpoint of run %lld, which is finished", (long long)run->run_id)
                           : mx_arena_text(l->arena, "%s of run %lld, never finished", f->name[i], (long long)run->run_id));
        g->files = (mx_own_files){ .folder = f->folder, .own = true, .because = "", .name = &f->name[i], .bytes_of = &f->bytes_of[i], .count = 1,
                                   .bytes = f->bytes_of[i] };
        g->bytes = f->bytes_of[i];
        g->run = *run;
    }
}

static mx_code look_at_run(look *l, const mx_run_row *run, int64_t older_ms, mx_status *st) {
    bool dead = mx_run_is_dead(run), ended = strcmp(run->state, "failed") == 0 || dead;
    int64_t silent_ms = mx_now_ms() - run->heartbeat_ms;
    mx_own_files files;
    mx_garbage *g;

    if (strcmp(run->state, "running") == 0 && !dead) {
        return MX_OK;
    }
    mx_own_files_look(&l->folders, run, l->arena, &files);
    if (older_ms < 0 || !ended || silent_ms < older_ms) {
        leftovers(l, run, &files);
        return MX_OK;
    }
    g = add(l, MX_GARBAGE_RUN, mx_arena_text(l->arena, "run %lld, %s, %s for %lld days", (long long)run->run_id, run->name, dead ? "dead" : "failed",
                                             (long long)(silent_ms / 86400000)));
    g->run = *run;
    g->files = files;
    g->bytes = files.bytes;
    return mx_run_rows(l->s, run->run_id, &g->rows, st);
}

static void add_parent(look *l, const char *path) {
    for (int i = 0; i < l->parents; i++) {
        struct stat a, b;

        if (strcmp(l->parent[i], path) == 0 || (stat(l->parent[i], &a) == 0 && stat(path, &b) == 0 && same_file(&a, &b))) {
            return;
        }
    }
    l->parent[l->parents++] = path;
}

static mx_code look_at_runs(look *l, int64_t older_ms, mx_status *st) {
    sqlite3_stmt *q;
    int64_t *id, count = 0, n = 0;
    mx_code code;

    MX_TRY(mx_sql_prepare(l->s, &q, st, "SELECT run_id, COUNT(*) OVER () FROM runs ORDER BY run_id", ""));
    id = NULL;
    while (mx_sql_row(l->s, q, &code, st)) {
        count = sqlite3_column_int64(q, 1);
        id = id ? id : MX_TAKE(l->arena, int64_t, count);
        id[n++] = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    MX_TRY(code);
    MX_TRY(mx_run_folders_read(l->s, l->arena, &l->folders, st));
    l->parent = MX_TAKE(l->arena, const char *, n + 2);
    for (int64_t i = 0; i < n; i++) {
        const char *slash;
        mx_run_row run;

        MX_TRY(mx_store_run_find(l->s, mx_arena_text(l->arena, "%lld", (long long)id[i]), l->arena, &run, st));
        slash = strrchr(run.folder, '/');
        if (slash && slash > run.folder) {
            add_parent(l, mx_arena_copy(l->arena, run.folder, (size_t)(slash - run.folder)));
        }
        MX_TRY(look_at_run(l, &run, older_ms, st));
    }
    return MX_OK;
}

/* ------------------------------------------------------------------------ folders without a run */

static const char *word_of(const mx_node *recipe, const char *word) {
    const mx_node *node = mx_node_find(recipe, word);

    return node && node->kind == MX_NODE_TEXT ? node->text : NULL;
}

/* runner/session.c names a run's folder so: its number, and its name with '-' for what troubles a path. */
static bool named_for(const char *folder, const char *name) {
    size_t digits = strspn(folder, "0123456789");

    if (digits == 0 || folder[digits] != '-' || strlen(folder + digits + 1) != strlen(name)) {
        return false;
    }
    for (const char *f = folder + digits + 1; *name; f++, name++) {
        bool fine = isalnum((unsigned char)*name) || strchr("-_.", *name);

        if (*f != (fine && (unsigned char)*name < 0x80 ? *name : '-')) {
            return false;
        }
    }
    return true;
}

/* The recipe beside it names this database, this folder of runs and this folder. */
static bool provably_ours(look *l, const char *parent, const char *name) {
    const char *path = mx_arena_text(l->arena, "%s/%s/recipe.yaml", parent, name), *db, *output, *run;
    struct stat mine, theirs, info;
    mx_problems problems;
    mx_node *root = NULL;
    bool ours = false;

    if (lstat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        return false;
    }
    mx_problems_init(&problems);
    if (mx_yaml_read(path, 0, l->arena, &root, &problems, NULL) == MX_OK && root) {
        db = word_of(root, "db");
        output = word_of(root, "output_dir");
        run = word_of(root, "name");
        ours = db && output && run && named_for(name, run) && stat(db, &theirs) == 0 && stat(mx_store_path(l->s), &mine) == 0 &&
               same_file(&mine, &theirs) && stat(output, &theirs) == 0 && stat(parent, &mine) == 0 && same_file(&mine, &theirs);
    }
    mx_problems_finish(&problems);
    return ours;
}

static void look_into(look *l, const char *parent) {
    DIR *d = opendir(parent);
    const struct dirent *entry;

    while (d && (entry = readdir(d))) {
        const char *name = mx_arena_copy(l->arena, entry->d_name, strlen(entry->d_name)), *path = mx_arena_text(l->arena, "%s/%s", parent, name);
        struct stat info;
        mx_garbage *g;

        if (!isdigit((unsigned char)name[0]) || lstat(path, &info) != 0 || !S_ISDIR(info.st_mode) ||
            mx_run_folders_hold(&l->folders, &info, 0) || !provably_ours(l, parent, name)) {
            continue;
        }
        g = add(l, MX_GARBAGE_FOLDER, mx_arena_text(l->arena, "%s, of a run that is no longer in the database", path));
        g->files = (mx_own_files){ .folder = path, .own = true, .because = "" };
        mx_own_files_list(path, &g->files, l->arena);
        g->bytes = g->files.bytes;
    }
    if (d) {
        closedir(d);
    }
}

/* ------------------------------------------------------------------------ the database file */

static mx_code number(mx_store *s, const char *sql, int64_t *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = 0;
    MX_TRY(mx_sql_prepare(s, &q, st, sql, ""));
    if (mx_sql_row(s, q, &code, st)) {
        *ret = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    return code;
}

#define UNUSED_ENVIRONMENTS "FROM environments WHERE environment_id NOT IN (SELECT environment_id FROM runs)"
#define UNUSED_BASES "FROM bases WHERE base_hash NOT IN (SELECT base_hash FROM runs)"

/* One that is running: while VACUUM works it could store nothing, and would fail for it. */
static mx_code find_alive(mx_store *s, int64_t *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = 0;
    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT run_id, host, pid, heartbeat_ms FROM runs WHERE state = 'running' ORDER BY run_id", ""));
    while (*ret == 0 && mx_sql_row(s, q, &code, st)) {
        mx_run_row run = { .state = "running", .host = mx_sql_text(q, 1), .pid = sqlite3_column_int64(q, 2),
                           .heartbeat_ms = sqlite3_column_int64(q, 3) };

        *ret = mx_run_is_dead(&run) ? 0 : sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    return *ret ? MX_OK : code;
}

mx_code mx_gc_look(mx_store *s, int64_t older_ms, const char *more, mx_arena *arena, mx_gc_plan *ret, mx_status *st) {
    look l = { .s = s, .arena = arena, .plan = ret };
    int64_t pages, page;

    *ret = (mx_gc_plan){ 0 };
    MX_TRY(look_at_runs(&l, older_ms, st));
    if (more) {
        add_parent(&l, more);
    }
    for (int i = 0; i < l.parents; i++) {
        look_into(&l, l.parent[i]);
    }
    MX_TRY(number(s, "SELECT COUNT(*) " UNUSED_ENVIRONMENTS, &ret->environments, st));
    MX_TRY(number(s, "SELECT COUNT(*) " UNUSED_BASES, &ret->bases, st));
    MX_TRY(number(s, "PRAGMA freelist_count", &pages, st));
    MX_TRY(number(s, "PRAGMA page_size", &page, st));
    ret->free_bytes = pages * page;
    return find_alive(s, &ret->alive, st);
}

static mx_code clear_tables(mx_store *s, mx_status *st) {
    mx_code code;

    MX_TRY(mx_store_begin(s, st));
    code = mx_sql_execute(s, st, "DELETE " UNUSED_ENVIRONMENTS, "");
    if (code == MX_OK) {
        code = mx_sql_execute(s, st, "DELETE " UNUSED_BASES, "");
    }
    if (code == MX_OK) {
        code = mx_store_commit(s, st);
    }
    if (code) {
        mx_store_rollback(s);
    }
    return code;
}

/* A folder that is a run's by now: one that began after the runs were looked at. */
static mx_code is_of_a_run(mx_store *s, const char *folder, mx_arena *arena, bool *ret, mx_status *st) {
    mx_run_folders all;
    struct stat info;

    *ret = false;
    if (stat(folder, &info) != 0) {
        return MX_OK; /* there is nothing to remove */
    }
    MX_TRY(mx_run_folders_read(s, arena, &all, st));
    *ret = mx_run_folders_hold(&all, &info, 0);
    return MX_OK;
}

/* Somebody may have begun or resumed it while the question was open. */
static mx_code still_garbage(mx_store *s, const mx_garbage *g, mx_arena *arena, bool *ret, mx_status *st) {
    mx_run_row now;
    bool taken;

    if (g->kind == MX_GARBAGE_FOLDER) {
        MX_TRY(is_of_a_run(s, g->files.folder, arena, &taken, st));
        *ret = !taken;
        return MX_OK;
    }
    MX_TRY(mx_store_run_find(s, g->run.uuid, arena, &now, st));
    *ret = strcmp(now.state, g->run.state) == 0 && (strcmp(now.state, "running") != 0 || mx_run_is_dead(&now));
    return MX_OK;
}

/* Nobody begins a run or takes one up between the second look and the removal: both need the transaction that is held here. */
static mx_code clear_one(mx_store *s, const mx_garbage *g, mx_gc_done *ret, mx_status *st) {
    mx_arena arena;
    bool still;
    mx_code code;

    MX_TRY(mx_store_begin(s, st));
    mx_arena_init(&arena, (size_t)256 << 20);
    code = still_garbage(s, g, &arena, &still, st);
    if (code == MX_OK && still) {
        code = mx_own_files_remove(&g->files, st);
    }
    ret->kept += code == MX_OK && !still;
    mx_arena_finish(&arena);
    mx_store_rollback(s); /* it wrote nothing */
    return code;
}

static mx_code clear_runs(mx_store *s, const mx_gc_plan *plan, mx_status *st) {
    mx_arena arena;
    mx_run_row *run;
    mx_own_files *files;
    int runs = 0;
    mx_code code = MX_OK;

    mx_arena_init(&arena, (size_t)256 << 20);
    run = MX_TAKE(&arena, mx_run_row, plan->items + 1);
    files = MX_TAKE(&arena, mx_own_files, plan->items + 1);
    for (int i = 0; i < plan->items; i++) {
        if (plan->item[i].kind == MX_GARBAGE_RUN) {
            run[runs] = plan->item[i].run;
            files[runs++] = plan->item[i].files;
        }
    }
    if (runs > 0) {
        code = mx_runs_remove(s, run, files, runs, st);
    }
    mx_arena_finish(&arena);
    return code;
}

mx_code mx_gc_clear(mx_store *s, const mx_gc_plan *plan, mx_gc_done *ret, mx_status *st) {
    *ret = (mx_gc_done){ 0 };
    MX_TRY(clear_runs(s, plan, st));
    for (int i = 0; i < plan->items; i++) {
        if (plan->item[i].kind != MX_GARBAGE_RUN) {
            MX_TRY(clear_one(s, &plan->item[i], ret, st));
        }
    }
    MX_TRY(clear_tables(s, st));
    MX_TRY(find_alive(s, &ret->alive, st));
    if (ret->alive) {
        return MX_OK;
    }
    if (sqlite3_exec(mx_store_handle(s), "VACUUM", NULL, NULL, NULL) != SQLITE_OK) {
        return mx_sql_fail(s, st, "giving space back");
    }
    if (sqlite3_exec(mx_store_handle(s), "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL) != SQLITE_OK) {
        return mx_sql_fail(s, st, "giving space back");
    }
    return MX_OK;
}
