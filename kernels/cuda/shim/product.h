/* product.h - the CPU's plain product, for the shim's cuBLASLt, which is C++. */
#ifndef KERNELS_CUDA_SHIM_PRODUCT_H
#define KERNELS_CUDA_SHIM_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct shim_factor {
    const void *data;
    int64_t ld;
    bool transposed; /* row-major; the factor meant is the transpose of what is stored */
} shim_factor;

/* c (m,n) = or += a (m,k) b (k,n), row-major, both factors f32 or both bf16. */
void shim_product(int64_t m, int64_t n, int64_t k, shim_factor a, shim_factor b, bool bf16, void *c, int64_t c_ld, bool c_bf16, bool add);

#endif
