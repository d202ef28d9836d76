/* score.h - a task's questions through the model under one protocol: every choice's score, and what the metrics say.
 *
 * loglikelihood: a choice's score is the sum of log p of its tokens given the context, which is computed once for all
 *                choices (TASKS.md 4.6); metrics acc and acc_norm.
 * label_logits:  the logits of the task's candidate labels at the prompt's last token (TASKS.md 4.2); metric acc.
 * All noise is off. Questions are packed in their own order into batches of at most max_rows rows. */
#ifndef EVAL_SCORE_H
#define EVAL_SCORE_H

#include "datasets/stream.h"
#include "eval/metric.h"
#include "model/model.h"

/* One task and split, read and encoded for one protocol. */
typedef struct mx_exam {
    mx_protocol protocol;
    const mx_questions *questions;
    mx_encoded_list encoded;
    int32_t *label; /* label_logits: the candidates' token ids */
    int32_t labels;
} mx_exam;

/* Encodes; all in the arena. MX_E_RECIPE without a place when the task cannot be asked so. */
MX_MUST_CHECK mx_code mx_exam_prepare(const mx_questions *questions, mx_protocol protocol, const mx_tokenizer *tokenizer,
                                      int64_t sequence_len, mx_arena *arena, mx_exam *ret, mx_status *st);
/* The largest batch that mx_exam_run will make, for the model's limits; and all rows and batches. */
mx_extent mx_exam_extent(const mx_exam *e, int64_t max_rows);
int64_t mx_exam_rows(const mx_exam *e);

typedef struct mx_exam_item {
    const mx_question *question;
    const double *score; /* per choice, or per candidate label */
    int32_t scores, gold;
    int32_t chosen[MX_METRICS];
} mx_exam_item;

typedef struct mx_exam_result {
    int64_t n;
    mx_exam_item *item;
    bool has[MX_METRICS];
    mx_mean mean[MX_METRICS];
    double majority; /* share of the commonest right choice */
} mx_exam_result;

typedef struct mx_exam_options {
    int64_t max_rows;
    bool count_pairs;                                      /* co-activation into the model's router tallies */
    void (*progress)(void *who, int64_t done, int64_t all); /* questions; may be NULL */
    void *who;
    const volatile int *stop; /* non-zero: leave with MX_E_STOPPED; may be NULL */
} mx_exam_options;

/* `ret` lives in `arena`; `step` is rewound after every batch. */
MX_MUST_CHECK mx_code mx_exam_run(const mx_exam *e, mx_model *model, mx_adapter *adapter, const mx_exam_options *o,
                                  mx_arena *step, mx_arena *arena, mx_exam_result *ret, mx_status *st);

#endif
