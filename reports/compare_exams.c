/* compare_exams.c - which evaluations count, and may they be held against each other: one protocol, metric and split for all, of each
 * run one step; tasks, prompts, data, base and items must be the same on both sides. */
#include "reports/compare_parts.h"

#include "reports/sql.h"

#include <string.h>

/* ---------------------------------------------------------------- reading */

static mx_code read_run(mx_comparing *k, mx_compare_run *r, mx_compare_work *w, mx_status *st) {
    int32_t room;
    sqlite3_stmt *q;
    mx_code code;

    MX_TRY(mx_sql_prepare(k->store, &q, st,
                          "SELECT r.name, r.uuid, r.method, r.limited, r.base_hash, b.name, r.recipe_hash, r.trained, r.step,"
                          " (SELECT COUNT(*) FROM evaluations e JOIN scores s USING (evaluation_id) WHERE e.run_id = r.run_id)"
                          " FROM runs r JOIN bases b USING (base_hash) WHERE r.run_id = ?", "i", r->run_id));
    if (!mx_sql_row(k->store, q, &code, st)) {
        sqlite3_finalize(q);
        return code ? code : mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: run %lld is gone", mx_store_path(k->store), (long long)r->run_id);
    }
    r->name = mx_sql_copy(q, 0, k->arena);
    r->uuid = mx_sql_copy(q, 1, k->arena);
    r->method = mx_sql_copy(q, 2, k->arena);
    r->limited = sqlite3_column_int(q, 3) != 0;
    w->base_hash = mx_sql_copy(q, 4, k->arena);
    w->base_name = mx_sql_copy(q, 5, k->arena);
    w->recipe_hash = mx_sql_copy(q, 6, k->arena);
    w->trained = sqlite3_column_int64(q, 7);
    w->trained_steps = sqlite3_column_int64(q, 8);
    room = sqlite3_column_int(q, 9);
    sqlite3_finalize(q);
    w->exam = MX_TAKE(k->arena, mx_compare_exam, room + 1);
    MX_TRY(mx_sql_prepare(k->store, &q, st,
                          "SELECT e.evaluation_id, e.step, e.n, e.task, e.split, e.protocol, s.metric, e.task_hash, e.data_hash, s.value,"
                          " s.majority, e.limited FROM evaluations e JOIN scores s USING (evaluation_id) WHERE e.run_id = ?"
                          " ORDER BY e.evaluation_id, s.metric", "i", r->run_id));
    while (w->exams < room && mx_sql_row(k->store, q, &code, st)) {
        w->exam[w->exams++] = (mx_compare_exam){
            .evaluation_id = sqlite3_column_int64(q, 0), .step = sqlite3_column_int64(q, 1), .n = sqlite3_column_int64(q, 2),
            .task = mx_sql_copy(q, 3, k->arena), .split = mx_sql_copy(q, 4, k->arena), .protocol = mx_sql_copy(q, 5, k->arena),
            .metric = mx_sql_copy(q, 6, k->arena), .task_hash = mx_sql_copy(q, 7, k->arena), .data_hash = mx_sql_copy(q, 8, k->arena),
            .value = sqlite3_column_double(q, 9), .majority = sqlite3_column_double(q, 10), .limited = sqlite3_column_int(q, 11) != 0,
        };
    }
    sqlite3_finalize(q);
    return code;
}

/* An evaluation's answers by row of the file: the primary key's order. None kept: `number` stays NULL. */
static mx_code read_answers(mx_comparing *k, mx_compare_exam *e, mx_status *st) {
    int64_t *number, n = 0;
    int8_t *correct;
    sqlite3_stmt *q;
    mx_code code;

    if (e->number || e->n < 1) {
        return MX_OK;
    }
    number = MX_TAKE(k->arena, int64_t, e->n);
    correct = MX_TAKE(k->arena, int8_t, e->n);
    MX_TRY(mx_sql_prepare(k->store, &q, st, "SELECT number, correct FROM outcomes WHERE evaluation_id = ? AND metric = ? ORDER BY number",
                          "it", e->evaluation_id, e->metric));
    while (mx_sql_row(k->store, q, &code, st)) {
        if (n < e->n) {
            number[n] = sqlite3_column_int64(q, 0);
            correct[n] = sqlite3_column_int(q, 1) != 0;
        }
        n++;
    }
    sqlite3_finalize(q);
    MX_TRY(code);
    if (n > 0 && n != e->n) {
        return mx_fail(st, MX_E_DATA, MX_NOWHERE, "%s: evaluation %lld is of %lld questions, but %lld answers are kept",
                       mx_store_path(k->store), (long long)e->evaluation_id, (long long)e->n, (long long)n);
    }
    e->number = n > 0 ? number : NULL;
    e->correct = correct;
    return MX_OK;
}

