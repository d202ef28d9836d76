/* safetensors.c - a JSON header and the bytes after it, read and written.
 *
 *     u64 length of the header | header, spaces to pad | tensors' bytes, end to end
 *
 * The reader's rules are those of the format's own library (safetensors/src/tensor.rs, "validate"). */
#include "model/safetensors.h"

#include "base/file.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are read and written as they lie in memory");

enum {
    LENGTH_BYTES = 8,
    HEADER_MAX = 100000000, /* the format's own limit */
    TENSORS_MAX = 1 << 18,
};

struct mx_safetensors {
    mx_map map;
    bool borrowed; /* the bytes are somebody else's */
    const char *path;
    json_t *header; /* names and dtypes are its */
    mx_safetensor *tensor; /* by offset */
    const mx_safetensor **by_name;
    size_t count;
};

#define REFUSE(s, st, ...) mx_fail((st), MX_E_DATA, (mx_mark){ .file = (s)->path }, __VA_ARGS__)

static const struct {
    const char *name;
    size_t bytes;
    mx_file_type type;
} DTYPE[] = {
    { "F32", 4, MX_FILE_F32 },       { "F16", 2, MX_FILE_F16 },       { "BF16", 2, MX_FILE_BF16 },
    { "F64", 8, MX_FILE_TYPES },     { "I64", 8, MX_FILE_TYPES },     { "U64", 8, MX_FILE_TYPES },
    { "I32", 4, MX_FILE_TYPES },     { "U32", 4, MX_FILE_TYPES },     { "I16", 2, MX_FILE_TYPES },
    { "U16", 2, MX_FILE_TYPES },     { "I8", 1, MX_FILE_TYPES },      { "U8", 1, MX_FILE_TYPES },
    { "BOOL", 1, MX_FILE_TYPES },    { "F8_E4M3", 1, MX_FILE_TYPES }, { "F8_E5M2", 1, MX_FILE_TYPES },
    { "F8_E8M0", 1, MX_FILE_TYPES }, { "C64", 8, MX_FILE_TYPES },
};

/* ---- reading --------------------------------------------------------------------------------------------- */

/* *bytes comes with the type's and leaves with the whole tensor's. */
static mx_code read_shape(const mx_safetensors *s, const json_t *shape, mx_safetensor *t, size_t *bytes,
                          mx_status *st) {
    size_t i;
    const json_t *dim;

    if (!json_is_array(shape) || json_array_size(shape) > MX_SAFETENSORS_DIMS) {
        return REFUSE(s, st, "tensor '%s' has no shape of at most %d dimensions", t->name, MX_SAFETENSORS_DIMS);
    }
    json_array_foreach(shape, i, dim) {
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return REFUSE(s, st, "tensor '%s' has a dimension that is no size", t->name);
        }
        t->dim[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(*bytes, (size_t)t->dim[i], bytes)) {
            return REFUSE(s, st, "tensor '%s' has more values than a file can hold", t->name);
        }
    }
    t->rank = (int)json_array_size(shape);
    return MX_OK;
}

/* `data` is the part of the file after the header, `size` its bytes. */
static mx_code read_place(const mx_safetensors *s, const json_t *offsets, mx_safetensor *t, const uint8_t *data,
                          size_t size, size_t bytes, mx_status *st) {
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    uint64_t begin, end;

    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
        json_integer_value(from) < 0 || json_integer_value(to) < json_integer_value(from)) {
        return REFUSE(s, st, "tensor '%s' has no \"data_offsets\": [begin, end]", t->name);
    }
    begin = (uint64_t)json_integer_value(from);
    end = (uint64_t)json_integer_value(to);
    if (end > size) {
        return REFUSE(s, st, "tensor '%s' ends at byte %s, the file has %s: is the download complete?", t->name,
                      end > INT64_MAX / 2 ? "9,223,372,036,854,775,807" :
                      mx_text_count((int64_t)end + (data - s->map.data)),
                      mx_text_count((int64_t)size + (data - s->map.data)));
    }
    if (end - begin != bytes) {
        return REFUSE(s, st, "tensor '%s' takes %s bytes, its shape and type %s", t->name,
                      mx_text_count((int64_t)(end - begin)), mx_text_count((int64_t)bytes));
    }
    t->bytes = data + begin;
    t->size = (size_t)(end - begin);
    return MX_OK;
}

static mx_code read_tensor(const mx_safetensors *s, const json_t *entry, mx_safetensor *t, const uint8_t *data,
                           size_t size, mx_status *st) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    size_t bytes = 0;

    if (!json_is_object(entry) || !dtype) {
        return REFUSE(s, st, "tensor '%s' has no dtype", t->name);
    }
    for (size_t i = 0; i < sizeof DTYPE / sizeof *DTYPE && !bytes; i++) {
        if (strcmp(dtype, DTYPE[i].name) == 0) {
            bytes = DTYPE[i].bytes;
            t->type = DTYPE[i].type;
            t->dtype = DTYPE[i].name;
        }
    }
    if (!bytes) {
        return REFUSE(s, st, "tensor '%s' is of the unknown type '%s'", t->name, dtype);
    }
    MX_TRY(read_shape(s, json_object_get(entry, "shape"), t, &bytes, st));
    return read_place(s, json_object_get(entry, "data_offsets"), t, data, size, bytes, st);
}

