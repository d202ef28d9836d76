/* json.h - jansson with our errors: strict (duplicate keys refused), with line and column.
 *
 * The tree is jansson's own json_t: use json_object_get and friends on it. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/status.h"

#include <jansson.h>

/* `name` is the file in the error's place; `first_line` the line the text begins at (JSONL).
 * MX_E_DATA with file:line:column. Free with json_decref. */
MX_MUST_CHECK mx_code mx_json_parse(const char *text, size_t size, const char *name, uint32_t first_line,
                                    json_t **ret, mx_status *st);
MX_MUST_CHECK mx_code mx_json_read(const char *path, size_t limit_bytes, json_t **ret, mx_status *st);

#endif
