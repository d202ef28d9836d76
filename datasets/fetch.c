/* fetch.c - a task's official files: what is there, what must come, what may be put in place. */
#include "datasets/fetch.h"

#include "datasets/download.h"
#include "datasets/jsonl.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct errand {
    const mx_task *task;
    const mx_fetch_options *o;
    const char *folder;
    mx_arena *arena;
} errand;

/* An archive keeps its own name, and a piece of its URL's hash so that two of one name do not meet. */
static const char *archive_path(const errand *e, const char *url)
{
    char hex[MX_SHA256_TEXT];
    const char *name = strrchr(url, '/') + 1; /* an http URL has slashes */
    size_t length = strcspn(name, "?#");

    mx_sha256(url, strlen(url), hex);
    return mx_arena_text(e->arena, "%s/%.8s-%.*s", e->folder, hex, length < 100 ? (int)length : 100, name);
}

static bool wanted_hash(const mx_task_file *file, const char *sha256)
{
    return !file->sha256 || strcmp(file->sha256, sha256) == 0;
}

/* True when the file lies there already, and is what it should be. */
static mx_code present(const errand *e, const mx_task_file *file, mx_fetched *ret, bool *found, mx_status *st)
{
    static const char *const ending[] = { "", ".gz" };

    *found = false;
    for (int i = 0; i < 2 && !*found && !e->o->again; i++) {
        const char *path = mx_arena_text(e->arena, "%s/%s%s", e->folder, file->name, ending[i]);
        char *data;
        size_t size;

        if (!mx_file_exists(path)) {
            continue;
        }
        MX_TRY(mx_file_read(path, MX_DATA_FILE_MAX, &data, &size, st));
        *ret = (mx_fetched){ .name = file->name, .path = path, .bytes = (int64_t)size, .state = MX_FETCHED_PRESENT,
                             .verified = file->sha256 != NULL };
        mx_sha256(data, size, ret->sha256);
        free(data);
        *found = wanted_hash(file, ret->sha256);
    }
    return MX_OK;
}

/* Checks the bytes against the YAML and moves them into place. */
static mx_code place(const errand *e, const mx_task_file *file, const char *url, const char *data, size_t size,
                     mx_fetched *ret, mx_status *st)
{
    const char *path = mx_arena_text(e->arena, "%s/%s", e->folder, file->name);

    *ret = (mx_fetched){ .name = file->name, .path = path, .bytes = (int64_t)size, .state = MX_FETCHED_NEW,
                         .verified = file->sha256 != NULL };
    mx_sha256(data, size, ret->sha256);
    if (!wanted_hash(file, ret->sha256)) {
        return mx_fail(st, MX_E_DATA, MX_NOWHERE,
                       "%s from %s has the sha256\n%s, and should have\n%s: it was not put in place", file->name, url,
                       ret->sha256, file->sha256);
    }
    return mx_file_write(path, data, size, st);
}

static mx_code from_url(const errand *e, const mx_task_file *file, const char *url, mx_fetched *ret, mx_status *st)
{
    const char *got = file->member ? archive_path(e, url) : mx_arena_text(e->arena, "%s/%s.download", e->folder, file->name);
    char *data = NULL;
    size_t size;
    mx_code code;

    if (!mx_file_exists(got)) {
        MX_TRY(mx_download(url, got, file->name, e->o, st));
    }
    code = file->member ? mx_unzip(got, file->member, MX_DATA_FILE_MAX, &data, &size, st)
                        : mx_file_read(got, MX_DATA_FILE_MAX, &data, &size, st);
    if (!code) {
        code = place(e, file, url, data, size, ret, st);
    }
    free(data);
    if (code == MX_E_DATA || (!code && !file->member)) {
        unlink(got); /* a broken one must not be built upon; an archive may hold the next file as well */
    }
    return code;
}

static mx_code fetch_file(const errand *e, const mx_task_file *file, mx_fetched *ret, mx_status *st)
{
    mx_code code = MX_OK;
    bool found;

    MX_TRY(present(e, file, ret, &found, st));
    if (found) {
        return MX_OK;
    }
    if (file->urls.count == 0) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = e->task->path },
                       "no official place is known for %s of task '%s': put it into %s", file->name, e->task->name, e->folder);
    }
    for (size_t i = 0; i < file->urls.count; i++) {
        mx_status here = { 0 };

        code = from_url(e, file, file->urls.item[i], ret, &here);
        if (!code || code == MX_E_STOPPED || i + 1 == file->urls.count) {
            if (code && st && !st->code) {
                *st = here;
            }
            break;
        }
    }
    return code;
}

/* Archives are of no use once every file is out. */
static void remove_archives(const errand *e)
{
    const mx_task_file *file = e->task->files.item;

    for (size_t i = 0; i < e->task->files.count; i++) {
        for (size_t k = 0; file[i].member && k < file[i].urls.count; k++) {
            unlink(archive_path(e, file[i].urls.item[k]));
        }
    }
}

mx_code mx_fetch_task(const mx_task *task, const mx_fetch_options *o, mx_arena *arena, mx_fetch_report *ret, mx_status *st)
{
    const mx_task_file *file = task->files.item;
    errand e = { task, o, o->folder, arena };
    size_t places = 0;

    *ret = (mx_fetch_report){ .file = MX_TAKE(arena, mx_fetched, task->files.count + 1) };
    for (size_t i = 0; i < task->files.count; i++) {
        places += file[i].urls.count;
    }
    if (places == 0) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = task->path }, "task '%s' has no official place to fetch from",
                       task->name);
    }
    if (!e.folder) {
        e.folder = mx_arena_text(arena, "%s/data/%s", mx_path_cache(arena), task->name);
    }
    MX_TRY(mx_folder_make(e.folder, st));
    for (size_t i = 0; i < task->files.count; i++) {
        MX_TRY(fetch_file(&e, &file[i], &ret->file[ret->count], st));
        ret->count++;
    }
    remove_archives(&e);
    return MX_OK;
}
