/* compare.c - see compare.h: the estimates, and what must be said about them. */
#include "reports/compare_parts.h"

#include <math.h>
#include <string.h>

static const double alpha = 0.05;

/* tests/perf/coverage.c, 4,000 simulated comparisons a cell; 100 to 1,000 questions, seed deviations up to 4 points. */
const char mx_compare_two_seeds[] =
    "Two seeds: in simulations such 95 % intervals held the true difference in 89 to 98 % of comparisons (least where seeds differ most).";
static const char one_seed[] =
    "One seed says nothing about seeds: where it is one, intervals and p are over questions only.";
const char mx_compare_few_seeds[] =
    "Fewer than five seeds say little about how much seeds differ: take intervals and words as provisional.";

const char *mx_word_text(mx_word w) {
    return w == MX_WORD_BETTER ? "better" : w == MX_WORD_WORSE ? "worse" : "not resolved";
}

const char *mx_compare_task_name(const mx_compare *c, int32_t task, mx_arena *arena) {
    return task < c->tasks ? c->task[task] : c->tasks == 1 ? c->task[0] : mx_arena_text(arena, "mean of %d tasks", c->tasks);
}

const char *mx_compare_row_name(const mx_compare *c, const mx_compare_row *row, mx_arena *arena) {
    return row->task < c->tasks || row->over == c->tasks ? mx_compare_task_name(c, row->task, arena) :
                                                           mx_arena_text(arena, "mean of %d of %d tasks", row->over, c->tasks);
}

int mx_compare_seed_words(const mx_compare *c, const char *ret[MX_COMPARE_SEED_WORDS]) {
    bool one = false, two = false, few = false;
    int n = 0;

    for (int32_t i = 0; i < c->rows; i++) {
        one |= c->row[i].seeds == 1;
        two |= c->row[i].two_seeds;
        few |= c->row[i].few_seeds && c->row[i].seeds > 1;
    }
    if (one) {
        ret[n++] = one_seed;
    }
    if (few) {
        ret[n++] = mx_compare_few_seeds;
    }
    if (two) {
        ret[n++] = mx_compare_two_seeds;
    }
    return n;
}

/* ----------------------------------------------------------------- scores */

static bool kept_answers(const mx_comparing *k, int32_t side, int32_t task) {
    bool all = true;

    for (int32_t r = 0; r < k->c->side[side].runs; r++) {
        all &= k->work[side][r].of_task[task]->number != NULL;
    }
    return all;
}

static mx_cells cells_of_side(mx_comparing *k, int32_t side, int32_t task) {
    int32_t runs = k->c->side[side].runs;
    int64_t n = k->work[side][0].of_task[task]->n;
    int8_t *cells = MX_TAKE(k->arena, int8_t, n * runs);

    for (int32_t r = 0; r < runs; r++) {
        memcpy(cells + r * n, k->work[side][r].of_task[task]->correct, (size_t)n);
    }
    return (mx_cells){ cells, n, runs };
}

/* Without the answers to single questions there is still the mean, and of one run of one task Wilson's interval. */
static mx_estimate without_answers(double mean, int64_t n, bool one) {
    mx_estimate e = { .value = mean, .variance = NAN, .freedom = NAN, .low = NAN, .high = NAN, .p = NAN, .mid_p = NAN, .detectable = NAN,
                      .estimator = "mean; no answers to single questions were kept" };

    if (one && n > 0) {
        mx_wilson(llround(mean * (double)n), n, &e.low, &e.high);
        e.estimator = "score interval of Wilson 1927";
    }
    return e;
}

