/* adapter_file.c - saved adapters: names, the folder's atomic replacement, checked reading. */
#include "model/adapter_file.h"

#include "base/file.h"
#include "base/text.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char CONFIG[] = "adapter_config.json", VALUES[] = "adapter_model.safetensors";
enum { CONFIG_MAX = 16 << 20, PATHS_MAX = 1 << 20 };

const char *mx_adapter_name(mx_arena *arena, mx_adapter_layout layout, int64_t layer, const char *module,
                            int64_t expert, const char *part) {
    const char *before = layout == MX_LAYOUT_PEFT ? "base_model.model.model" : "mixlora";

    assert(expert < 0 || layout == MX_LAYOUT_MIXLORA);
    if (expert < 0) {
        return mx_arena_text(arena, "%s.layers.%d.%s.%s", before, (int)layer, module, part);
    }
    return mx_arena_text(arena, "%s.layers.%d.%s.experts.%d.%s", before, (int)layer, module, (int)expert, part);
}

/* ---- saving ---------------------------------------------------------------------------------------------- */

static bool is_ours(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, CONFIG) == 0 || strcmp(name, VALUES) == 0;
}

static mx_code io_error(const char *path, const char *what, mx_status *st) {
    return mx_fail(st, MX_E_IO, MX_NOWHERE, "%s: %s: %s", path, what, strerror(errno));
}

mx_code mx_adapter_check_folder(const char *folder, mx_status *st) {
    DIR *d = opendir(folder);
    const struct dirent *entry;
    mx_code code = MX_OK;

    if (!d) {
        return errno == ENOENT ? MX_OK : io_error(folder, "cannot hold an adapter", st);
    }
    while (!code && (entry = readdir(d))) {
        if (!is_ours(entry->d_name)) {
            code = mx_fail(st, MX_E_IO, MX_NOWHERE, "%s: holds '%s', which is no part of an adapter, so it is not "
                           "replaced; save to a folder of its own", folder, entry->d_name);
        }
    }
    closedir(d);
    return code;
}

static mx_code write_config(const char *path, const json_t *config, mx_status *st) {
    char *text = json_dumps(config, JSON_INDENT(2));
    mx_code code;

    if (!text) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "%s: no memory to write it", path);
    }
    code = mx_file_write(path, text, strlen(text), st);
    free(text);
    return code;
}

static mx_code sync_folder(const char *path, mx_status *st) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mx_code code = fd < 0 || fsync(fd) ? io_error(path, "cannot be made durable", st) : MX_OK;

    if (fd >= 0) {
        close(fd);
    }
    return code;
}

/* `made` becomes `folder`. An earlier adapter there is exchanged in one call and then removed; only on a file system
 * that cannot exchange (NFS) it is moved aside first, and a crash between the two calls leaves it as folder.old-PID. */
static mx_code put_in_place(const char *made, const char *folder, const char *aside, mx_status *st) {
    if (renameat2(AT_FDCWD, made, AT_FDCWD, folder, RENAME_NOREPLACE) == 0) {
        return MX_OK;
    }
    if (errno == EEXIST) {
        if (renameat2(AT_FDCWD, made, AT_FDCWD, folder, RENAME_EXCHANGE) == 0) {
            return mx_folder_remove(made, st);
        }
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return io_error(folder, "cannot be replaced", st);
    }
    if (rename(folder, aside) != 0 && errno != ENOENT) {
        return io_error(folder, "cannot be moved aside", st);
    }
    if (rename(made, folder) != 0) {
        return io_error(folder, "cannot be put in place", st);
    }
    return mx_folder_remove(aside, st);
}

static mx_code save(mx_arena *paths, const char *folder, const mx_named_values *values, size_t count,
                    const json_t *config, mx_status *st) {
    const char *made = mx_arena_text(paths, "%s.tmp-%d", folder, (int)getpid());
    const char *aside = mx_arena_text(paths, "%s.old-%d", folder, (int)getpid());
    mx_code code;

    MX_TRY(mx_adapter_check_folder(folder, st));
    MX_TRY(mx_folder_remove(made, st)); /* of a process that died and had our number */
    MX_TRY(mx_folder_make(made, st));
    code = mx_safetensors_write(mx_arena_text(paths, "%s/%s", made, VALUES), values, count, NULL, st);
    code = code ? code : write_config(mx_arena_text(paths, "%s/%s", made, CONFIG), config, st);
    code = code ? code : sync_folder(made, st);
    code = code ? code : put_in_place(made, folder, aside, st);
    if (code) {
        mx_status also = { 0 }; /* the first failure is what is told */

        return mx_folder_remove(made, &also) == MX_OK ? code : mx_fail(st, code, also.at, "%s", also.text);
    }
    return sync_folder(dirname(mx_arena_copy(paths, folder, strlen(folder))), st);
}

