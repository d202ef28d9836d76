/* mixrun compare, as a person meets it: tables with budgets, words, sentences; other programs' formats; and its SELECTs in sqlite3. */
#include "tests/runner/support.h"

#include "base/json.h"
#include "tests/reports/compared.h"

#include <math.h>

static void database(scratch *x) {
    mx_store *s = open_store(scratch_path(x, "mixrun.db"));

    made_sweep(s, 0);
    mx_store_close(s);
}

/* The words of `line` cannot hold spaces; names of variants here can. */
static int compare(scratch *x, const char *flag, const char *value) {
    pid_t child = fork();

    if (child == 0) {
        if (chdir(x->folder) != 0 || dup2(open("out.txt", O_CREAT | O_WRONLY | O_TRUNC, 0644), 1) < 0 ||
            dup2(open("err.txt", O_CREAT | O_WRONLY | O_TRUNC, 0644), 2) < 0) {
            _exit(120);
        }
        execl(getenv("MIXRUN_PROGRAM"), "mixrun", "compare", "--sweep", "methods", flag, value, (char *)NULL);
        _exit(121);
    }
    return finish(child);
}

Test(compare, the_table_is_the_storyboards) {
    scratch x = scratch_open();
    const char *out;

    database(&x);
    program(&x, 0, "compare --sweep methods");
    out = output(&x, "out.txt");
    cr_assert(strstr(out, "Accuracy in percent, loglikelihood acc_norm, validation, sweep methods"), "%s", out);
    cr_assert(strstr(out, "95 % interval") && strstr(out, "majority") && strstr(out, "trained values") && strstr(out, "tokens/s"), "%s", out);
    cr_assert(strstr(out, "easy, against lora") && strstr(out, "hard, against lora") && strstr(out, "mean over tasks, against lora"), "%s", out);
    cr_assert(strstr(out, "small (0.20x the values)"), "%s", out);
    cr_assert(strstr(out, "p (Holm)") && strstr(out, "not resolved"), "%s", out);
    cr_assert(strstr(out, "would be missed more than one time in five"), "%s", out);
    cr_assert(strstr(out, "Fewer than five seeds") && strstr(out, "unadjusted"), "%s", out);
    cr_assert_not(strstr(out, "-nan") || strstr(out, "inf"), "%s", out);
    cr_assert_str_eq(output(&x, "err.txt"), "");
    program(&x, 0, "compare 2 1 --best-epoch");
    cr_assert(strstr(output(&x, "out.txt"), "BEST EPOCH"));
    cr_assert(strstr(output(&x, "out.txt"), "mid-p"), "one seed has it");
    cr_assert_eq(compare(&x, "--variant", "mix 'n lora"), 0);
    cr_assert(strstr(output(&x, "out.txt"), "mix 'n lora") && !strstr(output(&x, "out.txt"), "small (0.20x"));
    cr_assert_eq(compare(&x, "--baseline", "small"), 0);
    cr_assert(strstr(output(&x, "out.txt"), "easy, against small"));
    scratch_close(&x);
}

/* What the sqlite3 program prints for a statement: its lines, the text in the arena. */
static char *sqlite3_program(scratch *x, const char *sql) {
    mx_status st = { 0 };
    char *command = mx_arena_text(&x->arena, "cd %s && sqlite3 -readonly mixrun.db < ask.sql > answer.txt", x->folder);
    const char *whole = mx_arena_text(&x->arena, "%s;\n", sql);

    cr_assert_eq(mx_file_write(scratch_path(x, "ask.sql"), whole, strlen(whole), &st), MX_OK);
    cr_assert_eq(system(command), 0, "sqlite3 refuses: %s", sql);
    return output(x, "answer.txt");
}

