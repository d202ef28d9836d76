/* made_questions.h - encoded questions without a tokenizer: lengths one chooses, tokens that tell where they belong. */
#ifndef TESTS_DATASETS_MADE_QUESTIONS_H
#define TESTS_DATASETS_MADE_QUESTIONS_H

#include "datasets/encode.h"
#include "tests/datasets/material.h"

/* `choices` sequences over a context of `context` tokens; choice c has answer + c tokens more. Context tokens count from
 * 1000 * number, choice c's own from 1000 * number + 100 * (c + 1). */
static inline mx_encoded made_question(int32_t number, int32_t task, int32_t context, int32_t answer, int32_t choices,
                                       int32_t gold)
{
    mx_question *q = MX_TAKE(arena(), mx_question, 1);
    mx_encoded_sequence *s = MX_TAKE(arena(), mx_encoded_sequence, choices);

    *q = (mx_question){ .task_index = task, .number = number, .running = 10000 * task + number, .choices = choices, .gold = gold };
    for (int32_t c = 0; c < choices; c++) {
        int32_t count = context + answer + c, *token = MX_TAKE(arena(), int32_t, count);

        for (int32_t i = 0; i < count; i++) {
            token[i] = 1000 * number + (i < context ? i : 100 * (c + 1) + i - context);
        }
        s[c] = (mx_encoded_sequence){ token, count, context, c };
    }
    return (mx_encoded){ .question = q, .sequence = s, .sequences = choices, .prefix = choices > 1 ? context : 0 };
}

/* n questions of one task with lengths that vary; single: one sequence each (language_model). */
static inline mx_encoded_list made_list(int32_t task, int32_t n, bool single)
{
    mx_encoded_list list = { .item = MX_TAKE(arena(), mx_encoded, n), .count = n };

    for (int32_t i = 0; i < n; i++) {
        list.item[i] = made_question(i, task, 5 + i * 7 % 40, 1 + i % 3, single ? 1 : 2 + i % 3, 0);
    }
    return list;
}

#endif
