/* report_machines.c - the runs themselves, the base, the data, the machines; and how to do it again. */
#include "reports/report_draft.h"
#include "reports/sweeps.h"

#include <stdio.h>
#include <string.h>

/* A table whose cells are the rows, from column `from` on. */
static void rows_table(mx_draft *d, const char *id, const char *caption, const char *const *head, int columns, const char *numbers, const mx_asked *a) {
    const mx_asked *list[] = { a };
    mx_table t;

    mx_table_init(&t, columns);
    for (int i = 0; i < columns; i++) {
        t.right[i] = numbers[i] == 'n';
        mx_table_cell(&t, "%s", head[i]);
    }
    for (int64_t r = 0; r < a->rows; r++) {
        for (int i = 0; i < columns; i++) {
            mx_table_cell(&t, "%s", numbers[i] == 'n' && a->cell[r * a->columns + i] ? mx_text_count(mx_asked_whole(a, r, i)) : mx_asked_text(a, r, i));
        }
    }
    mx_page_table(d->page, id, caption, &t);
    mx_page_made(d->page, id, d->runs, "", list, 1);
    mx_table_finish(&t);
}

static mx_code runs_table(mx_draft *d, mx_status *st) {
    static const char *const head[] = { "run", "variant", "method", "seed", "state", "steps", "of", "took, s", "uuid", "reason" };
    mx_asked *a = MX_TAKE(d->arena, mx_asked, 1);
    const char *variant;

    if (d->wish->sweep) { /* what was asked for, answered or not */
        MX_TRY(mx_ask(d->store, d->arena, a, st, "runs",
                      "SELECT m.run_id, m.variant, m.method, m.seed, COALESCE(m.state, 'to do') AS state, r.step, r.steps, (r.ended_ms - r.began_ms + 500) / 1000 AS seconds,"
                      " SUBSTR(r.uuid, 1, 8) AS uuid, m.reason FROM sweep_runs m LEFT JOIN runs r ON r.run_id = m.run_id WHERE m.sweep = %s ORDER BY m.position",
                      mx_sql_quote(d->arena, d->wish->sweep)));
    } else {
        variant = "CASE run_id";
        for (int v = 0; v < d->variants; v++) {
            for (int i = 0; i < d->variant[v].runs; i++) {
                variant = mx_arena_text(d->arena, "%s WHEN %lld THEN %s", variant, (long long)d->variant[v].run_id[i], mx_sql_quote(d->arena, d->variant[v].name));
            }
        }
        MX_TRY(mx_ask(d->store, d->arena, a, st, "runs",
                      "SELECT run_id, %s END AS variant, method, seed, state, step, steps, (ended_ms - began_ms + 500) / 1000 AS seconds, SUBSTR(uuid, 1, 8) AS uuid, reason FROM runs"
                      " WHERE run_id IN (%s) ORDER BY run_id", variant, d->all));
    }
    rows_table(d, "runs", "The runs.", head, sizeof head / sizeof head[0], "nttntnnntt", a);
    return MX_OK;
}

static mx_code base_and_data(mx_draft *d, mx_status *st) {
    static const char *const base_head[] = { "base model", "files", "values", "sha256" };
    static const char *const data_head[] = { "task", "split", "questions", "prompts cut", "sha256 of the data" };
    mx_asked *base = MX_TAKE(d->arena, mx_asked, 2), *data = base + 1;

    MX_TRY(mx_ask(d->store, d->arena, base, st, "bases",
                  "SELECT DISTINCT b.name, b.description, b.weights, SUBSTR(b.base_hash, 1, 16) FROM runs r JOIN bases b USING (base_hash) WHERE r.run_id IN (%s) ORDER BY b.name, b.base_hash",
                  d->all));
    rows_table(d, "bases", "The frozen base.", base_head, 4, "ttnt", base);
    MX_TRY(mx_ask(d->store, d->arena, data, st, "data",
                  "SELECT DISTINCT task, split, questions, truncated, SUBSTR(sha256, 1, 16) FROM data_files WHERE run_id IN (%s) ORDER BY task, split, sha256, questions, truncated",
                  d->all));
    if (data->rows > 0) {
        rows_table(d, "data", "The data: unpacked files by their hashes. Prompts cut: did not fit sequence_len.", data_head, 5, "ttnnt", data);
    }
    return MX_OK;
}

