/* report.c - which runs a report is about, and its sections in their order; see report.h. */
#include "reports/report.h"

#include "reports/report_draft.h"
#include "reports/sql.h"
#include "reports/sweeps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIDE_RUNS_MAX = 4096 };

const char *mx_draft_numbers(mx_arena *arena, const int64_t *number, int count) {
    mx_text t;
    const char *kept;

    mx_text_init(&t, (size_t)16 << 20);
    for (int i = 0; i < count; i++) {
        mx_text_print(&t, "%s%lld", i ? ", " : "", (long long)number[i]);
    }
    kept = mx_arena_copy(arena, t.data, t.length);
    mx_text_finish(&t);
    return kept;
}

int mx_draft_variant_of(const mx_draft *d, int64_t run_id, int *ret_run) {
    for (int v = 0; v < d->variants; v++) {
        for (int i = 0; i < d->variant[v].runs; i++) {
            if (d->variant[v].run_id[i] == run_id) {
                if (ret_run) {
                    *ret_run = i;
                }
                return v;
            }
        }
    }
    return -1;
}

int mx_draft_variant_named(const mx_draft *d, const char *name) {
    for (int v = 0; v < d->variants; v++) {
        if (strcmp(d->variant[v].name, name) == 0) {
            return v;
        }
    }
    return -1;
}

void mx_draft_drawing(mx_draft *d, const char *id, const char *caption, mx_text *svg, const char *runs, const char *computed,
                      const mx_asked *const *asked, int count) {
    mx_page_drawing(d->page, id, caption, svg);
    mx_page_made(d->page, id, runs, computed, asked, count);
    mx_text_finish(svg);
}

/* --- which runs --- */

/* A variant's finished runs; without one, whatever it has. */
typedef struct member {
    const char *variant;
    int64_t run_id, seed;
    bool finished;
} member;

static void take_variant(mx_draft *d, const char *name, const member *m, int64_t members) {
    mx_draft_variant *v = &d->variant[d->variants++];
    int64_t *run_id = MX_TAKE(d->arena, int64_t, members + 1), *seed = MX_TAKE(d->arena, int64_t, members + 1);
    bool some_finished = false;

    *v = (mx_draft_variant){ .name = name, .run_id = run_id, .seed = seed };
    for (int64_t i = 0; i < members; i++) {
        some_finished |= strcmp(m[i].variant, name) == 0 && m[i].finished;
    }
    for (int64_t i = 0; i < members; i++) {
        if (strcmp(m[i].variant, name) == 0 && m[i].run_id && (m[i].finished || !some_finished)) {
            int at = v->runs++;

            for (; at > 0 && seed[at - 1] > m[i].seed; at--) { /* by seed */
                seed[at] = seed[at - 1];
                run_id[at] = run_id[at - 1];
            }
            seed[at] = m[i].seed;
            run_id[at] = m[i].run_id;
        }
    }
}

static void take_members(mx_draft *d, const member *m, int64_t members) {
    d->variant = MX_TAKE(d->arena, mx_draft_variant, members + 1);
    for (int64_t i = 0; i < members; i++) {
        if (mx_draft_variant_named(d, m[i].variant) < 0) {
            take_variant(d, m[i].variant, m, members);
        }
    }
}

static mx_code members_of_sweep(mx_draft *d, mx_status *st) {
    mx_member_row *row;
    int64_t rows;
    member *m;

    MX_TRY(mx_store_sweep_find(d->store, d->wish->sweep, d->arena, NULL, &row, &rows, st));
    m = MX_TAKE(d->arena, member, rows + 1);
    for (int64_t i = 0; i < rows; i++) {
        m[i] = (member){ row[i].variant, row[i].run_id, row[i].seed, strcmp(row[i].state, "finished") == 0 };
    }
    take_members(d, m, rows);
    return mx_ask(d->store, d->arena, &d->which, st, "members",
                  "SELECT position, variant, seed, run_id, state, reason, matched FROM sweep_runs WHERE sweep = %s ORDER BY position",
                  mx_sql_quote(d->arena, d->wish->sweep));
}

