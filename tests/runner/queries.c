/* What the program tells of a filled database, and takes away from it; and what it says when the database cannot be used. */
#include "tests/reports/filled.h"
#include "tests/runner/support.h"

#include "base/json.h"

#include <pty.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Runs the program with these words (a query is one word) in x->folder and gives its exit code; `prepare` runs in the child first. */
static int words(scratch *x, void (*prepare)(scratch *x), const char *const *word) {
    pid_t child = fork();

    if (child == 0) {
        char *argv[32] = { getenv("MIXRUN_PROGRAM") };

        for (int i = 0; word[i]; i++) {
            argv[i + 1] = (char *)(uintptr_t)word[i];
        }
        if (chdir(x->folder) != 0 || dup2(open("out.txt", O_CREAT | O_WRONLY | O_TRUNC, 0644), 1) < 0 ||
            dup2(open("err.txt", O_CREAT | O_WRONLY | O_TRUNC, 0644), 2) < 0) {
            _exit(120);
        }
        setenv("XDG_CACHE_HOME", x->folder, 1);
        if (prepare) {
            prepare(x);
        }
        execv(argv[0], argv);
        _exit(121);
    }
    return finish(child);
}
#define RUN(...) words(&x, NULL, (const char *const[]){ __VA_ARGS__, NULL })
#define AS(prepare, ...) words(&x, prepare, (const char *const[]){ __VA_ARGS__, NULL })

static void says(scratch *x, const char *file, const char *text) {
    cr_assert(strstr(output(x, file), text), "%s does not say '%s':\n%s", file, text, output(x, file));
}

static json_t *parsed(scratch *x) {
    char *text = output(x, "out.txt");
    json_t *o;
    mx_status st = { 0 };

    cr_assert(mx_json_parse(text, strlen(text), "out.txt", 1, &o, &st) == MX_OK, "%s\n%s", st.text, text);
    return o;
}

static int lines(const char *text) {
    int n = 0;

    for (; *text; text++) {
        n += *text == '\n';
    }
    return n;
}

Test(queries, ls_filters_sorts_and_marks) {
    static const struct {
        const char *line;
        int runs;
        const char *first; /* of the first line */
    } asked[] = {
        { "ls", 5, " 5  dora" },
        { "ls --sweep methods", 4, " 4  mixlora" },
        { "ls --method lora", 2, " 2  lora" },
        { "ls --name *lora --sort run", 4, " 1  lora" },
        { "ls --state failed", 1, " 5  dora" },
        { "ls --task alpha -n 2 --sort score", 2, " 1  lora" },
        { "ls --sort -score -n 1", 1, " 4  mixlora" },
        { "ls --limited yes", 1, " 2  lora" },
        { "ls --limited no", 4, " 5  dora" },
    };
    scratch x = scratch_open();
    mx_store *s;
    json_t *o;

    filled(scratch_path(&x, "mixrun.db"));
    s = open_store(scratch_path(&x, "mixrun.db"));
    cr_assert(sqlite3_exec(mx_store_handle(s), "UPDATE runs SET limited = 1 WHERE run_id = 2", NULL, NULL, NULL) == SQLITE_OK);
    mx_store_close(s);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        char *text, *line;

        program(&x, 0, "%s", asked[i].line);
        text = output(&x, "out.txt");
        cr_assert_eq(lines(text), asked[i].runs + 1, "%s:\n%s", asked[i].line, text);
        line = strchr(text, '\n') + 1;
        *strchr(line, '\n') = '\0';
        cr_assert(strstr(line, asked[i].first), "%s: the first is %s", asked[i].line, line);
    }
    program(&x, 0, "ls --limited yes");
    says(&x, "out.txt", "limited: not a result");
    program(&x, 0, "ls --json");
    cr_assert_eq(lines(output(&x, "out.txt")), 5);
    program(&x, 0, "ls --format json");
    o = parsed(&x);
    cr_assert_eq(json_array_size(o), 5);
    cr_assert_float_eq(json_number_value(json_object_get(json_array_get(o, 1), "score")), 91.7, 0.001); /* (5/6 + 4/4) / 2 */
    json_decref(o);
    program(&x, 0, "ls --name nothing");
    cr_assert_str_eq(output(&x, "out.txt"), " no runs\n");
    scratch_close(&x);
}

