/* arena.h - memory that is freed all at once.
 *
 * Two arenas exist while a run is under way. `run` holds what lives as long as the run:
 * the recipe, the plan, names, questions. `step` is rewound after each optimizer step.
 * Nothing taken from an arena is ever freed by hand. An arena grows by chunks up to a
 * ceiling stated where it is born; past it, or when the system has no memory, the
 * process ends with a message: host bookkeeping is small, and a ceiling hit is a bug or
 * an attack, not something a caller can mend. (Large arrays are allocated elsewhere and
 * their failures reported.) */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

typedef struct mx_arena_chunk mx_arena_chunk;
typedef struct mx_arena {
    mx_arena_chunk *chunk;    /* newest first */
    size_t used, peak, limit; /* bytes */
} mx_arena;

void mx_arena_init(mx_arena *a, size_t limit_bytes);
/* Gives the memory back. A zeroed arena is fine. */
void mx_arena_finish(mx_arena *a);
/* Zeroed memory, aligned for any type; never NULL. */
void *mx_arena_take(mx_arena *a, size_t size) __attribute__((returns_nonnull));
char *mx_arena_copy(mx_arena *a, const char *bytes, size_t length)
    __attribute__((returns_nonnull)); /* adds the closing 0 */
char *mx_arena_text(mx_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3), nonnull(2), returns_nonnull));
/* Forgets everything taken; keeps the memory for the next round. */
void mx_arena_rewind(mx_arena *a);

#define MX_TAKE(arena, type, count) ((type *)mx_arena_take((arena), sizeof(type) * (size_t)(count)))

#endif
