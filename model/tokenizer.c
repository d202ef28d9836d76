/* tokenizer.c - opening by what lies at a path; a text's way to ids and back.
 *
 * encode:  added tokens are found in the text -> what is between them is normalised -> added tokens that are
 * looked for in normalised text -> pieces (tokenizer_split.c) -> merges (tokenizer_bpe.c, tokenizer_spm.c).
 * An encoding's buffers live for one call, so that threads share nothing but the tokenizer itself. */
#include "model/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void mx_tokens_finish(mx_tokens *list) {
    free(list->id);
    *list = (mx_tokens){ 0 };
}

/* --- opening --- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

mx_code mx_tokenizer_open(const char *path, mx_arena *arena, mx_tokenizer **ret, mx_status *st) {
    mx_mark at = { .file = mx_arena_text(arena, "%s", path) };
    mx_gguf *file;
    mx_code code;

    *ret = NULL;
    if (mx_folder_exists(path)) {
        if (mx_file_exists(mx_arena_text(arena, "%s/tokenizer.json", path))) {
            return mx_tokenizer_read_json(path, arena, ret, st);
        }
        if (mx_file_exists(mx_arena_text(arena, "%s/tokenizer.model", path))) {
            return mx_tokenizer_read_sentencepiece(path, arena, ret, st);
        }
        return mx_fail(st, MX_E_MISSING, at, "there is neither tokenizer.json nor tokenizer.model in this folder");
    }
    if (!mx_file_exists(path)) {
        return mx_fail(st, MX_E_MISSING, at, "there is no such file or folder to read a tokenizer from");
    }
    if (!ends_with(path, ".gguf")) {
        return mx_fail(st, MX_E_DATA, at,
                       "a tokenizer is read from a .gguf file or from a folder that holds "
                       "tokenizer.json or tokenizer.model; this file is neither");
    }
    MX_TRY(mx_gguf_open(at.file, &file, st));
    code = mx_tokenizer_read_gguf(file, ret, st);
    mx_gguf_close(file);
    return code;
}

mx_code mx_tokenizer_open_gguf(const mx_gguf *file, mx_tokenizer **ret, mx_status *st) {
    return mx_tokenizer_read_gguf(file, ret, st);
}

void mx_tokenizer_close(mx_tokenizer *t) {
    if (t) {
        mx_splitter_finish(&t->splitter);
        mx_arena_finish(&t->arena);
        free(t);
    }
}

mx_code mx_tokenizer_new(mx_tokenizer **ret, mx_status *st) {
    mx_tokenizer *t = calloc(1, sizeof *t);

    *ret = t;
    if (!t) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for a tokenizer");
    }
    mx_arena_init(&t->arena, MX_TOKENIZER_BYTES_MAX);
    t->rule = (mx_tokenizer_rule){ .bos = -1, .eos = -1, .unk = -1, .pad = -1 };
    t->unknown = -1;
    memset(t->byte_id, -1, sizeof t->byte_id);
    return MX_OK;
}

mx_code mx_tokenizer_set_pieces(mx_tokenizer *t, const mx_piece *piece, size_t count, mx_mark at, mx_status *st) {
    MX_TRY(mx_vocab_build(&t->vocab, &t->arena, piece, count, at, st));
    mx_added_build(&t->added_raw, &t->arena, &t->vocab, piece, false);
    mx_added_build(&t->added_normalized, &t->arena, &t->vocab, piece, true);
    return MX_OK;
}

mx_code mx_tokenizer_check_gaps(size_t ids, size_t tokens, mx_mark at, mx_status *st) {
    if (ids > 2 * tokens + 4096) {
        return mx_fail(st, MX_E_DATA, at, "the largest token id is %zu, but there are only %zu tokens", ids - 1,
                       tokens);
    }
    return MX_OK;
}

static mx_code check_id(const mx_tokenizer *t, int32_t id, bool needed, const char *what, mx_mark at, mx_status *st) {
    if (id >= t->vocab.count) {
        return mx_fail(st, MX_E_DATA, at, "the %s token is %d, but the vocabulary ends at %d", what, id,
                       t->vocab.count - 1);
    }
    if (id < 0 && needed) {
        return mx_fail(st, MX_E_DATA, at, "the %s token is to be added to every text, but none is named", what);
    }
    return MX_OK;
}

static void add_number(mx_hasher *h, int64_t n) {
    mx_hasher_add(h, &n, sizeof n);
}

static void add_set(mx_hasher *h, const mx_added_set *s) {
    add_number(h, (int64_t)s->count);
    for (size_t i = 0; i < s->count; i++) {
        const mx_added *a = &s->item[i];

        add_number(h, (int64_t)a->id << 3 | a->control << 2 | a->lstrip << 1 | a->rstrip);
    }
}

/* Everything that decides ids. Arrays go in whole: their lengths are prefixed by the hasher. */
static void set_hash(mx_tokenizer *t) {
    mx_hasher *h = mx_hasher_open();
    const mx_vocab *v = &t->vocab;
    const int32_t id[] = { t->rule.bos, t->rule.eos, t->rule.unk, t->rule.pad, t->unknown };
    const uint8_t flag[] = { t->rule.add_bos,  t->rule.add_eos, t->byte_level,    t->by_score,       t->ignore_merges,
                             t->byte_fallback, t->fuse_unknown, t->normalize_nfc, (uint8_t)t->prefix };

    mx_hasher_add(h, "mixrun tokenizer 1", 18);
    mx_hasher_add(h, v->pool, v->at[v->count]);
    mx_hasher_add(h, v->at, ((size_t)v->count + 1) * sizeof *v->at);
    mx_hasher_add(h, v->type, (size_t)v->count);
    mx_hasher_add(h, v->score, (size_t)v->count * sizeof *v->score);
    mx_hasher_add(h, t->merge, t->merge_count * sizeof *t->merge);
    mx_hasher_add(h, id, sizeof id);
    mx_hasher_add(h, flag, sizeof flag);
    add_set(h, &t->added_raw);
    add_set(h, &t->added_normalized);
    for (size_t i = 0; i < t->splitter.count; i++) {
        const mx_split_step *step = &t->splitter.step[i];

        mx_hasher_add(h, step->pattern, strlen(step->pattern));
        add_number(h, step->literal << 1 | step->removed);
    }
    mx_hasher_close(h, t->sha256);
}

