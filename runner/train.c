/* train.c - see train.h. */
#include "runner/train.h"

#include "runner/evaluate.h"

#include <math.h>
#include <string.h>

static bool stopping(const mx_session *s) {
    return s->stop && *s->stop;
}

/* -------------------------------------------------------------------- going on from where a run stopped */

enum { CHECKPOINT_PARTS = 7 };

/* What a run must remember besides the trainee: the router window that is open. */
static size_t window_parts(mx_session *s, mx_checkpoint_part part[CHECKPOINT_PARTS]) {
    mx_router_load *l = &s->window;
    size_t n = 0, e = (size_t)(l->layers * l->tasks), cells = e * (size_t)l->experts;

    part[n++] = (mx_checkpoint_part){ "window_first", &s->window_first, sizeof s->window_first };
    if (l->experts > 0) {
        part[n++] = (mx_checkpoint_part){ "window_tokens", l->tokens, cells * sizeof *l->tokens };
        part[n++] = (mx_checkpoint_part){ "window_dropped", l->dropped, cells * sizeof *l->dropped };
        part[n++] = (mx_checkpoint_part){ "window_probability", l->probability, cells * sizeof *l->probability };
        part[n++] = (mx_checkpoint_part){ "window_entropy", l->entropy, e * sizeof *l->entropy };
        part[n++] = (mx_checkpoint_part){ "window_rows", l->rows, e * sizeof *l->rows };
    }
    return n;
}

static mx_code save_checkpoint(mx_session *s, mx_status *st) {
    mx_checkpoint_part part[CHECKPOINT_PARTS];

    return mx_checkpoint_save(s->checkpoint_path, s->trainee, s->row.uuid, part, window_parts(s, part), st);
}

/* Back to the checkpoint, or to the start when there is none; rows past it are dropped. */
static mx_code take_up(mx_session *s, mx_status *st) {
    mx_checkpoint_part part[CHECKPOINT_PARTS];

    if (mx_file_exists(s->checkpoint_path)) {
        mx_code code = mx_checkpoint_load(s->checkpoint_path, s->trainee, s->row.uuid, part, window_parts(s, part), st);

        if (code) {
            mx_hint(st, "mixrun rm %lld%s takes the run away; then it can begin anew", (long long)s->row.run_id, s->db_flag);
            return code;
        }
    }
    s->first_step = s->trainee->step;
    mx_progress_say(&s->progress, "going on from step %lld%s\n", (long long)s->first_step,
                    s->first_step == 0 ? ": there was no checkpoint yet" : "");
    MX_TRY(mx_store_begin(s->store, st));
    MX_TRY(mx_store_drop_after(s->store, s->row.run_id, s->first_step, st));
    return mx_store_commit(s->store, st);
}

/* -------------------------------------------------------------------- what happens when */

/* The epoch that ends after `step` steps (1, 2, ...), or 0. */
static int64_t epoch_ending(const mx_plan *p, int64_t step) {
    return step > 0 && step % p->totals.steps_per_epoch == 0 ? step / p->totals.steps_per_epoch : 0;
}

static mx_code evaluate(mx_session *s, int64_t step, mx_status *st) {
    const mx_plan *p = s->plan;
    double epoch = (double)step / (double)p->totals.steps_per_epoch;
    char title[64];

    if (step == 0) {
        return mx_evaluate(s, 0, 0, "before training", st);
    }
    if (step == p->totals.steps) {
        return mx_evaluate(s, step, epoch, "after training", st);
    }
    snprintf(title, sizeof title, "after epoch %lld", (long long)epoch_ending(p, step));
    return mx_evaluate(s, step, epoch, title, st);
}

/* Rows that all evaluations still to come will compute, and all steps: the ETA's unit. */
static int64_t work_ahead(const mx_session *s) {
    const mx_plan *p = s->plan;
    int64_t exam_rows = 0, evaluations = 0;

    for (int32_t i = 0; i < p->exams; i++) {
        exam_rows += mx_exam_rows(&p->exam[i].exam);
    }
    for (int64_t step = s->first_step; step <= p->totals.steps; step++) {
        evaluations += mx_plan_scores_at(p, step);
    }
    /* a row that is only scored costs about a third of one that is learnt from */
    return 3 * p->totals.rows * (p->totals.steps - s->first_step) / p->totals.steps + evaluations * exam_rows;
}