/* --------------------------------------------------------------- choosing */

static bool fits(const mx_compare_exam *e, const char *protocol, const char *metric, const char *split) {
    return (!protocol || strcmp(e->protocol, protocol) == 0) && (!metric || strcmp(e->metric, metric) == 0) &&
           (!split || strcmp(e->split, split) == 0);
}

static bool scored(const mx_compare_work *w, const char *protocol, const char *metric, const char *split) {
    for (int32_t i = 0; i < w->exams; i++) {
        if (fits(&w->exam[i], protocol, metric, split)) {
            return true;
        }
    }
    return false;
}

static bool all_scored(const mx_comparing *k, const char *protocol, const char *metric, const char *split) {
    for (int32_t i = 0; i < k->c->sides; i++) {
        for (int32_t r = 0; r < k->c->side[i].runs; r++) {
            if (!scored(&k->work[i][r], protocol, metric, split)) {
                return false;
            }
        }
    }
    return true;
}

/* The baseline's first run, else the first of all; NULL: no run at all. */
static const mx_compare_work *reference(const mx_comparing *k) {
    const mx_compare *c = k->c;

    if (c->baseline >= 0 && c->side[c->baseline].runs > 0) {
        return &k->work[c->baseline][0];
    }
    for (int32_t i = 0; i < c->sides; i++) {
        if (c->side[i].runs > 0) {
            return &k->work[i][0];
        }
    }
    return NULL;
}

static const char *usual_metric(const char *protocol) {
    return strcmp(protocol, "loglikelihood") == 0 ? "acc_norm" : "acc";
}

static void choose_protocol(mx_comparing *k, const mx_compare_work *w) {
    static const char *const usual[] = { "loglikelihood", "label_logits" };
    const mx_compare_wish *wish = k->wish;
    const char *of_sweep = k->c->protocol, *metric_of_sweep = k->c->metric, *protocol = wish->protocol ? wish->protocol : of_sweep;

    for (int i = 0; !protocol && i < 2; i++) {
        protocol = all_scored(k, usual[i], wish->metric ? wish->metric : usual_metric(usual[i]), wish->split) ? usual[i] : NULL;
    }
    k->c->protocol = protocol ? protocol : w->exams > 0 ? w->exam[0].protocol : usual[0];
    k->c->metric = wish->metric                                                  ? wish->metric :
                   of_sweep && strcmp(k->c->protocol, of_sweep) == 0 && metric_of_sweep ? metric_of_sweep :
                                                                                   usual_metric(k->c->protocol);
}

/* The split all were scored on: not held_out where there is another. */
static void choose_split(mx_comparing *k, const mx_compare_work *w) {
    mx_compare *c = k->c;
    const char *some = NULL, *common = NULL;

    for (int32_t i = 0; i < w->exams; i++) {
        const char *split = w->exam[i].split;

        if (!fits(&w->exam[i], c->protocol, c->metric, NULL)) {
            continue;
        }
        if (!some || strcmp(some, "held_out") == 0) {
            some = split;
        }
        if ((!common || strcmp(common, "held_out") == 0) && all_scored(k, c->protocol, c->metric, split)) {
            common = split;
        }
    }
    c->split = k->wish->split ? k->wish->split : common ? common : some ? some : "validation";
}

/* The run's step that counts: the last, or the one with the best mean over tasks (the earlier of equals). */
static int64_t step_of(const mx_comparing *k, const mx_compare_work *w) {
    const mx_compare *c = k->c;
    int64_t best = -1;
    double best_mean = -1;
    int32_t most = 0;

    for (int32_t i = 0; i < w->exams; i++) {
        double sum = 0;
        int32_t tasks = 0;

        if (!fits(&w->exam[i], c->protocol, c->metric, c->split)) {
            continue;
        }
        if (!k->wish->best_epoch) {
            best = w->exam[i].step > best ? w->exam[i].step : best;
            continue;
        }
        for (int32_t j = 0; j < w->exams; j++) {
            bool same = fits(&w->exam[j], c->protocol, c->metric, c->split) && w->exam[j].step == w->exam[i].step;

            sum += same ? w->exam[j].value : 0;
            tasks += same;
        }
        if (w->exam[i].step == 0 && w->trained_steps > 0) {
            continue; /* before training is no epoch */
        }
        if (tasks > most || (tasks == most && (sum / tasks > best_mean || (sum / tasks == best_mean && w->exam[i].step < best)))) {
            most = tasks;
            best = w->exam[i].step;
            best_mean = sum / tasks;
        }
    }
    return best;
}

