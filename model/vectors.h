/* vectors.h - the examination by golden vectors: a folder of numbers that independent programs computed in float64.
 *
 * The format is that of the folder's makers: config.json and model.safetensors (a base), batch.json (sequences with
 * loss masks), and for each case CASE.json with CASE.safetensors. Every key of a case that we have built is compared, or the
 * case fails; a case with a word or method we do not know is "not built", named and counted. */
#ifndef MODEL_VECTORS_H
#define MODEL_VECTORS_H

#include "kernels/backend.h"

enum { MX_VECTORS_QUANTITIES = 16 };

typedef enum mx_verdict { MX_VERDICT_OK, MX_VERDICT_BEYOND, MX_VERDICT_NOT_BUILT } mx_verdict;

/* The largest error of one quantity in a case. */
typedef struct mx_vectors_error {
    const char *quantity; /* "logits", "gradients", "loss", "5 steps", ... */
    double error, tolerance; /* tolerance below 0: reported only (and held to be finite) */
    char worst[160];         /* the key */
} mx_vectors_error;

/* One way of running one case. */
typedef struct mx_vectors_result {
    const char *name; /* "mixlora-e4k2" */
    const char *way;  /* "packed, factored", "one by one, shared" */
    mx_verdict verdict;
    char why[240]; /* what is not built, or what failed first */
    mx_vectors_error error[MX_VECTORS_QUANTITIES];
    int errors;
} mx_vectors_result;

typedef struct mx_vectors_summary {
    int64_t built, not_built, runs, failed; /* cases, cases, ways run, ways beyond tolerance */
} mx_vectors_summary;

/* Opens its own backend; threads 0 means one: on models this small more threads cost more than they give. In bf16
 * errors are reported and held to be finite, and only the mean losses have a tolerance (vectors_compare.c says why).
 * MX_E_CHECK when anything is beyond tolerance, after all cases ran; MX_E_DATA when the folder is broken. `report` may be
 * NULL. */
MX_MUST_CHECK mx_code mx_vectors_run(const char *folder, const mx_backend_options *options,
                                     void (*report)(void *context, const mx_vectors_result *r), void *context,
                                     mx_vectors_summary *ret, mx_status *st);

#endif
