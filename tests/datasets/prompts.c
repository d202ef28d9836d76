/* Prompts, byte for byte: against strings written by hand from the papers' code, against lm-evaluation-harness's request
 * hashes, and against OLMES's ready requests. */
#include "base/json.h"
#include "datasets/jsonl.h"
#include "tests/datasets/material.h"
#include "tests/support/python.h"

#include <math.h>

/* --- by hand --- */

/* A record of each format and what the two forms must make of it. */
static const struct {
    const char *task, *record, *label; /* label: for the side file, or NULL */
    const char *reference, *right, *context, *continuation;
} BY_HAND[] = {
    { "arc_easy",
      "{\"id\":\"a\",\"question\":{\"stem\":\"Which is hot?\",\"choices\":[{\"text\":\"ice\",\"label\":\"1\"},{\"text\":\"caf\\u00e9\","
      "\"label\":\"2\"},{\"text\":\"snow\",\"label\":\"3\"}]},\"answerKey\":\"2\"}",
      NULL, "Please choose the correct answer to the question: Which is hot? (1) ice (2) caf\xc3\xa9 (3) snow\nAnswer:", " 2",
      "Question: Which is hot?\nAnswer:", " caf\xc3\xa9" },
    { "arc_challenge",
      "{\"id\":\"a\",\"question\":{\"stem\":\"Which?\",\"choices\":[{\"text\":\"x\",\"label\":\"A\"},{\"text\":\"y\",\"label\":\"B\"},"
      "{\"text\":\"z\",\"label\":\"C\"},{\"text\":\"u\",\"label\":\"D\"},{\"text\":\"v\",\"label\":\"E\"}]},\"answerKey\":\"E\"}",
      NULL, "Please choose the correct answer to the question: Which? (A) x (B) y (C) z (D) u (E) v\nAnswer:", " E",
      "Question: Which?\nAnswer:", " v" },
    { "openbookqa",
      "{\"id\":\"7\",\"question\":{\"stem\":\"The sun is\",\"choices\":[{\"text\":\"hot\",\"label\":\"A\"},{\"text\":\"wet\",\"label\":\"B\"},"
      "{\"text\":\"old and {near}\",\"label\":\"C\"},{\"text\":\"a dog\",\"label\":\"D\"}]},\"answerKey\":\"C\"}",
      NULL, "Please choose the correct answer to the question: The sun is (A) hot (B) wet (C) old and {near} (D) a dog\nAnswer:",
      " C", "The sun is", " old and {near}" },
    { "piqa", "{\"goal\":\"dresser\",\"sol1\":\"pin \",\"sol2\":\"a  b\"}", "1",
      "Below is a common task along with two possible solutions labeled (A) and (B). Please select the appropriate solution to "
      "achieve the task:\ndresser\n\n(A) pin \n(B) a  b\n\nCorrect solution:",
      " B", "Question: dresser\nAnswer:", " a  b" },
    { "boolq", "{\"question\":\"is it so\",\"title\":\"T\",\"answer\":true,\"passage\":\"P p.\"}", NULL,
      "Please answer the following question with true or false: is it so?\nAnswer:", " true",
      "T -- P p.\nQuestion: is it so?\nAnswer:", " yes" },
    { "social_iqa", "{\"context\":\"Al fell.\",\"question\":\"Why?\",\"answerA\":\"a\",\"answerB\":\"b\",\"answerC\":\"c\"}", "3",
      "Please choose the correct answer to the question.\nQuestion: Al fell. Why?\n(A) a\n(B) b\n(C) c\nAnswer:", " C",
      "Q: Al fell. Why?\nA:", " c" },
    { "hellaswag",
      "{\"ind\":4,\"activity_label\":\"Cook\",\"ctx_a\":\"[header] How to cook [title] Wash.\",\"ctx_b\":\"the Pan\",\"ctx\":\"[header] How "
      "to cook [title] Wash. the Pan\",\"label\":0,\"endings\":[\"is [step] hot.\",\"b\",\"c\",\" d\"]}",
      NULL,
      "Please choose the correct ending to complete the given sentence.\nSentence: Cook. [header] How to cook [title] Wash. the "
      "Pan\n(A) is [step] hot.\n(B) b\n(C) c\n(D)  d\nAnswer:",
      " A", "Cook: How to cook. Wash. The pan", " is hot." },
    { "winogrande", "{\"qID\":\"w\",\"sentence\":\"Ann beat Bea as _ was fast.\",\"option1\":\"Ann\",\"option2\":\"Bea\",\"answer\":\"1\"}",
      NULL,
      "Please choose the correct answer to fill in the blank to complete the given sentence.\nSentence: Ann beat Bea as _ was "
      "fast.\n(A) Ann\n(B) Bea\nAnswer:",
      " A", "Ann beat Bea as Ann", " was fast." },
};

