/* product.c - see product.h. */
#include "kernels/cuda/shim/product.h"

#include "kernels/cpu/cpu.h"

#include <omp.h>

/* There when ThreadSanitizer is. It does not see how OpenMP's threads wait for each other and would call every hand-over of
 * theirs a race: one thread then. */
extern void __tsan_init(void) __attribute__((weak));

void shim_product(int64_t m, int64_t n, int64_t k, shim_factor a, shim_factor b, bool bf16, void *c, int64_t c_ld, bool c_bf16, bool add) {
    mx_dtype type = bf16 ? MX_BF16 : MX_F32;
    mx_factor left = { .data = a.data, .dtype = type, .ld = a.ld, .transposed = a.transposed };
    mx_factor right = { .data = b.data, .dtype = type, .ld = b.ld, .transposed = b.transposed };
    int threads = omp_get_max_threads();

    if (__tsan_init || m * n * k < 1 << 21) { /* or waking them takes longer than the product */
        omp_set_num_threads(1);
    }
    mx_gemm_plain(m, n, k, left, right, mx_product_of(c, c_bf16 ? MX_BF16 : MX_F32, c_ld), add);
    omp_set_num_threads(threads);
}
