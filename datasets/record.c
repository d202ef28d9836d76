/* record.c - one JSON record to one question: members to texts, choices, the right one. */
#include "datasets/record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static mx_mark line_of(const char *file, const mx_question *q)
{
    return (mx_mark){ .file = file, .line = q->line };
}

static const char *kind(const json_t *v)
{
    return json_is_object(v)   ? "an object"
           : json_is_array(v)  ? "a list"
           : json_is_null(v)   ? "null"
           : json_is_number(v) ? "a number"
           : json_is_string(v) ? "a text"
                               : "true or false";
}

/* The value at "outer.inner"; a number picks an item of a list. NULL: not there. */
static const json_t *member(const json_t *v, const char *path)
{
    while (v && *path) {
        size_t length = strcspn(path, ".");
        char name[256];

        if (length >= sizeof name) {
            return NULL;
        }
        memcpy(name, path, length);
        name[length] = '\0';
        v = json_is_array(v) && strspn(name, "0123456789") == length && length < 9 ? json_array_get(v, (size_t)atoi(name))
                                                                                   : json_object_get(v, name);
        path += length + (path[length] == '.');
    }
    return v;
}

/* A scalar as text, or NULL: strings, whole numbers, true and false. */
static const char *scalar(const json_t *v, mx_arena *arena)
{
    return json_is_string(v)    ? mx_arena_copy(arena, json_string_value(v), json_string_length(v))
           : json_is_integer(v) ? mx_arena_text(arena, "%lld", (long long)json_integer_value(v))
           : json_is_true(v)    ? "true"
           : json_is_false(v)   ? "false"
                                : NULL;
}

static mx_code member_text(const json_t *v, const char *path, mx_mark at, mx_arena *arena, const char **ret,
                           mx_status *st)
{
    const json_t *m = member(v, path);

    *ret = m ? scalar(m, arena) : NULL;
    if (!m) {
        return mx_fail(st, MX_E_DATA, at, "the record has no '%s'", path);
    }
    if (!*ret) {
        return mx_fail(st, MX_E_DATA, at, "'%s' is %s, not a text", path, kind(m));
    }
    return MX_OK;
}

/* An edit that fails is told as the record's and the field's. */
static mx_code edited(uint64_t edits, const char *text, const char *called, mx_mark at, mx_arena *arena, const char **ret,
                      mx_status *st)
{
    mx_status why = { 0 };
    mx_code code = mx_edit_apply(edits, text, arena, ret, &why);

    return code ? mx_fail(st, code, at, "%s: %s", called, why.text) : MX_OK;
}

static const char *filled(const mx_prompt_text *p, const char *const *value, mx_arena *arena)
{
    const char *ret;
    mx_text text;

    if (p->parts == 2 && p->part[0].length == 0 && p->part[1].length == 0) {
        return value[p->part[0].slot]; /* "{member}" is the member itself: the most frequent case by far */
    }
    mx_text_init(&text, MX_FIELD_BYTES_MAX);
    mx_prompt_fill(p, value, &text);
    ret = mx_arena_copy(arena, text.data ? text.data : "", text.length);
    mx_text_finish(&text);
    return ret;
}

static mx_code read_fields(const mx_task *task, const json_t *record, mx_mark at, mx_arena *arena, mx_question *q,
                           mx_status *st)
{
    const mx_task_field *field = task->fields.item;
    const char **value = MX_TAKE(arena, const char *, task->fields.count + 1);

    for (size_t i = 0; i < task->fields.count; i++) {
        const char **known = MX_TAKE(arena, const char *, i + field[i].members + 1);

        memcpy(known, value, i * sizeof *known);
        for (size_t m = 0; m < field[i].members; m++) {
            MX_TRY(member_text(record, field[i].member[m], at, arena, &known[i + m], st));
        }
        MX_TRY(edited(field[i].edit, filled(&field[i].compiled, known, arena), field[i].name, at, arena, &value[i], st));
    }
    q->field = value;
    return MX_OK;
}

static int32_t count_characters(const char *s)
{
    int32_t n = 0;

    for (; *s; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80;
    }
    return n;
}

