/* Databases of several machines become one: every column of every table, once. */
#include "base/text.h"
#include "reports/import.h"
#include "reports/schema.h"
#include "reports/sweeps.h"
#include "tests/reports/support.h"

#include <sys/stat.h>
#include <unistd.h>

/* How a table's rows are told apart across databases: by what they belong to, never by number. `hidden`: its numbers. */
static const struct {
    const char *table, *key, *join, *hidden;
} tables[] = {
    { "environments", "''", "", "environment_id" },
    { "bases", "''", "", "" },
    { "runs", "e.text", "JOIN environments e ON e.environment_id = x.environment_id", "run_id environment_id" },
    { "words", "r.uuid", "JOIN runs r ON r.run_id = x.run_id", "run_id" },
    { "data_files", "r.uuid", "JOIN runs r ON r.run_id = x.run_id", "run_id" },
    { "metrics", "r.uuid", "JOIN runs r ON r.run_id = x.run_id", "run_id" },
    { "evaluations", "r.uuid", "JOIN runs r ON r.run_id = x.run_id", "run_id evaluation_id" },
#define EVALUATION "r.uuid || v.task || v.split || v.protocol || v.step"
#define OF_EVALUATION "JOIN evaluations v ON v.evaluation_id = x.evaluation_id JOIN runs r ON r.run_id = v.run_id"
    { "scores", EVALUATION, OF_EVALUATION, "evaluation_id" },
    { "predictions", EVALUATION, OF_EVALUATION, "evaluation_id" },
    { "outcomes", EVALUATION, OF_EVALUATION, "evaluation_id" },
    { "router_windows", "r.uuid || IFNULL(v.task || v.protocol || v.step, 'none')",
      "JOIN runs r ON r.run_id = x.run_id LEFT JOIN evaluations v ON v.evaluation_id = x.evaluation_id", "run_id window_id evaluation_id" },
#define WINDOW "r.uuid || w.split || w.first_step || '-' || w.last_step"
#define OF_WINDOW "JOIN router_windows w ON w.window_id = x.window_id JOIN runs r ON r.run_id = w.run_id"
    { "router_loads", WINDOW, OF_WINDOW, "window_id" },
    { "router_tokens", WINDOW, OF_WINDOW, "window_id" },
    { "router_pairs", WINDOW, OF_WINDOW, "window_id" },
    { "sweeps", "''", "", "sweep_id" },
    { "members", "s.name", "JOIN sweeps s ON s.sweep_id = x.sweep_id", "sweep_id" },
};
enum { TABLES = sizeof tables / sizeof tables[0] };

/* Every row of a table by its own columns, whichever the schema has; SQL's quote() keeps every bit of a number. */
static char *contents(mx_store *s, int t, scratch *x) {
    mx_text sql, out;
    sqlite3_stmt *q;
    char *kept;

    mx_text_init(&sql, 1 << 16);
    mx_text_init(&out, 64 << 20);
    mx_text_print(&out, "%s\n", tables[t].table);
    mx_text_print(&sql, "SELECT %s", tables[t].key);
    cr_assert(sqlite3_prepare_v2(mx_store_handle(s), "SELECT name FROM pragma_table_info(?)", -1, &q, NULL) == SQLITE_OK);
    sqlite3_bind_text(q, 1, tables[t].table, -1, SQLITE_STATIC);
    while (sqlite3_step(q) == SQLITE_ROW) {
        const char *column = (const char *)sqlite3_column_text(q, 0);

        if (!strstr(tables[t].hidden, column)) {
            mx_text_print(&sql, " || '|' || quote(x.%s)", column);
        }
    }
    sqlite3_finalize(q);
    mx_text_print(&sql, " FROM %s x %s ORDER BY 1", tables[t].table, tables[t].join);
    cr_assert(sqlite3_prepare_v2(mx_store_handle(s), sql.data, -1, &q, NULL) == SQLITE_OK, "%s: %s", sql.data,
              sqlite3_errmsg(mx_store_handle(s)));
    while (sqlite3_step(q) == SQLITE_ROW) {
        mx_text_print(&out, "%s\n", (const char *)sqlite3_column_text(q, 0));
    }
    sqlite3_finalize(q);
    kept = mx_arena_copy(&x->arena, out.data, out.length);
    mx_text_finish(&sql);
    mx_text_finish(&out);
    return kept;
}

