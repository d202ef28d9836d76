/* task_check.h - what in a task's YAML must fit together; compiles its texts. Internal to the room. */
#ifndef DATASETS_TASK_CHECK_H
#define DATASETS_TASK_CHECK_H

#include "datasets/task.h"

/* `name`: what the file is called without .yaml, which the task must be called too; NULL: any name. */
void mx_task_check(mx_task *t, const mx_node *root, const char *name, mx_arena *arena, mx_problems *problems);

#endif
