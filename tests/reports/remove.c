/* Runs and leftovers go as asked; what mixrun did not make stays, whatever it is called. */
#include "reports/remove.h"

#include "tests/reports/filled.h"

#include <sys/stat.h>
#include <unistd.h>

static void put(const char *path, const char *text) {
    mx_status st = { 0 };

    MUST(mx_file_write(path, text, strlen(text), &st));
}

/* The folder of a run as the session makes it, in the current folder. */
static void make_folder(scratch *x, const mx_run_row *run) {
    mx_status st = { 0 };

    MUST(mx_folder_make(mx_arena_text(&x->arena, "%s/adapter", run->folder), &st));
    put(mx_arena_text(&x->arena, "%s/recipe.yaml", run->folder), run->recipe);
    put(mx_arena_text(&x->arena, "%s/checkpoint.bin", run->folder), "0123456789");
    put(mx_arena_text(&x->arena, "%s/adapter/adapter_config.json", run->folder), "{}");
    put(mx_arena_text(&x->arena, "%s/adapter/adapter_model.safetensors", run->folder), "12345");
}

/* A filled database in a folder of its own, which becomes the current one; folders of all runs. */
static mx_store *begin(scratch *x, mx_run_row run[6]) {
    mx_status st = { 0 };
    mx_store *s;

    cr_assert_eq(chdir(x->folder), 0);
    s = open_store("a.db");
    fill(s);
    for (int i = 1; i <= 5; i++) {
        MUST(mx_store_run_find(s, mx_arena_text(&x->arena, "%d", i), &x->arena, &run[i], &st));
        make_folder(x, &run[i]);
    }
    return s;
}

static void end(scratch *x, mx_store *s) {
    mx_store_close(s);
    cr_assert_eq(chdir("/"), 0);
    scratch_close(x);
}

static mx_code remove_one(scratch *x, mx_store *s, const mx_run_row *run, mx_own_files *ret, mx_status *st) {
    if (mx_own_files_find(s, run, &x->arena, ret, st)) {
        return st->code;
    }
    return mx_runs_remove(s, run, ret, 1, st);
}

Test(remove, a_run_goes_with_all_its_rows_and_files_and_no_other) {
    scratch x = scratch_open();
    mx_run_row run[6];
    mx_store *s = begin(&x, run);
    mx_own_files f;
    mx_status st = { 0 };
    int64_t rows;
    double before = ask(s, "SELECT COUNT(*) FROM predictions");

    MUST(mx_run_rows(s, 3, &rows, &st));
    /* run, 2 words, 2 files, 13 metrics, 4 evaluations, 3 windows of 16 loads and 4 tokens, 1 pair; 4 scores, 20 predictions, 20 outcomes */
    cr_assert_eq(rows, 1 + 2 + 2 + 13 + 4 + 3 * (1 + 16 + 4) + 1 + 4 + 20 + 20, "%lld rows", (long long)rows);
    cr_assert(remove_one(&x, s, &run[3], &f, &st) == MX_OK, "%s", st.text);
    cr_assert_eq(f.bytes, (int64_t)strlen(run[3].recipe) + 10 + 2 + 5);
    cr_assert_not(mx_folder_exists(run[3].folder));
    cr_assert(mx_file_exists("runs/4-mixlora/adapter/adapter_model.safetensors"));
    MUST(mx_run_rows(s, 3, &rows, &st));
    cr_assert_eq(rows, 0);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM predictions"), before - 20);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM router_pairs"), 1, "run 4's");
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM pragma_foreign_key_check"), 0);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM members"), 5, "what the sweep asks for stays");
    end(&x, s);
}

