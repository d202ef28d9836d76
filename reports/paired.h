/* paired.h - is it better, by how much, how sure: the arithmetic of paired comparisons. No SQL, no text but names.
 *
 * Scores are 0 or 1, of I items (questions) under S seeds; a difference is variant minus baseline on the same item and seed:
 * -1, 0 or 1. Everything is a fraction (0.021 is 2.1 points). All sums over cells are whole numbers, so that "no variance"
 * is told exactly. Two-sided, 95 %, never adjusted for how many are made: mx_holm adjusts the p values.
 *
 * Several seeds (S > 1), one task: two-way random layout of items and seeds without replication, both drawn at random.
 *   MS_I = S sum_i (d_i. - d..)^2 / (I-1)        MS_S = I sum_s (d_.s - d..)^2 / (S-1)
 *   MS_E = sum_is (d_is - d_i. - d_.s + d..)^2 / ((I-1)(S-1))
 *   V = max(MS_I + MS_S - MS_E, MS_I) / (I S)    the variance of d..
 *   df = N^2 / (MS_S^2/(S-1) + MS_I^2/(I-1) + MS_E^2/((I-1)(S-1))),   N = V I S
 * Satterthwaite 1946 (Biometrics Bulletin 2: 110-114) for the degrees of freedom of a sum of mean squares; crossed readers and
 * cases: Hillis 2007 (Statistics in Medicine 26: 596-619).
 * K tasks, fixed: D = unweighted mean of the tasks' d.., D_s that of seed s, s_D^2 the variance of the D_s (S-1);
 *   V = max(s_D^2/S + sum_t (MS_I,t - MS_E,t)/(K^2 I_t S), sum_t MS_I,t/(K^2 I_t S)), df over the same terms.
 * K = 1 gives the first form: MS_S = I s_D^2.
 * One seed: one task's difference has the exact test and Tango's interval, one task's accuracy Wilson's; over tasks
 *   V = sum_t s_d,t^2 / (K^2 I_t), normal. */
#ifndef REPORTS_PAIRED_H
#define REPORTS_PAIRED_H

#include <stdint.h>

/* One task: value[s * items + i], -1, 0 or 1. */
typedef struct mx_cells {
    const int8_t *value;
    int64_t items;
    int32_t seeds;
} mx_cells;

typedef struct mx_estimate {
    double value;      /* mean over tasks of the mean over items and seeds */
    double variance;   /* V: of `value`; NAN: not estimable (a task of one item) */
    double freedom;    /* of `variance`; INFINITY: normal; NAN where there is none */
    double low, high;  /* 95 % interval; NAN: none */
    double p;          /* two-sided, of no difference; NAN for an accuracy */
    double mid_p;      /* one task, one seed; else NAN */
    double detectable; /* smallest true difference found four times in five, (t_.975 + t_.80) sqrt(V); NAN: not estimable */
    int64_t better, worse; /* one task, one seed: items only the variant / only the baseline got right; else 0 */
    const char *estimator; /* its name, for people: a literal */
} mx_estimate;

/* Cells hold differences. All tasks have the same seeds in the same order (>= 1), each at least one item.
 * The interval ends at -1 and 1 at most. V = 0: no interval. With every difference 0, p = 1. Otherwise (every question's mean over the seeds is the same and not 0)
 * p is the sign test's over the questions, 2^(1 - I); 1 when tasks point both ways. */
mx_estimate mx_estimate_difference(const mx_cells *task, int32_t tasks);
/* Cells hold scores. Several seeds all right or all wrong have no interval. */
mx_estimate mx_estimate_accuracy(const mx_cells *task, int32_t tasks);

/* Exact conditional McNemar test: min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2). *ret_mid (may be NULL) is the mid-p:
 * p less the probability of what was seen, 1 less half of it when b = c, 1 when nothing differs. Fagerland, Lydersen, Laake 2013 (BMC Medical
 * Research Methodology 13:91), exact conditional and mid-p tests. */
double mx_mcnemar(int64_t b, int64_t c, double *ret_mid);
/* Score interval for p_b - p_c of n pairs, b and c of them discordant. Tango 1998 (Statistics in Medicine 17: 891-908). */
void mx_tango(int64_t b, int64_t c, int64_t n, double *ret_low, double *ret_high);
/* Wilson 1927 (JASA 22: 209-212). */
void mx_wilson(int64_t right, int64_t n, double *ret_low, double *ret_high);
/* Holm 1979 (Scandinavian Journal of Statistics 6: 65-70), step-down, as adjusted p values. NAN stays NAN and is not counted. */
void mx_holm(const double *p, double *ret, int64_t n);

#endif
