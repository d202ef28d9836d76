/* support.h - the program itself, run as a person would, in a folder of the test's own. */
#ifndef TESTS_RUNNER_SUPPORT_H
#define TESTS_RUNNER_SUPPORT_H

#include "reports/store.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_base.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Starts MIXRUN_PROGRAM with the words of `line` (parted by spaces) in x->folder; output goes to out.txt and err.txt. */
static inline pid_t start(scratch *x, const char *line) {
    const char *program = getenv("MIXRUN_PROGRAM");
    pid_t child;

    cr_assert(program, "MIXRUN_PROGRAM names the program under test");
    child = fork();
    if (child == 0) {
        char *argv[64] = { (char *)program }, *words = mx_arena_copy(&x->arena, line, strlen(line)), *save = NULL;
        int n = 1;

        for (char *w = strtok_r(words, " ", &save); w && n < 63; w = strtok_r(NULL, " ", &save)) {
            argv[n++] = w;
        }
        if (chdir(x->folder) != 0 || dup2(open("out.txt", O_CREAT | O_WRONLY | O_TRUNC, 0644), 1) < 0 ||
            dup2(open("err.txt", O_CREAT | O_WRONLY | O_TRUNC, 0644), 2) < 0) {
            _exit(120);
        }
        unsetenv("MIXRUN_DATA");
        if (!getenv("MIXRUN_TEST_GPU")) {
            setenv("CUDA_VISIBLE_DEVICES", "", 1); /* device: auto is the processor, on every machine */
        }
        setenv("TERM", "dumb", 1);
        setenv("XDG_CACHE_HOME", x->folder, 1);
        execv(program, argv);
        _exit(121);
    }
    return child;
}

