/* cases.h - every op of the table as a problem drawn from a seed: the same problem on any backend, and what came out of it.
 *
 * parity.c compares the CUDA backend with the CPU's in them, races.c runs them under the checkers. Shapes are drawn to hurt: one
 * token, ragged sequences with prefixes, padding full of NaNs, odd widths and ranks, experts nobody uses. Nothing here needs a
 * test framework, and device memory is reached by the backend's verbs alone. */
#ifndef TESTS_CUDA_CASES_H
#define TESTS_CUDA_CASES_H

#include "base/rng.h"
#include "kernels/ops.h"

enum { CASE_OUTPUTS = 64 };

typedef struct case_output {
    char name[24];
    mx_dtype type;
    int64_t count;
    double least; /* distances are told relative to the largest value, or to this where all are smaller */
    void *device, *host; /* host: read when the run has ended */
} case_output;

typedef struct case_held { /* given back at the end: device memory of a purpose, a weight, or the host's */
    void *memory;
    mx_weight *weight;
    int purpose; /* -1: the host's */
} case_held;

typedef struct case_run {
    mx_backend *b;
    mx_rng rng;
    bool small; /* shapes for a checker that is a thousand times slower */
    char shape[240];
    case_output output[CASE_OUTPUTS];
    int outputs;
    case_held *held;
    int64_t held_count;
    uint64_t waits, allocations; /* before the ops, then: of the ops */
} case_run;

typedef struct op_case {
    const char *name;
    void (*run)(case_run *r);
    double f32, bf16; /* how far outputs may be from the CPU's, of the largest value of each */
} op_case;
extern const op_case OP_CASES[]; /* all of them, ended by a NULL name */

/* Runs it; the outputs lie in r->output[].host afterwards. Programmer's errors and failing devices abort with words. */
void case_run_on(const op_case *c, mx_backend *b, uint64_t seed, bool small, case_run *r);
void case_free(case_run *r); /* of what came out */
double case_value(const case_output *o, int64_t i);
/* The largest distance of any output (INFINITY: a NaN, or an integer that differs), and which output that is. */
double case_far(const case_run *expected, const case_run *got, const char **worst);
/* The first output whose bytes differ, or NULL. */
const char *case_other_bytes(const case_run *a, const case_run *b);

/* ------------------------------------------------------------------ for the cases */
void case_begin(case_run *r, mx_backend *b, const char *name, uint64_t seed, bool small);
void case_end(case_run *r); /* reads the outputs, gives everything back */
int64_t case_between(case_run *r, int64_t least, int64_t most);
bool case_chance(case_run *r, double probability);
int64_t case_one_of(case_run *r, int count, const int64_t *of);
void case_says(case_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* added to the shape's words */

/* n values in (-size, size) that bf16 holds exactly; the host's. */
float *case_values(case_run *r, int64_t n, double size);
void *case_host(case_run *r, size_t bytes); /* zeroed */
void *case_memory(case_run *r, mx_memory purpose, const void *from, size_t bytes); /* from NULL: 0xff */
float *case_floats(case_run *r, const float *from, int64_t n);
float *case_drawn(case_run *r, int64_t n, double size); /* values, on the device */
/* An act tensor whose first `live` rows are `from` and whose others are NaN; from NULL: all are. */
mx_tensor case_act(case_run *r, const float *from, int64_t rows, int64_t columns, int64_t live);
mx_tensor case_drawn_act(case_run *r, int64_t rows, int64_t columns, int64_t live, double size);
void case_scratch(case_run *r, size_t bytes);

/* What the case has written: the first `count` values. */
void case_out(case_run *r, const char *name, const void *device, mx_dtype type, int64_t count);
void case_out_act(case_run *r, const char *name, mx_tensor t, int64_t live);

void case_ops_begin(case_run *r);
void case_ops_end(case_run *r);

/* Packed rows: ragged sequences, some with a prefix, and padding. */
enum { CASE_VOCAB = 37, CASE_TASKS = 3 };
mx_rows case_rows(case_run *r, int64_t most);

/* Frozen matrices of one input, from a file of some type. */
void case_weights(case_run *r, int count, const int64_t *out, int64_t in, mx_weight_room room, unsigned use, mx_weight **ret);

void case_linears(case_run *r);
void case_attention(case_run *r);
void case_router(case_run *r);
void case_experts(case_run *r);

#endif
