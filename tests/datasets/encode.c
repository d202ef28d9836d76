/* Context and continuation as lm-evaluation-harness encodes them, and what is cut when they are too long. */
#include "datasets/encode.h"

#include "tests/datasets/material.h"

/* One of the vocabularies beside the test models, or the test is skipped. */
static mx_tokenizer *open_vocabulary(const char *name)
{
    const char *models = getenv("MIXRUN_TEST_MODELS");
    const char *path = mx_arena_text(arena(), "%s/vocab/ggml-vocab-%s.gguf", models ? models : "", name);
    mx_status st = { 0 };
    mx_tokenizer *t;

    if (!models || !mx_file_exists(path)) {
        cr_skip_test("MIXRUN_TEST_MODELS has no vocab/ggml-vocab-%s.gguf", name);
    }
    cr_assert_eq(mx_tokenizer_open(path, arena(), &t, &st), MX_OK, "%s", st.text);
    return t;
}

/* One question under a task whose log-likelihood context is `context` and whose choices are the two texts. */
static mx_questions one_question(const char *context, const char *first, const char *second)
{
    const char *folder = enter_folder();
    const char *yaml = mx_arena_text(
        arena(),
        "name: t\nfiles: [{name: f}]\nsplits: {train: {file: f}}\nfields: [c, a, b]\n"
        "choices: {texts: [\"{a}\", \"{b}\"], labels: [A, B]}\nanswer: {at: k}\n"
        "prompts:\n  loglikelihood: {context: \"{c}\"}\n"
        "  reference: {context: \"{c}{choices}\", choice: \" ({label}) {text}\", candidates: [A, B]}\n");
    const mx_task *t = read_task(write_text(folder, "t.yaml", yaml));
    const char *record = mx_arena_text(arena(), "{\"c\":\"%s\",\"a\":\"%s\",\"b\":\"%s\",\"k\":\"B\"}", context, first, second);
    mx_data_request want = { .split = MX_SPLIT_TRAIN, .path = write_text(folder, "r.jsonl", record) };
    mx_questions q = read_questions(t, want);

    leave_folder(folder);
    return q;
}

static mx_encoded_list encode(const mx_questions *q, const mx_tokenizer *t, mx_encode_options o)
{
    mx_encoded_list list;
    mx_status st = { 0 };

    cr_assert_eq(mx_encode(q, t, &o, arena(), &list, &st), MX_OK, "%s", st.text);
    return list;
}

/* The tokenizer's own ids of a text. */
static mx_tokens ids(const mx_tokenizer *t, const char *text, unsigned flags)
{
    mx_tokens list = { 0 };
    mx_status st = { 0 };

    cr_assert_eq(mx_tokenizer_encode(t, text, strlen(text), flags, &list, &st), MX_OK, "%s", st.text);
    return list;
}

static void expect_ids(const int32_t *token, int32_t count, const mx_tokens *want, const char *what)
{
    cr_assert_eq((size_t)count, want->count, "%s: %d tokens, not %zu", what, count, want->count);
    cr_expect(count == 0 || memcmp(token, want->id, want->count * sizeof *token) == 0, "%s", what);
}

Test(encode, the_continuation_is_what_the_whole_has_beyond_the_contexts_length)
{
    mx_tokenizer *t = open_vocabulary("gpt-2");
    mx_questions q = one_question("Question: why?\\nAnswer:", "the sun", "a long night");
    mx_encoded_list list = encode(&q, t, (mx_encode_options){ .form = MX_PROMPT_LOGLIKELIHOOD, .sequence_len = 512 });
    const mx_encoded *e = &list.item[0];
    mx_tokens context = ids(t, "Question: why?\nAnswer:", 0), whole;

    cr_assert_eq(e->sequences, 2);
    cr_expect_eq((size_t)e->prefix, context.count);
    for (int c = 0; c < 2; c++) {
        whole = ids(t, c ? "Question: why?\nAnswer: a long night" : "Question: why?\nAnswer: the sun", 0);
        expect_ids(e->sequence[c].token, e->sequence[c].count, &whole, "a sequence");
        cr_expect_eq(e->sequence[c].first_target, e->prefix);
        mx_tokens_finish(&whole);
    }
    cr_expect_eq(list.truncated, 0);
    mx_tokens_finish(&context);
    mx_tokenizer_close(t);
}

