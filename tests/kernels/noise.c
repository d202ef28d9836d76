/* noise.c - dropout's masks and jitter against base/rng.h, word by word. */
#include "kernels/cpu/cpu.h"
#include "tests/kernels/kit.h"

static bool bit(const uint8_t *bits, int64_t row, int64_t columns, int64_t column) {
    return bits[row * mx_dropout_row_bytes(columns) + column / 8] >> (column % 8) & 1;
}

Test(noise, masks_are_the_generators_words) {
    static const int64_t widths[] = { 1, 7, 8, 63, 64, 65, 128, 200, 576 };
    static const float rates[] = { 0.05f, 0.3f, 0.5f, 0.999999f, 0.000001f };
    mx_backend *b = kit_open(MX_PRECISION_F32, 2, false);
    kit_rows batch = kit_batch(b, 13, 13);

    batch.question[3] = -1; /* any 32 bits name a mask */
    batch.position[4] = INT32_MAX;
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
            mx_noise noise = { .seed = 11, .step = 1234567890123, .site = 5, .rate = rates[i] };
            uint8_t *bits = kit_memory(b, (size_t)(13 * mx_dropout_row_bytes(widths[w])));

            mx_dropout_draw(&noise, 2, &batch.rows, NULL, 13, widths[w], bits);
            for (int64_t t = 0; t < 13; t++) {
                for (int64_t c = 0; c < widths[w]; c++) {
                    bool kept = kit_dropout(&noise, 2, batch.question[t], batch.position[t], c) > 0;

                    cr_assert_eq(bit(bits, t, widths[w], c), kept, "rate %g, row %d, column %d", (double)rates[i], (int)t, (int)c);
                }
            }
            b->release(b, MX_MEMORY_SAVED, bits);
        }
    }
    b->close(b);
}

Test(noise, repacking_changes_no_mask) {
    enum { N = 20, C = 100 };
    mx_backend *b = kit_open(MX_PRECISION_F32, 2, false);
    kit_rows one = kit_batch(b, N, N), other = kit_batch(b, N, N);
    mx_noise noise = { .seed = 1, .step = 2, .site = 3, .rate = 0.3f };
    uint8_t *first = kit_memory(b, N * (size_t)mx_dropout_row_bytes(C)), *second = kit_memory(b, N * (size_t)mx_dropout_row_bytes(C));
    int32_t backwards[N];

    for (int t = 0; t < N; t++) { /* the same rows in reverse */
        other.question[t] = one.question[N - 1 - t];
        other.position[t] = one.position[N - 1 - t];
        backwards[t] = N - 1 - t;
    }
    mx_dropout_draw(&noise, 0, &one.rows, NULL, N, C, first);
    mx_dropout_draw(&noise, 0, &other.rows, NULL, N, C, second);
    for (int t = 0; t < N; t++) {
        cr_assert_eq(memcmp(first + t * mx_dropout_row_bytes(C), second + (N - 1 - t) * mx_dropout_row_bytes(C), C / 8), 0);
    }
    mx_dropout_draw(&noise, 0, &other.rows, backwards, N, C, second); /* named through a list of rows */
    cr_assert_eq(memcmp(first, second, N * (size_t)mx_dropout_row_bytes(C)), 0);
    b->close(b);
}

Test(noise, the_share_of_dropped_values_is_the_rate) {
    enum { N = 200, C = 1000 };
    mx_backend *b = kit_open(MX_PRECISION_F32, 2, false);
    kit_rows batch = kit_batch(b, N, N);
    mx_noise noise = { .seed = 9, .step = 2, .site = 3, .rate = 0.3f };
    uint8_t *bits = kit_memory(b, N * (size_t)mx_dropout_row_bytes(C));
    int64_t dropped = 0;

    mx_dropout_draw(&noise, 0, &batch.rows, NULL, N, C, bits);
    for (int64_t i = 0; i < N * C; i++) {
        dropped += !bit(bits, i / C, C, i % C);
    }
    cr_assert_float_eq((double)dropped / (N * C), 0.3, 5 * sqrt(0.3 * 0.7 / (N * C))); /* five standard errors */
    b->close(b);
}

