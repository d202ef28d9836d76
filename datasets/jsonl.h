/* jsonl.h - one JSON object a line, plain or gzipped, each with its place.
 *
 * The file is read whole and hashed unpacked. Blank lines are allowed and count as lines. A line that is not
 * one JSON object is MX_E_DATA with file:line:column. */
#ifndef DATASETS_JSONL_H
#define DATASETS_JSONL_H

#include "base/file.h"
#include "base/json.h"

typedef struct mx_jsonl {
    const char *name; /* in errors; borrowed */
    char *data;       /* owned */
    size_t size, next;
    uint32_t line;               /* of the record last given */
    char sha256[MX_SHA256_TEXT]; /* of the unpacked bytes */
} mx_jsonl;

enum { MX_JSONL_LINE_MAX = 1 << 20 }; /* bytes; a question longer than that is a mistake */
#define MX_DATA_FILE_MAX ((size_t)2 << 30)

/* `path` must outlive the reader. */
MX_MUST_CHECK mx_code mx_jsonl_open(mx_jsonl *j, const char *path, mx_status *st);
/* Over a copy of bytes in memory: what the fuzzer and the tests read. */
void mx_jsonl_over(mx_jsonl *j, const char *name, const char *data, size_t size);
/* The next record (json_decref it), or *ret NULL at the end. */
MX_MUST_CHECK mx_code mx_jsonl_next(mx_jsonl *j, json_t **ret, mx_status *st);
/* The next line that is not blank, without its newline; false at the end. For side files of plain text. */
bool mx_jsonl_line(mx_jsonl *j, const char **ret_line, size_t *ret_length);
void mx_jsonl_close(mx_jsonl *j); /* zeroed is fine */

#endif
