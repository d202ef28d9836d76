/* compare_sides.c - who is compared: a sweep's variants, or runs named by hand, each with its finished runs and its budget. */
#include "reports/compare_parts.h"

#include "reports/sql.h"
#include "reports/sweeps.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const double same_budget = 0.02; /* budgets further apart than this are marked */

void mx_comparing_note(mx_comparing *k, const char *fmt, ...) {
    va_list ap;
    char *text = NULL;
    int length;

    va_start(ap, fmt);
    length = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (length >= 0 && k->c->notes < MX_COMPARE_NOTES_MAX) {
        k->note[k->c->notes++] = mx_arena_copy(k->arena, text, (size_t)length);
    }
    free(text);
}

char *mx_compare_trim(char *word) {
    size_t length;

    word += strspn(word, " \t");
    for (length = strlen(word); length > 0 && strchr(" \t", word[length - 1]); length--) {
        word[length - 1] = '\0';
    }
    return word;
}

const char *mx_compare_run_list(mx_arena *arena, const mx_compare_run *run, int32_t n) {
    const char *text = mx_arena_text(arena, n == 1 ? "run %lld" : "runs %lld", (long long)run[0].run_id);

    for (int32_t i = 1; i < n; i++) {
        text = mx_arena_text(arena, "%s%s%lld", text, i == n - 1 ? " and " : ", ", (long long)run[i].run_id);
    }
    return text;
}

/* ---------------------------------------------------------------- budgets */

static mx_code read_budgets(mx_comparing *k, mx_compare_side *side, mx_status *st) {
    double speeds = 0;
    int32_t n = 0, telling = 0;
    sqlite3_stmt *q;
    mx_code code;

    if (side->runs == 0) {
        return MX_OK;
    }
    side->sql = mx_compare_sql_budgets(k->arena, side->run, side->runs);
    MX_TRY(mx_sql_prepare(k->store, &q, st, side->sql, ""));
    while (mx_sql_row(k->store, q, &code, st) && n < side->runs) { /* by seed, as the runs are */
        mx_compare_run *r = &side->run[n++];

        side->trained = sqlite3_column_int64(q, 2);
        side->trained_router = sqlite3_column_int64(q, 3);
        if (sqlite3_column_int64(q, 4) > 0) {
            side->flops = sqlite3_column_int64(q, 4);
        }
        r->tokens_per_second = sqlite3_column_double(q, 5);
        r->memory_bytes = sqlite3_column_double(q, 6);
        speeds += r->tokens_per_second;
        telling += r->tokens_per_second > 0;
        side->memory_bytes = fmax(side->memory_bytes, r->memory_bytes);
    }
    side->tokens_per_second = telling ? speeds / telling : 0;
    sqlite3_finalize(q);
    return code;
}

/* "flops: mixlora, -0.2 %": of the side, or of the baseline that was matched with it. */
static bool matched_by_flops(const mx_compare_side *s, const mx_compare_side *base) {
    static const char word[] = "flops: ";
    size_t skip = sizeof word - 1, name = strlen(s->name);
    const char *of_base = base->matched;

    return s != base && s->flops > 0 && base->flops > 0 &&
           (strncmp(s->matched, word, skip) == 0 ||
            (strncmp(of_base, word, skip) == 0 && strncmp(of_base + skip, s->name, name) == 0 && of_base[skip + name] == ','));
}

static void hold_against_baseline(mx_compare *c) {
    if (c->baseline < 0) {
        return;
    }
    for (int32_t i = 0; i < c->sides; i++) {
        mx_compare_side *s = &c->side[i];
        double own, base;

        s->by_flops = matched_by_flops(s, &c->side[c->baseline]);
        own = (double)(s->by_flops ? s->flops : s->trained);
        base = (double)(s->by_flops ? c->side[c->baseline].flops : c->side[c->baseline].trained);
        s->times = base > 0 ? own / base : own > 0 ? INFINITY : 1;
        s->unequal = fabs(s->times - 1) > same_budget;
    }
}

/* ------------------------------------------------------------------ sweep */

