/* A test of the tests: each fault in planted/ is reported by the build that is there to see it, naming the right line, and
 * the same kernel without the fault runs in that build in silence. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

typedef struct fault {
    const char *name;
    const char *build;   /* MIXRUN_PLANTED_<build> is the program */
    const char *message; /* in what it prints */
    bool line;           /* and a line of the source that is marked so */
} fault;
static const fault FAULTS[] = {
    { "missing_barrier", "THREAD", "data race", true },
    { "missing_barrier_behind", "THREAD", "data race", true },
    { "shuffle_is_no_fence", "THREAD", "data race", true },
    { "shared_histogram", "THREAD", "data race", true },
    { "across_blocks", "THREAD", "data race", true },
    { "missing_fence", "THREAD", "data race", true },
    { "copy_unshared", "THREAD", "data race", true },
    { "copy_overtakes", "THREAD", "data race", true },
    { "copy_not_waited_for", "PLAIN", "64 of 64 values are wrong", false },
    { "shared_not_written", "PLAIN", "128 of 128 values are wrong", false },
    { "divergent_barrier", "PLAIN", "divergent barrier", true },
    { "early_return", "PLAIN", "return", true },
    { "divergent_shuffle", "PLAIN", "no thread can go on", true },
    { "mixed_warp", "PLAIN", "divergent warp", true },
    { "mask_without_itself", "PLAIN", "not in its own mask", true },
    { "copy_misaligned", "PLAIN", "not 16-byte aligned", false },
    { "dynamic_overindex", "PLAIN", "behind its 256 bytes of dynamic shared memory", false },
    { "global_overread", "ADDRESS", "heap-buffer-overflow", true },
    { "shared_overindex", "ADDRESS", "global-buffer-overflow", true },
    { "dynamic_overindex", "ADDRESS", "use-after-poison", true },
};
enum { FAULTS_COUNT = sizeof FAULTS / sizeof *FAULTS, ROOM = 1 << 20 };

/* Everything it prints, and its exit status (128 + the signal, when it dies of one). */
static char *output_of(const char *program, const char *name, const char *seed, const char *more, int *status) {
    char command[1000], *text = calloc(1, ROOM);
    size_t used = 0, got;
    FILE *f;

    cr_assert(text);
    snprintf(command, sizeof command, "TSAN_OPTIONS=atexit_sleep_ms=0 MIXRUN_SHIM_SEED=%s exec '%s' %s %s 2>&1", seed, program, name, more);
    f = popen(command, "r");
    cr_assert(f);
    while (used < ROOM - 1 && (got = fread(text + used, 1, ROOM - 1 - used, f)) > 0) {
        used += got;
    }
    *status = pclose(f);
    *status = WIFSIGNALED(*status) ? 128 + WTERMSIG(*status) : WEXITSTATUS(*status);
    return text;
}

/* Whether the text names a marked line of the source, as file.cu:LINE. */
static bool names_a_marked_line(const char *text, const char *name) {
    char path[1000], line[400], place[200];
    bool found = false;
    int number = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/%s.cu", getenv("MIXRUN_PLANTED_SOURCES"), name);
    f = fopen(path, "r");
    cr_assert(f, "%s", path);
    while (fgets(line, sizeof line, f)) {
        number++;
        if (strstr(line, "/* caught */")) {
            const char *at = text;
            size_t length = (size_t)snprintf(place, sizeof place, "/%s.cu:%d", name, number);

            while ((at = strstr(at, place)) && at[length] >= '0' && at[length] <= '9') {
                at++;
            }
            found = found || at;
        }
    }
    fclose(f);
    return found;
}

static void check_build(const char *build) {
    char variable[60];
    const char *program;

    snprintf(variable, sizeof variable, "MIXRUN_PLANTED_%s", build);
    program = getenv(variable);
    if (!program) {
        cr_skip_test("this build has no planted faults for %s", build);
    }
    for (int i = 0; i < FAULTS_COUNT; i++) {
        static const char *const SEEDS[] = { "0", "1", "2" };
        const fault *f = &FAULTS[i];

        for (int s = 0; strcmp(f->build, build) == 0 && s < 3; s++) {
            int status = 0;
            char *text = output_of(program, f->name, SEEDS[s], "", &status);

            cr_expect_neq(status, 0, "%s, seed %s: not caught", f->name, SEEDS[s]);
            cr_expect(strstr(text, f->message), "%s, seed %s: not \"%s\" in: %.2000s", f->name, SEEDS[s], f->message, text);
            cr_expect(!f->line || names_a_marked_line(text, f->name), "%s, seed %s: no marked line in: %.2000s", f->name, SEEDS[s], text);
            free(text);
            text = output_of(program, f->name, SEEDS[s], "mended", &status);
            cr_expect_eq(status, 0, "%s, seed %s, mended: %d, %.2000s", f->name, SEEDS[s], status, text);
            cr_expect_str_eq(text, "", "%s, seed %s, mended: %.2000s", f->name, SEEDS[s], text);
            free(text);
        }
    }
}

Test(caught, by_the_shim) {
    check_build("PLAIN");
}
Test(caught, by_thread_sanitizer) {
    check_build("THREAD");
}
Test(caught, by_address_sanitizer) {
    check_build("ADDRESS");
}
