/* Runs made apart become one database: what they measured, what can still go on, what is said. */
#include "tests/runner/support.h"

static const char lora[] = "  method: lora\n  lora_r: 4\n", mixture[] = "  method: mixlora\n  lora_r: 4\n  num_experts: 4\n";

static void must_be(scratch *x, const char *db, const char *sql, const char *expected) {
    char *got = rows(x, db, sql);

    cr_assert_str_eq(got, expected, "%s gives\n%s", sql, got);
    free(got);
}

Test(import, runs_of_two_databases_are_one_database_with_what_they_measured) {
    scratch x = scratch_open();
    char *there, *here;

    tiny_recipe(&x, "a.yaml", mixture);
    tiny_recipe(&x, "b.yaml", lora);
    program(&x, 0, "a.yaml --quiet db=a.db");
    program(&x, 0, "b.yaml --quiet db=b.db");
    program(&x, 0, "import a.db b.db --db all.db");
    cr_assert(strstr(output(&x, "out.txt"), " a.db: imported 1 run\n b.db: imported 1 run\n"), "%s", output(&x, "out.txt"));
    there = measured(&x, "a.db");
    here = measured(&x, "all.db");
    cr_assert_str_eq(there, here, "run 1 here is run 1 there");
    free(there);
    free(here);
    must_be(&x, "all.db", "SELECT run_id, name, state FROM runs ORDER BY 1", "1|a|finished\n2|b|finished\n");
    program(&x, 0, "import b.db a.db --db all.db");
    cr_assert(strstr(output(&x, "out.txt"), " a.db: imported 0 runs, 1 was here already\n"), "%s", output(&x, "out.txt"));
    must_be(&x, "all.db", "SELECT COUNT(*) FROM runs", "2\n");
    program(&x, 0, "show 2 --db all.db");
    program(&x, 0, "ls --db all.db");
    scratch_close(&x);
}

Test(import, two_databases_in_one_folder_keep_their_runs_apart) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", lora);
    program(&x, 0, "r.yaml --quiet db=a.db");
    program(&x, 0, "r.yaml --quiet db=b.db seed=4"); /* its run 1 of the same name */
    program(&x, 0, "import b.db --db a.db");
    must_be(&x, "a.db", "SELECT COUNT(*), COUNT(DISTINCT folder) FROM runs", "2|2\n");
    must_be(&x, "a.db", "SELECT folder FROM runs WHERE run_id = 1", "runs/1-r\n");
    scratch_close(&x);
}

Test(import, a_sweep_goes_on_after_what_another_database_finished) {
    scratch x = scratch_open();
    static const char sweep[] = "recipe: r.yaml\nvariants:\n  - {name: small, set: {adapter.lora_r: 2}}\n  - {name: large}\nseeds: [1]\n";
    mx_status st = { 0 };

    tiny_recipe(&x, "r.yaml", lora);
    cr_assert_eq(mx_file_write(scratch_path(&x, "s.yaml"), sweep, strlen(sweep), &st), MX_OK);
    program(&x, 0, "sweep s.yaml --quiet --db node.db --member 1");
    program(&x, 0, "import node.db");
    program(&x, 0, "sweep s.yaml");
    cr_assert(strstr(output(&x, "err.txt"), "2 runs, 1 done, 1 to do"), "%s", output(&x, "err.txt"));
    must_be(&x, "mixrun.db", "SELECT variant, run_id, state FROM sweep_runs ORDER BY position", "small|1|finished\nlarge|2|finished\n");
    scratch_close(&x);
}

Test(import, what_cannot_be_imported_is_refused_by_name) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", lora);
    program(&x, 1, "import absent.db");
    cr_assert(strstr(output(&x, "err.txt"), "there is no database absent.db"), "%s", output(&x, "err.txt"));
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")), "no database is made for nothing");
    program(&x, 0, "r.yaml --quiet train.max_steps=1");
    program(&x, 2, "import mixrun.db");
    cr_assert(strstr(output(&x, "err.txt"), "is the database it would be imported into"), "%s", output(&x, "err.txt"));
    program(&x, 1, "import r.yaml");
    cr_assert(strstr(output(&x, "err.txt"), "r.yaml cannot be imported: file is not a database"), "%s", output(&x, "err.txt"));
    program(&x, 2, "import");
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "1\n");
    scratch_close(&x);
}