static void list_tasks(mx_comparing *k, const mx_compare_work *first) {
    mx_compare *c = k->c;
    const char **task;
    int32_t room = first->exams;

    for (int32_t i = 0; i < c->sides; i++) {
        for (int32_t r = 0; r < c->side[i].runs; r++) {
            room += k->work[i][r].exams;
        }
    }
    task = MX_TAKE(k->arena, const char *, room + 1);
    for (int32_t i = -1; i < c->sides; i++) { /* the reference's order, then whatever others have besides */
        for (int32_t r = 0; r < (i < 0 ? 1 : c->side[i].runs); r++) {
            const mx_compare_work *w = i < 0 ? first : &k->work[i][r];

            for (int32_t e = 0; e < w->exams; e++) {
                bool known = !fits(&w->exam[e], c->protocol, c->metric, c->split);

                for (int32_t t = 0; t < c->tasks; t++) {
                    known |= strcmp(task[t], w->exam[e].task) == 0;
                }
                if (!known && (!k->wish->task || strcmp(k->wish->task, w->exam[e].task) == 0)) {
                    task[c->tasks++] = w->exam[e].task;
                }
            }
        }
    }
    c->task = task;
}

static void pick(mx_comparing *k, mx_compare_run *r, mx_compare_work *w) {
    const mx_compare *c = k->c;

    r->step = step_of(k, w);
    w->of_task = MX_TAKE(k->arena, mx_compare_exam *, c->tasks + 1);
    for (int32_t t = 0; t < c->tasks; t++) {
        for (int32_t e = 0; e < w->exams; e++) {
            if (fits(&w->exam[e], c->protocol, c->metric, c->split) && w->exam[e].step == r->step && strcmp(w->exam[e].task, c->task[t]) == 0) {
                w->of_task[t] = &w->exam[e];
            }
        }
    }
    if (!k->wish->best_epoch && r->step >= 0 && r->step < w->trained_steps) {
        mx_comparing_note(k, "Run %lld was trained for %lld steps, but last scored under %s, %s at step %lld.", (long long)r->run_id,
                          (long long)w->trained_steps, c->protocol, c->split, (long long)r->step);
    }
}

bool mx_compare_has(const mx_comparing *k, int32_t side, int32_t task) {
    bool all = k->c->side[side].runs > 0;

    for (int32_t r = 0; r < k->c->side[side].runs; r++) {
        all &= k->work[side][r].of_task[task] != NULL;
    }
    return all;
}

/* --------------------------------------------------------------- refusing */

/* "arc_easy (label_logits acc, validation)": everything a run was scored on. */
static const char *scored_on(mx_comparing *k, const mx_compare_work *w) {
    const char *text = "";

    for (int32_t i = 0; i < w->exams; i++) {
        const char *one = mx_arena_text(k->arena, "%s (%s %s, %s)", w->exam[i].task, w->exam[i].protocol, w->exam[i].metric, w->exam[i].split);

        if (!strstr(text, one) && strlen(text) < 160) {
            text = mx_arena_text(k->arena, "%s%s%s", text, *text ? ", " : "", one);
        }
    }
    return *text ? text : "nothing";
}

static mx_code nothing_scored(mx_comparing *k, const mx_compare_work *first, mx_status *st) {
    const char **names = MX_TAKE(k->arena, const char *, first->exams + 1), *near;
    const mx_compare *c = k->c;

    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "nothing was scored under %s %s, %s%s%s", c->protocol, c->metric, c->split, k->wish->task ? ", on " : "",
            k->wish->task ? k->wish->task : "");
    for (int32_t i = 0; i < first->exams; i++) {
        names[i] = first->exam[i].task;
    }
    near = k->wish->task ? mx_text_nearest(k->wish->task, names, (size_t)first->exams) : NULL;
    if (near && strcmp(near, k->wish->task) != 0) {
        mx_hint(st, "did you mean '%s'?", near);
    } else {
        mx_hint(st, "there is: %s", scored_on(k, first));
    }
    return MX_E_USAGE;
}

