/* Sweeps as a user starts, stops, breaks and starts them again. */
#include "tests/runner/support.h"

#include <sys/stat.h>
#include <time.h>

enum { TIMES = 20000 };

static const char lora[] = "  method: lora\n  lora_r: 4\n";

static void write_file(scratch *x, const char *name, const char *text) {
    mx_status st = { 0 };

    cr_assert_eq(mx_file_write(scratch_path(x, name), text, strlen(text), &st), MX_OK, "%s", st.text);
}

/* Two variants of a tiny recipe; `seeds` as in "[1, 2]", `more` words for both. */
static void tiny_sweep(scratch *x, const char *seeds, const char *more) {
    tiny_recipe(x, "r.yaml", lora);
    write_file(x, "s.yaml", mx_arena_text(&x->arena,
                                          "recipe: r.yaml\nset: {%s}\nvariants:\n  - {name: small, set: {adapter.lora_r: 2}}\n"
                                          "  - name: mix\n    set: {adapter: {method: mixlora, num_experts: 4}}\nseeds: %s\n",
                                          more, seeds));
}

static void nap(void) {
    nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

/* Waits until a statement about the database gives this number, or more. */
static bool wait_until(scratch *x, const char *db, const char *sql, int64_t least) {
    for (int i = 0; i < TIMES; i++) {
        sqlite3 *handle = NULL;
        sqlite3_stmt *q = NULL;
        int64_t got = -1;

        if (mx_file_exists(scratch_path(x, db)) &&
            sqlite3_open_v2(scratch_path(x, db), &handle, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
            sqlite3_prepare_v2(handle, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW) {
            got = sqlite3_column_int64(q, 0);
        }
        sqlite3_finalize(q);
        sqlite3_close(handle);
        if (got >= least) {
            return true;
        }
        nap();
    }
    return false;
}

static void must_be(scratch *x, const char *db, const char *sql, const char *expected) {
    char *got = rows(x, db, sql);

    cr_assert_str_eq(got, expected, "%s gives\n%s%s", sql, got, mx_file_exists(scratch_path(x, "err.txt")) ? output(x, "err.txt") : "");
    free(got);
}

/* All that finished runs measured, by what they are instead of by their number: two databases of the same runs give the same. */
static char *everything(scratch *x, const char *db) {
    static const char *const sql[] = {
        "SELECT name, seed, COUNT(*) FROM runs WHERE kind = 'train' AND state = 'finished' GROUP BY name, seed ORDER BY 1, 2",
        "SELECT r.name, r.seed, m.name, m.step, m.value FROM metrics m JOIN runs r USING (run_id) WHERE r.state = 'finished' AND"
        " m.name NOT IN ('tokens_per_second', 'memory_bytes', 'memory_planned_bytes') ORDER BY 1, 2, 3, 4",
        "SELECT r.name, r.seed, e.task, e.protocol, e.step, e.n, s.metric, s.value, s.stderr FROM scores s JOIN evaluations e"
        " USING (evaluation_id) JOIN runs r USING (run_id) WHERE r.state = 'finished' ORDER BY 1, 2, 3, 4, 5, 7",
        "SELECT r.name, r.seed, e.task, e.protocol, e.step, p.number, p.choices FROM predictions p JOIN evaluations e"
        " USING (evaluation_id) JOIN runs r USING (run_id) WHERE r.state = 'finished' ORDER BY 1, 2, 3, 4, 5, 6",
        "SELECT r.name, r.seed, l.split, l.first_step, l.last_step, l.protocol, l.task, l.layer, l.expert, l.tokens, l.probability_mass,"
        " l.entropy_sum FROM router_load l JOIN runs r USING (run_id) WHERE r.state = 'finished' ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9",
    };
    mx_text all;

    mx_text_init(&all, 256 << 20);
    for (size_t i = 0; i < sizeof sql / sizeof sql[0]; i++) {
        char *text = rows(x, db, sql[i]);

        cr_assert(text[0], "%s gives nothing", sql[i]);
        mx_text_print(&all, "%s", text);
        free(text);
    }
    return all.data;
}

static void same_as_undisturbed(scratch *x) {
    char *a, *b;

    program(x, 0, "sweep s.yaml --quiet db=whole.db output_dir=whole");
    a = everything(x, "whole.db");
    b = everything(x, "mixrun.db");
    cr_assert_str_eq(a, b, "the disturbed sweep differs from the undisturbed one");
    free(a);
    free(b);
}

/* The process of the run that is least far. */
static pid_t process_at_work(scratch *x) {
    char *text = rows(x, "mixrun.db", "SELECT pid FROM runs WHERE state = 'running' ORDER BY step LIMIT 1");
    pid_t pid = (pid_t)atoi(text);

    free(text);
    return pid;
}

Test(sweep_run, runs_what_the_store_lacks_and_nothing_twice) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1, 2]", "");
    program(&x, 0, "sweep s.yaml");
    cr_assert(strstr(output(&x, "out.txt"), "all 4 runs are finished"), "%s", output(&x, "out.txt"));
    cr_assert(strstr(output(&x, "out.txt"), "mixrun compare --sweep s"), "%s", output(&x, "out.txt"));
    cr_assert(strstr(output(&x, "err.txt"), "[2/4] mix seed 1"), "%s", output(&x, "err.txt"));
    must_be(&x, "mixrun.db", "SELECT position, variant, seed, state FROM sweep_runs WHERE sweep = 's' ORDER BY 1",
            "1|small|1|finished\n2|mix|1|finished\n3|small|2|finished\n4|mix|2|finished\n");
    program(&x, 0, "sweep s.yaml --quiet");
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "4\n");
    tiny_sweep(&x, "[1, 2, 3]", ""); /* one seed more; and threads shared by two */
    program(&x, 0, "sweep s.yaml --quiet --jobs 2 threads=0");
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs WHERE recipe LIKE '%threads: 0%'", "0\n");
    must_be(&x, "mixrun.db", "SELECT COUNT(*), COUNT(DISTINCT uuid), SUM(state = 'finished') FROM runs", "6|6|6\n");
    program(&x, 0, "sweep s.yaml --quiet adapter.lora_dropout=0.1"); /* another meaning: all anew */
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "12\n");
    program(&x, 0, "sweep r.yaml adapter.lora_r=2,2 seed=1 --quiet"); /* the same as small seed 1, twice */
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "12\n");
    program(&x, 0, "sweep r.yaml adapter.lora_r=2,2 seed=1 --quiet --rerun"); /* equal ones are one */
    must_be(&x, "mixrun.db", "SELECT COUNT(*), SUM(name LIKE '%lora_r 2%') FROM runs", "13|1\n");
    scratch_close(&x);
}

