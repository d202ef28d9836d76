/* paired.c - see paired.h. */
#include "reports/paired.h"

#include "reports/student.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>

static const double one_sided = 0.975, power = 0.80; /* 95 % intervals; found four times in five */

static double least(double a, double b) {
    return a < b ? a : b;
}

static double most(double a, double b) {
    return a > b ? a : b;
}

/* ------------------------------------------------------------------- sums */

/* One task's mean squares. The sums of squares are whole numbers over I S: nothing is lost, and 0 is 0. */
typedef struct squares {
    double items, seeds, error; /* MS_I, MS_S, MS_E; those with no degrees of freedom are 0 */
    double mean;
    int64_t lost, gained; /* cells of -1, of 1 */
} squares;

static squares squares_of(const mx_cells *c) {
    const int64_t I = c->items, S = c->seeds;
    int64_t total = 0, of_items = 0, of_seeds = 0, of_cells = 0;
    squares m = { 0 };

    assert(I >= 1 && S >= 1 && I <= INT64_C(1000000000) / S); /* (I S)^2 must fit */
    for (int64_t i = 0; i < I; i++) {
        int64_t sum = 0;

        for (int64_t s = 0; s < S; s++) {
            int64_t d = c->value[s * I + i];

            sum += d;
            of_cells += d * d;
            m.lost += d < 0;
            m.gained += d > 0;
        }
        of_items += sum * sum;
    }
    for (int64_t s = 0; s < S; s++) {
        int64_t sum = 0;

        for (int64_t i = 0; i < I; i++) {
            sum += c->value[s * I + i];
        }
        total += sum;
        of_seeds += sum * sum;
    }
    m.mean = (double)total / (double)(I * S);
    if (I > 1) {
        m.items = (double)(I * of_items - total * total) / ((double)(I * S) * (double)(I - 1));
    }
    if (S > 1) {
        m.seeds = (double)(S * of_seeds - total * total) / ((double)(I * S) * (double)(S - 1));
    }
    if (I > 1 && S > 1) {
        m.error = (double)(I * S * of_cells - I * of_items - S * of_seeds + total * total) /
                  ((double)(I * S) * (double)((I - 1) * (S - 1)));
    }
    return m;
}

/* s_D^2: the variance of the seeds' unweighted means over tasks. Seeds are told as differences from the first, whose sums are
 * whole numbers: equal seeds give 0, not its rounding. */
static double variance_of_seeds(const mx_cells *task, int32_t tasks) {
    const int32_t S = task[0].seeds;
    double sum = 0, squared = 0;

    for (int32_t s = 1; s < S; s++) {
        double off = 0;

        for (int32_t t = 0; t < tasks; t++) {
            const int8_t *first = task[t].value, *this = task[t].value + s * task[t].items;
            int64_t total = 0;

            for (int64_t i = 0; i < task[t].items; i++) {
                total += this[i] - first[i];
            }
            off += (double)total / (double)task[t].items / tasks;
        }
        sum += off;
        squared += off * off;
    }
    return most(squared - sum * sum / S, 0) / (S - 1);
}

/* ----------------------------------------------------------- mean and V */

/* What all forms share: the mean, V and its degrees of freedom (paired.h's equations), the exact sums' verdicts. */
typedef struct summary {
    double value, variance, freedom;
    bool one_way;      /* no two tasks point different ways */
    int64_t items_off; /* of tasks with a mean other than 0 */
} summary;

static double squared(double value) {
    return value * value;
}

static summary summarize(const mx_cells *task, int32_t tasks) {
    const int32_t S = task[0].seeds, K = tasks;
    double of_items = 0, of_error = 0, of_seeds = 0, below = 0;
    int up = 0, down = 0;
    summary r = { 0 };

    for (int32_t t = 0; t < K; t++) {
        double I = (double)task[t].items, weight = 1 / ((double)K * K * I * S);
        squares m = squares_of(&task[t]);

        assert(task[t].seeds == S);
        r.value += m.mean / K;
        r.items_off += m.mean != 0 ? task[t].items : 0;
        up += m.mean > 0;
        down += m.mean < 0;
        if (task[t].items == 1) {
            of_items = NAN; /* one item says nothing about items */
            continue;
        }
        of_items += weight * m.items;
        of_error += weight * m.error;
        below += squared(weight * m.items) / (I - 1) + (S > 1 ? squared(weight * m.error) / ((I - 1) * (S - 1)) : 0);
        if (K == 1 && S > 1) {
            of_seeds = weight * m.seeds; /* the exact sums */
        }
    }
    r.one_way = !(up && down);
    if (S == 1 || isnan(of_items)) {
        r.variance = of_items;
        r.freedom = isnan(of_items) ? NAN : INFINITY;
        return r;
    }
    if (K > 1) {
        of_seeds = variance_of_seeds(task, K) / S;
    }
    r.variance = of_items + most(of_seeds - of_error, 0);
    below += squared(of_seeds) / (S - 1);
    r.freedom = r.variance > 0 ? squared(r.variance) / below : NAN;
    return r;
}

/* The interval stays where the quantity can be: `least_value` to 1. */
static mx_estimate estimate_of(const summary *m, double least_value, const char *estimator) {
    mx_estimate e = { .value = m->value, .variance = m->variance, .freedom = m->freedom, .low = NAN, .high = NAN, .p = NAN,
                      .mid_p = NAN, .detectable = NAN, .estimator = estimator };

    if (m->variance > 0) {
        double t = mx_student_quantile(one_sided, m->freedom), error = sqrt(m->variance);

        e.low = most(e.value - t * error, least_value);
        e.high = least(e.value + t * error, 1);
        e.detectable = (t + mx_student_quantile(power, m->freedom)) * error;
    }
    return e;
}