Test(queries, show_tells_all_of_a_run) {
    static const char *const told[] = { "run 3  mixlora", "sweep    methods: mixlora", "trained  10 values", "flops    60 a token", "speed    50 tokens",
                                        "memory   1.00 GiB used", "files    runs/3-mixlora", "alpha", "router load", "lora_r: 4" };
    scratch x = scratch_open();
    json_t *o;

    filled(scratch_path(&x, "mixrun.db"));
    program(&x, 0, "show 3");
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        says(&x, "out.txt", told[i]);
    }
    program(&x, 0, "show 3 --json");
    o = parsed(&x);
    cr_assert(strstr(json_string_value(json_object_get(o, "recipe")), "lora_r: 4"));
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "words"), "adapter.method")), "mixlora");
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "environment"), "commit")), "abc1234");
    cr_assert_eq(json_array_size(json_object_get(o, "scores")), 4);
    cr_assert_eq(json_array_size(json_object_get(o, "data_files")), 2);
    cr_assert_eq(json_array_size(json_object_get(o, "router")), 2);
    cr_assert_eq(json_integer_value(json_object_get(json_array_get(json_object_get(o, "router"), 1), "dead")), 1);
    cr_assert_eq(json_integer_value(json_array_get(json_object_get(json_array_get(json_object_get(o, "router"), 1), "tokens"), 2)), 80);
    cr_assert_float_eq(json_number_value(json_object_get(json_object_get(o, "last"), "loss")), 0.25, 0);
    json_decref(o);
    scratch_close(&x);
}

Test(queries, query_takes_a_name_a_file_or_sql) {
    static const char mine[] = "-- mine: runs from a number on\n-- :least (2) that number\nSELECT run_id FROM runs WHERE run_id >= :least\n";
    scratch x = scratch_open();
    mx_status st = { 0 };

    filled(scratch_path(&x, "mixrun.db"));
    MUST(mx_file_write(scratch_path(&x, "mine.sql"), mine, strlen(mine), &st));
    program(&x, 0, "query");
    says(&x, "out.txt", "router-load");
    program(&x, 0, "query router-load --sql");
    says(&x, "out.txt", "SELECT");
    program(&x, 0, "query router-load --run 3 --layer 1 --format csv");
    cr_assert_eq(lines(output(&x, "out.txt")), 5);
    program(&x, 0, "query mine.sql --format csv");
    cr_assert_str_eq(output(&x, "out.txt"), "run_id\r\n2\r\n3\r\n4\r\n5\r\n");
    program(&x, 0, "query ./mine.sql least=5 --format csv -o answer.csv");
    cr_assert_str_eq(output(&x, "out.txt"), "");
    cr_assert_str_eq(output(&x, "answer.csv"), "run_id\r\n5\r\n");
    cr_assert_eq(RUN("query", "SELECT COUNT(*) AS n FROM runs WHERE method = :m", "--m=lora", "--format", "json"), 0);
    cr_assert_str_eq(output(&x, "out.txt"), "[\n{\"n\": 2}\n]\n");
    cr_assert_eq(RUN("query", "SELECT n FROM runs", "-o", "answer.csv"), 2);
    says(&x, "err.txt", "the query:1:8: error: no such column: n");
    says(&x, "err.txt", "      |        ^");
    cr_assert_str_eq(output(&x, "answer.csv"), "run_id\r\n5\r\n", "an answer that failed leaves the old one");
    cr_assert_eq(RUN("query", "router-lod"), 2);
    says(&x, "err.txt", "did you mean 'router-load'?");
    cr_assert_eq(RUN("query", "scores", "--task", "alpha", "word"), 2);
    says(&x, "err.txt", "'word' is no parameter");
    cr_assert_eq(RUN("query", "--split", "train", "router-load"), 2);
    says(&x, "err.txt", "parameters stand after the query");
    cr_assert_eq(RUN("query", "DELETE FROM runs"), 2);
    says(&x, "err.txt", "it may not write");
    scratch_close(&x);
}

