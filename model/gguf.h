/* gguf.h - reading GGUF, version 2 and 3: metadata and tensors of a mapped file.
 *
 * Everything is checked when the file is opened: counts against what is left of the file, texts, nested lists,
 * alignment, shapes, types, that each tensor lies within the file and none overlaps another. After that every
 * pointer handed out is good until the file is closed. Names follow the format's own text
 * (ggml/docs/gguf.md); little-endian files only, as everywhere. */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H

#include "base/arena.h"
#include "base/status.h"
#include "kernels/backend.h"

typedef struct mx_gguf mx_gguf;

/* Bytes in the map, without a closing 0 and not always UTF-8. */
typedef struct mx_gguf_text {
    const char *bytes;
    size_t length;
} mx_gguf_text;

enum { MX_GGUF_DIMS = 4 };
typedef struct mx_gguf_tensor {
    const char *name; /* closed by 0; owned by the mx_gguf */
    mx_file_type type;
    int rank;
    int64_t dim[MX_GGUF_DIMS]; /* outermost first, as in mx_tensor (the file has them the other way round) */
    const void *bytes;         /* in the map */
    size_t size;
    uint64_t offset; /* of `bytes` in the file */
} mx_gguf_tensor;

/* MX_E_IO, MX_E_DATA, MX_E_MEMORY. `path` is the file in every later error: it must outlive them. Reads the
 * header only; values are paged in when they are looked at. */
MX_MUST_CHECK mx_code mx_gguf_open(const char *path, mx_gguf **ret, mx_status *st);
/* The same on bytes in memory, which must outlive it (fuzzing, tests). */
MX_MUST_CHECK mx_code mx_gguf_parse(const void *bytes, size_t size, const char *path, mx_gguf **ret, mx_status *st);
void mx_gguf_close(mx_gguf *g); /* NULL is fine */

const char *mx_gguf_path(const mx_gguf *g);
size_t mx_gguf_tensor_count(const mx_gguf *g);
const mx_gguf_tensor *mx_gguf_tensor_at(const mx_gguf *g, size_t i); /* in the file's order of offsets */
const mx_gguf_tensor *mx_gguf_find(const mx_gguf *g, const char *name); /* NULL when there is none */

/* Metadata. A key that is absent leaves *ret as it was and is no error: put the default there first.
 * A key of another kind is MX_E_DATA and names it. `ret_found` may be NULL. Integers of every width and sign
 * are read by _integer (u64 past int64's end is an error), f32, f64 and integers by _real. */
MX_MUST_CHECK mx_code mx_gguf_integer(const mx_gguf *g, const char *key, int64_t *ret, bool *ret_found, mx_status *st);
MX_MUST_CHECK mx_code mx_gguf_real(const mx_gguf *g, const char *key, double *ret, bool *ret_found, mx_status *st);
MX_MUST_CHECK mx_code mx_gguf_boolean(const mx_gguf *g, const char *key, bool *ret, bool *ret_found, mx_status *st);
/* A copy closed by 0, in the arena; a text with a 0 inside is an error. */
MX_MUST_CHECK mx_code mx_gguf_word(const mx_gguf *g, const char *key, mx_arena *arena, const char **ret,
                                   bool *ret_found, mx_status *st);
/* Lists: tokens and merges; scores and types (any numeric kind; exact for every kind but 64-bit integers past
 * 2^53). The array is in the arena, the texts' bytes in the map. Absent: *ret and *ret_count untouched. */
MX_MUST_CHECK mx_code mx_gguf_texts(const mx_gguf *g, const char *key, mx_arena *arena, const mx_gguf_text **ret,
                                    size_t *ret_count, bool *ret_found, mx_status *st);
MX_MUST_CHECK mx_code mx_gguf_numbers(const mx_gguf *g, const char *key, mx_arena *arena, const double **ret,
                                      size_t *ret_count, bool *ret_found, mx_status *st);

#endif