Test(sweep_run, a_variant_that_diverges_is_recorded_and_touches_no_other) {
    scratch x = scratch_open();

    tiny_recipe(&x, "r.yaml", lora);
    write_file(&x, "s.yaml",
               "recipe: r.yaml\nvariants:\n  - {name: wild, set: {train.learning_rate: 10, train.weight_decay: 10, train.num_epochs: 9}}\n"
               "  - {name: tame}\nseeds: [1, 2]\n");
    program(&x, 4, "sweep s.yaml --jobs 2");
    must_be(&x, "mixrun.db", "SELECT name, seed, state, reason LIKE '%not finite%' FROM runs ORDER BY 1, 2",
            "tame|1|finished|0\ntame|2|finished|0\nwild|1|failed|1\nwild|2|failed|1\n");
    cr_assert(strstr(output(&x, "err.txt"), "2 finished, 2 failed (run "), "%s", output(&x, "err.txt"));
    cr_assert(strstr(output(&x, "err.txt"), "mixrun show "), "%s", output(&x, "err.txt"));
    program(&x, 4, "sweep s.yaml --quiet"); /* tried again, the others left alone */
    must_be(&x, "mixrun.db", "SELECT SUM(state = 'finished'), SUM(state = 'failed') FROM runs", "2|2\n");
    scratch_close(&x);
}

Test(sweep_run, a_member_that_cannot_begin_says_why) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1]", "");
    cr_assert_eq(mkdir(scratch_path(&x, "closed"), 0755), 0);
    write_file(&x, "closed/file", "in the way");
    program(&x, 4, "sweep s.yaml output_dir=closed/file");
    cr_assert(strstr(output(&x, "err.txt"), "0 finished, 2 failed"), "%s", output(&x, "err.txt"));
    cr_assert(strstr(output(&x, "err.txt"), "closed/file"), "%s", output(&x, "err.txt"));
    program(&x, 0, "sweep s.yaml --quiet");
    scratch_close(&x);
}

