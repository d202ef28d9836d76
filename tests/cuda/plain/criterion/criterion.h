/* criterion.h - as much of Criterion as the ops' tests use, for programs that ThreadSanitizer watches: Criterion itself cannot
 * start under it (its arena for parameters lies where the sanitizer's shadow is).
 *
 *   program [PART OF A NAME]     Each test is a forked process. Exit status 0: all of them passed. */
#ifndef TESTS_CUDA_PLAIN_CRITERION_H
#define TESTS_CUDA_PLAIN_CRITERION_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct plain_test {
    const char *suite, *name;
    void (*run)(void);
    struct plain_test *next;
} plain_test;
static plain_test *plain_tests;

__attribute__((unused, format(printf, 6, 7))) static void plain_check(bool ok, bool stops, const char *file, int line, const char *what,
                                                                      const char *fmt, ...) {
    va_list args;

    if (ok) {
        return;
    }
    fprintf(stderr, "%s:%d: %s:", file, line, what);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    if (stops) {
        _exit(1);
    }
}

#define Test(suite_, name_, ...)                                                                        \
    static void plain_run_##suite_##_##name_(void);                                                     \
    __attribute__((constructor)) static void plain_add_##suite_##_##name_(void) {                       \
        static plain_test t = { #suite_, #name_, plain_run_##suite_##_##name_, NULL };                  \
                                                                                                        \
        t.next = plain_tests;                                                                           \
        plain_tests = &t;                                                                               \
    }                                                                                                   \
    static void plain_run_##suite_##_##name_(void)

#define cr_assert(ok, ...) plain_check((ok) ? true : false, true, __FILE__, __LINE__, #ok, " " __VA_ARGS__)
#define cr_assert_fail(...) plain_check(false, true, __FILE__, __LINE__, "failed", " " __VA_ARGS__)
#define cr_assert_eq(a, b, ...) plain_check((a) == (b), true, __FILE__, __LINE__, #a " == " #b, " " __VA_ARGS__)
#define cr_assert_neq(a, b, ...) plain_check((a) != (b), true, __FILE__, __LINE__, #a " != " #b, " " __VA_ARGS__)
#define cr_assert_lt(a, b, ...) plain_check((a) < (b), true, __FILE__, __LINE__, #a " < " #b, " " __VA_ARGS__)
#define cr_assert_leq(a, b, ...) plain_check((a) <= (b), true, __FILE__, __LINE__, #a " <= " #b, " " __VA_ARGS__)
#define cr_assert_gt(a, b, ...) plain_check((a) > (b), true, __FILE__, __LINE__, #a " > " #b, " " __VA_ARGS__)
#define cr_assert_geq(a, b, ...) plain_check((a) >= (b), true, __FILE__, __LINE__, #a " >= " #b, " " __VA_ARGS__)
#define cr_assert_null(p, ...) plain_check(!(p), true, __FILE__, __LINE__, #p " is NULL", " " __VA_ARGS__)
#define cr_assert_not_null(p, ...) plain_check((p) ? true : false, true, __FILE__, __LINE__, #p " is not NULL", " " __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) plain_check(strcmp((a), (b)) == 0, true, __FILE__, __LINE__, #a " equals " #b, " " __VA_ARGS__)
#define cr_assert_arr_eq(a, b, bytes, ...) \
    plain_check(memcmp((a), (b), (bytes)) == 0, true, __FILE__, __LINE__, #a " equals " #b, " " __VA_ARGS__)
#define cr_assert_float_eq(a, b, by, ...) \
    plain_check(fabs((double)(a) - (double)(b)) <= (by), true, __FILE__, __LINE__, #a " near " #b, " " __VA_ARGS__)
#define cr_log_info(...) ((void)0)

int main(int argc, char **argv) {
    int failed = 0, ran = 0;

    for (plain_test *t = plain_tests; t; t = t->next) {
        int status = 0;
        pid_t child;

        if (argc > 1 && !strstr(t->name, argv[1])) {
            continue;
        }
        fflush(NULL);
        child = fork();
        if (child == 0) {
            t->run();
            exit(0); /* not _exit: a checker counts its reports then */
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            fprintf(stderr, "%s/%s: failed\n", t->suite, t->name);
            failed++;
        }
        ran++;
    }
    printf("%d tests, %d failed\n", ran, failed);
    return failed != 0 || ran == 0;
}

#endif