/* -------------------------------------------------------------------- rows */

enum { QUEUE = 2 };

/* A step whose work is queued; numbers and load (page-locked) hold what it left when `mark` has passed. */
typedef struct queued_step {
    int64_t step; /* from 1 */
    uint64_t mark;
    int64_t rows, loss_rows;
    double learning_rate, began;
    mx_numbers *numbers;
    void *load; /* the routers' tally; NULL: a dense method */
} queued_step;

typedef struct loop {
    mx_session *s;
    queued_step queue[QUEUE]; /* a ring: `count` of them from `first` on */
    int first, count;
    int ahead;   /* how many may be queued behind the one whose numbers are read */
    double done; /* when the last one was done */
} loop;

/* `last`: the run ends with this step, whatever is due: its numbers and the open window are kept. */
static mx_code store_step(mx_session *s, const queued_step *q, double rate, bool last, mx_status *st) {
    const mx_plan *p = s->plan;
    const mx_numbers *n = q->numbers;
    int64_t step = q->step;
    const struct {
        const char *name;
        double value;
        bool wanted;
    } metric[] = {
        { "loss", n->loss, true },
        { "nll", n->nll / (double)q->loss_rows, true },
        { "balance", n->balance, p->layout->trained_router > 0 },
        { "z", n->z, p->layout->trained_router > 0 },
        { "total", mx_method_total(p->method, p->config, n, NULL), p->layout->trained_router > 0 },
        { "grad_norm", n->grad_norm, true },
        { "learning_rate", q->learning_rate, true },
        { "tokens", (double)q->rows, true },
        { "tokens_per_second", rate, true },
    };
    bool logged = last || step % p->logging_steps == 0, window = last || step % p->router_log_steps == 0;

    if (!logged && !window) {
        mx_session_alive(s);
        return MX_OK;
    }
    MX_TRY(mx_store_begin(s->store, st));
    for (size_t i = 0; i < sizeof metric / sizeof metric[0] && logged; i++) {
        if (metric[i].wanted && isfinite(metric[i].value)) {
            MX_TRY(mx_store_metric(s->store, s->row.run_id, step, metric[i].name, metric[i].value, st));
        }
    }
    if (window) {
        MX_TRY(mx_store_window(s, "train", s->window_first, step, 0, st));
        s->window_first = step + 1;
    }
    MX_TRY(mx_store_heartbeat(s->store, s->row.run_id, step, st));
    return mx_store_commit(s->store, st);
}

static void show_step(mx_session *s, int64_t step, const mx_numbers *n, double learning_rate) {
    const mx_plan *p = s->plan;
    char router[96] = "";

    if (!mx_progress_due(&s->progress)) {
        return;
    }
    if (s->window.experts > 0) {
        double most, aux;
        int64_t dead;

        mx_method_total(p->method, p->config, n, &aux);
        mx_router_load_balance(&s->window, &most, &dead);
        snprintf(router, sizeof router, "  aux %.4f  router: max/mean load %.2f, %lld dead", aux, most, (long long)dead);
    }
    mx_progress_show(&s->progress, "step %lld/%lld  epoch %lld/%lld  loss %.3f  lr %.1e  %.2f ktok/s%s", (long long)step,
                     (long long)p->totals.steps, (long long)((step - 1) / p->totals.steps_per_epoch + 1),
                     (long long)p->recipe->train.data.num_epochs, n->loss, learning_rate, s->rate / 1000, router);
}

/* -------------------------------------------------------------------- the loop
 *
 * A step is queued, its numbers and router counts are copied at its end to page-locked memory, and read when they have
 * arrived. With a device beside the host the next step is queued before, so that the device never waits for the host. */

