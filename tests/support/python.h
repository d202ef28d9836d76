/* python.h - what lm-evaluation-harness's own test data needs of Python: its random numbers and its JSON. */
#ifndef TESTS_SUPPORT_PYTHON_H
#define TESTS_SUPPORT_PYTHON_H

#include "base/text.h"

#include <string.h>

/* random.Random(seed): MT19937 (Matsumoto and Nishimura 1998), seeded as init_by_array([seed]). */
typedef struct python_random {
    uint32_t state[624];
    int at;
} python_random;

static inline void python_seed(python_random *r, uint32_t seed)
{
    uint32_t *s = r->state;
    int i = 1;

    s[0] = 19650218u;
    for (int k = 1; k < 624; k++) {
        s[k] = 1812433253u * (s[k - 1] ^ (s[k - 1] >> 30)) + (uint32_t)k;
    }
    for (int k = 0; k < 624; k++) { /* the key has one word, so its index is 0 throughout */
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525u)) + seed;
        if (++i == 624) {
            s[0] = s[623];
            i = 1;
        }
    }
    for (int k = 0; k < 623; k++) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941u)) - (uint32_t)i;
        if (++i == 624) {
            s[0] = s[623];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
    r->at = 624;
}

static inline uint32_t python_bits(python_random *r)
{
    uint32_t *s = r->state, y;

    if (r->at == 624) {
        for (int k = 0; k < 624; k++) {
            y = (s[k] & 0x80000000u) | (s[(k + 1) % 624] & 0x7fffffffu);
            s[k] = s[(k + 397) % 624] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        r->at = 0;
    }
    y = s[r->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* random.random() */
static inline double python_uniform(python_random *r)
{
    uint32_t a = python_bits(r) >> 5, b = python_bits(r) >> 6;

    return (a * 67108864.0 + b) / 9007199254740992.0;
}

/* random.shuffle of 0 .. n-1 */
static inline void python_shuffle(python_random *r, int64_t *item, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        uint32_t bound = (uint32_t)i + 1, j;
        int bits = 32 - __builtin_clz(bound);
        int64_t kept = item[i];

        do {
            j = python_bits(r) >> (32 - bits);
        } while (j >= bound);
        item[i] = item[j];
        item[j] = kept;
    }
}

/* json.dumps of a text, with Python's defaults: everything beyond ASCII is escaped, in UTF-16. */
static inline void python_json(const char *s, mx_text *out)
{
    mx_text_add(out, "\"", 1);
    while (*s) {
        unsigned char c = (unsigned char)*s;
        uint32_t point = c;
        int more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;

        for (point = more ? c & (0x3fu >> more) : c, s++; more; more--, s++) {
            point = point << 6 | ((unsigned char)*s & 0x3f);
        }
        if (point == '"' || point == '\\') {
            mx_text_print(out, "\\%c", (char)point);
        } else if (point == '\n' || point == '\r' || point == '\t' || point == '\b' || point == '\f') {
            mx_text_print(out, "\\%c", point == '\n' ? 'n' : point == '\r' ? 'r' : point == '\t' ? 't' : point == '\b' ? 'b' : 'f');
        } else if (point >= 0x10000) {
            mx_text_print(out, "\\u%04x\\u%04x", 0xd800 + ((point - 0x10000) >> 10), 0xdc00 + ((point - 0x10000) & 0x3ff));
        } else if (point < 0x20 || point >= 0x7f) {
            mx_text_print(out, point == 0x7f ? "\x7f" : "\\u%04x", point);
        } else {
            mx_text_print(out, "%c", (char)point);
        }
    }
    mx_text_add(out, "\"", 1);
}

#endif
