/* remove.c - see remove.h: runs and their own files. */
#include "reports/remove.h"

#include "base/file.h"
#include "reports/remove_files.h"
#include "reports/sql.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------------------ whose file is it */

static const char *const made[] = { "recipe.yaml", "checkpoint.bin", "adapter/adapter_config.json", "adapter/adapter_model.safetensors" };

/* One of the names above, or the part of one that was being written (base/file.c: NAME.tmp-PID). */
bool mx_is_own_name(const char *name) {
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        size_t n = strlen(made[i]);

        if (strncmp(name, made[i], n) == 0) {
            const char *rest = name + n;

            if (*rest == '\0' || (strncmp(rest, ".tmp-", 5) == 0 && rest[5] && rest[5 + strspn(rest + 5, "0123456789")] == '\0')) {
                return true;
            }
        }
    }
    return false;
}

static void found(mx_own_files *f, const char *name, int64_t bytes, mx_arena *arena) {
    enum { NAMES_MAX = 256 };

    if (!f->name) {
        f->name = MX_TAKE(arena, const char *, NAMES_MAX);
        f->bytes_of = MX_TAKE(arena, int64_t, NAMES_MAX);
    }
    if (f->count < NAMES_MAX) {
        f->name[f->count] = name;
        f->bytes_of[f->count++] = bytes;
        f->bytes += bytes;
    }
}

/* One level of the folder; `below` is "" or "adapter/". */
static void list_level(int folder, const char *below, mx_own_files *f, mx_arena *arena) {
    DIR *d = fdopendir(folder);
    const struct dirent *entry;

    while (d && (entry = readdir(d))) {
        const char *name = mx_arena_text(arena, "%s%s", below, entry->d_name);
        struct stat info;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        if (S_ISDIR(info.st_mode) && strcmp(name, "adapter") == 0) {
            int inner = openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

            if (inner >= 0) {
                list_level(inner, "adapter/", f, arena);
            }
        } else if (S_ISREG(info.st_mode) && mx_is_own_name(name)) {
            found(f, name, (int64_t)info.st_size, arena);
        } else if (!f->stranger) {
            f->stranger = name;
        }
    }
    if (d) {
        closedir(d);
    } else {
        close(folder);
    }
}

void mx_own_files_list(const char *path, mx_own_files *ret, mx_arena *arena) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (folder >= 0) {
        list_level(folder, "", ret, arena);
    }
}

/* Its recipe.yaml says what the database says, byte for byte. */
static bool has_recipe(const mx_run_row *run, mx_arena *arena) {
    const char *path = mx_arena_text(arena, "%s/recipe.yaml", run->folder);
    struct stat info;
    size_t size;
    char *text;
    bool same;

    if (lstat(path, &info) != 0 || !S_ISREG(info.st_mode) || mx_file_read(path, (size_t)1 << 20, &text, &size, NULL) != MX_OK) {
        return false;
    }
    same = size == strlen(run->recipe) && memcmp(text, run->recipe, size) == 0;
    free(text);
    return same;
}

static int by_place(const void *a, const void *b) {
    const mx_run_folder *x = a, *y = b;

    if (x->device != y->device) {
        return x->device < y->device ? -1 : 1;
    }
    if (x->inode != y->inode) {
        return x->inode < y->inode ? -1 : 1;
    }
    return (x->run_id > y->run_id) - (x->run_id < y->run_id);
}

mx_code mx_run_folders_read(mx_store *s, mx_arena *arena, mx_run_folders *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = (mx_run_folders){ 0 };
    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT run_id, folder, COUNT(*) OVER () FROM runs", ""));
    while (mx_sql_row(s, q, &code, st)) {
        struct stat info;

        if (!ret->at) {
            ret->at = MX_TAKE(arena, mx_run_folder, sqlite3_column_int64(q, 2));
        }
        if (stat(mx_sql_text(q, 1), &info) == 0) {
            ret->at[ret->count++] = (mx_run_folder){ info.st_dev, info.st_ino, sqlite3_column_int64(q, 0) };
        }
    }
    sqlite3_finalize(q);
    if (ret->count > 0) {
        qsort(ret->at, (size_t)ret->count, sizeof *ret->at, by_place);
    }
    return code;
}

