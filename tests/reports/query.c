/* Questions to the database: named ones tell what they say, one's own can read and nothing else, and mistakes are shown at their place. */
#include "reports/query.h"

#include "tests/reports/filled.h"

static mx_code collect(void *to, const char *bytes, size_t length, mx_status *st) {
    (void)st;
    mx_text_add(to, bytes, length);
    return MX_OK;
}

static mx_store *open_to_read(const char *path) {
    mx_store *s;
    mx_status st = { 0 };

    cr_assert(mx_store_open(path, false, &s, &st) == MX_OK, "%s", st.text);
    return s;
}

/* What a query says, in a format; parameters as name, value, ..., NULL. */
static mx_code answer(scratch *x, mx_store *s, const char *sql, mx_format format, const char *const *parameter, mx_text *out, mx_status *st) {
    mx_given given[8];
    mx_query q;
    mx_query_wish wish = { .given = given, .format = format, .put = collect, .to = out };

    for (; parameter && parameter[2 * wish.givens]; wish.givens++) {
        given[wish.givens] = (mx_given){ parameter[2 * wish.givens], parameter[2 * wish.givens + 1] };
    }
    mx_text_init(out, 1 << 24);
    if (strchr(sql, ' ')) {
        mx_query_of("the query", sql, &x->arena, &q);
    } else {
        cr_assert(mx_query_find(sql, &x->arena, &q, st) == MX_OK, "%s", st->text);
    }
    return mx_query_run(s, &q, &wish, &x->arena, st);
}

static char *csv_of(scratch *x, mx_store *s, const char *sql, const char *const *parameter) {
    mx_text out;
    mx_status st = { 0 };
    char *kept;

    cr_assert(answer(x, s, sql, MX_FORMAT_CSV, parameter, &out, &st) == MX_OK, "%s: %s", sql, st.text);
    kept = mx_arena_copy(&x->arena, out.data, out.length);
    mx_text_finish(&out);
    return kept;
}

Test(query, every_named_query_says_what_it_tells_and_finds_it) {
    scratch x = scratch_open();
    const mx_query *query;
    int count = mx_queries(&x.arena, &query);
    mx_store *s;

    filled(scratch_path(&x, "a.db"));
    s = open_to_read(scratch_path(&x, "a.db"));
    cr_assert(count >= 13);
    for (int i = 0; i < count; i++) {
        const char *given[8] = { NULL };
        int n = 0;
        char *text;

        cr_assert(strlen(query[i].summary) > 10, "%s does not say what it tells", query[i].name);
        cr_assert(i == 0 || strcmp(query[i - 1].name, query[i].name) < 0, "%s is not in its place", query[i].name);
        for (int p = 0; p < query[i].parameters; p++) {
            cr_assert(query[i].parameter[p].help[0], "%s does not say what %s is", query[i].name, query[i].parameter[p].name);
            if (query[i].parameter[p].needed) {
                const char *name = query[i].parameter[p].name;

                given[n++] = name;
                given[n++] = strcmp(name, "sweep") == 0 ? "methods" : strcmp(name, "a") == 0 ? "4" : "1";
            }
        }
        text = csv_of(&x, s, query[i].name, given);
        cr_assert(strchr(text, '\n')[1], "%s finds nothing: %s", query[i].name, text);
    }
    mx_store_close(s);
    scratch_close(&x);
}

