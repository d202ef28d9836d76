/* vectors_parts.h - what vectors.c, vectors_run.c and vectors_compare.c share. */
#ifndef MODEL_VECTORS_PARTS_H
#define MODEL_VECTORS_PARTS_H

#include "model/model.h"
#include "model/trainee.h"
#include "model/vectors.h"

typedef struct mx_vectors_sequence {
    int32_t *id;
    int64_t length;
    uint8_t *mask[2]; /* loss_mask, loss_mask_all */
    int64_t begin;    /* its first row when all sequences lie end to end */
} mx_vectors_sequence;

typedef struct mx_vectors_set {
    const char *folder;
    mx_base_file *base;
    mx_vectors_sequence *sequence;
    int64_t sequences, rows, targets[2];
} mx_vectors_set;

/* A case as its files have it, understood. */
typedef struct mx_vectors_case {
    const char *name, *json_path, *values_path;
    json_t *json;
    mx_safetensors *values;
    const mx_method *method;
    void *config;
    mx_optimizer optimizer;
    double lr;
    int64_t shown; /* sequence whose rows the file shows */
    int64_t steps;
} mx_vectors_case;

/* What one way of running a case computed; everything on the host. */
typedef struct mx_vectors_losses {
    double ce, balance, z; /* router losses unweighted */
} mx_vectors_losses;
typedef struct mx_vectors_computed {
    const mx_layout *layout;
    int64_t experts;
    bool comparable;    /* losses, gradients and steps mean the same as in the file: not when router losses were cut up */
    float *logits;      /* (shown rows, vocab) */
    float *hidden;      /* (layers + 1, rows, hidden) */
    float *router, *weight, *passed; /* (layers, rows, E), (layers, rows, E), (layers, rows) */
    float *gradient;    /* flat as the trained values */
    float *aux;         /* the same, of the router losses alone */
    float *input_gradient; /* (rows, hidden) */
    mx_vectors_losses loss, loss_all;
    double *nll; /* (sequences) */
    mx_vectors_losses *after; /* (steps) */
    mx_router_load load;
} mx_vectors_computed;

/* vectors_run.c: runs the case with the form of its config, packed or in micro-batches of one sequence. */
MX_MUST_CHECK mx_code mx_vectors_compute(mx_backend *b, const mx_vectors_set *set, const mx_vectors_case *c,
                                         bool packed, mx_arena *arena, mx_vectors_computed *ret, mx_status *st);
/* vectors_compare.c: every key of both files against it. */
void mx_vectors_compare(const mx_vectors_set *set, const mx_vectors_case *c, const mx_vectors_computed *got,
                        mx_precision precision, mx_vectors_result *r);

#endif
