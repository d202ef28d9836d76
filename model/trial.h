/* trial.h - a small bench for checks: a random base, a method's adapter on it, batches of random questions.
 *
 * The equivalence gates of `selftest` and the tests of the methods stand on it. Everything is tiny; host memory comes from
 * an arena, and what cannot fail at these sizes is asserted. */
#ifndef MODEL_TRIAL_H
#define MODEL_TRIAL_H

#include "model/model.h"
#include "model/trainee.h"

/* A base with grouped queries and an explicit head width, written to a folder of its own and opened from there. */
typedef struct mx_trial_base {
    char folder[256];
    mx_base_file *file;
} mx_trial_base;
typedef struct mx_trial_shape {
    int64_t hidden, inner, layers, heads, kv_heads, head_dim, vocab;
    bool biases, tied;
} mx_trial_shape;
#define MX_TRIAL_SHAPE ((mx_trial_shape){ .hidden = 32, .inner = 48, .layers = 2, .heads = 4, .kv_heads = 2, \
                                          .head_dim = 10, .vocab = 61 })
MX_MUST_CHECK mx_code mx_trial_base_open(const mx_trial_shape *s, uint64_t seed, mx_arena *arena, mx_trial_base *ret,
                                         mx_status *st);
void mx_trial_base_close(mx_trial_base *b); /* removes the folder; zeroed is fine */

/* Model and trainee for one config. */
typedef struct mx_trial {
    mx_backend *b;
    const mx_layout *layout;
    mx_model *model;
    mx_trainee *trainee;
    mx_arena *arena;
} mx_trial;
/* `config` is resolved. Limits are large enough for mx_trial_batch's batches. */
MX_MUST_CHECK mx_code mx_trial_open(mx_backend *b, const mx_trial_base *base, const mx_method *m, const void *config,
                                    bool training, mx_arena *arena, mx_trial *ret, mx_status *st);
void mx_trial_close(mx_trial *t); /* zeroed is fine */
/* Moves every trained tensor away from its start: nothing is 0, routers choose clearly, magnitudes stay near. */
void mx_trial_shake(mx_trial *t, uint64_t seed);

/* Questions with a context and choices of different lengths. */
typedef struct mx_trial_questions {
    int64_t questions, choices;
    uint64_t seed;
    int32_t tasks; /* question q belongs to task q % tasks */
} mx_trial_questions;
/* Questions [first, first + count) as a micro-batch of all: with shared contexts, or each choice alone with its context. Both
 * have the same loss rows in the same order. Steps are normalised over all of `q`; step_rows by the form. */
mx_batch mx_trial_batch(const mx_trial_questions *q, const mx_trial *t, int64_t first, int64_t count, bool shared,
                        mx_arena *arena);

/* nll of the batch's loss rows by the evaluation's pass; waits. */
MX_MUST_CHECK mx_code mx_trial_scores(mx_trial *t, const mx_batch *batch, float *ret, mx_status *st);
/* One step's numbers over micro-batches, and with `gradient` (layout->size[MX_KIND_TRAINED] values, may be NULL) the backward
 * pass too. */
MX_MUST_CHECK mx_code mx_trial_step(mx_trial *t, const mx_batch *batch, int64_t batches, const mx_pass *pass,
                                    mx_numbers *ret, float *gradient, mx_status *st);
/* ||a - b|| / ||b|| over all n; 0 when both are 0. */
double mx_trial_difference(const float *a, const float *b, int64_t n);

/* Copies values between layouts by place and role: part 0 of `from` into every part of `to` where it has several. */
void mx_trial_copy(mx_trial *to, const mx_trial *from);

#endif
