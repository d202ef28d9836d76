/* task_check.c - what in a task's YAML must fit together, and its texts made ready. */
#include "datasets/task_check.h"

#include <string.h>

/* Where the i-th item of a list stands. */
static mx_mark item_place(const mx_node *list, size_t i)
{
    const mx_node *n = list ? list->child : NULL;

    while (n && i--) {
        n = n->next;
    }
    return n ? n->at : list ? list->at : MX_NOWHERE;
}

static const mx_node *item_node(const mx_node *list, size_t i)
{
    const mx_node *n = list ? list->child : NULL;

    while (n && i--) {
        n = n->next;
    }
    return n;
}

/* A word of an item, or the item itself when it is a bare text. */
static mx_mark item_word_place(const mx_node *list, size_t i, const char *word)
{
    const mx_node *n = item_node(list, i);

    return n && n->kind == MX_NODE_MAP ? mx_option_place(n, word) : item_place(list, i);
}

static bool plain_name(const char *s)
{
    return *s && *s != '.' && !strchr(s, '/') && strlen(s) < 200;
}

static void check_files(mx_task *t, const mx_node *root, mx_problems *problems)
{
    const mx_node *list = mx_node_find(root, "files");
    mx_task_file *file = t->files.item;

    for (size_t i = 0; i < t->files.count; i++) {
        if (!plain_name(file[i].name)) {
            mx_problem(problems, item_word_place(list, i, "name"), NULL, "'%s' is not a plain file name", file[i].name);
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(file[i].name, file[k].name) == 0) {
                mx_problem(problems, item_word_place(list, i, "name"), NULL, "file '%s' was already listed", file[i].name);
            }
        }
        for (size_t k = 0; k < file[i].urls.count; k++) {
            const char *url = file[i].urls.item[k];

            if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0) {
                mx_problem(problems, file[i].urls.at[k], NULL, "'%s' is not an http or https URL", url);
            }
        }
        if (strcmp(file[i].sha256, "not known") == 0) {
            file[i].sha256 = NULL;
        } else if (strlen(file[i].sha256) != 64 || strspn(file[i].sha256, "0123456789abcdef") != 64) {
            mx_problem(problems, item_word_place(list, i, "sha256"), NULL,
                       "sha256 must be 64 lower-case hex digits, or: not known");
        }
    }
}

static void check_splits(const mx_task *t, const mx_node *root, mx_problems *problems)
{
    const mx_node *map = mx_node_find(root, "splits");
    bool any = false;

    for (int s = MX_SPLIT_TRAIN; s <= MX_SPLIT_TEST; s++) {
        const mx_node *node = mx_node_find(map, mx_split_names[s]);
        const mx_task_split *split = s == MX_SPLIT_TRAIN        ? &t->splits.train
                                     : s == MX_SPLIT_VALIDATION ? &t->splits.validation
                                                                : &t->splits.test;

        if (!node) {
            continue;
        }
        any = true;
        if (!split->file) {
            mx_problem(problems, node->at, NULL, "split '%s' needs a 'file'", mx_split_names[s]);
        } else if (!mx_task_find_file(t, split->file)) {
            mx_problem(problems, mx_option_place(node, "file"), NULL, "'%s' is not among the task's files", split->file);
        }
        if (split->labels && !mx_task_find_file(t, split->labels)) {
            mx_problem(problems, mx_option_place(node, "labels"), NULL, "'%s' is not among the task's files", split->labels);
        }
        if (split->file && !split->labels && !t->answer.at) {
            mx_problem(problems, node->at, NULL, "split '%s' has no labels file, and 'answer' names no member",
                       mx_split_names[s]);
        }
    }
    if (!any) {
        mx_problem(problems, map ? map->at : root->at, NULL, "a task needs a split: train, validation or test");
    }
}

