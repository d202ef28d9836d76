/* base_model.c - the model's tensors, found in a GGUF or in the shards of a folder, and checked against its shape.
 *
 * The shape says which tensors there must be; each is looked up under the file's own name for it. So nothing is
 * guessed from names, and what is left over in the file is something LLaMA does not have. */
#include "model/base_model.h"

#include "base/text.h"
#include "model/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { JSON_MAX = 64 << 20, SHARDS_MAX = 1000 };
enum { HALF_EXPONENT = 0x7c00, BF16_EXPONENT = 0x7f80 };

typedef struct part {
    const char *name;   /* Hugging Face's */
    const char *stored; /* as the file calls it, for lookup and errors */
    const char *path;   /* which file */
    int rank;
    mx_weight_source source; /* a vector: out values as one row */
} part;

struct mx_base_file {
    const char *path;
    const char *description;
    mx_shape shape;
    mx_gguf *gguf; /* or */
    mx_safetensors **shard;
    size_t shards;
    part *part; /* sorted by name */
    size_t parts;
    mx_arena *arena;
};

/* ---- which tensors a LLaMA has ---------------------------------------------------------------------------- */

typedef enum side { NONE, HIDDEN, INNER, QUERY, KEY, SIDES } side;
typedef enum presence { ALWAYS, WITH_QKV_BIAS, WITH_OUTPUT_BIAS, WITH_MLP_BIAS } presence;

static const struct {
    const char *name, *gguf;
    side out, in; /* in NONE: a vector */
    presence when;
    enum { IN_PLACE, BY_HEADS, BY_KV_HEADS } permuted; /* rows in GGUF; llama.cpp's LlamaModel.permute */
} LAYER[] = {
    { "input_layernorm.weight", "attn_norm.weight", HIDDEN, NONE, ALWAYS, IN_PLACE },
    { "self_attn.q_proj.weight", "attn_q.weight", QUERY, HIDDEN, ALWAYS, BY_HEADS },
    { "self_attn.k_proj.weight", "attn_k.weight", KEY, HIDDEN, ALWAYS, BY_KV_HEADS },
    { "self_attn.v_proj.weight", "attn_v.weight", KEY, HIDDEN, ALWAYS, IN_PLACE },
    { "self_attn.o_proj.weight", "attn_output.weight", HIDDEN, QUERY, ALWAYS, IN_PLACE },
    { "self_attn.q_proj.bias", "attn_q.bias", QUERY, NONE, WITH_QKV_BIAS, BY_HEADS },
    { "self_attn.k_proj.bias", "attn_k.bias", KEY, NONE, WITH_QKV_BIAS, BY_KV_HEADS },
    { "self_attn.v_proj.bias", "attn_v.bias", KEY, NONE, WITH_QKV_BIAS, IN_PLACE },
    { "self_attn.o_proj.bias", "attn_output.bias", HIDDEN, NONE, WITH_OUTPUT_BIAS, IN_PLACE },
    { "post_attention_layernorm.weight", "ffn_norm.weight", HIDDEN, NONE, ALWAYS, IN_PLACE },
    { "mlp.gate_proj.weight", "ffn_gate.weight", INNER, HIDDEN, ALWAYS, IN_PLACE },
    { "mlp.up_proj.weight", "ffn_up.weight", INNER, HIDDEN, ALWAYS, IN_PLACE },
    { "mlp.down_proj.weight", "ffn_down.weight", HIDDEN, INNER, ALWAYS, IN_PLACE },
    { "mlp.gate_proj.bias", "ffn_gate.bias", INNER, NONE, WITH_MLP_BIAS, IN_PLACE },
    { "mlp.up_proj.bias", "ffn_up.bias", INNER, NONE, WITH_MLP_BIAS, IN_PLACE },
    { "mlp.down_proj.bias", "ffn_down.bias", HIDDEN, NONE, WITH_MLP_BIAS, IN_PLACE },
};
enum { LAYER_PARTS = sizeof LAYER / sizeof *LAYER };

static int64_t width_of(const mx_shape *s, side w) {
    const int64_t widths[SIDES] = { 0, s->hidden, s->inner, s->heads * s->head_dim, s->kv_heads * s->head_dim };

    return widths[w];
}

