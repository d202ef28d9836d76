/* tokenizer_gguf.c - a tokenizer from GGUF's metadata, with llama.cpp's defaults for what a file leaves out. */
#include "model/tokenizer_parts.h"

#include <ctype.h>
#include <string.h>

static mx_code missing(const char *key, mx_mark at, mx_status *st) {
    return mx_fail(st, MX_E_DATA, at, "'%s' is missing; without it the tokenizer is not known", key);
}

static mx_code same_count(const char *key, size_t count, size_t tokens, mx_mark at, mx_status *st) {
    if (count != tokens) {
        return mx_fail(st, MX_E_DATA, at, "'%s' has %zu entries, but there are %zu tokens", key, count, tokens);
    }
    return MX_OK;
}

/* Phi-3's control tokens take the white space after them along, but for the first three of the vocabulary and
 * <|endoftext|>; GGUF has no word for that, and llama.cpp goes by the model's name. */
static bool takes_space(bool phi3, const mx_piece *p) {
    static const char *const not_those[] = { "<unk>", "<s>", "<|endoftext|>" };

    if (!phi3 || (p->type != MX_TOKEN_CONTROL && p->type != MX_TOKEN_USER_DEFINED && p->type != MX_TOKEN_UNKNOWN)) {
        return false;
    }
    for (size_t i = 0; i < sizeof not_those / sizeof *not_those; i++) {
        if (p->length == strlen(not_those[i]) && memcmp(p->bytes, not_those[i], p->length) == 0) {
            return false;
        }
    }
    return true;
}

