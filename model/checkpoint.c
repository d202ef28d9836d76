/* checkpoint.c - see checkpoint.h.
 *
 * The file: "mixrunC1"; the JSON header's size (u64, little-endian) and text; the trainee's flat arrays (trained values, first
 * and second moments, frozen values, state), then the caller's parts, raw; at last the sha256 of all before as 64 hex digits.
 * It is written and read in pieces, so that saving needs no second copy of anything. */
#include "model/checkpoint.h"

#include "base/file.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char magic[8] = { 'm', 'i', 'x', 'r', 'u', 'n', 'C', '1' };
enum { PIECE = 4 << 20, HEADER_MAX = 1 << 20, ARRAYS = 5, MAGIC = sizeof magic };

/* One flat array on the device. */
typedef struct array {
    const char *name;
    float *data;
    size_t bytes;
} array;

static int arrays_of(const mx_trainee *t, array ret[ARRAYS]) {
    const mx_layout *l = t->adapter.layout;
    const struct {
        const char *name;
        float *data;
        mx_kind kind;
    } all[ARRAYS] = { { "trained", t->adapter.value[MX_KIND_TRAINED], MX_KIND_TRAINED },
                      { "m", t->m, MX_KIND_TRAINED },
                      { "v", t->v, MX_KIND_TRAINED },
                      { "frozen", t->adapter.value[MX_KIND_FROZEN], MX_KIND_FROZEN },
                      { "state", t->adapter.value[MX_KIND_STATE], MX_KIND_STATE } };
    int n = 0;

    for (int i = 0; i < ARRAYS; i++) {
        if (all[i].data && l->size[all[i].kind] > 0) {
            ret[n++] = (array){ all[i].name, all[i].data, sizeof(float) * (size_t)l->size[all[i].kind] };
        }
    }
    return n;
}

/* What tensors there are, in order: two layouts with the same digits hold the same flat arrays. */
static void layout_sha256(const mx_layout *l, char ret_hex[MX_SHA256_TEXT]) {
    mx_hasher *h = mx_hasher_open();

    for (size_t i = 0; i < l->count; i++) {
        const mx_declaration *d = &l->item[i];
        const int64_t numbers[] = { d->kind, d->scope, d->layer, d->site, d->role, d->parts, d->dim[0], d->dim[1], d->offset };

        mx_hasher_add(h, numbers, sizeof numbers);
    }
    mx_hasher_close(h, ret_hex);
}

static json_t *header_of(const mx_trainee *t, const char *identity, const mx_checkpoint_part *part, size_t parts) {
    char layout[MX_SHA256_TEXT];
    json_t *header = json_object(), *list = json_array();
    array a[ARRAYS];
    int n = arrays_of(t, a);

    layout_sha256(t->adapter.layout, layout);
    json_object_set_new(header, "identity", json_string(identity));
    json_object_set_new(header, "method", json_string(t->adapter.layout->method->name));
    json_object_set_new(header, "layout", json_string(layout));
    json_object_set_new(header, "seed", json_sprintf("%llu", (unsigned long long)t->seed));
    json_object_set_new(header, "step", json_integer(t->step));
    for (int i = 0; i < n; i++) {
        json_array_append_new(list, json_pack("[s, I]", a[i].name, (json_int_t)a[i].bytes));
    }
    for (size_t i = 0; i < parts; i++) {
        json_array_append_new(list, json_pack("[s, I]", part[i].name, (json_int_t)part[i].size));
    }
    json_object_set_new(header, "parts", list);
    return header;
}

/* ------------------------------------------------------------------ writing */

typedef struct writer {
    FILE *file;
    const char *path;
    mx_hasher *hash;
    mx_status *st;
} writer;

static mx_code put(writer *w, const void *data, size_t size) {
    if (size > 0 && fwrite(data, 1, size, w->file) != size) {
        return mx_fail(w->st, MX_E_IO, MX_NOWHERE, "writing %s: %s", w->path, strerror(errno));
    }
    mx_hasher_add(w->hash, data, size);
    return MX_OK;
}

static mx_code put_device(writer *w, mx_backend *b, const array *a, void *piece) {
    for (size_t at = 0; at < a->bytes; at += PIECE) {
        size_t n = a->bytes - at < PIECE ? a->bytes - at : PIECE;

        b->read(b, piece, (const char *)a->data + at, n);
        MX_TRY(put(w, piece, n));
    }
    return MX_OK;
}

