/* The store keeps what it was given, whole or not at all, and leaves alone what is not its own. */
#include "reports/schema.h"
#include "tests/reports/support.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

Test(store, a_run_is_found_by_number_name_and_uuid) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t first = add_run(s, "arc"), second = add_run(s, "arc");
    mx_run_row row, again;
    mx_status st = { 0 };

    cr_assert_eq(mx_store_run_find(s, "1", &x.arena, &row, &st), MX_OK);
    cr_assert_eq(row.run_id, first);
    cr_assert_str_eq(row.state, "running");
    cr_assert_str_eq(row.base_name, "tiny");
    cr_assert_eq(row.trained_router, 2);
    cr_assert_eq(mx_store_run_find(s, "arc", &x.arena, &again, &st), MX_OK);
    cr_assert_eq(again.run_id, second, "the newest of that name");
    cr_assert_eq(strlen(row.uuid), 32);
    cr_assert_str_neq(row.uuid, again.uuid);
    cr_assert_eq(mx_store_run_find(s, mx_arena_copy(&x.arena, row.uuid, 10), &x.arena, &again, &st), MX_OK);
    cr_assert_eq(again.run_id, first);
    cr_assert_eq(mx_store_run_find(s, "arcc", &x.arena, &again, &st), MX_E_USAGE);
    cr_assert(strstr(st.text, "there is no run 'arcc'"), "%s", st.text);
    cr_assert_str_eq(st.hint, "did you mean 'arc'?");
    mx_store_close(s);
    scratch_close(&x);
}

Test(store, a_run_whose_process_is_gone_is_seen_to_be_dead) {
    scratch x = scratch_open();
    const char *path = scratch_path(&x, "a.db");
    mx_run_row row;
    mx_status st = { 0 };
    mx_store *s;
    pid_t child = fork();

    if (child == 0) { /* begins a run, writes one step whole and one by half, and is killed */
        s = open_store(path);
        int64_t run = add_run(s, "killed");

        if (mx_store_begin(s, NULL) || mx_store_metric(s, run, 1, "loss", 2.5, NULL) || mx_store_heartbeat(s, run, 1, NULL) ||
            mx_store_commit(s, NULL) || mx_store_begin(s, NULL) || mx_store_metric(s, run, 2, "loss", 1.5, NULL)) {
            _exit(1);
        }
        kill(getpid(), SIGKILL);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status));
    s = open_store(path);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM metrics"), 1, "the transaction under way is lost, the one before is kept");
    cr_assert_eq(mx_store_run_find(s, "killed", &x.arena, &row, &st), MX_OK);
    cr_assert_str_eq(row.state, "running");
    cr_assert_eq(row.step, 1);
    cr_assert(mx_run_is_dead(&row));
    mx_store_close(s);
    scratch_close(&x);
}

Test(store, a_living_run_is_not_dead) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_run_row row;
    mx_status st = { 0 };

    add_run(s, "mine");
    cr_assert_eq(mx_store_run_find(s, "mine", &x.arena, &row, &st), MX_OK);
    cr_assert_not(mx_run_is_dead(&row));
    row.host = "elsewhere.example";
    cr_assert_not(mx_run_is_dead(&row), "another host's heartbeat is fresh");
    row.heartbeat_ms -= 11 * 60 * 1000;
    cr_assert(mx_run_is_dead(&row));
    row.state = "finished";
    cr_assert_not(mx_run_is_dead(&row));
    mx_store_close(s);
    scratch_close(&x);
}

