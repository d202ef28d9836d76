/* tokenizer_sentencepiece.c - SentencePiece's tokenizer.model, BPE only (LLaMA-1/2, Mistral).
 *
 * A protobuf message ModelProto (sentencepiece_model.proto): pieces in the order of ids, a TrainerSpec and a
 * NormalizerSpec. The wire format is small enough to read here: a key is field << 3 | type as a varint, and a
 * value is a varint, 4 or 8 bytes, or a length and that many bytes. Fields that do not bear on ids are skipped. */
#include "model/tokenizer_parts.h"

#include <string.h>

typedef struct wire {
    const uint8_t *at, *end;
} wire;
typedef struct field {
    uint64_t number, value; /* of types 0, 1, 5 */
    unsigned type;
    wire bytes; /* of type 2 */
} field;

static mx_code broken(const char *what, mx_mark at, mx_status *st) {
    return mx_fail(st, MX_E_DATA, at, "this is no SentencePiece model, or a damaged one: %s", what);
}

static mx_code read_varint(wire *w, uint64_t *ret, mx_mark at, mx_status *st) {
    *ret = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (w->at == w->end) {
            return broken("it ends within a number", at, st);
        }
        if (shift == 63 && *w->at > 1) {
            break;
        }
        *ret |= (uint64_t)(*w->at & 0x7F) << shift;
        if (!(*w->at++ & 0x80)) {
            return MX_OK;
        }
    }
    return broken("a number has more than 64 bits", at, st);
}

static mx_code read_fixed(wire *w, size_t size, uint64_t *ret, mx_mark at, mx_status *st) {
    *ret = 0;
    if ((size_t)(w->end - w->at) < size) {
        return broken("it ends within a number", at, st);
    }
    for (size_t i = 0; i < size; i++) {
        *ret |= (uint64_t)w->at[i] << 8 * i;
    }
    w->at += size;
    return MX_OK;
}

static mx_code read_field(wire *w, field *ret, mx_mark at, mx_status *st) {
    uint64_t key, size;

    *ret = (field){ 0 };
    MX_TRY(read_varint(w, &key, at, st));
    ret->number = key >> 3;
    ret->type = key & 7;
    switch (ret->type) {
    case 0:
        return read_varint(w, &ret->value, at, st);
    case 1:
        return read_fixed(w, 8, &ret->value, at, st);
    case 5:
        return read_fixed(w, 4, &ret->value, at, st);
    case 2:
        MX_TRY(read_varint(w, &size, at, st));
        if (size > (uint64_t)(w->end - w->at)) {
            return broken("a field is longer than what is left of the file", at, st);
        }
        ret->bytes = (wire){ w->at, w->at + size };
        w->at += size;
        return MX_OK;
    default:
        return broken("a field has a type that is not in use", at, st);
    }
}

static mx_code want(const field *f, unsigned type, const char *name, mx_mark at, mx_status *st) {
    if (f->type != type) {
        return mx_fail(st, MX_E_DATA, at, "'%s' has the wire type %u in place of %u", name, f->type, type);
    }
    return MX_OK;
}

/* SentencePiece: piece = 1, score = 2, type = 3. */
static mx_code read_piece(wire w, mx_piece *ret, mx_mark at, mx_status *st) {
    field f;

    *ret = (mx_piece){ .type = MX_TOKEN_NORMAL };
    while (w.at < w.end) {
        MX_TRY(read_field(&w, &f, at, st));
        if (f.number == 1) {
            MX_TRY(want(&f, 2, "piece", at, st));
            ret->bytes = (const char *)f.bytes.at;
            ret->length = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;

            MX_TRY(want(&f, 5, "score", at, st));
            memcpy(&ret->score, &bits, sizeof bits);
        } else if (f.number == 3) {
            MX_TRY(want(&f, 0, "type", at, st));
            ret->type = f.value <= 6 ? (mx_token_type)f.value : 0;
        }
    }
    if (!ret->length) {
        return broken("a piece is empty", at, st);
    }
    if (ret->type == MX_TOKEN_UNUSED) {
        return mx_fail(st, MX_E_DATA, at, "the piece '%.*s' is of the type UNUSED, which is not supported",
                       (int)(ret->length < 100 ? ret->length : 100), ret->bytes);
    }
    return MX_OK;
}

/* TrainerSpec: model_type = 3, treat_whitespace_as_suffix = 24, byte_fallback = 35, unk_id = 40, bos_id = 41,
 * eos_id = 42, pad_id = 43. Absent fields have the proto's defaults. */
