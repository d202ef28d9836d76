/* Comparisons out of a database: the right rows are read, and what cannot be compared is refused with the difference named. */
#include "reports/compare.h"

#include "tests/reports/compared.h"

#include <math.h>

static mx_compare *compared(scratch *x, mx_store *s, mx_compare_wish wish) {
    mx_compare *c = NULL;
    mx_status st = { 0 };

    cr_assert(mx_compare_read(s, &wish, &x->arena, &c, &st) == MX_OK, "%s", st.text);
    return c;
}

static void refused(scratch *x, mx_store *s, mx_compare_wish wish, mx_code code, const char *says) {
    mx_compare *c;
    mx_status st = { 0 };

    cr_assert_eq(mx_compare_read(s, &wish, &x->arena, &c, &st), code, "wanted: %s; got %d: %s", says, st.code, st.text);
    cr_assert(strstr(st.text, says) || strstr(st.hint, says), "wanted: %s; got: %s (%s)", says, st.text, st.hint);
}

static bool noted(const mx_compare *c, const char *words) {
    for (int32_t i = 0; i < c->notes; i++) {
        if (strstr(c->note[i], words)) {
            return true;
        }
    }
    return false;
}

static const char *notes(mx_arena *arena, const mx_compare *c) {
    const char *text = "";

    for (int32_t i = 0; i < c->notes; i++) {
        text = mx_arena_text(arena, "%s%s\n", text, c->note[i]);
    }
    return text;
}

static mx_cells differences(mx_arena *arena, const char *const *a, const char *const *b, int32_t seeds) {
    int64_t n = (int64_t)strlen(a[0]);
    int8_t *d = MX_TAKE(arena, int8_t, n * seeds);

    for (int32_t s = 0; s < seeds; s++) {
        for (int64_t i = 0; i < n; i++) {
            d[s * n + i] = (int8_t)((a[s][i] == '1') - (b[s][i] == '1'));
        }
    }
    return (mx_cells){ d, n, seeds };
}

