/* scratch.h - a folder of one test's own, under the system's temporary folder; removed at its end. */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include "base/file.h"

#include <criterion/criterion.h>
#include <stdlib.h>

typedef struct scratch {
    mx_arena arena;
    const char *folder;
} scratch;

static inline scratch scratch_open(void) {
    scratch s;
    const char *tmp = getenv("TMPDIR");

    mx_arena_init(&s.arena, 64 << 20);
    s.folder = mx_arena_text(&s.arena, "%s/mixrun-test-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp((char *)s.folder), "no scratch folder");
    return s;
}

static inline const char *scratch_path(scratch *s, const char *name) {
    return mx_arena_text(&s->arena, "%s/%s", s->folder, name);
}

static inline void scratch_close(scratch *s) {
    cr_assert(mx_folder_remove(s->folder, NULL) == MX_OK);
    mx_arena_finish(&s->arena);
}

#endif
