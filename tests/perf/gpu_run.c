/* gpu_run.c - see gpu.h. */
#include "tests/perf/gpu.h"

#include "base/file.h"
#include "base/rng.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

_Noreturn void perf_die(const char *what, const mx_status *st) {
    fflush(stdout);
    fprintf(stderr, "perf-gpu: %s: %s%s%s\n", what, st->text, st->hint[0] ? "; " : "", st->hint);
    exit(1);
}

/* ------------------------------------------------------------------ time */

double perf_now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of one of `calls`, from an idle device to an idle device. */
static perf_time timed(perf *p, perf_work work, void *what, int calls) {
    mx_status st = { 0 };
    double began, queued;

    if (p->b->sync(p->b, &st)) {
        perf_die("before a measurement", &st);
    }
    began = perf_now();
    for (int i = 0; i < calls; i++) {
        work(p, what);
    }
    queued = perf_now();
    if (p->b->wait(p->b, p->b->mark(p->b), &st)) {
        perf_die("in a measurement", &st);
    }
    return (perf_time){ (perf_now() - began) / calls, (queued - began) / calls };
}

static int by_seconds(const void *a, const void *b) {
    double x = ((const perf_time *)a)->seconds, y = ((const perf_time *)b)->seconds;

    return (x > y) - (x < y);
}

perf_time perf_measure(perf *p, perf_work work, void *what) {
    enum { ROUNDS = 5, CALLS_MAX = 400 };
    const double round = 0.03;
    perf_time t[ROUNDS], once;
    int calls, rounds;

    once = timed(p, work, what, 1); /* choices of algorithms, modules loaded */
    if (p->quick) {
        return once;
    }
    once = timed(p, work, what, 1);
    calls = once.seconds > round ? 1 : (int)(round / once.seconds) + 1;
    calls = calls > CALLS_MAX ? CALLS_MAX : calls;
    rounds = once.seconds > 0.2 ? 1 : ROUNDS;
    for (int i = 0; i < rounds; i++) {
        t[i] = timed(p, work, what, calls);
    }
    qsort(t, (size_t)rounds, sizeof *t, by_seconds);
    return t[rounds / 2];
}

/* ------------------------------------------------------------------ memory */

static void hold(perf *p, void *memory, mx_weight *weight) {
    assert(p->helds < PERF_HELD_MAX);
    p->held[p->helds].memory = memory;
    p->held[p->helds++].weight = weight;
}

void perf_release(perf *p) {
    while (p->helds > 0) {
        p->helds--;
        p->b->release(p->b, MX_MEMORY_SAVED, p->held[p->helds].memory);
        p->b->weight_close(p->b, p->held[p->helds].weight);
    }
}

void *perf_memory(perf *p, size_t bytes) {
    mx_status st = { 0 };
    void *memory;

    if (p->b->alloc(p->b, MX_MEMORY_SAVED, bytes ? bytes : 1, &memory, &st)) {
        perf_die("memory", &st);
    }
    hold(p, memory, NULL);
    return memory;
}

void *perf_copy(perf *p, const void *from_host, size_t bytes) {
    void *memory = perf_memory(p, bytes);

    p->b->write(p->b, memory, from_host, bytes);
    return memory;
}

static uint16_t bf16_of(float f) {
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest even; the pool is finite */
}

/* Blocks of ggml's Q4_0: a half float and 32 times 4 bits, meaning d (q - 8); q is uniform, its deviation 4.6. */
enum { Q4_VALUES = 32, Q4_BYTES = 18, HALF_BIAS = 15 };

static void q4_blocks(const perf *p, int64_t at, int64_t blocks, double size, uint8_t *to) {
    int exponent = (int)floor(log2(size / 4.6)) + HALF_BIAS;

    exponent = exponent < 1 ? 1 : exponent;
    for (int64_t i = 0; i < blocks; i++, to += Q4_BYTES) {
        for (int w = 0; w < Q4_BYTES; w += 2) { /* the pool's bits, the upper of which are a normal value's sign and exponent */
            uint32_t bits;

            memcpy(&bits, &p->pool[(at + i * (Q4_BYTES / 2) + w / 2) % p->pool_size], sizeof bits);
            bits *= 2654435761u;
            to[w] = (uint8_t)(bits >> 24);
            to[w + 1] = (uint8_t)(bits >> 16);
        }
        to[1] = (uint8_t)((to[1] & 0x83) | exponent << 2);
    }
}

