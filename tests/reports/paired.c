/* The arithmetic of comparisons against other computations and printed tables.
 *
 * Constants marked (python) were computed apart: binomials as fractions of whole numbers, Student's t by the hypergeometric series
 * of the incomplete beta in 36 decimal digits, Tango's limits by maximizing the likelihood itself instead of its closed form,
 * mean squares by their definition in fractions. */
#include "reports/paired.h"
#include "reports/student.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

/* Within `relative`; the message shows both. */
static void near_to(double got, double want, double relative, const char *what) {
    cr_assert(got == want || fabs(got - want) <= relative * fmax(fabs(want), 1e-12), "%s is %.15g, not %.15g", what, got, want);
}

Test(student, tails_are_those_of_a_series_in_36_digits) {
    static const struct {
        double t, freedom, p;
    } known[] = {
        { 2.5, 1, 2.4223788318168679e-01 },     { 2.5, 4.7, 5.7592159346867296e-02 },  { 1, 2, 4.2264973081037421e-01 },
        { 12.706, 1, 5.0000802358133187e-02 },  { 0.01, 3.3, 9.9259562648267252e-01 }, { 5, 30.5, 2.2358470831133015e-05 },
        { 2, 1000, 4.5770346493251637e-02 },    { 40, 2.2, 3.4231547656460586e-04 },   { 3, 0.5, 3.6730815598594346e-01 },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char what[64];

        snprintf(what, sizeof what, "P(|T| > %g), df %g", known[i].t, known[i].freedom);
        near_to(mx_student_two_sided(known[i].t, known[i].freedom), known[i].p, 1e-11, what);
        near_to(mx_student_two_sided(-known[i].t, known[i].freedom), known[i].p, 1e-11, what);
        near_to(mx_student_tail(-known[i].t, known[i].freedom), 1 - known[i].p / 2, 1e-11, what);
    }
    cr_assert_eq(mx_student_two_sided(0, 3), 1);
    cr_assert_eq(mx_student_two_sided(INFINITY, 3), 0);
}

Test(student, quantiles_are_those_of_the_tables) {
    static const struct {
        double p, freedom, t, relative;
    } known[] = {
        /* printed in any table of t, to three decimals */
        { 0.975, 5, 2.571, 2e-4 },    { 0.975, 30, 2.042, 3e-4 }, { 0.95, 12, 1.782, 3e-4 },
        { 0.995, 9, 3.250, 2e-4 },    { 0.8, 4, 0.941, 6e-4 },    { 0.975, 120, 1.980, 3e-4 },
        /* (python) */
        { 0.975, 1, 1.2706204736174705e+01, 1e-11 },   { 0.975, 3.7, 2.8675207071911895e+00, 1e-11 },
        { 0.975, 10.25, 2.2207944107448081e+00, 1e-11 }, { 0.8, 2.5, 1.0101638747222388e+00, 1e-11 },
        { 0.975, 0.6, 6.7844395329572066e+01, 1e-11 }, { 0.999, 4, 7.1731822197823085e+00, 1e-11 },
        { 0.8, 123.4, 8.4454375007479110e-01, 1e-11 },
        /* the normal distribution, from a table of 15 decimals */
        { 0.975, INFINITY, 1.959963984540054, 1e-14 }, { 0.8, INFINITY, 0.841621233572914, 1e-14 },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char what[64];

        snprintf(what, sizeof what, "t(%g), df %g", known[i].p, known[i].freedom);
        near_to(mx_student_quantile(known[i].p, known[i].freedom), known[i].t, known[i].relative, what);
        near_to(mx_student_quantile(1 - known[i].p, known[i].freedom), -known[i].t, fmax(known[i].relative, 1e-10), what);
    }
    cr_assert_eq(mx_student_quantile(0.5, 3), 0);
}

Test(student, quantile_and_tail_undo_each_other) {
    for (double freedom = 0.1; freedom < 3e9; freedom *= 3.7) {
        for (double p = 0.51; p < 1; p += 0.07) {
            double t = mx_student_quantile(p, freedom);

            near_to(mx_student_tail(t, freedom), 1 - p, 1e-9, "the tail beyond the quantile");
        }
    }
}

