/* tokenizer_spm.c - SentencePiece's BPE: characters, a sign for the space, bytes for what has no token.
 *
 * Kudo & Richardson 2018, "SentencePiece" (arXiv:1808.06226): the text is one piece, each space is written as
 * U+2581, and the pair whose sum has the highest score is joined first, the leftmost of equals. Only normal and
 * user-defined tokens come out of merging: "<s>" written in a text never becomes the control token, which in
 * llama.cpp some vocabularies let through. A vocabulary of this kind from tokenizer.json has merges with ranks
 * in place of scores, and the rest is the same. */
#include "model/tokenizer_parts.h"

#include <stdio.h>
#include <string.h>

static const char space_sign[] = "\xE2\x96\x81"; /* U+2581 */
enum { SPACE_SIGN_LENGTH = 3 };

void mx_spm_bytes(mx_tokenizer *t) {
    for (unsigned byte = 0; byte < 256; byte++) {
        char spelled[8];

        snprintf(spelled, sizeof spelled, "<0x%02X>", byte);
        t->byte_id[byte] = mx_vocab_find(&t->vocab, spelled, 6);
    }
}

void mx_spm_decode(const char *token, size_t length, bool drop_space, mx_text *out) {
    for (size_t i = 0; i < length; i++) {
        if (length - i >= SPACE_SIGN_LENGTH && memcmp(token + i, space_sign, SPACE_SIGN_LENGTH) == 0) {
            mx_text_add(out, " ", (size_t) !(drop_space && i == 0));
            i += SPACE_SIGN_LENGTH - 1;
        } else {
            mx_text_add(out, token + i, 1);
        }
    }
}

/* The token a text is when no special meaning is asked for, or -1. */
static int32_t find_plain(const mx_vocab *v, const char *text, size_t length) {
    int32_t id = mx_vocab_find(v, text, length);

    return id >= 0 && (v->type[id] == MX_TOKEN_NORMAL || v->type[id] == MX_TOKEN_USER_DEFINED) ? id : -1;
}

/* Scores in descending order as integers in ascending order: the bits of an IEEE float, read as a signed
 * magnitude, are in the floats' order. */
static uint32_t score_key(float score) {
    uint32_t bits;

    score += 0.0f; /* -0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~bits;
}

static bool find_by_score(const mx_tokenizer *t, const char *text, const mx_symbol *left, const mx_symbol *right,
                          mx_join *ret) {
    int32_t id = find_plain(&t->vocab, text + left->at, (size_t)left->length + right->length);

    if (id < 0) {
        return false;
    }
    ret->key = score_key(t->vocab.score[id]);
    ret->id = id;
    return true;
}

/* Spaces become U+2581, and one more goes in front where the rule wants it. */
static mx_code spell(mx_encoding *e, const char *text, size_t length, size_t *ret_length) {
    size_t used = 0, spaces = 0;
    bool prefix =
        e->t->prefix == MX_PREFIX_ALWAYS ? e->first || e->after_added : e->t->prefix == MX_PREFIX_FIRST && e->first;

    if (e->t->prefix == MX_PREFIX_FIRST &&
        (text[0] == ' ' || (length >= SPACE_SIGN_LENGTH && memcmp(text, space_sign, SPACE_SIGN_LENGTH) == 0))) {
        prefix = false;
    }
    for (size_t i = 0; i < length; i++) {
        spaces += text[i] == ' ';
    }
    MX_TRY(mx_encoding_grow(&e->spelled, &e->spelled_capacity, length + SPACE_SIGN_LENGTH * (spaces + 1), 1, e->st));
    if (prefix) {
        memcpy(e->spelled, space_sign, SPACE_SIGN_LENGTH);
        used = SPACE_SIGN_LENGTH;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ') {
            memcpy(e->spelled + used, space_sign, SPACE_SIGN_LENGTH);
            used += SPACE_SIGN_LENGTH;
        } else {
            e->spelled[used++] = text[i];
        }
    }
    *ret_length = used;
    return MX_OK;
}

static mx_code push_unknown(mx_encoding *e, const char *text, size_t length, bool *unknown_before) {
    bool fused = *unknown_before && e->t->fuse_unknown, bytes = e->t->byte_fallback;

    for (size_t i = 0; bytes && i < length; i++) {
        bytes = e->t->byte_id[(unsigned char)text[i]] >= 0;
    }
    *unknown_before = !bytes;
    for (size_t i = 0; bytes && i < length; i++) {
        MX_TRY(mx_encoding_push(e, e->t->byte_id[(unsigned char)text[i]]));
    }
    if (!bytes && e->t->unknown >= 0 && !fused) {
        return mx_encoding_push(e, e->t->unknown);
    }
    e->out->lost += !bytes && e->t->unknown < 0 ? length : 0;
    return MX_OK;
}

mx_code mx_spm_encode_fragment(mx_encoding *e, const char *text, size_t length) {
    bool unknown_before = false;
    int32_t n = 0;

    MX_TRY(spell(e, text, length, &length));
    MX_TRY(mx_encoding_grow(&e->symbol, &e->symbol_capacity, length, sizeof *e->symbol, e->st));
    for (size_t i = 0; i < length; n++) {
        size_t width = mx_utf8_length(e->spelled + i, length - i);

        width = width ? width : 1;
        e->symbol[n] = (mx_symbol){ .previous = n - 1,
                                    .next = n + 1,
                                    .at = (uint32_t)i,
                                    .length = (uint32_t)width,
                                    .id = find_plain(&e->t->vocab, e->spelled + i, width) };
        i += width;
    }
    e->symbol_count = (size_t)n;
    e->symbol[n - 1].next = -1;
    MX_TRY(mx_merge_symbols(e, e->spelled, e->t->by_score ? find_by_score : mx_bpe_find));
    for (int32_t i = 0; i >= 0; i = e->symbol[i].next) {
        const mx_symbol *s = &e->symbol[i];

        if (s->id < 0) {
            MX_TRY(push_unknown(e, e->spelled + s->at, s->length, &unknown_before));
        } else {
            MX_TRY(mx_encoding_push(e, s->id));
            unknown_before = false;
        }
    }
    return MX_OK;
}