/* Two evaluations of one task must be of the same definition, data and items. */
static mx_code same_exam(mx_comparing *k, int64_t run, const mx_compare_exam *e, int64_t other, const mx_compare_exam *o, mx_status *st) {
    int64_t i = 0, missing, has, lacks;
    sqlite3_stmt *q;
    const char *item = "";
    mx_code code;

    if (strcmp(e->task_hash, o->task_hash) != 0) {
        mx_fail(st, MX_E_DATA, MX_NOWHERE, "runs %lld and %lld were not asked the same way: the definition of %s (its prompt, choices or files) is %.8s"
                " in the one and %.8s in the other", (long long)other, (long long)run, e->task, o->task_hash, e->task_hash);
        mx_hint(st, "score both with one definition: mixrun eval RECIPE --adapter runs/.../adapter");
        return MX_E_DATA;
    }
    if (strcmp(e->data_hash, o->data_hash) != 0) {
        return mx_fail(st, MX_E_DATA, MX_NOWHERE, "runs %lld and %lld were scored on different files: the data of %s, %s has sha256 %.8s in the one and"
                       " %.8s in the other", (long long)other, (long long)run, e->task, e->split, o->data_hash, e->data_hash);
    }
    if (!e->number || !o->number) {
        return MX_OK; /* nothing to pair; said where it is needed */
    }
    while (i < e->n && i < o->n && e->number[i] == o->number[i]) {
        i++;
    }
    if (i == e->n && i == o->n) {
        return MX_OK;
    }
    has = i < e->n && (i == o->n || e->number[i] < o->number[i]) ? run : other;
    lacks = has == run ? other : run;
    missing = has == run ? e->number[i] : o->number[i];
    MX_TRY(mx_sql_prepare(k->store, &q, st, "SELECT item FROM predictions WHERE evaluation_id = ? AND number = ?", "ii",
                          has == run ? e->evaluation_id : o->evaluation_id, missing));
    if (mx_sql_row(k->store, q, &code, st)) {
        item = mx_sql_copy(q, 0, k->arena);
    }
    sqlite3_finalize(q);
    MX_TRY(code);
    mx_fail(st, MX_E_DATA, MX_NOWHERE, "%s, %s: question %lld%s%s%s of its file was answered by run %lld (%lld questions) and not by run %lld (%lld)",
            e->task, e->split, (long long)missing + 1, *item ? " ('" : "", item, *item ? "')" : "", (long long)has,
            (long long)(has == run ? e->n : o->n), (long long)lacks, (long long)(has == run ? o->n : e->n));
    mx_hint(st, "do eval.limit or hold_out differ? (mixrun diff %lld %lld)", (long long)has, (long long)lacks);
    return MX_E_DATA;
}

/* One side's runs are one recipe on one base, scored alike. */
static mx_code same_side(mx_comparing *k, int32_t i, mx_status *st) {
    const mx_compare_side *side = &k->c->side[i];

    for (int32_t r = 1; r < side->runs; r++) {
        const mx_compare_work *w = &k->work[i][r], *first = &k->work[i][0];

        if (strcmp(w->recipe_hash, first->recipe_hash) != 0 || strcmp(w->base_hash, first->base_hash) != 0) {
            mx_fail(st, MX_E_DATA, MX_NOWHERE, "runs %lld and %lld are on one side, but are not one recipe under two seeds",
                    (long long)side->run[0].run_id, (long long)side->run[r].run_id);
            mx_hint(st, "mixrun diff %lld %lld tells what differs", (long long)side->run[0].run_id, (long long)side->run[r].run_id);
            return MX_E_DATA;
        }
        for (int32_t t = 0; t < k->c->tasks; t++) {
            if (w->of_task[t] && first->of_task[t]) {
                MX_TRY(same_exam(k, side->run[r].run_id, w->of_task[t], side->run[0].run_id, first->of_task[t], st));
            }
        }
    }
    return MX_OK;
}

