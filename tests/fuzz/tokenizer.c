/* tokenizer.c - any bytes as a tokenizer: GGUF by its magic, tokenizer.json when they begin with a brace, else
 * tokenizer.model. What opens must encode any text and decode its own ids, and say the same thing twice. */
#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static mx_code open_any(const uint8_t *data, size_t size, mx_tokenizer **ret, mx_status *st) {
    const mx_mark at = { .file = "fuzz" };
    const mx_tokenizer_config config = { .at = at };
    mx_code code;

    *ret = NULL;
    if (size >= 4 && memcmp(data, "GGUF", 4) == 0) {
        mx_gguf *file;

        MX_TRY(mx_gguf_parse(data, size, "fuzz", &file, st));
        code = mx_tokenizer_open_gguf(file, ret, st);
        mx_gguf_close(file);
    } else if (size && data[0] == '{') {
        json_t *root;

        MX_TRY(mx_json_parse((const char *)data, size, "fuzz", 1, &root, st));
        code = mx_tokenizer_parse_json(root, &config, at, ret, st);
        json_decref(root);
    } else {
        code = mx_tokenizer_parse_sentencepiece(data, size, &config, at, ret, st);
    }
    return code;
}

static void check(bool holds) {
    if (!holds) {
        abort();
    }
}

static void use(const mx_tokenizer *t, const char *text, size_t length, unsigned flags) {
    mx_tokens once = { 0 }, twice = { 0 };
    mx_status st = { 0 };
    mx_text back;

    mx_text_init(&back, (size_t)1 << 28);
    if (mx_tokenizer_encode(t, text, length, flags, &once, &st) == MX_OK) {
        check(mx_tokenizer_encode(t, text, length, flags, &twice, &st) == MX_OK && once.count == twice.count);
        for (size_t i = 0; i < once.count; i++) {
            check(once.id[i] >= 0 && once.id[i] < mx_tokenizer_size(t) && once.id[i] == twice.id[i]);
        }
        check(mx_tokenizer_decode(t, once.id, once.count, flags, &back, &st) == MX_OK);
    }
    mx_tokens_finish(&once);
    mx_tokens_finish(&twice);
    mx_text_finish(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] =
        "Hello  w\xC3\xB6rld, it's 1234 <s>ab</s>\n\n\xE2\x96\x81 \xF0\x9F\xA6\x99 \xFF\x00 e\xCC\x81\xE1\xA0\x8E";
    mx_status st = { 0 };
    mx_tokenizer *t;

    if (open_any(data, size, &t, &st)) {
        check(t == NULL && st.text[0] != '\0');
        return 0;
    }
    use(t, text, sizeof text - 1, MX_TOKENIZER_RULES | MX_TOKENIZER_SPECIAL);
    use(t, (const char *)data, size < 4096 ? size : 4096, 0);
    for (int32_t id = 0; id < mx_tokenizer_size(t); id++) {
        size_t length;
        const char *token = mx_tokenizer_token(t, id, &length);

        check(strlen(token) <= length && (!length || mx_tokenizer_find(t, token, length) == id));
    }
    mx_tokenizer_close(t);
    return 0;
}