Test(paired, mcnemar_is_the_binomial) {
    static const struct {
        int64_t b, c;
        double p, mid;
    } known[] = {
        /* Fagerland, Lydersen, Laake 2013: airway hyper-responsiveness 1 and 7 (0.070, 0.039), complete response 6 and 16
         * (0.052, 0.035); digits beyond the paper's and the others (python) */
        { 1, 7, 0.0703125, 0.0390625 },
        { 6, 16, 0.052478790283203125, 0.034689664840698242 },
        { 25, 2, 5.6475400924682617e-06, 3.032386302947998e-06 },
        { 0, 5, 0.0625, 0.03125 },
        { 5, 5, 1, 0.876953125 },
        { 0, 1, 1, 0.5 },
        { 10, 25, 0.016673847800120711, 0.011330984183587134 },
        { 400, 460, 0.044169548194589008, 0.040812975927851734 },
        { 3000, 3200, 0.011488253770871206, 0.011085759458586638 },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        double mid, p = mx_mcnemar(known[i].b, known[i].c, &mid), swapped;

        near_to(p, known[i].p, 1e-10, "p"); /* log-gamma of 6,200 keeps 12 digits */
        near_to(mid, known[i].mid, 1e-10, "mid-p");
        near_to(mx_mcnemar(known[i].c, known[i].b, &swapped), p, 0, "p of the sides swapped");
        near_to(swapped, mid, 0, "mid-p of the sides swapped");
    }
    near_to(mx_mcnemar(0, 0, NULL), 1, 0, "p of nothing");
    near_to(mx_mcnemar(0, 2000, NULL), 0, 0, "a p too small for a double");
    /* sums of many terms: against the normal distribution with continuity correction, good to 1e-4 at this size */
    near_to(mx_mcnemar(499000, 501000, NULL), erfc((2000 - 1) / sqrt(1e6) / sqrt(2)), 1e-4, "p of a million");
}

Test(paired, tango_agrees_with_his_examples) {
    static const struct {
        int64_t b, c, n;
        double low, high, within;
    } known[] = {
        { 9, 3, 32, -0.027, 0.390, 5e-4 }, /* Tango 1998, section 6.2: sleeping difficulties, printed with three decimals */
        /* (python) */
        { 9, 3, 32, -0.027090464, 0.389697486, 2e-8 },   { 1, 7, 21, -0.517232276, -0.026003037, 2e-8 },
        { 6, 16, 161, -0.124023432, -0.005433396, 2e-8 }, { 0, 1, 44, -0.118077097, 0.059393231, 2e-8 },
        { 40, 20, 160, 0.030864533, 0.218064243, 2e-8 }, { 25, 2, 102, 0.139182547, 0.321329750, 2e-8 },
        { 120, 80, 2376, 0.005217256, 0.028689656, 2e-8 },
        /* nothing differs: n d / (1 - d) = z^2 has the root z^2 / (n + z^2) */
        { 0, 0, 50, -0.0713475991334, 0.0713475991334, 1e-12 },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        double low, high, other_low, other_high;

        mx_tango(known[i].b, known[i].c, known[i].n, &low, &high);
        cr_assert(fabs(low - known[i].low) < known[i].within && fabs(high - known[i].high) < known[i].within,
                  "%lld, %lld of %lld: [%.9f, %.9f]", (long long)known[i].b, (long long)known[i].c, (long long)known[i].n, low, high);
        mx_tango(known[i].c, known[i].b, known[i].n, &other_low, &other_high);
        cr_assert(fabs(low + other_high) < 1e-12 && fabs(high + other_low) < 1e-12, "swapping sides turns the interval round");
    }
}

Test(paired, tango_holds_its_difference_at_every_table) {
    for (int64_t n = 1; n <= 12; n++) {
        for (int64_t b = 0; b <= n; b++) {
            for (int64_t c = 0; b + c <= n; c++) {
                double low, high, at = (double)(b - c) / (double)n;

                mx_tango(b, c, n, &low, &high);
                cr_assert(-1 <= low && low <= at && at <= high && high <= 1 && low < high, "%d, %d of %d: [%g, %g]", (int)b, (int)c,
                          (int)n, low, high);
            }
        }
    }
}

Test(paired, wilson_agrees_with_newcombes_table) {
    static const struct {
        int64_t right, n;
        double low, high;
    } known[] = { /* Newcombe 1998 (Statistics in Medicine 17: 857-872), table I, four decimals */
        { 81, 263, 0.2553, 0.3662 }, { 15, 148, 0.0624, 0.1605 }, { 0, 20, 0.0000, 0.1611 }, { 1, 29, 0.0061, 0.1718 },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        double low, high;

        mx_wilson(known[i].right, known[i].n, &low, &high);
        cr_assert(fabs(low - known[i].low) < 6e-5 && fabs(high - known[i].high) < 6e-5, "[%.6f, %.6f]", low, high);
        mx_wilson(known[i].n - known[i].right, known[i].n, &low, &high);
        cr_assert(fabs(1 - high - known[i].low) < 6e-5 && fabs(1 - low - known[i].high) < 6e-5, "right and wrong swapped");
    }
}

