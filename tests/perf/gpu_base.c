/* gpu_base.c - a random model to open, without a download and without a disk: a GGUF in a file that is memory of this process.
 *
 * Every layer has its own values (the rates of a GPU's products depend on the values: zeros are multiplied faster), as large
 * as an initialised model's. */
#include "tests/perf/gpu.h"

#include "runner/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 32, BLOCK = 32, GGUF_U32 = 4, GGUF_F32 = 6, GGUF_TEXT = 8, TENSORS_OF_LAYER = 9 };

typedef struct tensor {
    char name[64];
    int64_t out, in; /* in 0: a vector of `out` */
    mx_file_type type;
    size_t offset, bytes;
} tensor;

typedef struct writer {
    mx_text header;
    tensor *tensor;
    uint64_t tensors;
    size_t bytes; /* of all tensors */
} writer;

static uint32_t ggml_type(mx_file_type type) {
    return type == MX_FILE_F32 ? 0 : type == MX_FILE_Q4_0 ? 2 : 30;
}

static void add(writer *w, mx_file_type type, const char *name, int64_t out, int64_t in) {
    tensor *t = &w->tensor[w->tensors++];

    *t = (tensor){ .out = out, .in = in, .type = in ? type : MX_FILE_F32, .offset = w->bytes };
    snprintf(t->name, sizeof t->name, "%s", name);
    t->bytes = in ? (size_t)out * mx_file_type_row_bytes(type, in) : (size_t)out * sizeof(float);
    w->bytes += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void add_layer(writer *w, const perf_shape *s, mx_file_type type, int64_t layer) {
    const int64_t wide = s->heads * s->head_dim, narrow = s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        int64_t out, in;
    } all[TENSORS_OF_LAYER] = {
        { "attn_norm", s->hidden, 0 },      { "attn_q", wide, s->hidden },   { "attn_k", narrow, s->hidden },
        { "attn_v", narrow, s->hidden },    { "attn_output", s->hidden, wide }, { "ffn_norm", s->hidden, 0 },
        { "ffn_gate", s->inner, s->hidden }, { "ffn_up", s->inner, s->hidden }, { "ffn_down", s->hidden, s->inner },
    };

    for (int i = 0; i < TENSORS_OF_LAYER; i++) {
        char name[64];

        snprintf(name, sizeof name, "blk.%lld.%s.weight", (long long)layer, all[i].name);
        add(w, type, name, all[i].out, all[i].in);
    }
}

/* ------------------------------------------------------------------ the header */

static void put(writer *w, const void *bytes, size_t size) {
    mx_text_add(&w->header, bytes, size);
}
static void put_text(writer *w, const char *text) {
    uint64_t length = strlen(text);

    put(w, &length, sizeof length);
    put(w, text, length);
}
static void put_integer(writer *w, const char *key, int64_t value) {
    const uint32_t kind = GGUF_U32, v = (uint32_t)value;

    put_text(w, key);
    put(w, &kind, sizeof kind);
    put(w, &v, sizeof v);
}

static void put_tensor(writer *w, const tensor *t) {
    const uint32_t rank = t->in ? 2 : 1, type = ggml_type(t->type);
    const uint64_t in = (uint64_t)t->in, out = (uint64_t)t->out, offset = t->offset;

    put_text(w, t->name);
    put(w, &rank, sizeof rank);
    if (t->in) { /* ggml's fastest first */
        put(w, &in, sizeof in);
    }
    put(w, &out, sizeof out);
    put(w, &type, sizeof type);
    put(w, &offset, sizeof offset);
}

static void put_header(writer *w, const perf_shape *s) {
    const struct {
        const char *key;
        int64_t value;
    } words[] = {
        { "llama.embedding_length", s->hidden },     { "llama.feed_forward_length", s->inner },
        { "llama.block_count", s->layers },          { "llama.context_length", 16384 },
        { "llama.attention.head_count", s->heads },  { "llama.attention.head_count_kv", s->kv_heads },
        { "llama.attention.key_length", s->head_dim }, { "llama.attention.value_length", s->head_dim },
        { "llama.rope.dimension_count", s->head_dim },
    };
    const uint32_t version = 3, text = GGUF_TEXT, real = GGUF_F32;
    const uint64_t keys = sizeof words / sizeof words[0] + 2;
    const float eps = 1e-5f;

    put(w, "GGUF", 4);
    put(w, &version, sizeof version);
    put(w, &w->tensors, sizeof w->tensors);
    put(w, &keys, sizeof keys);
    put_text(w, "general.architecture");
    put(w, &text, sizeof text);
    put_text(w, "llama");
    put_text(w, "llama.attention.layer_norm_rms_epsilon");
    put(w, &real, sizeof real);
    put(w, &eps, sizeof eps);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        put_integer(w, words[i].key, words[i].value);
    }
    for (uint64_t i = 0; i < w->tensors; i++) {
        put_tensor(w, &w->tensor[i]);
    }
    while (w->header.length % ALIGNMENT) {
        put(w, "", 1);
    }
}

