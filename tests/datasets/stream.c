/* The stream: a step is a function of its number, and totals are what is then read. */
#include "datasets/stream.h"

#include "tests/datasets/made_questions.h"

enum { TASKS = 3 };
static mx_encoded_list lists[TASKS];
static mx_stream_part parts[TASKS];

static void make_parts(void)
{
    const int32_t sizes[TASKS] = { 50, 23, 10 };
    const double weights[TASKS] = { 1, 0.5, 2.3 };

    for (int i = 0; i < TASKS; i++) {
        lists[i] = made_list(i, sizes[i], i == 1);
        parts[i] = (mx_stream_part){ &lists[i], weights[i] };
    }
}

static const mx_stream_options USUAL = { .seed = 42, .epochs = 3, .batch_size = 16, .micro_batch_tokens = 200,
                                         .collate = { .bucket = 16 } };

static mx_stream *open_stream(const mx_stream_options *o)
{
    mx_status st = { 0 };
    mx_stream *s;

    if (!parts[0].questions) {
        make_parts();
    }
    cr_assert_eq(mx_stream_open(parts, TASKS, o, arena(), &s, &st), MX_OK, "%s", st.text);
    return s;
}

/* Everything a batch holds, as one hash. */
static void add_batch(mx_hasher *h, const mx_batch *b)
{
    size_t rows = (size_t)b->rows * sizeof(int32_t), loss = (size_t)b->loss_rows * sizeof(int32_t);

    mx_hasher_add(h, b->token, rows);
    mx_hasher_add(h, b->position, rows);
    mx_hasher_add(h, b->question, rows);
    mx_hasher_add(h, b->task, rows);
    mx_hasher_add(h, b->row_segment, rows);
    mx_hasher_add(h, b->segment, (size_t)b->segments * sizeof *b->segment);
    mx_hasher_add(h, b->sequence, (size_t)b->segments * sizeof *b->sequence);
    mx_hasher_add(h, b->loss_row, loss);
    mx_hasher_add(h, b->loss_target, loss);
    mx_hasher_add(h, b->span, (size_t)b->spans * sizeof *b->span);
    mx_hasher_add(h, &b->step_loss_tokens, sizeof(double));
}

static const char *hash_step(mx_stream *s, int64_t step)
{
    char *hex = mx_arena_take(arena(), MX_SHA256_TEXT);
    mx_hasher *h = mx_hasher_open();
    mx_stream_step read;

    mx_stream_read(s, step, arena(), &read);
    for (int64_t i = 0; i < read.batches; i++) {
        add_batch(h, read.batch[i]);
    }
    mx_hasher_close(h, hex);
    return hex;
}

Test(stream, the_same_seed_gives_the_same_steps_whatever_was_read_before)
{
    mx_stream *whole = open_stream(&USUAL);
    int64_t steps = mx_stream_measure(whole)->steps;
    const char **hash = MX_TAKE(arena(), const char *, steps);

    for (int64_t i = 0; i < steps; i++) {
        hash[i] = hash_step(whole, i);
        cr_expect(i == 0 || strcmp(hash[i], hash[i - 1]) != 0);
    }
    for (int64_t from = 0; from < steps; from++) { /* resumed at any step, in a new process's stream */
        mx_stream *resumed = open_stream(&USUAL);

        for (int64_t i = from; i < steps && i < from + 2; i++) {
            cr_expect_str_eq(hash_step(resumed, i), hash[i], "step %lld after a resume at %lld", (long long)i, (long long)from);
        }
    }
    for (int64_t i = steps; i-- > 0;) {
        cr_expect_str_eq(hash_step(whole, i), hash[i], "backwards, step %lld", (long long)i);
    }
}

Test(stream, another_seed_or_epoch_is_another_order)
{
    mx_stream_options o = USUAL;
    mx_stream *a = open_stream(&o), *b;
    int64_t per_epoch = mx_stream_measure(a)->steps_per_epoch;

    o.seed = 43;
    b = open_stream(&o);
    cr_expect_str_neq(hash_step(a, 0), hash_step(b, 0));
    cr_expect_str_neq(hash_step(a, 0), hash_step(a, per_epoch));
}

