/* file_type.c - how files store values, and the reading of one row of them.
 *
 * The block formats are those of ggml (ggml-quants.c, dequantize_row_*): 32 values to a block, scale d and
 * minimum m as IEEE half floats, all little-endian. q d is exact in f32 (at most 8 + 11 bits), so whether the
 * compiler fuses q d + m changes no bit. */
#include "kernels/backend.h"

#include <assert.h>
#include <string.h>

enum { BLOCK = 32 };

static const struct {
    const char *name;
    int values, bytes; /* of one block */
} type_of[MX_FILE_TYPES] = {
    [MX_FILE_F32] = { "F32", 1, 4 },          [MX_FILE_F16] = { "F16", 1, 2 },
    [MX_FILE_BF16] = { "BF16", 1, 2 },        [MX_FILE_Q8_0] = { "Q8_0", BLOCK, 2 + 32 },
    [MX_FILE_Q4_0] = { "Q4_0", BLOCK, 2 + 16 }, [MX_FILE_Q4_1] = { "Q4_1", BLOCK, 4 + 16 },
    [MX_FILE_Q5_0] = { "Q5_0", BLOCK, 2 + 4 + 16 }, [MX_FILE_Q5_1] = { "Q5_1", BLOCK, 4 + 4 + 16 },
};

size_t mx_file_type_row_bytes(mx_file_type type, int64_t in) {
    assert((unsigned)type < MX_FILE_TYPES);
    if (in <= 0 || in % type_of[type].values != 0) {
        return 0;
    }

    size_t bytes;

    if (__builtin_mul_overflow((size_t)(in / type_of[type].values), (size_t)type_of[type].bytes, &bytes)) {
        return 0;
    }
    return bytes;
}

const char *mx_file_type_name(mx_file_type type) {
    assert((unsigned)type < MX_FILE_TYPES);
    return type_of[type].name;
}

static uint16_t read_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static uint32_t read_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static float of_bits(uint32_t bits) {
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

/* IEEE 754 binary16 to binary32, every value exactly: subnormals by way of an exact f32 product with 2^-24. */
static float of_half(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu;
    uint32_t fraction = h & 0x3ffu;

    if (exponent == 0) {
        float magnitude = (float)fraction * 0x1p-24f;

        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31) {
        return of_bits(sign | 0x7f800000u | fraction << 13);
    }
    return of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* The low half of a block's nibbles are values 0..15, the high half values 16..31. `fifth` has each value's fifth
 * bit, `below` is what the stored integers are above their meaning. */
static void decode_nibbles(const uint8_t *q, uint32_t fifth, int below, float d, float m, float *ret) {
    for (int j = 0; j < BLOCK / 2; j++) {
        int low = (q[j] & 15) | (int)((fifth >> j) & 1u) << 4;
        int high = (q[j] >> 4) | (int)((fifth >> (j + 16)) & 1u) << 4;

        ret[j] = (float)(low - below) * d + m;
        ret[j + BLOCK / 2] = (float)(high - below) * d + m;
    }
}

/* m = -0.0 where the format has no minimum: x + -0.0 is x for every x, the zeros' signs included. */
static void decode_block(mx_file_type type, const uint8_t *b, float *ret) {
    float d = of_half(read_u16(b));

    switch (type) {
    case MX_FILE_Q8_0:
        for (int j = 0; j < BLOCK; j++) {
            ret[j] = (float)(int8_t)b[2 + j] * d;
        }
        return;
    case MX_FILE_Q4_0:
        decode_nibbles(b + 2, 0, 8, d, -0.0f, ret);
        return;
    case MX_FILE_Q4_1:
        decode_nibbles(b + 4, 0, 0, d, of_half(read_u16(b + 2)), ret);
        return;
    case MX_FILE_Q5_0:
        decode_nibbles(b + 6, read_u32(b + 2), 16, d, -0.0f, ret);
        return;
    case MX_FILE_Q5_1:
        decode_nibbles(b + 8, read_u32(b + 4), 0, d, of_half(read_u16(b + 2)), ret);
        return;
    default:
        assert(!"a type without blocks");
    }
}

void mx_file_type_decode(mx_file_type type, const void *row, int64_t in, float *ret) {
    const uint8_t *p = row;

    assert(mx_file_type_row_bytes(type, in) > 0);
    switch (type) {
    case MX_FILE_F32:
        memcpy(ret, row, sizeof *ret * (size_t)in);
        return;
    case MX_FILE_F16:
        for (int64_t i = 0; i < in; i++) {
            ret[i] = of_half(read_u16(p + 2 * i));
        }
        return;
    case MX_FILE_BF16:
        for (int64_t i = 0; i < in; i++) {
            ret[i] = of_bits((uint32_t)read_u16(p + 2 * i) << 16);
        }
        return;
    default:
        for (int64_t i = 0; i < in; i += BLOCK, p += type_of[type].bytes) {
            decode_block(type, p, ret + i);
        }
    }
}
