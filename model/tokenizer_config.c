/* tokenizer_config.c - what Hugging Face keeps beside a tokenizer: its special tokens and whether they are added. */
#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

/* Integers are read as reals: transformers writes 10^30 for "no limit", which jansson's integers do not hold. */
static mx_code read_object(const char *path, json_t **ret, mx_status *st) {
    json_error_t error;
    char *text;
    size_t size;

    *ret = NULL;
    if (!mx_file_exists(path)) {
        return MX_OK;
    }
    MX_TRY(mx_file_read(path, (size_t)64 << 20, &text, &size, st));
    *ret = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    free(text);
    if (!*ret) {
        mx_mark at = { .file = path, .line = (uint32_t)error.line, .column = (uint32_t)error.column };

        return mx_fail(st, MX_E_DATA, at, "not JSON: %s", error.text);
    }
    if (!json_is_object(*ret)) {
        json_decref(*ret);
        *ret = NULL;
        return mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "this is not a JSON object");
    }
    return MX_OK;
}

mx_code mx_tokenizer_config_read(const char *folder, mx_arena *arena, mx_tokenizer_config *ret, mx_status *st) {
    const char *own = mx_arena_text(arena, "%s/tokenizer_config.json", folder);
    const char *model = mx_arena_text(arena, "%s/config.json", folder);
    mx_code code;

    *ret = (mx_tokenizer_config){ 0 };
    code = read_object(own, &ret->own, st);
    if (!code) {
        code = read_object(model, &ret->model, st);
    }
    if (code) {
        mx_tokenizer_config_finish(ret);
    }
    ret->at.file = ret->own ? own : model;
    return code;
}

void mx_tokenizer_config_finish(mx_tokenizer_config *c) {
    json_decref(c->own);
    json_decref(c->model);
    *c = (mx_tokenizer_config){ 0 };
}

static bool is_true(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

mx_code mx_tokenizer_config_added(const json_t *entry, int64_t id, mx_piece *piece, mx_mark at, mx_status *st) {
    const json_t *content = json_object_get(entry, "content");
    mx_piece added = { .lstrip = is_true(entry, "lstrip"),
                       .rstrip = is_true(entry, "rstrip"),
                       .normalized = is_true(entry, "normalized"),
                       .type = is_true(entry, "special") ? MX_TOKEN_CONTROL : MX_TOKEN_USER_DEFINED };

    if (!json_is_string(content) || json_string_length(content) == 0) {
        return mx_fail(st, MX_E_DATA, at, "the added token %lld has no content", (long long)id);
    }
    added.bytes = json_string_value(content);
    added.length = json_string_length(content);
    if (is_true(entry, "single_word")) {
        return mx_fail(st, MX_E_DATA, at, "the added token '%.100s' asks for single_word, which is not supported",
                       added.bytes);
    }
    if (piece[id].length &&
        (piece[id].length != added.length || memcmp(piece[id].bytes, added.bytes, added.length) != 0)) {
        return mx_fail(st, MX_E_DATA, at, "the added token '%.100s' has the id %lld, which is '%.*s' already",
                       added.bytes, (long long)id, (int)(piece[id].length < 100 ? piece[id].length : 100),
                       piece[id].bytes);
    }
    added.score = piece[id].score;
    piece[id] = added;
    return MX_OK;
}

/* "<s>", or {"content": "<s>", ...}; null and absent leave the id as it is. */
static mx_code named(const mx_tokenizer_config *c, const char *key, const mx_tokenizer *t, int32_t *id, mx_status *st) {
    const json_t *value = json_object_get(c->own, key);
    const char *word;

    value = json_is_object(value) ? json_object_get(value, "content") : value;
    word = json_string_value(value);
    if (!word || !*word) {
        return MX_OK;
    }
    *id = mx_vocab_find(&t->vocab, word, strlen(word));
    if (*id < 0) {
        return mx_fail(st, MX_E_DATA, c->at, "%s is '%.100s', which is no token of the vocabulary", key, word);
    }
    return MX_OK;
}

/* A number, or a list of which the first counts (LLaMA-3 names several ends of a turn). */
static mx_code numbered(const mx_tokenizer_config *c, const char *key, const mx_tokenizer *t, int32_t *ret,
                        mx_status *st) {
    const json_t *value = json_object_get(c->model, key);

    double id;

    value = json_is_array(value) ? json_array_get(value, 0) : value;
    if (*ret >= 0 || !json_is_number(value)) {
        return MX_OK;
    }
    id = json_number_value(value);
    if (!(id >= 0 && id < t->vocab.count) || id != (int32_t)id) {
        return mx_fail(st, MX_E_DATA, c->at, "%s is %g, but ids are whole numbers up to %d", key, id,
                       t->vocab.count - 1);
    }
    *ret = (int32_t)id;
    return MX_OK;
}

mx_code mx_tokenizer_config_ids(const mx_tokenizer_config *c, mx_tokenizer *t, mx_status *st) {
    MX_TRY(named(c, "bos_token", t, &t->rule.bos, st));
    MX_TRY(named(c, "eos_token", t, &t->rule.eos, st));
    MX_TRY(named(c, "unk_token", t, &t->rule.unk, st));
    MX_TRY(named(c, "pad_token", t, &t->rule.pad, st));
    MX_TRY(numbered(c, "bos_token_id", t, &t->rule.bos, st));
    MX_TRY(numbered(c, "eos_token_id", t, &t->rule.eos, st));
    return numbered(c, "pad_token_id", t, &t->rule.pad, st);
}

bool mx_tokenizer_config_is_llama(const mx_tokenizer_config *c) {
    const char *name = json_string_value(json_object_get(c->own, "tokenizer_class"));

    return !name || strncmp(name, "LlamaTokenizer", 14) == 0 || strncmp(name, "CodeLlamaTokenizer", 18) == 0;
}

void mx_tokenizer_config_adds(const mx_tokenizer_config *c, mx_tokenizer *t) {
    const json_t *bos = json_object_get(c->own, "add_bos_token"), *eos = json_object_get(c->own, "add_eos_token");

    t->rule.add_bos = json_is_boolean(bos) ? json_is_true(bos) : t->rule.add_bos;
    t->rule.add_eos = json_is_boolean(eos) ? json_is_true(eos) : t->rule.add_eos;
}