/* Exact by construction: see filled.h. Two windows of training, so its tokens count twice. */
Test(query, named_queries_give_the_right_numbers) {
    static const struct {
        const char *name, *given[7], *rows;
    } expected[] = {
        { "task-divergence", { "run", "3" }, /* alpha (1/2, 1/2, 0, 0), beta (0, 0, 1, 0): H(1/4, 1/4, 1/2) - 1/2 = 1.5 - 0.5 */
          "3,0,2,0,1,\"alpha 20, beta 40\"\r\n3,1,2,1,1,\"alpha 20, beta 40\"\r\n" },
        { "dead-experts", { "run", "3" }, "3,1,4,1,3,0\r\n" },
        { "router-load", { "run", "3", "layer", "1" },
          "3,1,0,20,0.1667,0.1667,0\r\n3,1,1,20,0.1667,0.1667,0\r\n3,1,2,80,0.6667,0.6667,0\r\n3,1,3,0,0,0,0\r\n" },
        { "router-load", { "run", "3", "layer", "1", "task", "beta" },
          "3,1,0,0,0,0,0\r\n3,1,1,0,0,0,0\r\n3,1,2,80,1,1,0\r\n3,1,3,0,0,0,0\r\n" },
        { "router-load", { "run", "3", "layer", "0", "split", "validation" },
          "3,0,0,15,0.25,0.25,0\r\n3,0,1,15,0.25,0.25,0\r\n3,0,2,15,0.25,0.25,0\r\n3,0,3,15,0.25,0.25,0\r\n" },
        /* layer 0: 41.5 nats over 30 tokens; layer 1: H(1/6, 1/6, 2/3) = 1.252 bits, 8 nats over 30 tokens */
        { "router-entropy", { "run", "3" }, "3,0,4,60,2,2,1.996,1,0\r\n3,1,4,60,1.252,2,0.385,2.67,1\r\n" },
        { "right-wrong", { "a", "2", "b", "1", "task", "alpha" }, /* run 2 has the first three, run 1 the first two */
          "alpha,validation,loglikelihood,acc,2,alpha-2,0,0,0,\"[-1.5,-2.25]\",\"[-1.5,-2.25]\"\r\n" },
        { "failures", { NULL }, "5,dora,1,failed,4/4," },
        { "sweeps", { NULL }, "methods,5,4,0,0,1,lora,loglikelihood,acc," },
        { "seeds", { "sweep", "methods", "task", "alpha" },
          "lora,1,1,finished,alpha,validation,33.33,10,6\r\nlora,2,2,finished,alpha,validation,50,10,6\r\n" },
        { "scores", { "run", "1", "task", "alpha", "all", "1" },
          "1,lora,lora,1,alpha,validation,loglikelihood,acc,0,6,0,10,50,\r\n1,lora,lora,1,alpha,validation,loglikelihood,acc,4,6,33.33,10,50,\r\n" },
        { "budget", { "run", "3" }, "3,mixlora,mixlora,1,10,2,10,60,4,100,50,1," },
        { "losses", { "run", "1", "every", "4" }, "1,1,1,,,,,,,50\r\n1,4,0.25,,,,,,,50\r\n" },
        { "environment", { NULL }, "5,1,5," },
    };
    scratch x = scratch_open();
    mx_store *s;

    filled(scratch_path(&x, "a.db"));
    s = open_to_read(scratch_path(&x, "a.db"));
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char *text = csv_of(&x, s, expected[i].name, expected[i].given), *found = strstr(text, "\r\n");

        cr_assert(found && strstr(found, expected[i].rows), "%s says\n%s, and not\n%s", expected[i].name, text, expected[i].rows);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(query, whatever_does_not_read_is_refused_and_changes_nothing) {
    static const struct {
        const char *sql, *says;
    } wrong[] = {
        { "DELETE FROM runs", "it may not write" },
        { "INSERT INTO words VALUES (1, 'x', 'y')", "it may not write" },
        { "UPDATE runs SET state = 'failed'", "it may not write" },
        { "WITH x AS (SELECT 1) DELETE FROM runs", "it may not write" },
        { "SELECT 1; DROP TABLE runs", "a second statement" },
        { "SELECT 1; SELECT 2", "a second statement" },
        { "SELECT 1; nonsense", "a second statement" },
        { "ATTACH 'other.db' AS other", "it may not attach another database" },
        { "VACUUM INTO 'other.db'", "not a SELECT" },
        { "PRAGMA user_version = 9", "it may not use this PRAGMA" },
        { "PRAGMA journal_mode = DELETE", "it may not use this PRAGMA" },
        { "PRAGMA writable_schema = ON", "it may not use this PRAGMA" },
        { "CREATE TEMP TABLE x (y)", "it may not write" },
        { "DROP VIEW accuracy", "it may not write" },
        { "UPDATE sqlite_master SET sql = ''", "may not be modified" },
        { "BEGIN IMMEDIATE", "it may not write" },
        { "-- nothing here", "holds no statement" },
        { "SELECT load_extension('x.so')", "not authorized" },
        { "SELECT ?", "a parameter without a name" },
        { "SELECT 9223372036854775807 + SUM(n) FROM (SELECT 9223372036854775807 AS n UNION ALL SELECT 1)", "integer overflow" },
    };
    scratch x = scratch_open();
    const char *path = scratch_path(&x, "a.db");
    char before[MX_SHA256_TEXT], after[MX_SHA256_TEXT];
    mx_status none = { 0 };
    mx_store *s;

    filled(path);
    cr_assert_eq(mx_sha256_file(path, before, &none), MX_OK);
    s = open_to_read(path);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        mx_status st = { 0 };
        mx_text out;
        mx_code code = answer(&x, s, wrong[i].sql, MX_FORMAT_CSV, NULL, &out, &st);

        cr_assert_eq(code, MX_E_USAGE, "%s was let through: %s", wrong[i].sql, out.data);
        cr_assert(strstr(st.text, wrong[i].says), "%s: %s", wrong[i].sql, st.text);
        mx_text_finish(&out);
    }
    mx_store_close(s);
    cr_assert_eq(mx_sha256_file(path, after, &none), MX_OK);
    cr_assert_str_eq(before, after);
    scratch_close(&x);
}

