/* gguf.c - the reader: one pass over the header, then sorted indexes for finding things.
 *
 * A file is not believed: each count is held against the bytes that are left (an item takes at least one), each
 * text against the end, each tensor's shape, type and offset against the file's size, all without overflow. */
#include "model/gguf.h"

#include "base/file.h"
#include "base/text.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are read as they lie in the file");

enum {
    ENTRIES_MAX = 1 << 16,   /* of keys, and of tensors: the largest models have some thousands */
    LIST_MAX = 1 << 20,      /* items handed out as one list: four times today's largest vocabulary */
    NAME_MAX_BYTES = 255,    /* of a tensor; ggml allows 63 */
    KEY_MAX_BYTES = 65535,   /* the format's own limit */
    NESTING_MAX = 4,         /* lists in lists; nobody writes any */
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 1 << 20,
    BOOKKEEPING_MAX = 64 << 20, /* bytes: ENTRIES_MAX tensors with the longest names, and as many keys */
};

/* In the order of the format's numbers. */
typedef enum kind { U8, I8, U16, I16, U32, I32, F32, BOOLEAN, TEXT, LIST, U64, I64, F64, KINDS } kind;
static const struct {
    const char *name;
    size_t bytes; /* 0: not of one size */
} KIND[KINDS] = { { "u8", 1 },  { "i8", 1 },      { "u16", 2 }, { "i16", 2 },  { "u32", 4 }, { "i32", 4 }, { "f32", 4 },
                  { "bool", 1 }, { "text", 0 }, { "list", 0 }, { "u64", 8 }, { "i64", 8 }, { "f64", 8 } };

/* ggml's tensor types by number; those we do not read are known by name, to be refused by it. */
static const char *const GGML_TYPE[] = {
    "F32", "F16", "Q4_0", "Q4_1", NULL, NULL, "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64",
    "F64", "IQ1_M", "BF16", NULL, NULL, NULL, "TQ1_0", "TQ2_0", NULL, NULL, NULL, "MXFP4",
};
static const char SUPPORTED[] = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1";

typedef struct entry {
    mx_gguf_text key;
    kind kind;       /* of the items where `is_list` */
    bool is_list;
    uint64_t count;  /* items; 1 when it is no list */
    const uint8_t *bytes; /* the first item: unaligned numbers, or u64 lengths with their texts */
} entry;

struct mx_gguf {
    mx_map map; /* zeroed when the bytes are somebody else's */
    const uint8_t *bytes;
    size_t size;
    const char *path;
    mx_arena arena;
    entry *key; /* sorted by name */
    size_t keys;
    mx_gguf_tensor *tensor;        /* sorted by offset */
    const mx_gguf_tensor **by_name;
    size_t tensors;
};

/* ---- reading the header ---------------------------------------------------------------------------------- */

typedef struct cursor {
    const mx_gguf *g;
    size_t at;
    mx_status *st;
} cursor;

#define REFUSE(c, ...) mx_fail((c)->st, MX_E_DATA, (mx_mark){ .file = (c)->g->path }, __VA_ARGS__)

/* Counts and sizes as the file states them, which may be past what mx_text_count can show. */
static const char *shown(uint64_t n) {
    return n > INT64_MAX ? "more than 9,223,372,036,854,775,807" : mx_text_count((int64_t)n);
}

static size_t left(const cursor *c) {
    return c->g->size - c->at;
}

static mx_code take(cursor *c, void *to, size_t size) {
    if (left(c) < size) {
        return REFUSE(c, "the file ends within its header, at byte %s: is the download complete?", shown(c->g->size));
    }
    memcpy(to, c->g->bytes + c->at, size);
    c->at += size;
    return MX_OK;
}

static mx_code take_text(cursor *c, const char *what, uint64_t limit, mx_gguf_text *ret) {
    uint64_t length = 0;

    MX_TRY(take(c, &length, sizeof length));
    if (length > left(c)) {
        return REFUSE(c, "%s of %s bytes at byte %s goes past the file's end (%s): is the download complete?", what,
                      shown(length), shown(c->at), shown(c->g->size));
    }
    if (length > limit) {
        return REFUSE(c, "%s of %s bytes at byte %s; at most %s can be right", what, shown(length), shown(c->at),
                      shown(limit));
    }
    *ret = (mx_gguf_text){ .bytes = (const char *)c->g->bytes + c->at, .length = (size_t)length };
    c->at += (size_t)length;
    return MX_OK;
}

