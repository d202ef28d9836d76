/* stream.c - the training questions of a mix in a seeded order, cut into steps and micro-batches. */
#include "datasets/stream.h"

#include "base/rng.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mx_stream {
    mx_stream_options o;
    const mx_encoded **item; /* all parts' questions, part after part */
    int64_t *first;          /* (parts + 1): where each part begins in item */
    int64_t *quota;          /* (parts): questions it gives an epoch */
    int64_t parts;
    mx_stream_totals totals;
    int64_t epoch;             /* that `order` is of; -1: none yet */
    int64_t *order;            /* (epoch_questions): indices into item */
    int64_t *pass;             /* (largest part): scratch of a shuffled pass */
    const mx_encoded **picked; /* (batch_size): a step's */
};

/* --- the order --- */

static void shuffle(const mx_stream *s, const char *what, int64_t epoch, int64_t part, int64_t *item, int64_t n)
{
    char name[80];
    mx_rng rng;

    snprintf(name, sizeof name, "stream/%s/%lld/%lld", what, (long long)epoch, (long long)part);
    mx_rng_init(&rng, s->o.seed, name);
    mx_rng_shuffle(&rng, item, n);
}

static void order_epoch(mx_stream *s, int64_t epoch)
{
    int64_t at = 0;

    if (s->epoch == epoch) {
        return;
    }
    for (int64_t p = 0; p < s->parts; p++) {
        int64_t n = s->first[p + 1] - s->first[p], rest = s->quota[p] % n;

        for (int64_t i = 0; i < n; i++) {
            s->pass[i] = s->first[p] + i;
        }
        for (int64_t whole = s->quota[p] / n; whole > 0; whole--, at += n) {
            memcpy(s->order + at, s->pass, (size_t)n * sizeof *s->pass);
        }
        if (rest) {
            shuffle(s, "part", epoch, p, s->pass, n);
            memcpy(s->order + at, s->pass, (size_t)rest * sizeof *s->pass);
            at += rest;
        }
    }
    assert(at == s->totals.epoch_questions);
    shuffle(s, "epoch", epoch, 0, s->order, at);
    s->epoch = epoch;
}

/* The step's questions into s->picked; returns how many. */
static int64_t pick(mx_stream *s, int64_t step)
{
    int64_t first = step % s->totals.steps_per_epoch * s->o.batch_size;
    int64_t left = s->totals.epoch_questions - first, n = left < s->o.batch_size ? left : s->o.batch_size;

    order_epoch(s, step / s->totals.steps_per_epoch);
    for (int64_t i = 0; i < n; i++) {
        s->picked[i] = s->item[s->order[first + i]];
    }
    return n;
}

/* --- micro-batches --- */

static int64_t count_cuts(const mx_stream *s, int64_t n, int64_t max_rows)
{
    int64_t cuts = 0;

    for (int64_t at = 0; at < n; cuts++) {
        at += mx_collate_fit(s->picked + at, n - at, max_rows, &s->o.collate);
    }
    return cuts;
}

/* The smallest ceiling that needs no more micro-batches than micro_batch_tokens does: the most even cut. */
static int64_t even_ceiling(const mx_stream *s, int64_t n)
{
    int64_t low = 1, high = s->o.micro_batch_tokens, cuts = count_cuts(s, n, high);

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (count_cuts(s, n, middle) <= cuts) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return high;
}

/* --- the totals --- */

static void measure_step(mx_stream *s, int64_t step)
{
    mx_stream_totals *t = &s->totals;
    int64_t n = pick(s, step), ceiling = even_ceiling(s, n);

    for (int64_t at = 0; at < n; t->micro_batches++) {
        int64_t fit = mx_collate_fit(s->picked + at, n - at, ceiling, &s->o.collate);
        mx_extent x = { 0 };

        for (int64_t end = at + fit; at < end; at++) {
            x = mx_extent_add(x, mx_extent_of(s->picked[at], s->o.collate.unshared));
        }
        t->questions += x.questions;
        t->rows += x.rows;
        t->loss_rows += x.loss_rows;
        t->largest = mx_extent_max(t->largest, x);
    }
}

