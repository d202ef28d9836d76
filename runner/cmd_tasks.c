/* cmd_tasks.c - mixrun tasks: what train.tasks and eval.tasks may name, and whether the data is here. */
#include "datasets/question.h"
#include "runner/command.h"
#include "runner/verbs.h"

static const mx_flag flags[] = {
    { "data-dir", 0, "DIR", "look for data there first, as the recipe's data_dir" },
    { 0 },
};

static bool here(const mx_task *task, mx_split split, const char *data_dir, mx_arena *arena) {
    mx_data_request want = { .split = split, .data_dir = data_dir };
    mx_status quiet = { 0 };
    const char *path;

    return mx_data_find(task, &want, false, arena, &path, &quiet) == MX_OK;
}

static mx_code run(const mx_call *call, mx_status *st) {
    static const mx_split splits[] = { MX_SPLIT_TRAIN, MX_SPLIT_VALIDATION, MX_SPLIT_TEST };
    mx_texts names;

    MX_TRY(mx_task_names(call->arena, &names, st));
    for (size_t i = 0; i < names.count; i++) {
        mx_task *task;
        bool missing = false;

        MX_TRY(mx_task_read(names.item[i], MX_NOWHERE, call->arena, &task, call->problems, st));
        printf("%-14s %-38s", task->name, task->title ? task->title : "");
        for (size_t s = 0; s < sizeof splits / sizeof splits[0]; s++) {
            const mx_task_split *split = mx_task_split_of(task, splits[s]);

            if (split) {
                bool found = here(task, splits[s], mx_call_flag(call, "data-dir"), call->arena);

                printf("  %s %s%s", mx_split_names[splits[s]], split->questions ? mx_text_count(split->questions) : "?",
                       found ? "" : " (not here)");
                missing |= !found;
            }
        }
        printf("%s\n", missing ? "" : "  all here");
    }
    return MX_OK;
}

const mx_command mx_verb_tasks = {
    .name = "tasks",
    .usage = "tasks [--data-dir DIR]",
    .summary = "the tasks, their splits, and whether their data is here",
    .help = "Lists the files of configs/tasks with the official number of questions of each split. Data is looked for in\n"
            "--data-dir, $MIXRUN_DATA, the cache and datasets/sample; mixrun fetch TASK gets what is not here.",
    .flag = flags, .least = 0, .most = 0, .run = run,
};
