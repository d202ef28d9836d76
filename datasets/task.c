/* task.c - the words of a task's YAML, and reading one. What goes with what is task_check.c's. */
#include "datasets/task.h"

#include "datasets/task_check.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *const mx_split_names[] = { "train", "validation", "test", "held_out", NULL };
const char *const mx_prompt_form_names[] = { "reference", "loglikelihood", NULL };
const char *const mx_protocol_names[] = { "label_logits", "loglikelihood", NULL };

/* --- the words --- */

static const mx_option file_words[] = {
    { "name", MX_TEXT, offsetof(mx_task_file, name), MX_REQUIRED, .help = "official file name" },
    { "urls", MX_TEXTS, offsetof(mx_task_file, urls), .help = "official places, tried in turn; http or https" },
    { "member", MX_TEXT, offsetof(mx_task_file, member),
      .help = "the file's name inside the zip at the URL (its last folders are enough); not given: the URL is the file" },
    { "sha256", MX_TEXT, offsetof(mx_task_file, sha256), .preset = "not known",
      .help = "of the unpacked bytes, 64 hex digits, or: not known" },
    { 0 },
};
static const mx_option_table file_table = { .name = "files", .option = file_words, .size = sizeof(mx_task_file) };

static const mx_option split_words[] = {
    { "file", MX_TEXT, offsetof(mx_task_split, file), .help = "one of `files`: the records, one JSON object a line" },
    { "labels", MX_TEXT, offsetof(mx_task_split, labels),
      .help = "one of `files`: the right answers, one a line, where the records do not say" },
    { "questions", MX_INT, offsetof(mx_task_split, questions), .preset = "0", .min = 0, .max = 1e9,
      .help = "how many the official file has; 0: not said" },
    { 0 },
};
static const mx_option_table split_table = { .name = "a split", .option = split_words, .size = sizeof(mx_task_split) };

#define SPLITS typeof(((mx_task *)0)->splits)
static const mx_option splits_words[] = {
    { "train", MX_TABLE, offsetof(SPLITS, train), .inner = &split_table, .help = "trained on" },
    { "validation", MX_TABLE, offsetof(SPLITS, validation), .inner = &split_table, .help = "for choosing" },
    { "test", MX_TABLE, offsetof(SPLITS, test), .inner = &split_table, .help = "for the last word" },
    { 0 },
};
static const mx_option_table splits_table = { .name = "splits", .option = splits_words, .size = sizeof(SPLITS) };

static const mx_option field_words[] = {
    { "name", MX_TEXT, offsetof(mx_task_field, name), MX_RESULT | MX_REQUIRED, .help = "what prompts call it" },
    { "text", MX_TEXT, offsetof(mx_task_field, text), MX_RESULT,
      .help = "\"{member}\", \"{outer.inner}: {other}\" over the record and earlier fields; default: the member of that name" },
    { "edit", MX_SET, offsetof(mx_task_field, edit), MX_RESULT, .choices = mx_edit_names,
      .help = "what the text goes through, always in the order of this list" },
    { 0 },
};
static const mx_option_table field_table = {
    .name = "fields", .option = field_words, .size = sizeof(mx_task_field), .bare = "name"
};

#define CHOICES typeof(((mx_task *)0)->choices)
static const mx_option choices_words[] = {
    { "from", MX_TEXT, offsetof(CHOICES, from), MX_RESULT, .help = "the record's member that lists the choices" },
    { "text", MX_TEXT, offsetof(CHOICES, text), MX_RESULT,
      .help = "member of each item that is its text; not given: an item is a text itself" },
    { "label", MX_TEXT, offsetof(CHOICES, label), MX_RESULT, .help = "member of each item that is its label" },
    { "texts", MX_TEXTS, offsetof(CHOICES, texts), MX_RESULT, .help = "instead of `from`: the choices over {fields}" },
    { "labels", MX_TEXTS, offsetof(CHOICES, labels), MX_RESULT, .help = "labels in order, where the items have none" },
    { "edit", MX_SET, offsetof(CHOICES, edit), MX_RESULT, .choices = mx_edit_names, .help = "as for fields, to each text" },
    { 0 },
};
static const mx_option_table choices_table = { .name = "choices", .option = choices_words, .size = sizeof(CHOICES) };

#define ANSWER typeof(((mx_task *)0)->answer)
static const mx_option answer_words[] = {
    { "at", MX_TEXT, offsetof(ANSWER, at), MX_RESULT,
      .help = "the record's member that names the right choice; a split's `labels` file goes before it" },
    { "keys", MX_TEXTS, offsetof(ANSWER, keys), MX_RESULT,
      .help = "what it says for the first choice, the second, ...; default: the choices' labels" },
    { 0 },
};
static const mx_option_table answer_table = { .name = "answer", .option = answer_words, .size = sizeof(ANSWER) };