Test(store, going_on_from_a_step_drops_what_came_after_it) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t run = add_run(s, "r"), other = add_run(s, "other"), id;
    mx_status st = { 0 };

    cr_assert_eq(mx_store_begin(s, &st), MX_OK);
    for (int64_t step = 0; step <= 4; step++) {
        mx_evaluation_row e = { .task = "t", .split = "validation", .protocol = "p", .epoch = (double)step, .step = step,
                                .n = 1, .task_hash = "h", .data_hash = "d" };
        double score[2] = { -1.25, -0.5 };

        cr_assert_eq(mx_store_evaluation(s, run, &e, &id, &st), MX_OK);
        cr_assert_eq(mx_store_score(s, id, "acc", 0.5, 0.1, 0.3, &st), MX_OK);
        cr_assert_eq(mx_store_prediction(s, id, 0, "q1", 1, score, 2, &st), MX_OK);
        cr_assert_eq(mx_store_outcome(s, id, "acc", 0, 1, true, &st), MX_OK);
        cr_assert_eq(mx_store_metric(s, run, step, "loss", 1.0, &st), MX_OK);
        cr_assert_eq(mx_store_metric(s, other, step, "loss", 1.0, &st), MX_OK);
    }
    cr_assert_eq(mx_store_drop_after(s, run, 2, &st), MX_OK);
    cr_assert_eq(mx_store_commit(s, &st), MX_OK);
    cr_assert_eq(ask(s, "SELECT MAX(step) FROM metrics WHERE run_id = 1"), 2);
    cr_assert_eq(ask(s, "SELECT MAX(step) FROM metrics WHERE run_id = 2"), 4, "another run's rows stay");
    cr_assert_eq(ask(s, "SELECT MAX(step) FROM evaluations"), 1, "the evaluation at the step itself is made again");
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM scores"), 2);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM predictions"), 2);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM outcomes"), 2);
    cr_assert_eq(ask(s, "SELECT json_extract(choices, '$[0]') FROM predictions LIMIT 1"), -1.25);
    mx_store_close(s);
    scratch_close(&x);
}

static void refused(const char *path, bool write, const char *words, const char *hint) {
    mx_store *s;
    mx_status st = { 0 };

    cr_assert_eq(mx_store_open(path, write, &s, &st), MX_E_STORE, "%s was opened", path);
    cr_assert_null(s);
    cr_assert(strstr(st.text, words), "'%s' does not say '%s'", st.text, words);
    cr_assert(strstr(st.text, path), "'%s' does not name the file", st.text);
    cr_assert(strstr(st.hint, hint), "the hint is '%s'", st.hint);
}