void perf_values(const perf *p, mx_file_type type, int64_t at, int64_t n, double size, void *to) {
    if (type == MX_FILE_Q4_0) {
        assert(n % Q4_VALUES == 0 && at % Q4_VALUES == 0);
        q4_blocks(p, at, n / Q4_VALUES, size, to);
        return;
    }
    assert(type == MX_FILE_F32 || type == MX_FILE_BF16);
    for (int64_t i = 0, from = at % p->pool_size; i < n; i++, from = from + 1 == p->pool_size ? 0 : from + 1) {
        float v = (float)(size * p->pool[from]);

        if (type == MX_FILE_BF16) {
            ((uint16_t *)to)[i] = bf16_of(v);
        } else {
            ((float *)to)[i] = v;
        }
    }
}

/* Device memory with the pool's values, over and over. */
static void *filled(perf *p, mx_file_type type, int64_t n, double size) {
    size_t width = mx_file_type_row_bytes(type, 1);
    unsigned char *to = perf_memory(p, (size_t)n * width), *host = malloc((size_t)p->pool_size * width);

    assert(host);
    perf_values(p, type, 0, p->pool_size, size, host);
    for (int64_t at = 0; at < n; at += p->pool_size) {
        p->b->write(p->b, to + (size_t)at * width, host, (size_t)(n - at < p->pool_size ? n - at : p->pool_size) * width);
    }
    free(host);
    return to;
}

mx_tensor perf_tensor(perf *p, int64_t rows, int64_t columns, double size) {
    return mx_tensor_2d(filled(p, p->act == MX_BF16 ? MX_FILE_BF16 : MX_FILE_F32, rows * columns, size), p->act, rows, columns);
}

float *perf_floats(perf *p, int64_t n, double size) {
    return filled(p, MX_FILE_F32, n, size);
}

void perf_weights(perf *p, mx_file_type type, const int64_t *out, int count, int64_t in, mx_weight_room room, unsigned use,
                  mx_weight **ret) {
    mx_weight_source source[MX_WEIGHT_GROUP] = { 0 };
    void *host[MX_WEIGHT_GROUP];
    mx_status st = { 0 };

    for (int i = 0; i < count; i++) {
        host[i] = malloc((size_t)out[i] * mx_file_type_row_bytes(type, in));
        if (!host[i]) {
            mx_fail(&st, MX_E_MEMORY, MX_NOWHERE, "no host memory for a matrix");
            perf_die("weights", &st);
        }
        perf_values(p, type, 0, out[i] * in, 1 / sqrt((double)in), host[i]);
        source[i] = (mx_weight_source){ .type = type, .bytes = host[i], .out = out[i], .in = in };
    }
    if (p->b->weights_open(p->b, source, count, room, use, ret, &st)) {
        perf_die("weights", &st);
    }
    for (int i = 0; i < count; i++) {
        free(host[i]);
        hold(p, NULL, ret[i]);
    }
}

void perf_scratch(perf *p, size_t bytes) {
    p->b->ops->scratch(p->b, perf_memory(p, bytes), bytes);
}

