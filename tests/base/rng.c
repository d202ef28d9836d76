/* rng.c - Philox against its published answers; what is drawn from it against what it promises. */
#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

Test(rng, philox_gives_the_known_answers) {
    /* Random123's kat_vectors, philox4x32 10. */
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t got[4];

        mx_rng_draw((mx_rng_key){ { known[i].key[0], known[i].key[1] } }, known[i].counter, got);
        cr_assert_eq(memcmp(got, known[i].expected, sizeof got), 0, "case %zu: %08x", i, got[0]);
    }
}

Test(rng, neighbouring_seeds_steps_and_names_share_nothing) {
    mx_rng a, b;
    int same = 0;

    cr_assert_neq(mx_rng_make_key(1, 2).k[0], mx_rng_make_key(1, 3).k[0]);
    cr_assert_neq(mx_rng_make_key(1, 2).k[0], mx_rng_make_key(2, 1).k[0]);
    mx_rng_init(&a, 42, "order");
    mx_rng_init(&b, 42, "start");
    for (int i = 0; i < 1000; i++) {
        same += mx_rng_u32(&a) == mx_rng_u32(&b);
    }
    cr_assert_eq(same, 0);
}

Test(rng, a_stream_is_the_same_every_time) {
    mx_rng a, b;

    mx_rng_init(&a, 7, "x");
    mx_rng_init(&b, 7, "x");
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(mx_rng_u32(&a), mx_rng_u32(&b));
    }
}

Test(rng, draws_have_their_means_and_bounds) {
    enum { N = 100000 };
    double sum = 0, square = 0, uniform = 0;
    int64_t count[7] = { 0 };
    mx_rng r;

    mx_rng_init(&r, 1, "moments");
    for (int i = 0; i < N; i++) {
        double x = mx_rng_normal(&r), u = mx_rng_uniform(&r);
        uint64_t k = mx_rng_below(&r, 7);

        sum += x;
        square += x * x;
        uniform += u;
        cr_assert(u >= 0 && u < 1 && k < 7 && isfinite(x));
        count[k]++;
    }
    /* five standard errors of N draws: 5 / sqrt(N) = 0.016, of the square 0.022, of a uniform 0.0046 */
    cr_assert_float_eq(sum / N, 0, 0.016);
    cr_assert_float_eq(square / N, 1, 0.023);
    cr_assert_float_eq(uniform / N, 0.5, 0.0046);
    for (int k = 0; k < 7; k++) {
        cr_assert_float_eq((double)count[k], N / 7.0, 5 * sqrt(N * 6 / 49.0));
    }
}

Test(rng, a_shuffle_keeps_every_item_and_is_no_identity) {
    int64_t item[100], seen[100] = { 0 }, fixed = 0;
    mx_rng r;

    for (int i = 0; i < 100; i++) {
        item[i] = i;
    }
    mx_rng_init(&r, 3, "shuffle");
    mx_rng_shuffle(&r, item, 100);
    for (int i = 0; i < 100; i++) {
        seen[item[i]]++;
        fixed += item[i] == i;
    }
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(seen[i], 1);
    }
    cr_assert_lt(fixed, 10);
    mx_rng_shuffle(&r, item, 1);
    mx_rng_shuffle(&r, item, 0);
}
