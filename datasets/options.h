/* options.h - the words of a recipe about data: which tasks, how they are asked, how much at a time.
 *
 * The recipe's `train` map is put together in runner/recipe.c: MX_STREAM_WORDS(struct, member) are ours, for a struct that
 * has an mx_stream_words as that member. */
#ifndef DATASETS_OPTIONS_H
#define DATASETS_OPTIONS_H

#include "base/option.h"

/* One item of train.tasks: a bare name, or a map. */
typedef struct mx_task_item {
    const char *task;
    double weight;
    int64_t limit, hold_out;
    const char *path, *labels;
} mx_task_item;
extern const mx_option_table mx_task_item_table;

typedef struct mx_stream_words {
    mx_list tasks; /* of mx_task_item */
    int64_t num_epochs, max_steps;
    int64_t batch_size, micro_batch_tokens, sequence_len;
    int prompt;    /* mx_prompt_form */
    int objective; /* mx_objective_word */
    int loss_on;   /* mx_loss_on */
    bool add_eos;
} mx_stream_words;

typedef enum mx_objective_word { MX_OBJECTIVE_CHOICE, MX_OBJECTIVE_LANGUAGE_MODEL } mx_objective_word;
typedef enum mx_loss_on { MX_LOSS_ON_ANSWER, MX_LOSS_ON_ALL } mx_loss_on;
extern const char *const mx_objective_names[]; /* "choice", "language_model", NULL */
extern const char *const mx_loss_on_names[];   /* "answer", "all", NULL */
extern const char *const mx_prompt_form_names[];

/* clang-format off */
#define MX_STREAM_WORDS(s, m) \
    { "tasks", MX_LIST, offsetof(s, m.tasks), MX_RESULT | MX_REQUIRED, NULL, 1, 1000, NULL, &mx_task_item_table, NULL, \
      "what to train on: names of configs/tasks, or maps {task: piqa, weight: 2, limit: 1000}" }, \
    { "num_epochs", MX_INT, offsetof(s, m.num_epochs), MX_RESULT, "1", 1, 1e6, NULL, NULL, NULL, \
      "passes over the questions, each in an order of its own" }, \
    { "max_steps", MX_INT, offsetof(s, m.max_steps), MX_RESULT, "0", 0, 1e12, NULL, NULL, NULL, \
      "stop after so many optimizer steps; 0: at the end of the last epoch" }, \
    { "batch_size", MX_INT, offsetof(s, m.batch_size), MX_RESULT, "16", 1, 1e6, NULL, NULL, NULL, \
      "questions per optimizer step, however many choices each has" }, \
    { "micro_batch_tokens", MX_INT, offsetof(s, m.micro_batch_tokens), MX_RESULT, "2048", 16, 1e7, NULL, NULL, NULL, \
      "tokens computed at once, packed without padding; router losses are per micro-batch" }, \
    { "sequence_len", MX_INT, offsetof(s, m.sequence_len), MX_RESULT, "512", 8, 1e7, NULL, NULL, NULL, \
      "longest sequence in tokens; longer prompts are truncated, counted and shown" }, \
    { "prompt", MX_ENUM, offsetof(s, m.prompt), MX_RESULT, "loglikelihood", 0, 0, mx_prompt_form_names, NULL, NULL, \
      "the form trained on: reference (labelled letters) or loglikelihood (the answers' text)" }, \
    { "objective", MX_ENUM, offsetof(s, m.objective), MX_RESULT, "choice", 0, 0, mx_objective_names, NULL, NULL, \
      "choice: cross entropy over a question's choices, each scored by its mean log-likelihood per token; language_model: over tokens" }, \
    { "loss_on", MX_ENUM, offsetof(s, m.loss_on), MX_RESULT, "answer", 0, 0, mx_loss_on_names, NULL, "objective: language_model", \
      "which tokens bear loss: the answer's, or all but the first" }, \
    { "add_eos", MX_BOOL, offsetof(s, m.add_eos), MX_RESULT, "false", 0, 0, NULL, NULL, NULL, \
      "close each answer with the end-of-sequence token, and train on it" }
#define MX_STREAM_SYNONYMS \
    { "datasets", "tasks" }, { "num_train_epochs", "num_epochs" }, { "epochs", "num_epochs" }, \
    { "train_steps", "max_steps" }, { "per_device_train_batch_size", "batch_size" }, { "train_batch_size", "batch_size" }, \
    { "global_batch_size", "batch_size" }, { "micro_batch_size", "micro_batch_tokens" }, { "cutoff_len", "sequence_len" }, \
    { "max_seq_length", "sequence_len" }, { "max_length", "sequence_len" }, { "max_seq_len", "sequence_len" }, \
    { "train_on_inputs", "loss_on" }, { "train_on_prompt", "loss_on" }, { "completion_only_loss", "loss_on" }
/* clang-format on */

#endif