Test(queries, ctrl_c_breaks_a_long_query_off) {
    static const char endless[] = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c\n";
    scratch x = scratch_open();
    mx_status st = { 0 };
    pid_t child;

    filled(scratch_path(&x, "mixrun.db"));
    MUST(mx_file_write(scratch_path(&x, "endless.sql"), endless, strlen(endless), &st));
    child = start(&x, "query endless.sql");
    usleep(300000); /* it has begun by then; a signal before would end the process as one */
    kill(child, SIGINT);
    cr_assert_eq(finish(child), 75);
    says(&x, "err.txt", "the query was broken off");
    scratch_close(&x);
}

Test(queries, diff_and_export_find_their_runs) {
    scratch x = scratch_open();

    filled(scratch_path(&x, "mixrun.db"));
    program(&x, 0, "diff 1 2");
    says(&x, "out.txt", "seed");
    program(&x, 0, "diff 1 1");
    cr_assert_str_eq(output(&x, "out.txt"), " nothing differs in meaning\n");
    program(&x, 0, "diff lora mixlora --format json");
    json_decref(parsed(&x));
    program(&x, 2, "diff 1 99");
    program(&x, 0, "export 1 3 -o lm");
    cr_assert_eq(lines(output(&x, "out.txt")), 2);
    program(&x, 2, "export 1 -o lm");
    says(&x, "err.txt", "--force");
    program(&x, 0, "export 1 -o lm --force");
    scratch_close(&x);
}

/* At a terminal, with this said at the question. */
static int at_terminal(scratch *x, const char *line, const char *answer, char *told, size_t size) {
    char *argv[16] = { getenv("MIXRUN_PROGRAM") }, *copy = mx_arena_copy(&x->arena, line, strlen(line)), *save = NULL;
    int terminal, n = 1;
    size_t got = 0;
    ssize_t more;
    pid_t child;

    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        argv[n++] = w;
    }
    child = forkpty(&terminal, NULL, NULL, NULL);
    if (child == 0) {
        if (chdir(x->folder) == 0) {
            execv(argv[0], argv);
        }
        _exit(121);
    }
    while (got + 1 < size && (more = read(terminal, told + got, size - 1 - got)) > 0) {
        got += (size_t)more;
        told[got] = '\0';
        if (answer && strstr(told, "[y/N]")) {
            cr_assert_eq(write(terminal, answer, strlen(answer)), (ssize_t)strlen(answer));
            answer = NULL;
        }
    }
    n = finish(child);
    close(terminal);
    return n;
}

