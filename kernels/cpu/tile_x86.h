/* tile_x86.h - the two x86 instructions for bf16 products, each behind a question that must be asked first. */
#ifndef KERNELS_CPU_TILE_X86_H
#define KERNELS_CPU_TILE_X86_H

#include <stdbool.h>
#include <stdint.h>

bool mx_tile_has_avx512_bf16(void);
/* Also asks the kernel for this process's leave to use the tile registers. */
bool mx_tile_has_amx(void);

/* As mx_tile_product, for bf16. */
void mx_tile_product_avx512(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t m,
                            int64_t n, int64_t k, bool add);
void mx_tile_product_amx(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t m, int64_t n,
                         int64_t k, bool add);
/* Load and free this thread's tile configuration: 16 rows of 64 bytes in every tile. */
void mx_tile_amx_begin(void);
void mx_tile_amx_end(void);

#endif
