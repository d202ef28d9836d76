/* collate.c - encoded questions in, one packed mx_batch out. */
#include "datasets/collate.h"

#include <assert.h>

/* Rows of its own that a sequence needs: its last token is never fed; a label question's is, and asked. */
static int64_t own_rows(const mx_encoded *e, const mx_encoded_sequence *s, int32_t prefix)
{
    return s->count - prefix - !e->label;
}

static int32_t shared_prefix(const mx_encoded *e, bool unshared)
{
    return unshared ? 0 : e->prefix;
}

mx_extent mx_extent_of(const mx_encoded *e, bool unshared)
{
    int32_t prefix = shared_prefix(e, unshared);
    mx_extent x = { .rows = prefix, .segments = prefix > 0, .spans = e->sequences, .questions = 1 };

    for (int32_t i = 0; i < e->sequences; i++) {
        int64_t rows = own_rows(e, &e->sequence[i], prefix);

        x.rows += rows;
        x.segments += rows > 0;
        x.loss_rows += e->label ? 1 : e->sequence[i].count - e->sequence[i].first_target;
    }
    return x;
}

mx_extent mx_extent_add(mx_extent a, mx_extent b)
{
    return (mx_extent){ a.rows + b.rows, a.loss_rows + b.loss_rows, a.spans + b.spans, a.segments + b.segments,
                        a.questions + b.questions };
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

mx_extent mx_extent_max(mx_extent a, mx_extent b)
{
    return (mx_extent){ larger(a.rows, b.rows), larger(a.loss_rows, b.loss_rows), larger(a.spans, b.spans),
                        larger(a.segments, b.segments), larger(a.questions, b.questions) };
}

int64_t mx_collate_fit(const mx_encoded *const *item, int64_t count, int64_t max_rows, const mx_collate_options *o)
{
    int64_t rows = 0, n = 0;

    while (n < count) {
        rows += mx_extent_of(item[n], o->unshared).rows;
        if (n && rows > max_rows) {
            break;
        }
        n++;
    }
    return n;
}

/* The arrays of a batch while they are filled. */
typedef struct packer {
    int32_t *token, *position, *question, *task, *row_segment;
    mx_segment *segment;
    mx_sequence *sequence;
    int32_t *loss_row, *loss_target;
    mx_span *span;
    int32_t rows, segments, loss_rows, spans, questions;
} packer;

/* Rows for token[from .. to) of a sequence; a segment only where there are rows. Returns its first row. */
static int32_t put_segment(packer *p, const mx_question *q, const int32_t *token, int32_t from, int32_t to,
                           int32_t choice, int32_t prefix_begin, int32_t prefix_count)
{
    int32_t begin = p->rows;

    if (to <= from) {
        return begin;
    }
    for (int32_t i = from; i < to; i++, p->rows++) {
        p->token[p->rows] = token[i];
        p->position[p->rows] = i;
        p->question[p->rows] = q->running;
        p->task[p->rows] = q->task_index;
        p->row_segment[p->rows] = p->segments;
    }
    p->segment[p->segments] = (mx_segment){ begin, to - from, prefix_begin, prefix_count };
    p->sequence[p->segments++] = (mx_sequence){ .task = q->task_index, .question = q->number, .choice = choice };
    return begin;
}

/* The loss rows of one sequence: position k - 1 is asked for token k. */
static void put_span(packer *p, const mx_encoded *e, const mx_encoded_sequence *s, int32_t prefix_begin, int32_t prefix,
                     int32_t begin)
{
    int32_t first = p->loss_rows;

    if (e->label) {
        p->loss_row[p->loss_rows] = begin + s->count - 1;
        p->loss_target[p->loss_rows++] = 0;
    }
    for (int32_t k = s->first_target; k < s->count; k++) {
        int32_t at = k - 1;

        p->loss_row[p->loss_rows] = at < prefix ? prefix_begin + at : begin + at - prefix;
        p->loss_target[p->loss_rows++] = s->token[k];
    }
    p->span[p->spans++] = (mx_span){ first, p->loss_rows - first, p->questions, s->choice };
}

static void put_question(packer *p, const mx_encoded *e, bool unshared)
{
    int32_t prefix = shared_prefix(e, unshared);
    int32_t prefix_begin = prefix ? put_segment(p, e->question, e->sequence[0].token, 0, prefix, -1, 0, 0) : 0;

    for (int32_t i = 0; i < e->sequences; i++) {
        const mx_encoded_sequence *s = &e->sequence[i];
        int32_t begin = put_segment(p, e->question, s->token, prefix, prefix + (int32_t)own_rows(e, s, prefix), s->choice,
                                    prefix_begin, prefix);

        put_span(p, e, s, prefix_begin, prefix, begin);
    }
    p->questions++;
}

mx_batch *mx_collate(const mx_encoded *const *item, int64_t count, const mx_collate_options *o, mx_arena *arena)
{
    const int64_t bucket = o->bucket > 0 ? o->bucket : 1;
    mx_batch *b = MX_TAKE(arena, mx_batch, 1);
    mx_extent x = { 0 };
    int32_t *gold = MX_TAKE(arena, int32_t, count + 1), *first_span = MX_TAKE(arena, int32_t, count + 1);
    packer p = { 0 };
    int64_t rows;

    for (int64_t i = 0; i < count; i++) {
        x = mx_extent_add(x, mx_extent_of(item[i], o->unshared));
    }
    assert(count > 0 && x.rows > 0 && x.rows < INT32_MAX / 2 && x.loss_rows < INT32_MAX / 2);
    rows = (x.rows + bucket - 1) / bucket * bucket;
    p.token = MX_TAKE(arena, int32_t, rows);
    p.position = MX_TAKE(arena, int32_t, rows);
    p.question = MX_TAKE(arena, int32_t, rows);
    p.task = MX_TAKE(arena, int32_t, rows);
    p.row_segment = MX_TAKE(arena, int32_t, rows);
    p.segment = MX_TAKE(arena, mx_segment, x.segments);
    p.sequence = MX_TAKE(arena, mx_sequence, x.segments);
    p.loss_row = MX_TAKE(arena, int32_t, x.loss_rows);
    p.loss_target = MX_TAKE(arena, int32_t, x.loss_rows);
    p.span = MX_TAKE(arena, mx_span, x.spans);
    for (int64_t i = 0; i < count; i++) {
        gold[i] = item[i]->label ? mx_label_gold(item[i]->question) : item[i]->question->gold;
        first_span[i] = p.spans;
        put_question(&p, item[i], o->unshared);
    }
    first_span[count] = p.spans;
    assert(p.rows == x.rows && p.loss_rows == x.loss_rows && p.segments == x.segments && p.spans == x.spans);
    *b = (mx_batch){ .rows = rows, .live = x.rows, .token = p.token, .position = p.position, .question = p.question,
                     .task = p.task, .row_segment = p.row_segment, .segment = p.segment, .segments = x.segments,
                     .sequence = p.sequence, .loss_rows = x.loss_rows, .loss_row = p.loss_row,
                     .loss_target = p.loss_target, .span = p.span, .spans = x.spans, .questions = count, .gold = gold,
                     .first_span = first_span, .step_loss_tokens = (double)x.loss_rows, .step_questions = (double)count,
                     .step_rows = (double)x.rows };
    return b;
}
