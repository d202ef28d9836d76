/* decode.c - file types to f32, bit by bit, and frozen weights made from them. */
#include "kernels/cpu/cpu.h"
#include "tests/kernels/kit.h"

/* A half float's value from its definition, exact in double. */
static double half(uint16_t h) {
    int sign = h >> 15, exponent = h >> 10 & 31, fraction = h & 1023;
    double v = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);

    return sign ? -v : v;
}

static uint16_t u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

/* Value j of a block, from ggml's description of its layout. */
static double block_value(mx_file_type type, const uint8_t *b, int j) {
    int low = j < 16, at = j % 16, q, fifth;
    double d = half(u16(b));
    uint32_t bits;

    switch (type) {
    case MX_FILE_Q8_0:
        return (int8_t)b[2 + j] * d;
    case MX_FILE_Q4_0:
        q = low ? b[2 + at] & 15 : b[2 + at] >> 4;
        return (q - 8) * d;
    case MX_FILE_Q4_1:
        q = low ? b[4 + at] & 15 : b[4 + at] >> 4;
        return q * d + half(u16(b + 2));
    case MX_FILE_Q5_0:
        memcpy(&bits, b + 2, 4);
        fifth = bits >> j & 1;
        q = (low ? b[6 + at] & 15 : b[6 + at] >> 4) | fifth << 4;
        return (q - 16) * d;
    default:
        memcpy(&bits, b + 4, 4);
        fifth = bits >> j & 1;
        q = (low ? b[8 + at] & 15 : b[8 + at] >> 4) | fifth << 4;
        return q * d + half(u16(b + 2));
    }
}

Test(decode, blocks_give_the_formats_values_to_the_bit) {
    enum { BLOCKS = 200, IN = 32 * BLOCKS };
    static const int bytes_of[] = { [MX_FILE_Q8_0] = 34, [MX_FILE_Q4_0] = 18, [MX_FILE_Q4_1] = 20, [MX_FILE_Q5_0] = 22, [MX_FILE_Q5_1] = 24 };

    for (int type = MX_FILE_Q8_0; type <= MX_FILE_Q5_1; type++) {
        static uint8_t bytes[BLOCKS * 34 + 1];
        static float got[IN];
        uint8_t *row = bytes + 1; /* unaligned, as in a mapped file */
        mx_rng r;

        mx_rng_init(&r, 8, "blocks");
        for (int i = 0; i < BLOCKS * bytes_of[type]; i++) {
            row[i] = (uint8_t)mx_rng_u32(&r);
        }
        for (int i = 0; i < BLOCKS; i++) { /* scales and minima: finite; some subnormal, some zero */
            uint8_t *block = row + i * bytes_of[type];

            block[1] &= i % 5 == 0 ? 0x83 : 0xbb;
            block[3] &= type == MX_FILE_Q4_1 || type == MX_FILE_Q5_1 ? 0xbb : 0xff;
            if (i % 17 == 0) {
                block[0] = block[1] = 0;
            }
        }
        cr_assert_eq(mx_file_type_row_bytes((mx_file_type)type, IN), (size_t)(BLOCKS * bytes_of[type]));
        mx_file_type_decode((mx_file_type)type, row, IN, got);
        for (int i = 0; i < IN; i++) {
            double exact = block_value((mx_file_type)type, row + i / 32 * bytes_of[type], i % 32);
            float expected = (float)exact; /* q d is exact; with the minimum, one rounding */

            cr_assert(memcmp(&expected, &got[i], sizeof expected) == 0 || (expected == 0 && got[i] == 0), "%s, value %d: %.9g, not %.9g",
                      mx_file_type_name((mx_file_type)type), i, (double)got[i], (double)expected);
        }
    }
}