/* Empty tensors sort before the one that begins where they stand. */
static int compare_places(const void *a, const void *b) {
    const mx_safetensor *x = a, *y = b;
    int order = (x->bytes > y->bytes) - (x->bytes < y->bytes);

    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const mx_safetensor *const *)a)->name, (*(const mx_safetensor *const *)b)->name);
}

static mx_code check_cover(const mx_safetensors *s, const uint8_t *data, size_t size, mx_status *st) {
    const uint8_t *at = data;

    for (size_t i = 0; i < s->count; i++) {
        const mx_safetensor *t = &s->tensor[i];

        if ((const uint8_t *)t->bytes < at) {
            return REFUSE(s, st, "tensors '%s' and '%s' overlap", s->tensor[i - 1].name, t->name);
        }
        if ((const uint8_t *)t->bytes > at) {
            return REFUSE(s, st, "%s bytes before tensor '%s' belong to none",
                          mx_text_count((const uint8_t *)t->bytes - at), t->name);
        }
        at += t->size;
    }
    if (at != data + size) {
        return REFUSE(s, st, "%s bytes at the end belong to no tensor", mx_text_count(data + size - at));
    }
    return MX_OK;
}

static mx_code read_tensors(mx_safetensors *s, const uint8_t *data, size_t size, mx_status *st) {
    size_t entries = json_object_size(s->header);
    const char *name;
    json_t *entry;

    if (entries > TENSORS_MAX) {
        return REFUSE(s, st, "has %s tensors; at most %s can be right", mx_text_count((int64_t)entries),
                      mx_text_count(TENSORS_MAX));
    }
    s->tensor = calloc(entries + 1, sizeof *s->tensor);
    s->by_name = calloc(entries + 1, sizeof *s->by_name);
    if (!s->tensor || !s->by_name) {
        return mx_fail(st, MX_E_MEMORY, (mx_mark){ .file = s->path }, "no memory for its list of tensors");
    }
    json_object_foreach(s->header, name, entry) {
        if (strcmp(name, "__metadata__") != 0) {
            mx_safetensor *t = &s->tensor[s->count++];

            t->name = name;
            MX_TRY(read_tensor(s, entry, t, data, size, st));
        }
    }
    qsort(s->tensor, s->count, sizeof *s->tensor, compare_places);
    for (size_t i = 0; i < s->count; i++) {
        s->by_name[i] = &s->tensor[i];
    }
    qsort(s->by_name, s->count, sizeof *s->by_name, compare_names);
    return check_cover(s, data, size, st);
}

static mx_code check_metadata(const mx_safetensors *s, mx_status *st) {
    json_t *metadata = json_object_get(s->header, "__metadata__"), *text;
    const char *key;

    if (metadata && !json_is_object(metadata)) {
        return REFUSE(s, st, "\"__metadata__\" is not a map");
    }
    json_object_foreach(metadata, key, text) {
        if (!json_is_string(text)) {
            return REFUSE(s, st, "\"__metadata__\" has a value that is not a text");
        }
    }
    return MX_OK;
}

static mx_code read_file(mx_safetensors *s, mx_status *st) {
    uint64_t length = 0;
    const uint8_t *header = s->map.data + LENGTH_BYTES;
    mx_status json = { 0 };

    if (s->map.size < LENGTH_BYTES) {
        return REFUSE(s, st, "is too short to be a safetensors file");
    }
    memcpy(&length, s->map.data, LENGTH_BYTES);
    if (length > HEADER_MAX) {
        return REFUSE(s, st, "is not a safetensors file: its header would be longer than %s bytes",
                      mx_text_count(HEADER_MAX));
    }
    if (length > s->map.size - LENGTH_BYTES) {
        return REFUSE(s, st, "the header ends at byte %s, the file has %s: is the download complete?",
                      mx_text_count((int64_t)length + LENGTH_BYTES), mx_text_count((int64_t)s->map.size));
    }
    if (length < 2 || header[0] != '{') {
        return REFUSE(s, st, "is not a safetensors file: its header does not begin with '{'");
    }
    /* Not passed on as it is: a line and a caret into a header among bytes help nobody. */
    if (mx_json_parse((const char *)header, (size_t)length, s->path, 1, &s->header, &json)) {
        return REFUSE(s, st, "the header is broken at byte %u: %s", json.at.column - 1 + LENGTH_BYTES, json.text);
    }
    if (!json_is_object(s->header)) {
        return REFUSE(s, st, "the header is not a JSON map");
    }
    MX_TRY(check_metadata(s, st));
    return read_tensors(s, header + length, s->map.size - LENGTH_BYTES - (size_t)length, st);
}