static mx_code environments(mx_draft *d, mx_status *st) {
    static const char *const head[] = { "environment", "what", "value", "runs" };
    mx_asked *a = MX_TAKE(d->arena, mx_asked, 1);

    MX_TRY(mx_ask(d->store, d->arena, a, st, "environments",
                  "SELECT v.environment_id, j.key, j.value, (SELECT COUNT(*) FROM runs WHERE run_id IN (%s) AND environment_id = v.environment_id) AS runs"
                  " FROM environments v, json_each(v.text) j WHERE v.environment_id IN (SELECT environment_id FROM runs WHERE run_id IN (%s))"
                  " ORDER BY v.environment_id, j.key", d->all, d->all));
    if (a->rows > 0) {
        rows_table(d, "environments", "Program, machine and libraries. Runs of different environments may differ in their last bits.", head, 4, "nttn", a);
    }
    return MX_OK;
}

mx_code mx_draft_machines(mx_draft *d, mx_status *st) {
    mx_page_section(d->page, "environment", "Runs, data, machine");
    MX_TRY(runs_table(d, st));
    MX_TRY(base_and_data(d, st));
    MX_TRY(environments(d, st));
    mx_page_section(d->page, "again", "How to do it again");
    if (d->wish->sweep) {
        mx_sweep_row sweep;
        mx_member_row *member;
        int64_t members;
        const char *arguments = "";

        MX_TRY(mx_store_sweep_find(d->store, d->wish->sweep, d->arena, &sweep, &member, &members, st));
        for (size_t at = 0, n; sweep.arguments[at]; at += n + (sweep.arguments[at + n] == '\n')) { /* one a line */
            n = strcspn(sweep.arguments + at, "\n");
            arguments = mx_arena_text(d->arena, "%s '%.*s'", arguments, (int)n, sweep.arguments + at);
        }
        mx_page_code(d->page, mx_arena_text(d->arena, "mixrun sweep %s%s\nmixrun compare --sweep '%s'\n%s\n", sweep.path, arguments, sweep.name, d->wish->command));
        mx_page_folded(d->page, mx_arena_text(d->arena, "the sweep's file, %s", sweep.path), sweep.text);
    } else {
        mx_page_code(d->page, mx_arena_text(d->arena, "%s\n", d->wish->command));
        mx_page_words(d->page, "", "A run is repeated by its resolved recipe, above: save it as a file and give it to mixrun.");
    }
    mx_page_words(d->page, "", "Under every table and drawing stand its runs and the complete SELECTs it was made from. Ask again:");
    mx_page_code(d->page, "sqlite3 -readonly mixrun.db \"SELECT ...\"\n");
    mx_page_words(d->page, "small", "Each printed SELECT also carries the number of its rows and the sha256 of what sqlite3 prints for it (attributes data-rows and data-sha256 of the page).");
    return MX_OK;
}

void mx_draft_methods(mx_draft *d) {
    static const char *const item[] = {
        "Scores are 0 or 1 a question. Questions are paired by identity: task definition, data file and row; seeds by their number.",
        "One run of one task: Wilson's interval (Wilson 1927). Two of them: the exact McNemar test, mid-p beside it (Fagerland, Lydersen and Laake 2013), the paired difference's interval by Tango (1998).",
        "Several seeds: questions and seeds are both drawn at random and crossed. With the mean squares of questions, seeds and the rest (MS_I, MS_S, MS_E) of I questions and S seeds the mean's variance is"
        " V = max(MS_I + MS_S - MS_E, MS_I) / (I S), its degrees of freedom Satterthwaite's (1946; for readers and cases Hillis 2007), the interval Student's t.",
        "Over K tasks, fixed: the unweighted mean of the tasks' differences; V = max(s_D^2/S + sum (MS_I - MS_E)/(K^2 I S), sum MS_I/(K^2 I S)), s_D^2 the variance of the seeds' means.",
        "p values are two-sided and adjusted by Holm (1979) over all rows of the table of differences; better and worse follow the adjusted p at 0.05. Intervals are 95 % and not adjusted.",
        "Few seeds: intervals from fewer than five seeds rest on a poorly known variance between seeds. One seed says nothing about seeds at all.",
        "Shares, entropies and divergences of the router describe what was counted; they are no estimates and have no intervals. Divergences of few tokens are too large.",
        "Scores are of the last evaluation; no epoch was chosen by its score unless the tables say so.",
    };

    mx_page_section(d->page, "methods", "How the numbers were computed");
    mx_page_list(d->page, item, sizeof item / sizeof item[0]);
}