static bool present(const mx_shape *s, presence when) {
    return when == ALWAYS || (when == WITH_QKV_BIAS && s->qkv_bias) || (when == WITH_OUTPUT_BIAS && s->output_bias) ||
           (when == WITH_MLP_BIAS && s->mlp_bias);
}

/* ---- finding them ----------------------------------------------------------------------------------------- */

typedef struct found {
    const void *bytes;
    int rank;
    const int64_t *dim;
    mx_file_type type;
    const char *dtype, *path;
} found;

static bool look_up(const mx_base_file *f, const char *stored, found *ret) {
    if (f->gguf) {
        const mx_gguf_tensor *t = mx_gguf_find(f->gguf, stored);

        if (t) {
            *ret = (found){ t->bytes, t->rank, t->dim, t->type, mx_file_type_name(t->type), f->path };
        }
        return t != NULL;
    }
    for (size_t i = 0; i < f->shards; i++) {
        const mx_safetensor *t = mx_safetensors_find(f->shard[i], stored);

        if (t) {
            *ret = (found){ t->bytes, t->rank, t->dim, t->type, t->dtype, mx_safetensors_path(f->shard[i]) };
            return true;
        }
    }
    return false;
}

/* in 0: a vector of `out` values, kept as one row of them. */
static mx_code add_part(mx_base_file *f, const char *name, const char *gguf_name, int64_t out, int64_t in,
                        int64_t unpermute_heads, mx_status *st) {
    const char *stored = f->gguf ? gguf_name : name;
    part *p = &f->part[f->parts];
    found t;

    if (!look_up(f, stored, &t)) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->path }, "tensor '%s' is missing", stored);
    }
    if (t.type == MX_FILE_TYPES) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = t.path },
                       "tensor '%s' is stored as %s; can be read: F32, F16, BF16", stored, t.dtype);
    }
    if (t.rank != (in ? 2 : 1) || t.dim[0] != out || (in && t.dim[1] != in)) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = t.path }, in ?
                       "tensor '%s' has %d dimensions, %s by %s; the model's sizes make it %s by %s" :
                       "tensor '%s' has %d dimensions, %s by %s; the model's sizes make it one of %s", stored, t.rank,
                       mx_text_count(t.rank ? t.dim[0] : 1), mx_text_count(t.rank > 1 ? t.dim[1] : 1),
                       mx_text_count(out), mx_text_count(in));
    }
    *p = (part){ .name = name, .stored = stored, .path = t.path, .rank = t.rank };
    p->source = (mx_weight_source){ .type = t.type, .bytes = t.bytes, .out = in ? out : 1, .in = in ? in : out,
                                    .unpermute_heads = f->gguf ? unpermute_heads : 0 };
    f->parts++;
    return MX_OK;
}

static mx_code add_layer(mx_base_file *f, int layer, mx_status *st) {
    const mx_shape *s = &f->shape;

    for (int i = 0; i < LAYER_PARTS; i++) {
        int64_t heads = LAYER[i].permuted == BY_HEADS ? s->heads : LAYER[i].permuted == BY_KV_HEADS ? s->kv_heads : 0;

        if (present(s, LAYER[i].when)) {
            MX_TRY(add_part(f, mx_arena_text(f->arena, "model.layers.%d.%s", layer, LAYER[i].name),
                            mx_arena_text(f->arena, "blk.%d.%s", layer, LAYER[i].gguf), width_of(s, LAYER[i].out),
                            width_of(s, LAYER[i].in), heads, st));
        }
    }
    return MX_OK;
}

static int compare_parts(const void *a, const void *b) {
    return strcmp(((const part *)a)->name, ((const part *)b)->name);
}

/* Tensors that may be left over: what follows from the shape anyway, and the copy of a tied head. */
static bool may_be_left(const mx_base_file *f, const char *stored) {
    static const char INVERSE[] = ".self_attn.rotary_emb.inv_freq"; /* in older Hugging Face folders */
    size_t length = strlen(stored), tail = sizeof INVERSE - 1;

    if (f->gguf) {
        return strcmp(stored, "rope_freqs.weight") == 0;
    }
    return (length > tail && strcmp(stored + length - tail, INVERSE) == 0) ||
           (f->shape.tied_head && strcmp(stored, "lm_head.weight") == 0);
}

