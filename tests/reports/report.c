/* The report: the same bytes from the same database, whatever names say, in every format; and what is computed for it. */
#include "reports/report.h"

#include "reports/ask.h"
#include "reports/report_loads.h"
#include "tests/reports/made_sweep.h"
#include "tests/support/well_formed.h"

static mx_report_wish wish_of(mx_format format) {
    return (mx_report_wish){ .sweep = "made", .format = format, .date_s = -1, .command = "mixrun report --sweep made -o report.html" };
}

static char *written(scratch *x, mx_store *s, const mx_report_wish *wish) {
    mx_text out;
    mx_status st = { 0 };
    char *kept;

    mx_text_init(&out, 256 << 20);
    cr_assert_eq(mx_report_write(s, wish, &x->arena, &out, &st), MX_OK, "%s", st.text);
    kept = mx_arena_copy(&x->arena, out.data, out.length);
    mx_text_finish(&out);
    return kept;
}

static mx_store *made_store(scratch *x) {
    mx_store *s = open_store(scratch_path(x, "x.db"));

    made_sweep(s, "made");
    return s;
}

static void changed(mx_store *s, const char *sql) {
    mx_status st = { 0 };

    cr_assert(mx_store_begin(s, &st) == MX_OK);
    cr_assert_eq(sqlite3_exec(mx_store_handle(s), sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(mx_store_handle(s)));
    cr_assert(mx_store_commit(s, &st) == MX_OK);
}

Test(report, the_same_database_gives_the_same_bytes) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    static const mx_format formats[] = { MX_FORMAT_HTML, MX_FORMAT_MARKDOWN, MX_FORMAT_CSV, MX_FORMAT_LATEX };

    for (size_t i = 0; i < 4; i++) {
        mx_report_wish wish = wish_of(formats[i]);
        char *once = written(&x, s, &wish), *again;
        mx_store *reopened;
        mx_status st = { 0 };

        cr_assert(mx_store_open(scratch_path(&x, "x.db"), false, &reopened, &st) == MX_OK, "%s", st.text);
        again = written(&x, reopened, &wish);
        mx_store_close(reopened);
        cr_assert_str_eq(once, again);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, the_date_is_the_newest_runs_end_or_what_is_asked_for) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_HTML);
    mx_status st = { 0 };

    cr_assert(mx_store_begin(s, &st) == MX_OK);
    cr_assert(sqlite3_exec(mx_store_handle(s), "UPDATE runs SET ended_ms = 86400000 + run_id", NULL, NULL, NULL) == SQLITE_OK);
    cr_assert(mx_store_commit(s, &st) == MX_OK);
    cr_assert(strstr(written(&x, s, &wish), "1970-01-02"));
    wish.date_s = 951782400; /* date -u -d @951782400 +%F */
    cr_assert(strstr(written(&x, s, &wish), "2000-02-29"));
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, the_page_is_whole_and_needs_nothing_from_outside) {
    static const char *const has[] = { "<section id=\"answer\">", "figure id=\"accuracy\"", "figure id=\"differences\"", "figure id=\"differences-drawing\"", "figure id=\"losses\"",
                                       "figure id=\"score-curves\"", "figure id=\"balance\"", "figure id=\"router-3\"", "figure id=\"router-course-3\"", "figure id=\"pairs-3\"",
                                       "figure id=\"divergence\"", "figure id=\"budgets\"", "figure id=\"accuracy-values\"", "figure id=\"accuracy-speed\"", "figure id=\"words\"",
                                       "figure id=\"runs\"", "figure id=\"environments\"", "mix &lt;b&gt;&amp;&quot;'x'|", "never run", "to do", "recipe: x.yaml # &lt;&amp;&gt;",
                                       "prefers-color-scheme:dark", "@media print", "<meta name=\"viewport\"", "<html lang=\"en\">" };
    static const char *const lacks[] = { "<script", "http:", "https:", "url(", "@import", "<b>", "<link", "<img", "nan", ">inf", "some/folder" };
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_HTML);
    const char *page = written(&x, s, &wish);
    char why[256];

    cr_assert(well_formed(page, why), "%s", why);
    for (size_t i = 0; i < sizeof has / sizeof has[0]; i++) {
        cr_assert(strstr(page, has[i]), "the page has no %s", has[i]);
    }
    for (size_t i = 0; i < sizeof lacks / sizeof lacks[0]; i++) {
        cr_assert(!strstr(page, lacks[i]), "the page has %s: %.80s", lacks[i], strstr(page, lacks[i]));
    }
    for (const char *c = page; (c = strstr(c, "<figure id=\"")); c++) { /* a number without its SELECT is hearsay */
        const char *end = strstr(c, "</figure>"), *sql = strstr(c, "<pre class=\"sql\"");

        cr_assert(sql && sql < end, "no SELECT beside %.60s", c);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, ids_are_unique) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_HTML);
    const char *page = written(&x, s, &wish);

    for (const char *c = page; (c = strstr(c, " id=\"")); c++) {
        char id[128];

        cr_assert(sscanf(c, " id=\"%127[^\"]\"", id) == 1);
        cr_assert(!strstr(c + 1, mx_arena_text(&x.arena, " id=\"%s\"", id)), "two things are called %s", id);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, a_title_that_looks_like_a_tag_is_only_a_title) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_HTML);
    const char *page;
    char why[256];

    wish.title = "</title><script>alert(1)</script>&";
    page = written(&x, s, &wish);
    cr_assert(well_formed(page, why), "%s", why);
    cr_assert(strstr(page, "<h1>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;</h1>") && !strstr(page, "<script"));
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, other_formats_hold_the_tables) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_MARKDOWN);
    const char *text = written(&x, s, &wish);

    cr_assert(strstr(text, "# Report on made") && strstr(text, "## Differences from the baseline") && strstr(text, "| --") == NULL && strstr(text, "|---|"));
    cr_assert(strstr(text, "```sql\nWITH ") && !strstr(text, "<svg"));
    wish.format = MX_FORMAT_LATEX;
    text = written(&x, s, &wish);
    cr_assert(strstr(text, "% accuracy: Accuracy, in percent") && strstr(text, "\\toprule") && strstr(text, "mix $<$b$>$\\&"));
    wish.format = MX_FORMAT_CSV;
    text = written(&x, s, &wish);
    cr_assert(strncmp(text, "accuracy\r\n", 10) == 0 && strstr(text, "\r\n\r\ndifferences\r\n"), "%.100s", text);
    wish.table = "budgets";
    text = written(&x, s, &wish);
    cr_assert(strncmp(text, "variant,method,\"accuracy, %\",trained", 36) == 0 && strstr(text, ",\"5,000\",0,baseline,\"matched on params: mixlora, -0.8 %\",30.0 k,"), "%s", text);
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, what_is_not_there_is_refused_with_the_near_word) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    static const struct {
        const char *sweep, *baseline, *table, *side, *says, *hint;
    } wrong[] = { { "mad", NULL, NULL, NULL, "there is no sweep 'mad'", "did you mean 'made'?" },
                  { "made", "lora mached", NULL, NULL, "'lora mached'", "did you mean 'lora matched'?" },
                  { "made", NULL, "acuracy", NULL, "no table 'acuracy'", "did you mean 'accuracy'?" },
                  { "made", NULL, "x", NULL, "no table 'x'", "it has: accuracy, differences" },
                  { NULL, NULL, NULL, "1,1", "run 1 is named twice", "" },
                  { NULL, "7", NULL, "1,5", "'7' is none of the runs named", "" },
                  { NULL, NULL, NULL, "1,,5", "", "" } };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        mx_report_wish wish = wish_of(MX_FORMAT_HTML);
        mx_status st = { 0 };
        mx_text out;

        wish.sweep = wrong[i].sweep;
        wish.baseline = wrong[i].baseline;
        wish.table = wrong[i].table;
        wish.side = &wrong[i].side;
        wish.sides = wrong[i].side ? 1 : 0;
        mx_text_init(&out, 64 << 20);
        cr_assert_eq(mx_report_write(s, &wish, &x.arena, &out, &st), MX_E_USAGE, "case %zu", i);
        cr_assert(strstr(st.text, wrong[i].says) && strstr(st.hint, wrong[i].hint), "case %zu: %s / %s", i, st.text, st.hint);
        mx_text_finish(&out);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, runs_without_scores_or_losses_still_make_a_page) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "x.db"));
    mx_report_wish wish = { .format = MX_FORMAT_HTML, .date_s = 0, .side = (const char *const[]){ "1", "2" }, .sides = 2, .command = "mixrun report 1 2" };
    mx_member_row never = { .position = 1, .variant = "v", .seed = 1, .recipe_hash = "r", .base_hash = "b", .tasks_hash = "t", .data_hash = "d", .method = "lora", .matched = "" };
    mx_status st = { 0 };
    const char *page;
    char why[256];

    add_run(s, "empty");
    add_run(s, "empty");
    page = written(&x, s, &wish);
    cr_assert(well_formed(page, why), "%s", why);
    cr_assert(strstr(page, "No finished run of these has a score") && strstr(page, "empty (run 2)") && !strstr(page, "id=\"losses\""));
    cr_assert(mx_store_sweep(s, &(mx_sweep_row){ .name = "to do", .path = "p", .text = "", .arguments = "a=1,2", .baseline = "", .protocol = "", .metric = "" }, &never, 1, &st) == MX_OK, "%s", st.text);
    wish = (mx_report_wish){ .format = MX_FORMAT_HTML, .date_s = -1, .sweep = "to do", .command = "" };
    page = written(&x, s, &wish);
    cr_assert(well_formed(page, why), "%s", why);
    cr_assert(strstr(page, "No finished run of these has a score") && strstr(page, "v: no run yet") && strstr(page, "mixrun sweep p 'a=1,2'"), "%s", page);
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, runs_named_by_hand_are_compared_with_the_last) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    /* seeds are walked outside: runs 3, 7, 11 are mixlora's, 2, 6, 10 lora matched's */
    mx_report_wish wish = { .format = MX_FORMAT_HTML, .date_s = -1, .side = (const char *const[]){ "3,7,11", "2,6,10" }, .sides = 2, .command = "mixrun report 3,7,11 2,6,10" };
    const char *page = written(&x, s, &wish);

    cr_assert(strstr(page, "Differences from lora matched (runs 2, 6 and 10)"), "%.3000s", strstr(page, "<main>"));
    wish.side = (const char *const[]){ " 3 , 7,11 ", "2, 6, 10" };
    page = written(&x, s, &wish);
    cr_assert(strstr(page, "Differences from lora matched (runs 2, 6 and 10)"), "blanks between numbers are no part of them");
    changed(s, "UPDATE runs SET name = 'lora, easy' WHERE run_id = 1");
    wish.side = (const char *const[]){ "lora, easy", "2" };
    page = written(&x, s, &wish);
    cr_assert(strstr(page, "lora, easy (run 1)"), "a name with a comma is one name");
    wish.side = (const char *const[]){ "3,7,11", "2,6,10" };
    wish.baseline = "3,7,11";
    page = written(&x, s, &wish);
    cr_assert(strstr(page, "Differences from mixlora (runs 3, 7 and 11)"));
    wish.sides = 1;
    wish.baseline = NULL;
    page = written(&x, s, &wish);
    cr_assert(!strstr(page, "figure id=\"differences\"") && strstr(page, "figure id=\"accuracy\""));
    mx_store_close(s);
    scratch_close(&x);
}