Test(stream, an_epoch_gives_each_task_its_weight_and_each_question_evenly)
{
    mx_stream *s = open_stream(&USUAL);
    const mx_stream_totals *t = mx_stream_measure(s);
    const int64_t quota[TASKS] = { 50, 12, 23 }; /* round(1 x 50), round(0.5 x 23), round(2.3 x 10) */
    int halves[2][23] = { { 0 } };

    cr_assert_eq(t->epoch_questions, 50 + 12 + 23);
    cr_assert_eq(t->steps_per_epoch, 6);
    cr_assert_eq(t->steps, 18);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        int times[TASKS][50] = { { 0 } };
        int64_t given[TASKS] = { 0 };

        for (int64_t i = 0; i < t->steps_per_epoch; i++) {
            mx_stream_step read;

            mx_stream_read(s, epoch * t->steps_per_epoch + i, arena(), &read);
            cr_expect_eq(read.epoch, epoch);
            cr_expect_eq(read.ends_epoch, i + 1 == t->steps_per_epoch);
            cr_expect_eq(read.questions, i + 1 < t->steps_per_epoch ? 16 : 5, "the last step takes what remains");
            for (int64_t m = 0; m < read.batches; m++) {
                for (int64_t q = 0, last = -1; q < read.batch[m]->segments; q++) {
                    const mx_sequence *of = &read.batch[m]->sequence[q];
                    int64_t question = read.batch[m]->question[read.batch[m]->segment[q].begin];

                    if (of->choice == -1 || (of->task == 1 && question != last)) {
                        times[of->task][of->question]++;
                        given[of->task]++;
                    }
                    last = question;
                }
            }
        }
        for (int k = 0; k < TASKS; k++) {
            cr_expect_eq(given[k], quota[k], "task %d gave %lld", k, (long long)given[k]);
        }
        for (int i = 0; i < 50; i++) {
            cr_expect_eq(times[0][i], 1, "weight 1: each once");
            halves[epoch][i % 23] += i < 23 ? times[1][i] : 0;
            cr_expect(i >= 23 || times[1][i] <= 1, "weight 0.5: none twice");
            cr_expect(i >= 10 || times[2][i] == 2 || times[2][i] == 3, "weight 2.3: twice or three times");
        }
    }
    cr_expect(memcmp(halves[0], halves[1], sizeof halves[0]) != 0, "another half in the next epoch");
}

Test(stream, totals_are_what_is_then_read)
{
    const int64_t ceilings[] = { 1, 40, 200, 100000 };

    for (int k = 0; k < 4; k++) {
        mx_stream_options o = USUAL;
        mx_stream *s;
        mx_stream_totals sum = { 0 };
        const mx_stream_totals *t;

        o.micro_batch_tokens = ceilings[k];
        s = open_stream(&o);
        t = mx_stream_measure(s);
        for (int64_t i = 0; i < t->steps; i++) {
            mx_stream_step read;
            double tokens = 0, questions = 0;

            mx_stream_read(s, i, arena(), &read);
            for (int64_t m = 0; m < read.batches; m++) {
                const mx_batch *b = read.batch[m];

                sum.largest = mx_extent_max(sum.largest, (mx_extent){ b->live, b->loss_rows, b->spans, b->segments, b->questions });
                tokens += (double)b->loss_rows;
                questions += (double)b->questions;
                cr_expect(b->live <= ceilings[k] || b->questions == 1, "%lld rows", (long long)b->live);
                cr_expect_eq(b->step_loss_tokens, (double)read.loss_rows);
                cr_expect_eq(b->step_questions, (double)read.questions);
                cr_expect_eq(b->step_rows, (double)read.rows);
            }
            cr_expect_eq(tokens, (double)read.loss_rows);
            cr_expect_eq(questions, (double)read.questions);
            sum.questions += read.questions;
            sum.rows += read.rows;
            sum.loss_rows += read.loss_rows;
            sum.micro_batches += read.batches;
        }
        cr_expect_eq(sum.questions, t->questions);
        cr_expect_eq(sum.rows, t->rows);
        cr_expect_eq(sum.loss_rows, t->loss_rows);
        cr_expect_eq(sum.micro_batches, t->micro_batches);
        cr_expect(memcmp(&sum.largest, &t->largest, sizeof sum.largest) == 0);
        cr_expect_eq(t->questions, 3 * t->epoch_questions);
    }
}