static bool is_part(const mx_base_file *f, const char *stored) {
    for (size_t i = 0; i < f->parts; i++) {
        if (strcmp(f->part[i].stored, stored) == 0) {
            return true;
        }
    }
    return false;
}

static size_t stored_count(const mx_base_file *f) {
    size_t n = f->gguf ? mx_gguf_tensor_count(f->gguf) : 0;

    for (size_t i = 0; i < f->shards; i++) {
        n += mx_safetensors_count(f->shard[i]);
    }
    return n;
}

static const char *stored_name(const mx_base_file *f, size_t i, const char **ret_path) {
    *ret_path = f->path;
    if (f->gguf) {
        return mx_gguf_tensor_at(f->gguf, i)->name;
    }
    for (size_t k = 0;; k++) {
        if (i < mx_safetensors_count(f->shard[k])) {
            *ret_path = mx_safetensors_path(f->shard[k]);
            return mx_safetensors_at(f->shard[k], i)->name;
        }
        i -= mx_safetensors_count(f->shard[k]);
    }
}

/* A bias or a norm this program does not compute would make every number wrong, quietly. */
static mx_code check_left_over(const mx_base_file *f, mx_status *st) {
    size_t stored = stored_count(f), free_ones = 0;
    const char *path;

    for (size_t i = 0; i < stored; i++) {
        free_ones += may_be_left(f, stored_name(f, i, &path));
    }
    if (stored == f->parts + free_ones) {
        return MX_OK; /* every part is stored, under a name of its own: nothing is left */
    }
    for (size_t i = 0; i < stored; i++) {
        const char *name = stored_name(f, i, &path);

        if (!may_be_left(f, name) && !is_part(f, name)) {
            return mx_fail(st, MX_E_DATA, (mx_mark){ .file = path },
                           "tensor '%s' has no place in LLaMA's architecture as this model's sizes describe it", name);
        }
    }
    return mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->path }, "a tensor is in two shards");
}

static mx_code find_parts(mx_base_file *f, mx_status *st) {
    const mx_shape *s = &f->shape;

    f->part = MX_TAKE(f->arena, part, 3 + s->layers * LAYER_PARTS);
    MX_TRY(add_part(f, "model.embed_tokens.weight", "token_embd.weight", s->vocab, s->hidden, 0, st));
    for (int64_t layer = 0; layer < s->layers; layer++) {
        MX_TRY(add_layer(f, (int)layer, st));
    }
    MX_TRY(add_part(f, "model.norm.weight", "output_norm.weight", s->hidden, 0, 0, st));
    if (!s->tied_head) {
        MX_TRY(add_part(f, "lm_head.weight", "output.weight", s->vocab, s->hidden, 0, st));
    }
    MX_TRY(check_left_over(f, st));
    qsort(f->part, f->parts, sizeof *f->part, compare_parts);
    return MX_OK;
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static mx_code open_shard(mx_base_file *f, const char *name, mx_status *st) {
    const char *path = mx_arena_text(f->arena, "%s/%s", f->path, name);

    for (size_t i = 0; i < f->shards; i++) {
        if (strcmp(mx_safetensors_path(f->shard[i]), path) == 0) {
            return MX_OK;
        }
    }
    if (f->shards == SHARDS_MAX) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = f->path }, "has more than %d shards", SHARDS_MAX);
    }
    MX_TRY(mx_safetensors_open(path, &f->shard[f->shards], st));
    f->shards++;
    return MX_OK;
}

/* "weight_map": {tensor: shard}. A shard's name must stay within the folder. */
static mx_code open_listed(mx_base_file *f, const char *index_path, const json_t *index, mx_status *st) {
    json_t *map = json_object_get(index, "weight_map"), *shard;
    const char *tensor;
    found t;

    if (!json_is_object(map) || !json_object_size(map)) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = index_path }, "has no \"weight_map\"");
    }
    json_object_foreach(map, tensor, shard) {
        const char *name = json_string_value(shard);

        if (!name || !*name || *name == '.' || strchr(name, '/')) {
            return mx_fail(st, MX_E_DATA, (mx_mark){ .file = index_path }, "'%s' is not in a file of this folder",
                           tensor);
        }
        MX_TRY(open_shard(f, name, st));
    }
    json_object_foreach(map, tensor, shard) {
        if (!look_up(f, tensor, &t) || strcmp(strrchr(t.path, '/') + 1, json_string_value(shard)) != 0) {
            return mx_fail(st, MX_E_DATA, (mx_mark){ .file = index_path }, "'%s' is not in '%s', where it should be",
                           tensor, json_string_value(shard));
        }
    }
    return MX_OK;
}

