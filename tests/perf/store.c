/* store.c - what logging costs: a step's rows and a router window's, as the loop writes them, in milliseconds.
 *
 * Shapes of the shipped recipe: 8 metrics a step; a window of 3 tasks, 30 layers, 8 experts every twentieth of a run, 1,042 steps.
 * The step it is held against is measured by perf/step: divide by its tokens per second. */
#include "base/file.h"
#include "reports/store.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 1042, WINDOW = 53, METRICS = 8, TASKS = 3, LAYERS = 30, EXPERTS = 8 };

static double now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mx_code write_step(mx_store *s, int64_t run, int64_t step, const mx_router_window *w, mx_status *st) {
    static const char *const name[METRICS] = { "loss", "nll", "balance", "z", "grad_norm", "learning_rate", "tokens", "tokens_per_second" };

    MX_TRY(mx_store_begin(s, st));
    for (int i = 0; i < METRICS; i++) {
        MX_TRY(mx_store_metric(s, run, step, name[i], 0.5 + i, st));
    }
    if (step % WINDOW == 0) {
        MX_TRY(mx_store_router(s, run, w, st));
    }
    MX_TRY(mx_store_heartbeat(s, run, step, st));
    return mx_store_commit(s, st);
}

int main(void) {
    static const char *const task[TASKS] = { "a", "b", "c" };
    static int64_t tokens[LAYERS * TASKS * EXPERTS], dropped[LAYERS * TASKS * EXPERTS], routed[LAYERS * TASKS];
    static double probability[LAYERS * TASKS * EXPERTS], entropy[LAYERS * TASKS];
    mx_router_window w = { .split = "train", .first_step = 1, .last_step = WINDOW, .task = task, .tasks = TASKS, .layers = LAYERS,
                           .experts = EXPERTS, .tokens = tokens, .dropped = dropped, .probability = probability, .routed = routed,
                           .entropy = entropy };
    mx_run_row row = { .name = "perf", .kind = "train", .method = "mixlora", .recipe_hash = "r", .recipe = "", .base_hash = "b",
                       .base_name = "b", .base_description = "", .tasks_hash = "t", .data_hash = "d", .environment = "{}", .folder = "" };
    char path[] = "/tmp/mixrun-perf-XXXXXX", file[64], uuid[MX_UUID_TEXT];
    mx_store *s = NULL;
    mx_status st = { 0 };
    double began, seconds;

    for (int i = 0; i < LAYERS * TASKS; i++) {
        routed[i] = 1000;
    }
    if (!mkdtemp(path)) {
        return 1;
    }
    snprintf(file, sizeof file, "%s/a.db", path);
    if (mx_store_open(file, true, &s, &st) || mx_store_begin(s, &st) || mx_store_run_add(s, &row, uuid, &st) || mx_store_commit(s, &st)) {
        goto failed;
    }
    began = now();
    for (int64_t step = 1; step <= STEPS; step++) {
        if (write_step(s, row.run_id, step, &w, &st)) {
            goto failed;
        }
    }
    seconds = now() - began;
    printf("  logging %d steps with %d router windows: %.3f ms a step; under 2 %% of any step longer than %.0f ms\n", STEPS, STEPS / WINDOW,
           1e3 * seconds / STEPS, 1e3 * seconds / STEPS / 0.02);
    mx_store_close(s);
    return mx_folder_remove(path, NULL);
failed:
    fprintf(stderr, "%s\n", st.text);
    mx_store_close(s);
    return 1;
}