/* What stands in the part of the page from `from` to the next `to`. */
static bool stands(scratch *x, const char *page, const char *from, const char *to, const char *words) {
    const char *start = strstr(page, from), *end = start ? strstr(start, to) : NULL;

    cr_assert(end, "the page has no %s", from);
    return strstr(mx_arena_copy(&x->arena, start, (size_t)(end - start)), words);
}

Test(report, the_answer_and_the_captions_tell_how_few_seeds_there_are) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    const char *const one[] = { "3", "2" }, *const two[] = { "3,7", "2,6" };
    mx_report_wish wish = { .format = MX_FORMAT_HTML, .date_s = -1, .side = one, .sides = 2, .command = "" };
    const char *page = written(&x, s, &wish), *notes;

    cr_assert(stands(&x, page, "class=\"lead\"", "</p>", ", 1 seed"), "%s", strstr(page, "class=\"lead\""));
    cr_assert(stands(&x, page, "id=\"differences\"", "</figcaption>", "One seed says nothing"));
    wish.side = two;
    page = written(&x, s, &wish);
    cr_assert(stands(&x, page, "class=\"lead\"", "</p>", ", 2 seeds"));
    cr_assert(stands(&x, page, "id=\"differences\"", "</figcaption>", "Two seeds: in simulations"));
    cr_assert(stands(&x, page, "id=\"differences-drawing\"", "</figcaption>", "Two seeds: in simulations"));
    wish = wish_of(MX_FORMAT_MARKDOWN);
    page = written(&x, s, &wish);
    notes = strstr(page, "- Intervals are 95 % and unadjusted");
    cr_assert(notes && strstr(page, "- Left out of never run") > notes, "what bears on every number comes first");
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, a_mean_over_some_tasks_is_not_called_one_over_all) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_HTML);
    const char *page;

    changed(s, "UPDATE evaluations SET split = 'gone' WHERE (run_id IN (3, 7, 11) AND task = 'openbookqa')"
               " OR (run_id IN (4, 8, 12) AND task <> 'arc_easy')");
    page = written(&x, s, &wish);
    cr_assert(stands(&x, page, "<section id=\"answer\">", "<ul>", "3 seeds, over 2 of 3 tasks"), "%s", strstr(page, "<section id=\"answer\">"));
    cr_assert(stands(&x, page, "<section id=\"answer\">", "<ul>", "Not answered for mix &lt;b&gt;&amp;&quot;'x'| (only arc_easy is shared) and never run (no run is finished)."),
              "%s", strstr(page, "<section id=\"answer\">"));
    cr_assert(stands(&x, page, "id=\"differences\"", "</table>", "mean of 2 of 3 tasks"));
    cr_assert(stands(&x, page, "id=\"differences-drawing\"", "</figure>", "mean of 2 of 3 tasks"));
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, what_cannot_be_compared_is_told_and_the_rest_is_there) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_HTML);
    const char *page;
    char why[256];

    changed(s, "DELETE FROM outcomes WHERE evaluation_id IN (SELECT evaluation_id FROM evaluations WHERE run_id = 7)");
    page = written(&x, s, &wish);
    cr_assert(well_formed(page, why), "%s", why);
    cr_assert(stands(&x, page, "<section id=\"answer\">", "</section>", "Left out of the differences: mixlora; run 7 kept no answers"));
    cr_assert(stands(&x, page, "id=\"differences\"", "</table>", "lora r16") && !stands(&x, page, "id=\"differences\"", "</table>", ">mixlora"));
    changed(s, "UPDATE evaluations SET data_hash = 'other' WHERE run_id IN (1, 5, 9)");
    page = written(&x, s, &wish);
    cr_assert(stands(&x, page, "class=\"lead\"", "</p>", "Nothing is compared with a baseline: runs 2 and 1 were scored on different files"));
    cr_assert(strstr(page, "figure id=\"accuracy\"") && strstr(page, "figure id=\"losses\"") && !strstr(page, "figure id=\"differences\""));
    changed(s, "UPDATE evaluations SET data_hash = 'third' WHERE run_id = 5");
    page = written(&x, s, &wish);
    cr_assert(stands(&x, page, "class=\"lead\"", "</p>", "these runs cannot be put side by side: runs 1 and 5"), "%s", strstr(page, "class=\"lead\""));
    cr_assert(strstr(page, "figure id=\"losses\""));
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, the_answer_tells_in_what_budgets_are_equal) {
    scratch x = scratch_open();
    mx_store *s = made_store(&x);
    mx_report_wish wish = wish_of(MX_FORMAT_MARKDOWN);
    const char *page = written(&x, s, &wish);

    cr_assert(strstr(page, "Against lora matched, equal in trained values (within 2 %): ") && !strstr(page, "equal in FLOPs"));
    changed(s, "UPDATE members SET matched = 'flops: mixlora, -0.8 %' WHERE variant = 'lora matched'");
    page = written(&x, s, &wish);
    cr_assert(strstr(page, "Against lora matched, equal in FLOPs per token (within 2 %): ") && strstr(page, "in FLOPs |"));
    mx_store_close(s);
    scratch_close(&x);
}