static void queue_gradient(mx_session *s, int64_t index, mx_stream_step *batch) {
    const mx_plan *p = s->plan;
    const mx_pass pass = { .training = true, .seed = (uint64_t)p->recipe->seed, .step = (uint64_t)index,
                           .choice = p->recipe->train.data.objective == MX_OBJECTIVE_CHOICE };
    mx_adapter *adapter = &s->trainee->adapter;

    mx_arena_rewind(&s->step);
    mx_stream_read(p->stream, index, &s->step, batch);
    mx_trainee_begin(s->trainee);
    for (int64_t i = 0; i < batch->batches; i++) {
        mx_model_forward(s->model, &adapter, 1, batch->batch[i], &pass);
        mx_model_losses(s->model, s->trainee->numbers);
        mx_model_backward(s->model);
    }
}

static void queue_step(loop *l, int64_t index) {
    mx_session *s = l->s;
    mx_backend *b = mx_model_backend(s->model);
    queued_step *q = &l->queue[(l->first + l->count++) % QUEUE];
    mx_stream_step batch;

    q->step = index + 1;
    q->began = mx_seconds();
    q->learning_rate = mx_trainee_learning_rate(s->trainee);
    queue_gradient(s, index, &batch);
    mx_trainee_end(s->trainee);
    mx_trainee_queue_numbers(s->trainee, q->numbers);
    mx_model_queue_load(s->model, q->load); /* every step by itself: how the window's f64 sums round must not depend on when a
                                               checkpoint was due */
    q->mark = b->mark(b);
    q->rows = batch.rows;
    q->loss_rows = batch.loss_rows;
}

/* Waits for the oldest queued step and stores what it left. */
static mx_code collect_step(loop *l, mx_status *st) {
    mx_session *s = l->s;
    mx_backend *b = mx_model_backend(s->model);
    const queued_step *q = &l->queue[l->first];
    double now, speed;
    mx_code code;

    l->first = (l->first + 1) % QUEUE;
    l->count--;
    MX_TRY(b->wait(b, q->mark, st));
    now = mx_seconds();
    speed = (double)q->rows / (now - (q->began > l->done ? q->began : l->done));
    l->done = now;
    if (q->numbers->skipped != 0 && l->count > 0) { /* what is on the device is a later step's: this one's again, to look at */
        mx_stream_step batch;

        queue_gradient(s, q->step - 1, &batch);
        mx_trainee_finish_gradient(s->trainee);
    }
    code = mx_trainee_judge(s->trainee, q->step, q->numbers, st);
    mx_model_add_load(s->model, q->load, &s->window);
    if (code) {
        mx_code stored = store_step(s, q, 0, true, NULL);

        (void)stored; /* the failure is what the user must hear of */
        return code;
    }
    s->rate = s->rate > 0 ? 0.9 * s->rate + 0.1 * speed : speed;
    s->progress.work_done += 3 * q->rows;
    show_step(s, q->step, q->numbers, q->learning_rate); /* before a full window is stored and begun anew */
    return store_step(s, q, speed, q->step == s->plan->totals.steps, st);
}

/* Until at most `left` steps are on their way. */
static mx_code collect(loop *l, int left, mx_status *st) {
    while (l->count > left) {
        MX_TRY(collect_step(l, st));
    }
    return MX_OK;
}

static mx_code open_loop(loop *l, mx_session *s, mx_status *st) {
    mx_backend *b = mx_model_backend(s->model);

    *l = (loop){ .s = s, .ahead = b->device_bytes > 0 ? QUEUE - 1 : 0 };
    for (int i = 0; i < QUEUE; i++) {
        MX_TRY(b->host_alloc(b, sizeof *l->queue[i].numbers, (void **)&l->queue[i].numbers, st));
        if (mx_model_tally_bytes(s->model)) {
            MX_TRY(b->host_alloc(b, mx_model_tally_bytes(s->model), &l->queue[i].load, st));
        }
    }
    return MX_OK;
}

