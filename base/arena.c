/* arena.c - bump allocation from chunks, newest first. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGNMENT = _Alignof(max_align_t),
    CHUNK_BYTES =
        64 * 1024 /* of an ordinary chunk; a larger request gets a chunk of its own size */
};

struct mx_arena_chunk {
    mx_arena_chunk *next;
    size_t used, size; /* bytes of `data` */
    _Alignas(max_align_t) unsigned char data[];
};

static _Noreturn void give_up(const char *what, size_t size, size_t limit) {
    fprintf(stderr, "mixrun: fatal: %s: %zu bytes more asked for, with a ceiling of %zu\n", what,
            size, limit);
    exit(1);
}

void mx_arena_init(mx_arena *a, size_t limit_bytes) {
    *a = (mx_arena){ .limit = limit_bytes };
}

void mx_arena_finish(mx_arena *a) {
    while (a->chunk) {
        mx_arena_chunk *next = a->chunk->next;

        free(a->chunk);
        a->chunk = next;
    }
    a->used = 0;
}

static void add_chunk(mx_arena *a, size_t size) {
    mx_arena_chunk *chunk = malloc(sizeof *chunk + size);

    if (!chunk) {
        give_up("the system has no memory", size, a->limit);
    }
    *chunk = (mx_arena_chunk){ .next = a->chunk, .size = size };
    a->chunk = chunk;
}

void *mx_arena_take(mx_arena *a, size_t size) {
    size_t whole;
    void *taken;

    if (size > a->limit || size > SIZE_MAX - ALIGNMENT) {
        give_up("an arena is full", size, a->limit);
    }
    whole = size ? (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    if (whole > a->limit - a->used) {
        give_up("an arena is full", size, a->limit);
    }
    if (!a->chunk || whole > a->chunk->size - a->chunk->used) {
        add_chunk(a, whole > CHUNK_BYTES ? whole : CHUNK_BYTES);
    }
    taken = a->chunk->data + a->chunk->used;
    a->chunk->used += whole;
    a->used += whole;
    a->peak = a->used > a->peak ? a->used : a->peak;
    return memset(taken, 0, whole);
}

char *mx_arena_copy(mx_arena *a, const char *bytes, size_t length) {
    char *copy;

    if (length == SIZE_MAX) {
        give_up("an arena is full", length, a->limit);
    }
    copy = mx_arena_take(a, length + 1);
    if (length) {
        memcpy(copy, bytes, length);
    }
    return copy;
}

char *mx_arena_text(mx_arena *a, const char *fmt, ...) {
    va_list args;
    char *text;
    int length;

    va_start(args, fmt);
    length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    text = mx_arena_take(a, (size_t)(length < 0 ? 0 : length) + 1);
    va_start(args, fmt);
    vsnprintf(text, (size_t)(length < 0 ? 0 : length) + 1, fmt, args);
    va_end(args);
    return text;
}

/* Several chunks become one of their whole size, so that the next round of the same needs allocates
 * nothing. */
void mx_arena_rewind(mx_arena *a) {
    size_t size = 0;

    a->used = 0;
    if (!a->chunk) {
        return;
    }
    if (!a->chunk->next) {
        a->chunk->used = 0;
        return;
    }
    for (mx_arena_chunk *c = a->chunk; c; c = c->next) {
        size += c->size;
    }
    mx_arena_finish(a);
    add_chunk(a, size);
}
