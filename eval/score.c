/* score.c - see score.h. */
#include "eval/score.h"

#include <assert.h>
#include <math.h>

mx_code mx_exam_prepare(const mx_questions *questions, mx_protocol protocol, const mx_tokenizer *tokenizer,
                        int64_t sequence_len, mx_arena *arena, mx_exam *ret, mx_status *st) {
    bool labels = protocol == MX_PROTOCOL_LABEL_LOGITS;
    mx_encode_options o = {
        .form = labels ? MX_PROMPT_REFERENCE : MX_PROMPT_LOGLIKELIHOOD,
        .ask = labels ? MX_ASK_LABEL : MX_ASK_CHOICES,
        .sequence_len = sequence_len,
    };

    *ret = (mx_exam){ .protocol = protocol, .questions = questions };
    if (!mx_task_prompt_of(questions->task, o.form)) {
        return mx_fail(st, MX_E_RECIPE, MX_NOWHERE, "task '%s' has no prompt for protocol %s", questions->task->name,
                       mx_protocol_names[protocol]);
    }
    MX_TRY(mx_encode(questions, tokenizer, &o, arena, &ret->encoded, st));
    if (labels) {
        MX_TRY(mx_label_ids(questions->task, tokenizer, arena, &ret->label, &ret->labels, st));
    }
    return MX_OK;
}

/* The questions from `first` on that make the next batch. */
static int64_t batch_count(const mx_exam *e, int64_t first, int64_t max_rows, const mx_encoded **list) {
    const mx_collate_options o = { 0 };
    int64_t n = e->encoded.count - first, rows = 0, i;

    for (i = 0; i < n && (i == 0 || rows <= max_rows); i++) { /* as many as can possibly fit */
        list[i] = &e->encoded.item[first + i];
        rows += mx_extent_of(list[i], false).rows;
    }
    return mx_collate_fit(list, i, max_rows, &o);
}

mx_extent mx_exam_extent(const mx_exam *e, int64_t max_rows) {
    mx_extent largest = { 0 }, now = { 0 };

    for (int64_t i = 0; i < e->encoded.count; i++) {
        mx_extent one = mx_extent_of(&e->encoded.item[i], false), sum = mx_extent_add(now, one);

        now = sum.rows > max_rows ? one : sum;
        largest = mx_extent_max(largest, now);
    }
    return largest;
}

int64_t mx_exam_rows(const mx_exam *e) {
    int64_t rows = 0;

    for (int64_t i = 0; i < e->encoded.count; i++) {
        rows += mx_extent_of(&e->encoded.item[i], false).rows;
    }
    return rows;
}

/* Sums of log p over each span: spans come in the order of questions and choices. */
static mx_code score_choices(mx_model *model, const mx_batch *batch, mx_exam_item *item, mx_arena *step, mx_status *st) {
    float *nll = MX_TAKE(step, float, batch->loss_rows);

    MX_TRY(mx_model_nll(model, nll, st));
    for (int64_t q = 0; q < batch->questions; q++) {
        for (int32_t s = batch->first_span[q]; s < batch->first_span[q + 1]; s++) {
            const mx_span *span = &batch->span[s];
            double sum = 0;

            for (int32_t i = 0; i < span->count; i++) {
                sum -= nll[span->begin + i];
            }
            ((double *)item[q].score)[span->choice] = sum;
        }
    }
    return MX_OK;
}

static mx_code score_labels(const mx_exam *e, mx_model *model, const mx_batch *batch, mx_exam_item *item, mx_arena *step,
                            mx_status *st) {
    float *logit = MX_TAKE(step, float, batch->loss_rows * e->labels);

    assert(batch->loss_rows == batch->questions);
    MX_TRY(mx_model_label_logits(model, e->label, e->labels, logit, st));
    for (int64_t q = 0; q < batch->questions; q++) {
        for (int32_t i = 0; i < e->labels; i++) {
            ((double *)item[q].score)[i] = logit[q * e->labels + i];
        }
    }
    return MX_OK;
}

/* A score that is not a number would be judged as if it were one. */
static mx_code check_finite(const mx_exam *e, const mx_exam_item *item, int64_t count, mx_status *st) {
    for (int64_t q = 0; q < count; q++) {
        for (int32_t i = 0; i < item[q].scores; i++) {
            if (!isfinite(item[q].score[i])) {
                return mx_fail(st, MX_E_DIVERGED, MX_NOWHERE, "task %s, question %s: the score of choice %d is not finite",
                               e->questions->task->name, item[q].question->id, i + 1);
            }
        }
    }
    return MX_OK;
}

static void judge(const mx_exam *e, mx_exam_result *r, mx_arena *arena) {
    int64_t correct[MX_METRICS] = { 0 }, known = 0;

    for (int64_t q = 0; q < r->n; q++) {
        mx_exam_item *item = &r->item[q];
        int32_t *characters = MX_TAKE(arena, int32_t, item->scores);

        if (e->protocol == MX_PROTOCOL_LOGLIKELIHOOD) {
            for (int32_t i = 0; i < item->scores; i++) {
                characters[i] = item->question->choice[i].characters;
            }
        }
        for (int m = 0; m < MX_METRICS; m++) {
            if (r->has[m]) {
                item->chosen[m] = mx_metric_pick((mx_metric)m, item->score, characters, item->scores);
                correct[m] += item->gold >= 0 && item->chosen[m] == item->gold;
            }
        }
        known += item->gold >= 0;
    }
    for (int m = 0; m < MX_METRICS; m++) {
        r->mean[m] = mx_mean_of(correct[m], known);
    }
    r->majority = r->n ? (double)e->questions->majority / (double)r->n : 0;
}

mx_code mx_exam_run(const mx_exam *e, mx_model *model, mx_adapter *adapter, const mx_exam_options *o, mx_arena *step,
                    mx_arena *arena, mx_exam_result *ret, mx_status *st) {
    const mx_encoded **list = MX_TAKE(arena, const mx_encoded *, e->encoded.count + 1);
    const mx_collate_options collate = { 0 };
    const mx_pass pass = { .count_pairs = o->count_pairs };
    bool labels = e->protocol == MX_PROTOCOL_LABEL_LOGITS;

    *ret = (mx_exam_result){ .n = e->encoded.count };
    ret->item = MX_TAKE(arena, mx_exam_item, ret->n);
    ret->has[MX_METRIC_ACC] = true;
    ret->has[MX_METRIC_ACC_NORM] = !labels;
    for (int64_t first = 0, n; first < ret->n; first += n) {
        mx_batch *batch;

        if (o->stop && *o->stop) {
            return mx_fail(st, MX_E_STOPPED, MX_NOWHERE, "stopped while evaluating %s", e->questions->task->name);
        }
        n = batch_count(e, first, o->max_rows, list);
        for (int64_t i = 0; i < n; i++) {
            mx_exam_item *item = &ret->item[first + i];

            item->question = list[i]->question;
            item->scores = labels ? e->labels : list[i]->question->choices;
            item->gold = labels ? mx_label_gold(list[i]->question) : list[i]->question->gold;
            item->score = MX_TAKE(arena, double, item->scores);
        }
        mx_arena_rewind(step);
        batch = mx_collate(list, n, &collate, step);
        mx_model_forward(model, &adapter, 1, batch, &pass);
        MX_TRY(labels ? score_labels(e, model, batch, ret->item + first, step, st)
                      : score_choices(model, batch, ret->item + first, step, st));
        MX_TRY(check_finite(e, ret->item + first, n, st));
        if (o->progress) {
            o->progress(o->who, first + n, ret->n);
        }
    }
    judge(e, ret, arena);
    return MX_OK;
}