static void score(mx_comparing *k, int32_t i, int32_t task) {
    mx_compare *c = k->c;
    mx_compare_side *side = &c->side[i];
    mx_compare_score *x = &c->score[i * (c->tasks + 1) + task];
    int32_t from = task < c->tasks ? task : 0, to = task < c->tasks ? task + 1 : c->tasks, K = to - from;
    mx_cells *cells = MX_TAKE(k->arena, mx_cells, K + 1);
    double *values = MX_TAKE(k->arena, double, side->runs + 1), mean = 0;
    bool kept = true;

    x->accuracy = without_answers(NAN, 0, false);
    x->there = K > 0 && side->runs > 0;
    for (int32_t t = from; t < to; t++) {
        x->there &= mx_compare_has(k, i, t);
    }
    if (!x->there) {
        return;
    }
    for (int32_t t = from; t < to; t++) {
        kept &= kept_answers(k, i, t);
        x->n += k->work[i][0].of_task[t]->n;
        x->majority += k->work[i][0].of_task[t]->majority / K;
        for (int32_t r = 0; r < side->runs; r++) {
            values[r] += k->work[i][r].of_task[t]->value / K;
            mean += k->work[i][r].of_task[t]->value / K / side->runs;
            x->limited |= k->work[i][r].of_task[t]->limited || side->run[r].limited;
        }
        if (kept) {
            cells[t - from] = cells_of_side(k, i, t);
        }
    }
    x->seed_value = values;
    x->accuracy = kept ? mx_estimate_accuracy(cells, K) : without_answers(mean, x->n, K == 1 && side->runs == 1);
    x->sql = mx_compare_sql_answers(k, i, task);
    x->sql_scores = mx_compare_sql_scores(k, i, task);
}

/* ------------------------------------------------------------------ pairs */

/* Runs of both sides that go together: by seed. A single run that trains nothing (the base itself) is every seed's partner, and by
 * hand one run against one are a pair whatever their seeds. */
typedef struct pairing {
    int32_t *variant, *baseline; /* into side->run */
    int32_t pairs;
} pairing;

static bool untrained(const mx_comparing *k, int32_t side) {
    return k->c->side[side].runs == 1 && k->work[side][0].trained == 0;
}

static pairing pair_up(mx_comparing *k, int32_t i) {
    const mx_compare *c = k->c;
    const mx_compare_side *side = &c->side[i], *base = &c->side[c->baseline];
    int32_t room = side->runs > base->runs ? side->runs : base->runs;
    pairing p = { MX_TAKE(k->arena, int32_t, room + 1), MX_TAKE(k->arena, int32_t, room + 1), 0 };
    bool any = untrained(k, i) || untrained(k, c->baseline) || (!k->wish->sweep && side->runs == 1 && base->runs == 1);

    for (int32_t v = 0; v < side->runs; v++) {
        for (int32_t b = 0; b < base->runs; b++) {
            if (any || side->run[v].seed == base->run[b].seed) {
                p.variant[p.pairs] = v;
                p.baseline[p.pairs++] = b;
            }
        }
    }
    return p;
}

static const char *lonely_seeds(mx_comparing *k, const mx_compare_side *side, const int32_t *paired, int32_t pairs) {
    const char *text = "";

    for (int32_t r = 0; r < side->runs; r++) {
        bool found = false;

        for (int32_t i = 0; i < pairs; i++) {
            found |= paired[i] == r;
        }
        if (!found) {
            text = mx_arena_text(k->arena, "%s%s%lld (run %lld)", text, *text ? ", " : "", (long long)side->run[r].seed,
                                 (long long)side->run[r].run_id);
        }
    }
    return text;
}

static void note_seeds(mx_comparing *k, int32_t i, const pairing *p) {
    const mx_compare *c = k->c;
    const mx_compare_side *side = &c->side[i], *base = &c->side[c->baseline];
    const char *here = lonely_seeds(k, side, p->variant, p->pairs), *there = lonely_seeds(k, base, p->baseline, p->pairs);

    if (*here || *there) {
        mx_comparing_note(k, "Seeds without a partner are left out of %s against %s:%s%s%s%s%s%s%s.", side->name, base->name, *here ? " " : "", here,
                          *here ? " of " : "", *here ? side->name : "", *here && *there ? ";" : "", *there ? " " : "",
                          *there ? mx_arena_text(k->arena, "%s of %s", there, base->name) : "");
    }
    if (p->pairs == 1 && side->run[p->variant[0]].seed != base->run[p->baseline[0]].seed && !untrained(k, i) && !untrained(k, c->baseline)) {
        mx_comparing_note(k, "Runs %lld and %lld have different seeds (%lld and %lld): the difference between them is the seeds' too.",
                          (long long)side->run[p->variant[0]].run_id, (long long)base->run[p->baseline[0]].run_id,
                          (long long)side->run[p->variant[0]].seed, (long long)base->run[p->baseline[0]].seed);
    }
}