static const char *task_path(const char *name)
{
    const char *shipped = mx_arena_text(arena(), "%s/configs/tasks/%s.yaml", mx_path_home(arena()), name);

    return mx_file_exists(shipped) ? shipped : local_task(name);
}

Test(prompts, all_eight_tasks_are_asked_byte_for_byte_as_their_papers_code_does)
{
    const char *folder = enter_folder();

    for (size_t i = 0; i < sizeof BY_HAND / sizeof *BY_HAND; i++) {
        const mx_task *t = read_task(task_path(BY_HAND[i].task));
        const char *path = write_text(folder, "x.jsonl", BY_HAND[i].record);
        const char *labels = BY_HAND[i].label ? write_text(folder, "x.lst", BY_HAND[i].label) : NULL;
        mx_questions q = read_questions(t, (mx_data_request){ .split = MX_SPLIT_TRAIN, .path = path, .labels = labels });
        const mx_question *first = &q.item[0];

        cr_assert_eq(q.count, 1);
        cr_expect_str_eq(context_of(first, MX_PROMPT_REFERENCE, 0), BY_HAND[i].reference, "%s", t->name);
        cr_expect_str_eq(continuation_of(first, MX_PROMPT_REFERENCE, first->gold), BY_HAND[i].right, "%s", t->name);
        cr_expect_str_eq(context_of(first, MX_PROMPT_LOGLIKELIHOOD, first->gold), BY_HAND[i].context, "%s", t->name);
        cr_expect_str_eq(continuation_of(first, MX_PROMPT_LOGLIKELIHOOD, first->gold), BY_HAND[i].continuation, "%s", t->name);
    }
    leave_folder(folder);
}

Test(prompts, the_choices_contexts_differ_only_where_a_blank_is_filled)
{
    cr_expect(!read_task(task_path("winogrande"))->prompts.loglikelihood.shared);
    cr_expect(read_task(task_path("winogrande"))->prompts.reference.shared);
    cr_expect(read_task(task_path("hellaswag"))->prompts.loglikelihood.shared);
}

Test(prompts, characters_are_code_points_of_the_choice_without_the_space_before_it)
{
    const char *folder = enter_folder();
    const char *path = write_text(folder, "x.jsonl", BY_HAND[0].record);
    mx_questions q = read_questions(read_task("arc_easy"), (mx_data_request){ .split = MX_SPLIT_TRAIN, .path = path });

    cr_expect_eq(q.item[0].choice[1].characters, 4);
    leave_folder(folder);
}

/* --- lm-evaluation-harness's request hashes and the scores of its dummy model --- */

/* The harness's test: docs shuffled by Random(42), then requests; scores are -random.random() in their order. */
typedef struct harness {
    const mx_questions *questions;
    bool backwards; /* its older task gave the choices in the other order */
    int64_t *order;
} harness;

static int32_t choice_at(const harness *h, const mx_question *q, int32_t i)
{
    return h->backwards ? q->choices - 1 - i : i;
}

static harness shuffled(const mx_questions *q, bool backwards)
{
    harness h = { q, backwards, malloc((size_t)q->count * sizeof(int64_t)) };
    python_random r;

    for (int64_t i = 0; i < q->count; i++) {
        h.order[i] = i;
    }
    python_seed(&r, 42);
    python_shuffle(&r, h.order, q->count);
    return h;
}

