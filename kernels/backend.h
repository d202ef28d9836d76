/* backend.h - a device as a few verbs: open by name, memory by purpose, frozen weights, copies.
 *
 * A backend is this small table and one mx_ops (ops.h). Both are whole or the opening is refused.
 * Work is queued in order; `read` and `sync` wait for it, nothing else does. */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "base/status.h"
#include "kernels/tensor.h"

typedef struct mx_backend mx_backend;
typedef struct mx_ops mx_ops;
typedef struct mx_weight mx_weight; /* a frozen matrix in whatever layout the backend likes; read-only, shared */

/* Activations' and frozen weights' type. Adapters, moments, losses are always f32 or wider. */
typedef enum mx_precision { MX_PRECISION_F32, MX_PRECISION_BF16 } mx_precision;

typedef enum mx_memory {
    MX_MEMORY_WEIGHTS, /* frozen */
    MX_MEMORY_TRAINED, /* adapters, gradients, moments */
    MX_MEMORY_SAVED,   /* activations kept for the backward pass */
    MX_MEMORY_SCRATCH,
    MX_MEMORY_BATCH, /* ids, positions, masks, tallies, numbers */
    MX_MEMORY_PURPOSES
} mx_memory;

/* How a file stores a matrix's values. Block formats are those of ggml. */
typedef enum mx_file_type {
    MX_FILE_F32, MX_FILE_F16, MX_FILE_BF16,
    MX_FILE_Q8_0, MX_FILE_Q4_0, MX_FILE_Q4_1, MX_FILE_Q5_0, MX_FILE_Q5_1,
    MX_FILE_TYPES
} mx_file_type;

/* Where a frozen matrix (out, in) comes from: borrowed bytes, row-major, rows of whole blocks. */
typedef struct mx_weight_source {
    mx_file_type type;
    const void *bytes; /* may be unaligned; must outlive the opening only */
    int64_t out, in;
    int64_t unpermute_heads; /* > 0: rows lie as GGUF stores LLaMA's q and k with this many heads: within a head of
                                D rows, stored row 2i + h is row i + h D/2 of the Hugging Face layout */
} mx_weight_source;

enum { MX_USE_LINEAR = 1, MX_USE_EMBEDDING = 2 }; /* a tied head is both */

typedef struct mx_backend_options {
    const char *device; /* "cpu", "cuda", "cuda:1" */
    mx_precision precision;
    int threads;       /* CPU; 0: all */
    bool plain_gemm;   /* CPU: the plain C GEMM instead of oneDNN (tests) */
} mx_backend_options;

struct mx_backend {
    const char *name; /* "cpu" */
    char description[160]; /* "2 threads, avx512_bf16, oneDNN 2.6.3" */
    mx_precision precision;
    bool emulated_bf16; /* bf16 asked for on a processor without it: rounded in software */
    const mx_ops *ops;

    /* Zeroed, 64-byte aligned. NULL in *ret and MX_E_MEMORY when there is none. */
    mx_code (*alloc)(mx_backend *b, mx_memory purpose, size_t bytes, void **ret, mx_status *st);
    void (*release)(mx_backend *b, mx_memory purpose, void *memory); /* NULL is fine */
    size_t (*used_bytes)(const mx_backend *b, mx_memory purpose);    /* now held, weights included */
    void (*write)(mx_backend *b, void *to, const void *from_host, size_t bytes); /* host memory may be reused at once */
    void (*read)(mx_backend *b, void *to_host, const void *from, size_t bytes);  /* waits */
    void (*zero)(mx_backend *b, void *to, size_t bytes);
    mx_code (*sync)(mx_backend *b, mx_status *st); /* a lost kernel shows here */

    mx_code (*weight_open)(mx_backend *b, const mx_weight_source *from, unsigned use, mx_weight **ret, mx_status *st);
    void (*weight_close)(mx_backend *b, mx_weight *w); /* NULL is fine */
    /* What weight_open will hold for such a matrix; for the plan, before any weight is read. */
    size_t (*weight_bytes)(const mx_backend *b, int64_t out, int64_t in, mx_file_type type, unsigned use);

    void (*close)(mx_backend *b);
};

/* MX_E_DEVICE with words the user can act on: unknown device, built without CUDA, table with a hole.
 * One CPU backend per process at a time (threads and primitive caches are process-wide). */
MX_MUST_CHECK mx_code mx_backend_open(const mx_backend_options *o, mx_backend **ret, mx_status *st);
/* What a device would be, without allocating on it: the fields above, for plan, validate and env. */
bool mx_cpu_has_bf16(void);

/* Bytes of one row of `in` values, or 0 when `in` is not whole blocks. */
size_t mx_file_type_row_bytes(mx_file_type type, int64_t in);
const char *mx_file_type_name(mx_file_type type); /* "Q4_1" */
/* One row to f32; the reference for every backend's own reading (ggml's formulas). */
void mx_file_type_decode(mx_file_type type, const void *row, int64_t in, float *ret);

static inline mx_dtype mx_activation_type(const mx_backend *b) {
    return b->precision == MX_PRECISION_BF16 ? MX_BF16 : MX_F32;
}

#endif
