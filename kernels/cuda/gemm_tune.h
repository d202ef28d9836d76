/* gemm_tune.h - algorithms chosen by timing, when a file is named to keep the choices in. For gemm*.cu.
 *
 * A choice by timing is not the same in every process, and another algorithm rounds in another order: it would end "the same
 * recipe gives the same bytes". So the heuristic's first answer is the rule, and timing is asked for, by naming a file in
 * $MIXRUN_TUNED: what it holds is used as it stands; what it lacks is timed, while a budget of two seconds a process lasts, and
 * added at once. Runs with one file then agree again, and the file can travel with them. */
#ifndef KERNELS_CUDA_GEMM_TUNE_H
#define KERNELS_CUDA_GEMM_TUNE_H

#include "kernels/cuda/gemm.h"

struct mx_gemm_tuning;

/* *ret NULL when $MIXRUN_TUNED is not set. MX_E_IO when its file cannot be read or written; MX_E_DATA when it is none of ours. */
mx_code mx_gemm_tuning_open(mx_cuda *c, size_t library_version, mx_gemm_tuning **ret, mx_status *st);
void mx_gemm_tuning_close(mx_gemm_tuning *t);
/* "tuned by FILE (41 choices, 5c1f0a2b)": what it holds now, in a hash, for the environment that is stored with a run. */
void mx_gemm_tuning_describe(const mx_gemm_tuning *t, char *text, size_t size);

/* One of `count` > 0 candidates for the product named by `key`: the file's, or the fastest, or, when it is not to be timed or the
 * budget is spent, the first; noted in the file either way. run queues the product by a candidate, whose result may be written
 * over; it says whether it could. */
typedef bool (*mx_gemm_trial)(void *context, const mx_lt_algorithm *algorithm);
mx_lt_algorithm mx_gemm_tuning_choose(mx_gemm_tuning *t, mx_cuda *c, const void *key, size_t key_bytes, const mx_lt_result *candidate,
                                      int count, bool timed, mx_gemm_trial run, void *context);

#endif