Test(sweep_run, what_does_not_fit_is_refused_before_anything_starts) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1]", "");
    program(&x, 1, "sweep s.yaml --memory-limit 1MiB");
    cr_assert(strstr(output(&x, "err.txt"), "does not fit"), "%s", output(&x, "err.txt"));
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "0\n");
    program(&x, 0, "sweep s.yaml --jobs 2 --memory-limit 64MiB --quiet"); /* one after the other, if they do not fit together */
    scratch_close(&x);
}

Test(sweep_run, stopped_by_ctrl_c_it_goes_on_to_the_bit) {
    scratch x = scratch_open();
    pid_t sweep;

    tiny_sweep(&x, "[1]", "train.num_epochs: 5");
    sweep = start(&x, "sweep s.yaml --jobs 2");
    cr_assert(wait_until(&x, "mixrun.db", "SELECT MIN(step) FROM runs HAVING COUNT(*) = 2", 3));
    kill(sweep, SIGINT);
    cr_assert_eq(finish(sweep), 75, "%s", output(&x, "err.txt"));
    cr_assert(strstr(output(&x, "err.txt"), " of 2 runs finished, "), "%s", output(&x, "err.txt"));
    must_be(&x, "mixrun.db", "SELECT COUNT(*), SUM(state = 'stopped') > 0, SUM(state IN ('stopped', 'finished')) FROM runs", "2|1|2\n");
    program(&x, 0, "sweep s.yaml --quiet --jobs 2");
    must_be(&x, "mixrun.db", "SELECT COUNT(*), SUM(state = 'finished') FROM runs", "2|2\n");
    same_as_undisturbed(&x);
    scratch_close(&x);
}

/* Between fork and the new program's handlers a stop must neither be lost nor kill. */
Test(sweep_run, ctrl_c_while_a_member_is_just_starting_stops_it_too) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1]", "train.num_epochs: 40");
    for (int round = 0; round < 4; round++) {
        pid_t sweep = start(&x, "sweep s.yaml");
        char path[64], line[64] = "";

        snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)sweep, (int)sweep);
        for (int i = 0; i < 20 * TIMES && !line[0]; i++) {
            FILE *f = fopen(path, "r");

            if (f && !fgets(line, sizeof line, f)) {
                line[0] = '\0';
            }
            if (f) {
                fclose(f);
            }
            nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL); /* short: the moment after fork is what is tested */
        }
        cr_assert(line[0], "round %d: no member was started", round);
        kill(sweep, SIGINT);
        cr_assert_eq(finish(sweep), 75, "round %d: %s", round, output(&x, "err.txt"));
        cr_assert_not(strstr(output(&x, "err.txt"), "signal 2"), "%s", output(&x, "err.txt"));
    }
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs WHERE state NOT IN ('stopped')", "0\n");
    scratch_close(&x);
}

Test(sweep_run, a_record_that_asked_for_other_runs_is_not_replaced_in_silence) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1]", "");
    program(&x, 0, "sweep s.yaml");
    program(&x, 0, "sweep s.yaml");
    cr_assert_not(strstr(output(&x, "err.txt"), "asked for other runs"), "%s", output(&x, "err.txt"));
    program(&x, 2, "sweep s.yaml train.learning_rate=1e-4,2e-4 --emit nothing");
    program(&x, 0, "sweep s.yaml seed=1,2 --emit commands");
    cr_assert(strstr(output(&x, "err.txt"), "asked for other runs before (2, now 4)"), "%s", output(&x, "err.txt"));
    program(&x, 1, "sweep s.yaml seed=3 --emit slurm --memory-limit 1MiB");
    cr_assert(strstr(output(&x, "err.txt"), "does not fit"), "%s", output(&x, "err.txt"));
    scratch_close(&x);
}