static char *all_contents(mx_store *s, scratch *x) {
    char *all = (char *)"";

    for (int t = 0; t < TABLES; t++) {
        all = mx_arena_text(&x->arena, "%s%s", all, contents(s, t, x));
    }
    return all;
}

static void sql(mx_store *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void sql(mx_store *s, const char *fmt, ...) {
    char text[4096];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cr_assert(sqlite3_exec(mx_store_handle(s), text, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", text, sqlite3_errmsg(mx_store_handle(s)));
}

/* A run with rows in every table; `mark` makes its numbers its own. */
static int64_t full_run(mx_store *s, const char *name, int mark) {
    int64_t run = add_run(s, name), evaluation, window;

    sql(s, "UPDATE runs SET state = 'finished', step = 4, ended_ms = heartbeat_ms, seed = %d, flops = %d WHERE run_id = %lld", mark, 1000 + mark,
        (long long)run);
    sql(s, "INSERT INTO words VALUES (%lld, 'adapter.lora_r', '%d')", (long long)run, mark);
    sql(s, "INSERT INTO data_files VALUES (%lld, 'arc', 'train', 'a.jsonl', 'hash', 7, %d)", (long long)run, mark);
    sql(s, "INSERT INTO metrics VALUES (%lld, 1, 'loss', %d.1), (%lld, 2, 'loss', %d / 3.0)", (long long)run, mark, (long long)run, mark);
    sql(s, "INSERT INTO evaluations (run_id, task, split, protocol, epoch, step, n, limited, truncated, task_hash, data_hash)"
           " VALUES (%lld, 'arc', 'validation', 'loglikelihood', 0.5, 4, 2, 0, %d, 'th', 'dh')", (long long)run, mark);
    evaluation = sqlite3_last_insert_rowid(mx_store_handle(s));
    sql(s, "INSERT INTO scores VALUES (%lld, 'acc', 0.5, 0.1, 0.2%d)", (long long)evaluation, mark);
    sql(s, "INSERT INTO predictions VALUES (%lld, 0, 'q1', 1, '[%d,2]')", (long long)evaluation, mark);
    sql(s, "INSERT INTO outcomes VALUES (%lld, 'acc', 0, 1, 1)", (long long)evaluation);
    sql(s, "INSERT INTO router_windows (run_id, split, first_step, last_step) VALUES (%lld, 'train', 1, 4)", (long long)run);
    window = sqlite3_last_insert_rowid(mx_store_handle(s));
    sql(s, "INSERT INTO router_windows (run_id, split, first_step, last_step, evaluation_id) VALUES (%lld, 'validation', 4, 4, %lld)",
        (long long)run, (long long)evaluation);
    for (int i = 0; i < 2; i++) {
        sql(s, "INSERT INTO router_loads VALUES (%lld, 'arc', 0, 1, %d, 0, 0.25)", (long long)window + i, mark);
        sql(s, "INSERT INTO router_tokens VALUES (%lld, 'arc', 0, %d, 1.5)", (long long)window + i, mark);
        sql(s, "INSERT INTO router_pairs VALUES (%lld, 'arc', 0, 0, 1, %d)", (long long)window + i, mark);
    }
    return run;
}

static void some_sweep(mx_store *s, const char *name, const char *variant) {
    const mx_sweep_row sweep = { name, "s.yaml", "recipe: r.yaml\n", "", variant, "loglikelihood", "acc_norm" };
    const mx_member_row member[] = { { .position = 1, .variant = variant, .seed = 1, .recipe_hash = "abcdef", .base_hash = "b0",
                                       .tasks_hash = "t0", .data_hash = "d0", .method = "lora", .trained = 9, .flops = 3, .matched = "" },
                                     { .position = 2, .variant = "other", .seed = 1, .recipe_hash = "fedcba", .base_hash = "b0",
                                       .tasks_hash = "t0", .data_hash = "d0", .method = "lora", .matched = "params: a, +0.1 %" } };
    mx_status st = { 0 };

    cr_assert_eq(mx_store_sweep(s, &sweep, member, 2, &st), MX_OK, "%s", st.text);
}

static mx_import bring(mx_store *s, const char *path) {
    mx_import n;
    mx_status st = { 0 };

    cr_assert_eq(mx_store_import(s, path, &n, &st), MX_OK, "%s", st.text);
    return n;
}

Test(import, every_table_is_known_to_this_test) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));

    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"), TABLES,
                 "a table was added: import it, and compare it here");
    mx_store_close(s);
    scratch_close(&x);
}