Test(compare, json_holds_everything_and_its_selects_run_in_sqlite3) {
    scratch x = scratch_open();
    json_t *root, *rows, *row;
    mx_status st = { 0 };
    const char *out;
    size_t i;

    database(&x);
    program(&x, 0, "compare --sweep methods --format json");
    out = output(&x, "out.txt");
    cr_assert_eq(mx_json_parse(out, strlen(out), "out.txt", 1, &root, &st), MX_OK, "%s\n%s", st.text, out);
    cr_assert_eq(json_array_size(json_object_get(root, "sides")), 3);
    cr_assert_eq(json_array_size(json_object_get(root, "scores")), 9);
    cr_assert(json_array_size(json_object_get(root, "notes")) >= 3);
    rows = json_object_get(root, "differences");
    cr_assert_eq(json_array_size(rows), 6);
    json_array_foreach(rows, i, row) {
        char *answer = sqlite3_program(&x, json_string_value(json_object_get(row, "sql"))), *save = NULL;
        double sum[2] = { 0 }, n[2] = { 0 };

        for (char *line = strtok_r(answer, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) { /* task|seed|number|variant|baseline */
            int seed, number, variant, baseline, t = strncmp(line, "hard", 4) == 0;

            cr_assert_eq(sscanf(line + 5, "%d|%d|%d|%d", &seed, &number, &variant, &baseline), 4, "%s", line);
            sum[t] += variant - baseline;
            n[t]++;
        }
        cr_assert_float_eq((n[0] ? sum[0] / n[0] : 0) / (n[0] && n[1] ? 2 : 1) + (n[1] ? sum[1] / n[1] : 0) / (n[0] && n[1] ? 2 : 1),
                           json_real_value(json_object_get(row, "difference")), 1e-12);
    }
    sqlite3_program(&x, json_string_value(json_object_get(root, "sql_runs")));
    json_array_foreach(json_object_get(root, "sides"), i, row) {
        cr_assert(strstr(sqlite3_program(&x, json_string_value(json_object_get(row, "sql"))), "|80.0|3145728.0"), "tokens/s and memory");
    }
    json_array_foreach(json_object_get(root, "scores"), i, row) {
        sqlite3_program(&x, json_string_value(json_object_get(row, "sql")));
        sqlite3_program(&x, json_string_value(json_object_get(row, "sql_scores")));
    }
    json_decref(root);
    scratch_close(&x);
}

static int count(const char *text, const char *what) {
    int n = 0;

    for (; (text = strstr(text, what)); text += strlen(what)) {
        n++;
    }
    return n;
}

Test(compare, the_other_formats_are_whole) {
    scratch x = scratch_open();
    const char *out, *line;

    database(&x);
    program(&x, 0, "compare --sweep methods --format csv");
    out = output(&x, "out.txt");
    cr_assert_eq(count(out, "\r\n"), 7, "a head and six rows:\n%s", out);
    line = strstr(out, "\r\n") + 2;
    cr_assert_eq(strncmp(line, "easy,loglikelihood,acc_norm,validation,mix 'n lora,lora,10,3,0.26666", 68), 0, "%s", line);
    cr_assert(strstr(output(&x, "err.txt"), "unadjusted"), "the sentences go to stderr");
    program(&x, 0, "compare --sweep methods --format markdown");
    out = output(&x, "out.txt");
    cr_assert_eq(count(out, "| mix 'n lora |"), 6, "three accuracies and three differences:\n%s", out);
    cr_assert(strstr(out, "\n- Intervals are"), "%s", out);
    program(&x, 0, "compare --sweep methods --format latex");
    out = output(&x, "out.txt");
    cr_assert_eq(count(out, "\\begin{tabular}"), 2);
    cr_assert(strstr(out, "95 \\% interval") && strstr(out, "\n% Intervals are"), "%s", out);
    scratch_close(&x);
}

Test(compare, mistakes_are_told_with_what_to_do) {
    static const struct {
        const char *line, *says;
        int exit_code;
    } wrong[] = {
        { "compare", "two sides are compared", 2 },
        { "compare 1", "two sides are compared", 2 },
        { "compare 1 2 --sweep methods", "runs cannot be named beside it", 2 },
        { "compare 1 2 --baseline 3", "belong to --sweep", 2 },
        { "compare 1 2 --format xml", "none of: table", 2 },
        { "compare 1 77", "there is no run '77'", 2 },
        { "compare --sweep methds", "did you mean 'methods'?", 2 },
        { "compare 1 2 --db absent.db", "absent.db", 1 },
        { "compare 1 2 --protocol label_logits", "nothing was scored under label_logits acc", 2 },
    };
    scratch x = scratch_open();

    database(&x);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        program(&x, wrong[i].exit_code, "%s", wrong[i].line);
        cr_assert(strstr(output(&x, "err.txt"), wrong[i].says), "mixrun %s says: %s", wrong[i].line, output(&x, "err.txt"));
        cr_assert_str_eq(output(&x, "out.txt"), "");
    }
    scratch_close(&x);
}
