/* Scores do not depend on how questions are packed, and are what a plain pass over each choice gives. */
#include "tests/eval/support.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_base.h"

#include <math.h>

/* Sum of log p of the continuation by a pass over that one choice alone, context included. */
static double alone(asked *a, const mx_encoded *e, int32_t choice) {
    mx_encoded one = { .question = e->question, .sequence = &e->sequence[choice], .sequences = 1 };
    const mx_encoded *list = &one;
    const mx_collate_options o = { .unshared = true };
    const mx_pass pass = { 0 };
    mx_adapter *adapter = &a->trainee->adapter;
    mx_batch *batch;
    double sum = 0;
    float nll[256];
    mx_status st = { 0 };

    mx_arena_rewind(&a->step);
    batch = mx_collate(&list, 1, &o, &a->step);
    cr_assert(batch->loss_rows < 256);
    mx_model_forward(a->model, &adapter, 1, batch, &pass);
    OK(mx_model_nll(a->model, nll, &st));
    for (int64_t i = 0; i < batch->loss_rows; i++) {
        sum -= nll[i];
    }
    return sum;
}

Test(score, packing_and_sharing_change_no_score) {
    scratch x = scratch_open();
    asked a;
    mx_exam_result packed, single;

    tiny_base(scratch_path(&x, "tiny"));
    asked_open(&a, scratch_path(&x, "tiny"), MX_PRECISION_F32, "sample_arc", MX_SPLIT_VALIDATION, MX_PROTOCOL_LOGLIKELIHOOD, 20, 2048);
    packed = asked_run(&a, 2048);
    single = asked_run(&a, 1); /* a question is never cut: one a batch */
    cr_assert_eq(packed.n, 20);
    for (int64_t q = 0; q < packed.n; q++) {
        for (int32_t c = 0; c < packed.item[q].scores; c++) {
            double expected = alone(&a, &a.exam.encoded.item[q], c);

            /* f32 sums of some twenty terms of about 5, in another order */
            cr_assert_float_eq(packed.item[q].score[c], expected, 2e-4, "question %lld choice %d", (long long)q, c);
            cr_assert_float_eq(single.item[q].score[c], expected, 2e-4, "question %lld choice %d", (long long)q, c);
        }
        cr_assert_eq(packed.item[q].gold, packed.item[q].question->gold);
    }
    cr_assert(packed.has[MX_METRIC_ACC] && packed.has[MX_METRIC_ACC_NORM]);
    cr_assert_float_eq(packed.majority, (double)a.questions.majority / 20, 1e-12);
    asked_close(&a);
    scratch_close(&x);
}

Test(score, label_logits_ask_the_candidates_at_the_last_token) {
    scratch x = scratch_open();
    asked a;
    mx_exam_result r;

    tiny_base(scratch_path(&x, "tiny"));
    asked_open(&a, scratch_path(&x, "tiny"), MX_PRECISION_F32, "sample_piqa", MX_SPLIT_VALIDATION, MX_PROTOCOL_LABEL_LOGITS, 10, 2048);
    r = asked_run(&a, 2048);
    cr_assert_eq(a.exam.labels, 2);
    cr_assert_not(r.has[MX_METRIC_ACC_NORM]);
    for (int64_t q = 0; q < r.n; q++) {
        cr_assert_eq(r.item[q].scores, 2);
        cr_assert(r.item[q].gold >= 0 && r.item[q].gold < 2);
        cr_assert(isfinite(r.item[q].score[0]) && r.item[q].score[0] != r.item[q].score[1]);
        cr_assert_eq(r.item[q].chosen[MX_METRIC_ACC], r.item[q].score[1] > r.item[q].score[0]);
    }
    asked_close(&a);
    scratch_close(&x);
}
