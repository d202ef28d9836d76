/* rng.c - Philox4x32-10 and what is drawn from it on the host. */
#include "base/rng.h"

#include <assert.h>
#include <math.h>

/* Multipliers and Weyl increments as in Random123's philox4x32. */
#define M0 0xD2511F53u
#define M1 0xCD9E8D57u
#define W0 0x9E3779B9u
#define W1 0xBB67AE85u
#define ROUNDS 10

/* Streams use a site no dropout has, so that no stream repeats a mask's draws. */
#define STREAM_SITE 0xFFFFFFFFu

static uint64_t splitmix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

mx_rng_key mx_rng_make_key(uint64_t seed, uint64_t step) {
    uint64_t k = splitmix64(splitmix64(seed) ^ step);

    return (mx_rng_key){ { (uint32_t)k, (uint32_t)(k >> 32) } };
}

void mx_rng_draw(mx_rng_key key, const uint32_t counter[4], uint32_t ret[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key.k[0], k1 = key.k[1];

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t p0 = (uint64_t)M0 * c0, p1 = (uint64_t)M1 * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += W0;
        k1 += W1;
    }
    ret[0] = c0;
    ret[1] = c1;
    ret[2] = c2;
    ret[3] = c3;
}

void mx_rng_init(mx_rng *r, uint64_t seed, const char *name) {
    uint32_t hash = 0x811C9DC5u; /* FNV-1a */

    for (; *name; name++) {
        hash = (hash ^ (unsigned char)*name) * 0x01000193u;
    }
    *r = (mx_rng){ .key = mx_rng_make_key(seed, 0), .name = hash };
}

uint32_t mx_rng_u32(mx_rng *r) {
    if (r->next % 4 == 0) {
        uint64_t block = r->next / 4;
        uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32), r->name, STREAM_SITE };

        mx_rng_draw(r->key, counter, r->word);
    }
    return r->word[r->next++ % 4];
}

static uint64_t draw_u64(mx_rng *r) {
    uint64_t low = mx_rng_u32(r);

    return (uint64_t)mx_rng_u32(r) << 32 | low;
}

/* Values of the last, incomplete round of n are drawn again. */
uint64_t mx_rng_below(mx_rng *r, uint64_t n) {
    uint64_t x, surplus;

    assert(n > 0);
    surplus = (0 - n) % n; /* 2^64 mod n */
    do {
        x = draw_u64(r);
    } while (x < surplus);
    return x % n;
}

double mx_rng_uniform(mx_rng *r) {
    return (double)(draw_u64(r) >> 11) * 0x1p-53;
}

double mx_rng_normal(mx_rng *r) {
    double u = ((double)mx_rng_u32(r) + 0.5) * 0x1p-32; /* never 0: its logarithm is taken */
    double v = (double)mx_rng_u32(r) * 0x1p-32;

    return sqrt(-2 * log(u)) * cos(6.283185307179586476925 * v);
}

void mx_rng_shuffle(mx_rng *r, int64_t *item, int64_t n) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)mx_rng_below(r, (uint64_t)i + 1), kept = item[i];

        item[i] = item[j];
        item[j] = kept;
    }
}