mx_code mx_adapter_save(const char *folder, const mx_named_values *values, size_t count, const json_t *config,
                        mx_status *st) {
    size_t length = strlen(folder);
    mx_status said = { 0 };
    mx_arena paths;
    mx_code code;

    while (length > 1 && folder[length - 1] == '/') {
        length--; /* or the folder beside would be one inside */
    }
    mx_arena_init(&paths, PATHS_MAX);
    code = save(&paths, mx_arena_copy(&paths, folder, length), values, count, config, &said);
    if (code) {
        /* The marks' paths end here with their arena, so the failure is told in words. */
        code = mx_fail(st, code, MX_NOWHERE, "%s%s%s", said.at.file ? said.at.file : "", said.at.file ? ": " : "",
                       said.text);
    }
    mx_arena_finish(&paths);
    return code;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

struct mx_adapter_file {
    const char *config_path, *values_path;
    json_t *config;
    mx_safetensors *values;
    bool *was_read; /* by index in `values` */
};

static mx_code find_files(const char *folder, const mx_adapter_file *f, mx_arena *arena, mx_status *st) {
    if (!mx_folder_exists(folder)) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = mx_arena_text(arena, "%s", folder) },
                       "there is no such folder; an adapter is a folder with %s and %s", CONFIG, VALUES);
    }
    if (!mx_file_exists(f->values_path) &&
        mx_file_exists(mx_arena_text(arena, "%s/adapter_model.bin", folder))) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = mx_arena_text(arena, "%s", folder) },
                       "adapter_model.bin is a Python pickle and is not read; save the adapter as %s", VALUES);
    }
    for (int i = 0; i < 2; i++) {
        if (!mx_file_exists(i ? f->values_path : f->config_path)) {
            return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = mx_arena_text(arena, "%s", folder) },
                           "is no adapter: it has no %s", i ? VALUES : CONFIG);
        }
    }
    return MX_OK;
}

mx_code mx_adapter_open(const char *folder, mx_arena *arena, mx_adapter_file **ret, mx_status *st) {
    mx_adapter_file *f = calloc(1, sizeof *f);
    mx_code code = MX_OK;

    *ret = NULL;
    if (!f) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "%s: no memory to open it", folder);
    }
    f->config_path = mx_arena_text(arena, "%s/%s", folder, CONFIG);
    f->values_path = mx_arena_text(arena, "%s/%s", folder, VALUES);
    code = find_files(folder, f, arena, st);
    code = code ? code : mx_json_read(f->config_path, CONFIG_MAX, &f->config, st);
    if (!code && !json_is_object(f->config)) {
        code = mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->config_path }, "is not a JSON map");
    }
    code = code ? code : mx_safetensors_open(f->values_path, &f->values, st);
    if (code) {
        goto done;
    }
    f->was_read = calloc(mx_safetensors_count(f->values) + 1, sizeof *f->was_read);
    if (!f->was_read) {
        code = mx_fail(st, MX_E_MEMORY, (mx_mark){ .file = f->values_path }, "no memory to open it");
        goto done;
    }
    *ret = f;
    f = NULL;
done:
    mx_adapter_close(f);
    return code;
}

void mx_adapter_close(mx_adapter_file *f) {
    if (f) {
        free(f->was_read);
        mx_safetensors_close(f->values);
        json_decref(f->config);
        free(f);
    }
}

const json_t *mx_adapter_config(const mx_adapter_file *f) {
    return f->config;
}

const char *mx_adapter_config_path(const mx_adapter_file *f) {
    return f->config_path;
}

const char *mx_adapter_values_path(const mx_adapter_file *f) {
    return f->values_path;
}

/* "16 x 576"; "a single value" for rank 0. */
static void shape_text(int rank, const int64_t *dim, mx_text *out) {
    for (int i = 0; i < rank; i++) {
        mx_text_print(out, "%s%s", i ? " x " : "", mx_text_count(dim[i]));
    }
    if (!rank) {
        mx_text_print(out, "a single value");
    }
}

static mx_code check_shape(const mx_adapter_file *f, const mx_safetensor *t, int rank, const int64_t *dim,
                           mx_status *st) {
    bool same = t->rank == rank;
    mx_text has, wants;
    mx_code code;

    for (int i = 0; same && i < rank; i++) {
        same = t->dim[i] == dim[i];
    }
    if (same) {
        return MX_OK;
    }
    mx_text_init(&has, 1024);
    mx_text_init(&wants, 1024);
    shape_text(t->rank, t->dim, &has);
    shape_text(rank, dim, &wants);
    code = mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->values_path }, "tensor '%s' is %s; this adapter's is %s",
                   t->name, has.data, wants.data);
    mx_text_finish(&has);
    mx_text_finish(&wants);
    return code;
}

mx_code mx_adapter_read(mx_adapter_file *f, const char *name, int rank, const int64_t *dim, float *to, mx_status *st) {
    const mx_safetensor *t = mx_safetensors_find(f->values, name);
    int64_t n;

    if (!t) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->values_path }, "tensor '%s' is missing", name);
    }
    if (t->type == MX_FILE_TYPES) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->values_path },
                       "tensor '%s' is stored as %s; can be read: F32, F16, BF16", name, t->dtype);
    }
    MX_TRY(check_shape(f, t, rank, dim, st));
    n = (int64_t)(t->size / mx_file_type_row_bytes(t->type, 1));
    if (n) {
        mx_file_type_decode(t->type, t->bytes, n, to);
    }
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(to[i])) {
            return mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->values_path },
                           "tensor '%s' holds a value that is not finite, number %s", name, mx_text_count(i));
        }
    }
    f->was_read[t - mx_safetensors_at(f->values, 0)] = true;
    return MX_OK;
}

mx_code mx_adapter_check_all_read(const mx_adapter_file *f, mx_status *st) {
    for (size_t i = 0; i < mx_safetensors_count(f->values); i++) {
        if (!f->was_read[i]) {
            return mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->values_path },
                           "tensor '%s' has no place in this adapter", mx_safetensors_at(f->values, i)->name);
        }
    }
    return MX_OK;
}