static mx_code no_such_variant(mx_comparing *k, const char *name, mx_status *st) {
    const mx_compare *c = k->c;
    const char **names = MX_TAKE(k->arena, const char *, c->sides + 1), *near, *all = "";

    for (int32_t i = 0; i < c->sides; i++) {
        names[i] = c->side[i].name;
        all = mx_arena_text(k->arena, "%s%s%s", all, i ? ", " : "", names[i]);
    }
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "sweep %s has no variant '%s'", c->sweep, name);
    near = mx_text_nearest(name, names, (size_t)c->sides);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    } else {
        mx_hint(st, "it has: %s", all);
    }
    return MX_E_USAGE;
}

static int32_t find_side(const mx_compare *c, const char *name) {
    for (int32_t i = 0; i < c->sides; i++) {
        if (strcmp(c->side[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* "lora matched is left out: seed 2 (run 19 failed: loss is not finite), seed 3 (not run yet)" */
static void note_left_out(mx_comparing *k, const mx_compare_side *side, const mx_member_row *member, int64_t members) {
    const char *text = "";

    for (int64_t i = 0; i < members; i++) {
        const mx_member_row *m = &member[i];

        if (strcmp(m->variant, side->name) != 0 || strcmp(m->state, "finished") == 0) {
            continue;
        }
        text = m->run_id == 0 ? mx_arena_text(k->arena, "%s%sseed %lld (not run yet)", text, *text ? ", " : "", (long long)m->seed) :
                                mx_arena_text(k->arena, "%s%sseed %lld (run %lld is %s%s%s)", text, *text ? ", " : "", (long long)m->seed,
                                              (long long)m->run_id, m->state, *m->reason ? ": " : "", m->reason);
    }
    if (*text) {
        mx_comparing_note(k, "Left out of %s: %s.", *side->name ? side->name : k->c->sweep, text);
    }
}

static int by_seed(const void *a, const void *b) {
    const mx_compare_run *x = a, *y = b;

    return x->seed != y->seed ? (x->seed > y->seed) - (x->seed < y->seed) : (x->run_id > y->run_id) - (x->run_id < y->run_id);
}

/* All variants in the sweep's order, the finished runs of each. */
static void gather(mx_comparing *k, const mx_member_row *member, int64_t members) {
    mx_compare *c = k->c;

    c->side = MX_TAKE(k->arena, mx_compare_side, members + 1);
    for (int64_t i = 0; i < members; i++) {
        const mx_member_row *m = &member[i];
        int32_t at = find_side(c, m->variant);
        mx_compare_side *side = &c->side[at < 0 ? c->sides : at];

        if (at < 0) {
            *side = (mx_compare_side){ .name = m->variant, .method = m->method, .matched = m->matched, .trained = m->trained,
                                       .trained_router = m->trained_router, .flops = m->flops,
                                       .run = MX_TAKE(k->arena, mx_compare_run, members) };
            side->sql = mx_arena_text(k->arena, "SELECT run_id, seed, trained, trained_router, flops, NULL AS tokens_per_second,"
                                      " NULL AS memory_bytes FROM sweep_runs WHERE sweep = %s AND variant = %s",
                                      mx_sql_quote(k->arena, c->sweep), mx_sql_quote(k->arena, m->variant));
            c->sides++;
        }
        if (strcmp(m->state, "finished") == 0) {
            side->run[side->runs++] = (mx_compare_run){ .run_id = m->run_id, .seed = m->seed };
        }
    }
    for (int32_t i = 0; i < c->sides; i++) {
        qsort(c->side[i].run, (size_t)c->side[i].runs, sizeof *c->side[i].run, by_seed);
    }
}

/* "lora, arc_easy, dora": names parted by commas, where a name may hold commas: the longest that is one. */
static mx_code ask_for(mx_comparing *k, const char *text, bool *asked, mx_status *st) {
    char *rest = mx_compare_trim(mx_arena_copy(k->arena, text, strlen(text)));

    while (*rest) {
        size_t length = strlen(rest), end = length;
        int32_t at = -1;
        char *word = rest;

        for (; at < 0 && end > 0; end--) {
            if (end == length || rest[end] == ',') {
                word = mx_compare_trim(mx_arena_copy(k->arena, rest, end));
                at = find_side(k->c, word);
                if (at >= 0) {
                    break;
                }
            }
        }
        if (at >= 0) {
            asked[at] = true;
        } else if (*word == '\0' || *rest == ',') { /* nothing between two commas */
            end = strcspn(rest, ",");
        } else {
            const char **names = MX_TAKE(k->arena, const char *, k->c->sides + 1);

            for (int32_t i = 0; i < k->c->sides; i++) {
                names[i] = k->c->side[i].name;
            }
            word = mx_compare_trim(mx_arena_copy(k->arena, rest, strcspn(rest, ",")));
            return no_such_variant(k, mx_text_nearest(rest, names, (size_t)k->c->sides) ? rest : word, st);
        }
        rest = mx_compare_trim(rest + end + (rest[end] == ','));
    }
    return MX_OK;
}

static mx_code choose_variants(mx_comparing *k, const char *baseline, mx_status *st) {
    const mx_compare_wish *wish = k->wish;
    mx_compare *c = k->c;
    bool *asked = MX_TAKE(k->arena, bool, c->sides + 1);
    int32_t kept = 0;

    c->baseline = -1;
    if (baseline && find_side(c, baseline) < 0) {
        return no_such_variant(k, baseline, st);
    }
    for (int32_t i = 0; i < wish->variants; i++) {
        MX_TRY(ask_for(k, wish->variant[i], asked, st));
    }
    for (int32_t i = 0; i < c->sides; i++) {
        bool is_baseline = baseline && strcmp(c->side[i].name, baseline) == 0;

        if (wish->variants == 0 || asked[i] || is_baseline) {
            c->baseline = is_baseline ? kept : c->baseline;
            c->side[kept++] = c->side[i];
        }
    }
    c->sides = kept;
    return MX_OK;
}

static mx_code of_sweep(mx_comparing *k, mx_status *st) {
    mx_compare *c = k->c;
    mx_member_row *member;
    mx_sweep_row sweep;
    int64_t members;
    const char *baseline;

    MX_TRY(mx_store_sweep_find(k->store, k->wish->sweep, k->arena, &sweep, &member, &members, st));
    c->sweep = sweep.name;
    c->protocol = sweep.protocol;
    c->metric = sweep.metric;
    gather(k, member, members);
    baseline = k->wish->apart ? NULL : k->wish->baseline ? k->wish->baseline : *sweep.baseline ? sweep.baseline : NULL;
    MX_TRY(choose_variants(k, baseline, st));
    for (int32_t i = 0; i < c->sides; i++) {
        note_left_out(k, &c->side[i], member, members);
    }
    if (c->baseline < 0 && !k->wish->alone) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "sweep %s names no baseline to compare with", c->sweep);
        mx_hint(st, "name one of its variants: --baseline \"%s\"", c->sides ? c->side[0].name : "V");
        return MX_E_USAGE;
    }
    if (c->baseline >= 0 && c->side[c->baseline].runs == 0 && !k->wish->alone) {
        mx_fail(st, MX_E_DATA, MX_NOWHERE, "no run of the baseline '%s' of sweep %s is finished", c->side[c->baseline].name, c->sweep);
        mx_hint(st, "start the sweep again, or compare with another variant: --baseline V");
        return MX_E_DATA;
    }
    c->sql_runs = mx_arena_text(k->arena, "SELECT variant, seed, run_id, state, reason FROM sweep_runs WHERE sweep = %s ORDER BY position",
                                mx_sql_quote(k->arena, c->sweep));
    return MX_OK;
}

/* ---------------------------------------------------------------- by hand */

/* `last_out`: what was said of the last run that was left out. */
static mx_code add_run(mx_comparing *k, mx_compare_side *side, const char *what, int32_t room, const char **last_out, mx_status *st) {
    mx_run_row row;

    MX_TRY(mx_store_run_find(k->store, what, k->arena, &row, st));
    if (strcmp(row.state, "finished") != 0) {
        *last_out = mx_arena_text(k->arena, "run %lld (%s, seed %lld) is %s%s%s", (long long)row.run_id, row.name, (long long)row.seed,
                                  mx_run_is_dead(&row) ? "dead" : row.state, *row.reason ? ": " : "", row.reason);
        mx_comparing_note(k, "Left out: %s.", *last_out);
        return MX_OK;
    }
    for (int32_t i = 0; i < side->runs; i++) {
        if (side->run[i].run_id == row.run_id) {
            return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "run %lld is named twice on one side", (long long)row.run_id);
        }
        if (side->run[i].seed == row.seed) {
            mx_fail(st, MX_E_USAGE, MX_NOWHERE, "runs %lld and %lld are on one side, and both have seed %lld", (long long)side->run[i].run_id,
                    (long long)row.run_id, (long long)row.seed);
            mx_hint(st, "the runs of a side are one recipe under several seeds");
            return MX_E_USAGE;
        }
    }
    side->method = row.method;
    if (side->runs < room) {
        side->run[side->runs++] = (mx_compare_run){ .run_id = row.run_id, .seed = row.seed, .name = row.name };
    }
    return MX_OK;
}

/* Words parted by commas; a run's name may hold one, so the whole is tried first. */
static mx_code one_side(mx_comparing *k, mx_compare_side *side, const char *text, mx_status *st) {
    int32_t room = 1;
    char *words = mx_arena_copy(k->arena, text, strlen(text)), *save = NULL;
    const char *last_out = "none is named";
    mx_run_row whole;
    mx_status ignored = { 0 };

    for (const char *x = text; *x; x++) {
        room += *x == ',';
    }
    *side = (mx_compare_side){ .name = text, .method = "", .matched = "", .sql = "", .run = MX_TAKE(k->arena, mx_compare_run, room) };
    if (room == 1 || mx_store_run_find(k->store, text, k->arena, &whole, &ignored) == MX_OK) {
        MX_TRY(add_run(k, side, text, room, &last_out, st));
    } else {
        for (char *w = strtok_r(words, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
            MX_TRY(add_run(k, side, mx_compare_trim(w), room, &last_out, st));
        }
    }
    if (side->runs > 0) {
        qsort(side->run, (size_t)side->runs, sizeof *side->run, by_seed);
        side->name = mx_arena_text(k->arena, "%s (%s)", side->run[0].name, mx_compare_run_list(k->arena, side->run, side->runs));
    } else if (!k->wish->alone) {
        return mx_fail(st, MX_E_DATA, MX_NOWHERE, "no run of '%s' is finished: %s", text, last_out);
    }
    return MX_OK;
}

static mx_code by_hand(mx_comparing *k, mx_status *st) {
    const mx_compare_wish *wish = k->wish;
    mx_compare *c = k->c;
    const char *ids = "";

    c->sweep = "";
    c->side = MX_TAKE(k->arena, mx_compare_side, wish->sides + 1);
    c->baseline = wish->apart ? -1 : wish->against;
    for (c->sides = 0; c->sides < wish->sides; c->sides++) {
        mx_compare_side *side = &c->side[c->sides];

        MX_TRY(one_side(k, side, wish->side[c->sides], st));
        for (int32_t r = 0; r < side->runs; r++) {
            ids = mx_arena_text(k->arena, "%s%s%lld", ids, *ids ? ", " : "", (long long)side->run[r].run_id);
        }
    }
    c->sql_runs = mx_arena_text(k->arena, "SELECT run_id, uuid, name, method, seed, state FROM runs WHERE run_id IN (%s) ORDER BY run_id", ids);
    return MX_OK;
}

mx_code mx_compare_sides(mx_comparing *k, mx_status *st) {
    MX_TRY(k->wish->sweep ? of_sweep(k, st) : by_hand(k, st));
    for (int32_t i = 0; i < k->c->sides; i++) {
        MX_TRY(read_budgets(k, &k->c->side[i], st));
    }
    hold_against_baseline(k->c);
    return MX_OK;
}