static void hash_requests(const harness *h, char ret[MX_SHA256_TEXT])
{
    mx_text json;

    mx_text_init(&json, (size_t)1 << 28);
    for (int64_t i = 0; i < h->questions->count; i++) {
        const mx_question *q = &h->questions->item[h->order[i]];

        for (int32_t c = 0; c < q->choices; c++) {
            mx_text_print(&json, "%s", i || c ? ", [" : "[[");
            python_json(context_of(q, MX_PROMPT_LOGLIKELIHOOD, choice_at(h, q, c)), &json);
            mx_text_print(&json, ", ");
            python_json(continuation_of(q, MX_PROMPT_LOGLIKELIHOOD, choice_at(h, q, c)), &json);
            mx_text_print(&json, "]");
        }
    }
    mx_text_print(&json, "]");
    mx_sha256(json.data, json.length, ret);
    mx_text_finish(&json);
}

/* acc and acc_norm of the dummy model. */
static void dummy_scores(const harness *h, double *acc, double *acc_norm)
{
    python_random r;
    int64_t hits = 0, hits_norm = 0;

    python_seed(&r, 42);
    for (int64_t i = 0; i < h->questions->count; i++) {
        const mx_question *q = &h->questions->item[h->order[i]];
        double best = -INFINITY, best_norm = -INFINITY;
        int32_t won = 0, won_norm = 0;

        for (int32_t c = 0; c < q->choices; c++) {
            int32_t choice = choice_at(h, q, c);
            double score = -python_uniform(&r), norm = score / q->choice[choice].characters;

            if (score > best) {
                best = score;
                won = choice;
            }
            if (norm > best_norm) {
                best_norm = norm;
                won_norm = choice;
            }
        }
        hits += won == q->gold;
        hits_norm += won_norm == q->gold;
    }
    *acc = (double)hits / (double)h->questions->count;
    *acc_norm = (double)hits_norm / (double)h->questions->count;
}

Test(prompts, requests_have_the_hashes_and_the_dummy_scores_of_lm_evaluation_harness)
{
    static const struct {
        const char *task, *name, *hash_file;
        bool backwards, norm;
    } cases[] = {
        { "piqa", "piqa", "piqa-v0", false, true },
        { "winogrande", "winogrande", "winogrande-v0", false, false },
        { "boolq", "boolq", "boolq-v1", true, false },
    };
    const char *data = data_or_skip();

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mx_task *t = read_task(task_path(cases[i].task));
        mx_questions q = read_questions(t, (mx_data_request){ .split = MX_SPLIT_VALIDATION, .data_dir = data });
        harness h = shuffled(&q, cases[i].backwards);
        char hash[MX_SHA256_TEXT], *expected;
        const json_t *scores;
        json_t *root;
        mx_status st = { 0 };
        size_t size;
        double acc, acc_norm;

        cr_assert_eq(mx_file_read(mx_arena_text(arena(), "%s/lm_eval_testdata/%s-loglikelihood", data, cases[i].hash_file), 100,
                                  &expected, &size, &st), MX_OK, "%s", st.text);
        hash_requests(&h, hash);
        cr_expect(strncmp(hash, expected, 64) == 0, "%s: %s, not %s", t->name, hash, expected);
        free(expected);

        cr_assert_eq(mx_json_read(mx_arena_text(arena(), "%s/lm_eval_testdata/%s-res.json", data, cases[i].hash_file), 1 << 16,
                                  &root, &st), MX_OK, "%s", st.text);
        scores = json_object_get(json_object_get(root, "results"), cases[i].name);
        dummy_scores(&h, &acc, &acc_norm);
        cr_expect_eq(acc, json_real_value(json_object_get(scores, "acc")), "%s acc %.17g", t->name, acc);
        if (cases[i].norm) {
            cr_expect_eq(acc_norm, json_real_value(json_object_get(scores, "acc_norm")), "%s acc_norm %.17g", t->name, acc_norm);
        }
        json_decref(root);
        free(h.order);
    }
}

