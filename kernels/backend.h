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

/* Matrices that read the same input (q, k, v; gate and up; one alone), opened together so that a backend may keep them as
 * one:  [[W, room], [room]].  `columns`: ranks of all low-rank terms that the group's linears will be given, whose B's stand
 * behind W's columns while they are multiplied; `rows`: ranks whose A's stand under W's rows. 0: none are to come. A call
 * that brings more than there is room for is still computed, only slower. */
typedef struct mx_weight_room {
    int64_t columns, rows;
} mx_weight_room;
enum { MX_WEIGHT_GROUP = 3 }; /* most matrices of a group */

typedef struct mx_backend_options {
    const char *device; /* "cpu", "cuda", "cuda:1" */
    mx_precision precision;
    int threads;       /* CPU; 0: all */
    bool plain_gemm;   /* CPU: the plain C GEMM instead of oneDNN (tests) */
    bool host_visible; /* a device's memory must be one the host can follow, however slow (tests) */
} mx_backend_options;

struct mx_backend {
    const char *name; /* "cpu" */
    char description[320]; /* "2 threads, avx512_bf16, oneDNN 2.6.3"; "NVIDIA H200, sm_90, 139.8 GiB, cuBLASLt 13.1" */
    size_t device_bytes;   /* memory of its own that the device has; 0: the host's */
    size_t free_bytes;     /* of it, when the backend was opened */
    uint64_t waits;        /* how often the host has waited for the device: read, sync, wait, a full write ring, allocations */
    uint64_t allocations;  /* calls that took or gave back device or page-locked memory */
    mx_precision precision;
    bool emulated_bf16; /* bf16 asked for on a processor without it: rounded in software */
    const mx_ops *ops;

    /* What will be allocated for a purpose, when that is known before: a device then takes it at once, and blocks come out of it
     * while they fit (256 bytes each at least). It is given back with the last of them. The CPU does nothing. */
    mx_code (*reserve)(mx_backend *b, mx_memory purpose, size_t bytes, mx_status *st);
    /* Zeroed, 64-byte aligned. NULL in *ret and MX_E_MEMORY when there is none. */
    mx_code (*alloc)(mx_backend *b, mx_memory purpose, size_t bytes, void **ret, mx_status *st);
    void (*release)(mx_backend *b, mx_memory purpose, void *memory); /* NULL is fine */
    size_t (*used_bytes)(const mx_backend *b, mx_memory purpose);    /* now held, weights included */
    void (*write)(mx_backend *b, void *to, const void *from_host, size_t bytes); /* host memory may be reused at once */
    void (*read)(mx_backend *b, void *to_host, const void *from, size_t bytes);  /* waits */
    void (*zero)(mx_backend *b, void *to, size_t bytes);
    mx_code (*sync)(mx_backend *b, mx_status *st); /* a lost kernel shows here */

    /* Reading without waiting: queue_read returns at once, and `to_host` (from host_alloc) holds the bytes when a wait for a
     * mark taken behind it has come back. Marks count up; a wait for one that has passed costs nothing. wait tells what sync
     * tells. The CPU has done everything when a call returns. */
    mx_code (*host_alloc)(mx_backend *b, size_t bytes, void **ret, mx_status *st); /* zeroed, page-locked where that matters */
    void (*host_release)(mx_backend *b, void *memory);                             /* NULL is fine */
    void (*queue_read)(mx_backend *b, void *to_host, const void *from, size_t bytes);
    uint64_t (*mark)(mx_backend *b); /* at most MX_MARKS marks may be waited for at a time */
    mx_code (*wait)(mx_backend *b, uint64_t mark, mx_status *st);

    /* Opens `count` matrices of one input (MX_WEIGHT_GROUP at most) into ret[], all or none. Closed one by one. A group of more
     * than one is used for linears only. */
    mx_code (*weights_open)(mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use,
                            mx_weight **ret, mx_status *st);
    void (*weight_close)(mx_backend *b, mx_weight *w); /* NULL is fine */
    /* What weights_open will hold for such a group (from[].bytes is not followed); for the plan, before any weight is read. */
    size_t (*weights_bytes)(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use);

    /* What all groups share (a place to expand quantised ones to), as far as this group needs it: a plan adds the largest once to
     * MX_MEMORY_WEIGHTS; it is no part of a reservation. */
    size_t (*weights_shared_bytes)(const mx_backend *b, const mx_weight_source *from, int count, mx_weight_room room, unsigned use);

    void (*close)(mx_backend *b);
};
enum { MX_MARKS = 8 };

/* MX_E_DEVICE with words the user can act on: unknown device, built without CUDA, table with a hole.
 * One CPU backend per process at a time (threads and primitive caches are process-wide). */
MX_MUST_CHECK mx_code mx_backend_open(const mx_backend_options *o, mx_backend **ret, mx_status *st);
/* One matrix by itself, without room. */
static inline mx_code mx_weight_open(mx_backend *b, const mx_weight_source *from, unsigned use, mx_weight **ret, mx_status *st) {
    mx_weight_room none = { 0, 0 };

    return b->weights_open(b, from, 1, none, use, ret, st);
}

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