Test(remove, what_is_not_provably_the_runs_own_stays) {
    scratch x = scratch_open();
    mx_run_row run[6];
    mx_store *s = begin(&x, run);
    mx_own_files f;
    mx_status st = { 0 };

    put("runs/1-lora/notes.txt", "mine");
    cr_assert_eq(remove_one(&x, s, &run[1], &f, &st), MX_OK);
    cr_assert_str_eq(f.stranger, "notes.txt");
    cr_assert(mx_file_exists("runs/1-lora/notes.txt"), "a stranger's file stays, and the folder with it");
    cr_assert_not(mx_file_exists("runs/1-lora/checkpoint.bin"));
    cr_assert_not(mx_folder_exists("runs/1-lora/adapter"));

    put("runs/2-lora/recipe.yaml", "name: another\n");
    cr_assert_eq(remove_one(&x, s, &run[2], &f, &st), MX_OK);
    cr_assert_not(f.own);
    cr_assert_str_eq(f.because, "its recipe.yaml is not this run's");
    cr_assert(mx_file_exists("runs/2-lora/checkpoint.bin"));

    cr_assert_eq(rename("runs/3-mixlora", "precious"), 0); /* a link in its place */
    cr_assert_eq(symlink("../precious", "runs/3-mixlora"), 0);
    cr_assert_eq(remove_one(&x, s, &run[3], &f, &st), MX_OK);
    cr_assert_not(f.own);
    cr_assert(mx_file_exists("precious/checkpoint.bin"));

    cr_assert_eq(rename("runs/4-mixlora/adapter", "adapter"), 0); /* a link inside */
    cr_assert_eq(symlink("../../adapter", "runs/4-mixlora/adapter"), 0);
    cr_assert_eq(sqlite3_exec(mx_store_handle(s), "UPDATE runs SET folder = './runs//4-mixlora', recipe = (SELECT recipe FROM runs WHERE run_id = 4)"
                                                  " WHERE run_id = 5", NULL, NULL, NULL), SQLITE_OK);
    cr_assert_eq(mx_own_files_find(s, &run[4], &x.arena, &f, &st), MX_OK);
    cr_assert_not(f.own);
    cr_assert_str_eq(f.because, "another run names the same folder");
    cr_assert_eq(sqlite3_exec(mx_store_handle(s), "UPDATE runs SET folder = 'nowhere' WHERE run_id = 5", NULL, NULL, NULL), SQLITE_OK);
    cr_assert_eq(remove_one(&x, s, &run[4], &f, &st), MX_OK);
    cr_assert(f.own && f.stranger && strcmp(f.stranger, "adapter") == 0);
    cr_assert(mx_file_exists("adapter/adapter_model.safetensors"), "links are not followed");
    cr_assert_not(mx_file_exists("runs/4-mixlora/checkpoint.bin"));
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM runs"), 1);
    end(&x, s);
}

Test(remove, a_running_run_is_refused_and_with_it_all) {
    scratch x = scratch_open();
    mx_run_row run[6];
    mx_store *s = begin(&x, run);
    mx_own_files f[2];
    mx_status st = { 0 };

    MUST(mx_own_files_find(s, &run[1], &x.arena, &f[0], &st));
    MUST(mx_own_files_find(s, &run[2], &x.arena, &f[1], &st));
    MUST(mx_store_run_state(s, 2, "running", "", &st)); /* somebody resumed it while the question was open */
    cr_assert_eq(mx_runs_remove(s, &run[1], f, 2, &st), MX_E_USAGE);
    cr_assert(strstr(st.text, "run 2 is running on"), "%s", st.text);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM runs"), 5);
    cr_assert(mx_file_exists("runs/1-lora/checkpoint.bin"));
    end(&x, s);
}

static const mx_garbage *item(const mx_gc_plan *p, const char *what) {
    for (int i = 0; i < p->items; i++) {
        if (strstr(p->item[i].what, what)) {
            return &p->item[i];
        }
    }
    return NULL;
}

static void orphan(const char *folder, const char *db, const char *output, const char *name) {
    char recipe[512], path[256];
    mx_status st = { 0 };

    MUST(mx_folder_make(folder, &st));
    snprintf(recipe, sizeof recipe, "name: \"%s\"\ndb: %s\noutput_dir: %s\n", name, db, output);
    snprintf(path, sizeof path, "%s/recipe.yaml", folder);
    put(path, recipe);
    snprintf(path, sizeof path, "%s/checkpoint.bin", folder);
    put(path, "checkpoint");
}

