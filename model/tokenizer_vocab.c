/* tokenizer_vocab.c - spellings by id, ids by spelling, and the tokens found in a text before it is split. */
#include "model/tokenizer_parts.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a, folded so that the low bits depend on all of it. Spellings are short. */
static uint32_t hash(const char *text, size_t length) {
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < length; i++) {
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    }
    return (uint32_t)(h ^ (h >> 32) ^ (h >> 17));
}

const char *mx_vocab_text(const mx_vocab *v, int32_t id, size_t *ret_length) {
    assert(id >= 0 && id < v->count);
    *ret_length = v->at[id + 1] - v->at[id] - 1;
    return v->pool + v->at[id];
}

/* The slot that holds this spelling, or the free one where it belongs. */
static int32_t *find_slot(const mx_vocab *v, const char *text, size_t length) {
    uint32_t i = hash(text, length) & v->mask;

    while (v->slot[i] >= 0) {
        size_t other;
        const char *spelling = mx_vocab_text(v, v->slot[i], &other);

        if (other == length && memcmp(spelling, text, length) == 0) {
            break;
        }
        i = (i + 1) & v->mask;
    }
    return &v->slot[i];
}

int32_t mx_vocab_find(const mx_vocab *v, const char *text, size_t length) {
    return length && length <= v->longest ? *find_slot(v, text, length) : -1;
}

static mx_code check_piece(const mx_piece *piece, size_t id, mx_mark at, mx_status *st) {
    if (piece->length > MX_TOKEN_BYTES_MAX) {
        return mx_fail(st, MX_E_DATA, at, "token %zu is %zu bytes long; the limit is %d", id, piece->length,
                       MX_TOKEN_BYTES_MAX);
    }
    if (piece->length && (piece->type < MX_TOKEN_NORMAL || piece->type > MX_TOKEN_BYTE)) {
        return mx_fail(st, MX_E_DATA, at, "token %zu has the type %d; known types are 1 to 6", id, (int)piece->type);
    }
    if (isnan(piece->score)) {
        return mx_fail(st, MX_E_DATA, at, "the score of token %zu is not a number", id);
    }
    return MX_OK;
}

mx_code mx_vocab_build(mx_vocab *v, mx_arena *arena, const mx_piece *piece, size_t count, mx_mark at, mx_status *st) {
    size_t bytes = 0, slots = 16, used = 0;

    if (count == 0 || count > MX_TOKENS_MAX) {
        return mx_fail(st, MX_E_DATA, at, "the vocabulary has %zu tokens; between 1 and %d can be read", count,
                       MX_TOKENS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        MX_TRY(check_piece(&piece[i], i, at, st));
        bytes += piece[i].length + 1;
    }
    if (bytes > MX_TOKENIZER_BYTES_MAX / 4) {
        return mx_fail(st, MX_E_DATA, at, "the vocabulary's spellings take %zu bytes, more than can be read", bytes);
    }
    while (slots < 2 * count) {
        slots *= 2;
    }
    *v = (mx_vocab){ .count = (int32_t)count, .mask = (uint32_t)(slots - 1) };
    v->pool = mx_arena_take(arena, bytes);
    v->at = MX_TAKE(arena, size_t, count + 1);
    v->type = MX_TAKE(arena, uint8_t, count);
    v->score = MX_TAKE(arena, float, count);
    v->slot = MX_TAKE(arena, int32_t, slots);
    memset(v->slot, -1, slots * sizeof *v->slot);
    for (size_t i = 0; i < count; i++) {
        v->at[i] = used;
        if (piece[i].length) {
            memcpy(v->pool + used, piece[i].bytes, piece[i].length);
        }
        used += piece[i].length + 1;
        v->longest = piece[i].length > v->longest ? piece[i].length : v->longest;
        v->at[i + 1] = used;
        v->type[i] = (uint8_t)(piece[i].length ? piece[i].type : MX_TOKEN_UNUSED);
        v->score[i] = piece[i].score;
    }
    for (size_t i = 0; i < count; i++) {
        int32_t *slot = piece[i].length ? find_slot(v, piece[i].bytes, piece[i].length) : NULL;

        if (slot && *slot >= 0) {
            return mx_fail(st, MX_E_DATA, at, "tokens %d and %zu are both spelled '%.*s'", *slot, i,
                           (int)(piece[i].length < 100 ? piece[i].length : 100), piece[i].bytes);
        }
        if (slot) {
            *slot = (int32_t)i;
        }
    }
    return MX_OK;
}

static int order_added(const void *left, const void *right) {
    const mx_added *a = left, *b = right;
    int first = (unsigned char)a->text[0] - (unsigned char)b->text[0];

    if (first) {
        return first;
    }
    return a->length != b->length ? (a->length < b->length ? 1 : -1) : (a->id > b->id) - (a->id < b->id);
}

static bool is_added(const mx_vocab *v, size_t id) {
    return v->type[id] == MX_TOKEN_UNKNOWN || v->type[id] == MX_TOKEN_CONTROL || v->type[id] == MX_TOKEN_USER_DEFINED;
}

void mx_added_build(mx_added_set *s, mx_arena *arena, const mx_vocab *v, const mx_piece *piece, bool normalized) {
    size_t count = 0;

    for (size_t i = 0; i < (size_t)v->count; i++) {
        count += is_added(v, i) && piece[i].normalized == normalized;
    }
    *s = (mx_added_set){ .item = MX_TAKE(arena, mx_added, count), .count = count };
    count = 0;
    for (size_t i = 0; i < (size_t)v->count; i++) {
        mx_added *a = &s->item[count];

        if (!is_added(v, i) || piece[i].normalized != normalized) {
            continue;
        }
        *a = (mx_added){ .id = (int32_t)i, .lstrip = piece[i].lstrip, .rstrip = piece[i].rstrip };
        a->text = mx_vocab_text(v, a->id, &a->length);
        a->control = v->type[i] != MX_TOKEN_USER_DEFINED;
        count++;
    }
    if (count) {
        qsort(s->item, count, sizeof *s->item, order_added);
    }
    for (size_t b = 0, i = 0; b <= 256; b++) {
        while (i < count && (unsigned char)s->item[i].text[0] < b) {
            i++;
        }
        s->first[b] = i;
    }
}

const mx_added *mx_added_find(const mx_added_set *s, const char *text, size_t length, size_t from, bool with_control,
                              size_t *ret_at) {
    for (size_t at = from; s->count && at < length; at++) {
        unsigned char b = (unsigned char)text[at];

        for (size_t i = s->first[b]; i < s->first[b + 1]; i++) {
            const mx_added *a = &s->item[i];

            if ((with_control || !a->control) && a->length <= length - at &&
                memcmp(a->text, text + at, a->length) == 0) {
                *ret_at = at;
                return a;
            }
        }
    }
    return NULL;
}
