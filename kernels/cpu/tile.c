/* tile.c - the small products in plain C, and the choice between them and tile_x86.c's. */
#include "kernels/cpu/tile.h"
#include "kernels/cpu/tile_x86.h"

/* 16 values in whatever registers there are. */
typedef float wide __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t wide_bits __attribute__((vector_size(64), aligned(4), may_alias));

mx_tile_kind mx_tile_choose(mx_dtype dtype, bool plain) {
    if (dtype == MX_F32) {
        return MX_TILE_F32;
    }
    if (!plain && mx_tile_has_amx()) {
        return MX_TILE_BF16_AMX;
    }
    if (!plain && mx_tile_has_avx512_bf16()) {
        return MX_TILE_BF16_AVX512;
    }
    return MX_TILE_BF16;
}

/* ------------------------------------------------------------------ packing */

static void pack_f32(float *to, int64_t k_all, int64_t n_all, const float *from, int64_t k, int64_t n, int64_t down,
                     int64_t right, float scale) {
    memset(to, 0, sizeof *to * (size_t)(k_all * n_all));
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < n; j++) {
            to[i * n_all + j] = scale * from[i * down + j * right];
        }
    }
}

static void pack_bf16(uint16_t *to, int64_t k_all, int64_t n_all, const float *from, int64_t k, int64_t n, int64_t down,
                      int64_t right, float scale) {
    memset(to, 0, sizeof *to * (size_t)(k_all * n_all));
    if (right == 1) {
        for (int64_t i = 0; i < k; i++) {
            uint16_t *row = to + i / 2 * n_all * 2 + i % 2;

            for (int64_t j = 0; j < n; j++) {
                row[2 * j] = mx_bf16_round(scale * from[i * down + j]);
            }
        }
        return;
    }
    for (int64_t j = 0; j < n; j++) { /* the source runs along i */
        for (int64_t i = 0; i < k; i++) {
            to[i / 2 * n_all * 2 + 2 * j + i % 2] = mx_bf16_round(scale * from[i * down + j * right]);
        }
    }
}

MX_CLONES void mx_tile_pack(mx_dtype dtype, void *to, int64_t k_all, int64_t n_all, const float *from, int64_t k,
                            int64_t n, int64_t down, int64_t right, float scale) {
    if (dtype == MX_BF16) {
        pack_bf16(to, k_all, n_all, from, k, n, down, right, scale);
    } else {
        pack_f32(to, k_all, n_all, from, k, n, down, right, scale);
    }
}

MX_CLONES static void interleave(uint32_t *restrict to, const uint16_t *restrict from, int64_t k, int64_t n) {
    for (int64_t i = 0; i < k; i += 2) {
        const uint16_t *even = from + i * n, *odd = even + n;
        uint32_t *row = to + i / 2 * n;

        for (int64_t j = 0; j < n; j++) {
            row[j] = (uint32_t)even[j] | (uint32_t)odd[j] << 16;
        }
    }
}

void mx_tile_pack_rows(mx_dtype dtype, void *to, const void *from, int64_t k, int64_t n) {
    assert(k % 2 == 0);
    if (dtype == MX_BF16) {
        interleave(to, from, k, n);
    } else {
        memcpy(to, from, sizeof(float) * (size_t)(k * n));
    }
}

/* ------------------------------------------------------------------ plain C, four rows by 16 columns at a time */

MX_CLONES static void product_f32(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t m,
                                  int64_t n, int64_t k, bool add) {
    for (int64_t j = 0; j < n; j += MX_TILE_STEP) {
        for (int64_t i = 0; i < m; i += 4) {
            const float *a0 = a + i * lda, *a1 = a0 + lda, *a2 = a1 + lda, *a3 = a2 + lda;
            float *to = c + i * ldc + j;
            wide s0 = { 0 }, s1 = { 0 }, s2 = { 0 }, s3 = { 0 };

            if (add) {
                s0 = *(wide *)to, s1 = *(wide *)(to + ldc);
                s2 = *(wide *)(to + 2 * ldc), s3 = *(wide *)(to + 3 * ldc);
            }
            for (int64_t p = 0; p < k; p++) {
                wide v = *(const wide *)(b + p * n + j);

                s0 += a0[p] * v;
                s1 += a1[p] * v;
                s2 += a2[p] * v;
                s3 += a3[p] * v;
            }
            *(wide *)to = s0, *(wide *)(to + ldc) = s1;
            *(wide *)(to + 2 * ldc) = s2, *(wide *)(to + 3 * ldc) = s3;
        }
    }
}

MX_CLONES static void product_bf16(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint32_t *b, int64_t m,
                                   int64_t n, int64_t k, bool add) {
    for (int64_t j = 0; j < n; j += MX_TILE_STEP) {
        for (int64_t i = 0; i < m; i += 2) {
            const uint16_t *a0 = a + i * lda, *a1 = a0 + lda;
            float *to = c + i * ldc + j;
            wide s0 = { 0 }, s1 = { 0 };

            if (add) {
                s0 = *(wide *)to, s1 = *(wide *)(to + ldc);
            }
            for (int64_t p = 0; p < k; p += 2) {
                wide_bits pair = *(const wide_bits *)(b + p / 2 * n + j);
                wide even = (wide)(pair << 16), odd = (wide)(pair & 0xffff0000u);

                s0 += mx_bf16_widen(a0[p]) * even;
                s0 += mx_bf16_widen(a0[p + 1]) * odd;
                s1 += mx_bf16_widen(a1[p]) * even;
                s1 += mx_bf16_widen(a1[p + 1]) * odd;
            }
            *(wide *)to = s0, *(wide *)(to + ldc) = s1;
        }
    }
}

void mx_tile_product(mx_tile_kind kind, float *c, int64_t ldc, const void *a, int64_t lda, const void *b, int64_t m,
                     int64_t n, int64_t k, bool add) {
    assert(m % MX_TILE_STEP == 0 && n % MX_TILE_STEP == 0);
    assert(kind == MX_TILE_F32 || k % 32 == 0);
    switch (kind) {
    case MX_TILE_F32:
        product_f32(c, ldc, a, lda, b, m, n, k, add);
        break;
    case MX_TILE_BF16:
        product_bf16(c, ldc, a, lda, b, m, n, k, add);
        break;
    case MX_TILE_BF16_AVX512:
        mx_tile_product_avx512(c, ldc, a, lda, b, m, n, k, add);
        break;
    case MX_TILE_BF16_AMX:
        mx_tile_product_amx(c, ldc, a, lda, b, m, n, k, add);
        break;
    }
}

void mx_tile_begin(mx_tile_kind kind) {
    if (kind == MX_TILE_BF16_AMX) {
        mx_tile_amx_begin();
    }
}

void mx_tile_end(mx_tile_kind kind) {
    if (kind == MX_TILE_BF16_AMX) {
        mx_tile_amx_end();
    }
}
