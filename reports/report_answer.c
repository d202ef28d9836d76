/* report_answer.c - the question and the answer, in words that follow the numbers below them. */
#include "reports/report_draft.h"

#include <math.h>
#include <string.h>

/* The row over the tasks shared with the baseline (or of the only one there is) for a side; NULL: none. */
static const mx_compare_row *overall(const mx_compare *c, int32_t side) {
    const mx_compare_row *last = NULL;

    for (int32_t i = 0; i < c->rows; i++) {
        if (c->row[i].side == side && (c->row[i].task == c->tasks || c->row[i].over == c->tasks)) {
            last = &c->row[i];
        }
    }
    return last;
}

static const char *joined(mx_arena *arena, const char *const *word, int words) {
    mx_text t;
    const char *kept;

    mx_text_init(&t, (size_t)1 << 20);
    for (int i = 0; i < words; i++) {
        mx_text_print(&t, "%s%s", i == 0 ? "" : i == words - 1 ? " and " : ", ", word[i]);
    }
    kept = mx_arena_copy(arena, t.data, t.length);
    mx_text_finish(&t);
    return kept;
}

/* "mixlora (+2.1 points [0.3, 3.9], 3 seeds)"; of a side that lacks a task "..., 3 seeds, over 2 of 3 tasks" */
static const char *told(mx_arena *arena, const mx_compare *c, const mx_compare_row *r, bool budgets) {
    const mx_compare_side *side = &c->side[r->side];
    const char *interval = isfinite(r->difference.low) ? mx_arena_text(arena, " [%+.1f, %+.1f]", mx_compare_points(r->difference.low), mx_compare_points(r->difference.high)) : "";
    const char *times = !budgets || side->times <= 0 ? ""
                        : isinf(side->times) ? ", the baseline trains nothing"
                                             : mx_arena_text(arena, ", %.2f times the %s", side->times, side->by_flops ? "FLOPs per token" : "trained values");
    const char *tasks = r->over == c->tasks ? "" : mx_arena_text(arena, ", over %d of %d tasks", r->over, c->tasks);

    return mx_arena_text(arena, "%s (%+.1f points%s, %d seed%s%s%s)", side->name, mx_compare_points(r->difference.value), interval, r->seeds,
                         r->seeds == 1 ? "" : "s", tasks, times);
}

typedef enum budget { EQUAL_VALUES, EQUAL_FLOPS, UNEQUAL } budget;

static budget budget_of(const mx_compare_side *s) {
    return s->unequal ? UNEQUAL : s->by_flops ? EQUAL_FLOPS : EQUAL_VALUES;
}

/* One sentence for the sides of one kind of budget. */
static void answer_for(mx_draft *d, budget which) {
    static const char *const words[] = { "equal in trained values (within 2 %)", "equal in FLOPs per token (within 2 %)", "at an unequal budget" };
    const mx_compare *c = d->compare;
    static const mx_word order[] = { MX_WORD_BETTER, MX_WORD_WORSE, MX_WORD_NOT_RESOLVED };
    mx_text t;
    int said = 0;

    mx_text_init(&t, (size_t)1 << 20);
    for (size_t w = 0; w < sizeof order / sizeof order[0]; w++) {
        const char **name = MX_TAKE(d->arena, const char *, c->sides + 1);
        int names = 0;

        for (int32_t i = 0; i < c->sides; i++) {
            const mx_compare_row *r = i == c->baseline ? NULL : overall(c, i);

            if (r && r->word == order[w] && budget_of(&c->side[i]) == which) {
                name[names++] = told(d->arena, c, r, which == UNEQUAL);
            }
        }
        if (names) {
            mx_text_print(&t, "%s%s: %s", said ? "; " : "", mx_word_text(order[w]), joined(d->arena, name, names));
            said++;
        }
    }
    if (said) {
        mx_page_words(d->page, "lead", "Against %s, %s: %s.", c->side[c->baseline].name, words[which], t.data);
    }
    mx_text_finish(&t);
}

/* Those of which nothing can be said over the tasks; the notes tell why, and the table what single tasks they share. */
static void answer_lacks(mx_draft *d) {
    const mx_compare *c = d->compare;
    const char **name = MX_TAKE(d->arena, const char *, c->sides + 1);
    int names = 0;

    for (int32_t i = 0; i < c->sides; i++) {
        int32_t rows = 0, only = 0;

        for (int32_t k = 0; k < c->rows; k++) {
            if (c->row[k].side == i) {
                only = c->row[k].task;
                rows++;
            }
        }
        if (i == c->baseline || overall(c, i)) {
            continue;
        }
        name[names++] = c->side[i].runs == 0 ? mx_arena_text(d->arena, "%s (no run is finished)", c->side[i].name)
                        : rows == 0          ? mx_arena_text(d->arena, "%s (nothing of it pairs with the baseline)", c->side[i].name)
                                             : mx_arena_text(d->arena, "%s (only %s is shared)", c->side[i].name, c->task[only]);
    }
    if (names) {
        mx_page_words(d->page, "lead", "Not answered for %s.", joined(d->arena, name, names));
    }
}

static void answer_alone(mx_draft *d) {
    const mx_compare *c = d->compare;

    for (int32_t i = 0; i < c->sides; i++) {
        const mx_compare_score *x = mx_compare_score_of(c, i, c->tasks);

        if (x->there) {
            mx_page_words(d->page, "lead", "%s answers %.1f %% of the questions of %s right%s; always giving the commonest answer gets %.1f %%.",
                          c->side[i].name, 100 * x->accuracy.value, joined(d->arena, c->task, c->tasks),
                          isfinite(x->accuracy.low) ? mx_arena_text(d->arena, " (95 %% interval %.1f to %.1f)", 100 * x->accuracy.low, 100 * x->accuracy.high) : "",
                          100 * x->majority);
        }
    }
}

mx_code mx_draft_answer(mx_draft *d, mx_status *st) {
    const mx_compare *c = d->compare;

    (void)st;
    mx_page_section(d->page, "answer", "The question and the answer");
    if (!c && d->refused) {
        mx_page_words(d->page, "lead", "Nothing is compared, for these runs cannot be put side by side: %s.", d->refused);
        return MX_OK;
    }
    if (!c) {
        mx_page_words(d->page, "lead", "No finished run of these has a score, so there is nothing to compare yet; below is what there is.");
        return MX_OK;
    }
    if (c->baseline < 0 || c->rows == 0) {
        if (d->refused) {
            mx_page_words(d->page, "lead", "Nothing is compared with a baseline: %s. The accuracies stand by themselves below.", d->refused);
        } else if (c->baseline < 0 && c->sides > 1) {
            mx_page_words(d->page, "lead", "No baseline was named (--baseline), so nothing is compared; the accuracies stand below.");
        } else if (c->baseline >= 0 && c->sides > 1) {
            mx_page_words(d->page, "lead", "Nothing could be compared with %s; why stands below.", c->side[c->baseline].name);
        }
        answer_alone(d);
    } else {
        mx_page_words(d->page, "", "Does a variant answer more questions of %s right than %s (%s, %s, split %s, %s)?", joined(d->arena, c->task, c->tasks),
                      c->side[c->baseline].name, c->metric, c->protocol, c->split, c->best_epoch ? "best epoch: optimistic" : "last evaluation");
        for (budget b = EQUAL_VALUES; b <= UNEQUAL; b++) {
            answer_for(d, b);
        }
        answer_lacks(d);
    }
    mx_page_list(d->page, c->note, c->notes);
    return MX_OK;
}
