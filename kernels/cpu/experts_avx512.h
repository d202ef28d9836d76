/* experts_avx512.h - the element loops of experts_rows.c for bf16 in AVX-512; only where mx_tile_choose found it. */
#ifndef KERNELS_CPU_EXPERTS_AVX512_H
#define KERNELS_CPU_EXPERTS_AVX512_H

#include "kernels/cpu/experts.h"

void mx_expert_rows_forward_avx512(const mx_expert_rows *e);
void mx_expert_rows_backward_avx512(const mx_expert_rows *e);
/* (rows, 64) f32 -> the first `width` columns of bf16 rows `ld` apart. */
void mx_expert_strip_store_avx512(uint16_t *to, int64_t ld, const float *from, int64_t rows, int64_t width);

#endif
