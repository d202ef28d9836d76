/* gates.h - equivalences that must hold on this machine, without any file (METHODS.md 9 a-h).
 *
 * A small random base and random adapters; each gate computes one thing in two ways. */
#ifndef MODEL_GATES_H
#define MODEL_GATES_H

#include "kernels/backend.h"

typedef struct mx_gate_result {
    const char *name; /* "b  shared forward equals naive" */
    double error, tolerance;
    bool ok;
} mx_gate_result;

/* threads 0 means one, which is quickest at these sizes. MX_E_CHECK when one does not hold, after all were reported. */
MX_MUST_CHECK mx_code mx_gates_run(const mx_backend_options *options,
                                   void (*report)(void *context, const mx_gate_result *r), void *context,
                                   mx_status *st);

#endif