Test(sweep_run, two_jobs_lose_no_row_when_either_or_their_parent_is_killed) {
    scratch x = scratch_open();
    pid_t sweep, child;

    tiny_sweep(&x, "[1, 2]", "train.num_epochs: 5");
    sweep = start(&x, "sweep s.yaml --jobs 2");
    cr_assert(wait_until(&x, "mixrun.db", "SELECT MIN(step) FROM runs HAVING COUNT(*) = 2", 3));
    child = process_at_work(&x);
    cr_assert(child > 0 && kill(child, SIGKILL) == 0, "a child to kill");
    cr_assert_eq(finish(sweep), 4, "%s", output(&x, "err.txt"));
    must_be(&x, "mixrun.db", "SELECT COUNT(*), SUM(state = 'finished'), SUM(state = 'failed' AND reason = 'killed by signal 9 (out of memory?)') FROM runs",
            "4|3|1\n");

    tiny_sweep(&x, "[1, 2, 3]", "train.num_epochs: 5");
    sweep = start(&x, "sweep s.yaml --jobs 2");
    cr_assert(wait_until(&x, "mixrun.db", "SELECT COUNT(*) FROM runs WHERE step >= 3", 5));
    kill(sweep, SIGKILL);
    cr_assert_eq(finish(sweep), 1000 + SIGKILL);
    cr_assert(wait_until(&x, "mixrun.db", "SELECT SUM(state != 'running') FROM runs HAVING COUNT(*) = SUM(state != 'running')", 1),
              "children save and stop when their parent dies");
    program(&x, 0, "sweep s.yaml --quiet --jobs 2");
    must_be(&x, "mixrun.db", "SELECT COUNT(*), SUM(state = 'finished') FROM runs", "6|6\n");
    same_as_undisturbed(&x);
    scratch_close(&x);
}

Test(sweep_run, two_sweeps_at_once_share_the_work) {
    scratch x = scratch_open();
    pid_t first, second;
    int a, b;

    tiny_sweep(&x, "[1, 2, 3]", "");
    first = start(&x, "sweep s.yaml --quiet");
    second = start(&x, "sweep s.yaml --quiet");
    a = finish(first);
    b = finish(second);
    cr_assert((a == 0 && (b == 0 || b == 4)) || (a == 4 && b == 0), "exits %d and %d: one may end while the other is at its last run", a, b);
    must_be(&x, "mixrun.db", "SELECT COUNT(*), SUM(state = 'finished'), COUNT(DISTINCT recipe_hash || seed) FROM runs", "6|6|6\n");
    scratch_close(&x);
}

Test(sweep_run, of_two_who_resume_a_run_one_gets_it) {
    scratch x = scratch_open();
    pid_t child;
    int a, b;

    tiny_recipe(&x, "r.yaml", lora);
    child = start(&x, "r.yaml --quiet train.num_epochs=12");
    cr_assert(wait_until(&x, "mixrun.db", "SELECT step FROM runs", 3));
    kill(child, SIGINT);
    cr_assert_eq(finish(child), 75);
    child = start(&x, "resume 1 --quiet");
    a = finish(start(&x, "resume 1 --quiet"));
    b = finish(child);
    cr_assert((a == 0 && b == 2) || (a == 2 && b == 0), "exits %d and %d", a, b);
    must_be(&x, "mixrun.db", "SELECT COUNT(*), MAX(state) FROM runs", "1|finished\n");
    scratch_close(&x);
}

Test(sweep_run, a_member_is_run_by_number_and_refused_when_it_changed) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1, 2]", "");
    program(&x, 0, "sweep s.yaml --member 4 --quiet");
    must_be(&x, "mixrun.db", "SELECT name, seed, state FROM runs", "mix|2|finished\n");
    program(&x, 0, "sweep s.yaml --member 4 --quiet");
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "1\n");
    program(&x, 0, "sweep s.yaml --member 4 --quiet --rerun");
    must_be(&x, "mixrun.db", "SELECT COUNT(*), COUNT(DISTINCT folder) FROM runs", "2|2\n");
    program(&x, 2, "sweep s.yaml --member 5");
    cr_assert(strstr(output(&x, "err.txt"), "members 1 to 4"), "%s", output(&x, "err.txt"));
    program(&x, 2, "sweep s.yaml --member 4:00000000");
    cr_assert(strstr(output(&x, "err.txt"), "is another one now"), "%s", output(&x, "err.txt"));
    program(&x, 2, "sweep s.yaml --member 4:0");
    program(&x, 2, "sweep s.yaml --member four");
    program(&x, 2, "sweep s.yaml --jobs 0");
    scratch_close(&x);
}

