/* values.c - numbers from one type to another. */
#include "kernels/cpu/cpu.h"

MX_CLONES static void narrow(uint16_t *restrict to, const float *restrict from, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        to[i] = mx_bf16_round(from[i]);
    }
}

MX_CLONES static void widen(float *restrict to, const uint16_t *restrict from, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        to[i] = mx_bf16_widen(from[i]);
    }
}

void mx_values_convert(void *to, mx_dtype to_type, const void *from, mx_dtype from_type, int64_t n) {
    if (to_type == from_type) {
        memcpy(to, from, mx_dtype_bytes(to_type) * (size_t)n);
    } else if (to_type == MX_BF16) {
        narrow(to, from, n);
    } else {
        widen(to, from, n);
    }
}

void mx_values_convert_all(void *to, mx_dtype to_type, const void *from, mx_dtype from_type, int64_t n) {
    const int64_t piece = 4096;

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += piece) {
        mx_values_convert((char *)to + (size_t)i * mx_dtype_bytes(to_type), to_type,
                          (const char *)from + (size_t)i * mx_dtype_bytes(from_type), from_type,
                          n - i < piece ? n - i : piece);
    }
}
