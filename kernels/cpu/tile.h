/* tile.h - products of blocks that live in the first cache, by one thread.
 *
 * The routed block multiplies 32 rows of one expert by thin factors (rank 8 to 64) between element loops; handing
 * those to the GEMM would write and read every intermediate through memory. Here the right factor is packed once per
 * call and the rest stays in cache. All sizes are padded by the caller: rows to 16, columns to 16, the inner one to
 * mx_tile_depth; what pads the inner one is zero on both sides. */
#ifndef KERNELS_CPU_TILE_H
#define KERNELS_CPU_TILE_H

#include "kernels/cpu/cpu.h"

enum { MX_TILE_ROWS = 32, MX_TILE_COLUMNS = 64, MX_TILE_STEP = 16 };

typedef enum mx_tile_kind {
    MX_TILE_F32,
    MX_TILE_BF16,        /* plain C */
    MX_TILE_BF16_AVX512, /* vdpbf16ps */
    MX_TILE_BF16_AMX     /* tdpbf16ps */
} mx_tile_kind;

/* The fastest this process may use for operands of `dtype`; `plain`: in C, the oracle of the others. */
mx_tile_kind mx_tile_choose(mx_dtype dtype, bool plain);

static inline int64_t mx_tile_up(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
}
static inline int64_t mx_tile_depth(mx_dtype dtype, int64_t k) {
    return dtype == MX_BF16 ? mx_tile_up(k, 32) : k;
}
/* Bytes of a packed right factor; k and n already padded. */
static inline size_t mx_tile_packed_bytes(mx_dtype dtype, int64_t k, int64_t n) {
    return (size_t)(k * n) * mx_dtype_bytes(dtype);
}

/* Packs scale * from, element (i,j) of (k,n) at from[i * down + j * right], into a padded (k_all, n_all). f32: rows as
 * they are. bf16: pairs of rows side by side, element (i,j) at [i / 2][j][i % 2], as both instructions want it. */
void mx_tile_pack(mx_dtype dtype, void *to, int64_t k_all, int64_t n_all, const float *from, int64_t k, int64_t n,
                  int64_t down, int64_t right, float scale);
/* The same for a block (k,n) that is of the type already, row-major; k even. */
void mx_tile_pack_rows(mx_dtype dtype, void *to, const void *from, int64_t k, int64_t n);

/* C (m,n) = A (m,k) B, or += with `add`. A row-major of the kind's type, B packed, n its padded width. */
void mx_tile_product(mx_tile_kind kind, float *c, int64_t ldc, const void *a, int64_t lda, const void *b, int64_t m,
                     int64_t n, int64_t k, bool add);

/* Around all products of one thread. */
void mx_tile_begin(mx_tile_kind kind);
void mx_tile_end(mx_tile_kind kind);

#endif