Test(decode, every_half_float_is_read_exactly) {
    enum { ALL = 65536 };
    static uint16_t halves[ALL];
    static float got[ALL];

    for (int i = 0; i < ALL; i++) {
        halves[i] = (uint16_t)i;
    }
    mx_file_type_decode(MX_FILE_F16, halves, ALL, got);
    for (int i = 0; i < ALL; i++) {
        double expected = half((uint16_t)i);

        cr_assert(isnan(expected) ? isnan(got[i]) : (double)got[i] == expected && !signbit(got[i]) == !signbit(expected), "half %04x", (unsigned)i);
    }
}

Test(decode, bf16_and_f32_keep_every_bit) {
    enum { ALL = 65536 };
    static uint16_t values[ALL];
    static float got[ALL];

    for (int i = 0; i < ALL; i++) {
        values[i] = (uint16_t)i;
    }
    mx_file_type_decode(MX_FILE_BF16, values, ALL, got);
    for (int i = 0; i < ALL; i++) {
        uint32_t bits;

        memcpy(&bits, &got[i], sizeof bits);
        cr_assert_eq(bits, (uint32_t)i << 16);
    }
    mx_file_type_decode(MX_FILE_F32, values, ALL / 2, got);
    cr_assert_eq(memcmp(values, got, sizeof values), 0);
}

Test(decode, rows_that_are_not_whole_blocks_have_no_size) {
    cr_assert_eq(mx_file_type_row_bytes(MX_FILE_Q4_1, 33), 0);
    cr_assert_eq(mx_file_type_row_bytes(MX_FILE_Q8_0, 31), 0);
    cr_assert_eq(mx_file_type_row_bytes(MX_FILE_F32, 0), 0);
    cr_assert_eq(mx_file_type_row_bytes(MX_FILE_F32, -4), 0);
    cr_assert_eq(mx_file_type_row_bytes(MX_FILE_F32, INT64_MAX), 0); /* no size_t holds it */
    cr_assert_eq(mx_file_type_row_bytes(MX_FILE_Q5_0, 64), 44);
    cr_assert_str_eq(mx_file_type_name(MX_FILE_Q5_1), "Q5_1");
}

/* bf16 from f32 goes to the nearest, ties to the even one; infinities and NaNs stay what they are. */
Test(decode, rounding_to_bf16_is_to_nearest_even) {
    static const struct {
        uint32_t from;
        uint16_t to;
    } cases[] = { { 0x3f800000, 0x3f80 }, { 0x3f808000, 0x3f80 }, { 0x3f808001, 0x3f81 }, { 0x3f818000, 0x3f82 }, { 0x3f817fff, 0x3f81 },
                  { 0x7f7fffff, 0x7f80 }, { 0x7f800000, 0x7f80 }, { 0xff800000, 0xff80 }, { 0x7f800001, 0x7fc0 }, { 0x7fffffff, 0x7fff },
                  { 0x80000000, 0x8000 }, { 0x00008001, 0x0001 }, { 0x00008000, 0x0000 } };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint16_t got;
        float f;

        memcpy(&f, &cases[i].from, sizeof f);
        mx_values_convert(&got, MX_BF16, &f, MX_F32, 1);
        cr_assert_eq(got, cases[i].to, "%08x gave %04x", cases[i].from, got);
    }
}

/* ------------------------------------------------------------------ weights */

Test(decode, a_weight_holds_the_files_values_in_hugging_faces_order) {
    enum { HEADS = 2, D = 6, OUT = HEADS * D, IN = 32 };
    mx_precision p;

    KIT_EACH_PRECISION(p) {
        mx_backend *b = kit_open(p, 2, false);
        mx_status st = { 0 };
        mx_weight *w = NULL;
        float stored[OUT][IN];

        for (int o = 0; o < OUT; o++) {
            for (int i = 0; i < IN; i++) {
                stored[o][i] = (float)(o * 8 + i % 8);
            }
        }
        mx_weight_source from = { .type = MX_FILE_F32, .bytes = stored, .out = OUT, .in = IN, .unpermute_heads = HEADS };

        cr_assert_eq(mx_weight_open(b, &from, MX_USE_LINEAR, &w, &st), MX_OK, "%s", st.text);
        for (int head = 0; head < HEADS; head++) {
            for (int i = 0; i < D / 2; i++) {
                for (int h = 0; h < 2; h++) {
                    int to = head * D + i + h * D / 2, source = head * D + 2 * i + h;

                    for (int c = 0; c < IN; c++) {
                        cr_assert_eq(mx_get(w->rows, w->dtype, to * IN + c), stored[source][c]);
                    }
                }
            }
        }
        b->weight_close(b, w);
        b->close(b);
    }
}