Test(encode, spaces_at_the_contexts_end_move_to_the_continuation)
{
    mx_tokenizer *t = open_vocabulary("gpt-2");
    mx_questions q = one_question("Well   ", "yes", "no");
    mx_encoded_list list = encode(&q, t, (mx_encode_options){ .form = MX_PROMPT_LOGLIKELIHOOD, .sequence_len = 512 });
    mx_tokens context = ids(t, "Well", 0), whole = ids(t, "Well    yes", 0);

    cr_expect_eq((size_t)list.item[0].prefix, context.count);
    expect_ids(list.item[0].sequence[0].token, list.item[0].sequence[0].count, &whole, "context, its spaces, continuation");
    mx_tokens_finish(&context);
    mx_tokens_finish(&whole);
    mx_tokenizer_close(t);
}

Test(encode, an_empty_context_is_the_token_that_begins_a_text)
{
    mx_tokenizer *t = open_vocabulary("gpt-2");
    mx_questions q = one_question("", "yes", "no");
    mx_encoded_list list = encode(&q, t, (mx_encode_options){ .form = MX_PROMPT_LOGLIKELIHOOD, .sequence_len = 512 });
    const mx_tokenizer_rule *rule = mx_tokenizer_rules(t);
    mx_tokens alone = ids(t, " yes", 0);

    cr_expect_eq(list.item[0].prefix, 1);
    cr_expect_eq(list.item[0].sequence[0].token[0], rule->bos >= 0 ? rule->bos : rule->eos);
    expect_ids(list.item[0].sequence[0].token + 1, list.item[0].sequence[0].count - 1, &alone, "the continuation alone");
    mx_tokens_finish(&alone);
    mx_tokenizer_close(t);
}

Test(encode, bos_begins_where_the_file_says_so_and_eos_only_when_asked_for)
{
    mx_tokenizer *t = open_vocabulary("llama-spm");
    const mx_tokenizer_rule *rule = mx_tokenizer_rules(t);
    mx_questions q = one_question("Why?", "so", "not so");
    mx_encode_options o = { .form = MX_PROMPT_LOGLIKELIHOOD, .ask = MX_ASK_ANSWER, .sequence_len = 512 };
    mx_encoded_list plain = encode(&q, t, o), closed;
    int32_t n = plain.item[0].sequence[0].count;

    o.add_eos = true;
    closed = encode(&q, t, o);
    cr_assert(rule->add_bos);
    cr_expect_eq(plain.item[0].sequences, 1, "the right answer alone");
    cr_expect_eq(plain.item[0].sequence[0].choice, 1);
    cr_expect_eq(plain.item[0].sequence[0].token[0], rule->bos);
    cr_expect_eq(closed.item[0].sequence[0].count, n + 1);
    cr_expect_eq(closed.item[0].sequence[0].token[n], rule->eos);
    cr_expect(memcmp(closed.item[0].sequence[0].token, plain.item[0].sequence[0].token, (size_t)n * sizeof(int32_t)) == 0);
    o.loss_on_all = true;
    cr_expect_eq(encode(&q, t, o).item[0].sequence[0].first_target, 1);
    mx_tokenizer_close(t);
}

Test(encode, log_likelihoods_are_cut_from_the_left_and_counted)
{
    mx_tokenizer *t = open_vocabulary("gpt-2");
    mx_questions q = one_question("one two three four five six seven eight", "nine", "nine ten eleven");
    mx_encode_options o = { .form = MX_PROMPT_LOGLIKELIHOOD, .sequence_len = 100 };
    mx_encoded_list whole = encode(&q, t, o), cut;

    cr_assert_eq(whole.item[0].sequence[0].count, 9);
    cr_assert_eq(whole.item[0].sequence[1].count, 11);
    cr_expect_eq(whole.longest, 11);
    o.sequence_len = 10; /* 11 tokens feed 10: both still fit */
    cr_expect_eq(encode(&q, t, o).truncated, 0);
    o.sequence_len = 9;
    cut = encode(&q, t, o);
    cr_expect_eq(cut.truncated, 1);
    cr_expect_eq(cut.tokens_dropped, 1);
    cr_expect(cut.item[0].truncated);
    cr_expect_eq(cut.item[0].prefix, 0, "the contexts are no longer the same");
    cr_expect_eq(cut.item[0].sequence[0].count, 9, "a choice that fits loses nothing");
    cr_expect_eq(cut.item[0].sequence[1].count, 10);
    cr_expect_eq(cut.item[0].sequence[1].first_target, 7);
    cr_expect(memcmp(cut.item[0].sequence[1].token, whole.item[0].sequence[1].token + 1, 10 * sizeof(int32_t)) == 0);
    o.sequence_len = 3; /* the answer and one token before it */
    cut = encode(&q, t, o);
    cr_expect_eq(cut.item[0].sequence[1].count, 4);
    cr_expect_eq(cut.item[0].sequence[1].first_target, 1);
    mx_tokenizer_close(t);
}