/* The rows of a step by what names a dropout mask, whatever their packing. */
typedef struct named_row {
    int32_t question, position, token, choice;
} named_row;

static int by_name(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(named_row));
}

static int64_t name_rows(mx_stream *s, int64_t step, named_row *ret)
{
    mx_stream_step read;
    int64_t n = 0;

    mx_stream_read(s, step, arena(), &read);
    for (int64_t m = 0; m < read.batches; m++) {
        const mx_batch *b = read.batch[m];

        for (int64_t r = 0; r < b->live; r++) {
            ret[n++] = (named_row){ b->question[r], b->position[r], b->token[r], b->sequence[b->row_segment[r]].choice };
        }
    }
    qsort(ret, (size_t)n, sizeof *ret, by_name);
    return n;
}

Test(stream, repacking_gives_every_row_the_same_name)
{
    named_row *a = MX_TAKE(arena(), named_row, 20000), *b = MX_TAKE(arena(), named_row, 20000);
    mx_stream_options o = USUAL;
    mx_stream *one = open_stream(&o), *other;

    o.micro_batch_tokens = 64;
    other = open_stream(&o);
    for (int64_t i = 0; i < mx_stream_measure(one)->steps; i++) {
        int64_t n = name_rows(one, i, a);

        cr_assert_eq(name_rows(other, i, b), n);
        cr_expect(memcmp(a, b, (size_t)n * sizeof *a) == 0, "step %lld", (long long)i);
    }
}

Test(stream, micro_batches_are_as_few_as_can_be_and_even)
{
    mx_encoded_list list = { .item = MX_TAKE(arena(), mx_encoded, 12), .count = 12 };
    mx_stream_part part = { &list, 1 };
    mx_stream_options o = { .seed = 1, .epochs = 1, .batch_size = 12, .micro_batch_tokens = 100 };
    mx_stream_step read;
    mx_status st = { 0 };
    mx_stream *s;

    for (int32_t i = 0; i < 12; i++) {
        list.item[i] = made_question(i, 0, 10, 1, 1, 0); /* 10 rows each */
    }
    cr_assert_eq(mx_stream_open(&part, 1, &o, arena(), &s, &st), MX_OK);
    mx_stream_read(s, 0, arena(), &read);
    cr_assert_eq(read.batches, 2);
    cr_expect_eq(read.batch[0]->live, 60, "60 and 60, not 100 and 20");
    cr_expect_eq(read.batch[1]->live, 60);
}

Test(stream, max_steps_ends_it_early_and_changes_no_step_before)
{
    mx_stream_options o = USUAL;
    mx_stream *all = open_stream(&o), *some;

    o.max_steps = 7;
    some = open_stream(&o);
    cr_assert_eq(mx_stream_measure(some)->steps, 7);
    for (int64_t i = 0; i < 7; i++) {
        cr_expect_str_eq(hash_step(some, i), hash_step(all, i));
    }
}

Test(stream, a_mix_without_questions_is_refused)
{
    mx_encoded_list none = { 0 };
    mx_stream_part part = { &none, 1 };
    mx_status st = { 0 };
    mx_stream *s;

    cr_expect_eq(mx_stream_open(&part, 1, &USUAL, arena(), &s, &st), MX_E_DATA);
    st = (mx_status){ 0 };
    cr_expect_eq(mx_stream_open(&part, 0, &USUAL, arena(), &s, &st), MX_E_DATA);
}
