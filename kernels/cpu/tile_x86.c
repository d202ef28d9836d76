/* tile_x86.c - vdpbf16ps and tdpbf16ps. Compiled for their instruction sets by function, called only where
 * the processor (and, for tiles, the kernel) says yes. On other architectures the answer is no. */
#include "kernels/cpu/tile_x86.h"

#include <assert.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define AMX __attribute__((target("amx-tile,amx-bf16")))

enum { ARCH_GET_XCOMP_PERM = 0x1022, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_TILE_DATA = 18 };

bool mx_tile_has_avx512_bf16(void) {
    unsigned eax, ebx, ecx, edx;

    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & (1u << 5));
}

bool mx_tile_has_amx(void) {
    enum { AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24 };
    unsigned eax, ebx, ecx, edx;
    unsigned long granted = 0;

    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(edx & AMX_BF16) || !(edx & AMX_TILE)) {
        return false;
    }
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) ||
        syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &granted)) {
        return false;
    }
    return (granted >> XFEATURE_TILE_DATA) & 1u;
}

/* Four rows by 32 columns: eight sums in registers, two loads of B for eight products. */
AVX512 static void four_rows(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t n,
                             int64_t k, int64_t halves, bool add) {
    __m512 s[4][2];

    for (int i = 0; i < 4; i++) {
        for (int h = 0; h < 2; h++) {
            s[i][h] = add && h < halves ? _mm512_loadu_ps(c + i * ldc + 16 * h) : _mm512_setzero_ps();
        }
    }
    for (int64_t p = 0; p < k; p += 2) {
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(b + p / 2 * n);
        __m512bh b1 = halves > 1 ? (__m512bh)_mm512_loadu_si512(b + p / 2 * n + 16) : b0;

        for (int i = 0; i < 4; i++) {
            int32_t pair;

            memcpy(&pair, a + i * lda + p, sizeof pair);
            __m512bh v = (__m512bh)_mm512_set1_epi32(pair);

            s[i][0] = _mm512_dpbf16_ps(s[i][0], v, b0);
            s[i][1] = _mm512_dpbf16_ps(s[i][1], v, b1);
        }
    }
    for (int i = 0; i < 4; i++) {
        for (int h = 0; h < halves; h++) {
            _mm512_storeu_ps(c + i * ldc + 16 * h, s[i][h]);
        }
    }
}

AVX512 void mx_tile_product_avx512(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t m,
                                   int64_t n, int64_t k, bool add) {
    for (int64_t j = 0; j < n; j += 32) {
        for (int64_t i = 0; i < m; i += 4) {
            four_rows(c + i * ldc + j, ldc, a + i * lda, lda, b + j, n, k, n - j > 16 ? 2 : 1, add);
        }
    }
}

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* In memory for good: the intrinsic tells the compiler of its first 8 bytes only, which would leave the others unset. */
static const struct tile_config CONFIG = {
    .palette = 1,
    .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
    .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
};

AMX void mx_tile_amx_begin(void) {
    _tile_loadconfig(&CONFIG);
}

AMX void mx_tile_amx_end(void) {
    _tile_release();
}

/* One 16 x 16 tile of C. */
AMX static void one_tile(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t n, int64_t k,
                         bool add) {
    if (add) {
        _tile_loadd(0, c, ldc * 4);
    } else {
        _tile_zero(0);
    }
    for (int64_t p = 0; p < k; p += 32) {
        _tile_loadd(4, a + p, lda * 2);
        _tile_loadd(5, b + p / 2 * n, n * 4);
        _tile_dpbf16ps(0, 4, 5);
    }
    _tile_stored(0, c, ldc * 4);
}

/* 32 x 16: two sums under way at a time (the instruction takes 52 cycles, and may begin every 16). */
AMX static void two_below(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t n, int64_t k,
                          bool add) {
    if (add) {
        _tile_loadd(0, c, ldc * 4);
        _tile_loadd(1, c + 16 * ldc, ldc * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    for (int64_t p = 0; p < k; p += 32) {
        _tile_loadd(6, b + p / 2 * n, n * 4);
        _tile_loadd(4, a + p, lda * 2);
        _tile_loadd(5, a + 16 * lda + p, lda * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(1, c + 16 * ldc, ldc * 4);
}

/* 16 x 64: four sums, one A. */
AMX static void four_beside(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t n,
                            int64_t k, bool add) {
    if (add) {
        _tile_loadd(0, c, ldc * 4);
        _tile_loadd(1, c + 16, ldc * 4);
        _tile_loadd(2, c + 32, ldc * 4);
        _tile_loadd(3, c + 48, ldc * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t p = 0; p < k; p += 32) {
        const uint32_t *row = b + p / 2 * n;

        _tile_loadd(4, a + p, lda * 2);
        _tile_loadd(5, row, n * 4);
        _tile_loadd(6, row + 16, n * 4);
        _tile_loadd(7, row + 32, n * 4);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(5, row + 48, n * 4);
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(1, c + 16, ldc * 4);
    _tile_stored(2, c + 32, ldc * 4);
    _tile_stored(3, c + 48, ldc * 4);
}

/* 32 x 32: four sums, each factor's tiles used twice. */
AMX static void four_tiles(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t n,
                           int64_t k, bool add) {
    float *low = c + 16 * ldc;

    if (add) {
        _tile_loadd(0, c, ldc * 4);
        _tile_loadd(1, c + 16, ldc * 4);
        _tile_loadd(2, low, ldc * 4);
        _tile_loadd(3, low + 16, ldc * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t p = 0; p < k; p += 32) {
        _tile_loadd(4, a + p, lda * 2);
        _tile_loadd(5, a + 16 * lda + p, lda * 2);
        _tile_loadd(6, b + p / 2 * n, n * 4);
        _tile_loadd(7, b + p / 2 * n + 16, n * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(1, c + 16, ldc * 4);
    _tile_stored(2, low, ldc * 4);
    _tile_stored(3, low + 16, ldc * 4);
}

/* Rows in pairs of tiles; of an odd last one, columns by fours. */
AMX void mx_tile_product_amx(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t m,
                             int64_t n, int64_t k, bool add) {
    int64_t i = 0, j;

    for (; m - i >= 32; i += 32) {
        for (j = 0; n - j >= 32; j += 32) {
            four_tiles(c + i * ldc + j, ldc, a + i * lda, lda, b + j, n, k, add);
        }
        if (j < n) {
            two_below(c + i * ldc + j, ldc, a + i * lda, lda, b + j, n, k, add);
        }
    }
    if (i < m) {
        for (j = 0; n - j >= 64; j += 64) {
            four_beside(c + i * ldc + j, ldc, a + i * lda, lda, b + j, n, k, add);
        }
        for (; j < n; j += 16) {
            one_tile(c + i * ldc + j, ldc, a + i * lda, lda, b + j, n, k, add);
        }
    }
}

#else

bool mx_tile_has_avx512_bf16(void) {
    return false;
}
bool mx_tile_has_amx(void) {
    return false;
}
void mx_tile_product_avx512(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t m,
                            int64_t n, int64_t k, bool add) {
    (void)c, (void)ldc, (void)a, (void)lda, (void)b, (void)m, (void)n, (void)k, (void)add;
    assert(!"no such instruction");
}
void mx_tile_product_amx(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t m, int64_t n,
                         int64_t k, bool add) {
    mx_tile_product_avx512(c, ldc, a, lda, b, m, n, k, add);
}
void mx_tile_amx_begin(void) {
}
void mx_tile_amx_end(void) {
}

#endif
