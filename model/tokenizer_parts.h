/* tokenizer_parts.h - the tokenizer's inside, for tokenizer*.c only.
 *
 * A reader (gguf, json, sentencepiece) fills a mx_tokenizer and calls mx_tokenizer_finish; encoding and decoding
 * then only read it. What differs between the families is held in three choices: how a text falls into pieces
 * (mx_splitter), what a piece's first symbols are (bytes or characters), and what orders their merging (ranks or
 * scores). */
#ifndef MODEL_TOKENIZER_PARTS_H
#define MODEL_TOKENIZER_PARTS_H

#include "base/file.h"
#include "base/json.h"
#include "model/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    MX_TOKENS_MAX = 1 << 22, /* the largest vocabularies in use have 2^18 tokens; bounds what a hostile file costs */
    MX_MERGES_MAX = 1 << 22,
    MX_TOKEN_BYTES_MAX = 1 << 16, /* of one token's spelling */
    MX_SPLIT_STEPS_MAX = 8,
};
#define MX_TOKENIZER_BYTES_MAX ((size_t)2 << 30) /* ceiling of a tokenizer's arena: all of the above at once */
#define MX_TOKENIZER_TEXT_MAX ((size_t)1 << 29)  /* of one text to encode: positions stay within int32 */

/* Numbered as in sentencepiece_model.proto and GGUF's tokenizer.ggml.token_type. */
typedef enum mx_token_type {
    MX_TOKEN_NORMAL = 1,
    MX_TOKEN_UNKNOWN = 2,
    MX_TOKEN_CONTROL = 3,
    MX_TOKEN_USER_DEFINED = 4,
    MX_TOKEN_UNUSED = 5,
    MX_TOKEN_BYTE = 6,
} mx_token_type;

/* A token as a reader hands it over; the bytes are copied. A zeroed piece is a hole: an id without a token. */
typedef struct mx_piece {
    const char *bytes;
    size_t length;
    float score;
    mx_token_type type;
    bool lstrip, rstrip, normalized; /* of tokens found in the text before it is split; see mx_added */
} mx_piece;

/* --- tokenizer_vocab.c: spellings, the way back, and the tokens found in the text itself --- */
typedef struct mx_vocab {
    int32_t count;
    char *pool;        /* spellings in the order of ids, each closed by 0 */
    size_t *at;        /* (count + 1) where each begins in `pool` */
    uint8_t *type;     /* (count) mx_token_type */
    float *score;      /* (count) */
    int32_t *slot;     /* open addressing over spellings; -1 is free */
    uint32_t mask;     /* slots - 1 */
    size_t longest;    /* bytes of the longest spelling */
} mx_vocab;

/* A token that is looked for in the text before anything else happens to it. */
typedef struct mx_added {
    const char *text;
    size_t length;
    int32_t id;
    bool control;        /* found only under MX_TOKENIZER_SPECIAL */
    bool lstrip, rstrip; /* takes the white space before or after it along */
} mx_added;
typedef struct mx_added_set {
    mx_added *item; /* by first byte, then longest first */
    size_t count;
    size_t first[257]; /* item[first[b]] .. item[first[b + 1]] begin with byte b */
} mx_added_set;

MX_MUST_CHECK mx_code mx_vocab_build(mx_vocab *v, mx_arena *arena, const mx_piece *piece, size_t count, mx_mark at,
                                     mx_status *st);
const char *mx_vocab_text(const mx_vocab *v, int32_t id, size_t *ret_length);
int32_t mx_vocab_find(const mx_vocab *v, const char *text, size_t length);
/* From the vocabulary's unknown, control and user-defined tokens: those of `piece` whose `normalized` is as said. */
void mx_added_build(mx_added_set *s, mx_arena *arena, const mx_vocab *v, const mx_piece *piece, bool normalized);
/* The leftmost, there the longest, at or after `from`; NULL when there is none. */
const mx_added *mx_added_find(const mx_added_set *s, const char *text, size_t length, size_t from, bool with_control,
                              size_t *ret_at);

/* --- tokenizer_split.c: regular expressions that cut a text into pieces --- */
typedef struct mx_split_step {
    pcre2_code *code;
    const char *pattern; /* as the file has it */
    bool removed;        /* what matches is thrown away; else it is a piece like what lies between */
    bool literal;
} mx_split_step;
typedef struct mx_splitter {
    mx_split_step step[MX_SPLIT_STEPS_MAX];
    size_t count;
} mx_splitter;