Test(report, entropy_and_divergence_have_their_known_values) {
    static const double one[] = { 1, 0 }, other[] = { 0, 1 }, even[] = { 0.5, 0.5 }, third[] = { 0.25, 0.25, 0.25, 0.25 };

    cr_assert_eq(mx_share_entropy(one, 2), 0);
    cr_assert_eq(mx_share_entropy(third, 4), 2);
    cr_assert_eq(mx_share_most(third, 4), 1);
    cr_assert_eq(mx_share_most(one, 2), 2);
    cr_assert_eq(mx_share_divergence(one, other, 2), 1);
    cr_assert_eq(mx_share_divergence(even, even, 2), 0);
    /* H(3/4, 1/4) - (1 + 0) / 2 = 2 - 3/4 log2 3 - 1/2; a few roundings of doubles */
    cr_assert(fabs(mx_share_divergence(even, one, 2) - (1.5 - 0.75 * log2(3))) < 1e-15);
}

Test(report, a_statement_is_asked_as_it_is_printed) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "x.db"));
    mx_asked a, again;
    mx_status st = { 0 };

    cr_assert_str_eq(mx_sql_quote(&x.arena, "it's"), "'it''s'");
    cr_assert(mx_ask(s, &x.arena, &a, &st, "n", "SELECT %s, 2, NULL, 0.5 UNION ALL SELECT 'b', 3, 4, 1e300", mx_sql_quote(&x.arena, "it's")) == MX_OK, "%s", st.text);
    cr_assert(a.rows == 2 && a.columns == 4);
    cr_assert_str_eq(mx_asked_text(&a, 0, 0), "it's");
    cr_assert_str_eq(a.sql, "SELECT 'it''s', 2, NULL, 0.5 UNION ALL SELECT 'b', 3, 4, 1e300");
    cr_assert(mx_asked_whole(&a, 1, 1) == 3 && mx_asked_number(&a, 0, 3) == 0.5 && isnan(mx_asked_number(&a, 0, 2)) && !a.cell[2]);
    /* printf "it's|2||0.5\nb|3|4|1.0e+300\n" | sha256sum */
    cr_assert_str_eq(a.sha256, "8174a804513f6330d992021e94dcda481fab454c78e13f1505ef425f849f3283");
    cr_assert(mx_ask_hash(s, &again, &st, "n", a.sql) == MX_OK && again.rows == 2);
    cr_assert_str_eq(again.sha256, a.sha256);
    cr_assert(mx_ask(s, &x.arena, &a, &st, "n", "SELECT nothing") == MX_E_STORE && strstr(st.text, "x.db"), "%s", st.text);
    mx_store_close(s);
    scratch_close(&x);
}
