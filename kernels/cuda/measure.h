/* measure.h - what a benchmark asks of the CUDA backend beyond its verbs: the bare product, and the device's free memory.
 *
 * Exists in every build (absent.c), so that the benchmark needs not know how it was built; `b` is an open CUDA backend. */
#ifndef KERNELS_CUDA_MEASURE_H
#define KERNELS_CUDA_MEASURE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/backend.h"

/* Row-major in device memory, `ld` values from row to row; `transposed`: the matrix meant is the transpose of what is stored. */
typedef struct mx_measured_matrix {
    const void *data;
    mx_dtype dtype;
    int64_t ld;
    bool transposed;
} mx_measured_matrix;

/* Queues Y (m,n) = A (m,k) B (k,n) as the ops do (mx_cuda_gemm). */
void mx_cuda_measure_product(mx_backend *b, int64_t m, int64_t n, int64_t k, mx_measured_matrix a, mx_measured_matrix w,
                             mx_measured_matrix y);
/* Of the device's memory, as the driver counts it now, other programs' part taken off. Waits. */
size_t mx_cuda_measure_free(mx_backend *b);

#ifdef __cplusplus
}
#endif

#endif