/* --- OLMES's ready requests --- */

/* Where OLMES words its context otherwise than lm-evaluation-harness: what stands around the same middle. */
typedef struct olmes {
    const char *task, *folder, *path; /* path: of the records; NULL: the validation file */
    const char *theirs_before, *theirs_after, *ours_before, *ours_after;
    bool backwards;
    int64_t at_least; /* requests compared */
} olmes;

static const olmes OLMES[] = {
    { "arc_easy", "arc_easy/rc_0shot", NULL, "", "", "", "", false, 2281 },
    { "arc_challenge", "arc_challenge/rc_0shot", NULL, "", "", "", "", false, 1194 },
    { "openbookqa", "openbookqa/rc_0shot", NULL, "Question: ", "\nAnswer:", "", "", false, 2000 },
    { "piqa", "piqa/rc_0shot", NULL, "Goal: ", "\nAnswer:", "Question: ", "\nAnswer:", false, 3676 },
    { "social_iqa", "socialiqa/rc_0shot", NULL, "Question: ", "\nAnswer:", "Q: ", "\nA:", false, 5862 },
    { "winogrande", "winogrande/rc_0shot", NULL, "", "", "", "", false, 2534 },
    { "boolq", "boolq/rc_0shot", NULL, "", "", "", "", true, 6540 },
};

static const char *middle(const char *text, const char *before, const char *after)
{
    size_t n = strlen(text), b = strlen(before), a = strlen(after);

    return n >= a + b && strncmp(text, before, b) == 0 && strcmp(text + n - a, after) == 0
               ? mx_arena_copy(arena(), text + b, n - a - b)
               : "(not around)";
}

Test(prompts, contexts_continuations_and_answers_are_those_of_the_olmes_requests)
{
    const char *data = data_or_skip();

    for (size_t i = 0; i < sizeof OLMES / sizeof *OLMES; i++) {
        const olmes *o = &OLMES[i];
        const mx_task *t = read_task(task_path(o->task));
        mx_questions q = read_questions(t, (mx_data_request){ .split = MX_SPLIT_VALIDATION, .data_dir = data });
        harness h = { &q, o->backwards, NULL };
        int64_t compared = 0;
        mx_status st = { 0 };
        mx_jsonl j;
        json_t *record;

        cr_assert_eq(mx_jsonl_open(&j, mx_arena_text(arena(), "%s/olmes_requests/%s/requests.jsonl.gz", data, o->folder), &st),
                     MX_OK, "%s", st.text);
        while (mx_jsonl_next(&j, &record, &st) == MX_OK && record) {
            const json_t *request = json_object_get(record, "request");
            int64_t doc = json_integer_value(json_object_get(record, "doc_id"));
            int64_t idx = json_integer_value(json_object_get(record, "idx"));
            int64_t label = json_integer_value(json_object_get(record, "label"));

            if (doc < 1000000) { /* past that: the same choices without their question */
                const mx_question *here = &q.item[doc];
                int32_t choice;

                cr_assert(doc < q.count && idx < here->choices);
                choice = choice_at(&h, here, (int32_t)idx);
                cr_expect_str_eq(middle(context_of(here, MX_PROMPT_LOGLIKELIHOOD, choice), o->ours_before, o->ours_after),
                                 middle(json_string_value(json_object_get(request, "context")), o->theirs_before,
                                        o->theirs_after));
                cr_expect_str_eq(continuation_of(here, MX_PROMPT_LOGLIKELIHOOD, choice),
                                 json_string_value(json_object_get(request, "continuation")));
                cr_expect_eq(here->gold, choice_at(&h, here, (int32_t)label), "%s record %lld", t->name, (long long)doc);
                compared++;
            }
            json_decref(record);
        }
        cr_expect_eq(compared, o->at_least, "%s: %lld requests", t->name, (long long)compared);
        mx_jsonl_close(&j);
        mx_arena_finish(arena());
    }
}

