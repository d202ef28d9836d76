/* student.c - see student.h. */
#include "reports/student.h"

#include <assert.h>
#include <float.h>
#include <math.h>

/* log(Gamma(a + 1/2) / Gamma(a)). Where the two logarithms grow large their difference has lost its digits, so there it is
 * the expansion of DLMF 5.11.13; its next term is 17 / (14336 a^7), 2e-15 at 50. */
static double log_half_step(double a) {
    int sign;

    if (a < 50) {
        return lgamma_r(a + 0.5, &sign) - lgamma_r(a, &sign); /* lgamma writes a global */
    }
    return 0.5 * log(a) - 1 / (8 * a) + 1 / (192 * a * a * a) - 1 / (640 * a * a * a * a * a);
}

/* The continued fraction of I_x(a, b), DLMF 8.17.22, by the modified method of Lentz; converges quickly for
 * x < (a + 1) / (a + b + 2), in about sqrt(max(a, b)) steps. */
static double fraction(double x, double a, double b) {
    enum { STEPS = 100000 };
    const double tiny = DBL_MIN / DBL_EPSILON;
    double c = 1, d = 1 - (a + b) * x / (a + 1), h;

    d = 1 / (fabs(d) < tiny ? tiny : d);
    h = d;
    for (int m = 1; m < STEPS; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), factor;

        d = 1 + even * d;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = 1 + even / c;
        c = fabs(c) < tiny ? tiny : c;
        h *= d * c;
        d = 1 + odd * d;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = 1 + odd / c;
        c = fabs(c) < tiny ? tiny : c;
        factor = d * c;
        h *= factor;
        if (fabs(factor - 1) < 4 * DBL_EPSILON) {
            break;
        }
    }
    return h;
}

/* From here on t is the normal distribution: their quantiles differ by about (t^3 + t) / (4 df). */
static const double freedom_normal = 1e10;

/* P(|T| > t) = I_x(df / 2, 1 / 2), x = df / (df + t^2): Abramowitz and Stegun 26.5.27. */
double mx_student_two_sided(double t, double freedom) {
    double a = freedom / 2, x, y, front;

    assert(freedom > 0);
    if (freedom >= freedom_normal) {
        return erfc(fabs(t) / sqrt(2));
    }
    if (t == 0 || isinf(t * t)) {
        return t == 0;
    }
    x = freedom / (freedom + t * t);
    y = t * t / (freedom + t * t); /* 1 - x, with all its digits */
    front = exp(log_half_step(a) - a * log1p(t * t / freedom)) * sqrt(y / M_PI); /* x^a y^(1/2) / B(a, 1/2) */
    return x < (a + 1) / (a + 2.5) ? front * fraction(x, a, 0.5) / a : 1 - front * fraction(y, 0.5, a) / 0.5;
}

double mx_student_tail(double t, double freedom) {
    double two = mx_student_two_sided(t, freedom);

    return t >= 0 ? two / 2 : 1 - two / 2;
}

static double density(double t, double freedom) {
    if (freedom >= freedom_normal) {
        return exp(-t * t / 2) / sqrt(2 * M_PI);
    }
    return exp(log_half_step(freedom / 2) - (freedom + 1) / 2 * log1p(t * t / freedom)) / sqrt(freedom * M_PI);
}

/* Newton on log tail against log t, within a bracket: far out the tail of t is a power of t, so that this is nearly a straight
 * line whatever the degrees of freedom; a step that leaves the bracket becomes a bisection. */
double mx_student_quantile(double p, double freedom) {
    double tail = p < 0.5 ? p : 1 - p, low = -700, high = 700, u = 0;

    assert(p > 0 && p < 1 && freedom > 0);
    if (tail == 0.5) {
        return 0;
    }
    for (int i = 0; i < 200 && high - low > 4 * DBL_EPSILON; i++) {
        double t = exp(u), q = mx_student_tail(t, freedom), step;

        if (q > tail) {
            low = u;
        } else {
            high = u;
        }
        step = q > 0 ? (log(q) - log(tail)) * q / (t * density(t, freedom)) : INFINITY;
        if (fabs(step) < DBL_EPSILON) {
            break;
        }
        u = u + step > low && u + step < high ? u + step : (low + high) / 2;
    }
    return p < 0.5 ? -exp(u) : exp(u);
}