static mx_code is_phi3(const mx_gguf *file, mx_arena *arena, bool *ret, mx_status *st) {
    const char *name = "", *lower;

    MX_TRY(mx_gguf_word(file, "general.name", arena, &name, NULL, st));
    lower = mx_arena_copy(arena, name, strlen(name));
    for (char *c = (char *)lower; *c; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    *ret = strstr(lower, "phi-3") || strstr(lower, "phi3");
    return MX_OK;
}

static mx_code read_pieces(mx_tokenizer *t, const mx_gguf *file, mx_arena *arena, mx_mark at, mx_status *st) {
    const mx_gguf_text *token = NULL;
    const double *type = NULL, *score = NULL;
    size_t count = 0, types = 0, scores = 0;
    mx_piece *piece;
    bool phi3;

    MX_TRY(mx_gguf_texts(file, "tokenizer.ggml.tokens", arena, &token, &count, NULL, st));
    MX_TRY(mx_gguf_numbers(file, "tokenizer.ggml.token_type", arena, &type, &types, NULL, st));
    MX_TRY(mx_gguf_numbers(file, "tokenizer.ggml.scores", arena, &score, &scores, NULL, st));
    MX_TRY(is_phi3(file, arena, &phi3, st));
    if (!token) {
        return missing("tokenizer.ggml.tokens", at, st);
    }
    if (t->by_score && !type) {
        return missing("tokenizer.ggml.token_type", at, st);
    }
    if (t->by_score && !score) {
        return missing("tokenizer.ggml.scores", at, st);
    }
    if (type) {
        MX_TRY(same_count("tokenizer.ggml.token_type", types, count, at, st));
    }
    if (score) {
        MX_TRY(same_count("tokenizer.ggml.scores", scores, count, at, st));
    }
    piece = MX_TAKE(arena, mx_piece, count);
    for (size_t i = 0; i < count; i++) {
        mx_piece *p = &piece[i];

        *p = (mx_piece){ .bytes = token[i].bytes, .length = token[i].length, .type = MX_TOKEN_NORMAL };
        if (type) {
            p->type = type[i] >= 1 && type[i] <= 6 && type[i] == (int)type[i] ? (mx_token_type)type[i] : 0;
        }
        p->score = t->by_score ? (float)score[i] : 0.0f;
        p->rstrip = takes_space(phi3, p);
    }
    return mx_tokenizer_set_pieces(t, piece, count, at, st);
}

static mx_code read_merges(mx_tokenizer *t, const mx_gguf *file, mx_arena *arena, mx_mark at, mx_status *st) {
    const mx_gguf_text *merge = NULL;
    size_t count = 0;

    MX_TRY(mx_gguf_texts(file, "tokenizer.ggml.merges", arena, &merge, &count, NULL, st));
    if (!merge) {
        return missing("tokenizer.ggml.merges", at, st);
    }
    MX_TRY(mx_bpe_reserve_merges(t, count, at, st));
    for (size_t i = 0; i < count; i++) {
        const char *text = merge[i].bytes;
        const char *space = merge[i].length ? memchr(text + 1, ' ', merge[i].length - 1) : NULL;

        if (!space) {
            return mx_fail(st, MX_E_DATA, at, "merge %zu is not two parts with a space between", i);
        }
        MX_TRY(mx_bpe_add_merge(t, text, (size_t)(space - text), space + 1,
                                merge[i].length - (size_t)(space + 1 - text), at, st));
    }
    return MX_OK;
}

static mx_code read_id(const mx_gguf *file, const char *key, int32_t *id, mx_mark at, mx_status *st) {
    int64_t value = *id;

    MX_TRY(mx_gguf_integer(file, key, &value, NULL, st));
    if (value < -1 || value >= MX_TOKENS_MAX) {
        return mx_fail(st, MX_E_DATA, at, "'%s' is %lld, which is no token's id", key, (long long)value);
    }
    *id = (int32_t)value;
    return MX_OK;
}

static mx_code read_rules(mx_tokenizer *t, const mx_gguf *file, mx_mark at, mx_status *st) {
    MX_TRY(read_id(file, "tokenizer.ggml.bos_token_id", &t->rule.bos, at, st));
    MX_TRY(read_id(file, "tokenizer.ggml.eos_token_id", &t->rule.eos, at, st));
    MX_TRY(read_id(file, "tokenizer.ggml.unknown_token_id", &t->rule.unk, at, st));
    MX_TRY(read_id(file, "tokenizer.ggml.padding_token_id", &t->rule.pad, at, st));
    MX_TRY(mx_gguf_boolean(file, "tokenizer.ggml.add_bos_token", &t->rule.add_bos, NULL, st));
    return mx_gguf_boolean(file, "tokenizer.ggml.add_eos_token", &t->rule.add_eos, NULL, st);
}

/* GPT-2's model has no unknown token in llama.cpp, whatever tokenizer.ggml.unknown_token_id says. */
static mx_code read_bpe(mx_tokenizer *t, const mx_gguf *file, mx_arena *arena, mx_mark at, mx_status *st) {
    const char *pre = NULL;

    MX_TRY(mx_gguf_word(file, "tokenizer.ggml.pre", arena, &pre, NULL, st));
    if (!pre) {
        return missing("tokenizer.ggml.pre", at, st);
    }
    MX_TRY(mx_splitter_named(&t->splitter, &t->arena, pre, at, st));
    t->byte_level = true;
    t->family = "byte-level BPE";
    t->variant = mx_arena_copy(&t->arena, pre, strlen(pre));
    t->ignore_merges = t->rule.add_bos = strcmp(pre, "gpt-2") != 0 && strcmp(pre, "smollm") != 0; /* LLaMA-3 */
    MX_TRY(read_pieces(t, file, arena, at, st));
    MX_TRY(read_merges(t, file, arena, at, st));
    mx_bpe_bytes(t);
    return read_rules(t, file, at, st);
}

static mx_code read_spm(mx_tokenizer *t, const mx_gguf *file, mx_arena *arena, mx_mark at, mx_status *st) {
    bool space = true, collapse = false;
    bool charsmap = false;
    const double *ignored;
    size_t count;

    MX_TRY(mx_gguf_boolean(file, "tokenizer.ggml.add_space_prefix", &space, NULL, st));
    MX_TRY(mx_gguf_boolean(file, "tokenizer.ggml.remove_extra_whitespaces", &collapse, NULL, st));
    MX_TRY(mx_gguf_numbers(file, "tokenizer.ggml.precompiled_charsmap", arena, &ignored, &count, &charsmap, st));
    if (collapse || charsmap) {
        return mx_fail(st, MX_E_DATA, at, "the tokenizer %s, which is not supported",
                       collapse ? "removes extra white space" : "has a normalizer of its own (precompiled_charsmap)");
    }
    t->by_score = t->byte_fallback = t->rule.add_bos = true;
    t->prefix = space ? MX_PREFIX_ALWAYS : MX_PREFIX_NEVER;
    t->family = "SentencePiece BPE";
    t->variant = "gguf";
    t->rule.bos = 1;
    t->rule.eos = 2;
    t->rule.unk = 0;
    MX_TRY(read_pieces(t, file, arena, at, st));
    mx_spm_bytes(t);
    MX_TRY(read_rules(t, file, at, st));
    t->unknown = t->rule.unk;
    return MX_OK;
}

mx_code mx_tokenizer_read_gguf(const mx_gguf *file, mx_tokenizer **ret, mx_status *st) {
    mx_mark at = { .file = mx_gguf_path(file) };
    const char *model = NULL;
    mx_tokenizer *t;
    mx_arena arena;
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_tokenizer_new(&t, st));
    mx_arena_init(&arena, SIZE_MAX / 2); /* arrays of the file's own lengths, which mx_gguf_open has checked */
    code = mx_gguf_word(file, "tokenizer.ggml.model", &arena, &model, NULL, st);
    if (code) {
        goto done;
    }
    if (!model) {
        code = missing("tokenizer.ggml.model", at, st);
    } else if (strcmp(model, "gpt2") == 0) {
        code = read_bpe(t, file, &arena, at, st);
    } else if (strcmp(model, "llama") == 0) {
        code = read_spm(t, file, &arena, at, st);
    } else {
        code = mx_fail(st, MX_E_DATA, at, "the tokenizer model '%.100s' is not supported; known are gpt2 and llama",
                       model);
    }
    if (!code) {
        code = mx_tokenizer_finish(t, at, st);
    }
done:
    mx_arena_finish(&arena);
    if (code) {
        mx_tokenizer_close(t);
        return code;
    }
    *ret = t;
    return MX_OK;
}