Test(import, all_rows_arrive_once_under_new_numbers) {
    scratch x = scratch_open();
    mx_store *a = open_store(scratch_path(&x, "a.db")), *b = open_store(scratch_path(&x, "b % ? #.db")), *c = open_store(scratch_path(&x, "c.db")),
             *all = open_store(scratch_path(&x, "all.db"));
    mx_import n;

    full_run(a, "one", 1);
    full_run(a, "two", 2);
    some_sweep(a, "s", "lora");
    full_run(b, "three", 3); /* has number 1 there, too */
    full_run(b, "four", 4);
    n = bring(c, scratch_path(&x, "a.db"));
    cr_assert(n.added == 2 && n.sweeps == 1 && !n.here && !n.replaced && !n.alive);
    cr_assert_str_eq(all_contents(c, &x), all_contents(a, &x), "an empty database becomes the other");

    full_run(all, "own", 9);
    n = bring(all, scratch_path(&x, "b % ? #.db"));
    cr_assert_eq(n.added, 2);
    n = bring(all, scratch_path(&x, "a.db"));
    cr_assert_eq(n.added, 2);
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM runs"), 5);
    cr_assert_eq(ask(all, "SELECT COUNT(DISTINCT uuid) FROM runs"), 5);
    for (int t = 0; t < TABLES; t++) { /* all five runs have as many rows */
        double rows = ask(all, mx_arena_text(&x.arena, "SELECT COUNT(*) FROM %s", tables[t].table));
        bool shared = t < 2; /* environments and bases are equal in all three */

        if (strcmp(tables[t].table, "sweeps") != 0 && strcmp(tables[t].table, "members") != 0) {
            cr_assert_eq(rows, shared ? 1 : 5 * ask(a, mx_arena_text(&x.arena, "SELECT COUNT(*) / 2 FROM %s", tables[t].table)), "%s has %g rows",
                         tables[t].table, rows);
        }
    }
    sql(all, "DELETE FROM runs WHERE name IN ('own', 'three', 'four')");
    cr_assert_str_eq(all_contents(all, &x), all_contents(a, &x), "what came from a is as it was there");
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM pragma_foreign_key_check"), 0);
    mx_store_close(a);
    mx_store_close(b);
    mx_store_close(c);
    mx_store_close(all);
    scratch_close(&x);
}

Test(import, again_changes_nothing) {
    scratch x = scratch_open();
    mx_store *a = open_store(scratch_path(&x, "a.db")), *all = open_store(scratch_path(&x, "all.db"));
    const char *once;
    mx_import n;

    full_run(a, "one", 1);
    some_sweep(a, "s", "lora");
    bring(all, scratch_path(&x, "a.db"));
    once = all_contents(all, &x);
    n = bring(all, scratch_path(&x, "a.db"));
    cr_assert(n.added == 0 && n.here == 1 && n.replaced == 0 && n.sweeps == 0);
    cr_assert_str_eq(all_contents(all, &x), once);
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM temp.sqlite_schema"), 0, "nothing is left behind");
    mx_store_close(a);
    mx_store_close(all);
    scratch_close(&x);
}

Test(import, the_copy_that_is_further_on_stays) {
    scratch x = scratch_open();
    mx_store *a = open_store(scratch_path(&x, "a.db")), *all = open_store(scratch_path(&x, "all.db"));
    mx_import n;

    full_run(a, "one", 1);
    full_run(all, "own", 2);
    sql(a, "UPDATE runs SET state = 'stopped', step = 2");
    bring(all, scratch_path(&x, "a.db"));
    sql(a, "UPDATE runs SET step = 3; INSERT INTO metrics VALUES (1, 3, 'loss', 7.0); DELETE FROM metrics WHERE step = 1");
    n = bring(all, scratch_path(&x, "a.db"));
    cr_assert(n.replaced == 1 && n.added == 0);
    cr_assert_eq(ask(all, "SELECT step FROM runs WHERE name = 'one'"), 3);
    cr_assert_eq(ask(all, "SELECT run_id FROM runs WHERE name = 'one'"), 2, "it keeps its number");
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM metrics WHERE run_id = 2"), 2, "its old rows are gone");
    sql(a, "UPDATE runs SET step = 1");
    n = bring(all, scratch_path(&x, "a.db"));
    cr_assert(n.here == 1 && n.replaced == 0, "one that is behind changes nothing");
    sql(a, "UPDATE runs SET state = 'finished'");
    n = bring(all, scratch_path(&x, "a.db"));
    cr_assert_eq(n.replaced, 1, "a finished one is further than any that is not");
    sql(all, "DELETE FROM runs WHERE name = 'own'");
    cr_assert_str_eq(all_contents(all, &x), all_contents(a, &x));
    mx_store_close(a);
    mx_store_close(all);
    scratch_close(&x);
}

