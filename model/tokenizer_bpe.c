/* tokenizer_bpe.c - byte-level BPE: GPT-2's alphabet for bytes, and merges by rank.
 *
 * Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.2: symbols are bytes, and
 * the files spell each byte as a printable character, so that a token is readable text. 33-126, 161-172 and
 * 174-255 stand for themselves; the other 68 bytes are U+0100, U+0101, ... in their order (encoder.py). */
#include "model/tokenizer_parts.h"

#include <assert.h>
#include <string.h>

static bool stands_for_itself(unsigned byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/* Byte to the character that spells it. Always one or two bytes of UTF-8 (U+0021 .. U+0143). */
static unsigned spell(unsigned byte) {
    if (stands_for_itself(byte)) {
        return byte;
    }
    if (byte <= 32) {
        return 0x100 + byte;
    }
    return byte == 173 ? 0x143 : 0x121 + byte - 127; /* 127-160, then 173 */
}

static size_t put(unsigned character, char *to) {
    if (character < 0x80) {
        to[0] = (char)character;
        return 1;
    }
    to[0] = (char)(0xC0 | (character >> 6));
    to[1] = (char)(0x80 | (character & 0x3F));
    return 2;
}

void mx_bpe_bytes(mx_tokenizer *t) {
    for (unsigned byte = 0; byte < 256; byte++) {
        char spelled[2];

        t->byte_id[byte] = mx_vocab_find(&t->vocab, spelled, put(spell(byte), spelled));
    }
}

void mx_bpe_decode(const char *token, size_t length, mx_text *out) {
    for (size_t i = 0; i < length;) {
        unsigned c = (unsigned char)token[i], byte = 256;
        size_t width = c < 0x80 ? 1 : mx_utf8_length(token + i, length - i);

        if (width == 2) {
            c = (c & 0x1F) << 6 | ((unsigned char)token[i + 1] & 0x3F);
        }
        if (width == 1 || width == 2) {
            byte = c < 0x100 ? c : c <= 0x120 ? c - 0x100 : c <= 0x142 ? c - 0x121 + 127 : c == 0x143 ? 173 : 256;
        }
        if (byte < 256 && spell(byte) == c) {
            char raw = (char)byte;

            mx_text_add(out, &raw, 1);
        } else { /* not of the alphabet: it can only mean itself */
            mx_text_add(out, token + i, width ? width : 1);
        }
        i += width ? width : 1;
    }
}

/* --- merges --- */

static int32_t *find_merge(const mx_tokenizer *t, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    uint32_t i = (uint32_t)(h >> 32) & t->merge_mask;

    while (t->merge_slot[i] >= 0) {
        const mx_merge *m = &t->merge[t->merge_slot[i]];

        if (m->left == left && m->right == right) {
            break;
        }
        i = (i + 1) & t->merge_mask;
    }
    return &t->merge_slot[i];
}

mx_code mx_bpe_reserve_merges(mx_tokenizer *t, size_t count, mx_mark at, mx_status *st) {
    size_t slots = 16;

    if (count > MX_MERGES_MAX) {
        return mx_fail(st, MX_E_DATA, at, "there are %zu merges; %d can be read", count, MX_MERGES_MAX);
    }
    while (slots < 2 * count) {
        slots *= 2;
    }
    t->merge = MX_TAKE(&t->arena, mx_merge, count);
    t->merge_slot = MX_TAKE(&t->arena, int32_t, slots);
    memset(t->merge_slot, -1, slots * sizeof *t->merge_slot);
    t->merge_mask = (uint32_t)(slots - 1);
    return MX_OK;
}

mx_code mx_bpe_add_merge(mx_tokenizer *t, const char *left, size_t left_length, const char *right, size_t right_length,
                         mx_mark at, mx_status *st) {
    mx_merge merge = { .rank = (uint32_t)t->merge_count };
    char both[2 * MX_TOKEN_BYTES_MAX];
    int32_t *slot;

    if (left_length <= MX_TOKEN_BYTES_MAX && right_length <= MX_TOKEN_BYTES_MAX) {
        memcpy(both, left, left_length);
        memcpy(both + left_length, right, right_length);
        merge.left = mx_vocab_find(&t->vocab, left, left_length);
        merge.right = mx_vocab_find(&t->vocab, right, right_length);
        merge.result = mx_vocab_find(&t->vocab, both, left_length + right_length);
    } else {
        merge.left = -1;
    }
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
        const char *what = merge.left < 0 ? "its first part" : merge.right < 0 ? "its second part" : "their sum";

        return mx_fail(st, MX_E_DATA, at, "merge %u, '%.*s' with '%.*s': %s is no token of the vocabulary", merge.rank,
                       (int)(left_length < 100 ? left_length : 100), left,
                       (int)(right_length < 100 ? right_length : 100), right, what);
    }
    slot = find_merge(t, merge.left, merge.right);
    if (*slot >= 0) {
        return mx_fail(st, MX_E_DATA, at, "merges %d and %u are the same: '%.*s' with '%.*s'", *slot, merge.rank,
                       (int)(left_length < 100 ? left_length : 100), left,
                       (int)(right_length < 100 ? right_length : 100), right);
    }
    *slot = (int32_t)t->merge_count;
    t->merge[t->merge_count++] = merge;
    return MX_OK;
}