/* Steps over `count` items of a kind; each takes a byte at least, so a false count ends with the file. */
static mx_code skip_items(cursor *c, kind k, uint64_t count, const mx_gguf_text *key, int nesting) {
    if (KIND[k].bytes) {
        if (count > left(c) / KIND[k].bytes) {
            return REFUSE(c, "key '%.*s' has %s values of kind %s, more than the rest of the file holds: "
                          "is the download complete?", (int)key->length, key->bytes, shown(count), KIND[k].name);
        }
        c->at += (size_t)count * KIND[k].bytes;
        return MX_OK;
    }
    for (uint64_t i = 0; i < count; i++) {
        mx_gguf_text text;

        if (k == TEXT) {
            MX_TRY(take_text(c, "a text", UINT64_MAX, &text));
        } else {
            uint32_t inner = 0;
            uint64_t items = 0;

            MX_TRY(take(c, &inner, sizeof inner));
            MX_TRY(take(c, &items, sizeof items));
            if (inner >= KINDS || nesting == NESTING_MAX) {
                return REFUSE(c, "key '%.*s' holds a list that is broken (kind %u, nesting %d)", (int)key->length,
                              key->bytes, inner, nesting);
            }
            MX_TRY(skip_items(c, (kind)inner, items, key, nesting + 1));
        }
    }
    return MX_OK;
}

/* Keys and tensors' names stand in errors, so they must be printable. */
static mx_code take_name(cursor *c, const char *what, uint64_t limit, mx_gguf_text *ret) {
    MX_TRY(take_text(c, what, limit, ret));
    for (size_t i = 0; i < ret->length; i++) {
        if ((unsigned char)ret->bytes[i] < 0x20) {
            return REFUSE(c, "%s before byte %s holds control characters", what, shown(c->at));
        }
    }
    return MX_OK;
}

static mx_code take_entry(cursor *c, entry *e) {
    uint32_t k = 0;

    MX_TRY(take_name(c, "a key", KEY_MAX_BYTES, &e->key));
    MX_TRY(take(c, &k, sizeof k));
    e->is_list = k == LIST;
    e->count = 1;
    if (e->is_list) {
        MX_TRY(take(c, &k, sizeof k));
        MX_TRY(take(c, &e->count, sizeof e->count));
    }
    if (k >= KINDS) {
        return REFUSE(c, "key '%.*s' is of kind %u; the format knows 0 to %d", (int)e->key.length, e->key.bytes, k,
                      KINDS - 1);
    }
    e->kind = (kind)k;
    e->bytes = c->g->bytes + c->at;
    return skip_items(c, e->kind, e->count, &e->key, 0);
}

static int compare_texts(mx_gguf_text a, mx_gguf_text b) {
    size_t n = a.length < b.length ? a.length : b.length;
    int order = n ? memcmp(a.bytes, b.bytes, n) : 0;

    return order ? order : (a.length > b.length) - (a.length < b.length);
}

static int compare_keys(const void *a, const void *b) {
    return compare_texts(((const entry *)a)->key, ((const entry *)b)->key);
}

static mx_code take_metadata(cursor *c, mx_gguf *g, uint64_t count) {
    /* length, kind and one byte */
    if (count > left(c) / 13 || count > ENTRIES_MAX) {
        return REFUSE(c, "says it has %s keys, more than %s", shown(count),
                      count > ENTRIES_MAX ? "can be right" : "it has room for: is the download complete?");
    }
    g->key = MX_TAKE(&g->arena, entry, count ? count : 1);
    for (; g->keys < count; g->keys++) {
        MX_TRY(take_entry(c, &g->key[g->keys]));
    }
    qsort(g->key, g->keys, sizeof *g->key, compare_keys);
    for (size_t i = 1; i < g->keys; i++) {
        if (compare_keys(&g->key[i - 1], &g->key[i]) == 0) {
            return REFUSE(c, "key '%.*s' is there twice", (int)g->key[i].key.length, g->key[i].key.bytes);
        }
    }
    return MX_OK;
}

