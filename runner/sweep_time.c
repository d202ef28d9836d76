/* sweep_time.c - see sweep_time.h. */
#include "runner/sweep_time.h"

#include "model/trainee.h"
#include "reports/speeds.h"
#include "runner/progress.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -------------------------------------------------------------------- from the record */

/* Do two environments compute at the same speed? Versions and commits may differ. */
static bool same_machine(const char *a, const char *b) {
    static const char *const words[] = { "backend", "device", "precision", "processor" };
    json_t *left = json_loads(a, 0, NULL), *right = json_loads(b, 0, NULL);
    bool same = left && right;

    for (size_t i = 0; same && i < sizeof words / sizeof words[0]; i++) {
        const json_t *l = json_object_get(left, words[i]), *r = json_object_get(right, words[i]);

        same = l && r && json_equal(l, r);
    }
    json_decref(left);
    json_decref(right);
    return same;
}

/* Of an adapter of these FLOPs on the variant's base, whose forward passes may be computed twice. */
static double work(const mx_sweep_variant *v, double flops, bool checkpointing) {
    double again = checkpointing ? mx_plan_forward_flops(v->base_flops, flops) : 0;

    return v->base_flops + flops + again;
}

static double own_work(const mx_sweep_variant *v) {
    return work(v, v->flops, v->again_flops > 0);
}

static double from_row(const mx_sweep_variant *v, const mx_speed_row *row) {
    double flops = row->flops > 0 ? (double)row->flops : v->flops; /* not told: alike */
    double slower = own_work(v) / work(v, flops, row->checkpointing);
    double scored = row->scored > 0 ? (double)v->scored / (double)row->scored : 1;

    return (double)v->tokens / row->tokens_per_second * slower + row->other_s * scored;
}

/* The mean over runs of this very recipe, else the run of the same method whose budget is nearest. */
static void from_record(const mx_sweep_variant *v, const mx_speed_row *row, int64_t rows, mx_sweep_time *ret) {
    const mx_speed_row *best = NULL;
    double nearest = DBL_MAX;
    double sum = 0;
    int64_t same = 0;

    for (int64_t i = 0; i < rows; i++) {
        double off = fabs(log((double)(row[i].trained + 1) / (double)(v->trained + 1))) +
                     (row[i].flops > 0 ? fabs(log((double)row[i].flops / v->flops)) : 1);

        if (!same_machine(row[i].environment, v->environment)) {
            continue;
        }
        if (strcmp(row[i].recipe_hash, v->recipe_hash) == 0) {
            sum += from_row(v, &row[i]);
            same++;
        } else if (strcmp(row[i].method, v->recipe->method->name) == 0 && off < nearest) {
            nearest = off;
            best = &row[i];
        }
    }
    if (same > 0) {
        *ret = (mx_sweep_time){ MX_TIME_SAME_RECIPE, sum / (double)same };
    } else if (best) {
        *ret = (mx_sweep_time){ MX_TIME_SAME_METHOD, from_row(v, best) };
    }
}

/* -------------------------------------------------------------------- from a step */

typedef struct timing {
    const mx_sweep_variant *of;
    double open_s, row_s, end_s; /* reading and loading; a row forward and backward; the end of a step */
} timing;

static void pass(mx_model *m, mx_trainee *t, const mx_batch *batch, const mx_recipe *r) {
    const mx_pass how = { .training = true, .seed = (uint64_t)r->seed, .choice = r->train.data.objective == MX_OBJECTIVE_CHOICE };
    mx_adapter *adapter = &t->adapter;

    mx_model_forward(m, &adapter, 1, batch, &how);
    mx_model_losses(m, t->numbers);
    mx_model_backward(m);
}

/* A micro-batch that warms caches and pages, and one that counts. */
static mx_code time_step(const mx_plan *p, mx_model *m, mx_trainee *t, mx_arena *arena, timing *ret, mx_status *st) {
    mx_stream_step step;
    mx_numbers numbers;
    double began, passed;

    mx_stream_read(p->stream, 0, arena, &step);
    mx_trainee_begin(t);
    pass(m, t, step.batch[0], p->recipe);
    MX_TRY(mx_trainee_numbers(t, &numbers, st)); /* waits */
    mx_trainee_begin(t);
    began = mx_seconds();
    pass(m, t, step.batch[0], p->recipe);
    MX_TRY(mx_trainee_numbers(t, &numbers, st));
    passed = mx_seconds();
    mx_trainee_end(t);
    MX_TRY(mx_trainee_numbers(t, &numbers, st));
    ret->row_s = (passed - began) / (double)step.batch[0]->rows;
    ret->end_s = mx_seconds() - passed;
    return MX_OK;
}

