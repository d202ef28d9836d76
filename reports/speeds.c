/* speeds.c - see speeds.h. */
#include "reports/speeds.h"

#include "reports/sql.h"

enum { SPEEDS_MAX = 200 };

/* Steps that were not logged are taken to be as long as those that were. */
mx_code mx_store_speeds(mx_store *s, const char *base_hash, mx_arena *arena, mx_speed_row **ret, int64_t *ret_count, mx_status *st) {
    sqlite3_stmt *q;
    mx_code code;

    *ret = MX_TAKE(arena, mx_speed_row, SPEEDS_MAX);
    *ret_count = 0;
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "WITH newest AS (SELECT run_id, recipe_hash, method, environment_id, trained, flops, steps,"
                          "  recipe LIKE '%\n  gradient_checkpointing: true\n%' AS checkpointing,"
                          "  (ended_ms - began_ms) / 1000.0 AS seconds FROM runs WHERE kind = 'train' AND state = 'finished'"
                          "  AND base_hash = ? AND ended_ms > began_ms ORDER BY run_id DESC LIMIT 200),"
                          " trained AS (SELECT t.run_id, SUM(t.value) AS tokens, SUM(t.value / v.value) AS seconds, COUNT(*) AS steps"
                          "  FROM newest JOIN metrics t ON t.run_id = newest.run_id AND t.name = 'tokens'"
                          "  JOIN metrics v ON v.run_id = t.run_id AND v.step = t.step AND v.name = 'tokens_per_second' AND v.value > 0"
                          "  GROUP BY t.run_id)"
                          " SELECT n.run_id, n.recipe_hash, n.method, e.text, n.trained, n.flops, t.tokens / t.seconds,"
                          "  MAX(0.0, n.seconds - t.seconds * n.steps / t.steps),"
                          "  (SELECT COALESCE(SUM(x.n), 0) FROM evaluations x WHERE x.run_id = n.run_id), n.checkpointing"
                          " FROM newest n JOIN trained t USING (run_id) JOIN environments e USING (environment_id)"
                          " ORDER BY n.run_id DESC",
                          "t", base_hash));
    while (*ret_count < SPEEDS_MAX && mx_sql_row(s, q, &code, st)) {
        (*ret)[(*ret_count)++] = (mx_speed_row){
            .run_id = sqlite3_column_int64(q, 0), .recipe_hash = mx_sql_copy(q, 1, arena), .method = mx_sql_copy(q, 2, arena),
            .environment = mx_sql_copy(q, 3, arena), .trained = sqlite3_column_int64(q, 4), .flops = sqlite3_column_int64(q, 5),
            .tokens_per_second = sqlite3_column_double(q, 6), .other_s = sqlite3_column_double(q, 7),
            .scored = sqlite3_column_int64(q, 8), .checkpointing = sqlite3_column_int(q, 9) != 0,
        };
    }
    sqlite3_finalize(q);
    return *ret_count == SPEEDS_MAX ? MX_OK : code;
}