Test(queries, rm_and_gc_ask_first) {
    scratch x = scratch_open();
    char told[8192] = "";

    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 2\n");
    program(&x, 0, "r.yaml train.num_epochs=1");
    program(&x, 0, "r.yaml train.num_epochs=1 seed=4");
    cr_assert(mx_file_exists(scratch_path(&x, "runs/1-r/adapter/adapter_model.safetensors")));
    program(&x, 2, "rm 1");
    says(&x, "err.txt", "--yes");
    cr_assert_eq(at_terminal(&x, "rm 1", "n\n", told, sizeof told), 0, "%s", told);
    cr_assert(strstr(told, "rows, ") && strstr(told, "in runs/1-r") && strstr(told, "nothing was removed"), "%s", told);
    cr_assert(mx_folder_exists(scratch_path(&x, "runs/1-r")));
    cr_assert_eq(at_terminal(&x, "rm 1", "y\n", told, sizeof told), 0, "%s", told);
    cr_assert(strstr(told, "removed 1 run"), "%s", told);
    cr_assert_not(mx_folder_exists(scratch_path(&x, "runs/1-r")));
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT run_id FROM runs"), "2\n");
    program(&x, 2, "rm 1 --yes");
    program(&x, 0, "gc --dry-run");
    says(&x, "out.txt", "free pages of the database");
    program(&x, 2, "gc");
    program(&x, 0, "gc --yes");
    cr_assert_str_eq(rows(&x, "mixrun.db", "PRAGMA freelist_count"), "0\n");
    program(&x, 0, "gc --dry-run");
    says(&x, "out.txt", "there is nothing to clear");
    program(&x, 2, "gc --older-than soon");
    program(&x, 0, "rm 2 --yes");
    cr_assert_not(mx_folder_exists(scratch_path(&x, "runs/2-r")));
    program(&x, 0, "ls");
    scratch_close(&x);
}

static void change(scratch *x, const char *sql) {
    mx_store *s = open_store(scratch_path(x, "mixrun.db"));

    cr_assert(sqlite3_exec(mx_store_handle(s), sql, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(mx_store_handle(s)));
    mx_store_close(s);
}

Test(queries, ls_scores_one_split_and_held_out_questions_only_where_there_is_no_other) {
    static const char more[] = "INSERT INTO evaluations (run_id, task, split, protocol, epoch, step, n, limited, truncated, task_hash, data_hash) VALUES"
                               " (1, 'alpha', 'held_out', 'loglikelihood', 1, 8, 6, 0, 0, 'a', 'h'), (1, 'alpha', 'test', 'loglikelihood', 1, 4, 6, 0, 0,"
                               " 'a', 't'), (2, 'alpha', 'validation', 'loglikelihood', 1, 8, 6, 0, 0, 'a', 'data-a'),"
                               " (5, 'alpha', 'held_out', 'loglikelihood', 1, 4, 6, 0, 0, 'a', 'h');"
                               "INSERT INTO scores SELECT evaluation_id, 'acc', 1, 0.1, 0.5 FROM evaluations e"
                               " WHERE NOT EXISTS (SELECT 1 FROM scores s WHERE s.evaluation_id = e.evaluation_id)";
    static const char *const told[] = {
        "\"run_id\":1,", "\"split\":\"validation\",\"score\":0.416666667}", /* (2/6 + 2/4) / 2 */
        "\"run_id\":2,", "\"split\":\"validation\",\"score\":0.875}",       /* alpha at step 8, beta at step 4: (1 + 3/4) / 2 */
        "\"run_id\":3,", "\"split\":\"validation\",\"score\":0.833333333}", /* (4/6 + 4/4) / 2 */
        "\"run_id\":5,", "\"split\":\"held_out\",\"score\":1}" };
    scratch x = scratch_open();
    char *at;

    filled(scratch_path(&x, "mixrun.db"));
    change(&x, more);
    program(&x, 0, "ls --json --sort run");
    at = output(&x, "out.txt");
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) { /* in this order */
        at = strstr(at, told[i]);
        cr_assert(at, "%s is not there, or not in its place:\n%s", told[i], output(&x, "out.txt"));
    }
    program(&x, 0, "ls");
    says(&x, "out.txt", "acc, loglikelihood, validation");
    says(&x, "out.txt", "acc, loglikelihood, held_out");
    scratch_close(&x);
}