/* Rows of `dim[0]` values (ggml's fastest) into bytes; false on overflow. */
static bool tensor_bytes(const mx_gguf_tensor *t, size_t *ret) {
    int64_t in = t->dim[t->rank - 1];
    size_t total = mx_file_type_row_bytes(t->type, in);

    for (int i = 0; i < t->rank - 1; i++) {
        if (__builtin_mul_overflow(total, (size_t)t->dim[i], &total)) {
            return false;
        }
    }
    *ret = total;
    return total <= (size_t)INT64_MAX;
}

static mx_code take_type(cursor *c, mx_gguf_tensor *t) {
    uint32_t number = 0;

    MX_TRY(take(c, &number, sizeof number));
    if (number >= sizeof GGML_TYPE / sizeof *GGML_TYPE || !GGML_TYPE[number]) {
        return REFUSE(c, "tensor '%s' is of the unknown type %u; can be read: %s", t->name, number, SUPPORTED);
    }
    for (int type = 0; type < MX_FILE_TYPES; type++) {
        if (strcmp(mx_file_type_name((mx_file_type)type), GGML_TYPE[number]) == 0) {
            t->type = (mx_file_type)type;
            return MX_OK;
        }
    }
    return REFUSE(c, "tensor '%s' is stored as %s; can be read: %s", t->name, GGML_TYPE[number], SUPPORTED);
}

static mx_code take_tensor(cursor *c, mx_arena *arena, mx_gguf_tensor *t) {
    mx_gguf_text name;
    uint32_t rank = 0;

    MX_TRY(take_name(c, "a tensor's name", NAME_MAX_BYTES, &name));
    t->name = mx_arena_copy(arena, name.bytes, name.length);
    MX_TRY(take(c, &rank, sizeof rank));
    if (rank < 1 || rank > MX_GGUF_DIMS) {
        return REFUSE(c, "tensor '%s' has %u dimensions; 1 to %d can be right", t->name, rank, MX_GGUF_DIMS);
    }
    t->rank = (int)rank;
    for (int i = t->rank - 1; i >= 0; i--) {
        uint64_t dim = 0;

        MX_TRY(take(c, &dim, sizeof dim));
        if (dim < 1 || dim > INT64_MAX / 8) {
            return REFUSE(c, "tensor '%s' has a dimension of %s", t->name, shown(dim));
        }
        t->dim[i] = (int64_t)dim;
    }
    MX_TRY(take_type(c, t));
    MX_TRY(take(c, &t->offset, sizeof t->offset));
    if (!mx_file_type_row_bytes(t->type, t->dim[t->rank - 1])) {
        return REFUSE(c, "tensor '%s' has rows of %s values, not whole blocks of %s", t->name,
                      mx_text_count(t->dim[t->rank - 1]), mx_file_type_name(t->type));
    }
    if (!tensor_bytes(t, &t->size)) {
        return REFUSE(c, "tensor '%s' has more values than a file can hold", t->name);
    }
    return MX_OK;
}

/* Offsets count from the first multiple of the alignment after the header. */
static mx_code place_tensor(const cursor *c, mx_gguf_tensor *t, size_t data, size_t alignment) {
    uint64_t end = 0;

    if (t->offset % alignment) {
        return REFUSE(c, "tensor '%s' is at offset %s, not a multiple of %zu", t->name, shown(t->offset), alignment);
    }
    if (__builtin_add_overflow(t->offset, (uint64_t)data, &t->offset) ||
        __builtin_add_overflow(t->offset, (uint64_t)t->size, &end)) {
        return REFUSE(c, "tensor '%s' is at an impossible offset", t->name);
    }
    if (end > c->g->size) {
        return REFUSE(c, "tensor '%s' ends at byte %s, the file has %s: is the download complete?", t->name, shown(end),
                      shown(c->g->size));
    }
    t->bytes = c->g->bytes + t->offset;
    return MX_OK;
}