mx_code mx_tokenizer_finish(mx_tokenizer *t, mx_mark at, mx_status *st) {
    MX_TRY(check_id(t, t->rule.bos, t->rule.add_bos, "beginning-of-sequence", at, st));
    MX_TRY(check_id(t, t->rule.eos, t->rule.add_eos, "end-of-sequence", at, st));
    MX_TRY(check_id(t, t->rule.unk, false, "unknown", at, st));
    MX_TRY(check_id(t, t->rule.pad, false, "padding", at, st));
    t->name = mx_arena_text(&t->arena, "%s, %s, %s tokens", t->family, t->variant, mx_text_count(t->vocab.count));
    set_hash(t);
    return MX_OK;
}

/* --- encoding --- */

size_t mx_utf8_length(const char *text, size_t left) {
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)left, &c);

    return n > 0 ? (size_t)n : 0;
}

bool mx_utf8_is_space(const char *text, size_t length) {
    utf8proc_int32_t c;
    utf8proc_category_t category;

    if (utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &c) <= 0) {
        return false;
    }
    category = utf8proc_category(c);
    return (c >= 9 && c <= 13) || c == 0x85 || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

mx_code mx_encoding_grow(void *array, size_t *capacity, size_t count, size_t size, mx_status *st) {
    void **items = array, *larger;
    size_t wanted = count < 64 ? 64 : count;

    if (count <= *capacity) {
        return MX_OK;
    }
    if (wanted < *capacity + *capacity / 2) {
        wanted = *capacity + *capacity / 2;
    }
    larger = wanted <= SIZE_MAX / size ? realloc(*items, wanted * size) : NULL;
    if (!larger) {
        return mx_fail(st, MX_E_MEMORY, MX_NOWHERE, "no memory for %zu tokens or characters of a text", count);
    }
    *items = larger;
    *capacity = wanted;
    return MX_OK;
}

mx_code mx_encoding_push(mx_encoding *e, int32_t id) {
    MX_TRY(mx_encoding_grow(&e->out->id, &e->out->capacity, e->out->count + 1, sizeof *e->out->id, e->st));
    e->out->id[e->out->count++] = id;
    return MX_OK;
}

/* How far valid UTF-8 reaches; where the text begins with an invalid byte, 0. */
static size_t valid_run(const char *text, size_t length) {
    size_t done = 0;

    while (done < length) {
        size_t n = (unsigned char)text[done] < 0x80 ? 1 : mx_utf8_length(text + done, length - done);

        if (n == 0) {
            break;
        }
        done += n;
    }
    return done;
}

