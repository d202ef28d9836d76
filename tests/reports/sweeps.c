/* A sweep asks for identities; whichever run has one answers it. */
#include "reports/sweeps.h"

#include "tests/reports/support.h"

#include <string.h>
#include <unistd.h>

static mx_member_row member(int64_t position, const char *variant, int64_t seed, const char *recipe) {
    return (mx_member_row){ .position = position, .variant = variant, .seed = seed, .recipe_hash = recipe, .base_hash = "b0",
                            .tasks_hash = "t0", .data_hash = "d0", .method = "mixlora", .trained = 10, .trained_router = 2,
                            .flops = 60, .matched = "" };
}

static void put(mx_store *s, const mx_member_row *m, int64_t n) {
    const mx_sweep_row w = { .name = "methods", .path = "configs/sweeps/methods.yaml", .text = "recipe: a.yaml\n", .arguments = "",
                             .baseline = "lora", .protocol = "loglikelihood", .metric = "acc_norm" };
    mx_status st = { 0 };

    cr_assert(mx_store_sweep(s, &w, m, n, &st) == MX_OK, "%s", st.text);
}

Test(sweeps, members_are_answered_by_runs_of_their_identity) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const mx_member_row m[] = { member(1, "mixlora", 1, "abcdef"), member(2, "lora", 1, "fedcba") };
    mx_member_row *found;
    mx_sweep_row sweep;
    int64_t n, first, second;
    mx_status st = { 0 };

    first = add_run(s, "x"); /* recipe abcdef, seed 1 */
    second = add_run(s, "y");
    put(s, m, 2);
    cr_assert_eq(mx_store_sweep_find(s, "methods", &x.arena, &sweep, &found, &n, &st), MX_OK);
    cr_assert_str_eq(sweep.baseline, "lora");
    cr_assert_eq(n, 2);
    cr_assert_eq(found[0].run_id, second, "none is finished: the newest");
    cr_assert_str_eq(found[0].state, "running");
    cr_assert_eq(found[1].run_id, 0);
    cr_assert_str_eq(found[1].state, "");
    cr_assert(mx_store_begin(s, &st) == MX_OK && mx_store_run_state(s, first, "finished", "", &st) == MX_OK &&
              mx_store_commit(s, &st) == MX_OK);
    cr_assert_eq(mx_store_sweep_find(s, "methods", &x.arena, NULL, &found, &n, &st), MX_OK);
    cr_assert_eq(found[0].run_id, first, "the newest finished one");
    mx_store_close(s);
    scratch_close(&x);
}

Test(sweeps, starting_again_replaces_what_was_asked_for) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const mx_member_row before[] = { member(1, "a", 1, "r1"), member(2, "b", 1, "r2") }, after[] = { member(1, "c", 3, "r3") };
    mx_member_row *found;
    int64_t n;
    mx_status st = { 0 };

    put(s, before, 2);
    put(s, after, 1);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM sweeps"), 1);
    cr_assert_eq(mx_store_sweep_find(s, "methods", &x.arena, NULL, &found, &n, &st), MX_OK);
    cr_assert_eq(n, 1);
    cr_assert_str_eq(found[0].variant, "c");
    cr_assert_eq(found[0].seed, 3);
    cr_assert_eq(mx_store_sweep_find(s, "method", &x.arena, NULL, &found, &n, &st), MX_E_USAGE);
    cr_assert_str_eq(st.hint, "did you mean 'methods'?");
    mx_store_close(s);
    scratch_close(&x);
}

Test(sweeps, the_run_of_a_process_is_found) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t id = add_run(s, "x");
    mx_run_row row;
    bool found;
    mx_status st = { 0 };

    cr_assert_eq(mx_store_run_of_process(s, getpid(), 0, &x.arena, &found, &row, &st), MX_OK);
    cr_assert(found && row.run_id == id);
    cr_assert_eq(mx_store_run_of_process(s, getpid(), mx_now_ms() + 60000, &x.arena, &found, &row, &st), MX_OK);
    cr_assert_not(found, "not since then");
    mx_store_close(s);
    scratch_close(&x);
}