static int compare_offsets(const void *a, const void *b) {
    uint64_t x = ((const mx_gguf_tensor *)a)->offset, y = ((const mx_gguf_tensor *)b)->offset;

    return (x > y) - (x < y);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const mx_gguf_tensor *const *)a)->name, (*(const mx_gguf_tensor *const *)b)->name);
}

static mx_code index_tensors(const cursor *c, mx_gguf *g) {
    qsort(g->tensor, g->tensors, sizeof *g->tensor, compare_offsets);
    g->by_name = MX_TAKE(&g->arena, const mx_gguf_tensor *, g->tensors + 1);
    for (size_t i = 0; i < g->tensors; i++) {
        const mx_gguf_tensor *t = &g->tensor[i];

        g->by_name[i] = t;
        if (i && t[-1].offset + t[-1].size > t->offset) {
            return REFUSE(c, "tensors '%s' and '%s' overlap", t[-1].name, t->name);
        }
    }
    qsort(g->by_name, g->tensors, sizeof *g->by_name, compare_names);
    for (size_t i = 1; i < g->tensors; i++) {
        if (strcmp(g->by_name[i - 1]->name, g->by_name[i]->name) == 0) {
            return REFUSE(c, "tensor '%s' is there twice", g->by_name[i]->name);
        }
    }
    return MX_OK;
}

static mx_code take_tensors(cursor *c, mx_gguf *g, uint64_t count) {
    int64_t alignment = ALIGNMENT_DEFAULT;
    size_t data;

    /* name's length, rank, one dimension, type, offset */
    if (count > left(c) / 32 || count > ENTRIES_MAX) {
        return REFUSE(c, "says it has %s tensors, more than %s", shown(count),
                      count > ENTRIES_MAX ? "can be right" : "it has room for: is the download complete?");
    }
    MX_TRY(mx_gguf_integer(g, "general.alignment", &alignment, NULL, c->st));
    if (alignment < 1 || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1))) {
        return REFUSE(c, "general.alignment is %s, not a power of two up to %s", mx_text_count(alignment),
                      mx_text_count(ALIGNMENT_MAX));
    }
    g->tensor = MX_TAKE(&g->arena, mx_gguf_tensor, count ? count : 1);
    for (; g->tensors < count; g->tensors++) {
        MX_TRY(take_tensor(c, &g->arena, &g->tensor[g->tensors]));
    }
    data = (c->at + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    for (size_t i = 0; i < g->tensors; i++) {
        MX_TRY(place_tensor(c, &g->tensor[i], data, (size_t)alignment));
    }
    return index_tensors(c, g);
}

static mx_code read_header(mx_gguf *g, mx_status *st) {
    cursor c = { .g = g, .st = st };
    char magic[4] = { 0 };
    uint32_t version = 0;
    uint64_t tensors = 0, keys = 0;

    if (g->size < sizeof magic || memcmp(g->bytes, "GGUF", sizeof magic) != 0) {
        return REFUSE(&c, "is not a GGUF file");
    }
    MX_TRY(take(&c, magic, sizeof magic));
    MX_TRY(take(&c, &version, sizeof version));
    if (version >= 1u << 24) {
        return REFUSE(&c, "is a big-endian GGUF; little-endian ones can be read");
    }
    if (version != 2 && version != 3) {
        return REFUSE(&c, "is GGUF version %u; 2 and 3 can be read", version);
    }
    MX_TRY(take(&c, &tensors, sizeof tensors));
    MX_TRY(take(&c, &keys, sizeof keys));
    MX_TRY(take_metadata(&c, g, keys));
    return take_tensors(&c, g, tensors);
}