static mx_code read_trainer(wire w, mx_tokenizer *t, mx_mark at, mx_status *st) {
    static const char *const models[] = { "(none)", "unigram", "BPE", "word", "char" };
    uint64_t model = 1;
    field f;

    while (w.at < w.end) {
        MX_TRY(read_field(&w, &f, at, st));
        if (f.number == 3) {
            model = f.value;
        } else if (f.number == 24 && f.value) {
            return mx_fail(st, MX_E_DATA, at, "the model treats white space as a suffix, which is not supported");
        } else if (f.number == 35) {
            t->byte_fallback = f.value != 0;
        } else if (f.number >= 40 && f.number <= 43) {
            int32_t *const id[] = { &t->rule.unk, &t->rule.bos, &t->rule.eos, &t->rule.pad };

            if (f.value != UINT64_MAX && f.value >= MX_TOKENS_MAX) { /* -1: there is none */
                return mx_fail(st, MX_E_DATA, at, "a special token has the id %lld", (long long)f.value);
            }
            *id[f.number - 40] = (int32_t)f.value;
        }
    }
    if (model != 2) {
        return mx_fail(st, MX_E_DATA, at, "the SentencePiece model '%s' is not supported; known is BPE",
                       model < 5 ? models[model] : "(unknown)");
    }
    return MX_OK;
}

/* NormalizerSpec: name = 1, precompiled_charsmap = 2, add_dummy_prefix = 3, remove_extra_whitespaces = 4,
 * escape_whitespaces = 5; the last three are true where they are absent. */
static mx_code read_normalizer(wire w, mx_tokenizer *t, mx_mark at, mx_status *st) {
    wire name = { 0 }, charsmap = { 0 };
    bool prefix = true, collapse = true, escape = true;
    field f;

    while (w.at < w.end) {
        MX_TRY(read_field(&w, &f, at, st));
        if (f.number == 1 || f.number == 2) {
            MX_TRY(want(&f, 2, f.number == 1 ? "name" : "precompiled_charsmap", at, st));
            *(f.number == 1 ? &name : &charsmap) = f.bytes;
        } else if (f.number >= 3 && f.number <= 5) {
            *(f.number == 3 ? &prefix : f.number == 4 ? &collapse : &escape) = f.value != 0;
        }
    }
    if (charsmap.at != charsmap.end) {
        size_t length = (size_t)(name.end - name.at);

        return mx_fail(st, MX_E_DATA, at, "the normalizer '%.*s' is not supported; known is identity",
                       (int)(length < 100 ? length : 100), length ? (const char *)name.at : "");
    }
    if (collapse || !escape) {
        return mx_fail(st, MX_E_DATA, at, "the normalizer %s, which is not supported",
                       collapse ? "removes extra white space" : "does not write spaces as U+2581");
    }
    t->prefix = prefix ? MX_PREFIX_ALWAYS : MX_PREFIX_NEVER;
    return MX_OK;
}

/* ModelProto: pieces = 1, trainer_spec = 2, normalizer_spec = 3, denormalizer_spec = 5. */
static mx_code read_model(wire w, mx_tokenizer *t, mx_piece *piece, size_t *count, mx_mark at, mx_status *st) {
    wire trainer = { 0 }, normalizer = { 0 };
    field f;

    for (*count = 0; w.at < w.end;) {
        MX_TRY(read_field(&w, &f, at, st));
        if (f.number < 1 || f.number > 3) {
            continue;
        }
        MX_TRY(want(&f, 2, f.number == 1 ? "pieces" : f.number == 2 ? "trainer_spec" : "normalizer_spec", at, st));
        if (f.number == 1 && piece) {
            MX_TRY(read_piece(f.bytes, &piece[*count], at, st));
        }
        *count += f.number == 1;
        trainer = f.number == 2 ? f.bytes : trainer;
        normalizer = f.number == 3 ? f.bytes : normalizer;
    }
    if (!piece) { /* the first pass counts */
        return MX_OK;
    }
    MX_TRY(read_trainer(trainer, t, at, st));
    return read_normalizer(normalizer, t, at, st);
}

