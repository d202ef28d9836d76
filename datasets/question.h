/* question.h - records become questions: fields, choices, the right one, and each prompt form as text. */
#ifndef DATASETS_QUESTION_H
#define DATASETS_QUESTION_H

#include "datasets/task.h"

typedef struct mx_choice {
    const char *label, *text;
    int32_t characters; /* of text, in code points: acc_norm divides by it (TASKS.md 4.6) */
} mx_choice;

enum { MX_CHOICES_MAX = 64 }; /* per question; the largest task has 5 */

typedef struct mx_question {
    const mx_task *task;
    int32_t task_index; /* in the run's task list */
    int32_t number;     /* from 0, in its file */
    int32_t running;    /* unique in the run's training mix: names dropout masks */
    uint32_t line;      /* in the file */
    const char *id;
    const char *const *field; /* by the task's field number */
    const mx_choice *choice;
    int32_t choices, gold; /* gold -1: not known */
} mx_question;

/* A file that was read. */
typedef struct mx_data_file {
    const char *name, *path;     /* official name (or that of train.tasks[].path), where it lay */
    char sha256[MX_SHA256_TEXT]; /* of the unpacked bytes */
    int64_t bytes;               /* unpacked */
    bool official;               /* the hash is the one the task's YAML gives */
} mx_data_file;

typedef struct mx_questions {
    const mx_task *task;
    mx_split split;
    mx_question *item;
    int64_t count;
    int64_t in_file;      /* questions in the file, before hold_out and limit */
    mx_data_file file[2]; /* records; labels */
    int files;
    int64_t majority; /* how often the most frequent right choice (by position) is right: the majority baseline's hits */
} mx_questions;

/* What to read, and for whom. Zeroed is fine but for `split`. */
typedef struct mx_data_request {
    mx_split split;
    const char *data_dir;      /* the recipe's; NULL */
    const char *path, *labels; /* other files than the official ones; NULL */
    mx_mark at;                /* where the recipe names the task, for "needs ..., which is in none of" */
    int64_t hold_out;          /* this many training questions are never trained on: the ones with the smallest hash of
                                  (task, id), whatever the seed and the limit */
    int64_t limit;             /* the first so many of what remains; 0: all */
    int32_t task_index, first_running; /* running = first_running + number */
} mx_data_request;

/* Reads and checks a split. MX_E_MISSING says where it looked; MX_E_DATA has the record's file:line. Everything lives in
 * the arena. */
MX_MUST_CHECK mx_code mx_questions_read(const mx_task *task, const mx_data_request *want, mx_arena *arena,
                                        mx_questions *ret, mx_status *st);

/* The file of a split: `ret` its path, without reading it. Order: data_dir, $MIXRUN_DATA, the cache, the tree's
 * datasets/sample; in each <task>/<name>, then <task>/<name>.gz. A relative `path` is looked for as it stands, then
 * in the same places. */
MX_MUST_CHECK mx_code mx_data_find(const mx_task *task, const mx_data_request *want, bool labels, mx_arena *arena,
                                   const char **ret, mx_status *st);

/* The prompt as text. Which choice matters to the context only when it is not shared. */
void mx_question_context(const mx_question *q, mx_prompt_form form, int32_t choice, mx_text *out);
/* What is scored or learnt: " B", " the answer's text". */
void mx_question_continuation(const mx_question *q, mx_prompt_form form, int32_t choice, mx_text *out);

#endif