static mx_code take_run(const mx_run_row *row, member *m, int64_t *members, mx_status *st) {
    if (*members == SIDE_RUNS_MAX) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "more than %d runs", SIDE_RUNS_MAX);
    }
    for (int64_t i = 0; i < *members; i++) {
        if (m[i].run_id == row->run_id) {
            return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "run %lld is named twice", (long long)row->run_id);
        }
    }
    m[(*members)++] = (member){ .run_id = row->run_id, .seed = row->seed, .finished = strcmp(row->state, "finished") == 0 };
    return MX_OK;
}

/* "3,4,5": the runs of one side; a run's name may hold a comma, so the whole is tried first. */
static mx_code members_of_side(mx_draft *d, const char *words, const char **ret_name, member *m, int64_t *members, mx_status *st) {
    char *rest = mx_arena_copy(d->arena, words, strlen(words)), *word;
    int64_t first = *members;
    mx_status ignored = { 0 };
    mx_run_row row;

    if (mx_store_run_find(d->store, words, d->arena, &row, &ignored) == MX_OK) {
        *ret_name = row.name;
        return take_run(&row, m, members, st);
    }
    while ((word = strsep(&rest, ","))) {
        word += strspn(word, " ");
        for (size_t length = strlen(word); length > 0 && word[length - 1] == ' '; length--) {
            word[length - 1] = '\0';
        }
        MX_TRY(mx_store_run_find(d->store, word, d->arena, &row, st));
        MX_TRY(take_run(&row, m, members, st));
        *ret_name = *members - first == 1 ? row.name : *ret_name;
    }
    return MX_OK;
}

static mx_code members_by_hand(mx_draft *d, mx_status *st) {
    member *m = MX_TAKE(d->arena, member, SIDE_RUNS_MAX);
    int64_t members = 0, *ids = MX_TAKE(d->arena, int64_t, SIDE_RUNS_MAX);

    for (int32_t s = 0; s < d->wish->sides; s++) {
        int64_t first = members;
        const char *name = "", *numbers;

        MX_TRY(members_of_side(d, d->wish->side[s], &name, m, &members, st));
        for (int64_t i = first; i < members; i++) {
            ids[i] = m[i].run_id;
        }
        numbers = mx_draft_numbers(d->arena, ids + first, (int)(members - first));
        name = mx_arena_text(d->arena, "%s (run%s %s)", name, members - first > 1 ? "s" : "", numbers);
        for (int64_t i = first; i < members; i++) {
            m[i].variant = name;
        }
    }
    take_members(d, m, members);
    return mx_ask(d->store, d->arena, &d->which, st, "runs",
                  "SELECT run_id, name, seed, state, reason FROM runs WHERE run_id IN (%s) ORDER BY run_id",
                  mx_draft_numbers(d->arena, ids, (int)members));
}

static void tell_runs(mx_draft *d) {
    mx_text t;
    int64_t *ids;
    int n = 0, at = 0;

    mx_text_init(&t, (size_t)16 << 20);
    for (int v = 0; v < d->variants; v++) {
        const mx_draft_variant *x = &d->variant[v];

        n += x->runs;
        if (x->runs == 0) {
            mx_text_print(&t, "%s%s: no run yet", v ? "; " : "", x->name);
        } else {
            mx_text_print(&t, "%s%s: run%s %s (seed%s %s)", v ? "; " : "", x->name, x->runs > 1 ? "s" : "",
                          mx_draft_numbers(d->arena, x->run_id, x->runs), x->runs > 1 ? "s" : "",
                          mx_draft_numbers(d->arena, x->seed, x->runs));
        }
    }
    mx_text_print(&t, ".");
    d->runs = mx_arena_copy(d->arena, t.data, t.length);
    mx_text_finish(&t);
    ids = MX_TAKE(d->arena, int64_t, n + 1);
    for (int v = 0; v < d->variants; v++) {
        for (int i = 0; i < d->variant[v].runs; i++) {
            ids[at++] = d->variant[v].run_id[i];
        }
    }
    d->all = mx_draft_numbers(d->arena, ids, n);
}

