/* gguf.c - any bytes as a GGUF file: what opens can be read to its last byte, found again by name, and asked for every
 * kind of key; a shape that is given is sane. */
#include "model/gguf.h"
#include "model/shape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) {
        abort();
    }
}

static void read_tensors(const mx_gguf *g, const uint8_t *data, size_t size) {
    const uint8_t *end = data;

    for (size_t i = 0; i < mx_gguf_tensor_count(g); i++) {
        const mx_gguf_tensor *t = mx_gguf_tensor_at(g, i);
        const uint8_t *bytes = t->bytes;
        int64_t columns = t->dim[t->rank - 1];
        float *row;

        check(bytes >= end && t->size > 0 && t->size <= size && bytes + t->size <= data + size);
        check(mx_gguf_find(g, t->name) == t);
        end = bytes + t->size;
        row = malloc(sizeof(float) * (size_t)columns); /* at most eight times the file: blocks hold their values */
        check(row != NULL);
        mx_file_type_decode(t->type, end - mx_file_type_row_bytes(t->type, columns), columns, row);
        free(row);
    }
}

/* Every accessor on every key of the seeds, of whatever kind it has become. */
static void read_metadata(const mx_gguf *g, const uint8_t *data, size_t size) {
    static const char *const KEYS[] = { "general.architecture", "general.alignment", "llama.block_count",
                                        "llama.rope.freq_base", "tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                                        "tokenizer.ggml.token_type", "tokenizer.ggml.add_bos_token", "nested" };
    mx_arena arena;

    mx_arena_init(&arena, (size_t)64 << 20);
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        const mx_gguf_text *texts = NULL;
        const double *numbers = NULL;
        const char *word = NULL;
        size_t count = 0;
        int64_t n;
        double x = 0;
        bool b, found = false;
        int kinds = 0;

        kinds += mx_gguf_integer(g, KEYS[i], &n, &found, NULL) == MX_OK;
        kinds += mx_gguf_boolean(g, KEYS[i], &b, NULL, NULL) == MX_OK;
        check(mx_gguf_real(g, KEYS[i], &x, NULL, NULL) != MX_OK || isfinite(x));
        if (mx_gguf_word(g, KEYS[i], &arena, &word, NULL, NULL) == MX_OK) {
            kinds++;
            check(!found || strlen(word) <= size);
        }
        if (mx_gguf_texts(g, KEYS[i], &arena, &texts, &count, NULL, NULL) == MX_OK) {
            kinds++;
            for (size_t t = 0; t < count && texts; t++) {
                const uint8_t *at = (const uint8_t *)texts[t].bytes;

                check(at >= data && texts[t].length <= size && at + texts[t].length <= data + size);
            }
        }
        kinds += mx_gguf_numbers(g, KEYS[i], &arena, &numbers, &count, NULL, NULL) == MX_OK;
        check(found ? kinds <= 1 : kinds == 5); /* a key is of one kind, an absent one of any */
    }
    mx_arena_finish(&arena);
}

static void read_shape(const mx_gguf *g) {
    float inverse[MX_HEAD_DIM_MAX / 2];
    mx_status st = { 0 };
    mx_shape s;

    if (mx_shape_from_gguf(g, &s, &st)) {
        check(st.text[0] != '\0');
        return;
    }
    check(s.hidden > 0 && s.layers > 0 && s.heads % s.kv_heads == 0 && s.head_dim % 2 == 0 && mx_shape_values(&s) > 0);
    mx_shape_rope_inverse(&s, inverse);
    for (int64_t j = 0; j < s.head_dim / 2; j++) {
        check(!isnan(inverse[j]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mx_status st = { 0 };
    mx_gguf *g;

    if (mx_gguf_parse(data, size, "fuzz", &g, &st)) {
        check(g == NULL && st.code == MX_E_DATA && st.text[0] != '\0');
        return 0;
    }
    read_tensors(g, data, size);
    read_metadata(g, data, size);
    read_shape(g);
    mx_gguf_close(g);
    return 0;
}