static mx_code no_answers(mx_comparing *k, int32_t i, int32_t task, mx_status *st) {
    for (int32_t r = 0; r < k->c->side[i].runs; r++) {
        if (!k->work[i][r].of_task[task]->number) {
            mx_fail(st, MX_E_DATA, MX_NOWHERE, "run %lld kept no answers to single questions of %s: nothing can be paired",
                    (long long)k->c->side[i].run[r].run_id, k->c->task[task]);
            mx_hint(st, "eval.save_predictions: true keeps them; mixrun eval RECIPE --adapter DIR scores a saved adapter again");
            return MX_E_DATA;
        }
    }
    return MX_OK;
}

/* One row: task `task`, or over the `over` tasks of `list`. */
static mx_code add_row(mx_comparing *k, int32_t i, const pairing *p, int32_t task, const int32_t *list, int32_t over, mx_status *st) {
    mx_compare *c = k->c;
    const mx_compare_side *side = &c->side[i], *base = &c->side[c->baseline];
    mx_compare_row *row = &c->row[c->rows];
    mx_cells *cells = MX_TAKE(k->arena, mx_cells, over);
    int64_t *seed = MX_TAKE(k->arena, int64_t, p->pairs), *run = MX_TAKE(k->arena, int64_t, p->pairs),
            *other = MX_TAKE(k->arena, int64_t, p->pairs);
    double *off = MX_TAKE(k->arena, double, p->pairs);

    *row = (mx_compare_row){ .side = i, .task = task, .over = over, .seeds = p->pairs, .seed = seed, .run_id = run, .baseline_run_id = other,
                             .seed_difference = off, .few_seeds = p->pairs < 5, .two_seeds = p->pairs == 2 };
    for (int32_t j = 0; j < over; j++) {
        int32_t t = list[j];
        int64_t n = k->work[i][0].of_task[t]->n;
        int8_t *d;

        MX_TRY(no_answers(k, i, t, st));
        MX_TRY(no_answers(k, c->baseline, t, st));
        d = MX_TAKE(k->arena, int8_t, n * p->pairs);
        for (int32_t s = 0; s < p->pairs; s++) {
            const mx_compare_exam *a = k->work[i][p->variant[s]].of_task[t], *b = k->work[c->baseline][p->baseline[s]].of_task[t];
            int64_t sum = 0;

            for (int64_t q = 0; q < n; q++) {
                d[s * n + q] = (int8_t)(a->correct[q] - b->correct[q]);
                sum += d[s * n + q];
            }
            off[s] += (double)sum / (double)n / over;
            row->limited |= a->limited || b->limited || side->run[p->variant[s]].limited || base->run[p->baseline[s]].limited;
        }
        cells[j] = (mx_cells){ d, n, p->pairs };
        row->n += n;
        row->majority += k->work[i][0].of_task[t]->majority / over;
    }
    for (int32_t s = 0; s < p->pairs; s++) {
        run[s] = side->run[p->variant[s]].run_id;
        other[s] = base->run[p->baseline[s]].run_id;
        seed[s] = untrained(k, i) ? base->run[p->baseline[s]].seed : side->run[p->variant[s]].seed;
    }
    row->difference = mx_estimate_difference(cells, over);
    row->sql = mx_compare_sql_pairs(k, row, p->variant, p->baseline);
    c->rows++;
    return MX_OK;
}

static mx_code rows_of_side(mx_comparing *k, int32_t i, int32_t task, const pairing *p, mx_status *st) {
    mx_compare *c = k->c;
    int32_t *shared = MX_TAKE(k->arena, int32_t, c->tasks + 1), n = 0;

    if (i == c->baseline || p->pairs == 0) {
        return MX_OK;
    }
    for (int32_t t = 0; t < c->tasks; t++) {
        if ((task == t || task == c->tasks) && mx_compare_has(k, i, t) && mx_compare_has(k, c->baseline, t)) {
            shared[n++] = t;
        }
    }
    return n == 0 || (task == c->tasks && n == 1) ? MX_OK : add_row(k, i, p, task, shared, n, st);
}

