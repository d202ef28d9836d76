/* cublaslt.h - cuBLASLt as we use it: found and opened at run time, a table of functions.
 *
 * It is never linked: 540 MiB that are there on machines with a GPU and nowhere else. The part of its ABI that we use is
 * declared here, so that a build needs no toolkit; where one is, cublaslt.cu holds it against the real header. The shim has
 * the same functions over the CPU's product (shim/cublaslt.cc). */
#ifndef KERNELS_CUDA_CUBLASLT_H
#define KERNELS_CUDA_CUBLASLT_H

#include "kernels/cuda/portable.h"

extern "C" {
#include "base/status.h"
}

/* ------------------------------------------------------------------ the library's types and numbers */
typedef struct cublasLtContext *mx_lt_handle;
struct mx_lt_description; /* of a product; opaque */
struct mx_lt_preference;  /* opaque */
struct mx_lt_layout {     /* of a matrix; opaque, made in place */
    uint64_t data[8];
};
struct mx_lt_algorithm { /* may be stored and used again with the same version of the library */
    uint64_t data[8];
};
struct mx_lt_result {
    mx_lt_algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

enum mx_lt_status {
    MX_LT_SUCCESS = 0,
    MX_LT_NOT_INITIALIZED = 1,
    MX_LT_ALLOC_FAILED = 3,
    MX_LT_INVALID_VALUE = 7,
    MX_LT_ARCH_MISMATCH = 8,
    MX_LT_NOT_SUPPORTED = 15,
};
enum mx_lt_type { MX_LT_F32 = 0, MX_LT_BF16 = 14 };
/* Pedantic: f32 factors multiplied as f32, whatever an environment variable says of TF32. */
enum mx_lt_compute { MX_LT_COMPUTE_F32 = 68, MX_LT_COMPUTE_F32_PEDANTIC = 69 };
enum mx_lt_operation { MX_LT_PLAIN = 0, MX_LT_TRANSPOSED = 1 };
enum mx_lt_description_attribute { MX_LT_TRANSPOSE_A = 3, MX_LT_TRANSPOSE_B = 4 };
enum mx_lt_preference_attribute {
    MX_LT_WORKSPACE_BYTES = 1, /* uint64_t */
    MX_LT_REDUCTION_MASK = 3,  /* uint32_t, as those that follow */
    MX_LT_ALIGNMENT_A = 5,
    MX_LT_ALIGNMENT_B = 6,
    MX_LT_ALIGNMENT_C = 7,
    MX_LT_ALIGNMENT_D = 8,
};
/* A sum over k that is split: none, or f32 parts in the workspace, added in order by a kernel of its own. The other schemes
 * round the parts to the result's type. */
enum mx_lt_reduction { MX_LT_REDUCE_IN_F32 = 2 };

/* Memory that an algorithm may use: what NVIDIA advises for Hopper, twice. */
#ifdef __CUDACC__
static constexpr size_t MX_LT_WORKSPACE = (size_t)64 << 20;
#else
static constexpr size_t MX_LT_WORKSPACE = (size_t)64 << 10; /* a host's tests open hundreds of backends */
#endif

/* ------------------------------------------------------------------ the table */
struct mx_cublaslt {
    void *object;    /* dlopen's; NULL on the shim */
    char path[512];  /* where it was found */
    size_t version;  /* 130100: 13.1.0 */
    int (*create)(mx_lt_handle *);
    int (*destroy)(mx_lt_handle);
    size_t (*get_version)(void);
    const char *(*status_name)(int);
    int (*description_create)(mx_lt_description **, int compute, int scale_type);
    int (*description_destroy)(mx_lt_description *);
    int (*description_set)(mx_lt_description *, int attribute, const void *, size_t);
    int (*layout_init)(mx_lt_layout *, size_t size, int type, uint64_t rows, uint64_t columns, int64_t ld);
    int (*preference_create)(mx_lt_preference **);
    int (*preference_destroy)(mx_lt_preference *);
    int (*preference_set)(mx_lt_preference *, int attribute, const void *, size_t);
    int (*heuristic)(mx_lt_handle, mx_lt_description *, mx_lt_layout *a, mx_lt_layout *b, mx_lt_layout *c, mx_lt_layout *d,
                     mx_lt_preference *, int wanted, mx_lt_result *, int *found);
    int (*matmul)(mx_lt_handle, mx_lt_description *, const void *alpha, const void *a, mx_lt_layout *, const void *b, mx_lt_layout *,
                  const void *beta, const void *c, mx_lt_layout *, void *d, mx_lt_layout *, const mx_lt_algorithm *, void *workspace,
                  size_t workspace_bytes, cudaStream_t);
};

/* Looks for libcublasLt.so.13, then .12, in: the file or folder $MIXRUN_CUBLASLT (when it is set, nowhere else); the loader's
 * path; the CUDA toolkit ($CUDA_HOME, /usr/local/cuda, /usr/local/cuda-*); Python's nvidia packages ($VIRTUAL_ENV, $CONDA_PREFIX,
 * the python3 on PATH, ~/.local). Needs no driver. MX_E_DEVICE, with a hint where it was looked for. On the shim: its own,
 * unless $MIXRUN_CUBLASLT names another. */
mx_code mx_cublaslt_open(mx_cublaslt *ret, mx_status *st);
/* The looking alone, in some of the places, whatever $MIXRUN_CUBLASLT says. */
enum mx_lt_place { MX_LT_IN_LOADER = 1, MX_LT_IN_TOOLKITS = 2, MX_LT_IN_PYTHONS = 4 };
bool mx_cublaslt_search(mx_cublaslt *ret, unsigned places);
void mx_cublaslt_close(mx_cublaslt *lt);
/* "cuBLASLt 13.1.0 (/usr/lib/libcublasLt.so.13)"; of NULL or one that is not open: "no cuBLASLt". */
void mx_cublaslt_describe(const mx_cublaslt *lt, char *text, size_t size);

#endif