static mx_code put_all(writer *w, const mx_trainee *t, const char *identity, const mx_checkpoint_part *part, size_t parts,
                       void *piece) {
    json_t *header = header_of(t, identity, part, parts);
    char *text = json_dumps(header, JSON_COMPACT), digits[MX_SHA256_TEXT];
    uint64_t size = text ? strlen(text) : 0;
    array a[ARRAYS];
    int n = arrays_of(t, a);
    mx_code code = text ? MX_OK : mx_fail(w->st, MX_E_MEMORY, MX_NOWHERE, "no memory for the header of %s", w->path);

    json_decref(header);
    code = code ? code : put(w, magic, sizeof magic);
    code = code ? code : put(w, &size, sizeof size);
    code = code ? code : put(w, text, size);
    free(text);
    for (int i = 0; i < n && code == MX_OK; i++) {
        code = put_device(w, t->adapter.backend, &a[i], piece);
    }
    for (size_t i = 0; i < parts && code == MX_OK; i++) {
        code = put(w, part[i].data, part[i].size);
    }
    mx_hasher_close(w->hash, digits);
    w->hash = NULL;
    if (code == MX_OK && (fwrite(digits, 1, MX_SHA256_TEXT - 1, w->file) != MX_SHA256_TEXT - 1 || fflush(w->file) != 0 ||
                          fsync(fileno(w->file)) != 0)) {
        code = mx_fail(w->st, MX_E_IO, MX_NOWHERE, "writing %s: %s", w->path, strerror(errno));
    }
    return code;
}

static void sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY) : -1;

    if (fd >= 0) {
        (void)!fsync(fd);
        close(fd);
    }
    free(folder);
}

mx_code mx_checkpoint_save(const char *path, const mx_trainee *t, const char *identity, const mx_checkpoint_part *part,
                           size_t parts, mx_status *st) {
    char *beside = NULL;
    void *piece = malloc(PIECE);
    writer w = { .path = path, .st = st };
    mx_code code;

    if (!piece || asprintf(&beside, "%s.tmp-%d", path, (int)getpid()) < 0) {
        free(piece);
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory to write %s", path);
    }
    w.file = fopen(beside, "wb");
    if (!w.file) {
        code = mx_fail(st, MX_E_IO, MX_NOWHERE, "cannot write %s: %s", beside, strerror(errno));
        goto done;
    }
    w.hash = mx_hasher_open();
    code = put_all(&w, t, identity, part, parts, piece);
    if (fclose(w.file) != 0 && code == MX_OK) {
        code = mx_fail(st, MX_E_IO, MX_NOWHERE, "writing %s: %s", path, strerror(errno));
    }
    if (code == MX_OK && rename(beside, path) != 0) {
        code = mx_fail(st, MX_E_IO, MX_NOWHERE, "cannot replace %s: %s", path, strerror(errno));
    }
    if (code) {
        unlink(beside);
    } else {
        sync_folder(path);
    }
done:
    free(beside);
    free(piece);
    return code;
}

/* ------------------------------------------------------------------ reading */

/* A mapped file, taken apart as far as the header. */
typedef struct opened {
    mx_map map;
    json_t *header;
    size_t body, end; /* of the arrays and parts; the digits follow */
} opened;

static mx_code broken(const char *path, const char *what, mx_status *st) {
    return mx_fail(st, MX_E_DATA, MX_NOWHERE, "%s: %s: this checkpoint cannot be gone on from", path, what);
}

static mx_code open_file(const char *path, opened *o, mx_status *st) {
    const size_t least = MAGIC + sizeof(uint64_t) + MX_SHA256_TEXT - 1;
    uint64_t size;

    *o = (opened){ 0 };
    MX_TRY(mx_map_open(path, &o->map, st));
    if (o->map.size < least || memcmp(o->map.data, magic, sizeof magic) != 0) {
        return broken(path, "not a checkpoint, or cut short", st);
    }
    memcpy(&size, o->map.data + MAGIC, sizeof size);
    if (size > HEADER_MAX || size > o->map.size - least) {
        return broken(path, "the header's size is wrong", st);
    }
    o->body = MAGIC + sizeof size + (size_t)size;
    o->end = o->map.size - (MX_SHA256_TEXT - 1);
    return mx_json_parse((const char *)o->map.data + MAGIC + sizeof size, (size_t)size, path, 1, &o->header, st);
}

