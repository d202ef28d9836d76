/* options.c - see options.h. */
#include "eval/options.h"

#include "datasets/task.h"

static const char *const split_names[] = { "validation", "test", "held_out", NULL };

/* clang-format off */
static const mx_option words[] = {
    { "tasks", MX_TEXTS, offsetof(mx_eval_options, tasks), MX_RESULT, NULL, 0, 0, NULL, NULL, NULL,
      "what to score; default: the tasks trained on" },
    { "split", MX_ENUM, offsetof(mx_eval_options, split), MX_RESULT, "validation", 0, 0, split_names, NULL, NULL,
      "which questions are scored; what hold_out keeps back is scored besides, and with held_out it alone" },
    { "protocols", MX_SET, offsetof(mx_eval_options, protocols), MX_RESULT, "[loglikelihood]", 0, 0, mx_protocol_names, NULL, NULL,
      "loglikelihood (as lm-evaluation-harness: acc, acc_norm) and label_logits (as MoE-PEFT: acc)" },
    { "every_epochs", MX_INT, offsetof(mx_eval_options, every_epochs), 0, "1", 0, 1e6, NULL, NULL, NULL,
      "score after every so many epochs, and always at the end; 0: at the end only" },
    { "before_training", MX_BOOL, offsetof(mx_eval_options, before_training), 0, "true", 0, 0, NULL, NULL, NULL,
      "score the untrained model first" },
    { "limit", MX_INT, offsetof(mx_eval_options, limit), MX_RESULT, "0", 0, 1e12, NULL, NULL, NULL,
      "only the first so many questions of each task; 0: all. Such scores are marked as limited" },
    { "save_predictions", MX_BOOL, offsetof(mx_eval_options, save_predictions), 0, "true", 0, 0, NULL, NULL, NULL,
      "keep every question's choice scores in the database: paired comparisons need them" },
    { 0 },
};
static const mx_synonym synonyms[] = {
    { "metrics", "protocols" }, { "protocol", "protocols" }, { "eval_steps", "every_epochs" }, { "eval_every", "every_epochs" },
    { "max_samples", "limit" }, { "log_samples", "save_predictions" }, { 0 },
};
/* clang-format on */

const mx_option_table mx_eval_table = {
    .name = "eval", .option = words, .synonym = synonyms, .size = sizeof(mx_eval_options),
};
