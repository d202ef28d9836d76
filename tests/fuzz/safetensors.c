/* safetensors.c - any bytes as a safetensors file: what opens covers its bytes exactly, tensor after tensor, and each
 * is found again by its name. */
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *at = NULL;
    mx_safetensors *s;
    mx_status st = { 0 };

    if (mx_safetensors_parse(data, size, "fuzz", &s, &st)) {
        check(s == NULL && st.code == MX_E_DATA && st.text[0] != '\0');
        return 0;
    }
    for (size_t i = 0; i < mx_safetensors_count(s); i++) {
        const mx_safetensor *t = mx_safetensors_at(s, i);
        const uint8_t *bytes = t->bytes;
        size_t values = 1;

        check((!at || bytes == at) && bytes >= data && t->size <= size && bytes + t->size <= data + size);
        check(mx_safetensors_find(s, t->name) == t && t->rank <= MX_SAFETENSORS_DIMS);
        at = bytes + t->size;
        for (int d = 0; d < t->rank; d++) {
            values *= (size_t)t->dim[d];
        }
        check(values ? t->size % values == 0 : t->size == 0);
        if (t->type != MX_FILE_TYPES && values) {
            float last;

            mx_file_type_decode(t->type, at - t->size / values, 1, &last);
        }
    }
    check(!at || at == data + size);
    check(!mx_safetensors_metadata(s, "format") || strlen(mx_safetensors_metadata(s, "format")) <= size);
    mx_safetensors_close(s);
    return 0;
}
