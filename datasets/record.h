/* record.h - one JSON record to one question. Internal to the room. */
#ifndef DATASETS_RECORD_H
#define DATASETS_RECORD_H

#include "base/json.h"
#include "datasets/question.h"

#define MX_FIELD_BYTES_MAX ((size_t)256 << 20) /* a prompt may quote a line (1 MiB at most) many times over */

/* Id, fields and choices; gold stays as it is. Texts are copied into the arena.
 * `file` names the file in errors; q->line the line. */
MX_MUST_CHECK mx_code mx_record_read(const mx_task *task, const json_t *record, const char *file, mx_arena *arena,
                                     mx_question *q, mx_status *st);
/* The right choice from the record's own member. */
MX_MUST_CHECK mx_code mx_record_answer(const mx_task *task, const json_t *record, const char *file, mx_arena *arena,
                                       mx_question *q, mx_status *st);
/* From the word a record or a side file gives; `called` is what errors call it ("answerKey", "label"). */
MX_MUST_CHECK mx_code mx_record_match(const mx_task *task, const char *key, const char *called, mx_mark at, mx_question *q,
                                      mx_status *st);

#endif