Test(noise, applying_a_mask_scales_what_is_kept) {
    enum { C = 77 };
    mx_precision precision;
    uint8_t bits[16];
    mx_rng r;

    mx_rng_init(&r, 4, "apply");
    for (int i = 0; i < 16; i++) {
        bits[i] = (uint8_t)mx_rng_u32(&r);
    }
    KIT_EACH_PRECISION(precision) {
        mx_backend *b = kit_open(precision, 1, false);
        double *x = kit_values(&r, C, 1), *y = kit_values(&r, C, 1), expected[3][C];
        mx_tensor tx = kit_tensor(b, x, 1, C), masked = kit_tensor(b, NULL, 1, C), ty = kit_tensor(b, NULL, 1, C), sum = kit_tensor(b, y, 1, C);

        for (int c = 0; c < C; c++) {
            double kept = bit(bits, 0, C, c) ? x[c] : 0;

            expected[0][c] = kept;
            expected[1][c] = kept / (1 - (double)0.3f);
            expected[2][c] = y[c] + expected[1][c];
        }
        mx_mask_row(bits, masked.data, tx.data, tx.dtype, C);
        mx_dropout_row(bits, 0.3f, ty.data, ty.dtype, tx.data, tx.dtype, C, false);
        mx_dropout_row(bits, 0.3f, sum.data, sum.dtype, tx.data, tx.dtype, C, true);

        double tolerance = precision == MX_PRECISION_BF16 ? 0x1p-8 : 1e-6;

        kit_near_tensor("masked", expected[0], masked, C, 0);
        kit_near_tensor("dropped", expected[1], ty, C, tolerance);
        kit_near_tensor("added", expected[2], sum, C, tolerance);
        b->close(b);
    }
}

Test(noise, jitter_multiplies_by_the_named_draw_both_ways) {
    enum { N = 30, C = 150 };
    mx_precision precision;

    KIT_EACH_PRECISION(precision) {
        mx_backend *b = kit_open(precision, 2, false);
        kit_rows batch = kit_batch(b, N, N);
        mx_noise noise = { .seed = 9, .step = 2, .site = 3, .rate = 0.1f };
        mx_rng r;

        mx_rng_init(&r, 4, "jitter");
        double *x = kit_values(&r, N * C, 1), *d = kit_values(&r, N * C, 1), *old = kit_values(&r, N * C, 1);
        double *y = kit_array(N * C), *dx = kit_array(N * C), least = 2, most = 0;
        mx_tensor tx = kit_tensor(b, x, N, C), ty = kit_tensor(b, NULL, N, C), td = kit_tensor(b, d, N, C), tdx = kit_tensor(b, old, N, C);

        for (int64_t i = 0; i < N * C; i++) {
            int64_t t = i / C, c = i % C;
            uint32_t counter[4] = { (uint32_t)(c / 8), (uint32_t)batch.position[t], (uint32_t)batch.question[t], 3 }, word[4];

            mx_rng_draw(mx_rng_make_key(9, 2), counter, word);
            double u = 1 + (double)0.1f * ((2.0 * (word[c % 8 / 2] >> (c % 2 * 16) & 0xffff) + 1) / 65536 - 1);

            y[i] = x[i] * u;
            dx[i] = old[i] + d[i] * u;
            least = u < least ? u : least;
            most = u > most ? u : most;
        }
        cr_assert(least > 0.9 && least < 0.9005 && most < 1.1 && most > 1.0995); /* the draws reach both ends */
        b->ops->jitter_forward(b, ty, tx, &batch.rows, noise);
        b->ops->jitter_backward(b, tdx, td, &batch.rows, noise);

        double tolerance = precision == MX_PRECISION_BF16 ? 0x1p-8 : 1e-6;

        kit_near_tensor("jitter", y, ty, N * C, tolerance);
        kit_near_tensor("its gradient", dx, tdx, N * C, tolerance);
        b->close(b);
    }
}