static mx_code same_as_baseline(mx_comparing *k, int32_t i, mx_status *st) {
    const mx_compare *c = k->c;
    const mx_compare_side *side = &c->side[i], *base = &c->side[c->baseline];
    const mx_compare_work *w, *o;

    if (i == c->baseline || side->runs == 0 || base->runs == 0) {
        return MX_OK;
    }
    w = &k->work[i][0];
    o = &k->work[c->baseline][0];
    if (strcmp(w->base_hash, o->base_hash) != 0) {
        return mx_fail(st, MX_E_DATA, MX_NOWHERE, "runs %lld and %lld are of different base models: %s (%.8s) and %s (%.8s)",
                       (long long)base->run[0].run_id, (long long)side->run[0].run_id, o->base_name, o->base_hash, w->base_name, w->base_hash);
    }
    for (int32_t t = 0; t < c->tasks; t++) {
        if (w->of_task[t] && o->of_task[t]) {
            MX_TRY(same_exam(k, side->run[0].run_id, w->of_task[t], base->run[0].run_id, o->of_task[t], st));
        }
    }
    return MX_OK;
}

/* A task that only one side has cannot be compared; a side with none in common is refused by hand, and told of in a sweep. */
static mx_code note_lacking(mx_comparing *k, int32_t i, mx_status *st) {
    const mx_compare *c = k->c;
    int32_t common = 0;
    const char *text = "";

    if (i == c->baseline || c->side[i].runs == 0 || c->side[c->baseline].runs == 0) {
        return MX_OK;
    }
    for (int32_t t = 0; t < c->tasks; t++) {
        bool here = mx_compare_has(k, i, t), there = mx_compare_has(k, c->baseline, t);

        common += here && there;
        if (here != there) {
            text = mx_arena_text(k->arena, "%s%s%s (not scored by %s)", text, *text ? ", " : "", c->task[t], c->side[here ? c->baseline : i].name);
        }
    }
    if (common == 0 && !k->wish->sweep) {
        mx_fail(st, MX_E_DATA, MX_NOWHERE, "%s and %s were not scored on anything alike under %s %s: the one on %s; the other on %s", c->side[i].name,
                c->side[c->baseline].name, c->protocol, c->metric, scored_on(k, &k->work[i][0]), scored_on(k, &k->work[c->baseline][0]));
        mx_hint(st, "--protocol, --metric, --split and --task choose what is compared");
        return MX_E_DATA;
    }
    if (*text) {
        mx_comparing_note(k, "Left out of %s against %s: %s.", c->side[i].name, c->side[c->baseline].name, text);
    }
    return MX_OK;
}

static mx_code read_all_answers(mx_comparing *k, mx_status *st) {
    for (int32_t i = 0; i < k->c->sides; i++) {
        for (int32_t r = 0; r < k->c->side[i].runs; r++) {
            for (int32_t t = 0; t < k->c->tasks; t++) {
                if (k->work[i][r].of_task[t]) {
                    MX_TRY(read_answers(k, k->work[i][r].of_task[t], st));
                }
            }
        }
    }
    return MX_OK;
}

mx_code mx_compare_exams(mx_comparing *k, mx_status *st) {
    mx_compare *c = k->c;
    const mx_compare_work *first;

    k->work = MX_TAKE(k->arena, mx_compare_work *, c->sides + 1);
    for (int32_t i = 0; i < c->sides; i++) {
        k->work[i] = MX_TAKE(k->arena, mx_compare_work, c->side[i].runs + 1);
        for (int32_t r = 0; r < c->side[i].runs; r++) {
            MX_TRY(read_run(k, &c->side[i].run[r], &k->work[i][r], st));
        }
    }
    first = reference(k);
    if (!first) {
        first = MX_TAKE(k->arena, mx_compare_work, 1);
    }
    choose_protocol(k, first);
    choose_split(k, first);
    list_tasks(k, first);
    if (c->tasks == 0 && !k->wish->alone) {
        return nothing_scored(k, first, st);
    }
    for (int32_t i = 0; i < c->sides; i++) {
        for (int32_t r = 0; r < c->side[i].runs; r++) {
            pick(k, &c->side[i].run[r], &k->work[i][r]);
        }
    }
    MX_TRY(read_all_answers(k, st));
    for (int32_t i = 0; i < c->sides; i++) {
        MX_TRY(same_side(k, i, st));
        if (c->baseline >= 0) {
            MX_TRY(same_as_baseline(k, i, st));
            MX_TRY(note_lacking(k, i, st));
        }
    }
    return MX_OK;
}