mx_code mx_gguf_parse(const void *bytes, size_t size, const char *path, mx_gguf **ret, mx_status *st) {
    mx_gguf *g = calloc(1, sizeof *g);
    mx_code code;

    *ret = NULL;
    if (!g) {
        return mx_fail(st, MX_E_MEMORY, (mx_mark){ .file = path }, "no memory to read it");
    }
    g->bytes = bytes;
    g->size = size;
    g->path = path;
    mx_arena_init(&g->arena, BOOKKEEPING_MAX);
    code = read_header(g, st);
    if (code) {
        mx_gguf_close(g);
        return code;
    }
    *ret = g;
    return MX_OK;
}

mx_code mx_gguf_open(const char *path, mx_gguf **ret, mx_status *st) {
    mx_map map = { 0 };
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_map_open(path, &map, st));
    code = mx_gguf_parse(map.data, map.size, path, ret, st);
    if (code) {
        mx_map_close(&map);
        return code;
    }
    (*ret)->map = map;
    return MX_OK;
}

void mx_gguf_close(mx_gguf *g) {
    if (g) {
        mx_arena_finish(&g->arena);
        mx_map_close(&g->map);
        free(g);
    }
}

/* ---- tensors --------------------------------------------------------------------------------------------- */

const char *mx_gguf_path(const mx_gguf *g) {
    return g->path;
}

size_t mx_gguf_tensor_count(const mx_gguf *g) {
    return g->tensors;
}

const mx_gguf_tensor *mx_gguf_tensor_at(const mx_gguf *g, size_t i) {
    assert(i < g->tensors);
    return &g->tensor[i];
}

const mx_gguf_tensor *mx_gguf_find(const mx_gguf *g, const char *name) {
    mx_gguf_tensor wanted = { .name = name };
    const mx_gguf_tensor *key = &wanted;
    const mx_gguf_tensor **found = bsearch(&key, g->by_name, g->tensors, sizeof *g->by_name, compare_names);

    return found ? *found : NULL;
}

/* ---- metadata -------------------------------------------------------------------------------------------- */

static const entry *find(const mx_gguf *g, const char *key, bool *ret_found) {
    entry wanted = { .key = { .bytes = key, .length = strlen(key) } };
    const entry *e = g->keys ? bsearch(&wanted, g->key, g->keys, sizeof *g->key, compare_keys) : NULL;

    if (ret_found) {
        *ret_found = e != NULL;
    }
    return e;
}

static mx_code wrong_kind(const mx_gguf *g, const entry *e, const char *wanted, mx_status *st) {
    return mx_fail(st, MX_E_DATA, (mx_mark){ .file = g->path }, "key '%.*s' is a %s%s, not %s", (int)e->key.length,
                   e->key.bytes, e->is_list ? "list of " : "", KIND[e->kind].name, wanted);
}

/* False for what is no whole number of int64's range. */
static bool integer_at(kind k, const uint8_t *p, int64_t *ret) {
    union {
        uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; uint64_t u64; int64_t i64;
    } v = { 0 };

    memcpy(&v, p, KIND[k].bytes < sizeof v ? KIND[k].bytes : sizeof v);
    switch (k) {
    case U8: *ret = v.u8; return true;
    case I8: *ret = v.i8; return true;
    case U16: *ret = v.u16; return true;
    case I16: *ret = v.i16; return true;
    case U32: *ret = v.u32; return true;
    case I32: *ret = v.i32; return true;
    case I64: *ret = v.i64; return true;
    case U64: *ret = (int64_t)v.u64; return v.u64 <= INT64_MAX;
    default: return false;
    }
}

static bool real_at(kind k, const uint8_t *p, double *ret) {
    int64_t whole;
    float single;

    if (k == F32) {
        memcpy(&single, p, sizeof single);
        *ret = single;
        return true;
    }
    if (k == F64) {
        memcpy(ret, p, sizeof *ret);
        return true;
    }
    if (integer_at(k, p, &whole)) {
        *ret = (double)whole;
        return true;
    }
    return false;
}

mx_code mx_gguf_integer(const mx_gguf *g, const char *key, int64_t *ret, bool *ret_found, mx_status *st) {
    const entry *e = find(g, key, ret_found);

    if (e && (e->is_list || !integer_at(e->kind, e->bytes, ret))) {
        return wrong_kind(g, e, "a whole number of 63 bits", st);
    }
    return MX_OK;
}