Test(import, runs_that_a_process_is_at_are_left_alone) {
    scratch x = scratch_open();
    mx_store *a = open_store(scratch_path(&x, "a.db")), *all = open_store(scratch_path(&x, "all.db"));
    mx_import n;

    full_run(a, "one", 1);
    sql(a, "UPDATE runs SET state = 'running', step = 2"); /* by this very process */
    n = bring(all, scratch_path(&x, "a.db"));
    cr_assert(n.alive == 1 && n.added == 0, "half a run is not brought");
    sql(a, "UPDATE runs SET state = 'stopped'");
    bring(all, scratch_path(&x, "a.db"));
    sql(all, "UPDATE runs SET state = 'running'");
    sql(a, "UPDATE runs SET state = 'finished'");
    n = bring(all, scratch_path(&x, "a.db"));
    cr_assert(n.alive == 1 && n.replaced == 0, "and one at work here is not taken away");
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM runs WHERE state = 'running'"), 1);
    mx_store_close(a);
    mx_store_close(all);
    scratch_close(&x);
}

Test(import, of_two_sweeps_of_a_name_the_later_stays) {
    scratch x = scratch_open();
    mx_store *a = open_store(scratch_path(&x, "a.db")), *all = open_store(scratch_path(&x, "all.db"));

    some_sweep(a, "s", "later");
    some_sweep(all, "s", "earlier");
    some_sweep(all, "other", "kept");
    sql(a, "UPDATE sweeps SET began_ms = 2000; DELETE FROM members WHERE position = 2");
    sql(all, "UPDATE sweeps SET began_ms = 1000");
    bring(all, scratch_path(&x, "a.db"));
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM sweeps WHERE name = 's' AND baseline = 'later'"), 1);
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM members JOIN sweeps USING (sweep_id) WHERE name = 's'"), 1);
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM members JOIN sweeps USING (sweep_id) WHERE name = 'other'"), 2);
    sql(a, "UPDATE sweeps SET began_ms = 1500, baseline = 'too late'");
    bring(all, scratch_path(&x, "a.db"));
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM sweeps WHERE baseline = 'later'"), 1);
    mx_store_close(a);
    mx_store_close(all);
    scratch_close(&x);
}

static void must_refuse(mx_store *s, const char *path, mx_code expected, const char *word) {
    mx_import n;
    mx_status st = { 0 };

    cr_assert_eq(mx_store_import(s, path, &n, &st), expected, "%s: %s", path, st.text);
    cr_assert(strstr(st.text, word), "'%s' should say '%s'", st.text, word);
    cr_assert(st.hint[0] || expected == MX_E_STORE, "%s: says what to do", path);
}