Test(remove, gc_finds_what_can_go_and_nothing_else) {
    static const char *const stays[] = { "runs/11-x", "runs/12-y", "runs/13-x", "runs/notes", "runs/14-x", "other/15-x" };
    scratch x = scratch_open();
    mx_run_row run[6];
    mx_store *s = begin(&x, run);
    mx_gc_plan p;
    mx_gc_done done;
    mx_status st = { 0 };

    put("runs/2-lora/checkpoint.bin.tmp-123", "half");
    put("runs/2-lora/checkpoint.bin.tmp-mine", "not ours");
    cr_assert_eq(sqlite3_exec(mx_store_handle(s), "INSERT INTO environments VALUES (77, 'x', '{}'); INSERT INTO bases VALUES ('none', 'x', 'y', 1);"
                                                  "UPDATE runs SET heartbeat_ms = heartbeat_ms - 40 * 86400000 WHERE run_id = 5;"
                                                  "UPDATE runs SET state = 'stopped' WHERE run_id = 4",
                              NULL, NULL, NULL), SQLITE_OK);
    orphan("runs/10-a-b", "a.db", "runs", "a b");        /* ours */
    orphan("runs/11-x", "other.db", "runs", "x");        /* another database's */
    orphan("runs/12-y", "a.db", "runs", "x");            /* not its name */
    orphan("runs/13-x", "a.db", "elsewhere", "x");       /* another folder's */
    orphan("runs/notes", "a.db", "runs", "notes");
    cr_assert_eq(mkdir("runs/14-x", 0755), 0);           /* no recipe at all */
    orphan("other/15-x", "a.db", "other", "x");          /* ours, but nobody named the folder */
    MUST(mx_gc_look(s, -1, NULL, &x.arena, &p, &st));
    cr_assert(item(&p, "checkpoint of run 1, which is finished") && item(&p, "checkpoint of run 2") && item(&p, "checkpoint of run 3"));
    cr_assert(item(&p, "checkpoint.bin.tmp-123 of run 2, never finished") && item(&p, "runs/10-a-b, of a run that is no longer"));
    cr_assert_eq(p.items, 5, "a stopped run's checkpoint is what it goes on from; a failed run is asked for");
    cr_assert_eq(p.environments, 1);
    cr_assert_eq(p.bases, 1);
    MUST(mx_gc_look(s, (int64_t)30 * 86400000, "other", &x.arena, &p, &st));
    cr_assert(item(&p, "run 5, dora, failed for 40 days") && item(&p, "other/15-x"));
    cr_assert_eq(p.items, 7);
    MUST(mx_gc_look(s, (int64_t)41 * 86400000, NULL, &x.arena, &p, &st));
    cr_assert_eq(p.items, 5);

    MUST(mx_gc_look(s, (int64_t)30 * 86400000, NULL, &x.arena, &p, &st));
    MUST(mx_gc_clear(s, &p, &done, &st));
    cr_assert(done.kept == 0 && done.alive == 0);
    for (size_t i = 0; i < sizeof stays / sizeof stays[0]; i++) {
        cr_assert(mx_folder_exists(stays[i]), "%s is gone", stays[i]);
    }
    cr_assert_not(mx_folder_exists("runs/10-a-b"));
    cr_assert_not(mx_folder_exists("runs/5-dora"));
    cr_assert_not(mx_file_exists("runs/1-lora/checkpoint.bin"));
    cr_assert(mx_file_exists("runs/1-lora/adapter/adapter_model.safetensors"));
    cr_assert(mx_file_exists("runs/4-mixlora/checkpoint.bin"));
    cr_assert(mx_file_exists("runs/2-lora/checkpoint.bin.tmp-mine"));
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM runs"), 4);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM environments"), 1);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM bases"), 1);
    cr_assert_eq(ask(s, "PRAGMA freelist_count"), 0);
    MUST(mx_gc_look(s, (int64_t)30 * 86400000, NULL, &x.arena, &p, &st));
    cr_assert_eq(p.items + p.environments + p.bases + p.free_bytes, 0, "once is enough");
    end(&x, s);
}