Test(queries, a_run_that_is_running_is_stopped_where_it_is_and_keeps_the_database_as_it_is) {
    scratch x = scratch_open();
    mx_store *s;
    mx_status st = { 0 };

    filled(scratch_path(&x, "mixrun.db"));
    s = open_store(scratch_path(&x, "mixrun.db"));
    MUST(mx_store_run_state(s, 1, "running", "", &st)); /* by this process */
    mx_store_close(s);
    program(&x, 2, "rm 1 --yes");
    says(&x, "err.txt", mx_arena_text(&x.arena, "or kill %d", (int)getpid()));
    change(&x, "UPDATE runs SET host = 'elsewhere'; CREATE TABLE large (x); INSERT INTO large VALUES (zeroblob(20000)); DROP TABLE large");
    program(&x, 2, "rm 1 --yes");
    says(&x, "err.txt", "stop it on elsewhere first");
    cr_assert_null(strstr(output(&x, "err.txt"), "kill"), "that process is not here:\n%s", output(&x, "err.txt"));

    program(&x, 0, "gc --dry-run");
    says(&x, "out.txt", "free pages, which the database keeps while run 1 is running");
    says(&x, "out.txt", "there is nothing to clear");
    change(&x, "INSERT INTO bases VALUES ('none', 'x', 'y', 1)");
    program(&x, 0, "gc --yes");
    says(&x, "err.txt", "would lock it while run 1 is running");
    cr_assert_str_eq(rows(&x, "mixrun.db", "SELECT COUNT(*) FROM bases"), "1\n");
    cr_assert(strcmp(rows(&x, "mixrun.db", "PRAGMA freelist_count"), "0\n") != 0);
    change(&x, "UPDATE runs SET state = 'stopped'");
    program(&x, 0, "gc --yes");
    cr_assert_null(strstr(output(&x, "err.txt"), "lock"), "%s", output(&x, "err.txt"));
    cr_assert_str_eq(rows(&x, "mixrun.db", "PRAGMA freelist_count"), "0\n");
    scratch_close(&x);
}

/* ------------------------------------------------------------------------ databases that cannot be used */

static const char *const reading[] = { "ls", "show 1", "query scores", "diff 1 2", "export 1 -o lm --force" };
enum { READING = sizeof reading / sizeof reading[0] };

static void hash(scratch *x, const char *name, char ret[MX_SHA256_TEXT]) {
    mx_status st = { 0 };

    cr_assert(mx_sha256_file(scratch_path(x, name), ret, &st) == MX_OK, "%s", st.text);
}