/* True when the side kept its answers; else, where that is no error, says that it is left out. */
static bool can_be_paired(mx_comparing *k, int32_t i) {
    mx_status why = { 0 };

    for (int32_t t = 0; t < k->c->tasks; t++) {
        if (mx_compare_has(k, i, t) && no_answers(k, i, t, &why)) {
            mx_comparing_note(k, "Left out of the differences: %s; %s.", k->c->side[i].name, why.text);
            return false;
        }
    }
    return true;
}

static mx_code all_rows(mx_comparing *k, mx_status *st) {
    mx_compare *c = k->c;
    pairing *p = MX_TAKE(k->arena, pairing, c->sides + 1);
    double *raw, *held;
    bool some = !k->wish->alone || can_be_paired(k, c->baseline);

    c->row = MX_TAKE(k->arena, mx_compare_row, c->sides * (c->tasks + 1) + 1);
    for (int32_t i = 0; i < c->sides; i++) {
        if (some && i != c->baseline && c->side[i].runs > 0 && c->side[c->baseline].runs > 0 && (!k->wish->alone || can_be_paired(k, i))) {
            p[i] = pair_up(k, i);
            note_seeds(k, i, &p[i]);
        }
    }
    for (int32_t t = 0; t <= c->tasks; t++) {
        for (int32_t i = 0; i < c->sides; i++) {
            MX_TRY(rows_of_side(k, i, t, &p[i], st));
        }
    }
    raw = MX_TAKE(k->arena, double, c->rows + 1);
    held = MX_TAKE(k->arena, double, c->rows + 1);
    for (int32_t i = 0; i < c->rows; i++) {
        raw[i] = c->row[i].difference.p;
    }
    mx_holm(raw, held, c->rows);
    for (int32_t i = 0; i < c->rows; i++) {
        mx_compare_row *row = &c->row[i];

        row->p_holm = held[i];
        row->word = held[i] > alpha || row->difference.value == 0 ? MX_WORD_NOT_RESOLVED :
                    row->difference.value > 0                     ? MX_WORD_BETTER :
                                                                    MX_WORD_WORSE;
    }
    if (c->rows == 0 && !k->wish->alone) {
        mx_fail(st, MX_E_DATA, MX_NOWHERE, "nothing is left to compare: %s", c->notes ? k->note[c->notes - 1] : "only the baseline is named");
        mx_hint(st, "mixrun ls tells which runs are finished");
        return MX_E_DATA;
    }
    return MX_OK;
}

/* ------------------------------------------------------------------ notes */

static void note_budgets(mx_comparing *k) {
    const mx_compare *c = k->c;
    const char *text = "";

    for (int32_t i = 0; i < c->sides; i++) {
        if (c->side[i].unequal && c->side[i].runs > 0) {
            text = mx_arena_text(k->arena, "%s%s%s (%s)", text, *text ? ", " : "", c->side[i].name,
                                 isinf(c->side[i].times) ? "the baseline trains none" :
                                 mx_arena_text(k->arena, "%.2f times%s", c->side[i].times, c->side[i].by_flops ? " the FLOPs" : ""));
        }
    }
    if (*text) {
        mx_comparing_note(k, "Unequal budgets: trained values (FLOPs per token, where these were matched) differ from the baseline's by more than 2 %% in %s.", text);
    }
}

static void note_limited(mx_comparing *k) {
    const mx_compare *c = k->c;
    bool limited = false;

    for (int32_t i = 0; i < c->sides * (c->tasks + 1); i++) {
        limited |= c->score[i].limited;
    }
    if (limited) {
        mx_comparing_note(k, "(limited): eval.limit or max_steps cut it short; for trying things, not a result.");
    }
}

static void note_seed_words(mx_comparing *k) {
    const char *words[MX_COMPARE_SEED_WORDS];
    int n = mx_compare_seed_words(k->c, words);

    for (int i = 0; i < n; i++) {
        mx_comparing_note(k, "%s", words[i]);
    }
}