static mx_code open_shards(mx_base_file *f, mx_status *st) {
    const char *index_path = mx_arena_text(f->arena, "%s/model.safetensors.index.json", f->path);
    json_t *index = NULL;
    mx_code code;

    f->shard = MX_TAKE(f->arena, mx_safetensors *, SHARDS_MAX);
    if (mx_file_exists(mx_arena_text(f->arena, "%s/model.safetensors", f->path))) {
        return open_shard(f, "model.safetensors", st);
    }
    if (!mx_file_exists(index_path)) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = f->path }, "has neither model.safetensors nor "
                       "model.safetensors.index.json%s", mx_file_exists(mx_arena_text(f->arena, "%s/pytorch_model.bin",
                       f->path)) ? "; pytorch_model.bin is a Python pickle and is not read" : "");
    }
    MX_TRY(mx_json_read(index_path, JSON_MAX, &index, st));
    code = open_listed(f, index_path, index, st);
    json_decref(index);
    return code;
}

static mx_code open_folder(mx_base_file *f, mx_status *st) {
    const char *path = mx_arena_text(f->arena, "%s/config.json", f->path);
    json_t *config = NULL;
    mx_code code;

    if (!mx_file_exists(path)) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = f->path }, "is no model's folder: it has no config.json");
    }
    MX_TRY(mx_json_read(path, JSON_MAX, &config, st));
    code = mx_shape_from_config(config, path, &f->shape, st);
    json_decref(config);
    return code ? code : open_shards(f, st);
}

/* The type that most values have. */
static void describe(mx_base_file *f) {
    int64_t values[MX_FILE_TYPES] = { 0 };
    mx_file_type most = MX_FILE_F32;

    for (size_t i = 0; i < f->parts; i++) {
        values[f->part[i].source.type] += f->part[i].source.out * f->part[i].source.in;
    }
    for (int t = 0; t < MX_FILE_TYPES; t++) {
        most = values[t] > values[most] ? (mx_file_type)t : most;
    }
    f->description = mx_arena_text(f->arena, f->gguf ? "%s gguf" : f->shards == 1 ? "%s safetensors" :
                                   "%s safetensors, %zu shards", mx_file_type_name(most), f->shards);
}

mx_code mx_base_file_open(const char *path, mx_arena *arena, mx_base_file **ret, mx_status *st) {
    mx_base_file *f = MX_TAKE(arena, mx_base_file, 1);
    mx_code code;

    *ret = NULL;
    f->arena = arena;
    f->path = mx_arena_text(arena, "%s", path);
    if (mx_folder_exists(path)) {
        code = open_folder(f, st);
    } else if (mx_file_exists(path)) {
        code = mx_gguf_open(f->path, &f->gguf, st);
        code = code ? code : mx_shape_from_gguf(f->gguf, &f->shape, st);
    } else {
        code = mx_fail(st, MX_E_MISSING, (mx_mark){ .file = f->path }, "there is no such file or folder");
    }
    code = code ? code : find_parts(f, st);
    if (code) {
        mx_base_file_close(f);
        return code;
    }
    describe(f);
    *ret = f;
    return MX_OK;
}

void mx_base_file_close(mx_base_file *f) {
    if (f) {
        mx_gguf_close(f->gguf);
        for (size_t i = 0; i < f->shards; i++) {
            mx_safetensors_close(f->shard[i]);
        }
        f->gguf = NULL;
        f->shards = 0;
    }
}

const mx_shape *mx_base_file_shape(const mx_base_file *f) {
    return &f->shape;
}

const char *mx_base_file_path(const mx_base_file *f) {
    return f->path;
}

const char *mx_base_file_description(const mx_base_file *f) {
    return f->description;
}

int64_t mx_base_file_values(const mx_base_file *f) {
    return mx_shape_values(&f->shape);
}

