/* Our log-likelihoods beside lm-evaluation-harness's on the same base and questions (PIQA validation, f32).
 *
 * The first 64 questions (8 under a sanitizer), so that the test stays short; MIXRUN_PIQA_ALL=1 asks all 1,838. */
#include "datasets/jsonl.h"
#include "tests/eval/support.h"

#include <math.h>
#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
enum { QUESTIONS = 8 };
#else
enum { QUESTIONS = 64 };
#endif

Test(piqa, log_likelihoods_are_those_of_lm_evaluation_harness, .timeout = 3600) {
    const char *vectors = getenv("MIXRUN_VECTORS"), *path;
    bool all = getenv("MIXRUN_PIQA_ALL") != NULL;
    double worst = 0;
    int64_t verdicts = 0;
    mx_arena arena;
    mx_exam_result r;
    mx_jsonl j;
    asked a;
    mx_status st = { 0 };

    mx_arena_init(&arena, 64 << 20);
    path = mx_arena_text(&arena, "%s/lm_eval_smollm2/piqa.jsonl.gz", vectors ? vectors : ".");
    if (!getenv("MIXRUN_DATA") || !mx_file_exists(path)) {
        cr_skip_test("MIXRUN_DATA or MIXRUN_VECTORS/lm_eval_smollm2/piqa.jsonl.gz is absent");
    }
    asked_open(&a, default_base(&arena), MX_PRECISION_F32, "piqa", MX_SPLIT_VALIDATION, MX_PROTOCOL_LOGLIKELIHOOD, all ? 0 : QUESTIONS, 2048);
    r = asked_run(&a, 2048);
    OK(mx_jsonl_open(&j, path, &st));
    for (int64_t q = 0; q < r.n; q++) {
        const mx_exam_item *item = &r.item[q];
        json_t *theirs;
        double ll[2], norm[2];

        OK(mx_jsonl_next(&j, &theirs, &st));
        cr_assert_not_null(theirs);
        cr_assert_eq(json_integer_value(json_object_get(theirs, "doc")), item->question->number);
        cr_assert_eq(json_integer_value(json_object_get(theirs, "gold")), item->gold);
        for (int c = 0; c < 2; c++) {
            ll[c] = json_real_value(json_array_get(json_object_get(theirs, "ll"), (size_t)c));
            norm[c] = ll[c] / item->question->choice[c].characters;
            worst = fmax(worst, fabs(ll[c] - item->score[c]));
            cr_assert_float_eq(item->score[c], ll[c], 2e-3, "question %lld choice %d: %.6f, theirs %.6f", (long long)q, c,
                               item->score[c], ll[c]);
        }
        if (fabs(ll[0] - ll[1]) > 4e-3) { /* further apart than both errors */
            cr_assert_eq(item->chosen[MX_METRIC_ACC], ll[1] > ll[0]);
            verdicts++;
        }
        if (fabs(norm[0] - norm[1]) > 4e-3 / 10) {
            cr_assert_eq(item->chosen[MX_METRIC_ACC_NORM], norm[1] > norm[0]);
        }
        json_decref(theirs);
    }
    fprintf(stderr, "%lld questions, largest difference %.2e, %lld verdicts equal\n", (long long)r.n, worst, (long long)verdicts);
    mx_jsonl_close(&j);
    asked_close(&a);
    mx_arena_finish(&arena);
}
