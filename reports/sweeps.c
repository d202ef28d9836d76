/* sweeps.c - see sweeps.h. */
#include "reports/sweeps.h"

#include "base/text.h"
#include "reports/sql.h"

static mx_code put_rows(mx_store *s, const mx_sweep_row *w, const mx_member_row *member, int64_t members, mx_status *st) {
    MX_TRY(mx_sql_execute(s, st,
                          "INSERT INTO sweeps (name, path, text, arguments, baseline, protocol, metric, began_ms)"
                          " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET path = excluded.path,"
                          " text = excluded.text, arguments = excluded.arguments, baseline = excluded.baseline,"
                          " protocol = excluded.protocol, metric = excluded.metric, began_ms = excluded.began_ms",
                          "ttttttti", w->name, w->path, w->text, w->arguments, w->baseline, w->protocol, w->metric, mx_now_ms()));
    MX_TRY(mx_sql_execute(s, st, "DELETE FROM members WHERE sweep_id = (SELECT sweep_id FROM sweeps WHERE name = ?)", "t", w->name));
    for (int64_t i = 0; i < members; i++) {
        const mx_member_row *m = &member[i];

        MX_TRY(mx_sql_execute(s, st,
                              "INSERT INTO members VALUES ((SELECT sweep_id FROM sweeps WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?,"
                              " ?, ?, ?)",
                              "titittttt" "iiit", w->name, m->position, m->variant, m->seed, m->recipe_hash, m->base_hash,
                              m->tasks_hash, m->data_hash, m->method, m->trained, m->trained_router, m->flops, m->matched));
    }
    return MX_OK;
}

mx_code mx_store_sweep(mx_store *s, const mx_sweep_row *sweep, const mx_member_row *member, int64_t members, mx_status *st) {
    mx_code code;

    MX_TRY(mx_store_begin(s, st));
    code = put_rows(s, sweep, member, members, st);
    if (code == MX_OK) {
        code = mx_store_commit(s, st);
    }
    if (code) {
        mx_store_rollback(s);
    }
    return code;
}

static mx_code no_such_sweep(mx_store *s, const char *name, mx_arena *arena, mx_status *st) {
    const char *names[64], *near;
    size_t count = 0;
    sqlite3_stmt *q;
    mx_code code;

    MX_TRY(mx_sql_prepare(s, &q, st, "SELECT name FROM sweeps ORDER BY began_ms DESC LIMIT 64", ""));
    while (mx_sql_row(s, q, &code, st)) {
        names[count++] = mx_sql_copy(q, 0, arena);
    }
    sqlite3_finalize(q);
    MX_TRY(code);
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "there is no sweep '%s' in %s", name, mx_store_path(s));
    near = mx_text_nearest(name, names, count);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    } else {
        mx_hint(st, count ? "mixrun query sweeps lists them" : "mixrun sweep configs/sweeps/NAME.yaml starts one");
    }
    return MX_E_USAGE;
}

mx_code mx_store_sweep_find(mx_store *s, const char *name, mx_arena *arena, mx_sweep_row *ret_sweep, mx_member_row **ret_member,
                            int64_t *ret_members, mx_status *st) {
    sqlite3_stmt *q;
    mx_sweep_row sweep;
    int64_t room, n = 0;
    mx_code code;

    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT name, path, text, arguments, baseline, protocol, metric,"
                          " (SELECT COUNT(*) FROM members m WHERE m.sweep_id = s.sweep_id) FROM sweeps s WHERE name = ?",
                          "t", name));
    if (!mx_sql_row(s, q, &code, st)) {
        sqlite3_finalize(q);
        return code ? code : no_such_sweep(s, name, arena, st);
    }
    sweep = (mx_sweep_row){ mx_sql_copy(q, 0, arena), mx_sql_copy(q, 1, arena), mx_sql_copy(q, 2, arena), mx_sql_copy(q, 3, arena),
                            mx_sql_copy(q, 4, arena), mx_sql_copy(q, 5, arena), mx_sql_copy(q, 6, arena) };
    room = sqlite3_column_int64(q, 7);
    sqlite3_finalize(q);
    if (ret_sweep) {
        *ret_sweep = sweep;
    }
    *ret_member = MX_TAKE(arena, mx_member_row, room + 1);
    MX_TRY(mx_sql_prepare(s, &q, st,
                          "SELECT position, variant, seed, recipe_hash, base_hash, tasks_hash, data_hash, method, trained,"
                          " trained_router, flops, matched, run_id, state, reason FROM sweep_runs WHERE sweep = ? ORDER BY position",
                          "t", name));
    while (n < room && mx_sql_row(s, q, &code, st)) {
        (*ret_member)[n++] = (mx_member_row){
            .position = sqlite3_column_int64(q, 0), .variant = mx_sql_copy(q, 1, arena), .seed = sqlite3_column_int64(q, 2),
            .recipe_hash = mx_sql_copy(q, 3, arena), .base_hash = mx_sql_copy(q, 4, arena), .tasks_hash = mx_sql_copy(q, 5, arena),
            .data_hash = mx_sql_copy(q, 6, arena), .method = mx_sql_copy(q, 7, arena), .trained = sqlite3_column_int64(q, 8),
            .trained_router = sqlite3_column_int64(q, 9), .flops = sqlite3_column_int64(q, 10), .matched = mx_sql_copy(q, 11, arena),
            .run_id = sqlite3_column_int64(q, 12), .state = mx_sql_copy(q, 13, arena), .reason = mx_sql_copy(q, 14, arena),
        };
    }
    sqlite3_finalize(q);
    *ret_members = n;
    return code;
}
