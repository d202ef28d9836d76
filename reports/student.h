/* student.h - Student's t and the normal distribution, for fractional degrees of freedom.
 *
 * Relative errors under 1e-8 for degrees of freedom from 0.1 on. INFINITY degrees of freedom mean the normal
 * distribution. Arguments outside the stated ranges are a programmer's error. */
#ifndef REPORTS_STUDENT_H
#define REPORTS_STUDENT_H

/* P(T > t). */
double mx_student_tail(double t, double freedom);
/* P(|T| > |t|): a two-sided p. */
double mx_student_two_sided(double t, double freedom);
/* t with P(T <= t) = p, 0 < p < 1. */
double mx_student_quantile(double p, double freedom);

#endif