Test(query, mistakes_are_shown_at_their_place_with_the_near_word) {
    static const struct {
        const char *sql, *says;
        uint32_t line, column, length;
        const char *hint;
    } wrong[] = {
        { "SELECT lyer FROM router_loads", "no such column: lyer", 1, 8, 4, "did you mean 'layer'?" },
        { "SELECT l.task,\n  l.tokns\nFROM router_loads l", "no such column: l.tokns", 2, 5, 5, "did you mean 'tokens'?" },
        { "SELECT *\n FROM predictons", "no such table: predictons", 2, 7, 10, "did you mean 'predictions'?" },
        { "SELECT run, FROM runs", "near \"FROM\": syntax error", 1, 13, 4, "" },
        { "SELECT 1 FROM runs; SELECT 2", "a second statement", 1, 21, 6, "" },
        { "SELECT zzzzzzzzzzzz FROM runs", "no such column: zzzzzzzzzzzz", 1, 8, 12, "tables and columns:" },
    };
    scratch x = scratch_open();
    mx_store *s;

    filled(scratch_path(&x, "a.db"));
    s = open_to_read(scratch_path(&x, "a.db"));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        mx_status st = { 0 };
        mx_text out;

        cr_assert_eq(answer(&x, s, wrong[i].sql, MX_FORMAT_CSV, NULL, &out, &st), MX_E_USAGE);
        cr_assert(strstr(st.text, wrong[i].says), "%s", st.text);
        cr_assert(st.at.line == wrong[i].line && st.at.column == wrong[i].column && st.at.length == wrong[i].length, "%s: at %u:%u, %u long",
                  wrong[i].sql, st.at.line, st.at.column, st.at.length);
        cr_assert(strncmp(st.hint, wrong[i].hint, strlen(wrong[i].hint)) == 0, "the hint is '%s'", st.hint);
        mx_text_finish(&out);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(query, parameters_are_runs_sweeps_numbers_and_texts) {
    static const struct {
        const char *sql, *given[5], *rows;
    } good[] = {
        { "SELECT run_id FROM runs WHERE run_id = :run", { "run", "mixlora" }, "run_id\r\n4\r\n" }, /* the newest of that name */
        { "SELECT run_id FROM runs WHERE run_id > :least AND method = :m", { "least", "3", "m", "mixlora" }, "run_id\r\n4\r\n" },
        { "SELECT typeof(:x) AS t, typeof(:y) AS u", { "x", "1e-3", "y", "abc" }, "t,u\r\nreal,text\r\n" },
        { "-- mine: a test\n-- :k (7) a number\n-- :o (any) more\nSELECT :k AS k, :o AS o", { NULL }, "k,o\r\n7,\r\n" },
        { "SELECT COUNT(*) AS n FROM sweep_runs WHERE sweep = :sweep", { "sweep", "methods" }, "n\r\n5\r\n" },
    };
    static const struct {
        const char *sql, *given[3], *says, *hint;
    } wrong[] = {
        { "SELECT :x", { NULL }, "the query needs 'x'", "give it as --x VALUE" },
        { "right-wrong", { "a", "1" }, "right-wrong needs 'b': the run that is wrong", "give it as --b VALUE" },
        { "scores", { "tsk", "alpha" }, "scores has no parameter 'tsk'", "did you mean 'task'?" },
        { "sweeps", { "frobnicate", "1" }, "sweeps has no parameter 'frobnicate'", "it has none" },
        { "scores", { "run", "99" }, "there is no run '99'", "mixrun ls" },
        { "scores", { "sweep", "method" }, "there is no sweep 'method'", "did you mean 'methods'?" },
    };
    scratch x = scratch_open();
    mx_store *s;

    filled(scratch_path(&x, "a.db"));
    s = open_to_read(scratch_path(&x, "a.db"));
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cr_assert_str_eq(csv_of(&x, s, good[i].sql, good[i].given), good[i].rows);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        mx_status st = { 0 };
        mx_text out;

        cr_assert_eq(answer(&x, s, wrong[i].sql, MX_FORMAT_CSV, wrong[i].given, &out, &st), MX_E_USAGE);
        cr_assert(strstr(st.text, wrong[i].says), "%s", st.text);
        cr_assert(strstr(st.hint, wrong[i].hint), "%s", st.hint);
        mx_text_finish(&out);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(query, formats_keep_digits_for_programs_and_align_for_people) {
    static const char sql[] = "SELECT 7 AS n, 0.1 + 0.2 AS x, 'a,\"b\"\nc' AS t, NULL AS z, x'00ff' AS b, 12345678.25 AS x UNION ALL SELECT 10, 2.5, '', 1, x'', 1";
    static const struct {
        mx_format format;
        const char *text;
    } expected[] = {
        { MX_FORMAT_CSV, "n,x,t,z,b,x\r\n7,0.30000000000000004,\"a,\"\"b\"\"\nc\",,00ff,12345678.25\r\n10,2.5,,1,,1\r\n" },
        { MX_FORMAT_JSON, "[\n{\"n\": 7, \"x\": 0.30000000000000004, \"t\": \"a,\\\"b\\\"\\nc\", \"z\": null, \"b\": \"00ff\", \"x_2\": 12345678.25},\n"
                          "{\"n\": 10, \"x\": 2.5, \"t\": \"\", \"z\": 1, \"b\": \"\", \"x_2\": 1}\n]\n" },
        { MX_FORMAT_TABLE, "  n    x  t         z  b            x\n  7  0.3  a,\"b\"\\nc     00ff  12345678\n 10  2.5            1               1\n" },
    };
    scratch x = scratch_open();
    mx_store *s;

    filled(scratch_path(&x, "a.db"));
    s = open_to_read(scratch_path(&x, "a.db"));
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        mx_text out;
        mx_status st = { 0 };

        cr_assert(answer(&x, s, sql, expected[i].format, NULL, &out, &st) == MX_OK, "%s", st.text);
        cr_assert_str_eq(out.data, expected[i].text);
        mx_text_finish(&out);
        if (expected[i].format != MX_FORMAT_TABLE) { /* no rows */
            cr_assert(answer(&x, s, "SELECT 1 AS n WHERE 0", expected[i].format, NULL, &out, &st) == MX_OK, "%s", st.text);
            cr_assert_str_eq(out.data, expected[i].format == MX_FORMAT_CSV ? "n\r\n" : "[\n]\n");
            mx_text_finish(&out);
        }
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(query, an_endless_query_is_broken_off_and_a_huge_table_refused) {
    static const char endless[] = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c";
    static const char huge[] = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100000) SELECT printf('%0999d', x) FROM c";
    scratch x = scratch_open();
    volatile int stop = 1;
    mx_query q;
    mx_text out;
    mx_query_wish wish = { .format = MX_FORMAT_CSV, .stop = &stop, .put = collect, .to = &out };
    mx_status st = { 0 };
    mx_store *s;

    filled(scratch_path(&x, "a.db"));
    s = open_to_read(scratch_path(&x, "a.db"));
    mx_text_init(&out, (size_t)1 << 30);
    mx_query_of("the query", endless, &x.arena, &q);
    cr_assert_eq(mx_query_run(s, &q, &wish, &x.arena, &st), MX_E_STOPPED, "%s", st.text);
    st = (mx_status){ 0 };
    stop = 0;
    mx_query_of("the query", huge, &x.arena, &q);
    wish.format = MX_FORMAT_TABLE;
    cr_assert_eq(mx_query_run(s, &q, &wish, &x.arena, &st), MX_E_USAGE);
    cr_assert(strstr(st.text, "too long for a table") && strstr(st.hint, "--format csv"), "%s %s", st.text, st.hint);
    cr_assert_eq(out.length, 0, "nothing was put");
    wish.format = MX_FORMAT_CSV;
    st = (mx_status){ 0 };
    cr_assert(mx_query_run(s, &q, &wish, &x.arena, &st) == MX_OK, "%s", st.text);
    cr_assert(out.length > 100000 * 999);
    mx_text_finish(&out);
    mx_store_close(s);
    scratch_close(&x);
}

/* The ten examples of reports/README.md, as they stand there. */
Test(query, the_examples_of_the_readme_all_find_something) {
    scratch x = scratch_open();
    const char *path = mx_arena_text(&x.arena, "%s/reports/README.md", getenv("MIXRUN_HOME"));
    char *readme;
    size_t size;
    int count = 0;
    mx_status st = { 0 };
    mx_store *s;

    filled(scratch_path(&x, "a.db"));
    s = open_to_read(scratch_path(&x, "a.db"));
    cr_assert(mx_file_read(path, 1 << 20, &readme, &size, &st) == MX_OK, "%s", st.text);
    for (char *at = readme; (at = strstr(at, "```sql\n")); count++) {
        char *end = strstr(at + 7, "```"), *text, *sql = mx_arena_copy(&x.arena, at + 7, (size_t)(end - at - 7));

        text = csv_of(&x, s, sql, NULL);
        cr_assert(strchr(text, '\n')[1], "finds nothing:\n%s", sql);
        at = end + 3;
    }
    cr_assert_eq(count, 10, "%d examples", count);
    free(readme);
    mx_store_close(s);
    scratch_close(&x);
}

/* One more evaluation, its first `right` questions answered right. */
static void score_also(mx_store *s, int64_t run, const char *split, const char *protocol, int64_t step, int64_t n, int64_t right) {
    mx_evaluation_row e = { .task = "alpha", .split = split, .protocol = protocol, .epoch = 1, .step = step, .n = n, .task_hash = "alpha",
                            .data_hash = "data-a" };
    int64_t id;
    mx_status st = { 0 };

    MUST(mx_store_begin(s, &st));
    MUST(mx_store_evaluation(s, run, &e, &id, &st));
    for (int64_t q = 0; q < n; q++) {
        double score[2] = { -1.5, -2.25 };

        MUST(mx_store_prediction(s, id, q, "more", 0, score, 2, &st));
        MUST(mx_store_outcome(s, id, "acc", q, 0, q < right, &st));
    }
    MUST(mx_store_score(s, id, "acc", (double)right / (double)n, 0.1, 0.5, &st));
    MUST(mx_store_commit(s, &st));
}

/* Task alpha of runs 1 and 3 is scored by a second split, by a second protocol, and once more later than beta. */
static mx_store *unevenly_scored(scratch *x) {
    mx_store *s;

    filled(scratch_path(x, "a.db"));
    s = open_store(scratch_path(x, "a.db"));
    for (int64_t run = 1; run <= 3; run += 2) {
        score_also(s, run, "test", "loglikelihood", 4, 2, run == 3);
        score_also(s, run, "validation", "label_logits", 4, 6, run == 3 ? 6 : 5);
        score_also(s, run, "validation", "loglikelihood", 8, 6, 6);
    }
    mx_store_close(s);
    return open_to_read(scratch_path(x, "a.db"));
}

Test(query, the_examples_of_the_readme_count_a_question_once_and_mix_no_splits_or_protocols) {
    static const struct {
        const char *head, *rows;
    } expected[] = {
        { "(what McNemar's test counts)", /* run 3 answers q < 4 right, run 1 q < 2, of 6 and of 4 */
          "alpha,test,loglikelihood,4,0,1,0,1\r\nalpha,validation,label_logits,4,5,1,0,0\r\nalpha,validation,loglikelihood,4,2,2,0,2\r\n"
          "alpha,validation,loglikelihood,8,6,0,0,0\r\nbeta,validation,loglikelihood,4,2,2,0,0\r\n" },
        { "The best run of each method", /* the last two: alpha at step 8, beta at step 4: (1 + 1) / 2 and (1 + 1/2) / 2 */
          "test,loglikelihood,acc,mixlora,3,mixlora,1,50,1\r\ntest,loglikelihood,acc,lora,1,lora,1,0,1\r\n"
          "validation,label_logits,acc,mixlora,3,mixlora,1,100,1\r\nvalidation,label_logits,acc,lora,1,lora,1,83.3,1\r\n"
          "validation,loglikelihood,acc,mixlora,3,mixlora,1,100,2\r\nvalidation,loglikelihood,acc,lora,1,lora,1,75,2\r\n" },
        { "Before and after", "1,alpha,validation,loglikelihood,acc,0,100\r\n1,beta,validation,loglikelihood,acc,0,50\r\n2,alpha," },
        { "Experts that work together", /* once: the window of run 3, that of run 4 */
          "3,validation,loglikelihood,0,0,1,7\r\n4,validation,loglikelihood,0,0,1,7\r\n" },
        { "A word's effect", /* r 4: runs 3 and 4, r 8: runs 1 and 2 */
          "alpha,test,loglikelihood,acc,4,1,50\r\nalpha,test,loglikelihood,acc,8,1,0\r\nalpha,validation,label_logits,acc,4,1,100\r\n"
          "alpha,validation,label_logits,acc,8,1,83.3\r\nalpha,validation,loglikelihood,acc,4,2,91.7\r\n"
          "alpha,validation,loglikelihood,acc,8,2,75\r\nbeta,validation,loglikelihood,acc,4,2,100\r\nbeta,validation,loglikelihood,acc,8,2,62.5\r\n" },
    };
    scratch x = scratch_open();
    mx_store *s = unevenly_scored(&x);
    char *readme;
    size_t size;
    mx_status st = { 0 };

    cr_assert(mx_file_read(mx_arena_text(&x.arena, "%s/reports/README.md", getenv("MIXRUN_HOME")), 1 << 20, &readme, &size, &st) == MX_OK, "%s", st.text);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char *at = strstr(readme, expected[i].head), *sql, *text, *found;

        cr_assert(at, "no example begins with %s", expected[i].head);
        at = strstr(at, "```sql\n") + 7;
        sql = mx_arena_copy(&x.arena, at, (size_t)(strstr(at, "```") - at));
        text = csv_of(&x, s, sql, NULL);
        found = strstr(text, "\r\n") + 2;
        cr_assert(strncmp(found, expected[i].rows, strlen(expected[i].rows)) == 0, "%s:\n%s, and not\n%s", expected[i].head, text, expected[i].rows);
    }
    free(readme);
    mx_store_close(s);
    scratch_close(&x);
}

/* Beta's last evaluation stays its last when alpha is scored later: as the report has it. */
Test(query, router_queries_take_the_last_evaluation_of_each_task_and_protocol) {
    static const struct {
        const char *name, *rows;
    } expected[] = {
        { "router-load", "3,0,0,15,0.25,0.25,0\r\n3,0,1,15,0.25,0.25,0\r\n" },
        { "router-entropy", "3,0,4,30,2,2,1.996,1,0\r\n3,1,4,30,1.252,2,0.385,2.67,1\r\n" },
        { "dead-experts", "3,1,4,1,3,0\r\n" },
        { "task-divergence", "3,0,2,0,1,\"alpha 10, beta 20\"\r\n3,1,2,1,1,\"alpha 10, beta 20\"\r\n" },
    };
    static const char *const given[] = { "run", "3", "split", "validation", NULL };
    scratch x = scratch_open();
    mx_store *s = unevenly_scored(&x);

    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char *text = csv_of(&x, s, expected[i].name, given);

        cr_assert(strstr(text, expected[i].rows), "%s says\n%s, and not\n%s", expected[i].name, text, expected[i].rows);
    }
    mx_store_close(s);
    scratch_close(&x);
}