/* Differences of the rows on task `t` that one test could find, in points: "arc_easy 2.1 points", "3.9 to 4.4 points"; "": none. */
static const char *detectable_on(mx_comparing *k, int32_t t, int32_t *ret_hopeless) {
    const mx_compare *c = k->c;
    double low = INFINITY, high = 0;
    const char *name = "";

    *ret_hopeless = 0;
    for (int32_t i = 0; i < c->rows; i++) {
        double d = c->row[i].difference.detectable;

        if (c->row[i].task != t || isnan(d)) {
            continue;
        }
        if (d > 1) { /* Satterthwaite's degrees of freedom near 0: more than there can be */
            ++*ret_hopeless;
            continue;
        }
        name = *name && strcmp(name, mx_compare_row_name(c, &c->row[i], k->arena)) != 0 ? "mean over shared tasks" :
                                                                                        mx_compare_row_name(c, &c->row[i], k->arena);
        low = fmin(low, 100 * d);
        high = fmax(high, 100 * d);
    }
    return high == 0 ? "" :
                       mx_arena_text(k->arena, "%s%.1f points on %s%s", high - low < 0.05 ? "" : mx_arena_text(k->arena, "%.1f to ", low), high,
                                     t < c->tasks ? "" : "the ", name);
}

static void note_detectable(mx_comparing *k) {
    const mx_compare *c = k->c;
    const char *text = "", *none = "";

    for (int32_t t = 0; t <= c->tasks; t++) {
        int32_t hopeless;
        const char *found = detectable_on(k, t, &hopeless);

        text = *found ? mx_arena_text(k->arena, "%s%s%s", text, *text ? ", " : "", found) : text;
        if (hopeless) {
            none = mx_arena_text(k->arena, "%s%s%s%s (%d row%s)", none, *none ? ", " : "", t < c->tasks ? "" : "the ",
                                 mx_compare_task_name(c, t, k->arena), hopeless, hopeless == 1 ? "" : "s");
        }
    }
    if (*text) {
        mx_comparing_note(k, "With these questions and seeds true differences smaller than these would be missed more than one time in five by a"
                          " single unadjusted test: %s%s.", text,
                          c->rows > 1 ? mx_arena_text(k->arena, "; Holm over %d rows finds only larger ones", c->rows) : "");
    }
    if (*none) {
        mx_comparing_note(k, "So few seeds that differ so much tell no difference at all on: %s.", none);
    }
}

/* What bears on every number comes before what was left out. */
static void note_all(mx_comparing *k) {
    int32_t first = k->wish->best_epoch ? 1 : 0, said = k->c->notes;
    const char **kept;

    note_limited(k);
    if (k->c->rows > 0) {
        note_budgets(k);
        note_seed_words(k);
        mx_comparing_note(k, "Intervals are 95 %% and unadjusted for their number; words follow Holm's p over all rows (%d), at 0.05.", k->c->rows);
        note_detectable(k);
    }
    kept = MX_TAKE(k->arena, const char *, said - first + 1);
    memcpy(kept, k->note + first, (size_t)(said - first) * sizeof *kept);
    memmove(k->note + first, k->note + said, (size_t)(k->c->notes - said) * sizeof *kept);
    memcpy(k->note + first + (k->c->notes - said), kept, (size_t)(said - first) * sizeof *kept);
}

mx_code mx_compare_read(mx_store *s, const mx_compare_wish *wish, mx_arena *arena, mx_compare **ret, mx_status *st) {
    mx_comparing *k = MX_TAKE(arena, mx_comparing, 1);
    mx_compare *c = MX_TAKE(arena, mx_compare, 1);

    *k = (mx_comparing){ .store = s, .wish = wish, .arena = arena, .c = c };
    c->best_epoch = wish->best_epoch;
    if (wish->best_epoch) {
        mx_comparing_note(k, "BEST EPOCH: scores are of the epoch that was best on these very questions, not of the last: too high for every side.");
    }
    MX_TRY(mx_compare_sides(k, st));
    MX_TRY(mx_compare_exams(k, st));
    c->score = MX_TAKE(arena, mx_compare_score, c->sides * (c->tasks + 1) + 1);
    for (int32_t i = 0; i < c->sides; i++) {
        for (int32_t t = 0; t <= c->tasks; t++) {
            score(k, i, t);
        }
    }
    if (c->baseline >= 0) {
        MX_TRY(all_rows(k, st));
    }
    note_all(k);
    c->note = k->note;
    *ret = c;
    return MX_OK;
}
