/* question.c - a split's files become questions: read, held out, limited; and a question becomes text. */
#include "datasets/question.h"

#include "datasets/jsonl.h"
#include "datasets/record.h"

#include <stdlib.h>
#include <string.h>

static mx_data_file describe(const mx_task *task, const char *name, const mx_jsonl *j)
{
    const mx_task_file *official = mx_task_find_file(task, name);
    mx_data_file file = { .name = name, .path = j->name, .bytes = (int64_t)j->size };

    memcpy(file.sha256, j->sha256, sizeof file.sha256);
    file.official = official && official->sha256 && strcmp(official->sha256, j->sha256) == 0;
    return file;
}

static size_t count_lines(const mx_jsonl *j)
{
    size_t n = 1;

    for (const char *s = j->data; (s = memchr(s, '\n', j->size - (size_t)(s - j->data))); s++) {
        n++;
    }
    return n;
}

/* The next right answer of a side file. */
static mx_code side_answer(const mx_task *task, mx_jsonl *side, const char *records, mx_question *q, mx_status *st)
{
    const char *line;
    size_t length;
    char key[64];

    if (!mx_jsonl_line(side, &line, &length)) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = side->name },
                       "%d labels, but %s has more records", q->number, records);
    }
    while (length && (line[length - 1] == '\r' || line[length - 1] == ' ')) {
        length--;
    }
    snprintf(key, sizeof key, "%.*s", (int)(length < 63 ? length : 63), line);
    return mx_record_match(task, key, "label", (mx_mark){ .file = side->name, .line = side->line }, q, st);
}

/* All records of the file, numbered in its order. */
static mx_code read_all(const mx_task *task, const mx_data_request *want, mx_jsonl *records, mx_jsonl *side,
                        mx_arena *arena, mx_questions *ret, mx_status *st)
{
    const char *line;
    size_t length, room = count_lines(records);
    mx_code code;

    if (room > (size_t)(INT32_MAX - want->first_running)) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = records->name }, "too many questions");
    }
    ret->item = MX_TAKE(arena, mx_question, room);
    for (;;) {
        mx_question *q = &ret->item[ret->count];
        json_t *record;

        MX_TRY(mx_jsonl_next(records, &record, st));
        if (!record) {
            break;
        }
        q->task_index = want->task_index;
        q->number = (int32_t)ret->count;
        q->running = want->first_running + q->number;
        q->line = records->line;
        code = mx_record_read(task, record, records->name, arena, q, st);
        if (!code) {
            code = side ? side_answer(task, side, records->name, q, st)
                        : mx_record_answer(task, record, records->name, arena, q, st);
        }
        json_decref(record);
        if (code) {
            return code;
        }
        ret->count++;
    }
    if (side && mx_jsonl_line(side, &line, &length)) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = side->name, .line = side->line },
                       "a label more than %s has records (%lld)", records->name, (long long)ret->count);
    }
    if (ret->count == 0) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = records->name }, "there is no question in it");
    }
    ret->in_file = ret->count;
    return MX_OK;
}

/* --- holding out --- */

typedef struct lot {
    char hash[MX_SHA256_TEXT];
    int32_t number;
} lot;

static int by_hash(const void *va, const void *vb)
{
    const lot *a = va, *b = vb;
    int order = strcmp(a->hash, b->hash);

    return order ? order : a->number < b->number ? -1 : 1;
}

/* Keeps either the n questions with the smallest hash of (task, id) or all others, in the file's order. The hash knows
 * neither seed nor limit, so what is held out of a file never changes. */
static mx_code part_held_out(const mx_task *task, const mx_data_request *want, mx_questions *ret, mx_status *st)
{
    bool wanted = want->split == MX_SPLIT_HELD_OUT;
    lot *draw;
    bool *held;
    int64_t kept = 0;
    mx_code code = MX_OK;

    if (want->hold_out >= ret->count) {
        return mx_fail(st, MX_E_RECIPE, want->at, "hold_out is %lld, but task '%s' has only %lld training questions",
                       (long long)want->hold_out, task->name, (long long)ret->count);
    }
    draw = malloc((size_t)ret->count * sizeof *draw);
    held = calloc((size_t)ret->count, sizeof *held);
    if (!draw || !held) {
        code = mx_fail(st, MX_E_MEMORY, want->at, "no memory to hold out questions of '%s'", task->name);
        goto done;
    }
    for (int64_t i = 0; i < ret->count; i++) {
        mx_hasher *h = mx_hasher_open();

        mx_hasher_add(h, task->name, strlen(task->name));
        mx_hasher_add(h, ret->item[i].id, strlen(ret->item[i].id));
        mx_hasher_close(h, draw[i].hash);
        draw[i].number = (int32_t)i;
    }
    qsort(draw, (size_t)ret->count, sizeof *draw, by_hash);
    for (int64_t i = 0; i < want->hold_out; i++) {
        held[draw[i].number] = true;
    }
    for (int64_t i = 0; i < ret->count; i++) {
        if (held[i] == wanted) {
            ret->item[kept++] = ret->item[i];
        }
    }
    ret->count = kept;
done:
    free(draw);
    free(held);
    return code;
}