Test(compare, a_sweep_is_compared_by_task_and_over_tasks) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_compare *c;
    double p[6], held[6];

    made_sweep(s, 0);
    c = compared(&x, s, (mx_compare_wish){ .sweep = "methods", .against = -1 });
    cr_assert(c->sides == 3 && c->baseline == 0 && c->tasks == 2 && c->rows == 6);
    cr_assert_str_eq(c->protocol, "loglikelihood");
    cr_assert_str_eq(c->split, "validation", "held_out stands back");
    for (int i = 0; i < 6; i++) {
        const mx_compare_row *r = &c->row[i];
        mx_cells cells[2] = { differences(&x.arena, made_easy[r->side], made_easy[0], 3), differences(&x.arena, made_hard[r->side], made_hard[0], 3) };
        mx_estimate e = i < 4 ? mx_estimate_difference(&cells[i / 2], 1) : mx_estimate_difference(cells, 2);

        cr_assert(r->task == i / 2 && r->side == 1 + i % 2, "rows go by task, then side");
        cr_assert(r->difference.value == e.value && r->difference.low == e.low && r->difference.high == e.high && r->difference.p == e.p);
        cr_assert(r->seeds == 3 && r->seed[2] == 3 && r->run_id[0] == 1 + r->side && r->baseline_run_id[2] == 7);
        cr_assert(r->n == (i < 2 ? 10 : i < 4 ? 8 : 18) && r->over == (i < 4 ? 1 : 2));
        cr_assert(r->few_seeds && !r->two_seeds && !r->limited && r->majority == 0.25);
        cr_assert_float_eq(r->seed_difference[0] + r->seed_difference[1] + r->seed_difference[2], 3 * e.value, 1e-12);
        p[i] = e.p;
    }
    mx_holm(p, held, 6);
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(c->row[i].p_holm, held[i]);
        cr_assert_eq(c->row[i].word, held[i] > 0.05 ? MX_WORD_NOT_RESOLVED : c->row[i].difference.value > 0 ? MX_WORD_BETTER : MX_WORD_WORSE);
    }
    cr_assert(noted(c, "Fewer than five seeds") && noted(c, "unadjusted") && noted(c, "over all rows (6)"), "%s", notes(&x.arena, c));
    cr_assert(noted(c, "Unequal budgets") && noted(c, "small (0.20 times)"), "%s", notes(&x.arena, c));
    cr_assert_not(noted(c, "Two seeds"));
    cr_assert_not(noted(c, "Left out"));
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, accuracies_and_budgets_stand_beside) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_compare *c;
    const mx_compare_score *y;

    made_sweep(s, 0);
    c = compared(&x, s, (mx_compare_wish){ .sweep = "methods" });
    y = mx_compare_score_of(c, 1, 0);
    cr_assert(y->there && y->n == 10 && y->majority == 0.25 && !y->limited);
    cr_assert_float_eq(y->accuracy.value, (7 + 7 + 8) / 30.0, 1e-12);
    cr_assert_float_eq(y->seed_value[2], 0.8, 1e-12);
    cr_assert(y->accuracy.low < y->accuracy.value && y->accuracy.value < y->accuracy.high);
    y = mx_compare_score_of(c, 0, 2);
    cr_assert(y->there && y->n == 18);
    cr_assert_float_eq(y->accuracy.value, ((5 + 4 + 5) / 30.0 + (3 + 2 + 3) / 24.0) / 2, 1e-12);
    cr_assert(c->side[1].trained == 1010 && c->side[1].trained_router == 101 && c->side[1].flops == 6060);
    cr_assert_not(c->side[1].unequal, "1 % more is equal");
    cr_assert(c->side[2].unequal && fabs(c->side[2].times - 0.2) < 1e-12);
    cr_assert_float_eq(c->side[0].tokens_per_second, 400 / 5.0, 1e-9, "100 tokens in 2 s, 300 in 3 s");
    cr_assert_eq(c->side[0].memory_bytes, 3 << 20);
    mx_store_close(s);
    scratch_close(&x);
}

