/* mixrun report, as a person calls it; and its printed queries, executed again by the sqlite3 program and recomputed by Python. */
#include "tests/runner/support.h"

#include "tests/reports/made_sweep.h"

static void make(scratch *x) {
    mx_store *s = open_store(scratch_path(x, "made.db"));

    made_sweep(s, "made");
    mx_store_close(s);
}

/* Does this machine have a program of that name? */
static bool has_program(const char *name) {
    const char *path = getenv("PATH");
    char full[4096];

    for (size_t at = 0, n; path && path[at]; at += n + (path[at + n] == ':')) {
        n = strcspn(path + at, ":");
        snprintf(full, sizeof full, "%.*s/%s", (int)n, path + at, name);
        if (access(full, X_OK) == 0) {
            return true;
        }
    }
    return false;
}

/* tests/runner/provenance.py on a database and a report of it; its words go to said.txt. */
static int provenance(scratch *x, const char *db, const char *report) {
    const char *home = getenv("MIXRUN_HOME");
    pid_t child;

    cr_assert(home, "MIXRUN_HOME names the source tree");
    child = fork();
    if (child == 0) {
        const char *script = mx_arena_text(&x->arena, "%s/tests/runner/provenance.py", home);

        if (chdir(x->folder) != 0 || dup2(open("said.txt", O_CREAT | O_WRONLY | O_TRUNC, 0644), 1) < 0 || dup2(1, 2) < 0) {
            _exit(120);
        }
        execlp("python3", "python3", script, db, report, (char *)NULL);
        _exit(121);
    }
    return finish(child);
}

static void alter(scratch *x, const char *sql) {
    mx_store *s = open_store(scratch_path(x, "made.db"));
    char *why = NULL;

    cr_assert(sqlite3_exec(mx_store_handle(s), sql, NULL, NULL, &why) == SQLITE_OK, "%s", why);
    mx_store_close(s);
}

Test(report, every_printed_query_gives_what_is_printed) {
    static const char *const reports[] = { "--sweep made", "3,7,11 2,6,10", "4", "1 2" };
    static const struct {
        const char *sql, *says;
    } changes[] = {
        { "UPDATE outcomes SET correct = 1 - correct WHERE number = 7 AND metric = 'acc_norm'", "accuracy" },
        { "UPDATE metrics SET value = value + 0.001 WHERE name = 'loss' AND step = 30", "losses" },
        { "UPDATE router_loads SET tokens = tokens + 1 WHERE layer = 3 AND expert = 1", "balance" },
        { "UPDATE router_pairs SET tokens = tokens + 1 WHERE layer = 0", "pairs-3" },
        { "UPDATE runs SET trained = trained + 1", "budgets" },
        { "UPDATE words SET value = 'x' WHERE word = 'adapter.lora_r'", "words" },
    };
    scratch x = scratch_open();

    if (!has_program("sqlite3") || !has_program("python3")) {
        scratch_close(&x);
        cr_skip_test("needs the programs sqlite3 and python3");
    }
    make(&x);
    for (size_t i = 0; i < sizeof reports / sizeof reports[0]; i++) {
        program(&x, 0, "report %s --db made.db -o r.html", reports[i]);
        cr_assert_eq(provenance(&x, "made.db", "r.html"), 0, "report %s:\n%s", reports[i], output(&x, "said.txt"));
        cr_assert(strstr(output(&x, "said.txt"), "all agree"));
    }
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) { /* and the test can fail: a report of yesterday's rows is found out */
        program(&x, 0, "report --sweep made --db made.db -o r.html");
        alter(&x, changes[i].sql);
        cr_assert_eq(provenance(&x, "made.db", "r.html"), 1, "%s went unnoticed", changes[i].sql);
        cr_assert(strstr(output(&x, "said.txt"), changes[i].says), "%s: %s", changes[i].sql, output(&x, "said.txt"));
    }
    scratch_close(&x);
}

Test(report, a_finished_run_of_the_program_has_one) {
    scratch x = scratch_open();
    const char *page;

    tiny_recipe(&x, "r.yaml", "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n  top_k: 2\n");
    program(&x, 0, "r.yaml");
    program(&x, 0, "report 1 -o r.html");
    cr_assert_str_eq(output(&x, "out.txt"), "", "data goes into the file");
    page = output(&x, "r.html");
    cr_assert(strstr(page, "figure id=\"losses\"") && strstr(page, "figure id=\"router-1\"") && strstr(page, "figure id=\"pairs-1\"") && strstr(page, "sample_obqa"));
    cr_assert(strstr(page, "figure id=\"accuracy-label_logits-acc\""), "the other protocol's scores stand there too");
    if (has_program("sqlite3") && has_program("python3")) {
        cr_assert_eq(provenance(&x, "mixrun.db", "r.html"), 0, "%s", output(&x, "said.txt"));
    }
    scratch_close(&x);
}

Test(report, bytes_depend_on_the_database_and_the_date_alone) {
    scratch x = scratch_open();
    const char *first;

    make(&x);
    program(&x, 0, "report --sweep made --db made.db -o r.html");
    first = output(&x, "r.html");
    setenv("TZ", "Pacific/Kiritimati", 1);
    setenv("LC_ALL", "de_DE.UTF-8", 1);
    program(&x, 0, "report --sweep made --db made.db");
    cr_assert_str_eq(output(&x, "out.txt"), first, "to standard output, in another zone and language");
    setenv("SOURCE_DATE_EPOCH", "951782400", 1);
    program(&x, 0, "report --sweep made --db made.db");
    cr_assert(strstr(output(&x, "out.txt"), "2000-02-29"));
    setenv("SOURCE_DATE_EPOCH", "yesterday", 1);
    program(&x, 2, "report --sweep made --db made.db");
    cr_assert(strstr(output(&x, "err.txt"), "SOURCE_DATE_EPOCH is 'yesterday'"));
    scratch_close(&x);
}

Test(report, mistakes_are_told) {
    static const struct {
        const char *line, *says;
        int code;
    } wrong[] = {
        { "report --db made.db", "a report of what?", 2 },
        { "report 1 --sweep made --db made.db", "not of both", 2 },
        { "report --sweep mad --db made.db", "did you mean 'made'?", 2 },
        { "report --sweep made --db made.db --format htlm", "did you mean 'html'?", 2 },
        { "report --sweep made --db made.db --table acuracy", "did you mean 'accuracy'?", 2 },
        { "report 99 --db made.db", "99", 2 },
        { "report 1 --db absent.db", "absent.db", 1 },
        { "report 1 --db made.db -o no/such/folder/r.html", "no/such/folder", 1 },
    };
    scratch x = scratch_open();

    make(&x);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        program(&x, wrong[i].code, "%s", wrong[i].line);
        cr_assert(strstr(output(&x, "err.txt"), wrong[i].says), "mixrun %s says: %s", wrong[i].line, output(&x, "err.txt"));
        cr_assert_str_eq(output(&x, "out.txt"), "", "mixrun %s", wrong[i].line);
    }
    scratch_close(&x);
}
