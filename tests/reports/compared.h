/* compared.h - runs with known answers, to be compared. */
#ifndef TESTS_REPORTS_COMPARED_H
#define TESTS_REPORTS_COMPARED_H

#include "reports/sweeps.h"
#include "tests/reports/support.h"

#include <string.h>

/* What a made run is; zeroes are filled in by made_run. */
typedef struct made {
    const char *name, *recipe, *base, *state, *reason;
    int64_t seed, trained, steps;
    bool limited;
} made;

static inline int64_t made_run(mx_store *s, made m) {
    mx_run_row row = some_run(m.name);
    char uuid[MX_UUID_TEXT];
    mx_status st = { 0 };

    row.recipe_hash = m.recipe ? m.recipe : m.name;
    row.base_hash = row.base_name = m.base ? m.base : "b0";
    row.seed = m.seed;
    row.trained = m.trained;
    row.trained_router = m.trained / 10;
    row.flops = 6 * m.trained;
    row.limited = m.limited;
    row.steps = m.steps ? m.steps : 8;
    cr_assert(mx_store_begin(s, &st) == MX_OK && mx_store_run_add(s, &row, uuid, &st) == MX_OK &&
                  mx_store_metric(s, row.run_id, 1, "tokens", 100, &st) == MX_OK &&
                  mx_store_metric(s, row.run_id, 1, "tokens_per_second", 50, &st) == MX_OK &&
                  mx_store_metric(s, row.run_id, 2, "tokens", 300, &st) == MX_OK &&
                  mx_store_metric(s, row.run_id, 2, "tokens_per_second", 100, &st) == MX_OK &&
                  mx_store_metric(s, row.run_id, 1, "memory_bytes", 1 << 20, &st) == MX_OK &&
                  mx_store_metric(s, row.run_id, 2, "memory_bytes", 3 << 20, &st) == MX_OK &&
                  mx_store_heartbeat(s, row.run_id, row.steps, &st) == MX_OK &&
                  mx_store_run_state(s, row.run_id, m.state ? m.state : "finished", m.reason, &st) == MX_OK && mx_store_commit(s, &st) == MX_OK,
              "%s", st.text);
    return row.run_id;
}

/* An evaluation of `n` questions, those with a '1' in `right` answered rightly; row i of the file is `first` + i. Hashes NULL: usual. */
typedef struct exam {
    const char *task, *split, *protocol, *metric, *right, *task_hash, *data_hash;
    int64_t step, first;
    bool limited, no_answers;
} exam;

static inline int64_t made_exam(mx_store *s, int64_t run, exam e) {
    int64_t n = (int64_t)strlen(e.right), id, sum = 0;
    mx_evaluation_row row = { .task = e.task, .split = e.split ? e.split : "validation", .protocol = e.protocol ? e.protocol : "loglikelihood",
                              .epoch = 1, .step = e.step ? e.step : 8, .n = n, .limited = e.limited,
                              .task_hash = e.task_hash ? e.task_hash : e.task, .data_hash = e.data_hash ? e.data_hash : "data" };
    const char *metric = e.metric ? e.metric : "acc_norm";
    mx_status st = { 0 };

    cr_assert(mx_store_begin(s, &st) == MX_OK && mx_store_evaluation(s, run, &row, &id, &st) == MX_OK, "%s", st.text);
    for (int64_t i = 0; i < n; i++) {
        char item[32];

        sum += e.right[i] == '1';
        snprintf(item, sizeof item, "q%d", (int)(e.first + i));
        cr_assert(e.no_answers || (mx_store_prediction(s, id, e.first + i, item, 0, (const double[]){ -1, -2 }, 2, &st) == MX_OK &&
                                   mx_store_outcome(s, id, metric, e.first + i, 0, e.right[i] == '1', &st) == MX_OK),
                  "%s", st.text);
    }
    cr_assert(mx_store_score(s, id, metric, (double)sum / (double)n, 0.1, 0.25, &st) == MX_OK && mx_store_commit(s, &st) == MX_OK, "%s", st.text);
    return id;
}

static inline mx_member_row made_member(int64_t position, const char *variant, int64_t seed, int64_t trained) {
    return (mx_member_row){ .position = position, .variant = variant, .seed = seed, .recipe_hash = variant, .base_hash = "b0", .tasks_hash = "t0",
                            .data_hash = "d0", .method = "mixlora", .trained = trained, .trained_router = trained / 10, .flops = 6 * trained,
                            .matched = "" };
}

/* Answers of the three variants of the sweep `methods`, three seeds each, two tasks: [variant][seed]. */
static const char *const made_names[3] = { "lora", "mix 'n lora", "small" };
static const char *const made_easy[3][3] = { { "1100110010", "1100100010", "0100110011" },
                                             { "1110110011", "1110110110", "1111110011" },
                                             { "1000110010", "0100100110", "0100010011" } };
static const char *const made_hard[3][3] = { { "10010010", "10000010", "00010011" },
                                             { "10110010", "10010010", "01010011" },
                                             { "00010010", "10000010", "00010001" } };
static const int64_t made_trained[3] = { 1000, 1010, 200 };

/* The sweep's members in the order of seeds, then variants; runs are 1 to 9 in that order, those of `missing` bits not made. */
static inline void made_sweep(mx_store *s, unsigned missing) {
    const mx_sweep_row w = { .name = "methods", .path = "methods.yaml", .text = "", .arguments = "", .baseline = "lora",
                             .protocol = "loglikelihood", .metric = "acc_norm" };
    mx_member_row m[9];
    mx_status st = { 0 };

    for (int i = 0; i < 9; i++) {
        int v = i % 3, seed = i / 3;

        m[i] = made_member(i + 1, made_names[v], seed + 1, made_trained[v]);
        if (!(missing & 1u << i)) {
            int64_t run = made_run(s, (made){ .name = made_names[v], .seed = seed + 1, .trained = made_trained[v] });

            made_exam(s, run, (exam){ .task = "easy", .right = made_easy[v][seed] });
            made_exam(s, run, (exam){ .task = "hard", .right = made_hard[v][seed] });
            made_exam(s, run, (exam){ .task = "easy", .right = "0000000001", .step = 0 + 4 });      /* an earlier epoch */
            made_exam(s, run, (exam){ .task = "easy", .split = "held_out", .right = "11", .first = 500 });
        }
    }
    cr_assert(mx_store_sweep(s, &w, m, 9, &st) == MX_OK, "%s", st.text);
}

#endif