/* --- compare --- */

static mx_code baseline_side(const mx_report_wish *w, int32_t *ret, mx_status *st) {
    const char *near;

    *ret = w->sides > 1 ? w->sides - 1 : -1;
    if (!w->baseline) {
        return MX_OK;
    }
    for (int32_t i = 0; i < w->sides; i++) {
        if (strcmp(w->side[i], w->baseline) == 0) {
            *ret = i;
            return MX_OK;
        }
    }
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--baseline '%s' is none of the runs named", w->baseline);
    near = mx_text_nearest(w->baseline, w->side, (size_t)w->sides);
    mx_hint(st, near ? "did you mean '%s'?" : "name it as it stands on the command line", near);
    return MX_E_USAGE;
}

/* What cannot be compared is still scored: then without a baseline, and the reason is told. NULL: not even that. */
static mx_code compare_or_tell(mx_draft *d, mx_compare_wish wish, mx_compare **ret, mx_status *st) {
    mx_status why = { 0 };
    mx_code code = mx_compare_read(d->store, &wish, d->arena, ret, &why);

    if (code == MX_E_DATA) {
        d->refused = mx_arena_copy(d->arena, why.text, strlen(why.text));
        wish.apart = true;
        why = (mx_status){ 0 };
        code = mx_compare_read(d->store, &wish, d->arena, ret, &why);
        if (code == MX_E_DATA && wish.sweep) { /* one variant's own runs do not go together: curves and budgets are there still */
            *ret = NULL;
            return MX_OK;
        }
    }
    if (code) {
        *st = why;
    }
    return code;
}

static mx_code read_compare(mx_draft *d, mx_status *st) {
    const mx_report_wish *w = d->wish;
    mx_compare_wish wish = { .sweep = w->sweep, .baseline = w->baseline, .side = w->side, .sides = w->sides, .against = -1, .alone = true };
    mx_compare *c = NULL;
    mx_asked scored;

    if (w->sweep) {
        for (int v = 0; w->baseline && v <= d->variants; v++) { /* a wrong word is told even before anything has finished */
            if (v < d->variants && strcmp(d->variant[v].name, w->baseline) == 0) {
                break;
            }
            if (v == d->variants) {
                const char **names = MX_TAKE(d->arena, const char *, d->variants + 1), *near;

                for (int i = 0; i < d->variants; i++) {
                    names[i] = d->variant[i].name;
                }
                near = mx_text_nearest(w->baseline, names, (size_t)d->variants);
                mx_fail(st, MX_E_USAGE, MX_NOWHERE, "sweep '%s' has no variant '%s'", w->sweep, w->baseline);
                mx_hint(st, near ? "did you mean '%s'?" : "mixrun plan with the sweep's file lists its variants", near);
                return MX_E_USAGE;
            }
        }
    } else {
        MX_TRY(baseline_side(w, &wish.against, st));
    }
    MX_TRY(mx_ask(d->store, d->arena, &scored, st, "scored",
                  "SELECT COUNT(*) FROM runs r JOIN evaluations e USING (run_id) WHERE run_id IN (%s) AND r.state = 'finished'", d->all));
    if (mx_asked_whole(&scored, 0, 0) == 0) {
        return MX_OK;
    }
    MX_TRY(compare_or_tell(d, wish, &c, st));
    if (!c) {
        return MX_OK;
    }
    d->compare = c;
    for (int32_t i = 0; !w->sweep && i < c->sides; i++) { /* one name for a side, in words, tables and drawings */
        d->variant[i].name = c->side[i].name;
    }
    tell_runs(d);
    return MX_OK;
}

/* --- title and date --- */