Test(queries, not_a_database_or_anothers_is_told_and_left_alone) {
    static const struct {
        const char *name, *says, *run_says;
    } wrong[] = {
        { "text.db", "file is not a database", "file is not a database" },
        { "theirs.db", "is not a mixrun database", "is a database of another program" },
        { "newer.db", "was written by a newer mixrun", "was written by a newer mixrun" },
        { "absent.db", "there is no database absent.db", NULL },
    };
    scratch x = scratch_open();
    char before[MX_SHA256_TEXT], after[MX_SHA256_TEXT];
    sqlite3 *db;
    mx_status st = { 0 };

    MUST(mx_file_write(scratch_path(&x, "text.db"), "this is a letter to my aunt, and longer than a header of SQLite would be", 60, &st));
    cr_assert(sqlite3_open(scratch_path(&x, "theirs.db"), &db) == SQLITE_OK && sqlite3_exec(db, "CREATE TABLE theirs (x)", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
    filled(scratch_path(&x, "newer.db"));
    cr_assert(sqlite3_open(scratch_path(&x, "newer.db"), &db) == SQLITE_OK && sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 2\n");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (wrong[i].run_says) {
            hash(&x, wrong[i].name, before);
        }
        for (size_t v = 0; v < READING; v++) {
            program(&x, 1, "%s --db %s", reading[v], wrong[i].name);
            says(&x, "err.txt", wrong[i].says);
            says(&x, "err.txt", wrong[i].name);
            cr_assert_str_eq(output(&x, "out.txt"), "");
        }
        if (wrong[i].run_says) {
            program(&x, 1, "r.yaml db=%s", wrong[i].name);
            says(&x, "err.txt", wrong[i].run_says);
            hash(&x, wrong[i].name, after);
            cr_assert_str_eq(before, after);
        } else {
            cr_assert_not(mx_file_exists(scratch_path(&x, wrong[i].name)), "reading makes nothing");
        }
    }
    scratch_close(&x);
}

Test(queries, a_corrupt_database_is_told_and_left_as_it_is) {
    scratch x = scratch_open();
    char before[MX_SHA256_TEXT], after[MX_SHA256_TEXT], junk[4096];
    struct stat info;
    int fd;

    filled(scratch_path(&x, "mixrun.db"));
    cr_assert_eq(stat(scratch_path(&x, "mixrun.db"), &info), 0);
    memset(junk, 0xA5, sizeof junk);
    fd = open(scratch_path(&x, "mixrun.db"), O_WRONLY);
    for (off_t at = 3 * 4096; at + 4096 <= info.st_size; at += 4096) { /* all but the first three pages */
        cr_assert_eq(pwrite(fd, junk, sizeof junk, at), (ssize_t)sizeof junk);
    }
    close(fd);
    hash(&x, "mixrun.db", before);
    for (size_t v = 0; v < READING; v++) {
        program(&x, 1, "%s", reading[v]);
        says(&x, "err.txt", "malformed");
        says(&x, "err.txt", ".recover");
        cr_assert_str_eq(output(&x, "out.txt"), "");
    }
    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 2\n");
    program(&x, 1, "r.yaml");
    says(&x, "err.txt", "malformed");
    program(&x, 1, "rm 1 --yes");
    hash(&x, "mixrun.db", after);
    cr_assert_str_eq(before, after);
    scratch_close(&x);
}

/* For root, who may write everywhere, the program runs as nobody. */
static void as_nobody(scratch *x) {
    (void)x;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) {
        _exit(122);
    }
    if (access(getenv("MIXRUN_PROGRAM"), X_OK) != 0) {
        _exit(77);
    }
}

Test(queries, a_database_that_cannot_be_written_is_read_and_not_lost) {
    scratch x = scratch_open();
    char before[MX_SHA256_TEXT], after[MX_SHA256_TEXT];
    mx_status st = { 0 };

    filled(scratch_path(&x, "mixrun.db"));
    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 2\n");
    MUST(mx_folder_make(scratch_path(&x, "out"), &st));
    hash(&x, "mixrun.db", before);
    cr_assert(chmod(scratch_path(&x, "mixrun.db"), 0444) == 0 && chmod(scratch_path(&x, "out"), 0777) == 0);
    cr_assert_eq(chmod(x.folder, 0777), 0);
    if (AS(as_nobody, "ls") == 77) {
        printf("skipped: the program's folder is closed to others\n");
        goto done;
    }
    says(&x, "out.txt", "mixlora"); /* the file cannot be written, its folder can */
    cr_assert_eq(AS(as_nobody, "r.yaml", "output_dir=out"), 1, "%s", output(&x, "err.txt"));
    says(&x, "err.txt", "readonly database");
    says(&x, "err.txt", "db=OTHER.db");
    cr_assert_eq(AS(as_nobody, "rm", "1", "--yes"), 1);
    says(&x, "err.txt", "readonly database");

    unlink(scratch_path(&x, "mixrun.db-wal")); /* empty: who may not write the file cannot tidy up after reading it */
    unlink(scratch_path(&x, "mixrun.db-shm"));
    cr_assert(chmod(scratch_path(&x, "mixrun.db"), 0666) == 0 && chmod(x.folder, 0555) == 0); /* the other way round */
    cr_assert_eq(AS(as_nobody, "ls"), 0, "%s", output(&x, "err.txt"));
    says(&x, "out.txt", "mixlora");
    cr_assert_eq(AS(as_nobody, "query", "scores", "--run", "3"), 0);
    cr_assert_eq(AS(as_nobody, "r.yaml", "output_dir=out"), 1);
    says(&x, "err.txt", "mixrun.db");
    says(&x, "err.txt", "written");
done:
    chmod(x.folder, 0755);
    hash(&x, "mixrun.db", after);
    cr_assert_str_eq(before, after);
    scratch_close(&x);
}