Test(import, what_is_not_a_whole_database_of_ours_is_refused_and_changes_nothing) {
    scratch x = scratch_open();
    mx_store *all = open_store(scratch_path(&x, "all.db")), *a = open_store(scratch_path(&x, "newer.db"));
    const char *before, *text = "this is no database at all, however long one looks at it........................................";
    sqlite3 *other;
    mx_status st = { 0 };

    full_run(all, "own", 1);
    before = all_contents(all, &x);
    must_refuse(all, scratch_path(&x, "all.db"), MX_E_USAGE, "is the database it would be imported into");
    cr_assert_eq(link(scratch_path(&x, "all.db"), scratch_path(&x, "same.db")), 0);
    must_refuse(all, scratch_path(&x, "same.db"), MX_E_USAGE, "is the database it would be imported into");
    must_refuse(all, scratch_path(&x, "absent.db"), MX_E_STORE, "there is no database");
    cr_assert_eq(mx_file_write(scratch_path(&x, "text.db"), text, strlen(text), &st), MX_OK);
    must_refuse(all, scratch_path(&x, "text.db"), MX_E_STORE, "not a database");
    cr_assert(sqlite3_open(scratch_path(&x, "foreign.db"), &other) == SQLITE_OK);
    cr_assert(sqlite3_exec(other, "CREATE TABLE runs (run_id)", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(other);
    must_refuse(all, scratch_path(&x, "foreign.db"), MX_E_STORE, "not a mixrun database");

    full_run(a, "one", 2);
    sql(a, "PRAGMA user_version = 99");
    mx_store_close(a);
    must_refuse(all, scratch_path(&x, "newer.db"), MX_E_STORE, "newer mixrun");

    a = open_store(scratch_path(&x, "orphan.db"));
    full_run(a, "one", 2);
    sql(a, "PRAGMA foreign_keys = OFF; DELETE FROM evaluations");
    mx_store_close(a);
    must_refuse(all, scratch_path(&x, "orphan.db"), MX_E_STORE, "rows are missing");

    a = open_store(scratch_path(&x, "cut.db"));
    for (int i = 0; i < 50; i++) {
        full_run(a, "one", i);
    }
    sql(a, "PRAGMA wal_checkpoint(TRUNCATE)");
    mx_store_close(a);
    cr_assert_eq(truncate(scratch_path(&x, "cut.db"), 40960), 0);
    must_refuse(all, scratch_path(&x, "cut.db"), MX_E_STORE, "cannot be imported");

    cr_assert_str_eq(all_contents(all, &x), before, "nothing changed");
    mx_store_close(all);
    scratch_close(&x);
}

Test(import, an_older_schema_is_brought_forward_in_a_copy) {
    scratch x = scratch_open();
    mx_store *all = open_store(scratch_path(&x, "all.db"));
    char was[MX_SHA256_TEXT], is[MX_SHA256_TEXT];
    mx_status st = { 0 };
    mx_import n;
    sqlite3 *old;

    cr_assert(sqlite3_open(scratch_path(&x, "old.db"), &old) == SQLITE_OK);
    cr_assert(sqlite3_exec(old, mx_schema_step[0], NULL, NULL, NULL) == SQLITE_OK);
    cr_assert(sqlite3_exec(old, mx_arena_text(&x.arena, "PRAGMA application_id = %d; PRAGMA user_version = 1;"
                                              "INSERT INTO environments VALUES (5, 'h', '{}'); INSERT INTO bases VALUES ('b', 'tiny', 'f32', 3);"
                                              "INSERT INTO runs VALUES (8, 'u1', 'one', 'train', 'lora', 'finished', '', 'rh', 'seed: 1', 1, 'b', 't', 'd', 5,"
                                              " 10, 0, 4, 4, 0, 'runs/8', 'elsewhere', 1, 1, 2, 3); INSERT INTO metrics VALUES (8, 1, 'loss', 0.5)",
                                              (int)ask(all, "PRAGMA application_id")), NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(old));
    sqlite3_close(old);
    cr_assert_eq(mx_sha256_file(scratch_path(&x, "old.db"), was, &st), MX_OK);
    n = bring(all, scratch_path(&x, "old.db"));
    cr_assert_eq(n.added, 1);
    cr_assert_eq(ask(all, "SELECT COUNT(*) FROM runs WHERE flops IS NULL AND name = 'one'"), 1);
    cr_assert_eq(ask(all, "SELECT value FROM metrics"), 0.5);
    cr_assert_eq(mx_sha256_file(scratch_path(&x, "old.db"), is, &st), MX_OK);
    cr_assert_str_eq(was, is, "the file that was imported is as it was");
    mx_store_close(all);
    cr_assert_eq(system(mx_arena_text(&x.arena, "ls %s | grep -q import", x.folder)), 256, "the copy is gone");
    scratch_close(&x);
}

Test(import, the_imported_file_keeps_its_bytes) {
    scratch x = scratch_open();
    mx_store *a = open_store(scratch_path(&x, "a.db")), *all = open_store(scratch_path(&x, "all.db"));
    char was[MX_SHA256_TEXT], is[MX_SHA256_TEXT];
    mx_status st = { 0 };

    full_run(a, "one", 1); /* in the log still, as when a node was killed */
    cr_assert_eq(mx_sha256_file(scratch_path(&x, "a.db"), was, &st), MX_OK);
    cr_assert_eq(bring(all, scratch_path(&x, "a.db")).added, 1);
    cr_assert_eq(mx_sha256_file(scratch_path(&x, "a.db"), is, &st), MX_OK);
    cr_assert_str_eq(was, is);
    cr_assert_str_eq(all_contents(all, &x), all_contents(a, &x));
    mx_store_close(a);
    mx_store_close(all);
    scratch_close(&x);
}