mx_code mx_safetensors_parse(const void *bytes, size_t size, const char *path, mx_safetensors **ret, mx_status *st) {
    mx_safetensors *s = calloc(1, sizeof *s);
    mx_code code;

    *ret = NULL;
    if (!s) {
        return mx_fail(st, MX_E_MEMORY, (mx_mark){ .file = path }, "no memory to read it");
    }
    s->path = path;
    s->map = (mx_map){ .data = bytes, .size = size };
    code = read_file(s, st);
    s->borrowed = true;
    if (code) {
        mx_safetensors_close(s);
        return code;
    }
    *ret = s;
    return MX_OK;
}

mx_code mx_safetensors_open(const char *path, mx_safetensors **ret, mx_status *st) {
    mx_map map = { 0 };
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_map_open(path, &map, st));
    code = mx_safetensors_parse(map.data, map.size, path, ret, st);
    if (code) {
        mx_map_close(&map);
        return code;
    }
    (*ret)->borrowed = false;
    return MX_OK;
}

void mx_safetensors_close(mx_safetensors *s) {
    if (s) {
        free(s->by_name);
        free(s->tensor);
        json_decref(s->header);
        if (!s->borrowed) {
            mx_map_close(&s->map);
        }
        free(s);
    }
}

const char *mx_safetensors_path(const mx_safetensors *s) {
    return s->path;
}

size_t mx_safetensors_count(const mx_safetensors *s) {
    return s->count;
}

const mx_safetensor *mx_safetensors_at(const mx_safetensors *s, size_t i) {
    assert(i < s->count);
    return &s->tensor[i];
}

const mx_safetensor *mx_safetensors_find(const mx_safetensors *s, const char *name) {
    mx_safetensor wanted = { .name = name };
    const mx_safetensor *key = &wanted;
    const mx_safetensor **found = bsearch(&key, s->by_name, s->count, sizeof *s->by_name, compare_names);

    return found ? *found : NULL;
}

const char *mx_safetensors_metadata(const mx_safetensors *s, const char *key) {
    return json_string_value(json_object_get(json_object_get(s->header, "__metadata__"), key));
}

/* ---- writing --------------------------------------------------------------------------------------------- */

static size_t value_count(const mx_named_values *v) {
    size_t n = 1;

    assert(v->rank >= 0 && v->rank <= 4);
    for (int i = 0; i < v->rank; i++) {
        assert(v->dim[i] >= 0);
        n *= (size_t)v->dim[i];
    }
    return n;
}

/* The header's text, to be freed with free(); NULL without memory. */
static char *make_header(const mx_named_values *values, size_t count, const json_t *metadata) {
    json_t *header = json_object();
    json_int_t offset = 0;
    char *text = NULL;
    int failed = json_object_set_new(header, "__metadata__", metadata ? json_deep_copy(metadata) :
                                     json_pack("{s:s}", "format", "pt"));

    for (size_t i = 0; i < count && !failed; i++) {
        const mx_named_values *v = &values[i];
        json_int_t end = offset + (json_int_t)(value_count(v) * sizeof(float));
        json_t *shape = json_array();

        assert(!json_object_get(header, v->name));
        for (int d = 0; d < v->rank; d++) {
            failed |= json_array_append_new(shape, json_integer(v->dim[d]));
        }
        failed |= json_object_set_new(header, v->name, json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape,
                                                                 "data_offsets", offset, end));
        offset = end;
    }
    text = failed ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

static bool write_all(int fd, const void *bytes, size_t size) {
    const char *p = bytes;

    while (size) {
        ssize_t n = write(fd, p, size);

        if (n < 0 && errno != EINTR) {
            return false;
        }
        p += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool write_file(int fd, const char *header, const mx_named_values *values, size_t count) {
    static const char SPACES[] = "       ";
    size_t length = strlen(header), pad = (8 - length % 8) % 8;
    uint64_t padded = length + pad;

    if (!write_all(fd, &padded, sizeof padded) || !write_all(fd, header, length) || !write_all(fd, SPACES, pad)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!write_all(fd, values[i].data, value_count(&values[i]) * sizeof(float))) {
            return false;
        }
    }
    return fsync(fd) == 0;
}

/* The rename itself must reach the disk too. */
static bool sync_folder_of(char *path) {
    int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0) {
        close(fd);
    }
    return good;
}

mx_code mx_safetensors_write(const char *path, const mx_named_values *values, size_t count, const json_t *metadata,
                             mx_status *st) {
    char *header = make_header(values, count, metadata), *beside = NULL;
    int fd = -1;
    mx_code code = MX_OK;

    if (!header || asprintf(&beside, "%s.tmp-%d", path, (int)getpid()) < 0) {
        beside = NULL;
        code = mx_fail(st, MX_E_MEMORY, (mx_mark){ .file = path }, "no memory to write it");
        goto done;
    }
    fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || !write_file(fd, header, values, count) || rename(beside, path) != 0) {
        code = mx_fail(st, MX_E_IO, (mx_mark){ .file = path }, "cannot be written: %s", strerror(errno));
        if (fd >= 0) {
            unlink(beside);
        }
        goto done;
    }
    if (!sync_folder_of(beside)) {
        code = mx_fail(st, MX_E_IO, (mx_mark){ .file = path }, "cannot be made durable: %s", strerror(errno));
    }
done:
    if (fd >= 0) {
        close(fd);
    }
    free(beside);
    free(header);
    return code;
}
