/* encode.h - questions become tokens, as lm-evaluation-harness encodes a context and its continuation.
 *
 * Trailing spaces of the context move to the continuation; the context is encoded alone, context and continuation
 * together, and the continuation's tokens are what the second has beyond the length of the first. An empty context is
 * the BOS token, or EOS where there is no BOS. The tokenizer's own BOS rule holds; its EOS rule does not.
 *
 * Too long. A sequence feeds at most sequence_len tokens (the last token is only predicted, never fed).
 *   loglikelihood: tokens are dropped from the left (BOS too), each choice by itself, as the harness does; a question it
 *                  happens to has no shared context any more.
 *   reference:     the prompt's first tokens are kept, and as many dropped from its end as the answer needs room: an
 *                  answer is never cut. A prompt that is only asked (label_logits) keeps its first sequence_len.
 * A continuation that does not fit by itself is MX_E_DATA. Both are counted in mx_encoded_list. */
#ifndef DATASETS_ENCODE_H
#define DATASETS_ENCODE_H

#include "datasets/question.h"
#include "model/tokenizer.h"

typedef enum mx_ask {
    MX_ASK_CHOICES, /* every choice's continuation: objective choice, protocol loglikelihood */
    MX_ASK_ANSWER,  /* the right choice's continuation: objective language_model */
    MX_ASK_LABEL,   /* the prompt alone, its last row: protocol label_logits */
} mx_ask;

typedef struct mx_encode_options {
    mx_prompt_form form;
    mx_ask ask;
    bool loss_on_all; /* MX_ASK_ANSWER: every token but the first bears loss */
    bool add_eos;     /* EOS closes each continuation and bears loss */
    int64_t sequence_len;
} mx_encode_options;

/* One sequence: token[0 .. count); targets are token[first_target .. count). */
typedef struct mx_encoded_sequence {
    const int32_t *token;
    int32_t count, first_target;
    int32_t choice;
} mx_encoded_sequence;

typedef struct mx_encoded {
    const mx_question *question;
    const mx_encoded_sequence *sequence; /* ordered by choice */
    int32_t sequences;
    int32_t prefix; /* > 0: all sequences begin with the same tokens, this many, and no target among them */
    bool label;     /* MX_ASK_LABEL: nothing is predicted, the last row is asked */
    bool truncated;
} mx_encoded;

typedef struct mx_encoded_list {
    mx_encoded *item;
    int64_t count;
    int64_t truncated, tokens_dropped; /* questions that were too long, and by how much altogether */
    int64_t longest;                   /* tokens of the longest sequence, before truncation */
} mx_encoded_list;

MX_MUST_CHECK mx_code mx_encode(const mx_questions *questions, const mx_tokenizer *tokenizer, const mx_encode_options *o,
                                mx_arena *arena, mx_encoded_list *ret, mx_status *st);

/* The ids label_logits compares: for each of the task's candidates the last sub-token of " " + label (TASKS.md 4.2).
 * MX_E_DATA when two candidates end in the same one. */
MX_MUST_CHECK mx_code mx_label_ids(const mx_task *task, const mx_tokenizer *tokenizer, mx_arena *arena, int32_t **ret_id,
                                   int32_t *ret_count, mx_status *st);
/* Which candidate the question's right label is; -1 when not known. */
int32_t mx_label_gold(const mx_question *q);

#endif
