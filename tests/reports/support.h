/* support.h - a database with a run in it. */
#ifndef TESTS_REPORTS_SUPPORT_H
#define TESTS_REPORTS_SUPPORT_H

#include "reports/store.h"
#include "tests/support/scratch.h"

#include <sqlite3.h>

static inline mx_run_row some_run(const char *name) {
    return (mx_run_row){ .name = name, .kind = "train", .method = "mixlora", .recipe_hash = "abcdef", .recipe = "seed: 1\n",
                         .seed = 1, .base_hash = "b0", .base_name = "tiny", .base_description = "F32 safetensors",
                         .base_weights = 100, .tasks_hash = "t0", .data_hash = "d0", .environment = "{}", .trained = 10,
                         .trained_router = 2, .steps = 4, .folder = "runs/1" };
}

static inline int64_t add_run(mx_store *s, const char *name) {
    mx_run_row row = some_run(name);
    char uuid[MX_UUID_TEXT];
    mx_status st = { 0 };

    cr_assert(mx_store_begin(s, &st) == MX_OK && mx_store_run_add(s, &row, uuid, &st) == MX_OK &&
                  mx_store_commit(s, &st) == MX_OK,
              "%s", st.text);
    return row.run_id;
}

static inline mx_store *open_store(const char *path) {
    mx_store *s;
    mx_status st = { 0 };

    cr_assert(mx_store_open(path, true, &s, &st) == MX_OK, "%s", st.text);
    return s;
}

/* The one number a statement gives. */
static inline double ask(mx_store *s, const char *sql) {
    sqlite3_stmt *q;
    double value;

    cr_assert(sqlite3_prepare_v2(mx_store_handle(s), sql, -1, &q, NULL) == SQLITE_OK, "%s: %s", sql,
              sqlite3_errmsg(mx_store_handle(s)));
    cr_assert(sqlite3_step(q) == SQLITE_ROW, "%s gives no row", sql);
    value = sqlite3_column_double(q, 0);
    sqlite3_finalize(q);
    return value;
}

#endif
