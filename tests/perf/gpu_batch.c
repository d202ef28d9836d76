/* gpu_batch.c - micro-batches of random tokens: sequences to train on, questions to score. */
#include "tests/perf/gpu_batch.h"

#include "base/rng.h"

#include <assert.h>

enum { LENGTH = 256, SPREAD = 32, ANSWER = 8, CONTEXT = 96, CHOICES = 4 };

typedef struct maker {
    mx_batch *b;
    int32_t *token, *position, *question, *task, *row_segment, *loss_row, *loss_target, *gold, *first_span;
    mx_segment *segment;
    mx_sequence *sequence;
    mx_span *span;
    int64_t vocab;
    mx_rng rng;
} maker;

static maker begin(mx_arena *a, int64_t rows, int64_t vocab) {
    maker m = { .b = MX_TAKE(a, mx_batch, 1), .vocab = vocab };

    m.token = MX_TAKE(a, int32_t, rows), m.position = MX_TAKE(a, int32_t, rows), m.question = MX_TAKE(a, int32_t, rows);
    m.task = MX_TAKE(a, int32_t, rows), m.row_segment = MX_TAKE(a, int32_t, rows);
    m.loss_row = MX_TAKE(a, int32_t, rows), m.loss_target = MX_TAKE(a, int32_t, rows);
    m.gold = MX_TAKE(a, int32_t, rows), m.first_span = MX_TAKE(a, int32_t, rows + 1);
    m.segment = MX_TAKE(a, mx_segment, rows), m.sequence = MX_TAKE(a, mx_sequence, rows), m.span = MX_TAKE(a, mx_span, rows);
    mx_rng_init(&m.rng, 1, "tokens");
    return m;
}

/* A segment of random tokens behind its prefix, which may be NULL. */
static const mx_segment *add_segment(maker *m, const mx_segment *prefix, int64_t count) {
    mx_batch *b = m->b;
    int64_t before = prefix ? prefix->count : 0;
    mx_segment *s = &m->segment[b->segments];

    *s = (mx_segment){ .begin = (int32_t)b->live, .count = (int32_t)count, .prefix_begin = prefix ? prefix->begin : 0,
                       .prefix_count = (int32_t)before };
    m->sequence[b->segments] = (mx_sequence){ .question = (int32_t)b->questions };
    for (int64_t i = 0; i < count; i++, b->live++) {
        m->token[b->live] = (int32_t)mx_rng_below(&m->rng, (uint64_t)m->vocab);
        m->position[b->live] = (int32_t)(before + i);
        m->question[b->live] = (int32_t)b->questions;
        m->row_segment[b->live] = (int32_t)b->segments;
    }
    b->segments++;
    return s;
}

static void add_target(maker *m, int64_t row, int64_t target) {
    m->loss_row[m->b->loss_rows] = (int32_t)row;
    m->loss_target[m->b->loss_rows++] = m->token[target];
}

static void close_span(maker *m, int64_t first, int64_t choice) {
    mx_batch *b = m->b;

    m->span[b->spans++] = (mx_span){ .begin = (int32_t)first, .count = (int32_t)(b->loss_rows - first), .question = (int32_t)b->questions,
                                     .choice = (int32_t)choice };
}

static void close_question(maker *m) {
    m->first_span[++m->b->questions] = (int32_t)m->b->spans;
}

static const mx_batch *finish(maker *m, int64_t rows) {
    mx_batch *b = m->b;

    assert(b->live <= rows && b->loss_rows <= rows && b->loss_rows > 0);
    b->rows = b->live;
    b->token = m->token, b->position = m->position, b->question = m->question, b->task = m->task, b->row_segment = m->row_segment;
    b->segment = m->segment, b->sequence = m->sequence;
    b->loss_row = m->loss_row, b->loss_target = m->loss_target, b->span = m->span, b->gold = m->gold, b->first_span = m->first_span;
    b->step_loss_tokens = (double)b->loss_rows;
    b->step_questions = (double)b->questions;
    b->step_rows = (double)b->live;
    return b;
}

const mx_batch *perf_batch_sequences(mx_arena *a, int64_t rows, int64_t vocab, bool peers) {
    maker m = begin(a, rows, vocab);
    int64_t whole = rows < LENGTH ? rows / 4 : LENGTH, spread = peers || rows < LENGTH ? 0 : SPREAD;

    assert(whole > 1);
    for (int64_t i = 0; m.b->live < rows; i++) {
        int64_t left = rows - m.b->live, count = whole + (i * 37) % (2 * spread + 1) - spread, first = m.b->loss_rows, lost;
        const mx_segment *s;

        count = left - count < whole / 2 ? left : count; /* no stump at the end */
        s = add_segment(&m, NULL, count);
        lost = peers || count - 1 < ANSWER ? count - 1 : ANSWER;
        for (int64_t j = count - lost; j < count; j++) {
            add_target(&m, s->begin + j - 1, s->begin + j);
        }
        close_span(&m, first, 0);
        close_question(&m);
    }
    return finish(&m, rows);
}

const mx_batch *perf_batch_questions(mx_arena *a, int64_t rows, int64_t vocab) {
    maker m = begin(a, rows, vocab);
    int64_t context = rows < 4 * CONTEXT ? rows / 8 : CONTEXT, answer = rows < 4 * CONTEXT ? 2 : ANSWER;

    while (m.b->live + context + CHOICES * answer <= rows) {
        const mx_segment *prefix = add_segment(&m, NULL, context);

        for (int64_t c = 0; c < CHOICES; c++) {
            int64_t first = m.b->loss_rows;
            const mx_segment *s = add_segment(&m, prefix, answer);

            for (int64_t j = 0; j < answer; j++) { /* the context's last row predicts the answer's first token */
                add_target(&m, j ? s->begin + j - 1 : prefix->begin + prefix->count - 1, s->begin + j);
            }
            close_span(&m, first, c);
        }
        close_question(&m);
    }
    return finish(&m, rows);
}