/* Label and raw text of choice i of the record's own list. */
static mx_code listed_choice(const mx_task *task, const json_t *list, size_t i, mx_mark at, mx_arena *arena,
                             mx_choice *ret, mx_status *st)
{
    const json_t *item = json_array_get(list, i);

    if (task->choices.label) {
        MX_TRY(member_text(item, task->choices.label, at, arena, &ret->label, st));
    } else {
        ret->label = task->choices.labels.item[i];
    }
    if (task->choices.text) {
        return member_text(item, task->choices.text, at, arena, &ret->text, st);
    }
    ret->text = scalar(item, arena);
    return ret->text ? MX_OK
                     : mx_fail(st, MX_E_DATA, at, "choice %zu in '%s' is %s, not a text", i + 1, task->choices.from, kind(item));
}

/* Choice i written out in the task's YAML over the fields. */
static void written_choice(const mx_task *task, size_t i, mx_arena *arena, const mx_question *q, mx_choice *ret)
{
    ret->label = task->choices.labels.item[i];
    ret->text = filled(&task->choices.compiled[i], q->field, arena);
}

static mx_code read_choices(const mx_task *task, const json_t *record, mx_mark at, mx_arena *arena, mx_question *q,
                            mx_status *st)
{
    const json_t *list = task->choices.from ? member(record, task->choices.from) : NULL;
    size_t count = task->choices.from ? json_array_size(list) : task->choices.texts.count;
    mx_choice *choice;

    if (task->choices.from && !json_is_array(list)) {
        return list ? mx_fail(st, MX_E_DATA, at, "'%s' is %s, not a list", task->choices.from, kind(list))
                    : mx_fail(st, MX_E_DATA, at, "the record has no '%s'", task->choices.from);
    }
    if (count < 2 || count > MX_CHOICES_MAX) {
        return mx_fail(st, MX_E_DATA, at, "%zu choices; a question has 2 to %d", count, MX_CHOICES_MAX);
    }
    if (!task->choices.label && count > task->choices.labels.count) {
        return mx_fail(st, MX_E_DATA, at, "%zu choices, but the task has labels for %zu", count, task->choices.labels.count);
    }
    choice = MX_TAKE(arena, mx_choice, count);
    for (size_t i = 0; i < count; i++) {
        if (list) {
            MX_TRY(listed_choice(task, list, i, at, arena, &choice[i], st));
        } else {
            written_choice(task, i, arena, q, &choice[i]);
        }
        MX_TRY(edited(task->choices.edit, choice[i].text, choice[i].label, at, arena, &choice[i].text, st));
        for (size_t k = 0; k < i; k++) {
            if (strcmp(choice[k].label, choice[i].label) == 0) {
                return mx_fail(st, MX_E_DATA, at, "two choices are labelled '%s'", choice[i].label);
            }
        }
        if (!*choice[i].text) {
            return mx_fail(st, MX_E_DATA, at, "choice '%s' has no text", choice[i].label);
        }
        choice[i].characters = count_characters(choice[i].text);
    }
    q->choice = choice;
    q->choices = (int32_t)count;
    return MX_OK;
}

mx_code mx_record_read(const mx_task *task, const json_t *record, const char *file, mx_arena *arena, mx_question *q,
                       mx_status *st)
{
    mx_mark at = line_of(file, q);

    q->task = task;
    q->gold = -1;
    if (task->id) {
        MX_TRY(member_text(record, task->id, at, arena, &q->id, st));
    } else {
        q->id = mx_arena_text(arena, "%u", q->line);
    }
    MX_TRY(read_fields(task, record, at, arena, q, st));
    return read_choices(task, record, at, arena, q, st);
}

mx_code mx_record_match(const mx_task *task, const char *key, const char *called, mx_mark at, mx_question *q, mx_status *st)
{
    const mx_texts *keys = &task->answer.keys;
    mx_text names;
    mx_code code;

    for (int32_t i = 0; i < q->choices; i++) {
        const char *here = keys->count ? keys->item[i] : q->choice[i].label;

        if (strcmp(key, here) == 0) {
            q->gold = i;
            return MX_OK;
        }
    }
    mx_text_init(&names, 1 << 16);
    for (int32_t i = 0; i < q->choices; i++) {
        mx_text_print(&names, "%s%.40s", i ? ", " : "", keys->count ? keys->item[i] : q->choice[i].label);
    }
    code = mx_fail(st, MX_E_DATA, at, "%s '%.40s' names none of the choices %s", called, key, names.data);
    mx_text_finish(&names);
    return code;
}

mx_code mx_record_answer(const mx_task *task, const json_t *record, const char *file, mx_arena *arena, mx_question *q,
                         mx_status *st)
{
    const char *key;

    MX_TRY(member_text(record, task->answer.at, line_of(file, q), arena, &key, st));
    return mx_record_match(task, key, task->answer.at, line_of(file, q), q, st);
}