static void close_file(opened *o) {
    json_decref(o->header);
    mx_map_close(&o->map);
}

/* Hashed in the pieces it was written in: header fields, each array by PIECE, each part whole. */
static mx_code check_digits(const opened *o, const char *path, const json_t *list, size_t device_arrays, mx_status *st) {
    mx_hasher *h = mx_hasher_open();
    char digits[MX_SHA256_TEXT];
    const uint8_t *data = o->map.data;
    size_t at = o->body;

    mx_hasher_add(h, data, MAGIC);
    mx_hasher_add(h, data + MAGIC, sizeof(uint64_t));
    mx_hasher_add(h, data + MAGIC + sizeof(uint64_t), o->body - MAGIC - sizeof(uint64_t));
    for (size_t i = 0; i < json_array_size(list); i++) {
        size_t left = (size_t)json_integer_value(json_array_get(json_array_get(list, i), 1));

        if (i >= device_arrays) {
            mx_hasher_add(h, data + at, left);
            at += left;
            continue;
        }
        while (left > 0) {
            size_t n = left < PIECE ? left : PIECE;

            mx_hasher_add(h, data + at, n);
            at += n;
            left -= n;
        }
    }
    mx_hasher_close(h, digits);
    if (memcmp(digits, data + o->end, MX_SHA256_TEXT - 1) != 0) {
        return broken(path, "its contents do not match its sha256", st);
    }
    return MX_OK;
}

/* The header must be the one we would write now, but for the step. */
static mx_code check_header(const opened *o, const char *path, const json_t *expected, mx_status *st) {
    static const struct {
        const char *word, *what;
    } same[] = { { "identity", "it belongs to another run" }, { "method", "it is of another method" },
                 { "layout", "its tensors are others" }, { "parts", "its parts are others" } };
    const json_t *list = json_object_get(o->header, "parts");
    size_t sum = 0;

    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (!json_equal(json_object_get(o->header, same[i].word), json_object_get(expected, same[i].word))) {
            return broken(path, same[i].what, st);
        }
    }
    for (size_t i = 0; i < json_array_size(list); i++) { /* sizes are those of `expected`: no overflow to fear */
        sum += (size_t)json_integer_value(json_array_get(json_array_get(list, i), 1));
    }
    if (sum != o->end - o->body || !json_is_integer(json_object_get(o->header, "step")) ||
        json_integer_value(json_object_get(o->header, "step")) < 0 || !json_is_string(json_object_get(o->header, "seed"))) {
        return broken(path, "it is cut short or its header is wrong", st);
    }
    return MX_OK;
}

mx_code mx_checkpoint_load(const char *path, mx_trainee *t, const char *identity, const mx_checkpoint_part *part, size_t parts,
                           mx_status *st) {
    json_t *expected = header_of(t, identity, part, parts);
    mx_backend *b = t->adapter.backend;
    array a[ARRAYS];
    int n = arrays_of(t, a);
    opened o;
    size_t at;
    mx_code code = open_file(path, &o, st);

    if (code || (code = check_header(&o, path, expected, st)) ||
        (code = check_digits(&o, path, json_object_get(o.header, "parts"), (size_t)n, st))) {
        goto done;
    }
    at = o.body;
    for (int i = 0; i < n; i++) {
        b->write(b, a[i].data, o.map.data + at, a[i].bytes);
        at += a[i].bytes;
    }
    for (size_t i = 0; i < parts; i++) {
        memcpy(part[i].data, o.map.data + at, part[i].size);
        at += part[i].size;
    }
    if (t->numbers) {
        b->zero(b, t->numbers, sizeof *t->numbers);
    }
    t->step = json_integer_value(json_object_get(o.header, "step"));
    t->seed = strtoull(json_string_value(json_object_get(o.header, "seed")), NULL, 10);
    t->adapter.stale = true;
done:
    json_decref(expected);
    close_file(&o);
    return code;
}

mx_code mx_checkpoint_step(const char *path, int64_t *ret_step, mx_status *st) {
    opened o;
    mx_code code = open_file(path, &o, st);

    if (code == MX_OK && !json_is_integer(json_object_get(o.header, "step"))) {
        code = broken(path, "its header is wrong", st);
    }
    if (code == MX_OK) {
        *ret_step = json_integer_value(json_object_get(o.header, "step"));
    }
    close_file(&o);
    return code;
}