static int64_t count_majority(const mx_questions *q)
{
    int64_t hits[MX_CHOICES_MAX] = { 0 }, most = 0;

    for (int64_t i = 0; i < q->count; i++) {
        if (q->item[i].gold >= 0) {
            hits[q->item[i].gold]++;
        }
    }
    for (int i = 0; i < MX_CHOICES_MAX; i++) {
        most = hits[i] > most ? hits[i] : most;
    }
    return most;
}

static mx_code select_questions(const mx_task *task, const mx_data_request *want, mx_questions *ret, mx_status *st)
{
    if (want->split == MX_SPLIT_HELD_OUT && want->hold_out == 0) {
        return mx_fail(st, MX_E_RECIPE, want->at, "nothing is held out of task '%s': give it a hold_out in train.tasks",
                       task->name);
    }
    if (want->hold_out && (want->split == MX_SPLIT_TRAIN || want->split == MX_SPLIT_HELD_OUT)) {
        MX_TRY(part_held_out(task, want, ret, st));
    }
    if (want->limit && want->limit < ret->count) {
        ret->count = want->limit;
    }
    ret->majority = count_majority(ret);
    return MX_OK;
}

mx_code mx_questions_read(const mx_task *task, const mx_data_request *want, mx_arena *arena, mx_questions *ret,
                          mx_status *st)
{
    const mx_task_split *split = mx_task_split_of(task, want->split);
    const char *path, *labels = NULL;
    mx_jsonl records = { 0 }, side = { 0 };
    mx_code code;

    *ret = (mx_questions){ .task = task, .split = want->split };
    MX_TRY(mx_data_find(task, want, false, arena, &path, st));
    if (want->labels || (split && split->labels)) {
        if (want->path && !want->labels) {
            return mx_fail(st, MX_E_RECIPE, want->at,
                           "task '%s' keeps its answers in a side file: 'path' needs 'labels' beside it", task->name);
        }
        MX_TRY(mx_data_find(task, want, true, arena, &labels, st));
    } else if (!task->answer.at) {
        return mx_fail(st, MX_E_RECIPE, want->at, "task '%s' keeps its answers in a side file: give it 'labels'", task->name);
    }
    code = mx_jsonl_open(&records, path, st);
    if (!code && labels) {
        code = mx_jsonl_open(&side, labels, st);
    }
    if (code) {
        goto done;
    }
    ret->file[ret->files++] = describe(task, want->path ? want->path : split->file, &records);
    if (labels) {
        ret->file[ret->files++] = describe(task, want->labels ? want->labels : split->labels, &side);
    }
    code = read_all(task, want, &records, labels ? &side : NULL, arena, ret, st);
    if (!code) {
        code = select_questions(task, want, ret, st);
    }
done:
    mx_jsonl_close(&records);
    mx_jsonl_close(&side);
    return code;
}

/* --- as text --- */

static void fill(const mx_question *q, const mx_prompt_text *text, int32_t choice, const char *choices, mx_text *out)
{
    size_t fields = q->task->fields.count;
    const char *value[MX_TASK_FIELDS_MAX + 3];

    memcpy(value, q->field, fields * sizeof *value);
    value[fields] = choices;
    value[fields + 1] = q->choice[choice].text;
    value[fields + 2] = q->choice[choice].label;
    mx_prompt_fill(text, value, out);
}

void mx_question_context(const mx_question *q, mx_prompt_form form, int32_t choice, mx_text *out)
{
    const mx_task_prompt *p = mx_task_prompt_of(q->task, form);
    mx_text choices;

    mx_text_init(&choices, MX_FIELD_BYTES_MAX);
    for (int32_t i = 0; i < q->choices && p->choice; i++) {
        fill(q, &p->choice_text, i, "", &choices);
    }
    fill(q, &p->context_text, choice, choices.data ? choices.data : "", out);
    mx_text_finish(&choices);
}

void mx_question_continuation(const mx_question *q, mx_prompt_form form, int32_t choice, mx_text *out)
{
    fill(q, &mx_task_prompt_of(q->task, form)->continuation_text, choice, "", out);
}