const mx_gguf *mx_base_file_gguf(const mx_base_file *f) {
    return f->gguf;
}

/* ---- values ----------------------------------------------------------------------------------------------- */

static const part *find_part(const mx_base_file *f, const char *name) {
    const part wanted = { .name = name };
    const part *p = bsearch(&wanted, f->part, f->parts, sizeof *f->part, compare_parts);

    assert(p && "a name the shape does not have");
    return p;
}

/* A value whose exponent is all ones is infinite or no number: one more in its last bit carries into the sign's place. */
static bool finite_halves(const uint8_t *p, int64_t n, uint16_t exponent) {
    uint16_t last = exponent & (uint16_t)-exponent, carried = 0;

    for (int64_t i = 0; i < n; i++) {
        uint16_t bits;

        memcpy(&bits, p + 2 * i, sizeof bits); /* a file's tensors may lie anywhere */
        carried |= (uint16_t)((bits & exponent) + last);
    }
    return !(carried & 0x8000);
}

static bool finite_words(const uint8_t *p, int64_t n) {
    uint32_t carried = 0;

    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, p + 4 * i, sizeof bits);
        carried |= (bits & 0x7f800000) + 0x00800000;
    }
    return !(carried & 0x80000000);
}

/* Blocks are finite when their scales are (half floats times small integers stay far inside f32), so only those are looked at:
 * the block's first half float, and its second in types that have a minimum. */
static bool finite_blocks(const uint8_t *p, size_t row_bytes, mx_file_type type) {
    size_t block = mx_file_type_row_bytes(type, 32), second = type == MX_FILE_Q4_1 || type == MX_FILE_Q5_1 ? 2 : 0;
    bool finite = true;

    for (size_t at = 0; at < row_bytes; at += block) {
        finite &= (p[at + 1] & 0x7c) != 0x7c;
        finite &= (p[at + second + 1] & 0x7c) != 0x7c;
    }
    return finite;
}

static bool row_is_finite(const uint8_t *row, size_t row_bytes, mx_file_type type) {
    switch (type) {
    case MX_FILE_F32:
        return finite_words(row, (int64_t)row_bytes / 4);
    case MX_FILE_F16:
        return finite_halves(row, (int64_t)row_bytes / 2, HALF_EXPONENT);
    case MX_FILE_BF16:
        return finite_halves(row, (int64_t)row_bytes / 2, BF16_EXPONENT);
    default:
        return finite_blocks(row, row_bytes, type);
    }
}

/* The first row with a value that is not finite, or -1. Every value of a base passes here once before it is used: as fast as
 * memory gives them, on all processors where there is enough to share. */
static int64_t first_bad_row(const mx_weight_source *w) {
    size_t row_bytes = mx_file_type_row_bytes(w->type, w->in);
    int64_t first = w->out;

#pragma omp parallel for schedule(static) reduction(min : first) if (w->out * (int64_t)row_bytes > 1 << 20)
    for (int64_t row = 0; row < w->out; row++) {
        if (row < first && !row_is_finite((const uint8_t *)w->bytes + (size_t)row * row_bytes, row_bytes, w->type)) {
            first = row;
        }
    }
    return first < w->out ? first : -1;
}

static mx_code check_finite(const part *p, mx_status *st) {
    int64_t row = first_bad_row(&p->source);

    if (row >= 0) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = p->path },
                       "tensor '%s' holds a %s that is not finite, in row %s", p->stored,
                       p->source.type > MX_FILE_BF16 ? "scale" : "value", mx_text_count(row));
    }
    return MX_OK;
}

void mx_base_file_find(const mx_base_file *f, const char *name, mx_weight_source *ret) {
    const part *p = find_part(f, name);

    assert(p->rank == 2);
    *ret = p->source;
}

mx_code mx_base_file_weight(const mx_base_file *f, const char *name, mx_weight_source *ret, mx_status *st) {
    const part *p = find_part(f, name);

    assert(p->rank == 2);
    MX_TRY(check_finite(p, st));
    *ret = p->source;
    return MX_OK;
}