/* OLMES goes one step further than lm-evaluation-harness: the double stop that " [title]" leaves becomes one. */
static const char *single_stops(const char *text)
{
    char *out = mx_arena_copy(arena(), text, strlen(text)), *to = out;

    for (const char *s = text; *s; s++) {
        if (strncmp(s, ".. ", 3) != 0) {
            *to++ = *s;
        }
    }
    *to = '\0';
    return out;
}

/* Both are samples of the validation file: 1000 records in the original format, and requests that name their record by `ind`,
 * which ActivityNet's and WikiHow's records count each for themselves: the activity tells them apart. */
Test(prompts, hellaswag_is_cleaned_as_the_olmes_requests_are)
{
    const char *data = data_or_skip();
    const mx_task *t = read_task(task_path("hellaswag"));
    mx_questions q = read_questions(
        t, (mx_data_request){ .split = MX_SPLIT_VALIDATION, .data_dir = data, .path = "hellaswag_val.1000.jsonl" });
    int64_t compared = 0;
    mx_status st = { 0 };
    mx_jsonl j;
    json_t *record;

    cr_assert_eq(mx_jsonl_open(&j, mx_arena_text(arena(), "%s/olmes_requests/hellaswag/rc_5shot/requests.jsonl.gz", data), &st),
                 MX_OK, "%s", st.text);
    while (mx_jsonl_next(&j, &record, &st) == MX_OK && record) {
        const json_t *request = json_object_get(record, "request"), *doc = json_object_get(record, "doc");
        const char *query = json_string_value(json_object_get(doc, "query"));
        int64_t ind = json_integer_value(json_object_get(doc, "ind"));
        int64_t idx = json_integer_value(json_object_get(record, "idx"));

        for (int64_t i = 0; i < q.count; i++) {
            const char *activity = q.item[i].field[0];

            if (atoll(q.item[i].id) == ind && strncmp(query, activity, strlen(activity)) == 0) {
                cr_expect_str_eq(single_stops(context_of(&q.item[i], MX_PROMPT_LOGLIKELIHOOD, 0)), query);
                cr_expect_str_eq(single_stops(continuation_of(&q.item[i], MX_PROMPT_LOGLIKELIHOOD, (int32_t)idx)),
                                 json_string_value(json_object_get(request, "continuation")));
                compared++;
            }
        }
        json_decref(record);
    }
    cr_expect_geq(compared, 200, "only %lld requests are in both samples", (long long)compared);
    mx_jsonl_close(&j);
}

/* --- the rest of the official files --- */

Test(prompts, every_official_file_that_is_here_reads_whole)
{
    static const struct {
        const char *task, *path, *labels;
        mx_split split;
        int64_t questions;
        bool official;
    } files[] = {
        { "arc_easy", NULL, NULL, MX_SPLIT_TRAIN, 2251, true },
        { "arc_challenge", NULL, NULL, MX_SPLIT_TRAIN, 1119, true },
        { "openbookqa", NULL, NULL, MX_SPLIT_TRAIN, 4957, true },
        { "piqa", "train.first14113.jsonl", "train.first14113-labels.lst", MX_SPLIT_TRAIN, 14113, false },
        { "boolq", "train.first7927.jsonl", NULL, MX_SPLIT_TRAIN, 7927, false },
        { "winogrande", NULL, NULL, MX_SPLIT_TRAIN, 9248, true },
        { "hellaswag", "hellaswag_train.first2500.jsonl", NULL, MX_SPLIT_TRAIN, 2500, false },
    };
    const char *data = data_or_skip();

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        mx_questions q = read_questions(read_task(task_path(files[i].task)),
                                        (mx_data_request){ .split = files[i].split, .data_dir = data, .path = files[i].path,
                                                           .labels = files[i].labels });

        cr_expect_eq(q.count, files[i].questions, "%s: %lld", files[i].task, (long long)q.count);
        cr_expect_eq(q.file[0].official, files[i].official, "%s", files[i].task);
    }
}