bool mx_run_folders_hold(const mx_run_folders *f, const struct stat *info, int64_t but) {
    const mx_run_folder wanted = { info->st_dev, info->st_ino, INT64_MIN };
    int64_t low = 0, high = f->count;

    while (low < high) { /* the first that is not before it */
        int64_t middle = low + (high - low) / 2;

        if (by_place(&f->at[middle], &wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; low < f->count && f->at[low].device == info->st_dev && f->at[low].inode == info->st_ino; low++) {
        if (f->at[low].run_id != but) {
            return true;
        }
    }
    return false;
}

void mx_own_files_look(const mx_run_folders *all, const mx_run_row *run, mx_arena *arena, mx_own_files *ret) {
    struct stat info;

    *ret = (mx_own_files){ .folder = run->folder, .because = "" };
    if (!run->folder[0] || lstat(run->folder, &info) != 0) {
        ret->because = "there is no such folder from here";
    } else if (!S_ISDIR(info.st_mode)) {
        ret->because = "it is a link or a file, not the folder that was made";
    } else if (!has_recipe(run, arena)) {
        ret->because = "its recipe.yaml is not this run's";
    } else if (mx_run_folders_hold(all, &info, run->run_id)) {
        ret->because = "another run names the same folder";
    } else {
        ret->own = true;
        mx_own_files_list(run->folder, ret, arena);
    }
}

mx_code mx_own_files_find(mx_store *s, const mx_run_row *run, mx_arena *arena, mx_own_files *ret, mx_status *st) {
    mx_run_folders all;

    MX_TRY(mx_run_folders_read(s, arena, &all, st));
    mx_own_files_look(&all, run, arena, ret);
    return MX_OK;
}

/* ------------------------------------------------------------------------ taking away */

mx_code mx_own_files_remove(const mx_own_files *f, mx_status *st) {
    mx_mark at = { .file = f->folder };
    mx_code code = MX_OK;
    int folder, inner;

    if (!f->own) {
        return MX_OK;
    }
    folder = open(f->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) {
        return errno == ENOENT ? MX_OK : mx_fail(st, MX_E_IO, at, "cannot open: %s", strerror(errno));
    }
    inner = openat(folder, "adapter", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (int i = 0; i < f->count; i++) {
        bool below = strncmp(f->name[i], "adapter/", 8) == 0;

        if (unlinkat(below ? inner : folder, below ? f->name[i] + 8 : f->name[i], 0) != 0 && errno != ENOENT) {
            code = mx_fail(st, MX_E_IO, at, "cannot remove %s: %s", f->name[i], strerror(errno));
        }
    }
    if (inner >= 0) {
        close(inner);
    }
    unlinkat(folder, "adapter", AT_REMOVEDIR); /* stays where something else is in it */
    close(folder);
    rmdir(f->folder);
    return code;
}

mx_code mx_run_rows(mx_store *s, int64_t run_id, int64_t *ret, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = 0;
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "WITH e AS (SELECT evaluation_id FROM evaluations WHERE run_id = ?1),"
                          " w AS (SELECT window_id FROM router_windows WHERE run_id = ?1)"
                          " SELECT (SELECT COUNT(*) FROM runs WHERE run_id = ?1) + (SELECT COUNT(*) FROM words WHERE run_id = ?1)"
                          " + (SELECT COUNT(*) FROM data_files WHERE run_id = ?1) + (SELECT COUNT(*) FROM metrics WHERE run_id = ?1)"
                          " + (SELECT COUNT(*) FROM e) + (SELECT COUNT(*) FROM w)"
                          " + (SELECT COUNT(*) FROM scores WHERE evaluation_id IN e) + (SELECT COUNT(*) FROM predictions WHERE evaluation_id IN e)"
                          " + (SELECT COUNT(*) FROM outcomes WHERE evaluation_id IN e) + (SELECT COUNT(*) FROM router_loads WHERE window_id IN w)"
                          " + (SELECT COUNT(*) FROM router_tokens WHERE window_id IN w) + (SELECT COUNT(*) FROM router_pairs WHERE window_id IN w)",
                          "i", run_id));
    if (mx_sql_row(s, q, &code, st)) {
        *ret = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    return code;
}

/* Inside the transaction, so that nobody takes the run up meanwhile. */
static mx_code remove_rows(mx_store *s, const mx_run_row *run, mx_status *st) {
    mx_arena arena;
    mx_run_row now;
    mx_code code;

    mx_arena_init(&arena, (size_t)64 << 20);
    code = mx_store_run_find(s, run->uuid, &arena, &now, st);
    if (code == MX_OK && strcmp(now.state, "running") == 0 && !mx_run_is_dead(&now)) {
        code = mx_fail(st, MX_E_USAGE, MX_NOWHERE, "run %lld is running on %s as process %lld; nothing was removed", (long long)now.run_id,
                       now.host, (long long)now.pid);
    }
    if (code == MX_OK) {
        code = mx_sql_execute(s, st, "DELETE FROM runs WHERE run_id = ?", "i", now.run_id);
    }
    mx_arena_finish(&arena);
    return code;
}

mx_code mx_runs_remove(mx_store *s, const mx_run_row *run, const mx_own_files *files, int count, mx_status *st) {
    mx_code code = MX_OK;

    MX_TRY(mx_store_begin(s, st));
    for (int i = 0; code == MX_OK && i < count; i++) {
        code = remove_rows(s, &run[i], st);
    }
    if (code == MX_OK) {
        code = mx_store_commit(s, st);
    }
    if (code) {
        mx_store_rollback(s);
        return code;
    }
    for (int i = 0; i < count; i++) { /* one that cannot go keeps none of the others */
        mx_code one = mx_own_files_remove(&files[i], st);

        code = code ? code : one;
    }
    return code;
}