#define PROMPT_WORDS(continuation_preset, candidates_help)                                                                 \
    { "context", MX_TEXT, offsetof(mx_task_prompt, context), MX_RESULT,                                                     \
      .help = "what is asked: {fields}, {choices}, and {text}, {label} of the choice asked about" },                         \
        { "choice", MX_TEXT, offsetof(mx_task_prompt, choice), MX_RESULT,                                                   \
          .help = "{choices} is this, once per choice: {label}, {text}, {fields}" },                                        \
        { "continuation", MX_TEXT, offsetof(mx_task_prompt, continuation), MX_RESULT, .preset = continuation_preset,        \
          .help = "what is learnt or scored after the context" },                                                          \
        { "candidates", MX_TEXTS, offsetof(mx_task_prompt, candidates), MX_RESULT, .help = candidates_help },               \
    {                                                                                                                      \
        0                                                                                                                  \
    }
static const mx_option reference_words[] = { PROMPT_WORDS(
    "\" {label}\"", "label_logits takes the arg-max among these labels, for every question (TASKS.md 4.2)") };
static const mx_option loglikelihood_words[] = { PROMPT_WORDS("\" {text}\"", "not used by this form") };
static const mx_option_table reference_table = {
    .name = "reference", .option = reference_words, .size = sizeof(mx_task_prompt)
};
static const mx_option_table loglikelihood_table = {
    .name = "loglikelihood", .option = loglikelihood_words, .size = sizeof(mx_task_prompt)
};

#define PROMPTS typeof(((mx_task *)0)->prompts)
static const mx_option prompts_words[] = {
    { "reference", MX_TABLE, offsetof(PROMPTS, reference), .inner = &reference_table,
      .help = "labelled choices, answered by a label (MoE-PEFT's form)" },
    { "loglikelihood", MX_TABLE, offsetof(PROMPTS, loglikelihood), .inner = &loglikelihood_table,
      .help = "answered by a choice's own text (lm-evaluation-harness's form)" },
    { 0 },
};
static const mx_option_table prompts_table = { .name = "prompts", .option = prompts_words, .size = sizeof(PROMPTS) };

static const mx_option task_words[] = {
    { "name", MX_TEXT, offsetof(mx_task, name), MX_RESULT | MX_REQUIRED, .help = "as recipes and folders call it" },
    { "title", MX_TEXT, offsetof(mx_task, title), .preset = "\"\"", .help = "for people" },
    { "licence", MX_TEXT, offsetof(mx_task, licence), .preset = "\"\"", .help = "of the data" },
    { "notes", MX_TEXT, offsetof(mx_task, notes), .preset = "\"\"", .help = "for people" },
    { "files", MX_LIST, offsetof(mx_task, files), .inner = &file_table, .help = "the official files" },
    { "splits", MX_TABLE, offsetof(mx_task, splits), .inner = &splits_table, .help = "which file is which split" },
    { "id", MX_TEXT, offsetof(mx_task, id), MX_RESULT, .help = "the record's member that names it; default: its line" },
    { "fields", MX_LIST, offsetof(mx_task, fields), MX_RESULT, .inner = &field_table, .help = "texts taken from a record" },
    { "choices", MX_TABLE, offsetof(mx_task, choices), .inner = &choices_table, .help = "what may be answered" },
    { "answer", MX_TABLE, offsetof(mx_task, answer), .inner = &answer_table, .help = "which choice is right" },
    { "prompts", MX_TABLE, offsetof(mx_task, prompts), .inner = &prompts_table, .help = "the forms it can be asked in" },
    { "protocols", MX_SET, offsetof(mx_task, protocols), .choices = mx_protocol_names,
      .preset = "[label_logits, loglikelihood]", .help = "how it can be scored" },
    { 0 },
};
static const mx_synonym task_synonyms[] = {
    { "license", "licence" }, { "prompt", "prompts" }, { "protocol", "protocols" }, { "sources", "files" },
    { "answers", "answer" },  { "split", "splits" },   { NULL, NULL },
};
const mx_option_table mx_task_table = {
    .name = "a task", .option = task_words, .synonym = task_synonyms, .size = sizeof(mx_task)
};