mx_code mx_base_file_vector(const mx_base_file *f, const char *name, float *to, int64_t n, mx_status *st) {
    const part *p = find_part(f, name);
    int64_t width = p->source.unpermute_heads ? n / p->source.unpermute_heads : 0;
    float head[MX_HEAD_DIM_MAX];

    assert(p->rank == 1 && p->source.in == n);
    MX_TRY(check_finite(p, st));
    mx_file_type_decode(p->source.type, p->source.bytes, n, to);
    for (int64_t at = 0; width && at < n; at += width) { /* as mx_weight_source.unpermute_heads has it */
        memcpy(head, to + at, sizeof(float) * (size_t)width);
        for (int64_t i = 0; i < width / 2; i++) {
            to[at + i] = head[2 * i];
            to[at + width / 2 + i] = head[2 * i + 1];
        }
    }
    return MX_OK;
}

/* ---- identity --------------------------------------------------------------------------------------------- */

/* Where a file's sum is remembered; the change time cannot be set back, so another content has another name. */
static const char *remembered_at(const char *path, mx_arena *arena) {
    char *real = realpath(path, NULL), key[MX_SHA256_TEXT];
    struct stat info;
    const char *text;

    if (!real || stat(real, &info) != 0) {
        free(real);
        return NULL;
    }
    text = mx_arena_text(arena, "%s %lld %lld.%09ld %lld.%09ld %llu", real, (long long)info.st_size,
                         (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec, (long long)info.st_ctim.tv_sec,
                         info.st_ctim.tv_nsec, (unsigned long long)info.st_ino);
    free(real);
    mx_sha256(text, strlen(text), key);
    return mx_arena_text(arena, "%s/sha256/%s", mx_path_cache(arena), key);
}

static bool recall(const char *at, char ret_hex[MX_SHA256_TEXT]) {
    char *text = NULL;
    size_t size = 0;
    bool good = at && mx_file_exists(at) && !mx_file_read(at, MX_SHA256_TEXT, &text, &size, NULL) &&
                size == MX_SHA256_TEXT - 1 && strspn(text, "0123456789abcdef") == size;

    if (good) {
        memcpy(ret_hex, text, MX_SHA256_TEXT);
    }
    free(text);
    return good;
}

/* Only a shortcut: where nothing can be written the next run takes its seconds again. */
static bool remember(const char *at, const char hex[MX_SHA256_TEXT], mx_arena *arena) {
    return at && mx_folder_make(mx_arena_text(arena, "%s/sha256", mx_path_cache(arena)), NULL) == MX_OK &&
           mx_file_write(at, hex, MX_SHA256_TEXT - 1, NULL) == MX_OK;
}

static mx_code hash_file(const char *path, mx_arena *arena, char ret_hex[MX_SHA256_TEXT], mx_status *st) {
    const char *at = remembered_at(path, arena);

    if (recall(at, ret_hex)) {
        return MX_OK;
    }
    MX_TRY(mx_sha256_file(path, ret_hex, st));
    (void)remember(at, ret_hex, arena);
    return MX_OK;
}

static mx_code hash_folder(const mx_base_file *f, char ret_hex[MX_SHA256_TEXT], mx_status *st) {
    static const char *const SMALL[] = { "config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json" };
    mx_hasher *h = mx_hasher_open();
    char sum[MX_SHA256_TEXT];
    mx_code code = MX_OK;

    for (size_t i = 0; i < sizeof SMALL / sizeof *SMALL && !code; i++) {
        const char *path = mx_arena_text(f->arena, "%s/%s", f->path, SMALL[i]);

        if (mx_file_exists(path)) {
            code = hash_file(path, f->arena, sum, st);
            mx_hasher_add(h, SMALL[i], strlen(SMALL[i]));
            mx_hasher_add(h, sum, code ? 0 : MX_SHA256_TEXT - 1);
        }
    }
    for (size_t i = 0; i < f->shards && !code; i++) {
        code = hash_file(mx_safetensors_path(f->shard[i]), f->arena, sum, st);
        mx_hasher_add(h, sum, code ? 0 : MX_SHA256_TEXT - 1);
    }
    mx_hasher_close(h, ret_hex);
    return code;
}

mx_code mx_base_file_hash(const mx_base_file *f, char ret_hex[MX_SHA256_TEXT], mx_status *st) {
    return f->gguf ? hash_file(f->path, f->arena, ret_hex, st) : hash_folder(f, ret_hex, st);
}