static mx_code encode_bytes(mx_encoding *e, const char *text, size_t length) {
    while (length) {
        size_t n = valid_run(text, length);

        if (n) {
            MX_TRY(mx_split_encode(e, text, n));
        } else { /* stands for itself, joined to nothing */
            n = 1;
            MX_TRY(mx_bpe_encode_piece(e, text, 1));
        }
        text += n;
        length -= n;
    }
    return MX_OK;
}

static mx_code encode_plain(mx_encoding *e, const char *text, size_t length) {
    mx_code code = MX_OK;

    if (length) {
        code = e->t->byte_level ? encode_bytes(e, text, length) : mx_spm_encode_fragment(e, text, length);
        e->first = e->after_added = false;
    }
    return code;
}

/* White space that an added token takes along on its left (not before `floor`) or its right. */
static size_t strip_left(const char *text, size_t floor, size_t at) {
    while (at > floor) {
        size_t before = at - 1;

        while (before > floor && at - before < 4 && ((unsigned char)text[before] & 0xC0) == 0x80) {
            before--;
        }
        if (mx_utf8_length(text + before, at - before) != at - before ||
            !mx_utf8_is_space(text + before, at - before)) {
            break;
        }
        at = before;
    }
    return at;
}

static size_t strip_right(const char *text, size_t length, size_t at) {
    while (at < length && mx_utf8_is_space(text + at, length - at)) {
        at += mx_utf8_length(text + at, length - at);
    }
    return at;
}

typedef mx_code between(mx_encoding *e, const char *text, size_t length);

/* The added tokens of `set` in the text, and `rest` for what lies between them. */
static mx_code encode_added(mx_encoding *e, const mx_added_set *set, const char *text, size_t length, between *rest) {
    size_t done = 0, at;
    const mx_added *a;

    while ((a = mx_added_find(set, text, length, done, e->flags & MX_TOKENIZER_SPECIAL, &at))) {
        size_t end = at + a->length;

        MX_TRY(rest(e, text + done, (a->lstrip ? strip_left(text, done, at) : at) - done));
        MX_TRY(mx_encoding_push(e, a->id));
        done = a->rstrip ? strip_right(text, length, end) : end;
        e->first = false;
        e->after_added = true;
    }
    return rest(e, text + done, length - done);
}

static mx_code add_normal(mx_encoding *e, size_t *used, const char *text, size_t length) {
    MX_TRY(mx_encoding_grow(&e->normal, &e->normal_capacity, *used + length, 1, e->st));
    memcpy(e->normal + *used, text, length);
    *used += length;
    return MX_OK;
}

/* NFC of every valid run; other bytes stay. */
static mx_code normalize(mx_encoding *e, const char *text, size_t length, size_t *ret_length) {
    size_t used = 0;

    while (length) {
        size_t n = valid_run(text, length);

        if (n) {
            utf8proc_uint8_t *composed = NULL;
            utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &composed,
                                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE);
            mx_code code;

            if (size < 0) {
                return mx_fail(e->st, size == UTF8PROC_ERROR_NOMEM ? MX_E_MEMORY : MX_E_DATA, MX_NOWHERE,
                               "a text of %zu bytes cannot be normalised: %s", n, utf8proc_errmsg(size));
            }
            code = add_normal(e, &used, (char *)composed, (size_t)size);
            free(composed);
            MX_TRY(code);
        } else {
            n = 1;
            MX_TRY(add_normal(e, &used, text, 1));
        }
        text += n;
        length -= n;
    }
    *ret_length = used;
    return MX_OK;
}

static mx_code encode_fragment(mx_encoding *e, const char *text, size_t length) {
    if (length == 0) {
        return MX_OK;
    }
    if (e->t->normalize_nfc) {
        MX_TRY(normalize(e, text, length, &length));
        text = e->normal;
    }
    if (e->t->added_normalized.count) {
        return encode_added(e, &e->t->added_normalized, text, length, encode_plain);
    }
    return encode_plain(e, text, length);
}