static mx_code time_variant(const mx_sweep_variant *v, timing *ret, mx_status *st) {
    mx_plan_wish wish = { .trains = true };
    mx_arena arena;
    mx_plan *plan = NULL;
    mx_model *model = NULL;
    mx_trainee *trainee = NULL;
    mx_status inner = { 0 };
    double began = mx_seconds();
    mx_code code;

    mx_arena_init(&arena, (size_t)16 << 30);
    if ((code = mx_plan_make(v->recipe, &wish, &arena, &plan, &inner)) ||
        (code = mx_model_open(plan->backend, plan->base_file, plan->layout, &plan->limits, &model, &inner)) ||
        (code = mx_trainee_open(plan->backend, plan->layout, mx_model_frozen(model), true, &trainee, &inner)) ||
        (code = mx_trainee_start(trainee, (uint64_t)v->recipe->seed, &inner))) {
        goto done;
    }
    trainee->optimizer = MX_OPTIMIZER_DEFAULTS;
    trainee->schedule = plan->schedule;
    *ret = (timing){ .of = v, .open_s = mx_seconds() - began };
    code = time_step(plan, model, trainee, &arena, ret, &inner);
done:
    if (code) {
        mx_fail(st, code, MX_NOWHERE, "timing a step of '%s': %s", v->name, inner.text);
    }
    mx_trainee_close(trainee);
    mx_model_close(model);
    mx_plan_close(plan);
    mx_arena_finish(&arena);
    return code;
}

/* Rows by their floating-point operations, a step's end by the values it updates. Scoring is a forward pass. */
static double from_step(const mx_sweep_variant *v, const timing *t) {
    double row = t->row_s * own_work(v) / own_work(t->of);
    double end = t->end_s * (double)v->trained / (double)(t->of->trained > 0 ? t->of->trained : 1);
    double scoring = row * mx_plan_forward_flops(v->base_flops, v->flops) / own_work(v);

    return t->open_s + (double)v->tokens * row + (double)v->steps * end + (double)v->scored_tokens * scoring;
}

/* -------------------------------------------------------------------- all variants */

static mx_code read_record(const mx_sweep *w, mx_store *store, mx_arena *arena, mx_sweep_time *ret, mx_status *st) {
    const char *base = NULL;
    mx_speed_row *row = NULL;
    int64_t rows = 0;

    for (int32_t i = 0; i < w->variants; i++) {
        const mx_sweep_variant *v = &w->variant[i];

        if (!base || strcmp(base, v->base_hash) != 0) {
            base = v->base_hash;
            MX_TRY(mx_store_speeds(store, base, arena, &row, &rows, st));
        }
        if (!v->memory_limit_hit) {
            from_record(v, row, rows, &ret[i]);
        }
    }
    return MX_OK;
}

mx_code mx_sweep_times(const mx_sweep *w, mx_store *store, mx_arena *arena, mx_sweep_time *ret,
                       void (*progress)(const char *method), mx_status *st) {
    timing *timed = MX_TAKE(arena, timing, w->variants + 1);
    int32_t count = 0;

    memset(ret, 0, (size_t)w->variants * sizeof *ret);
    if (store) {
        MX_TRY(read_record(w, store, arena, ret, st));
    }
    for (int32_t i = 0; i < w->variants; i++) {
        const mx_sweep_variant *v = &w->variant[i];
        int32_t t = 0;

        if (ret[i].source != MX_TIME_NONE || v->memory_limit_hit) {
            continue;
        }
        while (t < count && (timed[t].of->recipe->method != v->recipe->method || strcmp(timed[t].of->base_hash, v->base_hash) != 0 ||
                             timed[t].of->recipe->threads != v->recipe->threads || !same_machine(timed[t].of->environment, v->environment))) {
            t++;
        }
        if (t == count) {
            if (progress) {
                progress(v->recipe->method->name);
            }
            MX_TRY(time_variant(v, &timed[count++], st));
        }
        ret[i] = (mx_sweep_time){ MX_TIME_STEP, from_step(v, &timed[t]) };
    }
    return MX_OK;
}
