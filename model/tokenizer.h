/* tokenizer.h - text to token ids and back, exactly as the base's own files say.
 *
 * Opened from what lies beside the weights: a .gguf file, or a Hugging Face folder with
 * tokenizer.json or tokenizer.model. Byte-level BPE (GPT-2, LLaMA-3, SmolLM) and
 * SentencePiece's BPE (LLaMA-1/2, Mistral, Phi-3). What the files ask for and we do not do
 * (another model, normalizer, pre-tokenizer) is refused by name when the file is opened.
 *
 * An open tokenizer never changes: any number of threads may read it at once. */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include "base/arena.h"
#include "base/status.h"
#include "base/text.h"
#include "model/gguf.h"

typedef struct mx_tokenizer mx_tokenizer;

/* MX_E_MISSING when there is no tokenizer at `path`, MX_E_DATA when it is broken or not ours to read. `arena`
 * keeps only the paths that errors point to; it must outlive `st`, not the tokenizer. */
MX_MUST_CHECK mx_code mx_tokenizer_open(const char *path, mx_arena *arena, mx_tokenizer **ret, mx_status *st);
/* From metadata already open; `file` is not needed afterwards (its path is, by the status). */
MX_MUST_CHECK mx_code mx_tokenizer_open_gguf(const mx_gguf *file, mx_tokenizer **ret, mx_status *st);
void mx_tokenizer_close(mx_tokenizer *t); /* NULL is fine */

/* A growing list of ids. Zeroed is empty; encode appends; count = 0 makes it empty again. */
typedef struct mx_tokens {
    int32_t *id;
    size_t count, capacity;
    size_t lost; /* bytes of text for which the vocabulary has neither a token nor an unknown token */
} mx_tokens;
void mx_tokens_finish(mx_tokens *list);

enum {
    /* Put the beginning-of-sequence token first and the end-of-sequence token last, each only if the
     * file's rules say so (see mx_tokenizer_rules). */
    MX_TOKENIZER_RULES = 1,
    /* Control tokens written out in the text ("<|im_start|>") become that token. Without it they are
     * ordinary characters, which is what questions and answers from data sets must be. Tokens the
     * file calls user-defined (or added, not special) are found either way. */
    MX_TOKENIZER_SPECIAL = 2,
};

/* Appends the ids of `text` (any bytes, may hold 0). Bytes that are not UTF-8 stand for themselves: each is
 * encoded alone, by its byte token, and comes back the same from decode.
 * Fails with MX_E_MEMORY, or MX_E_DATA when a regular expression of tokenizer.json gives up on the text. */
MX_MUST_CHECK mx_code mx_tokenizer_encode(const mx_tokenizer *t, const char *text, size_t length, unsigned flags,
                                          mx_tokens *out, mx_status *st);

/* Appends the text of the ids to `out`; bytes may end in the middle of a character when the ids do. Control
 * tokens are left out unless MX_TOKENIZER_SPECIAL is given. decode(encode(x)) is x, but for what the file
 * itself takes away: a normalizer's changes, bytes `lost`, and U+2581 (SentencePiece's sign for a space).
 * MX_E_DATA for an id that is not in the vocabulary. */
MX_MUST_CHECK mx_code mx_tokenizer_decode(const mx_tokenizer *t, const int32_t *id, size_t count, unsigned flags,
                                          mx_text *out, mx_status *st);

typedef struct mx_tokenizer_rule {
    int32_t bos, eos, unk, pad; /* ids, -1 where the files name none */
    bool add_bos, add_eos;      /* done by MX_TOKENIZER_RULES */
} mx_tokenizer_rule;
const mx_tokenizer_rule *mx_tokenizer_rules(const mx_tokenizer *t);

/* One more than the largest id. A base may have more embedding rows, never fewer. */
int32_t mx_tokenizer_size(const mx_tokenizer *t);
/* The token as the file spells it ("\xC4\xA0the", "<0x0A>"), 0-terminated; NULL for an id outside. */
const char *mx_tokenizer_token(const mx_tokenizer *t, int32_t id, size_t *ret_length);
/* The id spelled so in the file, or -1. */
int32_t mx_tokenizer_find(const mx_tokenizer *t, const char *token, size_t length);
/* A control token such as <|im_end|>: never part of an answer's text. */
bool mx_tokenizer_is_control(const mx_tokenizer *t, int32_t id);
/* For messages: "byte-level BPE, smollm, 49,152 tokens". */
const char *mx_tokenizer_name(const mx_tokenizer *t);
/* 64 hex digits over everything above that decides ids: vocabulary, types, scores, merges, expressions, rules. */
const char *mx_tokenizer_sha256(const mx_tokenizer *t);

#endif
