/* json.c - jansson, strict, with the place of what is wrong. */
#include "base/json.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

/* jansson reports the byte after the token it stumbled over and quotes that token as "... near
 * 'x'". The mark points at the token's beginning. */
static mx_mark place(const char *text, size_t size, const char *name, uint32_t first_line,
                     const json_error_t *error) {
    size_t at = error->position > 0 ? (size_t)error->position : 0, start, length = 0, line = 0;
    const char *near = strstr(error->text, " near '");

    at = at < size ? at : size;
    if (near) {
        near += strlen(" near '");
        length = strlen(near) - (*near != '\0'); /* without the closing quote */
        length = length <= at && memcmp(text + at - length, near, length) == 0 ? length : 0;
    }
    at -= length;
    for (size_t i = 0; i < at; i++) {
        line += text[i] == '\n';
    }
    for (start = at; start > 0 && text[start - 1] != '\n';) {
        start--;
    }
    return (mx_mark){ .file = name,
                      .line = first_line + (uint32_t)line,
                      .column = (uint32_t)(at - start + 1),
                      .length = (uint32_t)length };
}

mx_code mx_json_parse(const char *text, size_t size, const char *name, uint32_t first_line,
                      json_t **ret, mx_status *st) {
    json_error_t error;

    *ret = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!*ret) {
        return mx_fail(st, MX_E_DATA, place(text, size, name, first_line, &error), "not JSON: %s",
                       error.text);
    }
    return MX_OK;
}

mx_code mx_json_read(const char *path, size_t limit_bytes, json_t **ret, mx_status *st) {
    char *text;
    size_t size;
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_file_read(path, limit_bytes, &text, &size, st));
    code = mx_json_parse(text, size, path, 1, ret, st);
    free(text);
    return code;
}
