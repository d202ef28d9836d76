/* noise_avx512.c - masks drawn 16 blocks at a time, and applied with the processor's own mask registers.
 *
 * Measured on one core of a Sapphire Rapids: drawing 0.4 ns per column (compiled C: 5.6), masking bf16 0.1 (2.0). */
#include "kernels/cpu/noise.h"

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define INLINE512 static inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512dq")))

/* Philox4x32-10 of eight blocks, one to a 64-bit lane (in the order bits_of_eight unpacks). Only the low halves count: the multiplication reads no others,
 * so what the xors leave above may stay. */
INLINE512 void draw_eight(__m512i c[4], const mx_noise_row *row, uint32_t first) {
    __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    uint32_t k0 = row->key.k[0], k1 = row->key.k[1];

    c[0] = _mm512_add_epi64(_mm512_set1_epi64(first), _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0));
    c[1] = _mm512_set1_epi64(row->position);
    c[2] = _mm512_set1_epi64(row->question);
    c[3] = _mm512_set1_epi64(row->site);
    for (int round = 0; round < 10; round++) {
        __m512i p0 = _mm512_mul_epu32(c[0], m0), p1 = _mm512_mul_epu32(c[2], m1);

        /* 0x96: the xor of three */
        c[0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c[1], _mm512_set1_epi64(k0), 0x96);
        c[1] = p1;
        c[2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c[3], _mm512_set1_epi64(k1), 0x96);
        c[3] = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* The 64 columns' bits: a block's four words lie side by side, so comparing 16-bit pieces yields them in order. */
INLINE512 uint64_t bits_of_eight(const __m512i c[4], __m512i limit) {
    __m512i first_words = _mm512_mask_shuffle_epi32(c[0], 0xAAAA, c[1], (_MM_PERM_ENUM)0x80);
    __m512i last_words = _mm512_mask_shuffle_epi32(c[2], 0xAAAA, c[3], (_MM_PERM_ENUM)0x80);
    uint64_t low = _mm512_cmpge_epu16_mask(_mm512_unpacklo_epi64(first_words, last_words), limit);
    uint64_t high = _mm512_cmpge_epu16_mask(_mm512_unpackhi_epi64(first_words, last_words), limit);

    return low | high << 32;
}

AVX512 static void draw(uint8_t *bits, const mx_noise_row *row, int64_t columns, uint32_t limit) {
    __m512i limits = _mm512_set1_epi16((short)limit);
    int64_t words = (columns + 63) / 64;

    for (int64_t i = 0; i < words; i += 2) {
        __m512i a[4], b[4]; /* two at once hide the multiplications' latency */
        uint64_t kept[2];

        draw_eight(a, row, (uint32_t)(8 * i));
        draw_eight(b, row, (uint32_t)(8 * i + 8));
        kept[0] = bits_of_eight(a, limits);
        kept[1] = bits_of_eight(b, limits);
        memcpy(bits + 8 * i, kept, i + 1 < words ? 16 : 8);
    }
}

AVX512 static void halves(uint16_t ret[256], const mx_noise_row *row, int64_t begin) {
    for (int64_t i = 0; i < 4; i++) {
        __m512i c[4], first_words, last_words;

        draw_eight(c, row, (uint32_t)(begin / 8 + 8 * i));
        first_words = _mm512_mask_shuffle_epi32(c[0], 0xAAAA, c[1], (_MM_PERM_ENUM)0x80);
        last_words = _mm512_mask_shuffle_epi32(c[2], 0xAAAA, c[3], (_MM_PERM_ENUM)0x80);
        _mm512_storeu_si512(ret + 64 * i, _mm512_unpacklo_epi64(first_words, last_words));
        _mm512_storeu_si512(ret + 64 * i + 32, _mm512_unpackhi_epi64(first_words, last_words));
    }
}

/* The mask of up to 32 columns from j on, nothing beyond the row's end. */
INLINE512 uint32_t mask_at(const uint8_t *bits, int64_t j, int64_t columns, int width) {
    uint32_t word;

    memcpy(&word, bits + j / 8, (size_t)width / 8);
    word = width == 16 ? word & 0xffffu : word;
    return columns - j >= width ? word : word & ((1u << (columns - j)) - 1);
}

AVX512 static void mask_bf16(uint16_t *y, const uint16_t *x, const uint8_t *bits, int64_t columns) {
    for (int64_t j = 0; j < columns; j += 32) {
        __mmask32 inside = columns - j >= 32 ? ~0u : (1u << (columns - j)) - 1;

        _mm512_mask_storeu_epi16(y + j, inside, _mm512_maskz_loadu_epi16(mask_at(bits, j, columns, 32), x + j));
    }
}

AVX512 static void mask_f32(float *y, const float *x, const uint8_t *bits, float scale, int64_t columns, bool add) {
    __m512 scales = _mm512_set1_ps(scale);

    for (int64_t j = 0; j < columns; j += 16) {
        __mmask16 kept = (__mmask16)mask_at(bits, j, columns, 16);
        __mmask16 inside = (__mmask16)(columns - j >= 16 ? 0xffffu : (1u << (columns - j)) - 1);
        __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(kept, x + j), scales);

        if (add) {
            value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(inside, y + j));
        }
        _mm512_mask_storeu_ps(y + j, inside, value);
    }
}

const mx_noise_loops *mx_noise_loops_avx512(void) {
    static const mx_noise_loops loops = { .draw = draw, .halves = halves, .mask_bf16 = mask_bf16, .mask_f32 = mask_f32 };

    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq")
               ? &loops
               : NULL;
}
#else
const mx_noise_loops *mx_noise_loops_avx512(void) {
    return NULL;
}
#endif
