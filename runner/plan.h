/* plan.h - what a recipe will do, known before any weight is loaded.
 *
 * Reads the base's headers, the tokenizer and the data; encodes every question; cuts the steps; counts trained values, tokens
 * and bytes by purpose. A plan that does not fit into memory is refused here. Everything in it is only read afterwards. */
#ifndef RUNNER_PLAN_H
#define RUNNER_PLAN_H

#include "datasets/stream.h"
#include "eval/score.h"
#include "model/hub.h"
#include "model/trainee.h"
#include "runner/recipe.h"

/* A task of the run, trained on, scored, or both. Its place in the list is mx_question.task_index. */
typedef struct mx_plan_task {
    const char *name;
    mx_task *task;
    const mx_task_item *item; /* of train.tasks; NULL: only scored */
    mx_questions train;       /* empty when only scored */
    mx_encoded_list encoded;
} mx_plan_task;

/* One evaluation to be made: a task, a split, a protocol. */
typedef struct mx_plan_exam {
    int32_t task; /* index into tasks */
    mx_split split;
    mx_questions questions;
    mx_exam exam;
} mx_plan_exam;

typedef struct mx_plan {
    const mx_recipe *recipe;
    mx_arena *arena;
    mx_backend *backend;
    const char *device; /* what the recipe's word means here: "cpu", "cuda", "cuda:1" */
    const char *device_why; /* why auto took the CPU; "" otherwise */
    bool device_absent; /* it is not here, and was planned for all the same (mx_plan_wish.elsewhere): `backend` is the CPU's */
    mx_hub_base base;
    mx_base_file *base_file;
    char base_hash[MX_SHA256_TEXT];
    mx_tokenizer *tokenizer;

    bool trains; /* false: only evaluates (mixrun eval) */
    const mx_method *method;
    const void *config; /* the method's resolved words */
    const mx_layout *layout;
    double flops, base_flops; /* a token's: mx_layout_flops, mx_shape_flops */
    double again_flops;       /* of both, computed a second time for gradient_checkpointing; 0 without */
    const char *description; /* "mixlora r16 E8 top-2 on q k v o gate up down" */

    mx_plan_task *task;
    int32_t tasks;
    mx_plan_exam *exam;
    int32_t exams;
    mx_stream *stream; /* NULL when not training */
    mx_stream_totals totals;
    mx_schedule schedule;
    int64_t router_log_steps, save_steps, logging_steps; /* resolved */
    int64_t exam_rows; /* of an evaluation's batch at most: as many as training's, so that evaluating needs no more memory */
    bool limited;

    mx_model_limits limits;
    size_t bytes[MX_MEMORY_PURPOSES]; /* on the device */
    const char *slow;                 /* what makes the backend far slower than it could be, in words; or NULL */
    size_t held_bytes;                /* that the backend took for itself when it was opened */
    size_t device_bytes;              /* of a GPU's memory, all of it: bytes, held_bytes and CUDA's own; 0: no memory of its own */
    size_t host_bytes;                /* the process's own anonymous and page-locked memory */
    size_t total_bytes;               /* of the host's memory; on the CPU `bytes` too, since they are one memory */
    mx_status refusal;                /* MX_E_MEMORY: it does not fit, and was wished for all the same */

    char recipe_hash[MX_SHA256_TEXT], tasks_hash[MX_SHA256_TEXT], data_hash[MX_SHA256_TEXT];
} mx_plan;

/* What a plan may ask for besides the recipe. */
typedef struct mx_plan_wish {
    bool trains;
    const mx_method *method; /* NULL: the recipe's (eval of a saved adapter: the adapter's own) */
    const void *config;
    size_t memory_limit; /* bytes of the memory that is computed in, a GPU's or the machine's; 0: what is free of it */
    bool look_only;      /* a plan that does not fit is made all the same: its `refusal` says so */
    bool elsewhere;      /* it will run on another machine: a GPU that is not here is no failure, and what it needs stays unknown */
} mx_plan_wish;

/* Fails with the places of the recipe. The plan owns what it opened until mx_plan_close; all else lives in `arena`. */
MX_MUST_CHECK mx_code mx_plan_make(const mx_recipe *recipe, const mx_plan_wish *wish, mx_arena *arena, mx_plan **ret,
                                   mx_status *st);
void mx_plan_close(mx_plan *p); /* NULL is fine */

/* Do two recipes ask the same of base, device, data and evaluation, so that at most the adapter and the optimizer differ? */
bool mx_plan_alike(const mx_recipe *a, const mx_recipe *b);
/* The plan of `recipe`, from that of an alike one: what was read for it is shared, so it must stay open. Not for running, and
 * not to be closed. */
mx_code mx_plan_vary(const mx_plan *like, const mx_recipe *recipe, const mx_plan_wish *wish, mx_arena *arena, mx_plan **ret,
                     mx_status *st);

/* Are the exams made after `step` steps (0: before training)? */
bool mx_plan_scores_at(const mx_plan *p, int64_t step);

/* What the forward pass is of a base's and an adapter's FLOPs per token, which tell training's (model/layout.h). */
double mx_plan_forward_flops(double base_flops, double flops);
/* "base ...", "adapter ...", "train ...", "memory ..." of the storyboard; `purposes`: memory line by line. */
void mx_plan_print(const mx_plan *p, bool purposes, mx_text *out);

/* What CUDA is taken to need of a GPU for itself in every process that uses it - its context, the kernels' code. An estimate. */
#define MX_CUDA_OWN_BYTES ((size_t)512 << 20)

/* Bytes of anonymous memory this process holds now, and the most that it may have: what is available now, or its cgroup's limit. */
size_t mx_memory_now(void);
size_t mx_memory_available(void);

#endif
