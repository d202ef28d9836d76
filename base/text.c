/* text.c - growing text, near words, numbers as people read and write them. */
#include "base/text.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- growing text --- */

static _Noreturn void give_up(size_t length, size_t limit) {
    fprintf(stderr, "mixrun: fatal: a text grew to %zu bytes; its ceiling is %zu\n", length, limit);
    exit(1);
}

static void reserve(mx_text *t, size_t more) {
    size_t capacity;

    if (more >= t->limit || t->length > t->limit - more - 1) {
        give_up(t->length + more, t->limit);
    }
    if (t->capacity - t->length > more) {
        return;
    }
    capacity = t->capacity ? t->capacity : 256;
    while (capacity - t->length <= more) {
        capacity = capacity > t->limit / 2 ? t->limit : 2 * capacity;
    }
    t->data = realloc(t->data, capacity);
    if (!t->data) {
        give_up(t->length + more, t->limit);
    }
    t->capacity = capacity;
    t->data[t->length] = '\0';
}

void mx_text_init(mx_text *t, size_t limit_bytes) {
    *t = (mx_text){ .limit = limit_bytes };
    reserve(t, 0);
}

void mx_text_finish(mx_text *t) {
    free(t->data);
    *t = (mx_text){ 0 };
}

void mx_text_add(mx_text *t, const char *bytes, size_t length) {
    reserve(t, length);
    if (length) {
        memcpy(t->data + t->length, bytes, length);
    }
    t->length += length;
    t->data[t->length] = '\0';
}

void mx_text_print(mx_text *t, const char *fmt, ...) {
    va_list args;
    int length;

    va_start(args, fmt);
    length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    assert(length >= 0);
    reserve(t, (size_t)length);
    va_start(args, fmt);
    vsnprintf(t->data + t->length, (size_t)length + 1, fmt, args);
    va_end(args);
    t->length += (size_t)length;
}

/* --- near words --- */

enum { WORD_MAX = 64 }; /* longer words are no slip of the finger, and cost is quadratic */

static int smaller(int a, int b) {
    return a < b ? a : b;
}

/* Damerau-Levenshtein, optimal string alignment: insert, delete, replace, swap neighbours. Three
 * rows suffice. */
static int distance(const char *a, const char *b) {
    int row[3][WORD_MAX + 1], n = (int)strlen(a), m = (int)strlen(b);

    for (int j = 0; j <= m; j++) {
        row[0][j] = j;
    }
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);

            now[j] = smaller(smaller(last[j], now[j - 1]) + 1, last[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2])) {
                now[j] = smaller(now[j], before[j - 2] + 1);
            }
        }
    }
    return row[n % 3][m];
}

const char *mx_text_nearest(const char *word, const char *const *candidates, size_t count) {
    size_t length = strlen(word);
    int allowed = length <= 4 ? 1 : length <= 8 ? 2 : 3, best = allowed + 1;
    const char *nearest = NULL;

    if (length == 0 || length > WORD_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        int d = strlen(candidates[i]) <= WORD_MAX ? distance(word, candidates[i]) : best;

        if (d < best) {
            best = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}

/* --- numbers for people --- */

enum { RING = 16, RING_TEXT = 40 };

static char *ring(void) {
    static _Thread_local char buffer[RING][RING_TEXT];
    static _Thread_local unsigned at;

    return buffer[at++ % RING];
}

const char *mx_text_count(int64_t n) {
    char digits[24], *text = ring(), *to = text;
    uint64_t size = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    int length = snprintf(digits, sizeof digits, "%" PRIu64, size);

    if (n < 0) {
        *to++ = '-';
    }
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) {
            *to++ = ',';
        }
        *to++ = digits[i];
    }
    *to = '\0';
    return text;
}

/* The unit changes at half of the larger one, so that memory plans near 1 GiB compare at a glance.
 */
const char *mx_text_bytes(uint64_t n) {
    static const char *const unit[] = { "KiB", "MiB", "GiB", "TiB" };
    char *text = ring();
    double value = (double)n / 1024;
    int u = 0;

    if (n < 1024) {
        snprintf(text, RING_TEXT, "%d byte%s", (int)n, n == 1 ? "" : "s");
        return text;
    }
    while (u < 3 && value > 512) {
        value /= 1024;
        u++;
    }
    snprintf(text, RING_TEXT, "%.*f %s", u >= 2 ? 2 : value < 100 ? 1 : 0, value, unit[u]);
    return text;
}

const char *mx_text_seconds(double s) {
    char *text = ring();
    int64_t whole;

    if (!(s >= 0 && s < 1e12)) {
        snprintf(text, RING_TEXT, "--:--");
        return text;
    }
    whole = (int64_t)(s + 0.5);
    if (whole < 3600) {
        snprintf(text, RING_TEXT, "%02d:%02d", (int)(whole / 60), (int)(whole % 60));
    } else {
        snprintf(text, RING_TEXT, "%" PRId64 ":%02d:%02d", whole / 3600, (int)(whole / 60 % 60),
                 (int)(whole % 60));
    }
    return text;
}

const char *mx_text_real(double v) {
    char *text = ring();
    double back;

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, RING_TEXT, "%.*g", digits, v);
        if (mx_text_to_double(text, &back) && back == v) {
            break;
        }
    }
    return text;
}

/* --- numbers from people --- */

bool mx_text_to_double(const char *s, double *ret) {
    const char *c = s;
    char *end;
    double value;

    /* strtod also takes blanks, hex, inf and nan: let only what a decimal number is made of reach
     * it. */
    if (*s == '\0' || s[strspn(s, "+-.0123456789eE")] != '\0') {
        return false;
    }
    c += *c == '+' || *c == '-';
    if (!(isdigit((unsigned char)c[0]) || (c[0] == '.' && isdigit((unsigned char)c[1])))) {
        return false;
    }
    value = strtod(s, &end);
    if (*end != '\0' || !isfinite(value)) {
        return false;
    }
    *ret = value;
    return true;
}

bool mx_text_to_int64(const char *s, int64_t *ret) {
    const char *c = s + (*s == '+' || *s == '-');
    char *end;
    long long value;

    if (!isdigit((unsigned char)*c)) {
        return false;
    }
    errno = 0;
    value = strtoll(s, &end, 10);
    if (*end != '\0' || errno == ERANGE) {
        return false;
    }
    *ret = value;
    return true;
}