static void close_loop(loop *l) {
    mx_backend *b = mx_model_backend(l->s->model);

    if (l->count > 0) { /* after a failure: copies into this memory may be on their way */
        mx_code code = b->sync(b, NULL);

        (void)code;
    }
    for (int i = 0; i < QUEUE; i++) {
        b->host_release(b, l->queue[i].load);
        b->host_release(b, l->queue[i].numbers);
    }
}

static void hint_resume(const mx_session *s, mx_status *st) {
    mx_hint(st, "continue with: mixrun resume %lld%s", (long long)s->row.run_id, s->db_flag);
}

static mx_code stop_here(mx_session *s, mx_status *st) {
    const mx_plan *p = s->plan;

    mx_progress_say(&s->progress, "saving ...\n");
    MX_TRY(save_checkpoint(s, st));
    mx_fail(st, MX_E_STOPPED, MX_NOWHERE, "stopped at step %lld of %lld", (long long)s->trainee->step,
            (long long)p->totals.steps);
    hint_resume(s, st);
    return MX_E_STOPPED;
}

/* What the plan said beside what it came to: everything a run needs is still held here. */
static mx_code account_memory(mx_session *s, mx_status *st) {
    const mx_backend *b = mx_model_backend(s->model);
    size_t used = mx_memory_now(), planned = s->plan->total_bytes;
    bool device = b->device_bytes > 0; /* then it is the device's memory that is scarce */

    if (device) {
        used = 0;
        planned = s->plan->held_bytes;
        for (int i = 0; i < MX_MEMORY_PURPOSES; i++) {
            used += b->used_bytes(b, (mx_memory)i);
            planned += s->plan->bytes[i];
        }
    }
    MX_TRY(mx_store_begin(s->store, st));
    MX_TRY(mx_store_metric(s->store, s->row.run_id, s->plan->totals.steps, "memory_bytes", (double)used, st));
    MX_TRY(mx_store_metric(s->store, s->row.run_id, s->plan->totals.steps, "memory_planned_bytes", (double)planned, st));
    MX_TRY(mx_store_commit(s->store, st));
    mx_progress_say(&s->progress, "memory   used %s, planned %s%s\n", mx_text_bytes(used), mx_text_bytes(planned),
                    device ? " on the GPU" : "");
    return MX_OK;
}

static mx_code finish(mx_session *s, mx_status *st) {
    MX_TRY(account_memory(s, st));
    return mx_adapter_export(&s->trainee->adapter, s->plan->base.name, s->adapter_folder, st);
}

static mx_code run_steps(loop *l, mx_status *st) {
    mx_session *s = l->s;
    const mx_plan *p = s->plan;

    for (int64_t step = s->first_step; step < p->totals.steps; step++) {
        bool scores = mx_plan_scores_at(p, step + 1), saves = scores || (p->save_steps > 0 && (step + 1) % p->save_steps == 0);

        queue_step(l, step);
        MX_TRY(collect(l, saves || stopping(s) ? 0 : l->ahead, st));
        if (stopping(s)) {
            MX_TRY(collect(l, 0, st));
            return stop_here(s, st);
        }
        if (saves) {
            MX_TRY(save_checkpoint(s, st));
        }
        if (scores) {
            mx_code code = evaluate(s, step + 1, st);

            if (code == MX_E_STOPPED) {
                hint_resume(s, st);
            }
            MX_TRY(code);
        }
    }
    MX_TRY(collect(l, 0, st));
    return finish(s, st);
}

mx_code mx_train(mx_session *s, mx_status *st) {
    const mx_plan *p = s->plan;
    loop l;
    mx_code code;

    s->window_first = 1;
    if (s->resumed) {
        MX_TRY(take_up(s, st));
    }
    mx_progress_begin(&s->progress, s->progress.quiet, work_ahead(s));
    if (mx_plan_scores_at(p, s->first_step)) {
        code = evaluate(s, s->first_step, st);
        if (code == MX_E_STOPPED) { /* what training had done is in the checkpoint, or there was none yet */
            hint_resume(s, st);
        }
        MX_TRY(code);
    }
    code = open_loop(&l, s, st);
    if (!code) {
        code = run_steps(&l, st);
    }
    close_loop(&l);
    return code;
}
