/* Packing: what lies where, and shared contexts equal to unshared ones. */
#include "datasets/collate.h"

#include "tests/datasets/made_questions.h"

/* The tokens that row `row` sees, oldest first, itself last; returns how many. */
static int32_t seen(const mx_batch *b, int32_t row, int32_t *ret)
{
    const mx_segment *s = &b->segment[b->row_segment[row]];
    int32_t n = 0;

    for (int32_t i = 0; i < s->prefix_count; i++) {
        ret[n++] = b->token[s->prefix_begin + i];
    }
    for (int32_t i = s->begin; i <= row; i++) {
        ret[n++] = b->token[i];
    }
    return n;
}

static void check_batch(const mx_batch *b, const mx_encoded *const *item, int64_t count)
{
    cr_assert_eq(b->questions, count);
    cr_expect_eq(b->first_span[0], 0);
    cr_expect_eq(b->first_span[count], b->spans);
    for (int64_t q = 0; q < count; q++) {
        const mx_encoded *e = item[q];

        cr_assert_eq(b->first_span[q + 1] - b->first_span[q], e->sequences);
        for (int32_t c = 0; c < e->sequences; c++) {
            const mx_span *span = &b->span[b->first_span[q] + c];
            const mx_encoded_sequence *s = &e->sequence[c];

            cr_assert_eq(span->question, q);
            cr_assert_eq(span->choice, s->choice);
            cr_assert_eq(span->count, s->count - s->first_target);
            for (int32_t i = 0; i < span->count; i++) {
                int32_t row = b->loss_row[span->begin + i], context[4096], n = seen(b, row, context);

                cr_expect_eq(b->loss_target[span->begin + i], s->token[s->first_target + i]);
                cr_expect_eq(n, s->first_target + i, "a target sees all that stands before it");
                cr_expect(memcmp(context, s->token, (size_t)n * sizeof *context) == 0, "and in its order");
                cr_expect_eq(b->position[row], n - 1);
                cr_expect_eq(b->question[row], e->question->running);
                cr_expect_eq(b->task[row], e->question->task_index);
            }
        }
    }
}

static void check_segments(const mx_batch *b)
{
    int32_t row = 0;

    for (int64_t i = 0; i < b->segments; i++) {
        const mx_segment *s = &b->segment[i];

        cr_assert_eq(s->begin, row, "segments lie end to end");
        cr_assert_gt(s->count, 0);
        if (s->prefix_count) {
            int32_t of = b->row_segment[s->prefix_begin];

            cr_expect(of < i && b->segment[of].begin == s->prefix_begin && b->segment[of].count == s->prefix_count);
            cr_expect_eq(b->segment[of].prefix_count, 0, "prefixes are one deep");
            cr_expect_eq(b->sequence[of].choice, -1);
        }
        for (int32_t k = 0; k < s->count; k++, row++) {
            cr_expect_eq(b->row_segment[row], i);
            cr_expect_eq(b->position[row], s->prefix_count + k);
        }
    }
    cr_assert_eq(row, b->live);
}

Test(collate, every_target_sees_its_own_context_shared_or_not)
{
    mx_encoded_list list = made_list(1, 40, false);
    const mx_encoded *item[40];

    for (int i = 0; i < 40; i++) {
        item[i] = &list.item[i];
    }
    for (int unshared = 0; unshared < 2; unshared++) {
        mx_collate_options o = { .unshared = unshared, .bucket = 32 };
        mx_extent x = { 0 };
        mx_batch *b = mx_collate(item, 40, &o, arena());

        for (int i = 0; i < 40; i++) {
            x = mx_extent_add(x, mx_extent_of(item[i], unshared));
        }
        check_batch(b, item, 40);
        check_segments(b);
        cr_expect_eq(b->live, x.rows);
        cr_expect_eq(b->loss_rows, x.loss_rows);
        cr_expect_eq(b->spans, x.spans);
        cr_expect_eq(b->segments, x.segments);
        cr_expect(b->rows % 32 == 0 && b->rows >= b->live && b->rows < b->live + 32);
    }
}

Test(collate, rows_are_saved_once_per_choice_and_no_row_is_fed_for_nothing)
{
    /* 10 tokens of context, choices of 1, 2 and 3: the context's last row predicts each first token, and no choice's
     * last token is fed, so choices cost 0, 1 and 2 rows, and the first needs no segment */
    mx_encoded e = made_question(3, 0, 10, 1, 3, 2);
    const mx_encoded *item = &e;
    mx_batch *b = mx_collate(&item, 1, &(mx_collate_options){ 0 }, arena());

    cr_expect_eq(b->live, 13);
    cr_expect_eq(b->rows, 13);
    cr_expect_eq(b->segments, 3);
    cr_expect_eq(b->spans, 3);
    cr_expect_eq(b->loss_rows, 6);
    cr_expect_eq(b->loss_row[0], 9);
    cr_expect_eq(b->loss_row[1], 9);
    cr_expect_eq(b->gold[0], 2);
    cr_expect_eq(b->sequence[0].choice, -1);
    cr_expect_eq(b->sequence[1].choice, 1);
    cr_expect_eq(b->sequence[2].question, 3);
    b = mx_collate(&item, 1, &(mx_collate_options){ .unshared = true }, arena());
    cr_expect_eq(b->live, 10 + 11 + 12);
    cr_expect_eq(b->segments, 3);
}

Test(collate, a_prompt_alone_is_fed_whole_and_its_last_row_asked)
{
    mx_encoded e = made_question(0, 0, 7, 0, 1, -1);
    const mx_encoded *item = &e;
    mx_batch *b;

    e.label = true;
    b = mx_collate(&item, 1, &(mx_collate_options){ 0 }, arena());
    cr_expect_eq(b->live, 7);
    cr_expect_eq(b->loss_rows, 1);
    cr_expect_eq(b->loss_row[0], 6);
    cr_expect_eq(b->spans, 1);
    cr_expect_eq(b->span[0].count, 1);
    cr_expect_eq(b->gold[0], -1);
}

Test(collate, whole_questions_are_taken_while_they_fit_and_never_none)
{
    mx_encoded_list list = made_list(0, 3, true); /* rows 5, 13, 21 */
    const mx_encoded *item[] = { &list.item[0], &list.item[1], &list.item[2] };
    mx_collate_options o = { 0 };

    cr_expect_eq(mx_extent_of(item[0], false).rows, 5);
    cr_expect_eq(mx_extent_of(item[1], false).rows, 13);
    cr_expect_eq(mx_extent_of(item[2], false).rows, 21);
    cr_expect_eq(mx_collate_fit(item, 3, 39, &o), 3);
    cr_expect_eq(mx_collate_fit(item, 3, 38, &o), 2);
    cr_expect_eq(mx_collate_fit(item, 3, 18, &o), 2);
    cr_expect_eq(mx_collate_fit(item, 3, 17, &o), 1);
    cr_expect_eq(mx_collate_fit(item, 3, 1, &o), 1, "one that is larger gets a micro-batch of its own");
    cr_expect_eq(mx_collate_fit(item, 0, 1, &o), 0);
}
