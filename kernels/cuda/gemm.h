/* gemm.h - the two ways a product is computed, for gemm*.cu and their tests. */
#ifndef KERNELS_CUDA_GEMM_H
#define KERNELS_CUDA_GEMM_H

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda.h"

/* mx_cuda_gemm by our own kernel, whatever the shape (gemm_own.cu). */
void mx_cuda_gemm_own(mx_cuda *c, int64_t m, int64_t n, int64_t k, mx_matrix a, mx_matrix b, mx_matrix y, float alpha, bool add);

/* The library's workspace, free for others between products. */
void *mx_cuda_gemm_workspace(mx_cuda *c, size_t *ret_bytes);

/* What happened since the backend was opened. */
struct mx_cuda_gemm_counts {
    uint64_t asked;      /* times the library was asked for an algorithm */
    uint64_t by_library; /* products it computed */
    uint64_t by_us;      /* and those it did not take */
};
mx_cuda_gemm_counts mx_cuda_gemm_counted(const mx_cuda *c);

#endif