static void sql(const char *path, const char *statements) {
    sqlite3 *db;

    cr_assert(sqlite3_open(path, &db) == SQLITE_OK);
    cr_assert(sqlite3_exec(db, statements, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

Test(store, what_is_not_ours_is_refused_and_left_as_it_is) {
    scratch x = scratch_open();
    const char *foreign = scratch_path(&x, "foreign.db"), *text = scratch_path(&x, "text.db"),
               *newer = scratch_path(&x, "newer.db");
    char before[MX_SHA256_TEXT], after[MX_SHA256_TEXT];
    mx_status st = { 0 };

    sql(foreign, "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (7)");
    cr_assert_eq(mx_sha256_file(foreign, before, &st), MX_OK);
    refused(foreign, true, "is a database of another program", "db=OTHER.db");
    refused(foreign, false, "is not a mixrun database", "");
    cr_assert_eq(mx_sha256_file(foreign, after, &st), MX_OK);
    cr_assert_str_eq(before, after);

    cr_assert_eq(mx_file_write(text, "this is a letter to my aunt, and longer than a header of SQLite would be", 60, &st), MX_OK);
    refused(text, true, "file is not a database", "left as it is");

    mx_store_close(open_store(newer));
    sql(newer, "PRAGMA user_version = 99");
    refused(newer, true, "was written by a newer mixrun (schema 99", "");
    refused(newer, false, "was written by a newer mixrun (schema 99", "");
    refused(scratch_path(&x, "absent.db"), false, "there is no database", "a run makes it");
    cr_assert_not(mx_file_exists(scratch_path(&x, "absent.db")), "reading creates nothing");
    scratch_close(&x);
}

Test(store, an_empty_file_of_version_0_is_brought_forward) {
    scratch x = scratch_open();
    const char *path = scratch_path(&x, "empty.db");
    mx_store *s;
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(path, "", 0, &st), MX_OK);
    s = open_store(path);
    cr_assert_eq(ask(s, "PRAGMA user_version"), MX_SCHEMA_VERSION);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '%STRICT%' AND name NOT LIKE 'sqlite%'"), 0,
                 "every table is STRICT");
    cr_assert_eq(ask(s, "PRAGMA foreign_keys"), 1);
    mx_store_close(s);
    scratch_close(&x);
}

/* A file as version 1 left it, with a run, read by today's program. */
Test(store, a_database_of_version_1_is_brought_forward_even_to_be_read) {
    scratch x = scratch_open();
    const char *path = scratch_path(&x, "old.db");
    mx_run_row row;
    mx_status st = { 0 };
    mx_store *s;

    sql(path, mx_schema_step[0]);
    sql(path, "PRAGMA application_id = 0x6d785231; PRAGMA user_version = 1;"
              "INSERT INTO environments VALUES (1, 'h', '{}'); INSERT INTO bases VALUES ('b', 'tiny', 'F32', 9);"
              "INSERT INTO runs VALUES (7, 'aabbccddeeff', 'old', 'train', 'lora', 'finished', '', 'r', '', 1, 'b', 't', 'd', 1,"
              " 10, 2, 4, 4, 0, 'runs/7', 'h', 1, 1, 1, 1)");
    cr_assert(mx_store_open(path, false, &s, &st) == MX_OK, "%s", st.text);
    cr_assert_eq(ask(s, "PRAGMA user_version"), MX_SCHEMA_VERSION);
    cr_assert_eq(mx_store_run_find(s, "old", &x.arena, &row, &st), MX_OK);
    cr_assert_eq(row.run_id, 7);
    cr_assert_eq(row.flops, 0, "not told");
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM sweep_runs"), 0);
    mx_store_close(s);
    scratch_close(&x);
}

Test(store, a_locked_database_says_so) {
    scratch x = scratch_open();
    const char *path = scratch_path(&x, "a.db");
    mx_store *s = open_store(path), *second = open_store(path);
    mx_status st = { 0 };

    sqlite3_busy_timeout(mx_store_handle(second), 50); /* not the half minute a user would wait */
    cr_assert_eq(mx_store_begin(s, &st), MX_OK);
    cr_assert_eq(mx_store_begin(second, &st), MX_E_STORE);
    cr_assert(strstr(st.text, "database is locked"), "%s", st.text);
    cr_assert(strstr(st.hint, "another program keeps the database locked"), "%s", st.hint);
    mx_store_close(second);
    mx_store_close(s);
    scratch_close(&x);
}

Test(store, a_lock_in_the_way_of_reading_says_so) {
    scratch x = scratch_open();
    const char *path = scratch_path(&x, "a.db");
    mx_store *s = open_store(path);
    mx_run_row row;
    mx_status st = { 0 };
    sqlite3 *other;

    add_run(s, "r");
    mx_store_close(s);
    cr_assert(sqlite3_open(path, &other) == SQLITE_OK);
    cr_assert(sqlite3_exec(other, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL) == SQLITE_OK); /* in WAL mode writers keep nobody out */
    cr_assert(mx_store_open(path, false, &s, &st) == MX_OK, "%s", st.text);
    cr_assert(sqlite3_exec(other, "BEGIN EXCLUSIVE", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_busy_timeout(mx_store_handle(s), 50);
    cr_assert_eq(mx_store_run_find(s, "r", &x.arena, &row, &st), MX_E_STORE);
    cr_assert(strstr(st.text, path) && strstr(st.text, "database is locked"), "%s", st.text);
    cr_assert(strstr(st.hint, "another program keeps the database locked"), "%s", st.hint);
    mx_store_close(s);
    sqlite3_close(other);
    scratch_close(&x);
}

Test(store, a_full_database_says_so_keeps_what_it_has_and_goes_on) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t run = add_run(s, "r"), kept = 0;
    mx_status st = { 0 };
    mx_code code = MX_OK;

    cr_assert(sqlite3_exec(mx_store_handle(s), "PRAGMA max_page_count = 1", NULL, NULL, NULL) == SQLITE_OK); /* as many as there are */
    for (int64_t step = 1; code == MX_OK && step < 10000; step++) {
        cr_assert_eq(mx_store_begin(s, &st), MX_OK);
        code = mx_store_metric(s, run, step, "loss", 1.5, &st);
        code = code ? code : mx_store_commit(s, &st);
        if (code) {
            mx_store_rollback(s);
        } else {
            kept = step;
        }
    }
    cr_assert_eq(code, MX_E_STORE);
    cr_assert(strstr(st.text, "database or disk is full"), "%s", st.text);
    cr_assert(strstr(st.hint, "what was stored until then is kept"), "%s", st.hint);
    cr_assert(kept > 0 && ask(s, "SELECT COUNT(*) FROM metrics") == (double)kept);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    cr_assert(sqlite3_exec(mx_store_handle(s), "PRAGMA max_page_count = 1000000", NULL, NULL, NULL) == SQLITE_OK);
    st = (mx_status){ 0 };
    cr_assert(mx_store_begin(s, &st) == MX_OK && mx_store_metric(s, run, kept + 1, "loss", 1.5, &st) == MX_OK && mx_store_commit(s, &st) == MX_OK,
              "%s", st.text);
    mx_store_close(s);
    scratch_close(&x);
}
