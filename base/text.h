/* text.h - small things about words: growing text, near words, numbers as people read them. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Growing text. Always 0-terminated; `limit` is the ceiling stated at birth. */
typedef struct mx_text {
    char *data;
    size_t length, capacity, limit;
} mx_text;
void mx_text_init(mx_text *t, size_t limit_bytes);
void mx_text_finish(mx_text *t); /* zeroed is fine */
void mx_text_add(mx_text *t, const char *bytes, size_t length);
void mx_text_print(mx_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3), nonnull(2)));

/* The candidate nearest to `word` (Damerau-Levenshtein, case ignored), or NULL when none is
 * near enough to be worth suggesting: at most 1 edit for words up to 4 letters, 2 up to 8, else 3. */
const char *mx_text_nearest(const char *word, const char *const *candidates, size_t count);

/* "1,234,567"; "0.61 GiB", "512 MiB"; "01:10", "2:05:09"; into a ring of static buffers good
 * for the next 15 calls. */
const char *mx_text_count(int64_t n);
const char *mx_text_bytes(uint64_t n);
const char *mx_text_seconds(double s);
/* In the fewest digits that read back to the bit: "0.001"; into the same ring. */
const char *mx_text_real(double v);

/* Whole text as a number: false when anything is left over. `1e-4`, `.5`, `2_000`? no: plain
 * C syntax without hex, inf, nan; leading '+' allowed. */
bool mx_text_to_double(const char *s, double *ret);
bool mx_text_to_int64(const char *s, int64_t *ret);

#endif