static int find_text(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static void check_fields(mx_task *t, const mx_node *root, const char **names, mx_arena *arena, mx_problems *problems)
{
    const mx_node *list = mx_node_find(root, "fields");
    mx_task_field *field = t->fields.item;

    if (t->fields.count > MX_TASK_FIELDS_MAX) {
        mx_problem(problems, list->at, NULL, "%zu fields; at most %d are possible", t->fields.count, MX_TASK_FIELDS_MAX);
    }
    for (size_t i = 0; i < t->fields.count; i++) {
        mx_mark at = item_word_place(list, i, "text");
        const char **known, **used;
        size_t used_count;

        names[i] = field[i].name;
        if (find_text(field[i].name, names, i) >= 0 ||
            find_text(field[i].name, (const char *const[]){ "choices", "text", "label" }, 3) >= 0) {
            mx_problem(problems, item_word_place(list, i, "name"), NULL, "the name '%s' is already taken", field[i].name);
        }
        if (!field[i].text) {
            field[i].text = mx_arena_text(arena, "{%s}", field[i].name);
        }
        used = mx_prompt_names(field[i].text, arena, &used_count);
        known = MX_TAKE(arena, const char *, i + used_count + 1);
        memcpy(known, names, i * sizeof *known);
        field[i].member = known + i;
        for (size_t k = 0; k < used_count; k++) {
            if (find_text(used[k], known, i + field[i].members) < 0) {
                field[i].member[field[i].members++] = used[k];
            }
        }
        mx_prompt_compile(field[i].text, at, known, i + field[i].members, arena, &field[i].compiled, problems);
    }
}

static void check_choices(mx_task *t, const mx_node *root, const char *const *names, mx_arena *arena,
                          mx_problems *problems)
{
    typeof(t->choices) *c = &t->choices;
    const mx_node *map = mx_node_find(root, "choices");
    mx_mark at = map ? map->at : root->at;

    if (!c->from == !c->texts.count) {
        mx_problem(problems, at, NULL, "choices need either 'from', a list in the record, or 'texts', written out");
    }
    if (c->texts.count && (c->text || c->label)) {
        mx_problem(problems, at, NULL, "'text' and 'label' are members of the items of 'from'; with 'texts' there are none");
    }
    if (c->texts.count && c->texts.count != c->labels.count) {
        mx_problem(problems, mx_option_place(map, "labels"), NULL, "%zu texts, but %zu labels", c->texts.count,
                   c->labels.count);
    }
    if (c->from && !c->label == !c->labels.count) {
        mx_problem(problems, at, NULL, "choices need either 'label', a member of each item, or 'labels', in order");
    }
    if (t->answer.keys.count && c->labels.count != t->answer.keys.count) {
        mx_problem(problems, mx_option_place(mx_node_find(root, "answer"), "keys"), NULL,
                   "%zu keys, but choices have %zu labels", t->answer.keys.count, c->labels.count);
    }
    c->compiled = MX_TAKE(arena, mx_prompt_text, c->texts.count + 1);
    for (size_t i = 0; i < c->texts.count; i++) {
        mx_prompt_compile(c->texts.item[i], c->texts.at[i], names, t->fields.count, arena, &c->compiled[i], problems);
    }
}

/* names has room for three more than the fields. */
static void check_prompt(mx_task_prompt *p, const mx_node *map, const char **names, size_t fields, mx_arena *arena,
                         mx_problems *problems)
{
    const int choices = (int)fields, text = choices + 1, label = choices + 2;

    if (!map) {
        return;
    }
    if (!p->context) {
        mx_problem(problems, map->at, NULL, "a prompt needs a 'context'");
        return;
    }
    p->given = true;
    mx_prompt_compile(p->context, mx_option_place(map, "context"), names, fields + 3, arena, &p->context_text, problems);
    mx_prompt_compile(p->choice ? p->choice : "", mx_option_place(map, "choice"), names, fields + 3, arena, &p->choice_text,
                      problems);
    mx_prompt_compile(p->continuation, mx_option_place(map, "continuation"), names, fields + 3, arena,
                      &p->continuation_text, problems);
    if (mx_prompt_uses(&p->context_text, choices) != (p->choice != NULL)) {
        mx_problem(problems, map->at, NULL, p->choice ? "'choice' is for {choices}, which the context does not have"
                                                      : "the context has {choices}, so 'choice' must say how each is written");
    }
    if (mx_prompt_uses(&p->choice_text, choices) || mx_prompt_uses(&p->continuation_text, choices)) {
        mx_problem(problems, map->at, NULL, "{choices} can stand in the context only");
    }
    p->shared = !mx_prompt_uses(&p->context_text, text) && !mx_prompt_uses(&p->context_text, label);
}

static void check_prompts(mx_task *t, const mx_node *root, const char **names, mx_arena *arena, mx_problems *problems)
{
    const mx_node *map = mx_node_find(root, "prompts"), *reference = mx_node_find(map, "reference");
    const mx_node *at = mx_node_find(root, "protocols") ? mx_node_find(root, "protocols") : root;
    size_t fields = t->fields.count;

    names[fields] = "choices";
    names[fields + 1] = "text";
    names[fields + 2] = "label";
    check_prompt(&t->prompts.reference, reference, names, fields, arena, problems);
    check_prompt(&t->prompts.loglikelihood, mx_node_find(map, "loglikelihood"), names, fields, arena, problems);
    if (t->prompts.loglikelihood.candidates.count) {
        mx_problem(problems, mx_option_place(mx_node_find(map, "loglikelihood"), "candidates"), NULL,
                   "candidates belong to the reference form");
    }
    if (t->protocols == 0) {
        mx_problem(problems, at->at, NULL, "a task needs a protocol: label_logits or loglikelihood");
    }
    if ((t->protocols >> MX_PROTOCOL_LABEL_LOGITS & 1) && !t->prompts.reference.given) {
        mx_problem(problems, at->at, NULL, "protocol label_logits needs prompts.reference");
    }
    if ((t->protocols >> MX_PROTOCOL_LOGLIKELIHOOD & 1) && !t->prompts.loglikelihood.given) {
        mx_problem(problems, at->at, NULL, "protocol loglikelihood needs prompts.loglikelihood");
    }
    if (t->prompts.reference.given && t->prompts.reference.candidates.count < 2) {
        mx_problem(problems, mx_option_place(reference, "candidates"), NULL, "the reference form needs two candidates or more");
    }
    for (size_t i = 0; i < t->choices.labels.count && t->prompts.reference.candidates.count >= 2; i++) {
        if (find_text(t->choices.labels.item[i], t->prompts.reference.candidates.item,
                      t->prompts.reference.candidates.count) < 0) {
            mx_problem(problems, t->choices.labels.at[i], NULL, "label '%s' is not among prompts.reference.candidates",
                       t->choices.labels.item[i]);
        }
    }
}

void mx_task_check(mx_task *t, const mx_node *root, const char *name, mx_arena *arena, mx_problems *problems)
{
    const char **names = MX_TAKE(arena, const char *, t->fields.count + 3);

    if (name && strcmp(name, t->name) != 0) {
        mx_problem(problems, mx_option_place(root, "name"), NULL, "the task is called '%s', its file '%s.yaml'", t->name, name);
    } else if (!plain_name(t->name)) {
        mx_problem(problems, mx_option_place(root, "name"), NULL, "'%s' cannot name a folder", t->name);
    }
    check_files(t, root, problems);
    check_splits(t, root, problems);
    check_fields(t, root, names, arena, problems);
    check_choices(t, root, names, arena, problems);
    check_prompts(t, root, names, arena, problems);
}