mx_rows perf_rows(perf *p, int64_t rows, int64_t length, int64_t vocab) {
    int64_t segments = (rows + length - 1) / length;
    int32_t *word = calloc((size_t)rows * 3, sizeof *word), *token = word, *position = word + rows, *segment_of = word + 2 * rows;
    mx_segment *segment = calloc((size_t)segments, sizeof *segment);
    mx_rows r = { .rows = rows, .live = rows, .segments = segments };
    mx_rng rng;

    assert(word && segment);
    mx_rng_init(&rng, 1, "tokens");
    for (int64_t i = 0; i < rows; i++) {
        token[i] = (int32_t)mx_rng_below(&rng, (uint64_t)vocab);
        position[i] = (int32_t)(i % length);
        segment_of[i] = (int32_t)(i / length);
    }
    for (int64_t i = 0; i < segments; i++) {
        int64_t left = rows - i * length;

        segment[i] = (mx_segment){ .begin = (int32_t)(i * length), .count = (int32_t)(left < length ? left : length) };
    }
    r.token = perf_copy(p, token, sizeof *token * (size_t)rows);
    r.position = perf_copy(p, position, sizeof *position * (size_t)rows);
    r.question = r.row_segment = perf_copy(p, segment_of, sizeof *segment_of * (size_t)rows);
    r.task = perf_memory(p, sizeof *r.task * (size_t)rows);
    r.segment = perf_copy(p, segment, sizeof *segment * (size_t)segments);
    free(segment);
    free(word);
    return r;
}

/* ------------------------------------------------------------------ report */

static bool ends_with(const char *whole, const char *part) {
    size_t n = strlen(part), all = strlen(whole);

    return n > 0 && part[n - 1] == '$' && all >= n - 1 && memcmp(whole + all - (n - 1), part, n - 1) == 0;
}

/* --only "7b lora;attention": any of the parts between semicolons is found in "section name" (names have commas); one that ends
 * in $ at its end. */
bool perf_named(const perf *p, const char *section, const char *name) {
    char whole[200], part[100];

    snprintf(whole, sizeof whole, "%s %s", section, name);
    for (const char *at = p->only; at;) {
        size_t n = strcspn(at, ";");

        snprintf(part, sizeof part, "%.*s", (int)n, at);
        if (ends_with(whole, part) || strstr(whole, part)) {
            return true;
        }
        at = at[n] ? at + n + 1 : NULL;
    }
    return !p->only;
}

bool perf_in_time(perf *p, const char *section, const char *name) {
    if (perf_now() - p->began < p->seconds) {
        return true;
    }
    json_array_append_new(json_object_get(p->report, "left_out"), json_sprintf("%s %s: no time", section, name));
    return false;
}

bool perf_wants(perf *p, const char *section, const char *name) {
    return perf_named(p, section, name) && perf_in_time(p, section, name);
}

void perf_record(perf *p, const char *section, json_t *record) {
    json_t *list = json_object_get(p->report, section);

    if (!list) {
        list = json_array();
        json_object_set_new(p->report, section, list);
    }
    json_array_append_new(list, record);
}

void perf_title(const char *title) {
    printf("\n%s\n", title);
    fflush(stdout);
}

double perf_tell(perf *p, const char *section, const char *name, perf_work work, void *what, double flops, double bytes) {
    perf_time t = perf_measure(p, work, what);
    double by_flops = p->product > 0 ? flops / p->product : 0, by_bytes = p->copy > 0 ? bytes / p->copy : 0;
    double floor = by_flops > by_bytes ? by_flops : by_bytes;
    bool multiplies = by_flops > by_bytes || bytes <= 0;

    printf("  %-46s %10.4f ms  %8.1f %s", name, t.seconds * 1e3, multiplies ? flops / t.seconds / 1e12 : bytes / t.seconds / 1e9,
           multiplies ? "TFLOP/s" : "GB/s   ");
    if (floor > 0) {
        printf("  floor %9.4f ms  %5.1f %%", floor * 1e3, 100 * floor / t.seconds);
    }
    printf("%s\n", t.host > 0.9 * t.seconds && p->cuda ? "  (the host's own time)" : "");
    fflush(stdout);
    perf_record(p, section, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f}", "name", name, "ms", t.seconds * 1e3, "host_ms", t.host * 1e3,
                                      "flop", flops, "bytes", bytes, "floor_ms", floor * 1e3, "of_floor", floor / t.seconds));
    return t.seconds;
}

void perf_save(perf *p) {
    char *text = p->json ? json_dumps(p->report, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    mx_status st = { 0 };

    if (text && strcmp(p->json, "-") != 0 && mx_file_write(p->json, text, strlen(text), &st)) {
        perf_die(p->json, &st);
    }
    free(text);
}