extern const char mx_split_gpt2[];
/* `pattern` is kept. MX_E_DATA when it does not compile or means something else to PCRE2 than to its authors. */
MX_MUST_CHECK mx_code mx_splitter_add(mx_splitter *s, mx_arena *arena, const char *pattern, bool literal, bool removed,
                                      mx_mark at, mx_status *st);
/* By the name GGUF gives it (tokenizer.ggml.pre): gpt-2, llama-bpe, smollm; others are refused by name. */
MX_MUST_CHECK mx_code mx_splitter_named(mx_splitter *s, mx_arena *arena, const char *name, mx_mark at, mx_status *st);
void mx_splitter_finish(mx_splitter *s);

/* --- the tokenizer --- */
typedef enum mx_prefix {
    MX_PREFIX_NEVER,
    MX_PREFIX_ALWAYS, /* at the beginning and after every added token, as llama.cpp and HF's Prepend have it */
    MX_PREFIX_FIRST,  /* at the beginning only, unless there is a space already (HF's Metaspace "first") */
} mx_prefix;

typedef struct mx_merge {
    int32_t left, right, result; /* ids */
    uint32_t rank;               /* lower first */
} mx_merge;

struct mx_tokenizer {
    mx_arena arena;
    mx_vocab vocab;
    mx_added_set added_raw, added_normalized; /* searched before and after the normalizer */
    mx_tokenizer_rule rule;
    const char *family, *variant; /* "byte-level BPE", "smollm" */
    const char *name;
    char sha256[MX_SHA256_TEXT];

    bool byte_level;     /* symbols are bytes in GPT-2's alphabet; else characters, with U+2581 for the space */
    bool by_score;       /* merging is ordered by the result's score; else by `merge` ranks */
    bool ignore_merges;  /* a piece that is a token is that token (LLaMA-3) */
    bool byte_fallback;  /* a character that is no token becomes its bytes' tokens */
    bool fuse_unknown;   /* neighbouring unknowns become one */
    bool normalize_nfc;
    mx_prefix prefix;
    int32_t unknown;     /* the token for what has none; -1: it is lost (and counted) */
    int32_t byte_id[256];
    mx_splitter splitter;

    mx_merge *merge; /* (merge_count) by rank */
    size_t merge_count;
    int32_t *merge_slot; /* open addressing over (left, right); -1 is free */
    uint32_t merge_mask;
};

/* The empty one a reader starts from. MX_E_MEMORY. */
MX_MUST_CHECK mx_code mx_tokenizer_new(mx_tokenizer **ret, mx_status *st);
/* Vocabulary and added tokens from the pieces; before merges are added. */
MX_MUST_CHECK mx_code mx_tokenizer_set_pieces(mx_tokenizer *t, const mx_piece *piece, size_t count, mx_mark at,
                                              mx_status *st);
/* Ids need not be without gaps, but a file of few tokens must not ask for memory for millions. */
MX_MUST_CHECK mx_code mx_tokenizer_check_gaps(size_t ids, size_t tokens, mx_mark at, mx_status *st);
/* Checks what must hold together, then name and hash. The last call of a reader. */
MX_MUST_CHECK mx_code mx_tokenizer_finish(mx_tokenizer *t, mx_mark at, mx_status *st);

/* The readers; on failure *ret is NULL. `folder` holds tokenizer.json or tokenizer.model. */
MX_MUST_CHECK mx_code mx_tokenizer_read_gguf(const mx_gguf *file, mx_tokenizer **ret, mx_status *st);
MX_MUST_CHECK mx_code mx_tokenizer_read_json(const char *folder, mx_arena *arena, mx_tokenizer **ret, mx_status *st);
MX_MUST_CHECK mx_code mx_tokenizer_read_sentencepiece(const char *folder, mx_arena *arena, mx_tokenizer **ret,
                                                      mx_status *st);

/* --- tokenizer_config.c: what the JSON files beside tokenizer.json or tokenizer.model add --- */
typedef struct mx_tokenizer_config {
    json_t *own;   /* tokenizer_config.json; NULL: none */
    json_t *model; /* config.json; NULL: none */
    mx_mark at;    /* the first of them that exists, for errors */
} mx_tokenizer_config;
MX_MUST_CHECK mx_code mx_tokenizer_config_read(const char *folder, mx_arena *arena, mx_tokenizer_config *ret,
                                               mx_status *st);
void mx_tokenizer_config_finish(mx_tokenizer_config *c);
/* One added token as HF describes it ({content, special, lstrip, ...}), laid over piece[id]; id < count. */
MX_MUST_CHECK mx_code mx_tokenizer_config_added(const json_t *entry, int64_t id, mx_piece *piece, mx_mark at,
                                                mx_status *st);
