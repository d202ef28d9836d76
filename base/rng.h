/* rng.h - random numbers as a function, not a stream.
 *
 * Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"):
 * four 32-bit words from a 128-bit counter and a 64-bit key. Every draw of mixrun names
 * its counter, so the CPU and CUDA draw the same dropout masks, a repacked batch redraws
 * the same mask and a resumed run redraws nothing.
 *
 * Dropout: key = mx_rng_key(seed, step), counter = {column / 8, position, question, site};
 * word w holds columns 2w and 2w + 1 of the block of eight as its low and high 16 bits;
 * an element is dropped when its 16 bits are below round(rate * 65536), and the kept ones
 * are multiplied by 1 / (1 - rate). */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

typedef struct mx_rng_key {
    uint32_t k[2];
} mx_rng_key;

/* One round each of splitmix64 over seed and step: neighbours share nothing. */
mx_rng_key mx_rng_make_key(uint64_t seed, uint64_t step);
void mx_rng_draw(mx_rng_key key, const uint32_t counter[4], uint32_t ret[4]);

/* A sequence for host-side use (initial values, shuffles): draw i of stream `name`.
 * Different names give independent streams of one seed. */
typedef struct mx_rng {
    mx_rng_key key;
    uint32_t name; /* FNV-1a of the stream's name */
    uint64_t next; /* words drawn so far */
    uint32_t word[4];
} mx_rng;
void mx_rng_init(mx_rng *r, uint64_t seed, const char *name);
uint32_t mx_rng_u32(mx_rng *r);
uint64_t mx_rng_below(mx_rng *r, uint64_t n); /* 0 .. n-1, without modulo bias */
double mx_rng_uniform(mx_rng *r);             /* [0, 1), 53 bits */
double mx_rng_normal(mx_rng *r);              /* Box-Muller, one draw of two words each */
/* Fisher-Yates over n int64 in place. */
void mx_rng_shuffle(mx_rng *r, int64_t *item, int64_t n);

#endif
