/* evaluate.c - see evaluate.h. */
#include "runner/evaluate.h"

#include <assert.h>

typedef struct watcher {
    mx_session *s;
    const char *title;
    int64_t rows, questions; /* of this exam, for the ETA in rows */
    int64_t before;          /* work done before it */
    const char *task;
} watcher;

static void show(void *who, int64_t done, int64_t all) {
    watcher *w = who;
    mx_progress *p = &w->s->progress;

    mx_session_alive(w->s);
    p->work_done = w->before + w->rows * done / (all > 0 ? all : 1);
    if (mx_progress_due(p)) {
        mx_progress_show(p, "%s   %s %lld/%lld", w->title, w->task, (long long)done, (long long)all);
    }
}

mx_code mx_store_window(mx_session *s, const char *split, int64_t first, int64_t last, int64_t evaluation_id, mx_status *st) {
    const mx_plan *p = s->plan;
    const mx_router_load *l = &s->window;
    const char **names = MX_TAKE(&s->step, const char *, p->tasks + 1);
    mx_router_window w = {
        .split = split, .first_step = first, .last_step = last, .evaluation_id = evaluation_id, .task = names,
        .tasks = l->tasks, .layers = l->layers, .experts = l->experts, .tokens = l->tokens, .dropped = l->dropped,
        .probability = l->probability, .routed = l->rows, .entropy = l->entropy, .pairs = evaluation_id ? l->pairs : NULL,
    };

    if (l->experts == 0) {
        return MX_OK;
    }
    for (int32_t i = 0; i < p->tasks; i++) {
        names[i] = p->task[i].name;
    }
    MX_TRY(mx_store_router(s->store, s->row.run_id, &w, st));
    mx_router_load_clear(&s->window);
    return MX_OK;
}

static mx_code store_items(mx_session *s, int64_t id, const mx_exam_result *r, mx_status *st) {
    for (int64_t q = 0; q < r->n; q++) {
        const mx_exam_item *item = &r->item[q];

        MX_TRY(mx_store_prediction(s->store, id, item->question->number, item->question->id, item->gold, item->score,
                                   item->scores, st));
        for (int m = 0; m < MX_METRICS; m++) {
            if (r->has[m]) {
                MX_TRY(mx_store_outcome(s->store, id, mx_metric_names[m], item->question->number, item->chosen[m],
                                        item->gold >= 0 && item->chosen[m] == item->gold, st));
            }
        }
    }
    return MX_OK;
}

static mx_code store_exam(mx_session *s, const mx_plan_exam *e, const mx_exam_result *r, int64_t step, double epoch,
                          mx_status *st) {
    const mx_plan *p = s->plan;
    mx_evaluation_row row = {
        .task = p->task[e->task].name, .split = mx_split_names[e->split], .protocol = mx_protocol_names[e->exam.protocol],
        .epoch = epoch, .step = step, .n = r->n, .truncated = e->exam.encoded.truncated,
        .limited = p->recipe->eval.limit > 0 && r->n < e->questions.in_file,
        .task_hash = p->task[e->task].task->sha256, .data_hash = e->questions.file[0].sha256,
    };
    int64_t id;

    MX_TRY(mx_store_evaluation(s->store, s->row.run_id, &row, &id, st));
    for (int m = 0; m < MX_METRICS; m++) {
        if (r->has[m]) {
            MX_TRY(mx_store_score(s->store, id, mx_metric_names[m], r->mean[m].value, r->mean[m].stderr_value, r->majority, st));
        }
    }
    if (p->recipe->eval.save_predictions) {
        MX_TRY(store_items(s, id, r, st));
    }
    MX_TRY(mx_store_window(s, row.split, step, step, id, st));
    return mx_store_heartbeat(s->store, s->row.run_id, step, st);
}

static mx_code run_exam(mx_session *s, const mx_plan_exam *e, int64_t step, double epoch, watcher *w, mx_exam_result *result,
                        mx_arena *arena, mx_status *st) {
    mx_exam_options o = { .max_rows = s->plan->exam_rows, .count_pairs = true, .progress = show,
                          .who = w, .stop = s->stop };
    mx_router_load kept; /* a training window may be open: evaluation counts apart */
    mx_code code;

    MX_TRY(mx_model_read_load(s->model, &s->window, st)); /* what training left on the device belongs to it */
    kept = s->window;
    mx_model_init_load(s->model, &s->window);
    code = mx_exam_run(&e->exam, s->model, &s->trainee->adapter, &o, &s->step, arena, result, st);
    if (code == MX_OK) {
        code = mx_model_read_load(s->model, &s->window, st);
    }
    if (code == MX_OK) {
        code = mx_store_begin(s->store, st);
    }
    if (code == MX_OK) {
        code = store_exam(s, e, result, step, epoch, st);
        if (code == MX_OK) {
            code = mx_store_commit(s->store, st);
        } else {
            mx_store_rollback(s->store);
        }
    }
    mx_router_load_finish(&s->window);
    s->window = kept;
    return code;
}

mx_code mx_evaluate(mx_session *s, int64_t step, double epoch, const char *title, mx_status *st) {
    const mx_plan *p = s->plan;
    mx_text line;
    mx_code code = MX_OK;

    mx_text_init(&line, 1 << 16);
    mx_text_print(&line, "%s", title);
    for (int32_t i = 0; i < p->exams && code == MX_OK; i++) {
        const mx_plan_exam *e = &p->exam[i];
        watcher w = { .s = s, .title = title, .rows = mx_exam_rows(&e->exam), .before = s->progress.work_done,
                      .task = p->task[e->task].name };
        mx_exam_result result;
        mx_arena arena;

        mx_arena_init(&arena, (size_t)1 << 30);
        code = run_exam(s, e, step, epoch, &w, &result, &arena, st);
        if (code == MX_OK) {
            mx_metric m = result.has[MX_METRIC_ACC_NORM] ? MX_METRIC_ACC_NORM : MX_METRIC_ACC;

            s->progress.work_done = w.before + w.rows;
            mx_text_print(&line, "   %s%s%s %s %.1f", w.task, e->split == MX_SPLIT_HELD_OUT ? " held_out" : "",
                          e->exam.protocol == MX_PROTOCOL_LABEL_LOGITS ? " label_logits" : "", mx_metric_names[m],
                          100 * result.mean[m].value);
        }
        mx_arena_finish(&arena);
    }
    if (code == MX_OK && p->exams > 0) {
        mx_progress_say(&s->progress, "%s\n", line.data);
    }
    mx_text_finish(&line);
    return code;
}
