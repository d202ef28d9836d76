/* options.c - see options.h. */
#include "datasets/options.h"

const char *const mx_objective_names[] = { "choice", "language_model", NULL };
const char *const mx_loss_on_names[] = { "answer", "all", NULL };

/* clang-format off */
static const mx_option words[] = {
    { "task", MX_TEXT, offsetof(mx_task_item, task), MX_RESULT | MX_REQUIRED, NULL, 0, 0, NULL, NULL, NULL,
      "a file in configs/tasks, or a path to a task's YAML" },
    { "weight", MX_REAL, offsetof(mx_task_item, weight), MX_RESULT | MX_OPEN_MIN, "1", 0, 1000, NULL, NULL, NULL,
      "passes over this task in an epoch; 0.5 takes half of its questions, 2 each twice" },
    { "limit", MX_INT, offsetof(mx_task_item, limit), MX_RESULT, "0", 0, 1e12, NULL, NULL, NULL,
      "only the first so many questions; 0: all. The run is marked as limited" },
    { "hold_out", MX_INT, offsetof(mx_task_item, hold_out), MX_RESULT, "0", 0, 1e12, NULL, NULL, NULL,
      "training questions never trained on, chosen whatever the seed, and scored as split held_out" },
    { "path", MX_TEXT, offsetof(mx_task_item, path), 0, NULL, 0, 0, NULL, NULL, NULL,
      "another file than the official one" },
    { "labels", MX_TEXT, offsetof(mx_task_item, labels), 0, NULL, 0, 0, NULL, NULL, NULL,
      "another file of answers, where the task keeps them apart" },
    { 0 },
};
static const mx_synonym synonyms[] = { { "name", "task" }, { "type", "task" }, { "max_samples", "limit" }, { "val_set_size", "hold_out" }, { 0 } };
/* clang-format on */

const mx_option_table mx_task_item_table = {
    .name = "train.tasks", .option = words, .synonym = synonyms, .size = sizeof(mx_task_item), .bare = "task",
};