/* What is printed beside a number gives the number. */
Test(compare, every_select_gives_its_inputs_again) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_compare *c;

    made_sweep(s, 0);
    c = compared(&x, s, (mx_compare_wish){ .sweep = "methods" });
    for (int32_t i = 0; i < c->rows; i++) {
        const mx_compare_row *r = &c->row[i];
        const char *ask_mean = mx_arena_text(&x.arena, "SELECT AVG(m) FROM (SELECT AVG(variant - baseline) AS m FROM (%s) GROUP BY task)", r->sql);

        cr_assert_float_eq(ask(s, ask_mean), r->difference.value, 1e-12, "%s", r->sql);
        cr_assert_eq(ask(s, mx_arena_text(&x.arena, "SELECT COUNT(*) FROM (%s)", r->sql)), (double)(r->n * r->seeds));
    }
    for (int32_t t = 0; t <= c->tasks; t++) {
        for (int32_t i = 0; i < c->sides; i++) {
            const mx_compare_score *y = mx_compare_score_of(c, i, t);

            cr_assert_float_eq(ask(s, mx_arena_text(&x.arena, "SELECT AVG(m) FROM (SELECT AVG(correct) AS m FROM (%s) GROUP BY task)", y->sql)),
                               y->accuracy.value, 1e-12);
            cr_assert_float_eq(ask(s, mx_arena_text(&x.arena, "SELECT AVG(value) FROM (%s)", y->sql_scores)), y->accuracy.value, 1e-12);
            cr_assert_eq(ask(s, mx_arena_text(&x.arena, "SELECT AVG(tokens_per_second) FROM (%s)", c->side[i].sql)), c->side[i].tokens_per_second);
        }
    }
    cr_assert_eq(ask(s, mx_arena_text(&x.arena, "SELECT COUNT(run_id) FROM (%s)", c->sql_runs)), 9);
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, no_select_reads_a_whole_table_of_answers) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_compare *c;

    made_sweep(s, 0);
    c = compared(&x, s, (mx_compare_wish){ .sweep = "methods" });
    for (int i = 0; i < 4; i++) {
        const mx_compare_score *y = mx_compare_score_of(c, 1, 0);
        const char *sql[] = { c->row[0].sql, y->sql, y->sql_scores, c->side[0].sql };
        sqlite3_stmt *q;

        cr_assert_eq(sqlite3_prepare_v2(mx_store_handle(s), mx_arena_text(&x.arena, "EXPLAIN QUERY PLAN %s", sql[i]), -1, &q, NULL), SQLITE_OK);
        while (sqlite3_step(q) == SQLITE_ROW) {
            const char *step = (const char *)sqlite3_column_text(q, 3);

            /* the VALUES at the front, two or three rows, is all that may be walked through */
            cr_assert(strncmp(step, "SCAN", 4) != 0 || strstr(step, "CONSTANT") || strcmp(step, "SCAN u") == 0 || strcmp(step, "SCAN p") == 0,
                      "%s\n%s", step, sql[i]);
        }
        sqlite3_finalize(q);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, seeds_without_a_partner_are_told_and_left_out) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_compare *c;

    made_sweep(s, 1u << 1 | 1u << 3 | 1u << 6); /* mixlora's seed 1, lora's seeds 2 and 3 */
    made_run(s, (made){ .name = "lora", .seed = 2, .trained = 1000, .state = "failed", .reason = "loss is not finite at step 3" });
    refused(&x, s, (mx_compare_wish){ .sweep = "methods", .variant = &made_names[1], .variants = 1 }, MX_E_DATA, "nothing is left to compare");
    c = compared(&x, s, (mx_compare_wish){ .sweep = "methods", .variant = &made_names[2], .variants = 1 });
    cr_assert(c->sides == 2 && c->rows == 3 && c->row[0].seeds == 1 && c->row[0].seed[0] == 1);
    cr_assert(noted(c, "Left out of lora: seed 2 (run 7 is failed: loss is not finite at step 3), seed 3 (not run yet)."), "%s", notes(&x.arena, c));
    cr_assert(noted(c, "Seeds without a partner are left out of small against lora: 2 (run 4), 3 (run 6) of small."), "%s", notes(&x.arena, c));
    cr_assert(noted(c, "One seed says nothing about seeds"));
    cr_assert_not(isnan(c->row[0].difference.mid_p));
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, runs_by_hand_are_sides) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const char *const sides[] = { "2,5", "1,4,7" }, *const turned[] = { "1,4,7", "2,5" }, *const single[] = { "lora", "2" };
    mx_compare *c, *d;

    made_sweep(s, 0);
    c = compared(&x, s, (mx_compare_wish){ .side = sides, .sides = 2, .against = 1 });
    cr_assert(c->baseline == 1 && c->rows == 3 && c->row[0].seeds == 2 && c->row[0].two_seeds);
    cr_assert_str_eq(c->side[0].name, "mix 'n lora (runs 2 and 5)");
    cr_assert(noted(c, mx_compare_two_seeds) && noted(c, "3 (run 7) of lora"), "%s", notes(&x.arena, c));
    d = compared(&x, s, (mx_compare_wish){ .side = turned, .sides = 2, .against = 1 });
    for (int i = 0; i < 3; i++) {
        const mx_estimate *e = &c->row[i].difference, *f = &d->row[i].difference;

        cr_assert(e->value == -f->value && e->p == f->p && fabs(e->low + f->high) < 1e-12, "swapping sides turns the sign");
    }
    c = compared(&x, s, (mx_compare_wish){ .side = single, .sides = 2, .against = 1 });
    cr_assert_str_eq(c->side[0].name, "lora (run 7)", "the newest of that name");
    cr_assert(c->rows == 3 && noted(c, "different seeds (3 and 1)"), "%s", notes(&x.arena, c));
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, the_base_is_every_seeds_partner) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const char *const sides[] = { "2,5,8", "base" };
    mx_compare *c;
    int64_t base;

    made_sweep(s, 0);
    base = made_run(s, (made){ .name = "base", .seed = 42 });
    made_exam(s, base, (exam){ .task = "easy", .right = "0100100010" });
    c = compared(&x, s, (mx_compare_wish){ .side = sides, .sides = 2, .against = 1 });
    cr_assert(c->rows == 1 && c->row[0].seeds == 3 && c->row[0].seed[1] == 2 && c->row[0].baseline_run_id[2] == base);
    cr_assert(c->side[0].unequal && isinf(c->side[0].times));
    cr_assert(noted(c, "hard (not scored by base (run 10))"), "%s", notes(&x.arena, c));
    cr_assert_float_eq(c->row[0].difference.value, 22 / 30.0 - 0.3, 1e-12);
    cr_assert_eq(ask(s, mx_arena_text(&x.arena, "SELECT COUNT(*) FROM (%s)", c->row[0].sql)), 30);
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, the_last_evaluation_counts_unless_the_best_is_asked_for) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const char *const sides[] = { "a", "b" };
    mx_compare *c;

    for (int i = 0; i < 2; i++) {
        int64_t run = made_run(s, (made){ .name = sides[i], .seed = 1, .trained = 10 });

        made_exam(s, run, (exam){ .task = "easy", .right = "1111", .step = 4 });
        made_exam(s, run, (exam){ .task = "easy", .right = i ? "1000" : "1100", .step = 8 });
    }
    c = compared(&x, s, (mx_compare_wish){ .side = sides, .sides = 2, .against = 1 });
    cr_assert(mx_compare_score_of(c, 0, 0)->accuracy.value == 0.5 && c->side[0].run[0].step == 8);
    c = compared(&x, s, (mx_compare_wish){ .side = sides, .sides = 2, .against = 1, .best_epoch = true });
    cr_assert(mx_compare_score_of(c, 0, 0)->accuracy.value == 1 && c->side[0].run[0].step == 4);
    cr_assert(c->row[0].difference.value == 0 && c->row[0].difference.p == 1 && c->row[0].word == MX_WORD_NOT_RESOLVED);
    cr_assert(noted(c, "BEST EPOCH"));
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, what_is_not_the_same_is_refused_by_name) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    static const struct {
        exam e;
        const char *base, *says;
    } wrong[] = {
        { { .task = "easy", .right = "1100", .first = 1 }, NULL, "question 1 ('q0') of its file was answered by run 1 (4 questions) and not by run 2 (4)" },
        { { .task = "easy", .right = "110" }, NULL, "question 4 ('q3') of its file was answered by run 1 (4 questions) and not by run 3 (3)" },
        { { .task = "easy", .right = "1100", .data_hash = "other" }, NULL, "different files: the data of easy, validation has sha256 data in the one and other" },
        { { .task = "easy", .right = "1100", .task_hash = "reworded" }, NULL, "not asked the same way: the definition of easy" },
        { { .task = "easy", .right = "1100" }, "b1", "different base models: b0 (b0) and b1 (b1)" },
        { { .task = "easy", .right = "1100", .protocol = "label_logits" }, NULL, "not scored on anything alike" },
        { { .task = "easy", .right = "1100", .split = "test" }, NULL, "easy (loglikelihood acc_norm, test)" },
        { { .task = "hard", .right = "1100" }, NULL, "not scored on anything alike" },
        { { .task = "easy", .right = "1100", .no_answers = true }, NULL, "kept no answers to single questions of easy" },
    };
    int64_t good = made_run(s, (made){ .name = "good", .seed = 1, .trained = 10 });

    made_exam(s, good, (exam){ .task = "easy", .right = "1010" });
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int64_t run = made_run(s, (made){ .name = "other", .seed = 1, .trained = 10, .base = wrong[i].base });
        const char *const sides[] = { mx_arena_text(&x.arena, "%d", (int)run), "good" };

        made_exam(s, run, wrong[i].e);
        refused(&x, s, (mx_compare_wish){ .side = sides, .sides = 2, .against = 1 }, MX_E_DATA, wrong[i].says);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, sides_and_words_that_make_no_sense_are_refused) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const char *const same_seed[] = { "1,10", "2" }, *const twice[] = { "1,1", "2" }, *const mixed[] = { "1,5", "2" }, *const late[] = { "11", "2" },
                      *const unequal_seeds[] = { "1,4", "8,12" }, *const fine[] = { "1", "2" };
    const char *wrong_variant = "smal";

    made_sweep(s, 0);
    made_run(s, (made){ .name = "lora", .seed = 1, .trained = 1000 });
    made_run(s, (made){ .name = "late", .seed = 1, .trained = 10, .state = "failed", .reason = "out of memory" });
    made_exam(s, made_run(s, (made){ .name = "mix 'n lora", .seed = 9, .trained = 10 }), (exam){ .task = "easy", .right = "1100110010" });
    refused(&x, s, (mx_compare_wish){ .side = same_seed, .sides = 2, .against = 1 }, MX_E_USAGE, "both have seed 1");
    refused(&x, s, (mx_compare_wish){ .side = twice, .sides = 2, .against = 1 }, MX_E_USAGE, "named twice");
    refused(&x, s, (mx_compare_wish){ .side = mixed, .sides = 2, .against = 1 }, MX_E_DATA, "not one recipe under two seeds");
    refused(&x, s, (mx_compare_wish){ .side = late, .sides = 2, .against = 1 }, MX_E_DATA, "run 11 (late, seed 1) is failed: out of memory");
    refused(&x, s, (mx_compare_wish){ .side = unequal_seeds, .sides = 2, .against = 1 }, MX_E_DATA, "nothing is left to compare: Seeds without a partner");
    refused(&x, s, (mx_compare_wish){ .side = fine, .sides = 2, .against = 1, .task = "esy" }, MX_E_USAGE, "did you mean 'easy'?");
    refused(&x, s, (mx_compare_wish){ .side = fine, .sides = 2, .against = 1, .metric = "f1" }, MX_E_USAGE, "nothing was scored under loglikelihood f1");
    refused(&x, s, (mx_compare_wish){ .sweep = "methods", .baseline = "lra" }, MX_E_USAGE, "did you mean 'lora'?");
    refused(&x, s, (mx_compare_wish){ .sweep = "methods", .variant = &wrong_variant, .variants = 1 }, MX_E_USAGE, "did you mean 'small'?");
    refused(&x, s, (mx_compare_wish){ .sweep = "metods" }, MX_E_USAGE, "did you mean 'methods'?");
    refused(&x, s, (mx_compare_wish){ .sweep = "methods", .variant = &made_names[0], .variants = 1 }, MX_E_DATA, "only the baseline is named");
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, names_of_variants_and_runs_may_hold_commas) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    static const char *const names[] = { "lora", "lora, easy", "dora, easy" };
    static const struct {
        const char *asked;
        int32_t sides;
        const char *last;
    } fine[] = { { "lora, easy", 2, "lora, easy" }, { "lora, easy, dora, easy", 3, "dora, easy" }, { " dora, easy ", 2, "dora, easy" },
                 { "dora, easy,,lora", 2, "dora, easy" } };
    const char *wrong[] = { "dora, eas", "lora, easy, nothing" }, *const sides[] = { "dora, easy", " 2 , 2" };
    mx_member_row m[3];
    mx_status st = { 0 };
    mx_compare *c;

    for (int i = 0; i < 3; i++) {
        m[i] = made_member(i + 1, names[i], 1, 10);
        made_exam(s, made_run(s, (made){ .name = names[i], .seed = 1, .trained = 10 }), (exam){ .task = "easy", .right = i ? "1100" : "1000" });
    }
    cr_assert(mx_store_sweep(s, &(mx_sweep_row){ .name = "tasks", .path = "t.yaml", .text = "", .arguments = "", .baseline = "lora", .protocol = "loglikelihood", .metric = "acc_norm" },
                             m, 3, &st) == MX_OK, "%s", st.text);
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
        c = compared(&x, s, (mx_compare_wish){ .sweep = "tasks", .variant = &fine[i].asked, .variants = 1 });
        cr_assert(c->sides == fine[i].sides && c->rows == fine[i].sides - 1, "case %zu", i);
        cr_assert_str_eq(c->side[c->sides - 1].name, fine[i].last);
    }
    refused(&x, s, (mx_compare_wish){ .sweep = "tasks", .variant = &wrong[0], .variants = 1 }, MX_E_USAGE, "did you mean 'dora, easy'?");
    refused(&x, s, (mx_compare_wish){ .sweep = "tasks", .variant = &wrong[1], .variants = 1 }, MX_E_USAGE, "no variant 'nothing'");
    refused(&x, s, (mx_compare_wish){ .side = sides, .sides = 2, .against = 1 }, MX_E_USAGE, "run 2 is named twice");
    mx_store_close(s);
    scratch_close(&x);
}