/* seeds by items: three, three and two seeds. */
static const int8_t a_cells[] = { 1, 1, 0, -1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 1, -1, 0, 0, 1, 0, 1, 0, 0, 1, 0, -1, 1, 0, 1 };
static const int8_t b_cells[] = { 0, 0, -1, 0, 0, 1, 0, 1, 0, -1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0 };
static const int8_t c_cells[] = { 1, 1, 0, 1, 1, 0, 0, 0, 0, -1, 0, 0 };
static const int8_t p_cells[] = { 1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 0, 1 };
static const mx_cells a = { a_cells, 10, 3 }, b = { b_cells, 7, 3 }, c = { c_cells, 6, 2 };

static void check(mx_estimate e, double value, double variance, double freedom, double low, double high, double p, double detectable) {
    near_to(e.value, value, 1e-12, "the mean");
    near_to(e.variance, variance, 1e-12, "V");
    near_to(e.freedom, freedom, 1e-11, "the degrees of freedom");
    near_to(e.low, low, 1e-10, "the lower end");
    near_to(e.high, high, 1e-10, "the upper end");
    near_to(e.p, p, 1e-10, "p");
    near_to(e.detectable, detectable, 1e-10, "the smallest detectable difference");
    cr_assert(isnan(e.mid_p));
}

Test(paired, several_seeds_are_the_two_way_layout) { /* (python) */
    const mx_cells both[] = { a, b };

    /* MS_S below MS_E: the second arm of the maximum */
    check(mx_estimate_difference(&a, 1), 0.3, 0.0258024691358025, 8.38567863313496, -0.0674722648025, 0.667472264802,
          0.0970655650247, 0.509889997357);
    /* the first arm */
    check(mx_estimate_difference(&b, 1), 0.285714285714286, 0.0657596371882086, 6.13619781110661, -0.338402412294, 0.909830983723,
          0.306933702851, 0.855983617055);
    /* two seeds that disagree: under one degree of freedom, and an interval cut at what a difference can be */
    check(mx_estimate_difference(&c, 1), 0.25, 0.1625, 0.87196636728454, -1, 1, 0.658409836309, 7.89291284968);
    /* over two tasks */
    check(mx_estimate_difference(both, 2), 0.292857142857143, 0.0204213907785336, 8.50960044634709, -0.0332751229143,
          0.618989408629, 0.0724840133347, 0.452734070723);
}

Test(paired, one_seed_over_tasks_is_normal) { /* (python) */
    const mx_cells both[] = { { a_cells, 10, 1 }, { b_cells, 7, 1 } };

    check(mx_estimate_difference(both, 2), 0.15, 0.023293650793650793, INFINITY, -0.14913475275774715, 0.44913475275774717, 0.32569771522238744,
          0.4275851536867133);
}

Test(paired, one_seed_of_one_task_is_mcnemar_and_tango) {
    const mx_cells one = { a_cells, 10, 1 }; /* 4 better, 1 worse */
    mx_estimate e = mx_estimate_difference(&one, 1);
    double low, high, mid;

    mx_tango(4, 1, 10, &low, &high);
    cr_assert_eq(e.better, 4);
    cr_assert_eq(e.worse, 1);
    near_to(e.value, 0.3, 1e-15, "the difference");
    near_to(e.p, mx_mcnemar(4, 1, &mid), 0, "p");
    near_to(e.mid_p, mid, 0, "mid-p");
    cr_assert(e.low == low && e.high == high);
    /* s_d^2 = (5 - 9/10) / 9; z_.975 + z_.80 = 2.8015852 */
    near_to(e.detectable, 2.801585218112968 * sqrt(4.1 / 9 / 10), 1e-12, "the smallest detectable difference");
}

Test(paired, accuracies_have_the_one_sample_form) { /* (python) */
    const mx_cells p = { p_cells, 8, 3 }, one = { p_cells, 8, 1 };
    mx_estimate e = mx_estimate_accuracy(&p, 1);
    double low, high;

    near_to(e.value, 0.625, 1e-15, "the mean");
    near_to(e.variance, 0.021577380952381, 1e-12, "V");
    near_to(e.freedom, 6.74341351660939, 1e-11, "the degrees of freedom");
    near_to(e.low, 0.274957377107, 1e-10, "the lower end");
    near_to(e.high, 0.975042622893, 1e-10, "the upper end");
    cr_assert(isnan(e.p) && isnan(e.mid_p) && isnan(e.detectable));
    e = mx_estimate_accuracy(&one, 1);
    mx_wilson(5, 8, &low, &high);
    cr_assert(e.low == low && e.high == high && e.value == 0.625);
}

/* K times the same task is that task with K times the items' weight apart: D, s_D and the seeds' part stay, the items' part is a
 * K-th. With one task the formula over tasks must give the one task's (both arms of the maximum). */