Test(decode, a_weight_with_a_value_that_is_not_finite_is_refused) {
    static const struct {
        float value;
        mx_precision precision;
        bool refused;
    } cases[] = { { NAN, MX_PRECISION_F32, true }, { -INFINITY, MX_PRECISION_F32, true }, { NAN, MX_PRECISION_BF16, true },
                  { 3.4e38f, MX_PRECISION_F32, false }, { 3.4e38f, MX_PRECISION_BF16, true /* rounds to infinity */ } };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mx_backend *b = kit_open(cases[i].precision, 2, false);
        float values[5][7] = { { 0 } };
        mx_weight *w = NULL;
        mx_status st = { 0 };

        values[3][2] = cases[i].value;
        mx_weight_source from = { .type = MX_FILE_F32, .bytes = values, .out = 5, .in = 7 };
        mx_code code = mx_weight_open(b, &from, MX_USE_LINEAR, &w, &st);

        if (cases[i].refused) {
            cr_assert_eq(code, MX_E_DATA);
            cr_assert(strstr(st.text, "row 3") && !w, "%s", st.text);
        } else {
            cr_assert_eq(code, MX_OK);
            b->weight_close(b, w);
        }
        cr_assert_eq(b->used_bytes(b, MX_MEMORY_WEIGHTS), 0);
        b->close(b);
    }
}

/* ------------------------------------------------------------------ devices by name */

Test(decode, devices_that_are_not_there_are_refused_with_words) {
    static const struct {
        const char *device, *says;
    } cases[] = { { "gpu", "unknown device 'gpu'" }, { "", "unknown device ''" }, { "cudax", "unknown device 'cudax'" }, { "CPU", "unknown device 'CPU'" } };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mx_backend_options o = { .device = cases[i].device };
        mx_backend *b = NULL;
        mx_status st = { 0 };

        cr_assert_eq(mx_backend_open(&o, &b, &st), MX_E_DEVICE);
        cr_assert(strstr(st.text, cases[i].says), "%s", st.text);
        cr_assert_null(b);
    }
}

Test(decode, the_cpu_tells_what_it_is_and_what_it_holds) {
    mx_backend *b = kit_open(MX_PRECISION_BF16, 2, false);
    mx_status st = { 0 };
    void *p = NULL;

    cr_assert_str_eq(b->name, "cpu");
    cr_assert(strstr(b->description, "2 threads"), "%s", b->description);
    cr_assert_eq(b->emulated_bf16, !mx_cpu_has_bf16());
    cr_assert_eq(b->alloc(b, MX_MEMORY_BATCH, 5 << 20, &p, &st), MX_OK);
    cr_assert_eq((uintptr_t)p % 64, 0);
    for (int i = 0; i < 5 << 20; i += 4097) {
        cr_assert_eq(((char *)p)[i], 0);
    }
    cr_assert_eq(b->used_bytes(b, MX_MEMORY_BATCH), 5 << 20);
    b->release(b, MX_MEMORY_BATCH, p);
    b->release(b, MX_MEMORY_BATCH, NULL);
    cr_assert_eq(b->used_bytes(b, MX_MEMORY_BATCH), 0);
    cr_assert_eq(b->alloc(b, MX_MEMORY_SAVED, SIZE_MAX - 10, &p, &st), MX_E_MEMORY);
    cr_assert_null(p);
    b->close(b);
}
