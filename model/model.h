/* model.h - a frozen transformer on a device, with room for adapters: forward, losses, backward, scores.
 *
 * What is read-only (weights) and what a pass needs (saved activations, scratch, the batch) is allocated once,
 * at opening, sized by the limits; mx_model_bytes tells the same numbers before anything is loaded. Nothing is allocated
 * later, and no pass reads a device value back, except where a function says that it waits.
 *
 * One pass at a time: forward remembers its batch, adapters and noise for the losses and the backward pass. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "model/adapter.h"
#include "model/base_model.h"
#include "model/batch.h"
#include "model/methods/method.h"
#include "model/router_load.h"

typedef struct mx_model mx_model;

/* The largest micro-batch that will come, and what will be asked of it. */
typedef struct mx_model_limits {
    int64_t rows, loss_rows, segments, spans, questions;
    int64_t tasks;     /* router tallies are told apart by them; >= 1 */
    bool training;     /* false: forward only, the layers share one set of activations */
    bool checkpointing; /* training with that one set: only the stream between layers is kept, and each layer's forward pass
                           is computed again in the backward pass (gradient_checkpointing). The same bits */
    bool label_logits; /* mx_model_label_logits will be used */
} mx_model_limits;

/* Bytes by purpose, without weights or device memory; MX_MEMORY_TRAINED is the trainee's (mx_trainee_bytes) and stays 0.
 * `b` is open, but nothing is allocated on it. Returns NULL, or in words what makes the backend compute this model far slower than it
 * computes others. */
const char *mx_model_bytes(const mx_backend *b, const mx_base_file *file, const mx_layout *layout,
                           const mx_model_limits *limits, size_t ret[MX_MEMORY_PURPOSES]);

/* The file may be closed afterwards. Adapters of this layout can be run on it. MX_E_MEMORY, MX_E_DATA. */
MX_MUST_CHECK mx_code mx_model_open(mx_backend *b, const mx_base_file *file, const mx_layout *layout,
                                    const mx_model_limits *limits, mx_model **ret, mx_status *st);
void mx_model_close(mx_model *m); /* NULL is fine */
const mx_shape *mx_model_shape(const mx_model *m);
const mx_frozen *mx_model_frozen(const mx_model *m);
mx_backend *mx_model_backend(const mx_model *m);

/* How a pass is run. */
typedef struct mx_pass {
    bool training;      /* keep activations, noise on */
    uint64_t seed;      /* of the noise */
    uint64_t step;      /* optimizer step, from 0: names the noise */
    bool choice;        /* objective: choice instead of language_model */
    bool input_gradient; /* compute that of the embedding rows, for mx_model_read_input_gradient */
    bool router_losses_alone; /* leave the objective out: gradients are those of the router losses (checks) */
    bool count_pairs;    /* tally co-activation (evaluation) */
} mx_pass;

/* Copies the batch and runs the layers. `adapter` is a list, today of one; derived values are refreshed when stale. The
 * batch must fit the limits (programmer's error). */
void mx_model_forward(mx_model *m, mx_adapter *const *adapter, int64_t adapters, const mx_batch *batch,
                      const mx_pass *pass);
/* The head on the loss rows, the objective, and the router's losses; adds to *numbers (device). */
void mx_model_losses(mx_model *m, mx_numbers *numbers);
/* Gradients of what mx_model_losses added; adds to the adapters' gradients. */
void mx_model_backward(mx_model *m);

/* Of the last forward pass; each waits. Not between mx_model_losses and mx_model_backward. */
/* -log p of each loss row's target, without gradients; loss_rows values. */
MX_MUST_CHECK mx_code mx_model_nll(mx_model *m, float *ret, mx_status *st);
/* Logits of `ids` vocabulary entries at each loss row: (loss_rows, ids). ids 0: the whole vocabulary. */
MX_MUST_CHECK mx_code mx_model_label_logits(mx_model *m, const int32_t *id, int64_t ids, float *ret, mx_status *st);

/* Adds what the routers counted since the last reading into *into (layers, tasks, experts as here) and zeroes it on the
 * device. Waits. Nothing for a dense method. */
MX_MUST_CHECK mx_code mx_model_read_load(mx_model *m, mx_router_load *into, mx_status *st);
/* The same without waiting: queues the copy into host memory of mx_model_tally_bytes (mx_backend.host_alloc) and zeroes the
 * device's; when a wait for a later mark has come back, mx_model_add_load adds it. 0 bytes, and nothing, for a dense method. */
size_t mx_model_tally_bytes(const mx_model *m);
void mx_model_queue_load(mx_model *m, void *host);
void mx_model_add_load(const mx_model *m, const void *host, mx_router_load *into);
/* Sizes *ret for this model. */
void mx_model_init_load(const mx_model *m, mx_router_load *ret);

/* For checks (vectors, gates, tests), of the last pass with `training` set; each waits. Not between mx_model_losses and
 * mx_model_backward. */
/* The stream after layer i, (rows, hidden) as f32; i = layers: after the final norm. */
void mx_model_read_hidden(mx_model *m, int64_t layer, float *ret);
/* Router of a layer: logits (rows, E); weight (rows, E) that each expert's output is multiplied with, 0 where unused;
 * passed (rows): p_max of a token past switch's capacity, else 0. Any may be NULL. */
void mx_model_read_router(mx_model *m, int64_t layer, float *ret_logits, float *ret_weight, float *ret_passed);
/* (rows, hidden), with mx_pass.input_gradient, after the backward pass. */
void mx_model_read_input_gradient(mx_model *m, float *ret);

#endif
