/* tokenizer_json.c - Hugging Face's tokenizer.json: BPE, byte-level or in SentencePiece's manner.
 *
 * Each part (normalizer, pre_tokenizer, model, post_processor) is a tagged object. What is known is done exactly,
 * anything else is refused by the name the file gives it. Not read are `truncation` and `padding`, which
 * transformers resets at every call, and `decoder`, which only says again what the model is. */
#include "model/tokenizer_parts.h"

#include <string.h>

static const char space_sign[] = "\xE2\x96\x81"; /* U+2581 */

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static bool is_true(const json_t *object, const char *key) {
    return json_is_true(json_object_get(object, key));
}

static mx_code refuse(const char *part, const json_t *object, mx_mark at, mx_status *st) {
    return mx_fail(st, MX_E_DATA, at, "the %s '%.100s' is not supported", part, text_of(object, "type"));
}

static mx_code refuse_word(const char *part, const char *key, const char *value, mx_mark at, mx_status *st) {
    return mx_fail(st, MX_E_DATA, at, "the %s has %s: %.100s, which is not supported", part, key, value);
}

/* The vocabulary is read last, so a part only says what it found. */
typedef struct found {
    bool byte_level, nfc, prepend, replace, metaspace;
    mx_prefix prefix; /* of Metaspace */
} found;

/* --- normalizer --- */

static mx_code read_normalizer(const json_t *n, found *f, int depth, mx_mark at, mx_status *st) {
    const char *type = text_of(n, "type");

    if (!n || json_is_null(n)) {
        return MX_OK;
    }
    if (strcmp(type, "Sequence") == 0 && depth == 0) {
        const json_t *part;
        size_t i;

        json_array_foreach (json_object_get(n, "normalizers"), i, part) {
            MX_TRY(read_normalizer(part, f, 1, at, st));
        }
        return MX_OK;
    }
    if (strcmp(type, "NFC") == 0 && !f->prepend && !f->replace) {
        f->nfc = true;
    } else if (strcmp(type, "Prepend") == 0 && strcmp(text_of(n, "prepend"), space_sign) == 0 && !f->replace) {
        f->prepend = true;
    } else if (strcmp(type, "Replace") == 0 && strcmp(text_of(n, "content"), space_sign) == 0 &&
               strcmp(text_of(json_object_get(n, "pattern"), "String"), " ") == 0) {
        f->replace = true;
    } else {
        return refuse("normalizer", n, at, st);
    }
    return MX_OK;
}

/* --- pre_tokenizer --- */