/* bos, eos, unk and pad ids: bos_token, ... of tokenizer_config.json, else bos_token_id, ... of config.json. */
MX_MUST_CHECK mx_code mx_tokenizer_config_ids(const mx_tokenizer_config *c, mx_tokenizer *t, mx_status *st);
/* add_bos_token and add_eos_token, which HF's LLaMA classes obey (and only they). */
void mx_tokenizer_config_adds(const mx_tokenizer_config *c, mx_tokenizer *t);
bool mx_tokenizer_config_is_llama(const mx_tokenizer_config *c); /* also without a class */

/* The folder readers from what is in memory. `at` names it in errors. */
MX_MUST_CHECK mx_code mx_tokenizer_parse_json(json_t *root, const mx_tokenizer_config *config, mx_mark at,
                                              mx_tokenizer **ret, mx_status *st);
MX_MUST_CHECK mx_code mx_tokenizer_parse_sentencepiece(const void *bytes, size_t size,
                                                       const mx_tokenizer_config *config, mx_mark at,
                                                       mx_tokenizer **ret, mx_status *st);

/* --- the work under way for one text --- */
typedef struct mx_symbol {
    int32_t previous, next; /* -1 at the ends */
    uint32_t at, length;    /* bytes of the piece; length 0: merged into a neighbour */
    int32_t id;             /* -1: no token */
} mx_symbol;
typedef struct mx_join {
    uint32_t key; /* lower first */
    int32_t left, right, id;
    uint32_t length; /* of both: a longer neighbour by now means that this join is stale */
} mx_join;
typedef struct mx_encoding {
    const mx_tokenizer *t;
    mx_tokens *out;
    mx_status *st;
    unsigned flags;
    bool first, after_added;         /* nothing encoded yet; right after an added token */
    mx_symbol *symbol;
    size_t symbol_count, symbol_capacity;
    mx_join *heap;
    size_t heap_count, heap_capacity;
    char *spelled, *normal;          /* a piece in GPT-2's alphabet or with U+2581; a normalised text */
    size_t spelled_capacity, normal_capacity;
    pcre2_match_data *match[MX_SPLIT_STEPS_MAX];
} mx_encoding;

MX_MUST_CHECK mx_code mx_encoding_push(mx_encoding *e, int32_t id);
/* Room for `count` items of `size`: *array grows to it, keeping its content. */
MX_MUST_CHECK mx_code mx_encoding_grow(void *array, size_t *capacity, size_t count, size_t size, mx_status *st);
/* Length of the UTF-8 character at text[0], 0 when the bytes there are none. */
size_t mx_utf8_length(const char *text, size_t left);
bool mx_utf8_is_space(const char *text, size_t length); /* Unicode's White_Space */

/* tokenizer_split.c: every piece of valid UTF-8 goes to mx_bpe_encode_piece. */
MX_MUST_CHECK mx_code mx_split_encode(mx_encoding *e, const char *text, size_t length);

/* tokenizer_merge.c: joins the symbols until nothing more can be joined. `find` says whether two neighbours of
 * `text` can be, in which order and into what; it may set `key` and `id` only. */
typedef bool mx_join_find(const mx_tokenizer *t, const char *text, const mx_symbol *left, const mx_symbol *right,
                          mx_join *ret);
MX_MUST_CHECK mx_code mx_merge_symbols(mx_encoding *e, const char *text, mx_join_find *find);

/* tokenizer_bpe.c: GPT-2's byte alphabet, merges by rank. */
void mx_bpe_bytes(mx_tokenizer *t); /* byte_id[] of a byte-level vocabulary */
MX_MUST_CHECK mx_code mx_bpe_reserve_merges(mx_tokenizer *t, size_t count, mx_mark at, mx_status *st);
MX_MUST_CHECK mx_code mx_bpe_add_merge(mx_tokenizer *t, const char *left, size_t left_length, const char *right,
                                       size_t right_length, mx_mark at, mx_status *st);
mx_join_find mx_bpe_find;
MX_MUST_CHECK mx_code mx_bpe_encode_piece(mx_encoding *e, const char *piece, size_t length);
void mx_bpe_decode(const char *token, size_t length, mx_text *out);

/* tokenizer_spm.c: characters and byte fallback, merges by score (or by rank, from tokenizer.json). */
void mx_spm_bytes(mx_tokenizer *t); /* byte_id[] from <0x00> .. <0xFF> */
MX_MUST_CHECK mx_code mx_spm_encode_fragment(mx_encoding *e, const char *text, size_t length);
void mx_spm_decode(const char *token, size_t length, bool drop_space, mx_text *out);

#endif
