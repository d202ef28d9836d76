/* task.h - a task: one YAML in configs/tasks, fields -> prompt, choices, answer.
 *
 * The YAML says where the official files are, which of them is which split, how a record becomes named fields, choices
 * and the right one among them, and the prompt forms it can be asked in. It is read by option tables (strict, with
 * places); `mx_task_read` also compiles every text, so what it accepts can be rendered.
 *
 *   name: piqa                                  title, notes: for people
 *   files:    [{name, urls, member, sha256}]    official; sha256 of the unpacked file or "not known"
 *   splits:   train | validation | test: {file, labels, questions}
 *   id:       member that names the record; else its line number does
 *   fields:   [{name, text, edit}]              text: "{member}" or "{a.b}: {c}" over the record, default "{<name>}";
 *                                               earlier fields may be used and go before members
 *   choices:  from: a list in the record, with text and label the members of each item (text not given: items are texts)
 *             texts + labels: written out, over fields
 *             labels alone with from: the items' labels in order;  edit: as in fields
 *   answer:   at: member, or the line of the split's `labels` file; keys: what it says for choice 1, 2, ... (default: labels)
 *   prompts:  reference: {context, choice, continuation, candidates}     TASKS.md 4.1, 4.2
 *             loglikelihood: {context, choice, continuation}             TASKS.md 4.6
 *             names: every field, {choices} = `choice` once per choice, {text} and {label} of the choice asked about
 *   protocols: [label_logits, loglikelihood] */
#ifndef DATASETS_TASK_H
#define DATASETS_TASK_H

#include "base/file.h"
#include "base/option.h"
#include "datasets/prompt.h"

typedef enum mx_split { MX_SPLIT_TRAIN, MX_SPLIT_VALIDATION, MX_SPLIT_TEST, MX_SPLIT_HELD_OUT } mx_split;
extern const char *const mx_split_names[]; /* "train", "validation", "test", "held_out", NULL */

typedef enum mx_prompt_form { MX_PROMPT_REFERENCE, MX_PROMPT_LOGLIKELIHOOD, MX_PROMPT_FORMS } mx_prompt_form;
extern const char *const mx_prompt_form_names[]; /* as a recipe spells them, NULL-terminated */

typedef enum mx_protocol { MX_PROTOCOL_LABEL_LOGITS, MX_PROTOCOL_LOGLIKELIHOOD, MX_PROTOCOLS } mx_protocol;
extern const char *const mx_protocol_names[];

typedef struct mx_task_file {
    const char *name;   /* official */
    mx_texts urls;      /* tried in turn; empty: cannot be fetched */
    const char *member; /* inside the zip at the URL; NULL: the URL is the file (a .gz is unpacked) */
    const char *sha256; /* of the unpacked bytes; NULL: not known */
} mx_task_file;

typedef struct mx_task_split {
    const char *file, *labels; /* names in `files`; file NULL: the task has no such split; labels NULL: no side file */
    int64_t questions;         /* official count; 0: not said */
} mx_task_split;

enum { MX_TASK_FIELDS_MAX = 32 };
typedef struct mx_task_field {
    const char *name, *text;
    uint64_t edit;
    mx_prompt_text compiled;  /* slots: earlier fields, then `member` */
    const char **member;      /* paths looked up in the record */
    size_t members;
} mx_task_field;

typedef struct mx_task_prompt {
    const char *context, *choice, *continuation;
    mx_texts candidates; /* label_logits: the labels among which the arg-max is taken, for every question */
    mx_prompt_text context_text, choice_text, continuation_text;
    bool given;
    bool shared; /* no choice's own words stand in the context */
} mx_task_prompt;

typedef struct mx_task {
    const char *name, *title, *licence, *notes;
    mx_list files; /* of mx_task_file */
    struct {
        mx_task_split train, validation, test;
    } splits;
    const char *id;
    mx_list fields; /* of mx_task_field */
    struct {
        const char *from, *text, *label; /* paths; NULL: see above */
        mx_texts texts, labels;
        uint64_t edit;
        mx_prompt_text *compiled; /* of texts */
    } choices;
    struct {
        const char *at;
        mx_texts keys;
    } answer;
    struct {
        mx_task_prompt reference, loglikelihood;
    } prompts;
    uint64_t protocols; /* bit: mx_protocol */

    const char *path;            /* of its YAML */
    char sha256[MX_SHA256_TEXT]; /* of the definition: every word that may change a question, defaults included */
} mx_task;

/* The table, for `config schema` and the like. */
extern const mx_option_table mx_task_table;

/* `name` is a file in <home>/configs/tasks, or, with a '/' or ".yaml" in it, a path. What the YAML says wrong is added
 * to `problems`; so is an unknown name, at `at`, with the near one. MX_E_RECIPE when something was added. Lives in the arena. */
MX_MUST_CHECK mx_code mx_task_read(const char *name, mx_mark at, mx_arena *arena, mx_task **ret, mx_problems *problems,
                                   mx_status *st);
/* The names of the tasks that are shipped, sorted. */
MX_MUST_CHECK mx_code mx_task_names(mx_arena *arena, mx_texts *ret, mx_status *st);

const mx_task_file *mx_task_find_file(const mx_task *t, const char *name); /* NULL: none */
const mx_task_split *mx_task_split_of(const mx_task *t, mx_split split);   /* held_out is train's; NULL: has none */
const mx_task_prompt *mx_task_prompt_of(const mx_task *t, mx_prompt_form form); /* NULL: has none */

#endif