/* A line of shell, in the test's folder; its exit code. */
static int shell(scratch *x, const char *line) {
    return system(mx_arena_text(&x->arena, "cd %s && MIXRUN_DATA= XDG_CACHE_HOME=%s TERM=dumb && { %s; } >shell.txt 2>&1", x->folder, x->folder,
                                line));
}

Test(sweep_run, emitted_commands_are_whole_and_run_anywhere) {
    scratch x = scratch_open();
    char *text, *save = NULL;
    int lines = 0;

    tiny_sweep(&x, "[1, 2]", "");
    program(&x, 0, "sweep s.yaml --member 2 --quiet");
    program(&x, 0, "sweep s.yaml --emit commands train.weight_decay=0.01");
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM members", "4\n"); /* the sweep is known, though nothing ran here */
    program(&x, 0, "sweep s.yaml --emit commands");
    text = output(&x, "out.txt");
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        lines++;
        cr_assert_eq(shell(&x, mx_arena_text(&x.arena, "cd / && %s", line)), 0, "%s\n%s", line, output(&x, "shell.txt"));
    }
    cr_assert_eq(lines, 3, "one command for each run that is missing, not %d", lines);
    program(&x, 0, "sweep s.yaml --quiet");
    cr_assert(strstr(output(&x, "out.txt"), "all 4 runs are finished"), "%s", output(&x, "out.txt"));
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "4\n");
    program(&x, 2, "sweep s.yaml --emit commands");
    cr_assert(strstr(output(&x, "err.txt"), "nothing left to do"), "%s", output(&x, "err.txt"));
    scratch_close(&x);
}

Test(sweep_run, the_slurm_script_runs_every_task_into_its_own_database) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1, 2]", "");
    program(&x, 0, "sweep s.yaml --emit slurm --own-db --jobs 3");
    write_file(&x, "job.sh", output(&x, "out.txt"));
    cr_assert(strstr(output(&x, "out.txt"), "#SBATCH --array=1-4%3\n"), "%s", output(&x, "out.txt"));
    cr_assert(strstr(output(&x, "out.txt"), "#SBATCH --job-name=s\n"), "%s", output(&x, "out.txt"));
    for (int task = 1; task <= 4; task++) {
        cr_assert_eq(shell(&x, mx_arena_text(&x.arena, "SLURM_ARRAY_TASK_ID=%d bash job.sh", task)), 0, "%s", output(&x, "shell.txt"));
        cr_assert(mx_file_exists(scratch_path(&x, mx_arena_text(&x.arena, "mixrun-members/member-%d.db", task))));
    }
    cr_assert_neq(shell(&x, "SLURM_ARRAY_TASK_ID=5 bash job.sh"), 0);
    must_be(&x, "mixrun.db", "SELECT COUNT(*) FROM runs", "0\n");
    program(&x, 0, "import mixrun-members/member-1.db mixrun-members/member-2.db mixrun-members/member-3.db mixrun-members/member-4.db");
    program(&x, 0, "sweep s.yaml --quiet");
    cr_assert(strstr(output(&x, "out.txt"), "all 4 runs are finished"), "%s", output(&x, "out.txt"));
    must_be(&x, "mixrun.db", "SELECT COUNT(*), COUNT(DISTINCT folder) FROM runs", "4|4\n");
    scratch_close(&x);
}

Test(sweep_run, flags_that_would_say_nothing_are_refused) {
    scratch x = scratch_open();

    tiny_sweep(&x, "[1]", "");
    program(&x, 2, "sweep s.yaml --own-db");
    program(&x, 2, "sweep s.yaml --emit commands --jobs 2");
    program(&x, 2, "sweep s.yaml --emit commands --member 1");
    program(&x, 2, "sweep s.yaml --jobs 2 --member 1");
    program(&x, 2, "sweep s.yaml --emit slrum");
    cr_assert(strstr(output(&x, "err.txt"), "did you mean 'slurm'?"), "%s", output(&x, "err.txt"));
    cr_assert_not(mx_file_exists(scratch_path(&x, "mixrun.db")), "what is refused makes nothing");
    scratch_close(&x);
}