/* ------------------------------------------------------------------ the values */

/* Matrices normal with 1/sqrt(in), norms near 1; the vocabulary's rows as large as the stream is. The pool is converted once
 * and then copied, since a base of 7B is made within seconds. */
static void fill_matrix(const perf *p, const tensor *t, int64_t number, uint8_t *to) {
    double size = strcmp(t->name, "token_embd.weight") == 0 ? 1 : 1 / sqrt((double)t->in);
    size_t width = mx_file_type_row_bytes(t->type, BLOCK), whole = (size_t)(p->pool_size / BLOCK) * width, at = 0;
    uint8_t *values = malloc(whole);

    assert(values);
    perf_values(p, t->type, number * BLOCK * 7919, p->pool_size / BLOCK * BLOCK, size, values);
    for (size_t n = whole; at < t->bytes; at += n) {
        n = t->bytes - at < whole ? t->bytes - at : whole;
        memcpy(to + at, values, n);
    }
    free(values);
}

static void fill_norm(const perf *p, const tensor *t, int64_t number, uint8_t *to) {
    perf_values(p, MX_FILE_F32, number * 977, t->out, 0.1, to);
    for (int64_t i = 0; i < t->out; i++) {
        float v;

        memcpy(&v, to + 4 * i, sizeof v);
        v += 1;
        memcpy(to + 4 * i, &v, sizeof v);
    }
}

static mx_code write_all(const perf *p, const writer *w, int fd, size_t size, mx_status *st) {
    uint8_t *to;

    if (ftruncate(fd, (off_t)size) != 0) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for a base of %s: %s", mx_text_bytes(size), strerror(errno));
    }
    to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (to == MAP_FAILED) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for a base of %s: %s", mx_text_bytes(size), strerror(errno));
    }
    memcpy(to, w->header.data, w->header.length);
#pragma omp parallel for schedule(dynamic)
    for (uint64_t i = 0; i < w->tensors; i++) {
        (w->tensor[i].in ? fill_matrix : fill_norm)(p, &w->tensor[i], (int64_t)i, to + w->header.length + w->tensor[i].offset);
    }
    munmap(to, size);
    return MX_OK;
}

static mx_code make(const perf *p, const perf_shape *s, mx_file_type type, writer *w, perf_base *ret, mx_status *st) {
    size_t available = mx_memory_available(), size;

    add(w, type, "token_embd.weight", s->vocab, s->hidden);
    for (int64_t i = 0; i < s->layers; i++) {
        add_layer(w, s, type, i);
    }
    add(w, type, "output_norm.weight", s->hidden, 0);
    if (!s->tied) {
        add(w, type, "output.weight", s->vocab, s->hidden);
    }
    put_header(w, s);
    size = w->header.length + w->bytes;
    if (size + ((size_t)1 << 30) > available) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "a random base of %s needs %s of the host's memory; %s are free", s->name,
                       mx_text_bytes(size), mx_text_bytes(available));
    }
    ret->fd = memfd_create("mixrun-perf-base", MFD_CLOEXEC);
    if (ret->fd < 0) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no file in memory: %s", strerror(errno));
    }
    ret->bytes = size;
    return write_all(p, w, ret->fd, size, st);
}

mx_code perf_base_open(const perf *p, const perf_shape *s, mx_file_type type, mx_arena *arena, perf_base *ret, mx_status *st) {
    writer w = { .tensor = calloc((size_t)(s->layers * TENSORS_OF_LAYER + 3), sizeof *w.tensor) };
    mx_code code;

    assert(w.tensor);
    *ret = (perf_base){ .fd = -1 };
    mx_text_init(&w.header, 16 << 20);
    code = make(p, s, type, &w, ret, st);
    if (!code) {
        code = mx_base_file_open(mx_arena_text(arena, "/proc/self/fd/%d", ret->fd), arena, &ret->file, st);
    }
    mx_text_finish(&w.header);
    free(w.tensor);
    if (code) {
        perf_base_close(ret);
    }
    return code;
}

void perf_base_close(perf_base *b) {
    mx_base_file_close(b->file);
    if (b->bytes && b->fd >= 0) {
        close(b->fd);
    }
    *b = (perf_base){ .fd = -1 };
}
