/* noise.c - dropout's masks and the router's jitter, drawn as base/rng.h says.
 *
 * A mask is kept as bits, one eighth of a byte per value: the backward pass reads them again for less than drawing
 * costs (10 rounds of Philox for 8 columns). Sixteen blocks of eight columns are drawn side by side, which is what
 * compilers turn into vector code. */
#include "kernels/cpu/noise.h"
#include "kernels/cpu/cpu.h"

enum { LANES = 16, BLOCK = 8 /* columns per draw */ };

static mx_noise_row name_of(const mx_noise *noise, uint32_t site_offset, const mx_rows *rows, int64_t t) {
    return (mx_noise_row){ .key = mx_rng_make_key(noise->seed, noise->step),
                       .position = (uint32_t)rows->position[t],
                       .question = (uint32_t)rows->question[t],
                       .site = noise->site + site_offset };
}

/* Philox4x32-10 (mx_rng_draw) of blocks first .. first + 15; word w of block first + l goes to word[w][l]. */
static inline __attribute__((always_inline)) void draw(uint32_t word[4][LANES], const mx_noise_row *name, uint32_t first) {
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES];
    uint32_t k0 = name->key.k[0], k1 = name->key.k[1];

    for (int l = 0; l < LANES; l++) {
        c0[l] = first + (uint32_t)l;
        c1[l] = name->position;
        c2[l] = name->question;
        c3[l] = name->site;
    }
    for (int round = 0; round < 10; round++) {
        for (int l = 0; l < LANES; l++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[l], p1 = (uint64_t)0xCD9E8D57u * c2[l];

            c0[l] = (uint32_t)(p1 >> 32) ^ c1[l] ^ k0;
            c1[l] = (uint32_t)p1;
            c2[l] = (uint32_t)(p0 >> 32) ^ c3[l] ^ k1;
            c3[l] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(word[0], c0, sizeof c0);
    memcpy(word[1], c1, sizeof c1);
    memcpy(word[2], c2, sizeof c2);
    memcpy(word[3], c3, sizeof c3);
}

/* ------------------------------------------------------------------ dropout */

/* An element is dropped when its 16 bits are below `limit`. */
MX_CLONES static void draw_bits(uint8_t *bits, const mx_noise_row *name, int64_t columns, uint32_t limit) {
    int64_t bytes = mx_dropout_row_bytes(columns);

    for (int64_t first = 0; first < bytes; first += LANES) {
        uint32_t word[4][LANES];
        uint8_t kept[LANES];

        draw(word, name, (uint32_t)first);
        for (int l = 0; l < LANES; l++) {
            uint32_t byte = 0;

            for (int w = 0; w < 4; w++) {
                byte |= (uint32_t)((word[w][l] & 0xffffu) >= limit) << (2 * w);
                byte |= (uint32_t)((word[w][l] >> 16) >= limit) << (2 * w + 1);
            }
            kept[l] = (uint8_t)byte;
        }
        memcpy(bits + first, kept, (size_t)(bytes - first < LANES ? bytes - first : LANES));
    }
}

#define KEPT(bits, j) (((bits)[(j) / 8] >> ((j) % 8)) & 1u)

MX_CLONES static void mask_f32(float *y, const float *x, const uint8_t *bits, float scale, int64_t columns, bool add) {
    if (add) {
        for (int64_t j = 0; j < columns; j++) {
            y[j] += KEPT(bits, j) ? x[j] * scale : 0.0f;
        }
    } else {
        for (int64_t j = 0; j < columns; j++) {
            y[j] = KEPT(bits, j) ? x[j] * scale : 0.0f;
        }
    }
}

/* Masking alone changes no bit of what is kept. */
MX_CLONES static void mask_bf16(uint16_t *y, const uint16_t *x, const uint8_t *bits, int64_t columns) {
    for (int64_t j = 0; j < columns; j++) {
        y[j] = (uint16_t)(x[j] & (0u - KEPT(bits, j)));
    }
}

MX_CLONES static void draw_halves(uint16_t ret[256], const mx_noise_row *name, int64_t begin) {
    for (int64_t first = 0; first < 256; first += LANES * BLOCK) {
        uint32_t word[4][LANES];

        draw(word, name, (uint32_t)((begin + first) / BLOCK));
        for (int64_t j = 0; j < LANES * BLOCK; j++) {
            ret[first + j] = (uint16_t)(word[j % BLOCK / 2][j / BLOCK] >> (j % 2 * 16));
        }
    }
}

static const mx_noise_loops *loops(void) {
    static const mx_noise_loops compiled = { .draw = draw_bits, .halves = draw_halves, .mask_bf16 = mask_bf16, .mask_f32 = mask_f32 };
    const mx_noise_loops *fast = mx_noise_loops_avx512();

    return fast ? fast : &compiled;
}

void mx_dropout_draw(const mx_noise *noise, uint32_t site_offset, const mx_rows *rows, const int32_t *row, int64_t n,
                     int64_t columns, uint8_t *ret_bits) {
    uint32_t limit = (uint32_t)lround((double)noise->rate * 65536.0);
    const mx_noise_loops *loop = loops();

    if (limit > UINT16_MAX) { /* a rate that rounds to 1 drops everything */
        memset(ret_bits, 0, (size_t)(n * mx_dropout_row_bytes(columns)));
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        mx_noise_row name = name_of(noise, site_offset, rows, row ? row[i] : i);

        loop->draw(ret_bits + i * mx_dropout_row_bytes(columns), &name, columns, limit);
    }
}

void mx_mask_row(const uint8_t *bits, void *y, const void *x, mx_dtype dtype, int64_t columns) {
    if (dtype == MX_BF16) {
        loops()->mask_bf16(y, x, bits, columns);
    } else {
        loops()->mask_f32(y, x, bits, 1.0f, columns, false);
    }
}

void mx_dropout_row(const uint8_t *bits, float rate, void *y, mx_dtype y_type, const void *x, mx_dtype x_type,
                    int64_t columns, bool add) {
    enum { PIECE = 256 }; /* a multiple of 8, so that a piece's bits begin a byte */
    const mx_noise_loops *loop = loops();
    float scale = 1.0f / (1.0f - rate);

    if (y_type == MX_F32 && x_type == MX_F32) {
        loop->mask_f32(y, x, bits, scale, columns, add);
        return;
    }
    for (int64_t j = 0; j < columns; j += PIECE) {
        int64_t count = columns - j < PIECE ? columns - j : PIECE;
        char *to = (char *)y + (size_t)j * mx_dtype_bytes(y_type);
        const char *from = (const char *)x + (size_t)j * mx_dtype_bytes(x_type);
        float wide[PIECE], sum[PIECE];

        mx_values_convert(wide, MX_F32, from, x_type, count);
        if (add) {
            mx_values_convert(sum, MX_F32, to, y_type, count);
        }
        loop->mask_f32(add ? sum : wide, wide, bits + j / 8, scale, count, add);
        mx_values_convert(to, y_type, add ? sum : wide, MX_F32, count);
    }
}

/* ------------------------------------------------------------------ jitter */

/* y (+)= x u with u[j] = 1 + rate ((2h + 1) / 65536 - 1), h the column's 16 bits: the middles of 65,536 equal parts of
 * (1 - rate, 1 + rate). */
MX_INLINE void multiply(void *y, const void *x, const uint16_t *half, int64_t n, float rate, bool add, mx_dtype dtype) {
    for (int64_t j = 0; j < n; j++) {
        float u = 1.0f + rate * ((float)(2 * (int32_t)half[j] + 1) / 65536.0f - 1.0f);

        mx_put(y, dtype, j, (add ? mx_get(y, dtype, j) : 0.0f) + mx_get(x, dtype, j) * u);
    }
}
MX_CLONES static void multiply_f32(void *y, const void *x, const uint16_t *half, int64_t n, float rate, bool add) {
    multiply(y, x, half, n, rate, add, MX_F32);
}
MX_CLONES static void multiply_bf16(void *y, const void *x, const uint16_t *half, int64_t n, float rate, bool add) {
    multiply(y, x, half, n, rate, add, MX_BF16);
}

static void jitter(mx_tensor y, mx_tensor x, const mx_rows *rows, const mx_noise *noise, bool add) {
    enum { PIECE = 256 };
    const mx_noise_loops *loop = loops();
    int64_t columns = x.dim[1];

    assert(y.dtype == x.dtype);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < rows->rows; t++) {
        mx_noise_row name = name_of(noise, 0, rows, t);

        for (int64_t j = 0; j < columns; j += PIECE) {
            int64_t count = columns - j < PIECE ? columns - j : PIECE;
            size_t at = (size_t)j * mx_dtype_bytes(x.dtype);
            char *to = (char *)mx_row_of(&y, t) + at;
            const char *from = (const char *)mx_row_of(&x, t) + at;
            uint16_t half[PIECE];

            loop->halves(half, &name, j);
            if (x.dtype == MX_BF16) {
                multiply_bf16(to, from, half, count, noise->rate, add);
            } else {
                multiply_f32(to, from, half, count, noise->rate, add);
            }
        }
    }
}

void mx_cpu_jitter_forward(mx_backend *q, mx_tensor xr, mx_tensor x, const mx_rows *rows, mx_noise noise) {
    (void)q;
    jitter(xr, x, rows, &noise, false);
}

void mx_cpu_jitter_backward(mx_backend *q, mx_tensor dx, mx_tensor dxr, const mx_rows *rows, mx_noise noise) {
    (void)q;
    jitter(dx, dxr, rows, &noise, true);
}
