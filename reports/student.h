/* student.h - Student's t and the normal distribution, for fractional degrees of freedom.
 *
 * Doubles; relative errors under 1e-9 for degrees of freedom from 0.1 on. INFINITY degrees of freedom mean the normal
 * distribution. Arguments outside the stated ranges are a programmer's error. */
#ifndef REPORTS_STUDENT_H
#define REPORTS_STUDENT_H

/* I_x(a, b), the regularized incomplete beta function: 0 <= x <= 1, a > 0, b > 0. DLMF 8.17.1. */
double mx_beta_regularized(double x, double a, double b);
/* P(T > t). */
double mx_student_tail(double t, double freedom);
/* P(|T| > |t|): a two-sided p. */
double mx_student_two_sided(double t, double freedom);
/* t with P(T <= t) = p, 0 < p < 1. */
double mx_student_quantile(double p, double freedom);

#endif
