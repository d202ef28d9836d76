/* noise.h - the inner loops of noise.c that AVX-512 does many times faster than compiled C. */
#ifndef KERNELS_CPU_NOISE_H
#define KERNELS_CPU_NOISE_H

#include "base/rng.h"

#include <stdbool.h>

/* What names the draws of one row. */
typedef struct mx_noise_row {
    mx_rng_key key;
    uint32_t position, question, site;
} mx_noise_row;

/* `bits` of a row's columns, whole 64-bit words: bit j is 1 when column j's 16 bits are at least `limit`. */
typedef struct mx_noise_loops {
    void (*draw)(uint8_t *bits, const mx_noise_row *row, int64_t columns, uint32_t limit);
    /* The 16 bits of columns [begin, begin + 256), begin a multiple of 8. */
    void (*halves)(uint16_t ret[256], const mx_noise_row *row, int64_t begin);
    void (*mask_bf16)(uint16_t *y, const uint16_t *x, const uint8_t *bits, int64_t columns);
    /* y = kept scale x, or y += with `add` */
    void (*mask_f32)(float *y, const float *x, const uint8_t *bits, float scale, int64_t columns, bool add);
} mx_noise_loops;

/* NULL where the processor (or the compiler's target) has no AVX-512. */
const mx_noise_loops *mx_noise_loops_avx512(void);

#endif