static const char *named(const mx_cells *task, int32_t tasks) {
    if (task[0].seeds == 1) {
        return "items of fixed tasks, normal";
    }
    return tasks == 1 ? "two-way random layout of items and seeds, Satterthwaite t" :
                        "two-way random layout of items and seeds within fixed tasks, Satterthwaite t";
}

mx_estimate mx_estimate_difference(const mx_cells *task, int32_t tasks) {
    summary m = summarize(task, tasks);
    mx_estimate e = estimate_of(&m, -1, named(task, tasks));

    if (tasks == 1 && task[0].seeds == 1) {
        squares cells = squares_of(task);

        e.estimator = "exact McNemar test; score interval of Tango 1998";
        e.better = cells.gained;
        e.worse = cells.lost;
        e.p = mx_mcnemar(e.better, e.worse, &e.mid_p);
        mx_tango(e.better, e.worse, task[0].items, &e.low, &e.high);
    } else if (m.variance > 0) {
        e.p = mx_student_two_sided(e.value / sqrt(m.variance), m.freedom);
    } else if (m.variance == 0 && m.items_off > 0 && m.one_way) {
        e.p = least(1, exp2(1 - (double)m.items_off));
    } else {
        e.p = 1; /* nothing differs, or nothing can be said about it */
    }
    return e;
}

mx_estimate mx_estimate_accuracy(const mx_cells *task, int32_t tasks) {
    summary m = summarize(task, tasks);
    mx_estimate e = estimate_of(&m, 0, named(task, tasks));

    e.detectable = NAN;
    if (tasks == 1 && task[0].seeds == 1) {
        e.estimator = "score interval of Wilson 1927";
        mx_wilson(squares_of(task).gained, task[0].items, &e.low, &e.high);
    }
    return e;
}

/* ------------------------------------------------------- one seed, one task */

/* P(X = k) of n fair coins. */
static double of_coins(int64_t k, int64_t n) {
    int sign;

    return exp(lgamma_r((double)n + 1, &sign) - lgamma_r((double)k + 1, &sign) - lgamma_r((double)(n - k) + 1, &sign) -
               (double)n * M_LN2);
}

double mx_mcnemar(int64_t b, int64_t c, double *ret_mid) {
    int64_t n = b + c, k = b < c ? b : c;
    double point = of_coins(k, n), next = point, sum = 0, p;

    assert(b >= 0 && c >= 0);
    for (int64_t x = k; x >= 0 && sum + next != sum; x--) { /* terms only fall below the middle */
        sum += next;
        next *= (double)x / (double)(n - x + 1);
    }
    p = b == c ? 1 : least(1, 2 * sum);
    if (ret_mid) {
        *ret_mid = n == 0 ? 1 : b == c ? 1 - point / 2 : p - point;
    }
    return p;
}

/* Tango's score statistic at a true difference `delta`, p21 at its restricted maximum of the likelihood:
 *   (b - c - n delta) / sqrt(n (2 p21 + delta (1 - delta))),   p21 = (sqrt(B^2 - 4 A C) - B) / (2 A),
 *   A = 2 n, B = -b - c + (2 n - b + c) delta, C = -c delta (1 - delta) */
static double score_at(double delta, double b, double c, double n) {
    double A = 2 * n, B = -b - c + (2 * n - b + c) * delta, C = -c * delta * (1 - delta);
    double p21 = (sqrt(most(B * B - 4 * A * C, 0)) - B) / (2 * A), top = b - c - n * delta;
    double variance = n * (2 * p21 + delta * (1 - delta));

    return top == 0 ? 0 : variance > 0 ? top / sqrt(variance) : copysign(INFINITY, top);
}

/* The statistic falls from `low` (at least z) to `high` (at most z): where it is z. */
static double score_root(double low, double high, double z, double b, double c, double n) {
    for (int i = 0; i < 200 && high - low > 1e-15; i++) {
        double middle = (low + high) / 2;

        if (score_at(middle, b, c, n) > z) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (low + high) / 2;
}

void mx_tango(int64_t b, int64_t c, int64_t n, double *ret_low, double *ret_high) {
    double at = (double)(b - c) / (double)n, z = mx_student_quantile(one_sided, INFINITY);

    assert(b >= 0 && c >= 0 && n >= 1 && b + c <= n);
    *ret_low = c == n ? -1 : score_root(-1, at, z, (double)b, (double)c, (double)n);
    *ret_high = b == n ? 1 : score_root(at, 1, -z, (double)b, (double)c, (double)n);
}

void mx_wilson(int64_t right, int64_t n, double *ret_low, double *ret_high) {
    double z = mx_student_quantile(one_sided, INFINITY), N = (double)n, p = (double)right / N;
    double middle = p + z * z / (2 * N), half = z * sqrt(p * (1 - p) / N + z * z / (4 * N * N));

    assert(n >= 1 && right >= 0 && right <= n);
    *ret_low = right == 0 ? 0 : (middle - half) / (1 + z * z / N);
    *ret_high = right == n ? 1 : (middle + half) / (1 + z * z / N);
}

/* -------------------------------------------------------------- several */

void mx_holm(const double *p, double *ret, int64_t n) {
    int64_t left = 0;
    double floor_at = 0;

    for (int64_t i = 0; i < n; i++) {
        ret[i] = NAN;
        left += !isnan(p[i]);
    }
    /* the smallest not yet done times how many are left, never below the one before; tables are small */
    for (; left > 0; left--) {
        int64_t next = -1;

        for (int64_t i = 0; i < n; i++) {
            if (!isnan(p[i]) && isnan(ret[i]) && (next < 0 || p[i] < p[next])) {
                next = i;
            }
        }
        floor_at = most(floor_at, least(1, p[next] * (double)left));
        ret[next] = floor_at;
    }
}
