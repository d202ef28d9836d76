/* compare_sql.c - the SELECTs beside the numbers: complete, for the sqlite3 program. */
#include "reports/compare_parts.h"

const char *mx_compare_sql_budgets(mx_arena *arena, const mx_compare_run *run, int32_t runs) {
    const char *ids = "";

    for (int32_t i = 0; i < runs; i++) {
        ids = mx_arena_text(arena, "%s%s%lld", ids, i ? ", " : "", (long long)run[i].run_id);
    }
    return mx_arena_text(arena,
                         "SELECT r.run_id, r.seed, r.trained, r.trained_router, r.flops,\n"
                         "  (SELECT SUM(t.value) / SUM(t.value / v.value) FROM metrics t JOIN metrics v ON v.run_id = t.run_id AND v.step = t.step\n"
                         "   AND v.name = 'tokens_per_second' AND v.value > 0 WHERE t.run_id = r.run_id AND t.name = 'tokens') AS tokens_per_second,\n"
                         "  (SELECT MAX(m.value) FROM metrics m WHERE m.run_id = r.run_id AND m.name = 'memory_bytes') AS memory_bytes\n"
                         "FROM runs r WHERE r.run_id IN (%s) ORDER BY r.seed, r.run_id", ids);
}

/* 'arc_easy', or all that this side shares with the baseline. */
static const char *task_list(mx_comparing *k, int32_t side, int32_t other, int32_t task) {
    const char *list = "";

    for (int32_t t = 0; t < k->c->tasks; t++) {
        if (task == t || (task == k->c->tasks && mx_compare_has(k, side, t) && (other < 0 || mx_compare_has(k, other, t)))) {
            list = mx_arena_text(k->arena, "%s%s%s", list, *list ? ", " : "", mx_sql_quote(k->arena, k->c->task[t]));
        }
    }
    return list;
}

/* The side's runs, each with the step whose evaluation counts. */
static const char *run_values(mx_comparing *k, int32_t side) {
    const mx_compare_side *s = &k->c->side[side];
    const char *values = "";

    for (int32_t i = 0; i < s->runs; i++) {
        values = mx_arena_text(k->arena, "%s%s(%lld, %lld)", values, i ? ", " : "", (long long)s->run[i].run_id, (long long)s->run[i].step);
    }
    return values;
}

const char *mx_compare_sql_answers(mx_comparing *k, int32_t side, int32_t task) {
    return mx_arena_text(k->arena,
                         "WITH used (run_id, step) AS (VALUES %s)\n"
                         "SELECT e.task, r.seed, o.number, o.correct\n"
                         "FROM used u JOIN runs r ON r.run_id = u.run_id JOIN evaluations e ON e.run_id = u.run_id AND e.step = u.step\n"
                         "JOIN outcomes o ON o.evaluation_id = e.evaluation_id AND o.metric = %s\n"
                         "WHERE e.task IN (%s) AND e.split = %s AND e.protocol = %s\n"
                         "ORDER BY e.task, r.seed, o.number",
                         run_values(k, side), mx_sql_quote(k->arena, k->c->metric), task_list(k, side, -1, task),
                         mx_sql_quote(k->arena, k->c->split), mx_sql_quote(k->arena, k->c->protocol));
}

const char *mx_compare_sql_scores(mx_comparing *k, int32_t side, int32_t task) {
    return mx_arena_text(k->arena,
                         "WITH used (run_id, step) AS (VALUES %s)\n"
                         "SELECT e.task, r.seed, r.run_id, e.step, e.n, s.value, s.majority, MAX(e.limited, r.limited) AS limited\n"
                         "FROM used u JOIN runs r ON r.run_id = u.run_id JOIN evaluations e ON e.run_id = u.run_id AND e.step = u.step\n"
                         "JOIN scores s ON s.evaluation_id = e.evaluation_id AND s.metric = %s\n"
                         "WHERE e.task IN (%s) AND e.split = %s AND e.protocol = %s\n"
                         "ORDER BY e.task, r.seed",
                         run_values(k, side), mx_sql_quote(k->arena, k->c->metric), task_list(k, side, -1, task),
                         mx_sql_quote(k->arena, k->c->split), mx_sql_quote(k->arena, k->c->protocol));
}

const char *mx_compare_sql_pairs(mx_comparing *k, const mx_compare_row *row, const int32_t *variant_run, const int32_t *baseline_run) {
    const mx_compare_side *side = &k->c->side[row->side], *base = &k->c->side[k->c->baseline];
    const char *values = "";

    for (int32_t i = 0; i < row->seeds; i++) {
        const mx_compare_run *v = &side->run[variant_run[i]], *b = &base->run[baseline_run[i]];

        values = mx_arena_text(k->arena, "%s%s(%lld, %lld, %lld, %lld, %lld)", values, i ? ", " : "", (long long)row->seed[i],
                               (long long)v->run_id, (long long)v->step, (long long)b->run_id, (long long)b->step);
    }
    return mx_arena_text(k->arena,
                         "WITH pair (seed, variant, variant_step, baseline, baseline_step) AS (VALUES %s)\n"
                         "SELECT ev.task, p.seed, a.number, a.correct AS variant, b.correct AS baseline\n"
                         "FROM pair p JOIN evaluations ev ON ev.run_id = p.variant AND ev.step = p.variant_step\n"
                         "JOIN evaluations eb ON eb.run_id = p.baseline AND eb.step = p.baseline_step AND eb.task = ev.task"
                         " AND eb.split = ev.split AND eb.protocol = ev.protocol\n"
                         "JOIN outcomes a ON a.evaluation_id = ev.evaluation_id AND a.metric = %s\n"
                         "JOIN outcomes b ON b.evaluation_id = eb.evaluation_id AND b.metric = a.metric AND b.number = a.number\n"
                         "WHERE ev.task IN (%s) AND ev.split = %s AND ev.protocol = %s\n"
                         "ORDER BY ev.task, p.seed, a.number",
                         values, mx_sql_quote(k->arena, k->c->metric), task_list(k, row->side, k->c->baseline, row->task),
                         mx_sql_quote(k->arena, k->c->split), mx_sql_quote(k->arena, k->c->protocol));
}
