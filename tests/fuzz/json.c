/* json.c - any bytes as JSON: a tree, or a place in the text. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mx_status st = { 0 };
    json_t *root;
    uint32_t lines = 1;

    for (size_t i = 0; i < size; i++) {
        lines += data[i] == '\n';
    }
    if (mx_json_parse((const char *)data, size, "x.json", 1, &root, &st)) {
        if (root || st.at.line < 1 || st.at.line > lines || st.at.column < 1 || st.at.column > size + 1) {
            abort();
        }
        return 0;
    }
    json_decref(root);
    return 0;
}
