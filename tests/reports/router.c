/* Router loads: integers in, shares, entropies, imbalance and dead experts out of the views. */
#include "reports/summary.h"
#include "tests/reports/support.h"

#include <math.h>
#include <string.h>

enum { LAYERS = 2, TASKS = 2, EXPERTS = 4 };

static void store_window(mx_store *s, int64_t run) {
    static const char *const task[TASKS] = { "a", "b" };
    /* [layer][task][expert]; k = 2: loads of a layer and task sum to twice its tokens */
    static const int64_t tokens[] = { 8, 4, 4, 0, 2, 2, 0, 0, 4, 4, 4, 4, 1, 1, 1, 1 }, dropped[16] = { 0 };
    static const double probability[] = { 4, 2, 1, 1, 1, .5, .25, .25, 2, 2, 2, 2, .5, .5, .5, .5 };
    static const int64_t routed[] = { 8, 2, 8, 2 };
    static const double entropy[] = { 6, 1, 8, 2 };
    int64_t pairs[LAYERS * TASKS * EXPERTS * EXPERTS] = { 0 };
    mx_router_window w = { .split = "train", .first_step = 1, .last_step = 3, .task = task, .tasks = TASKS, .layers = LAYERS,
                           .experts = EXPERTS, .tokens = tokens, .dropped = dropped, .probability = probability,
                           .routed = routed, .entropy = entropy, .pairs = pairs };
    mx_status st = { 0 };

    pairs[0 * 16 + 0 * 4 + 1] = 4;
    pairs[0 * 16 + 0 * 4 + 2] = 4;
    cr_assert_eq(mx_store_begin(s, &st), MX_OK);
    cr_assert_eq(mx_store_router(s, run, &w, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_store_commit(s, &st), MX_OK);
}

Test(router, views_agree_with_arithmetic_by_hand) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    /* layer 0, tasks together: 10, 6, 4, 0 of 20 */
    const double h = -(.5 * log2(.5) + .3 * log2(.3) + .2 * log2(.2));

    store_window(s, add_run(s, "r"));
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM router_load"), LAYERS * TASKS * EXPERTS);
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM (SELECT SUM(tokens) AS n, MAX(routed) AS t FROM router_load GROUP BY layer, task) WHERE n <> 2 * t"), 0,
                 "loads sum to tokens times k");
    cr_assert_eq(ask(s, "SELECT COUNT(*) FROM (SELECT SUM(probability_mass) AS m, MAX(routed) AS t FROM router_load GROUP BY layer, task) WHERE ABS(m - t) > 1e-9"), 0,
                 "probabilities sum to tokens");
    cr_assert_float_eq(ask(s, "SELECT share FROM router_share WHERE layer = 0 AND expert = 0"), .5, 1e-12);
    cr_assert_float_eq(ask(s, "SELECT load_entropy_bits FROM router_balance WHERE layer = 0"), h, 1e-12);
    cr_assert_float_eq(ask(s, "SELECT load_entropy_bits FROM router_balance WHERE layer = 1"), 2, 1e-12, "even loads: log2 E");
    cr_assert_float_eq(ask(s, "SELECT max_over_mean FROM router_balance WHERE layer = 0"), 2, 1e-12);
    cr_assert_eq(ask(s, "SELECT dead FROM router_balance WHERE layer = 0"), 1);
    cr_assert_eq(ask(s, "SELECT dead FROM router_balance WHERE layer = 1"), 0);
    cr_assert_eq(ask(s, "SELECT SUM(tokens) FROM router_pairs"), 8);
    mx_store_close(s);
    scratch_close(&x);
}

Test(router, the_summary_tells_shares_and_the_most_uneven_layer) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    int64_t run = add_run(s, "r");
    mx_text out;
    mx_status st = { 0 };

    store_window(s, run);
    mx_text_init(&out, 1 << 20);
    cr_assert_eq(mx_summary_router(s, run, &out, &st), MX_OK, "%s", st.text);
    cr_assert(strstr(out.data, " most uneven: layer 0                    0.50  0.30  0.20  0.00           1.49      2.00\n"), "%s", out.data);
    cr_assert(strstr(out.data, " 1 of the experts (counted by layer) never worked."), "%s", out.data);
    mx_text_finish(&out);
    mx_store_close(s);
    scratch_close(&x);
}