static mx_code subtitle(mx_draft *d, const char **ret, mx_status *st) {
    mx_asked newest;
    int64_t seconds = d->wish->date_s, shown = 0;
    char date[32];
    struct tm day;
    time_t when;

    MX_TRY(mx_ask(d->store, d->arena, &newest, st, "newest", "SELECT MAX(COALESCE(ended_ms, heartbeat_ms)) FROM runs WHERE run_id IN (%s)",
                  d->all));
    if (seconds < 0) {
        seconds = mx_asked_whole(&newest, 0, 0) / 1000;
    }
    when = (time_t)seconds;
    if (!gmtime_r(&when, &day) || strftime(date, sizeof date, "%Y-%m-%d", &day) == 0) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "%lld seconds since 1970 are no date", (long long)seconds);
    }
    for (int v = 0; v < d->variants; v++) {
        shown += d->variant[v].runs;
    }
    *ret = mx_arena_text(d->arena, "%s%s%s · %d variant%s, %lld run%s%s · made by mixrun report", d->wish->sweep ? "sweep " : "",
                         d->wish->sweep ? d->wish->sweep : "", shown == 0 ? "" : mx_arena_text(d->arena, "%s%s", d->wish->sweep ? " · " : "", date),
                         d->variants, d->variants == 1 ? "" : "s", (long long)shown, shown == 1 ? "" : "s",
                         d->compare && d->compare->best_epoch ? " · best epochs: optimistic" : "");
    return MX_OK;
}

static mx_code sections(mx_draft *d, mx_status *st) {
    MX_TRY(mx_draft_answer(d, st));
    MX_TRY(mx_draft_scores(d, st));
    MX_TRY(mx_draft_curves(d, st));
    MX_TRY(mx_draft_router(d, st));
    MX_TRY(mx_draft_budgets(d, st));
    MX_TRY(mx_draft_recipes(d, st));
    MX_TRY(mx_draft_machines(d, st));
    mx_draft_methods(d);
    return MX_OK;
}

/* --table names one that was made. */
static mx_code known_table(const mx_page *p, mx_status *st) {
    const char *near;

    for (int i = 0; i < p->tables; i++) {
        if (!p->only || strcmp(p->table[i], p->only) == 0) {
            return MX_OK;
        }
    }
    if (!p->only) {
        return MX_OK;
    }
    near = mx_text_nearest(p->only, p->table, (size_t)p->tables);
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "this report has no table '%s'", p->only);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    } else {
        mx_text all;

        mx_text_init(&all, (size_t)1 << 20);
        for (int i = 0; i < p->tables; i++) {
            mx_text_print(&all, "%s%s", i ? ", " : "", p->table[i]);
        }
        mx_hint(st, "it has: %s", all.data);
        mx_text_finish(&all);
    }
    return MX_E_USAGE;
}

/* Everything that is read. */
static mx_code draft(mx_draft *d, const char **under, mx_status *st) {
    MX_TRY(d->wish->sweep ? members_of_sweep(d, st) : members_by_hand(d, st));
    tell_runs(d);
    MX_TRY(read_compare(d, st));
    MX_TRY(subtitle(d, under, st));
    MX_TRY(sections(d, st));
    return known_table(d->page, st);
}

mx_code mx_report_write(mx_store *s, const mx_report_wish *wish, mx_arena *arena, mx_text *out, mx_status *st) {
    mx_page page;
    mx_draft d = { .store = s, .arena = arena, .page = &page, .wish = wish };
    const char *under = "", *title;
    mx_code code;

    mx_page_init(&page, wish->format, wish->table);
    code = mx_sql_execute(s, st, "BEGIN", ""); /* one moment of the database, whoever writes meanwhile */
    if (code == MX_OK) {
        mx_code end;

        code = draft(&d, &under, st);
        end = mx_sql_execute(s, st, "ROLLBACK", "");
        code = code ? code : end;
    }
    if (code == MX_OK) {
        title = wish->title ? wish->title
                : wish->sweep ? mx_arena_text(arena, "Report on %s", wish->sweep)
                : d.variants == 1 ? d.variant[0].name : mx_arena_text(arena, "Report on %d variants", d.variants);
        mx_page_write(&page, title, under, out);
    }
    mx_page_finish(&page);
    return code;
}