static const char *in_format(mx_arena *arena, const mx_compare *c, mx_format format) {
    mx_text out;
    const char *kept;

    mx_text_init(&out, 1 << 20);
    mx_compare_write(c, format, &out);
    kept = mx_arena_copy(arena, out.data, out.length);
    mx_text_finish(&out);
    return kept;
}

Test(compare, what_was_matched_in_flops_is_held_together_in_flops) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    static const struct {
        const char *side, *baseline;
        int64_t flops;
        bool by_flops, unequal;
    } ways[] = { { "", "", 6000, false, true }, { "flops: lora, -0.2 %", "", 6000, true, false }, { "", "flops: mix, +0.2 %", 6060, true, false },
                 { "", "flops: mixture, +0.2 %", 6000, false, true }, { "params: lora, -0.2 %", "", 6000, false, true }, { "flops: lora, -9.0 %", "", 5400, true, true } };
    const char *const names[] = { "mix", "lora" };
    mx_status st = { 0 };

    for (int i = 0; i < 2; i++) {
        made_exam(s, made_run(s, (made){ .name = names[i], .seed = 1, .trained = i ? 1000 : 3000 }), (exam){ .task = "easy", .right = "1100" });
    }
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        const char *sweep = mx_arena_text(&x.arena, "s%d", (int)i), *page;
        mx_member_row m[] = { made_member(1, "mix", 1, 3000), made_member(2, "lora", 1, 1000) };
        mx_compare *c;

        m[0].matched = ways[i].side;
        m[1].matched = ways[i].baseline;
        cr_assert(mx_store_begin(s, &st) == MX_OK);
        cr_assert_eq(sqlite3_exec(mx_store_handle(s), mx_arena_text(&x.arena, "UPDATE runs SET flops = %d WHERE run_id = 1", (int)ways[i].flops), NULL, NULL, NULL), SQLITE_OK);
        cr_assert(mx_store_commit(s, &st) == MX_OK);
        cr_assert(mx_store_sweep(s, &(mx_sweep_row){ .name = sweep, .path = "t.yaml", .text = "", .arguments = "", .baseline = "lora", .protocol = "loglikelihood", .metric = "acc_norm" },
                                 m, 2, &st) == MX_OK, "%s", st.text);
        c = compared(&x, s, (mx_compare_wish){ .sweep = sweep });
        cr_assert(c->side[0].by_flops == ways[i].by_flops && c->side[0].unequal == ways[i].unequal, "case %zu: %.2f", i, c->side[0].times);
        cr_assert_float_eq(c->side[0].times, ways[i].by_flops ? (double)ways[i].flops / 6000 : 3, 1e-12);
        page = in_format(&x.arena, c, MX_FORMAT_TABLE);
        cr_assert_eq(strstr(page, "(0.90x the FLOPs)") != NULL, i == 5, "%s", page);
        cr_assert_eq(strstr(page, "(3.00x the values)") != NULL, !ways[i].by_flops, "%s", page);
    }
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, what_rounds_to_zero_has_no_minus_sign) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_compare *c;

    made_sweep(s, 0);
    c = compared(&x, s, (mx_compare_wish){ .sweep = "methods" });
    c->row[0].difference.value = -0.0004;
    c->row[0].difference.high = -0.0004;
    cr_assert(!strstr(in_format(&x.arena, c, MX_FORMAT_TABLE), "-0.0") && strstr(in_format(&x.arena, c, MX_FORMAT_TABLE), "+0.0"));
    cr_assert(mx_compare_points(-0.0006) < -0.05 && mx_compare_points(0.0006) > 0.05);
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, more_than_a_hundred_points_are_not_detectable) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    mx_compare *c;

    made_sweep(s, 0);
    c = compared(&x, s, (mx_compare_wish){ .sweep = "methods" });
    cr_assert(noted(c, "by a single unadjusted test") && noted(c, "Holm over 6 rows finds only larger ones"), "%s", notes(&x.arena, c));
    cr_assert(strstr(in_format(&x.arena, c, MX_FORMAT_JSON), "\"detectable\": 0."));
    for (int32_t i = 0; i < c->rows; i++) {
        c->row[i].difference.detectable = 1e150;
    }
    cr_assert_not(strstr(in_format(&x.arena, c, MX_FORMAT_JSON), "e+150"));
    cr_assert(strstr(in_format(&x.arena, c, MX_FORMAT_JSON), "\"detectable\": null"));
    cr_assert_not(strstr(in_format(&x.arena, c, MX_FORMAT_CSV), "e+150"));
    mx_store_close(s);
    scratch_close(&x);
}