bool mx_bpe_find(const mx_tokenizer *t, const char *text, const mx_symbol *left, const mx_symbol *right, mx_join *ret) {
    int32_t slot;

    (void)text;
    if (left->id < 0 || right->id < 0) {
        return false;
    }
    slot = *find_merge(t, left->id, right->id);
    if (slot < 0) {
        return false;
    }
    ret->key = t->merge[slot].rank;
    ret->id = t->merge[slot].result;
    return true;
}

/* --- a piece --- */

/* The token that is the whole piece, or -1. */
static mx_code find_whole(mx_encoding *e, const char *piece, size_t length, int32_t *ret) {
    size_t used = 0;

    *ret = -1;
    if (length > MX_TOKEN_BYTES_MAX) {
        return MX_OK;
    }
    MX_TRY(mx_encoding_grow(&e->spelled, &e->spelled_capacity, 2 * length, 1, e->st));
    for (size_t i = 0; i < length; i++) {
        used += put(spell((unsigned char)piece[i]), e->spelled + used);
    }
    *ret = mx_vocab_find(&e->t->vocab, e->spelled, used);
    return MX_OK;
}

/* One symbol per byte. A byte without a token is the unknown token; where there is none either it is lost, and
 * its neighbours become each other's (as HF's BPE does). */
static mx_code set_symbols(mx_encoding *e, const char *piece, size_t length) {
    bool unknown_before = false;

    MX_TRY(mx_encoding_grow(&e->symbol, &e->symbol_capacity, length, sizeof *e->symbol, e->st));
    e->symbol_count = 0;
    for (size_t i = 0; i < length; i++) {
        int32_t id = e->t->byte_id[(unsigned char)piece[i]], n = (int32_t)e->symbol_count;
        bool unknown = id < 0;

        if (unknown && e->t->unknown < 0) {
            e->out->lost++;
            continue;
        }
        if (unknown && unknown_before && e->t->fuse_unknown) {
            e->symbol[n - 1].length++;
            continue;
        }
        e->symbol[n] = (mx_symbol){
            .previous = n - 1, .next = n + 1, .at = (uint32_t)i, .length = 1, .id = unknown ? e->t->unknown : id
        };
        e->symbol_count++;
        unknown_before = unknown;
    }
    if (e->symbol_count) {
        e->symbol[e->symbol_count - 1].next = -1;
    }
    return MX_OK;
}

mx_code mx_bpe_encode_piece(mx_encoding *e, const char *piece, size_t length) {
    if (e->t->ignore_merges) {
        int32_t whole;

        MX_TRY(find_whole(e, piece, length, &whole));
        if (whole >= 0) {
            return mx_encoding_push(e, whole);
        }
    }
    MX_TRY(set_symbols(e, piece, length));
    MX_TRY(mx_merge_symbols(e, piece, mx_bpe_find));
    for (int32_t i = e->symbol_count ? 0 : -1; i >= 0; i = e->symbol[i].next) {
        MX_TRY(mx_encoding_push(e, e->symbol[i].id));
    }
    return MX_OK;
}
