/* train_options.h - the optimizer's and the schedule's words of a recipe's `train` map.
 *
 * The map is put together in runner/recipe.c from the rooms' rows: MX_OPTIMIZER_WORDS(struct, member) are ours, for a
 * struct that has an mx_optimizer_options as that member. */
#ifndef MODEL_TRAIN_OPTIONS_H
#define MODEL_TRAIN_OPTIONS_H

#include "base/option.h"
#include "model/schedule.h"

typedef struct mx_optimizer_options {
    double learning_rate;
    int lr_scheduler; /* mx_schedule_kind */
    int64_t warmup_steps;
    double warmup_ratio;
    double weight_decay, max_grad_norm, adam_beta1, adam_beta2, adam_epsilon;
} mx_optimizer_options;

#define MX_OPTIMIZER_WORD(s, m, field) offsetof(s, m.field)
/* clang-format off */
#define MX_OPTIMIZER_WORDS(s, m) \
    { "learning_rate", MX_REAL, MX_OPTIMIZER_WORD(s, m, learning_rate), MX_RESULT | MX_OPEN_MIN, "2e-4", 0, 10, NULL, NULL, NULL, \
      "peak learning rate of AdamW" }, \
    { "lr_scheduler", MX_ENUM, MX_OPTIMIZER_WORD(s, m, lr_scheduler), MX_RESULT, "constant", 0, 0, mx_schedule_names, NULL, NULL, \
      "shape of the learning rate over the steps; linear and cosine fall to 0" }, \
    { "warmup_steps", MX_INT, MX_OPTIMIZER_WORD(s, m, warmup_steps), MX_RESULT, "0", 0, 1e9, NULL, NULL, "lr_scheduler: linear | cosine", \
      "steps over which the learning rate rises to its peak" }, \
    { "warmup_ratio", MX_REAL, MX_OPTIMIZER_WORD(s, m, warmup_ratio), MX_RESULT, "0", 0, 1, NULL, NULL, "lr_scheduler: linear | cosine", \
      "the same as a share of all steps; give one of the two" }, \
    { "weight_decay", MX_REAL, MX_OPTIMIZER_WORD(s, m, weight_decay), MX_RESULT, "0.01", 0, 10, NULL, NULL, NULL, \
      "decoupled weight decay of AdamW, arXiv:1711.05101" }, \
    { "max_grad_norm", MX_REAL, MX_OPTIMIZER_WORD(s, m, max_grad_norm), MX_RESULT, "1.0", 0, 1e9, NULL, NULL, NULL, \
      "gradients are scaled down to this norm; 0: never" }, \
    { "adam_beta1", MX_REAL, MX_OPTIMIZER_WORD(s, m, adam_beta1), MX_RESULT | MX_OPEN_MAX, "0.9", 0, 1, NULL, NULL, NULL, \
      "decay of AdamW's first moment" }, \
    { "adam_beta2", MX_REAL, MX_OPTIMIZER_WORD(s, m, adam_beta2), MX_RESULT | MX_OPEN_MAX, "0.999", 0, 1, NULL, NULL, NULL, \
      "decay of AdamW's second moment" }, \
    { "adam_epsilon", MX_REAL, MX_OPTIMIZER_WORD(s, m, adam_epsilon), MX_RESULT | MX_OPEN_MIN, "1e-8", 0, 1, NULL, NULL, NULL, \
      "added to the root of the second moment" }
#define MX_OPTIMIZER_SYNONYMS \
    { "lr", "learning_rate" }, { "lr_scheduler_type", "lr_scheduler" }, { "scheduler_type", "lr_scheduler" }, \
    { "clip_grad_norm", "max_grad_norm" }, { "max_norm", "max_grad_norm" }, { "gradient_clipping", "max_grad_norm" }, \
    { "num_warmup_steps", "warmup_steps" }, { "lr_warmup_steps", "warmup_steps" }, { "warmup_fraction", "warmup_ratio" }, \
    { "adam_eps", "adam_epsilon" }
/* clang-format on */

/* Dependent words: warmup_steps and warmup_ratio exclude each other. `map` is the `train` map. */
void mx_optimizer_options_check(const mx_optimizer_options *o, const mx_node *map, mx_problems *problems);
/* The schedule of a run of so many steps. */
mx_schedule mx_optimizer_schedule(const mx_optimizer_options *o, int64_t steps);

#endif