Test(compare, alone_a_side_without_answers_is_only_left_out) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const char *const sides[] = { "a", "b", "c" };
    mx_compare *c;

    for (int i = 0; i < 3; i++) {
        made_exam(s, made_run(s, (made){ .name = sides[i], .seed = 1, .trained = 10 }), (exam){ .task = "easy", .right = "1110", .no_answers = i == 0 });
    }
    c = compared(&x, s, (mx_compare_wish){ .side = sides, .sides = 3, .against = 2, .alone = true });
    cr_assert(c->rows == 1 && c->row[0].side == 1 && mx_compare_score_of(c, 0, 0)->there);
    cr_assert(noted(c, "Left out of the differences: a (run 1); run 1 kept no answers to single questions of easy"), "%s", notes(&x.arena, c));
    c = compared(&x, s, (mx_compare_wish){ .side = sides, .sides = 3, .against = 0, .alone = true });
    cr_assert(c->rows == 0 && noted(c, "Left out of the differences: a (run 1)"));
    c = compared(&x, s, (mx_compare_wish){ .side = sides, .sides = 3, .against = 2, .alone = true, .apart = true });
    cr_assert(c->rows == 0 && c->baseline == -1);
    mx_store_close(s);
    scratch_close(&x);
}

/* A report of runs has accuracies even where nothing can be compared. */
Test(compare, alone_there_are_accuracies_only) {
    scratch x = scratch_open();
    mx_store *s = open_store(scratch_path(&x, "a.db"));
    const char *const one[] = { "kept" };
    const mx_compare_score *y;
    mx_compare *c;
    double low, high;

    made_exam(s, made_run(s, (made){ .name = "kept", .seed = 1, .trained = 10, .limited = true }),
              (exam){ .task = "easy", .right = "1110", .no_answers = true });
    c = compared(&x, s, (mx_compare_wish){ .side = one, .sides = 1, .against = -1, .alone = true });
    y = mx_compare_score_of(c, 0, 0);
    mx_wilson(3, 4, &low, &high);
    cr_assert(c->rows == 0 && c->baseline == -1 && y->there && y->accuracy.value == 0.75 && y->accuracy.low == low && y->accuracy.high == high);
    cr_assert(y->limited && noted(c, "(limited)"), "max_steps cut its training short");
    mx_store_close(s);
    scratch_close(&x);
}