mx_code mx_tokenizer_encode(const mx_tokenizer *t, const char *text, size_t length, unsigned flags, mx_tokens *out,
                            mx_status *st) {
    mx_encoding e = { .t = t, .out = out, .st = st, .flags = flags, .first = true };
    mx_code code = MX_OK;

    if (length > MX_TOKENIZER_TEXT_MAX) {
        return mx_fail(st, MX_E_DATA, MX_NOWHERE, "a text of %zu bytes is longer than can be encoded at once", length);
    }
    if (flags & MX_TOKENIZER_RULES && t->rule.add_bos) {
        code = mx_encoding_push(&e, t->rule.bos);
    }
    if (!code) {
        code = encode_added(&e, &t->added_raw, text, length, encode_fragment);
    }
    if (!code && flags & MX_TOKENIZER_RULES && t->rule.add_eos) {
        code = mx_encoding_push(&e, t->rule.eos);
    }
    for (size_t i = 0; i < MX_SPLIT_STEPS_MAX; i++) {
        pcre2_match_data_free(e.match[i]);
    }
    free(e.symbol);
    free(e.heap);
    free(e.spelled);
    free(e.normal);
    return code;
}

/* --- decoding --- */

/* The value of "<0x0A>", or -1. */
static int byte_value(const mx_tokenizer *t, int32_t id) {
    size_t length;
    const char *token = mx_vocab_text(&t->vocab, id, &length);
    unsigned value;
    char end;

    if (t->vocab.type[id] != MX_TOKEN_BYTE || length != 6 || sscanf(token, "<0x%2x%c", &value, &end) != 2 ||
        end != '>') {
        return -1;
    }
    return (int)value;
}

static void decode_plain(const mx_tokenizer *t, int32_t id, bool drop_space, mx_text *out) {
    size_t length;
    const char *token = mx_vocab_text(&t->vocab, id, &length);
    int byte = byte_value(t, id);

    if (byte >= 0) {
        char raw = (char)byte;

        mx_text_add(out, &raw, 1);
    } else if (t->vocab.type[id] == MX_TOKEN_USER_DEFINED) {
        mx_text_add(out, token, length);
    } else if (t->byte_level) {
        mx_bpe_decode(token, length, out);
    } else {
        mx_spm_decode(token, length, drop_space, out);
    }
}

mx_code mx_tokenizer_decode(const mx_tokenizer *t, const int32_t *id, size_t count, unsigned flags, mx_text *out,
                            mx_status *st) {
    bool prefix = t->prefix != MX_PREFIX_NEVER; /* a space stands here that encode has put in */

    for (size_t i = 0; i < count; i++) {
        if (id[i] < 0 || id[i] >= t->vocab.count) {
            return mx_fail(st, MX_E_DATA, MX_NOWHERE, "the token id %d is outside the vocabulary, 0 to %d", id[i],
                           t->vocab.count - 1);
        }
        if (mx_tokenizer_is_control(t, id[i])) {
            if (flags & MX_TOKENIZER_SPECIAL) {
                size_t length;
                const char *token = mx_vocab_text(&t->vocab, id[i], &length);

                mx_text_add(out, token, length);
            }
        } else {
            decode_plain(t, id[i], prefix, out);
        }
        if (t->prefix == MX_PREFIX_ALWAYS) {
            prefix = mx_tokenizer_is_control(t, id[i]) || t->vocab.type[id[i]] == MX_TOKEN_USER_DEFINED;
        } else {
            prefix = prefix && i == 0 && t->rule.add_bos && id[i] == t->rule.bos;
        }
    }
    return MX_OK;
}

/* --- what it is --- */

const mx_tokenizer_rule *mx_tokenizer_rules(const mx_tokenizer *t) {
    return &t->rule;
}

int32_t mx_tokenizer_size(const mx_tokenizer *t) {
    return t->vocab.count;
}

const char *mx_tokenizer_token(const mx_tokenizer *t, int32_t id, size_t *ret_length) {
    *ret_length = 0;
    return id >= 0 && id < t->vocab.count ? mx_vocab_text(&t->vocab, id, ret_length) : NULL;
}

int32_t mx_tokenizer_find(const mx_tokenizer *t, const char *token, size_t length) {
    return mx_vocab_find(&t->vocab, token, length);
}

bool mx_tokenizer_is_control(const mx_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->vocab.count &&
           (t->vocab.type[id] == MX_TOKEN_CONTROL || t->vocab.type[id] == MX_TOKEN_UNKNOWN);
}

const char *mx_tokenizer_name(const mx_tokenizer *t) {
    return t->name;
}

const char *mx_tokenizer_sha256(const mx_tokenizer *t) {
    return t->sha256;
}