static inline int finish(pid_t child) {
    int status = 0;

    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline char *output(scratch *x, const char *name) {
    char *text = NULL, *kept;
    size_t size = 0;
    mx_status st = { 0 };

    cr_assert_eq(mx_file_read(scratch_path(x, name), 64 << 20, &text, &size, &st), MX_OK, "%s", st.text);
    kept = mx_arena_copy(&x->arena, text, size);
    free(text);
    return kept;
}

/* Runs to the end; the exit code must be this. */
static inline void program(scratch *x, int exit_code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static inline void program(scratch *x, int exit_code, const char *fmt, ...) {
    char line[2048];
    va_list ap;
    int got;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    got = finish(start(x, line));
    cr_assert_eq(got, exit_code, "mixrun %s: exit %d instead of %d\n%s%s", line, got, exit_code, output(x, "out.txt"),
                 output(x, "err.txt"));
}

/* A recipe on the tiny base and a part of the sample questions. */
static inline void tiny_recipe(scratch *x, const char *name, const char *adapter) {
    mx_status st = { 0 };
    const char *text = mx_arena_text(&x->arena,
                                     "base_model: ./tiny\nprecision: f32\nseed: 3\nthreads: 1\nadapter:\n%s"
                                     "train:\n  tasks: [{task: sample_arc, limit: 12}, {task: sample_piqa, limit: 10}]\n"
                                     "  num_epochs: 2\n  batch_size: 4\n  micro_batch_tokens: 512\n  sequence_len: 512\n"
                                     "  learning_rate: 1e-2\n  save_steps: 2\n"
                                     "eval:\n  tasks: [sample_arc, sample_obqa]\n  limit: 6\n  protocols: [loglikelihood, label_logits]\n",
                                     adapter);

    if (!mx_folder_exists(scratch_path(x, "tiny"))) {
        tiny_base(scratch_path(x, "tiny"));
    }
    cr_assert_eq(mx_file_write(scratch_path(x, name), text, strlen(text), &st), MX_OK, "%s", st.text);
}

/* Everything a statement gives, as text: rows by lines, columns by |. */
static inline char *rows(scratch *x, const char *db, const char *sql) {
    mx_text out;
    sqlite3 *handle;
    sqlite3_stmt *q;

    mx_text_init(&out, 64 << 20);
    cr_assert(sqlite3_open_v2(scratch_path(x, db), &handle, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK);
    cr_assert(sqlite3_prepare_v2(handle, sql, -1, &q, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(handle));
    while (sqlite3_step(q) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(q); i++) {
            if (sqlite3_column_type(q, i) == SQLITE_FLOAT) {
                mx_text_print(&out, "%s%a", i ? "|" : "", sqlite3_column_double(q, i));
            } else {
                mx_text_print(&out, "%s%s", i ? "|" : "", sqlite3_column_text(q, i) ? (const char *)sqlite3_column_text(q, i) : "NULL");
            }
        }
        mx_text_print(&out, "\n");
    }
    sqlite3_finalize(q);
    sqlite3_close(handle);
    return out.data ? out.data : strdup("");
}

/* All that a run measured, ids and times left out: two equal runs give the same text. */
static inline char *measured(scratch *x, const char *db) {
    mx_text all;
    static const char *const sql[] = {
        "SELECT step, name, value FROM metrics WHERE run_id = 1 AND name NOT IN ('tokens_per_second', 'memory_bytes', 'memory_planned_bytes') ORDER BY step, name",
        "SELECT task, split, protocol, epoch, step, n, limited, truncated, metric, value, stderr, majority FROM evaluations"
        " JOIN scores USING (evaluation_id) WHERE run_id = 1 ORDER BY step, task, split, protocol, metric",
        "SELECT e.step, e.task, e.protocol, p.number, p.item, p.gold, p.choices FROM predictions p JOIN evaluations e"
        " USING (evaluation_id) WHERE run_id = 1 ORDER BY 1, 2, 3, 4",
        "SELECT split, first_step, last_step, protocol, task, layer, expert, tokens, dropped, probability_mass, routed, entropy_sum"
        " FROM router_load WHERE run_id = 1 ORDER BY 1, 2, 3, 4, 5, 6, 7",
        "SELECT w.split, w.last_step, e.protocol, p.task, p.layer, p.first, p.second, p.tokens FROM router_pairs p"
        " JOIN router_windows w USING (window_id) JOIN evaluations e USING (evaluation_id)"
        " WHERE w.run_id = 1 ORDER BY 1, 2, 3, 4, 5, 6, 7",
        "SELECT state, step, steps, trained, trained_router, limited, recipe_hash, data_hash, tasks_hash FROM runs WHERE run_id = 1",
    };

    mx_text_init(&all, 256 << 20);
    for (size_t i = 0; i < sizeof sql / sizeof sql[0]; i++) {
        char *text = rows(x, db, sql[i]);

        mx_text_print(&all, "-- %zu\n%s", i, text);
        free(text);
    }
    return all.data;
}

/* Waits until the run in `db` has stored this many steps, then sends the signal. */
static inline void signal_at(scratch *x, const char *db, pid_t child, int step, int number) {
    const struct timespec pause = { .tv_nsec = 2000000 };

    for (int i = 0; i < 20000; i++) {
        sqlite3 *handle = NULL;
        sqlite3_stmt *q = NULL;
        int done = -1;

        if (mx_file_exists(scratch_path(x, db)) &&
            sqlite3_open_v2(scratch_path(x, db), &handle, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
            sqlite3_prepare_v2(handle, "SELECT step FROM runs", -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW) {
            done = sqlite3_column_int(q, 0);
        }
        sqlite3_finalize(q);
        sqlite3_close(handle);
        if (done >= step) {
            break;
        }
        nanosleep(&pause, NULL);
    }
    kill(child, number);
}

/* Of run 1 with output_dir=a and run 1 with output_dir=b, byte by byte. */
static inline void equal_adapters(scratch *x) {
    char a[MX_SHA256_TEXT], b[MX_SHA256_TEXT];
    mx_status st = { 0 };

    cr_assert_eq(mx_sha256_file(scratch_path(x, "a/1-r/adapter/adapter_model.safetensors"), a, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_sha256_file(scratch_path(x, "b/1-r/adapter/adapter_model.safetensors"), b, &st), MX_OK, "%s", st.text);
    cr_assert_str_eq(a, b, "the adapters differ");
}

#endif