/* transformers' added_tokens_decoder {"32000": {content, ...}}: over or after the model's own pieces. */
static mx_code read_added(const mx_tokenizer_config *c, mx_arena *arena, mx_piece **piece, size_t *count,
                          mx_status *st) {
    json_t *added = json_object_get(c->own, "added_tokens_decoder"), *entry;
    size_t larger = *count;
    mx_piece *all;
    const char *key;
    int64_t id;

    json_object_foreach (added, key, entry) {
        if (!mx_text_to_int64(key, &id) || id < 0 || id >= MX_TOKENS_MAX) {
            return mx_fail(st, MX_E_DATA, c->at, "added_tokens_decoder has the key '%.100s', which is no token's id",
                           key);
        }
        larger = (size_t)id >= larger ? (size_t)id + 1 : larger;
    }
    MX_TRY(mx_tokenizer_check_gaps(larger, *count + json_object_size(added), c->at, st));
    all = MX_TAKE(arena, mx_piece, larger);
    memcpy(all, *piece, *count * sizeof *all);
    json_object_foreach (added, key, entry) {
        if (mx_text_to_int64(key, &id)) {
            mx_token_type type = all[id].type;

            MX_TRY(mx_tokenizer_config_added(entry, id, all, c->at, st));
            all[id].type = type == MX_TOKEN_UNKNOWN ? type : all[id].type;
            all[id].normalized = false; /* there is no normalizer, so there is one search */
        }
    }
    *piece = all;
    *count = larger;
    return MX_OK;
}

static mx_code read_all(wire w, const mx_tokenizer_config *config, mx_tokenizer *t, mx_arena *arena, mx_mark at,
                        mx_status *st) {
    mx_piece *piece;
    size_t count;

    if (!mx_tokenizer_config_is_llama(config)) {
        return mx_fail(st, MX_E_DATA, config->at, "the tokenizer_class '%.100s' is not supported with tokenizer.model",
                       json_string_value(json_object_get(config->own, "tokenizer_class")));
    }
    MX_TRY(read_model(w, t, NULL, &count, at, st));
    if (count > MX_TOKENS_MAX) {
        return mx_fail(st, MX_E_DATA, at, "there are %zu pieces; %d can be read", count, MX_TOKENS_MAX);
    }
    piece = MX_TAKE(arena, mx_piece, count);
    t->by_score = true;
    t->family = "SentencePiece BPE";
    t->variant = "tokenizer.model";
    t->rule = (mx_tokenizer_rule){ .unk = 0, .bos = 1, .eos = 2, .pad = -1, .add_bos = true };
    MX_TRY(read_model(w, t, piece, &count, at, st));
    MX_TRY(read_added(config, arena, &piece, &count, st));
    MX_TRY(mx_tokenizer_set_pieces(t, piece, count, at, st));
    mx_spm_bytes(t);
    t->unknown = t->rule.unk;
    MX_TRY(mx_tokenizer_config_ids(config, t, st));
    mx_tokenizer_config_adds(config, t);
    if (t->unknown >= t->vocab.count) {
        return mx_fail(st, MX_E_DATA, at, "the unknown token is %d, but the vocabulary ends at %d", t->unknown,
                       t->vocab.count - 1);
    }
    return mx_tokenizer_finish(t, at, st);
}

mx_code mx_tokenizer_parse_sentencepiece(const void *bytes, size_t size, const mx_tokenizer_config *config, mx_mark at,
                                         mx_tokenizer **ret, mx_status *st) {
    wire w = { bytes, (const uint8_t *)bytes + size };
    mx_tokenizer *t;
    mx_arena arena;
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_tokenizer_new(&t, st));
    mx_arena_init(&arena, MX_TOKENIZER_BYTES_MAX);
    code = read_all(w, config, t, &arena, at, st);
    mx_arena_finish(&arena);
    if (code) {
        mx_tokenizer_close(t);
        return code;
    }
    *ret = t;
    return MX_OK;
}

mx_code mx_tokenizer_read_sentencepiece(const char *folder, mx_arena *arena, mx_tokenizer **ret, mx_status *st) {
    const char *path = mx_arena_text(arena, "%s/tokenizer.model", folder);
    mx_tokenizer_config config;
    mx_map map;
    mx_code code;

    *ret = NULL;
    MX_TRY(mx_tokenizer_config_read(folder, arena, &config, st));
    code = mx_map_open(path, &map, st);
    if (!code) {
        code = mx_tokenizer_parse_sentencepiece(map.data, map.size, &config, (mx_mark){ .file = path }, ret, st);
        mx_map_close(&map);
    }
    mx_tokenizer_config_finish(&config);
    return code;
}