mx_code mx_gguf_real(const mx_gguf *g, const char *key, double *ret, bool *ret_found, mx_status *st) {
    const entry *e = find(g, key, ret_found);

    if (e && (e->is_list || !real_at(e->kind, e->bytes, ret) || !isfinite(*ret))) {
        return wrong_kind(g, e, "a finite number", st);
    }
    return MX_OK;
}

mx_code mx_gguf_boolean(const mx_gguf *g, const char *key, bool *ret, bool *ret_found, mx_status *st) {
    const entry *e = find(g, key, ret_found);

    if (e && (e->is_list || e->kind != BOOLEAN || e->bytes[0] > 1)) {
        return wrong_kind(g, e, "true or false", st);
    }
    if (e) {
        *ret = e->bytes[0] == 1;
    }
    return MX_OK;
}

/* The text whose length stands at *p; moves *p past it. The header's reading has checked the bounds. */
static mx_gguf_text text_at(const uint8_t **p) {
    uint64_t length;
    mx_gguf_text text;

    memcpy(&length, *p, sizeof length);
    text = (mx_gguf_text){ .bytes = (const char *)*p + sizeof length, .length = (size_t)length };
    *p += sizeof length + length;
    return text;
}

mx_code mx_gguf_word(const mx_gguf *g, const char *key, mx_arena *arena, const char **ret, bool *ret_found,
                     mx_status *st) {
    const entry *e = find(g, key, ret_found);
    const uint8_t *p;
    mx_gguf_text text;

    if (!e) {
        return MX_OK;
    }
    if (e->is_list || e->kind != TEXT) {
        return wrong_kind(g, e, "a text", st);
    }
    p = e->bytes;
    text = text_at(&p);
    if (text.length > LIST_MAX || (text.length && memchr(text.bytes, 0, text.length))) {
        return wrong_kind(g, e, "a short one without zero bytes", st);
    }
    *ret = mx_arena_copy(arena, text.bytes, text.length);
    return MX_OK;
}

static mx_code check_count(const mx_gguf *g, const entry *e, mx_status *st) {
    if (e->count > LIST_MAX) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = g->path }, "key '%.*s' lists %s items; at most %s can be read",
                       (int)e->key.length, e->key.bytes, shown(e->count), mx_text_count(LIST_MAX));
    }
    return MX_OK;
}

mx_code mx_gguf_texts(const mx_gguf *g, const char *key, mx_arena *arena, const mx_gguf_text **ret, size_t *ret_count,
                      bool *ret_found, mx_status *st) {
    const entry *e = find(g, key, ret_found);
    mx_gguf_text *list;
    const uint8_t *p;

    if (!e) {
        return MX_OK;
    }
    if (!e->is_list || e->kind != TEXT) {
        return wrong_kind(g, e, "a list of texts", st);
    }
    MX_TRY(check_count(g, e, st));
    list = MX_TAKE(arena, mx_gguf_text, e->count + 1);
    p = e->bytes;
    for (uint64_t i = 0; i < e->count; i++) {
        list[i] = text_at(&p);
    }
    *ret = list;
    *ret_count = (size_t)e->count;
    return MX_OK;
}

mx_code mx_gguf_numbers(const mx_gguf *g, const char *key, mx_arena *arena, const double **ret, size_t *ret_count,
                        bool *ret_found, mx_status *st) {
    const entry *e = find(g, key, ret_found);
    double *list;

    if (!e) {
        return MX_OK;
    }
    if (!e->is_list || !KIND[e->kind].bytes || e->kind == BOOLEAN) {
        return wrong_kind(g, e, "a list of numbers", st);
    }
    MX_TRY(check_count(g, e, st));
    list = MX_TAKE(arena, double, e->count + 1);
    for (uint64_t i = 0; i < e->count; i++) {
        if (!real_at(e->kind, e->bytes + i * KIND[e->kind].bytes, &list[i])) {
            return wrong_kind(g, e, "a list of numbers of 63 bits", st);
        }
    }
    *ret = list;
    *ret_count = (size_t)e->count;
    return MX_OK;
}
