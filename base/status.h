/* status.h - how a call says what went wrong, and where the user can mend it.
 *
 * A function that can fail returns an mx_code and takes an mx_status last.
 * The code is for the program; the text, the mark and the hint are for the person.
 * The first failure wins: a status that already holds one is left alone, so cleanup
 * code may fail quietly on the way out. Nothing in the rooms prints; main.c does.
 *
 * Where several problems can be told at once (a recipe), they are collected in an
 * mx_problems and the call returns MX_E_RECIPE once. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MX_MUST_CHECK __attribute__((warn_unused_result))
#define MX_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

typedef enum mx_code {
    MX_OK = 0,
    MX_E_USAGE,    /* the command line asks for something we do not do            exit 2  */
    MX_E_RECIPE,   /* a YAML file says something wrong; see mx_status.at          exit 2  */
    MX_E_DATA,     /* a record, a model, token or adapter file is broken          exit 1  */
    MX_E_MISSING,  /* a file that is needed is nowhere; the text names the remedy exit 1  */
    MX_E_IO,       /* the operating system said no                                exit 1  */
    MX_E_MEMORY,   /* an allocation failed, or the plan does not fit              exit 1  */
    MX_E_DEVICE,   /* the accelerator said no                                     exit 1  */
    MX_E_STORE,    /* SQLite said no                                              exit 1  */
    MX_E_DIVERGED, /* the loss or a gradient is no longer finite                  exit 1  */
    MX_E_CHECK,    /* a self-test or verification found a difference              exit 3  */
    MX_E_PARTIAL,  /* a sweep finished, but some of its runs failed               exit 4  */
    MX_E_STOPPED,  /* asked to stop; what can be resumed was saved                exit 75 */
} mx_code;

/* A place in a text the user wrote. Lines and columns count from 1 (columns in bytes);
 * line 0 means "the file as a whole", and file NULL "no place".
 * `text` is the whole content when it is not on disk (a command-line argument: file is
 * then "argument 3" or the like), else NULL and the line is read from the file again
 * when it is printed. `length` is how many bytes to underline (0 counts as 1).
 * Both strings are borrowed and must outlive the mark (recipes keep them in an arena). */
typedef struct mx_mark {
    const char *file, *text;
    uint32_t line, column, length;
} mx_mark;

#define MX_NOWHERE ((mx_mark){ 0 })

typedef struct mx_status {
    mx_code code;
    mx_mark at;
    char text[1024];
    char hint[256]; /* "did you mean 'lora_r'?", "get it with: mixrun fetch arc_easy"; may be empty */
} mx_status;

/* Record a failure and return its code, so that a call site reads
 * `return mx_fail(st, ...)`. `st` may be NULL: then only the code travels. */
mx_code mx_fail(mx_status *st, mx_code code, mx_mark at, const char *fmt, ...) MX_PRINTF(4, 5);
/* Adds the hint to the failure that was just recorded; nothing when it already has one. */
void mx_hint(mx_status *st, const char *fmt, ...) MX_PRINTF(2, 3);

/* Several problems of one text, in the order they were found; told sorted by place.
 * At most MX_PROBLEMS_MAX are kept, `count` goes on. */
enum { MX_PROBLEMS_MAX = 100 };
typedef struct mx_problems {
    mx_status *item; /* grows; owned */
    size_t kept, count;
} mx_problems;
void mx_problems_init(mx_problems *p);
void mx_problems_finish(mx_problems *p);
void mx_problem(mx_problems *p, mx_mark at, const char *hint, const char *fmt, ...) MX_PRINTF(4, 5);

/* "file:line:column: error: text", the line, and under it ^~~~; then the hint. */
void mx_status_print(const mx_status *st, FILE *out);
/* All of them by file, line, column, and "N errors; nothing was started". */
void mx_problems_print(mx_problems *p, FILE *out);
/* The process's exit code for a failure, as in the table above. */
int mx_exit_code(mx_code code);

/* Hand a failure to the caller unchanged. Use only where nothing needs undoing. */
#define MX_TRY(call)                                                                               \
    do {                                                                                           \
        mx_code mx_try_code_ = (call);                                                             \
        if (mx_try_code_) {                                                                        \
            return mx_try_code_;                                                                   \
        }                                                                                          \
    } while (0)

#endif
