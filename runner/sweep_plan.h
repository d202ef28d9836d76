/* sweep_plan.h - what a sweep will do, variant by variant, before anything starts. */
#ifndef RUNNER_SWEEP_PLAN_H
#define RUNNER_SWEEP_PLAN_H

#include "reports/table.h"
#include "runner/sweep.h"

/* mixrun plan SWEEP: measures, looks into the database `db` (NULL: the sweep's; it need not exist), and prints the table. A
 * variant that does not fit is told in call->problems with MX_E_MEMORY, after the table. */
MX_MUST_CHECK mx_code mx_sweep_plan(const mx_call *call, size_t memory_limit, const char *db, mx_format format, mx_status *st);

#endif
