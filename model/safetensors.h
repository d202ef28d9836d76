/* safetensors.h - reading a mapped safetensors file, and writing one of f32 tensors.
 *
 * The reader accepts what the format's own library accepts and no more: a JSON header of at most 100 MB, each
 * tensor's bytes exactly its shape times its type, no overlap, no hole, nothing after the last. Checked at
 * opening; after that every pointer is good until the file is closed. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include "base/json.h"
#include "base/status.h"
#include "kernels/backend.h"

typedef struct mx_safetensors mx_safetensors;

enum { MX_SAFETENSORS_DIMS = 8 };
typedef struct mx_safetensor {
    const char *name;
    const char *dtype; /* the format's word: "F32", "BF16", "I64", ... */
    mx_file_type type; /* MX_FILE_TYPES for a dtype that no weight of ours has (integers, F64, F8) */
    int rank;          /* 0: a scalar */
    int64_t dim[MX_SAFETENSORS_DIMS];
    const void *bytes; /* in the map; may be unaligned */
    size_t size;
} mx_safetensor;

/* MX_E_IO, MX_E_DATA, MX_E_MEMORY. `path` is the file in every later error: it must outlive them. */
MX_MUST_CHECK mx_code mx_safetensors_open(const char *path, mx_safetensors **ret, mx_status *st);
/* The same on bytes in memory, which must outlive it (fuzzing, tests). */
MX_MUST_CHECK mx_code mx_safetensors_parse(const void *bytes, size_t size, const char *path, mx_safetensors **ret,
                                           mx_status *st);
void mx_safetensors_close(mx_safetensors *s); /* NULL is fine */

const char *mx_safetensors_path(const mx_safetensors *s);
size_t mx_safetensors_count(const mx_safetensors *s);
const mx_safetensor *mx_safetensors_at(const mx_safetensors *s, size_t i); /* by offset */
const mx_safetensor *mx_safetensors_find(const mx_safetensors *s, const char *name); /* NULL when there is none */
/* A text of "__metadata__", or NULL. */
const char *mx_safetensors_metadata(const mx_safetensors *s, const char *key);

/* A named array of f32 in host memory; writers take a list of them, in any order. */
typedef struct mx_named_values {
    const char *name;
    int rank;
    int64_t dim[4];
    const float *data;
} mx_named_values;

/* Written beside `path`, fsynced, renamed over it: a crash leaves old or new. Tensors lie in the list's order,
 * the first 8-byte aligned; `metadata` (texts to texts) may be NULL and then is {"format": "pt"}, which PEFT asks for.
 * Names must differ (programmer's error). MX_E_IO, MX_E_MEMORY. */
MX_MUST_CHECK mx_code mx_safetensors_write(const char *path, const mx_named_values *values, size_t count,
                                           const json_t *metadata, mx_status *st);

#endif