/* --- finding and reading --- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

mx_code mx_task_names(mx_arena *arena, mx_texts *ret, mx_status *st)
{
    const char *folder = mx_arena_text(arena, "%s/configs/tasks", mx_path_home(arena));
    DIR *dir = opendir(folder);
    struct dirent *entry;
    size_t room = 0;

    *ret = (mx_texts){ 0 };
    if (!dir) {
        return mx_fail(st, MX_E_MISSING, (mx_mark){ .file = folder }, "cannot list the tasks: %s", strerror(errno));
    }
    while ((entry = readdir(dir))) {
        size_t length = strlen(entry->d_name);

        if (length <= 5 || entry->d_name[0] == '.' || strcmp(entry->d_name + length - 5, ".yaml") != 0) {
            continue;
        }
        if (ret->count == room) {
            const char **more = MX_TAKE(arena, const char *, room = room ? 2 * room : 16);

            if (ret->count) {
                memcpy(more, ret->item, ret->count * sizeof *more);
            }
            ret->item = more;
        }
        ret->item[ret->count++] = mx_arena_copy(arena, entry->d_name, length - 5);
    }
    closedir(dir);
    if (ret->count) {
        qsort(ret->item, ret->count, sizeof *ret->item, by_name);
    }
    ret->at = MX_TAKE(arena, mx_mark, ret->count + 1);
    return MX_OK;
}

static bool is_path(const char *name)
{
    size_t length = strlen(name);

    return strchr(name, '/') || (length > 5 && strcmp(name + length - 5, ".yaml") == 0);
}

/* Its YAML's path, or NULL and a problem: unknown. */
static mx_code find(const char *name, mx_mark at, mx_arena *arena, const char **ret, mx_problems *problems, mx_status *st)
{
    mx_text known;
    mx_texts names;
    const char *near;

    *ret = is_path(name) ? name : mx_arena_text(arena, "%s/configs/tasks/%s.yaml", mx_path_home(arena), name);
    if (mx_file_exists(*ret)) {
        return MX_OK;
    }
    *ret = NULL;
    if (is_path(name)) {
        mx_problem(problems, at, NULL, "there is no task file '%s'", name);
        return MX_OK;
    }
    MX_TRY(mx_task_names(arena, &names, st));
    near = mx_text_nearest(name, names.item, names.count);
    mx_text_init(&known, 4096);
    for (size_t i = 0; i < names.count && known.length < 2000; i++) {
        mx_text_print(&known, "%s%s", i ? ", " : "", names.item[i]);
    }
    mx_problem(problems, at, near ? mx_arena_text(arena, "did you mean '%s'?", near) : NULL,
               "task '%s' is none of: %s", name, known.data);
    mx_text_finish(&known);
    return MX_OK;
}

/* The definition's hash: every word that may change a question. */
static void hash(mx_task *t)
{
    mx_text words;

    mx_text_init(&words, 1 << 20);
    mx_option_results(&mx_task_table, t, "task", &words);
    mx_sha256(words.data, words.length, t->sha256);
    mx_text_finish(&words);
}

mx_code mx_task_read(const char *name, mx_mark at, mx_arena *arena, mx_task **ret, mx_problems *problems, mx_status *st)
{
    size_t before = problems->count;
    const char *path;
    mx_node *root = NULL;
    mx_task *t;
    mx_code code;

    *ret = NULL;
    MX_TRY(find(name, at, arena, &path, problems, st));
    if (!path) {
        return mx_fail(st, MX_E_RECIPE, at, "task '%s' is not known", name);
    }
    code = mx_yaml_read(path, 0, arena, &root, problems, st);
    if (code) {
        return code;
    }
    t = MX_TAKE(arena, mx_task, 1);
    t->path = path;
    mx_option_bind(&mx_task_table, root, t, arena, problems, NULL);
    if (problems->count == before) {
        hash(t); /* before the check resolves defaults: only what the YAML says counts */
        mx_task_check(t, root, is_path(name) ? NULL : name, arena, problems);
    }
    if (problems->count > before) {
        return mx_fail(st, MX_E_RECIPE, (mx_mark){ .file = path }, "the task's YAML is wrong");
    }
    *ret = t;
    return MX_OK;
}

const mx_task_file *mx_task_find_file(const mx_task *t, const char *name)
{
    const mx_task_file *file = t->files.item;

    for (size_t i = 0; name && i < t->files.count; i++) {
        if (strcmp(file[i].name, name) == 0) {
            return &file[i];
        }
    }
    return NULL;
}

const mx_task_split *mx_task_split_of(const mx_task *t, mx_split split)
{
    const mx_task_split *s = split == MX_SPLIT_VALIDATION ? &t->splits.validation
                             : split == MX_SPLIT_TEST     ? &t->splits.test
                                                          : &t->splits.train;

    return s->file ? s : NULL;
}

const mx_task_prompt *mx_task_prompt_of(const mx_task *t, mx_prompt_form form)
{
    const mx_task_prompt *p = form == MX_PROMPT_REFERENCE ? &t->prompts.reference : &t->prompts.loglikelihood;

    return p->given ? p : NULL;
}
