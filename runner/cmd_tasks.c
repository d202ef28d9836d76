/* cmd_tasks.c - mixrun tasks: what train.tasks and eval.tasks may name, and whether the data is here. */
#include "datasets/question.h"
#include "reports/table.h"
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

/* "2,251", "2,251 (not here)", "-" where the task has no such split. */
static void split_cell(mx_table *t, const mx_task *task, mx_split which, const mx_call *call) {
    const mx_task_split *split = mx_task_split_of(task, which);

    if (!split) {
        mx_table_cell(t, "-");
        return;
    }
    mx_table_cell(t, "%s%s", split->questions ? mx_text_count(split->questions) : "yes",
                  here(task, which, mx_call_flag(call, "data-dir"), call->arena) ? "" : " (not here)");
}

static mx_code run(const mx_call *call, mx_status *st) {
    mx_texts names;
    mx_table table;
    mx_text out;
    mx_code code = MX_OK;

    MX_TRY(mx_task_names(call->arena, &names, st));
    mx_table_init(&table, 5);
    table.right[1] = table.right[2] = table.right[3] = true;
    mx_table_cell(&table, "task");
    mx_table_cell(&table, "train");
    mx_table_cell(&table, "validation");
    mx_table_cell(&table, "test");
    mx_table_cell(&table, "what");
    for (size_t i = 0; i < names.count && code == MX_OK; i++) {
        mx_task *task;

        code = mx_task_read(names.item[i], MX_NOWHERE, call->arena, &task, call->problems, st);
        if (code == MX_OK) {
            mx_table_cell(&table, "%s", task->name);
            split_cell(&table, task, MX_SPLIT_TRAIN, call);
            split_cell(&table, task, MX_SPLIT_VALIDATION, call);
            split_cell(&table, task, MX_SPLIT_TEST, call);
            mx_table_cell(&table, "%s", task->title ? task->title : "");
        }
    }
    if (code == MX_OK) {
        mx_text_init(&out, 1 << 20);
        mx_table_print(&table, 1, &out);
        fputs(out.data, stdout);
        mx_text_finish(&out);
    }
    mx_table_finish(&table);
    return code;
}

const mx_command mx_verb_tasks = {
    .name = "tasks",
    .usage = "tasks [--data-dir DIR]",
    .summary = "the tasks, their splits, and whether their data is here",
    .help = "Lists the files of configs/tasks with the official number of questions of each split. Data is looked for in\n"
            "--data-dir, $MIXRUN_DATA, the cache and datasets/sample; mixrun fetch TASK gets what is not here.",
    .flag = flags, .least = 0, .most = 0, .run = run,
};