Test(paired, one_task_is_a_special_case_of_several) {
    const mx_cells *each[] = { &a, &b, &c };

    for (int i = 0; i < 3; i++) {
        mx_estimate one = mx_estimate_difference(each[i], 1), twice = mx_estimate_difference((const mx_cells[]){ *each[i], *each[i] }, 2);
        double I = (double)each[i]->items, S = each[i]->seeds, mean = 0, seeds = 0, items;

        for (int32_t s = 0; s < each[i]->seeds; s++) {
            double of_seed = 0;

            for (int64_t k = 0; k < each[i]->items; k++) {
                of_seed += each[i]->value[s * each[i]->items + k] / I;
            }
            mean += of_seed / S;
            seeds += of_seed * of_seed;
        }
        seeds = (seeds - S * mean * mean) / (S - 1) / S; /* s_D^2 / S */
        near_to(twice.value, one.value, 1e-14, "the mean of a task twice");
        items = one.variance - seeds; /* (MS_I - MS_E) / (I S) where the first arm holds */
        if (i > 0) {
            near_to(twice.variance, seeds + items / 2, 1e-12, "V of a task twice");
        } else {
            near_to(twice.variance, one.variance / 2, 1e-12, "V of a task twice, second arm");
        }
    }
}

Test(paired, swapping_sides_turns_the_sign_and_nothing_else) {
    int8_t cells[30];
    const mx_cells turned[] = { { cells, 10, 3 }, { cells, 10, 1 } }, straight[] = { a, { a_cells, 10, 1 } };

    for (int i = 0; i < 30; i++) {
        cells[i] = (int8_t)-a_cells[i];
    }
    for (int i = 0; i < 2; i++) {
        mx_estimate e = mx_estimate_difference(&straight[i], 1), f = mx_estimate_difference(&turned[i], 1);

        cr_assert(e.value == -f.value && e.variance == f.variance && e.p == f.p && e.detectable == f.detectable);
        cr_assert(fabs(e.low + f.high) < 1e-12 && fabs(e.high + f.low) < 1e-12);
        cr_assert(e.better == f.worse && e.worse == f.better);
    }
}

Test(paired, no_variance_is_told_and_resolves_nothing_by_itself) {
    static const int8_t zero[60], ones[12] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 },
                         minus[12] = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 };
    const mx_cells nothing = { zero, 20, 3 }, always = { ones, 6, 2 }, single = { zero, 50, 1 };
    const mx_cells ways[] = { { ones, 6, 2 }, { minus, 6, 2 } }, tasks[] = { { zero, 20, 3 }, { zero, 20, 3 }, { zero, 20, 3 } };
    mx_estimate e = mx_estimate_difference(&nothing, 1);

    cr_assert(e.value == 0 && e.variance == 0 && e.p == 1 && isnan(e.low) && isnan(e.high) && isnan(e.detectable));
    e = mx_estimate_difference(tasks, 3);
    cr_assert(e.value == 0 && e.variance == 0 && e.p == 1 && isnan(e.low));
    e = mx_estimate_difference(&always, 1); /* six questions, always better: 2 / 2^6 */
    cr_assert(e.value == 1 && e.variance == 0 && e.p == 0.03125 && isnan(e.low), "p %g", e.p);
    e = mx_estimate_difference(ways, 2);
    cr_assert(e.value == 0 && e.p == 1 && isnan(e.low));
    e = mx_estimate_difference(&single, 1); /* one seed has the score interval even then */
    cr_assert(e.p == 1 && e.mid_p == 1 && e.low < 0 && e.high > 0 && isnan(e.detectable));
    e = mx_estimate_accuracy(&always, 1);
    cr_assert(e.value == 1 && isnan(e.low));
}

Test(paired, one_question_says_nothing) {
    static const int8_t cell[] = { 1, 1 };
    const mx_cells one = { cell, 1, 2 };
    mx_estimate e = mx_estimate_difference(&one, 1);

    cr_assert(isnan(e.variance) && isnan(e.low) && e.p == 1);
}

/* Four tests by hand: 0.01 x 4, 0.02 x 3, 0.04 x 2 (0.08), 0.05 x 1 raised to 0.08. */
Test(paired, holm_by_hand) {
    const double p[] = { 0.04, 0.01, NAN, 0.05, 0.02 }, want[] = { 0.08, 0.04, NAN, 0.08, 0.06 };
    const double all_large[] = { 0.6, 0.9 }, want_large[] = { 1, 1 };
    double got[5];

    mx_holm(p, got, 5);
    for (int i = 0; i < 5; i++) {
        cr_assert(isnan(want[i]) ? isnan(got[i]) : fabs(got[i] - want[i]) < 1e-15, "%d: %g", i, got[i]);
    }
    mx_holm(all_large, got, 2);
    cr_assert(got[0] == want_large[0] && got[1] == want_large[1]);
    mx_holm(p, got, 1);
    cr_assert_eq(got[0], 0.04, "alone nothing is adjusted");
}