static mx_code lay_out(mx_stream *s, const mx_stream_part *part, int64_t parts, mx_arena *arena, mx_status *st)
{
    mx_stream_totals *t = &s->totals;
    int64_t largest = 0;

    s->parts = parts;
    s->first = MX_TAKE(arena, int64_t, parts + 1);
    s->quota = MX_TAKE(arena, int64_t, parts + 1);
    for (int64_t p = 0; p < parts; p++) {
        int64_t n = part[p].questions->count;
        double quota = round(part[p].weight * (double)n);

        if (n == 0) {
            return mx_fail(st, MX_E_DATA, MX_NOWHERE, "task %lld of the mix has no question to train on", (long long)p + 1);
        }
        if (!(quota < 1e9)) {
            return mx_fail(st, MX_E_DATA, MX_NOWHERE, "task %lld of the mix would give %g questions an epoch",
                           (long long)p + 1, quota);
        }
        s->first[p + 1] = s->first[p] + n;
        s->quota[p] = quota < 1 ? 1 : (int64_t)quota;
        t->epoch_questions += s->quota[p];
        largest = n > largest ? n : largest;
    }
    if (t->epoch_questions == 0) {
        return mx_fail(st, MX_E_DATA, MX_NOWHERE, "there is no question to train on");
    }
    s->item = MX_TAKE(arena, const mx_encoded *, s->first[parts]);
    s->order = MX_TAKE(arena, int64_t, t->epoch_questions);
    s->pass = MX_TAKE(arena, int64_t, largest);
    s->picked = MX_TAKE(arena, const mx_encoded *, s->o.batch_size);
    for (int64_t p = 0; p < parts; p++) {
        for (int64_t i = 0; i < part[p].questions->count; i++) {
            s->item[s->first[p] + i] = &part[p].questions->item[i];
        }
    }
    return MX_OK;
}

mx_code mx_stream_open(const mx_stream_part *part, int64_t parts, const mx_stream_options *o, mx_arena *arena,
                       mx_stream **ret, mx_status *st)
{
    mx_stream *s = MX_TAKE(arena, mx_stream, 1);
    mx_stream_totals *t = &s->totals;

    assert(o->epochs > 0 && o->batch_size > 0 && o->micro_batch_tokens > 0 && o->max_steps >= 0);
    *ret = NULL;
    s->o = *o;
    s->epoch = -1;
    MX_TRY(lay_out(s, part, parts, arena, st));
    t->steps_per_epoch = (t->epoch_questions + o->batch_size - 1) / o->batch_size;
    t->steps = t->steps_per_epoch * o->epochs;
    t->steps = o->max_steps && o->max_steps < t->steps ? o->max_steps : t->steps;
    for (int64_t step = 0; step < t->steps; step++) {
        measure_step(s, step);
    }
    *ret = s;
    return MX_OK;
}

const mx_stream_totals *mx_stream_measure(const mx_stream *s)
{
    return &s->totals;
}

void mx_stream_read(mx_stream *s, int64_t step, mx_arena *arena, mx_stream_step *ret)
{
    int64_t n, ceiling;
    mx_batch **batch;

    assert(step >= 0 && step < s->totals.steps);
    n = pick(s, step);
    ceiling = even_ceiling(s, n);
    batch = MX_TAKE(arena, mx_batch *, n);
    *ret = (mx_stream_step){ .batch = (const mx_batch *const *)batch,
                             .epoch = step / s->totals.steps_per_epoch,
                             .ends_epoch = (step + 1) % s->totals.steps_per_epoch == 0,
                             .questions = n };
    for (int64_t at = 0; at < n;) {
        int64_t fit = mx_collate_fit(s->picked + at, n - at, ceiling, &s->o.collate);
        mx_batch *b = mx_collate(s->picked + at, fit, &s->o.collate, arena);

        batch[ret->batches++] = b;
        ret->rows += b->live;
        ret->loss_rows += b->loss_rows;
        at += fit;
    }
    for (int64_t i = 0; i < ret->batches; i++) {
        batch[i]->step_loss_tokens = (double)ret->loss_rows;
        batch[i]->step_questions = (double)n;
        batch[i]->step_rows = (double)ret->rows;
    }
}
