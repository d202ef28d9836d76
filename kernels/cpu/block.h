/* block.h - small f32 products by one thread, for loops that keep everything in the caches. */
#ifndef KERNELS_CPU_BLOCK_H
#define KERNELS_CPU_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

enum { MX_BLOCK_ROWS = 4, MX_BLOCK_COLUMNS = 16 };

static inline int64_t mx_block_up(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
}

/* C (m,n) = A (m,k) B (k,n), or += with `add`. A's element (i,p) at a[i * a_row + p * a_column], so either orientation;
 * B and C row-major. m a multiple of 4, n of 16: rows and columns beyond are padded by the caller. */
void mx_block_product(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_column, const float *b, int64_t ldb,
                      int64_t m, int64_t n, int64_t k, bool add);

#endif