Test(queries, a_locked_database_is_waited_for) {
    scratch x = scratch_open();
    sqlite3 *db;
    pid_t child;

    filled(scratch_path(&x, "mixrun.db"));
    cr_assert(sqlite3_open(scratch_path(&x, "mixrun.db"), &db) == SQLITE_OK);
    /* in WAL mode a writer keeps no reader out; without it, it does */
    cr_assert(sqlite3_exec(db, "PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE", NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    child = start(&x, "ls");
    usleep(700000);
    cr_assert_eq(waitpid(child, NULL, WNOHANG), 0, "it waits");
    cr_assert(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
    cr_assert_eq(finish(child), 0, "%s", output(&x, "err.txt"));
    says(&x, "out.txt", "mixlora");
    sqlite3_close(db);
    scratch_close(&x);
}

/* No file may grow past this: what a full disk looks like to one who may not mount one. */
static rlim_t no_file_larger;
static void with_small_files(scratch *x) {
    struct rlimit limit = { no_file_larger, no_file_larger };

    (void)x;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void whole(scratch *x, const char *db) {
    char *text = rows(x, db, "PRAGMA integrity_check");

    cr_assert_str_eq(text, "ok\n");
    free(text);
    text = rows(x, db, "SELECT run_id, state, (SELECT COUNT(*) FROM metrics m WHERE m.run_id = r.run_id AND name = 'loss') FROM runs r WHERE run_id = 1");
    cr_assert(strncmp(text, "1|finished|", 11) == 0 && text[11] != '0', "the first run is kept: %s", text);
    free(text);
}

Test(queries, a_full_disk_is_told_and_loses_nothing_stored) {
    scratch x = scratch_open();
    const char *disk = scratch_path(&x, "disk");
    struct stat info;
    mx_status st = { 0 };
    char *balloon = calloc(1, 1 << 20);
    int fd;

    tiny_recipe(&x, "r.yaml", "  method: lora\n  lora_r: 2\n");
    MUST(mx_folder_make(disk, &st));
    program(&x, 0, "r.yaml train.num_epochs=1");
    cr_assert_eq(stat(scratch_path(&x, "mixrun.db"), &info), 0);
    no_file_larger = 16384; /* the log of a run's first transactions is longer */
    cr_assert_eq(AS(with_small_files, "r.yaml", "train.num_epochs=1", "seed=4"), 1, "%s", output(&x, "err.txt"));
    says(&x, "err.txt", "mixrun.db");
    says(&x, "err.txt", "stored until then is kept");
    whole(&x, "mixrun.db");

    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("tmpfs", disk, "tmpfs", 0, "size=4m") != 0) {
        printf("the part with a real full disk was skipped: no right to mount one\n");
        goto done;
    }
    program(&x, 0, "r.yaml train.num_epochs=1 db=disk/a.db");
    fd = open(scratch_path(&x, "disk/balloon"), O_CREAT | O_WRONLY, 0600);
    for (size_t size = 1 << 20; size >= 4096; size /= 2) { /* to the last page */
        while (write(fd, balloon, size) == (ssize_t)size) {
        }
    }
    close(fd);
    program(&x, 1, "r.yaml train.num_epochs=1 seed=4 db=disk/a.db");
    says(&x, "err.txt", "disk/a.db");
    says(&x, "err.txt", "full");
    cr_assert_eq(unlink(scratch_path(&x, "disk/balloon")), 0);
    whole(&x, "disk/a.db");
    program(&x, 0, "ls --db disk/a.db");
    program(&x, 0, "r.yaml train.num_epochs=1 seed=4 db=disk/a.db"); /* and goes on once there is room */
    cr_assert_eq(umount(disk), 0);
done:
    free(balloon);
    scratch_close(&x);
}