static mx_code read_split(const json_t *p, mx_tokenizer *t, mx_mark at, mx_status *st) {
    const json_t *pattern = json_object_get(p, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *string = json_string_value(json_object_get(pattern, "String"));
    const char *behavior = text_of(p, "behavior");
    bool removed = strcmp(behavior, "Removed") == 0;

    if (!removed && strcmp(behavior, "Isolated") != 0) {
        return refuse_word("pre_tokenizer 'Split'", "behavior", behavior, at, st);
    }
    if (is_true(p, "invert")) {
        return refuse_word("pre_tokenizer 'Split'", "invert", "true", at, st);
    }
    if (!regex && !string) {
        return mx_fail(st, MX_E_DATA, at, "the pre_tokenizer 'Split' has neither a Regex nor a String as its pattern");
    }
    return mx_splitter_add(&t->splitter, &t->arena, regex ? regex : string, !regex, removed, at, st);
}

static mx_code read_metaspace(const json_t *p, found *f, mx_mark at, mx_status *st) {
    const char *scheme = text_of(p, "prepend_scheme");
    const json_t *split = json_object_get(p, "split");

    if (strcmp(text_of(p, "replacement"), space_sign) != 0) {
        return refuse_word("pre_tokenizer 'Metaspace'", "replacement", text_of(p, "replacement"), at, st);
    }
    if (!json_is_false(split)) {
        return refuse_word("pre_tokenizer 'Metaspace'", "split", split ? "true" : "(absent, so true)", at, st);
    }
    if (strcmp(scheme, "first") != 0 && strcmp(scheme, "never") != 0) {
        return refuse_word("pre_tokenizer 'Metaspace'", "prepend_scheme", *scheme ? scheme : "(absent)", at, st);
    }
    f->metaspace = true;
    f->prefix = strcmp(scheme, "first") == 0 ? MX_PREFIX_FIRST : MX_PREFIX_NEVER;
    return MX_OK;
}

static mx_code read_pre_tokenizer(const json_t *p, mx_tokenizer *t, found *f, int depth, mx_mark at, mx_status *st) {
    const char *type = text_of(p, "type");

    if (!p || json_is_null(p)) {
        return MX_OK;
    }
    if (f->byte_level) {
        return mx_fail(st, MX_E_DATA, at, "the pre_tokenizer has '%.100s' after 'ByteLevel', which is not supported",
                       type);
    }
    if (strcmp(type, "Sequence") == 0 && depth == 0) {
        const json_t *part;
        size_t i;

        json_array_foreach (json_object_get(p, "pretokenizers"), i, part) {
            MX_TRY(read_pre_tokenizer(part, t, f, 1, at, st));
        }
        return MX_OK;
    }
    if (strcmp(type, "Split") == 0) {
        return read_split(p, t, at, st);
    }
    if (strcmp(type, "Digits") == 0) { /* Rust's char::is_numeric: Nd, Nl, No */
        return mx_splitter_add(&t->splitter, &t->arena, is_true(p, "individual_digits") ? "\\p{N}" : "\\p{N}+", false,
                               false, at, st);
    }
    if (strcmp(type, "Metaspace") == 0 && depth == 0) {
        return read_metaspace(p, f, at, st);
    }
    if (strcmp(type, "ByteLevel") != 0) {
        return refuse("pre_tokenizer", p, at, st);
    }
    if (is_true(p, "add_prefix_space")) {
        return refuse_word("pre_tokenizer 'ByteLevel'", "add_prefix_space", "true", at, st);
    }
    f->byte_level = true;
    if (json_is_false(json_object_get(p, "use_regex"))) {
        return MX_OK;
    }
    return mx_splitter_add(&t->splitter, &t->arena, mx_split_gpt2, false, false, at, st);
}

/* --- model and added tokens --- */

static mx_code read_model_words(const json_t *model, mx_tokenizer *t, mx_mark at, mx_status *st) {
    static const char *const refused[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    const json_t *dropout = json_object_get(model, "dropout");

    if (strcmp(text_of(model, "type"), "BPE") != 0) {
        return refuse("tokenizer model", model, at, st);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (*text_of(model, refused[i])) {
            return refuse_word("model", refused[i], text_of(model, refused[i]), at, st);
        }
    }
    if (json_is_number(dropout) && json_number_value(dropout) != 0) {
        return mx_fail(st, MX_E_DATA, at, "the model asks for BPE dropout %g, which is not supported",
                       json_number_value(dropout));
    }
    t->ignore_merges = is_true(model, "ignore_merges");
    t->byte_fallback = is_true(model, "byte_fallback");
    t->fuse_unknown = is_true(model, "fuse_unk");
    return MX_OK;
}

static mx_code check_id(const json_t *id, const char *token, int64_t *ret, mx_mark at, mx_status *st) {
    *ret = json_integer_value(id);
    if (!json_is_integer(id) || *ret < 0 || *ret >= MX_TOKENS_MAX) {
        return mx_fail(st, MX_E_DATA, at, "the token '%.100s' has no id between 0 and %d", token, MX_TOKENS_MAX - 1);
    }
    return MX_OK;
}

static mx_code count_pieces(json_t *vocab, const json_t *added, size_t *ret, mx_mark at, mx_status *st) {
    const char *token;
    json_t *value;
    const json_t *entry;
    int64_t id;
    size_t i;

    *ret = 0;
    json_object_foreach (vocab, token, value) {
        MX_TRY(check_id(value, token, &id, at, st));
        *ret = (size_t)id >= *ret ? (size_t)id + 1 : *ret;
    }
    json_array_foreach (added, i, entry) {
        MX_TRY(check_id(json_object_get(entry, "id"), text_of(entry, "content"), &id, at, st));
        *ret = (size_t)id >= *ret ? (size_t)id + 1 : *ret;
    }
    return mx_tokenizer_check_gaps(*ret, json_object_size(vocab) + json_array_size(added), at, st);
}

static mx_code read_pieces(mx_tokenizer *t, json_t *root, json_t *vocab, mx_arena *arena, mx_mark at, mx_status *st) {
    const json_t *added = json_object_get(root, "added_tokens"), *entry;
    mx_piece *piece;
    size_t count, i;
    const char *token;
    json_t *value;

    MX_TRY(count_pieces(vocab, added, &count, at, st));
    piece = MX_TAKE(arena, mx_piece, count);
    json_object_foreach (vocab, token, value) {
        mx_piece *p = &piece[json_integer_value(value)];

        if (p->length) {
            return mx_fail(st, MX_E_DATA, at, "the tokens '%.100s' and '%.100s' both have the id %lld", p->bytes, token,
                           (long long)json_integer_value(value));
        }
        *p = (mx_piece){ .bytes = token, .length = strlen(token), .type = MX_TOKEN_NORMAL };
        if (t->byte_fallback && p->length == 6 && memcmp(token, "<0x", 3) == 0) {
            p->type = MX_TOKEN_BYTE;
        }
    }
    json_array_foreach (added, i, entry) {
        MX_TRY(mx_tokenizer_config_added(entry, json_integer_value(json_object_get(entry, "id")), piece, at, st));
        if (!t->normalize_nfc) { /* then there is one search, and the longest wins */
            piece[json_integer_value(json_object_get(entry, "id"))].normalized = false;
        }
    }
    return mx_tokenizer_set_pieces(t, piece, count, at, st);
}

/* "a b", or since tokenizers 0.20 ["a", "b"]. */
static mx_code read_merges(mx_tokenizer *t, const json_t *merges, mx_mark at, mx_status *st) {
    const json_t *merge;
    size_t i;

    if (!json_is_array(merges)) {
        return mx_fail(st, MX_E_DATA, at, "the model has no list of merges");
    }
    MX_TRY(mx_bpe_reserve_merges(t, json_array_size(merges), at, st));
    json_array_foreach (merges, i, merge) {
        const char *left, *right;
        size_t length;

        if (json_is_array(merge) && json_array_size(merge) == 2) {
            left = json_string_value(json_array_get(merge, 0));
            right = json_string_value(json_array_get(merge, 1));
            length = left ? strlen(left) : 0;
        } else {
            left = json_string_value(merge);
            right = left && *left ? strchr(left + 1, ' ') : NULL;
            length = right ? (size_t)(right - left) : 0;
            right = right ? right + 1 : NULL;
        }
        if (!left || !right) {
            return mx_fail(st, MX_E_DATA, at, "merge %zu is not two texts", i);
        }
        MX_TRY(mx_bpe_add_merge(t, left, length, right, strlen(right), at, st));
    }
    return MX_OK;
}

/* --- post_processor --- */

/* A template's special token, which must stand for one id. */
static mx_code template_id(const json_t *p, const json_t *special, const mx_tokenizer *t, int32_t *ret, mx_mark at,
                           mx_status *st) {
    const json_t *entry = json_object_get(json_object_get(p, "special_tokens"), text_of(special, "id"));
    const json_t *ids = json_object_get(entry, "ids"), *id = json_array_get(ids, 0);

    if (json_array_size(ids) != 1 || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= t->vocab.count) {
        return mx_fail(st, MX_E_DATA, at, "the template's token '%.100s' does not stand for one id of the vocabulary",
                       text_of(special, "id"));
    }
    *ret = (int32_t)json_integer_value(id);
    return MX_OK;
}

static mx_code read_template(const json_t *p, mx_tokenizer *t, mx_mark at, mx_status *st) {
    const json_t *single = json_object_get(p, "single"), *part;
    size_t i, texts = 0;

    json_array_foreach (single, i, part) {
        const json_t *special = json_object_get(part, "SpecialToken");
        bool *adds = texts ? &t->rule.add_eos : &t->rule.add_bos;

        if (!special && json_object_get(part, "Sequence")) {
            texts++;
        } else if (!special || *adds) {
            return mx_fail(st, MX_E_DATA, at,
                           "the post_processor's template has more than one token before or after "
                           "the text, which is not supported");
        } else {
            MX_TRY(template_id(p, special, t, texts ? &t->rule.eos : &t->rule.bos, at, st));
            *adds = true;
        }
    }
    if (texts != 1) {
        return mx_fail(st, MX_E_DATA, at, "the post_processor's template for a single text has %zu texts", texts);
    }
    return MX_OK;
}

static mx_code read_post_processor(const json_t *p, mx_tokenizer *t, int depth, mx_mark at, mx_status *st) {
    const char *type = text_of(p, "type");

    if (!p || json_is_null(p) || strcmp(type, "ByteLevel") == 0) { /* ByteLevel only trims offsets */
        return MX_OK;
    }
    if (strcmp(type, "Sequence") == 0 && depth == 0) {
        const json_t *part;
        size_t i;

        json_array_foreach (json_object_get(p, "processors"), i, part) {
            MX_TRY(read_post_processor(part, t, 1, at, st));
        }
        return MX_OK;
    }
    return strcmp(type, "TemplateProcessing") == 0 ? read_template(p, t, at, st) : refuse("post_processor", p, at, st);
}

/* --- the whole --- */

/* Either bytes in GPT-2's alphabet, or characters with U+2581 for the space; nothing between. */
static mx_code settle(mx_tokenizer *t, const found *f, mx_mark at, mx_status *st) {
    t->normalize_nfc = f->nfc;
    t->byte_level = f->byte_level;
    t->family = f->byte_level ? "byte-level BPE" : "SentencePiece BPE";
    t->variant = "tokenizer.json";
    if (f->byte_level) {
        if (f->prepend || f->replace || f->metaspace || t->byte_fallback) {
            return mx_fail(st, MX_E_DATA, at, "'ByteLevel' together with %s is not supported",
                           t->byte_fallback ? "byte_fallback" : "a sign for the space");
        }
        return MX_OK;
    }
    if (t->splitter.count || t->ignore_merges) {
        return mx_fail(st, MX_E_DATA, at, "%s without 'ByteLevel' is not supported",
                       t->ignore_merges ? "ignore_merges" : "a pre_tokenizer that splits");
    }
    if (f->replace == f->metaspace) {
        return mx_fail(st, MX_E_DATA, at,
                       "the tokenizer has neither 'ByteLevel' nor one sign for the space (normalizer "
                       "'Replace' or pre_tokenizer 'Metaspace'); others are not supported");
    }
    if (f->prepend && f->metaspace) {
        return mx_fail(st, MX_E_DATA, at, "the normalizer 'Prepend' together with 'Metaspace' is not supported");
    }
    t->prefix = f->metaspace ? f->prefix : f->prepend ? MX_PREFIX_ALWAYS : MX_PREFIX_NEVER;
    return MX_OK;
}

static mx_code read_root(json_t *root, const mx_tokenizer_config *config, mx_tokenizer *t, mx_arena *arena, mx_mark at,
                         mx_status *st) {
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    const json_t *unknown = json_object_get(model, "unk_token");
    found f = { 0 };

    if (!json_is_object(vocab)) {
        return json_is_object(model) && strcmp(text_of(model, "type"), "BPE") != 0
                   ? refuse("tokenizer model", model, at, st)
                   : mx_fail(st, MX_E_DATA, at, "there is no model with a vocabulary in this file");
    }
    MX_TRY(read_model_words(model, t, at, st));
    MX_TRY(read_normalizer(json_object_get(root, "normalizer"), &f, 0, at, st));
    MX_TRY(read_pre_tokenizer(json_object_get(root, "pre_tokenizer"), t, &f, 0, at, st));
    MX_TRY(settle(t, &f, at, st));
    MX_TRY(read_pieces(t, root, vocab, arena, at, st));
    MX_TRY(read_merges(t, json_object_get(model, "merges"), at, st));
    if (json_is_string(unknown)) {
        t->unknown = t->rule.unk = mx_vocab_find(&t->vocab, json_string_value(unknown), json_string_length(unknown));
        if (t->unknown < 0) {
            return mx_fail(st, MX_E_DATA, at, "unk_token is '%.100s', which is no token of the vocabulary",
                           json_string_value(unknown));
        }
    }
    if (t->byte_level) {
        mx_bpe_bytes(t);
    } else {
        mx_spm_bytes(t);
    }
    MX_TRY(mx_tokenizer_config_ids(config, t, st));
    MX_TRY(read_post_processor(json_object_get(root, "post_processor"), t, 0, at, st));
    if (config->own && json_object_get(config->own, "tokenizer_class") && mx_tokenizer_config_is_llama(config)) {
        mx_tokenizer_config_adds(config, t);
    }
    return mx_tokenizer_finish(t, at, st);
}

mx_code mx_tokenizer_parse_json(json_t *root, const mx_tokenizer_config *config, mx_mark at, mx_tokenizer **ret,
                                mx_status *st) {
    mx_tokenizer *t;
    mx_arena arena;
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_tokenizer_new(&t, st));
    mx_arena_init(&arena, MX_TOKENIZER_BYTES_MAX);
    code = read_root(root, config, t, &arena, at, st);
    mx_arena_finish(&arena);
    if (code) {
        mx_tokenizer_close(t);
        return code;
    }
    *ret = t;
    return MX_OK;
}

mx_code mx_tokenizer_read_json(const char *folder, mx_arena *arena, mx_tokenizer **ret, mx_status *st) {
    const char *path = mx_arena_text(arena, "%s/tokenizer.json", folder);
    mx_tokenizer_config config;
    json_t *root;
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_tokenizer_config_read(folder, arena, &config, st));
    code = mx_json_read(path, (size_t)256 << 20, &root, st);
    if (!code) {
        code = mx_tokenizer_parse_json(root, &config, (mx_mark){ .file = path }, ret, st);
        json_decref(root);
    }
    mx_tokenizer_config_finish(&config);
    return code;
}
