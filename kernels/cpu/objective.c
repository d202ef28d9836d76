/* objective.c - what is minimised, as a weight for each loss row. A few thousand numbers: one thread, f64. */
#include "kernels/cpu/cpu.h"

static void language_model(const mx_objective *o) {
    double sum = 0;

    for (int64_t n = 0; n < o->rows; n++) {
        sum += (double)o->nll[n];
        o->scale[n] = (float)(1.0 / o->step_tokens);
    }
    o->numbers->nll += sum;
    o->numbers->loss += sum / o->step_tokens;
}

static double mean_log_likelihood(const mx_objective *o, const mx_span *s) {
    double sum = 0;

    assert(s->count > 0 && s->begin >= 0 && s->begin + (int64_t)s->count <= o->rows);
    for (int64_t n = s->begin; n < s->begin + s->count; n++) {
        sum += (double)o->nll[n];
    }
    o->numbers->nll += sum;
    return -sum / s->count;
}

/* l_c = -mean nll, p = softmax(l), loss = -ln p_gold: d loss / d l_c = p_c - [c is gold], d l_c / d nll = -1 / count. */
static void question(const mx_objective *o, int64_t q) {
    const mx_span *begin = o->span + o->first_span[q], *end = o->span + o->first_span[q + 1];
    double top = -INFINITY, sum = 0, gold = NAN;

    for (const mx_span *s = begin; s < end; s++) {
        double l = mean_log_likelihood(o, s);

        gold = s->choice == o->gold[q] ? l : gold;
        if (!(l <= top)) { /* a NaN, too: then everything becomes one */
            sum = sum * exp(top - l) + 1;
            top = l;
        } else {
            sum += exp(l - top);
        }
    }
    assert(begin < end && o->step_questions > 0);
    o->numbers->loss += (log(sum) + top - gold) / o->step_questions;
    for (const mx_span *s = begin; s < end; s++) {
        double l = 0;

        for (int64_t n = s->begin; n < s->begin + s->count; n++) {
            l -= (double)o->nll[n] / s->count;
        }

        double p = exp(l - top) / sum, right = s->choice == o->gold[q] ? 1 : 0;

        for (int64_t n = s->begin; n < s->begin + s->count; n++) {
            o->scale[n] = (float)((right - p) / (s->count * o->step_questions));
        }
    }
}

void mx_cpu_objective(mx_backend *q, const mx_objective *o) {
    (void)q;
    if (!o->choice) {
        language_model(o);
        return;
    }
    memset(o->scale, 0, sizeof *o->scale * (size_t)o->rows); /* rows of no span */
    for (int64_t i = 0; i < o->questions; i++) {
        question(o, i);
    }
}