/* Between the look and the removal a run begins in what looked like an orphan's folder (its row was not yet there when the runs were read),
 * and another is resumed whose unfinished part of a file was to go. */
Test(remove, gc_leaves_alone_what_a_run_took_meanwhile) {
    scratch x = scratch_open();
    mx_run_row run[6], row = some_run("a b");
    mx_store *s = begin(&x, run);
    char uuid[MX_UUID_TEXT];
    mx_gc_plan p;
    mx_gc_done done;
    mx_status st = { 0 };

    put("runs/5-dora/checkpoint.bin.tmp-123", "half");
    orphan("runs/10-a-b", "a.db", "runs", "a b");
    orphan("runs/11-c", "a.db", "runs", "c");
    MUST(mx_gc_look(s, -1, NULL, &x.arena, &p, &st));
    cr_assert(item(&p, "runs/10-a-b") && item(&p, "runs/11-c") && item(&p, "checkpoint.bin.tmp-123 of run 5"));
    row.folder = "./runs/../runs/10-a-b"; /* the same folder, spelled otherwise */
    MUST(mx_store_begin(s, &st));
    MUST(mx_store_run_add(s, &row, uuid, &st));
    MUST(mx_store_run_state(s, 5, "running", "", &st));
    MUST(mx_store_commit(s, &st));
    MUST(mx_gc_clear(s, &p, &done, &st));
    cr_assert(mx_file_exists("runs/10-a-b/recipe.yaml") && mx_file_exists("runs/10-a-b/checkpoint.bin"));
    cr_assert(mx_file_exists("runs/5-dora/checkpoint.bin.tmp-123"));
    cr_assert_not(mx_folder_exists("runs/11-c"), "an orphan goes");
    cr_assert_not(mx_file_exists("runs/1-lora/checkpoint.bin"));
    cr_assert_eq(done.kept, 2);
    end(&x, s);
}

Test(remove, gc_does_not_lock_the_database_while_a_run_is_alive) {
    scratch x = scratch_open();
    mx_run_row run[6];
    mx_store *s = begin(&x, run);
    mx_gc_plan p;
    mx_gc_done done;
    mx_status st = { 0 };

    cr_assert_eq(sqlite3_exec(mx_store_handle(s), "CREATE TABLE large (x); INSERT INTO large VALUES (zeroblob(20000)); DROP TABLE large",
                              NULL, NULL, NULL), SQLITE_OK);
    MUST(mx_store_run_state(s, 5, "running", "", &st)); /* by this process */
    MUST(mx_gc_look(s, -1, NULL, &x.arena, &p, &st));
    cr_assert_eq(p.alive, 5);
    cr_assert_gt(p.free_bytes, 0);
    MUST(mx_gc_clear(s, &p, &done, &st));
    cr_assert_eq(done.alive, 5);
    cr_assert_gt(ask(s, "PRAGMA freelist_count"), 0, "no VACUUM");
    cr_assert_not(mx_file_exists("runs/1-lora/checkpoint.bin"), "the rest is done");
    /* one that is dead keeps nothing: on another host, not heard of for an hour */
    cr_assert_eq(sqlite3_exec(mx_store_handle(s), "UPDATE runs SET host = 'elsewhere', heartbeat_ms = heartbeat_ms - 3600000 WHERE run_id = 5",
                              NULL, NULL, NULL), SQLITE_OK);
    MUST(mx_gc_look(s, -1, NULL, &x.arena, &p, &st));
    cr_assert_eq(p.alive, 0);
    MUST(mx_gc_clear(s, &p, &done, &st));
    cr_assert_eq(done.alive, 0);
    cr_assert_eq(ask(s, "PRAGMA freelist_count"), 0);
    end(&x, s);
}
