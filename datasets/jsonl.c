/* jsonl.c - one JSON object a line, plain or gzipped, each with its place. */
#include "datasets/jsonl.h"

#include <stdlib.h>
#include <string.h>

mx_code mx_jsonl_open(mx_jsonl *j, const char *path, mx_status *st)
{
    *j = (mx_jsonl){ .name = path };
    MX_TRY(mx_file_read(path, MX_DATA_FILE_MAX, &j->data, &j->size, st));
    mx_sha256(j->data, j->size, j->sha256);
    return MX_OK;
}

void mx_jsonl_over(mx_jsonl *j, const char *name, const char *data, size_t size)
{
    char *copy = malloc(size + 1);

    *j = (mx_jsonl){ .name = name };
    if (copy) {
        memcpy(copy, data, size);
        copy[size] = '\0';
        j->data = copy;
        j->size = size;
    }
    mx_sha256(data, size, j->sha256);
}

static bool blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
            return false;
        }
    }
    return true;
}

bool mx_jsonl_line(mx_jsonl *j, const char **ret_line, size_t *ret_length)
{
    while (j->next < j->size) {
        const char *line = j->data + j->next, *end = memchr(line, '\n', j->size - j->next);
        size_t length = end ? (size_t)(end - line) : j->size - j->next;

        j->next += length + (end != NULL);
        j->line++;
        if (!blank(line, length)) {
            *ret_line = line;
            *ret_length = length;
            return true;
        }
    }
    return false;
}

mx_code mx_jsonl_next(mx_jsonl *j, json_t **ret, mx_status *st)
{
    const char *line;
    size_t length;

    *ret = NULL;
    if (!mx_jsonl_line(j, &line, &length)) {
        return MX_OK;
    }
    if (length > MX_JSONL_LINE_MAX) {
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = j->name, .line = j->line },
                       "the line has %zu bytes: is this a JSONL file, one record a line?", length);
    }
    MX_TRY(mx_json_parse(line, length, j->name, j->line, ret, st));
    if (!json_is_object(*ret)) {
        json_decref(*ret);
        *ret = NULL;
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = j->name, .line = j->line, .column = 1 },
                       "a record must be a JSON object, {...}");
    }
    return MX_OK;
}

void mx_jsonl_close(mx_jsonl *j)
{
    free(j->data);
    *j = (mx_jsonl){ 0 };
}
