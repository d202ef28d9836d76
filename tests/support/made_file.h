/* made_file.h - small model files made in memory, right or wrong as a test wants them. */
#ifndef TESTS_SUPPORT_MADE_FILE_H
#define TESTS_SUPPORT_MADE_FILE_H

#include "base/file.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Growing bytes. */
typedef struct made {
    uint8_t *bytes;
    size_t size;
} made;

static inline void made_put(made *m, const void *bytes, size_t size) {
    m->bytes = realloc(m->bytes, m->size + size + 1);
    assert(m->bytes);
    if (size) {
        memcpy(m->bytes + m->size, bytes, size);
    }
    m->size += size;
}

static inline void made_u32(made *m, uint32_t v) {
    made_put(m, &v, sizeof v);
}

static inline void made_u64(made *m, uint64_t v) {
    made_put(m, &v, sizeof v);
}

static inline void made_f32(made *m, float v) {
    made_put(m, &v, sizeof v);
}

/* GGUF's text: a length and the bytes. */
static inline void made_text(made *m, const char *text) {
    made_u64(m, strlen(text));
    made_put(m, text, strlen(text));
}

static inline void made_align(made *m, size_t to) {
    static const uint8_t ZERO[64] = { 0 };

    assert(to <= sizeof ZERO);
    made_put(m, ZERO, (to - m->size % to) % to);
}

static inline void made_finish(made *m) {
    free(m->bytes);
    *m = (made){ 0 };
}

static inline void made_write(const made *m, const char *path) {
    mx_status st = { 0 };

    if (mx_file_write(path, m->bytes, m->size, &st)) {
        mx_status_print(&st, stderr);
        abort();
    }
}

/* ---- GGUF ---- */

enum { GGUF_U32 = 4, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_TEXT = 8, GGUF_LIST = 9, GGUF_U64 = 10 };

static inline void gguf_begin(made *m, uint32_t version, uint64_t tensors, uint64_t keys) {
    made_put(m, "GGUF", 4);
    made_u32(m, version);
    made_u64(m, tensors);
    made_u64(m, keys);
}

static inline void gguf_key_u32(made *m, const char *key, uint32_t v) {
    made_text(m, key);
    made_u32(m, GGUF_U32);
    made_u32(m, v);
}

static inline void gguf_key_f32(made *m, const char *key, float v) {
    made_text(m, key);
    made_u32(m, GGUF_F32);
    made_f32(m, v);
}

static inline void gguf_key_text(made *m, const char *key, const char *v) {
    made_text(m, key);
    made_u32(m, GGUF_TEXT);
    made_text(m, v);
}

/* Dimensions outermost first, as the reader gives them back; 0 columns: a vector. Offsets count within the data. */
static inline void gguf_tensor(made *m, const char *name, uint64_t rows, uint64_t columns, uint32_t type,
                               uint64_t offset) {
    made_text(m, name);
    made_u32(m, columns ? 2 : 1);
    if (columns) {
        made_u64(m, columns);
    }
    made_u64(m, rows);
    made_u32(m, type);
    made_u64(m, offset);
}

/* ---- safetensors ---- */

/* A header's text and `data` bytes of 0, 1, 2, ... after it. */
static inline made safetensors_made(const char *header, size_t data) {
    made m = { 0 };

    made_u64(&m, strlen(header));
    made_put(&m, header, strlen(header));
    for (size_t i = 0; i < data; i++) {
        made_put(&m, &(uint8_t){ (uint8_t)i }, 1);
    }
    return m;
}

/* A folder of the test's own, removed by nobody else; in a static buffer. */
static inline const char *made_folder(void) {
    static char path[] = "/tmp/mixrun-test-XXXXXX";

    if (!mkdtemp(path)) {
        abort();
    }
    return path;
}

static inline void made_folder_remove(const char *path) {
    mx_status st = { 0 };

    if (mx_folder_remove(path, &st)) {
        mx_status_print(&st, stderr);
    }
}

#endif