Test(encode, an_answer_that_does_not_fit_by_itself_is_refused_with_its_line)
{
    mx_tokenizer *t = open_vocabulary("gpt-2");
    mx_questions q = one_question("one", "two", "two three four");
    mx_encode_options o = { .form = MX_PROMPT_LOGLIKELIHOOD, .sequence_len = 2 };
    mx_encoded_list list;
    mx_status st = { 0 };

    cr_assert_eq(mx_encode(&q, t, &o, arena(), &list, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "choice 'B' alone has 3 tokens, and sequence_len is 2");
    cr_expect_eq(st.at.line, 1u);
    mx_tokenizer_close(t);
}

Test(encode, reference_prompts_keep_their_beginning_and_their_answer)
{
    mx_tokenizer *t = open_vocabulary("gpt-2");
    mx_questions q = one_question("one two three four five six", "seven", "eight");
    mx_encode_options o = { .form = MX_PROMPT_REFERENCE, .ask = MX_ASK_CHOICES, .sequence_len = 512 };
    mx_encoded_list whole = encode(&q, t, o), cut;
    const mx_encoded_sequence *s;

    o.sequence_len = 5;
    cut = encode(&q, t, o);
    s = &cut.item[0].sequence[1];
    cr_expect_eq(cut.truncated, 1);
    cr_expect_eq(cut.tokens_dropped, whole.item[0].sequence[0].count - 6);
    cr_expect_eq(cut.item[0].prefix, 5, "still shared");
    cr_expect_eq(s->count, 6);
    cr_expect_eq(s->first_target, 5);
    cr_expect(memcmp(s->token, whole.item[0].sequence[1].token, 5 * sizeof(int32_t)) == 0, "the first tokens");
    cr_expect_eq(s->token[5], whole.item[0].sequence[1].token[whole.item[0].sequence[1].count - 1], "and the answer");

    o.ask = MX_ASK_LABEL; /* what is asked at evaluation is what was trained on */
    cut = encode(&q, t, o);
    cr_expect_eq(cut.truncated, 1);
    cr_expect_eq(cut.item[0].sequence[0].count, 5);
    cr_expect(cut.item[0].label);
    cr_expect(memcmp(cut.item[0].sequence[0].token, s->token, 5 * sizeof(int32_t)) == 0);
    mx_tokenizer_close(t);
}

Test(encode, label_ids_are_the_last_sub_tokens_of_space_and_label)
{
    static const char *const names[] = { "gpt-2", "llama-spm" };

    for (int i = 0; i < 2; i++) {
        mx_tokenizer *t = open_vocabulary(names[i]);
        const mx_task *arc = read_task("arc_easy");
        static const char *const labels[] = { " 1", " 2", " 3", " 4", " A", " B", " C", " D", " E" };
        int32_t *id, count;
        mx_status st = { 0 };

        cr_assert_eq(mx_label_ids(arc, t, arena(), &id, &count, &st), MX_OK, "%s", st.text);
        cr_assert_eq(count, 9);
        for (int k = 0; k < 9; k++) {
            mx_tokens want = ids(t, labels[k], 0);

            cr_expect_eq(id[k], want.id[want.count - 1], "%s, label %s", names[i], labels[k]);
            mx_tokens_finish(&want);
        }
        mx_tokenizer_close(t);
    }
}

Test(encode, a_right_label_is_found_among_the_candidates)
{
    mx_questions q = one_question("x", "y", "z");

    cr_expect_eq(mx_label_gold(&q.item[0]), 1);
    q.item[0].gold = -1;
    cr_expect_eq(mx_label_gold(&q.item[0]), -1);
}
