/* tokens.h - what tokenizer tests share: llama.cpp's vocabulary vectors, round trips, ids compared. */
#ifndef TESTS_SUPPORT_TOKENS_H
#define TESTS_SUPPORT_TOKENS_H

#include "base/json.h"
#include "base/rng.h"
#include "model/hub.h"
#include "model/tokenizer.h"
#include "tests/support/made_file.h"

#include <criterion/criterion.h>
#include <math.h>

/* $MIXRUN_TEST_MODELS/`name`, or the test is skipped. In a static buffer. */
static inline const char *tokens_model(const char *name) {
    static char path[4096];
    const char *models = getenv("MIXRUN_TEST_MODELS");

    if (!models) {
        cr_skip_test("MIXRUN_TEST_MODELS is not set");
    }
    snprintf(path, sizeof path, "%s/%s", models, name);
    if (!mx_file_exists(path) && !mx_folder_exists(path)) {
        cr_skip_test("%s is absent", path);
    }
    return path;
}

static inline mx_tokenizer *tokens_open(const char *path) {
    mx_status st = { 0 };
    mx_arena arena;
    mx_tokenizer *t;

    mx_arena_init(&arena, 1 << 20);
    if (mx_tokenizer_open(path, &arena, &t, &st)) {
        mx_status_print(&st, stderr);
        cr_assert_fail("%s does not open", path);
    }
    mx_arena_finish(&arena);
    return t;
}

/* The default base's tokenizer, from the Hugging Face cache, or the test is skipped. */
static inline mx_tokenizer *tokens_open_base(void) {
    mx_status st = { 0 };
    mx_hub_base base;
    mx_arena arena;
    mx_tokenizer *t;

    mx_arena_init(&arena, 1 << 20);
    if (mx_hub_resolve("smollm2-135m-instruct", MX_NOWHERE, &arena, &base, &st)) {
        cr_skip_test("%s", st.text);
    }
    t = tokens_open(base.path);
    mx_arena_finish(&arena);
    return t;
}

static inline mx_tokens tokens_encode(const mx_tokenizer *t, const char *text, size_t length, unsigned flags) {
    mx_tokens list = { 0 };
    mx_status st = { 0 };

    cr_assert_eq(mx_tokenizer_encode(t, text, length, flags, &list, &st), MX_OK, "%s", st.text);
    return list;
}

/* "12 7 99" of a list, in the text. */
static inline const char *tokens_print(const int32_t *id, size_t count, mx_text *to) {
    mx_text_init(to, 1 << 24);
    for (size_t i = 0; i < count; i++) {
        mx_text_print(to, i ? " %d" : "%d", id[i]);
    }
    return to->data ? to->data : "";
}

/* Ids written "12 7 99" are those of the text. */
static inline void tokens_expect(const mx_tokenizer *t, const char *text, size_t length, unsigned flags,
                                 const char *ids) {
    mx_tokens list = tokens_encode(t, text, length, flags);
    mx_text print;

    cr_expect_str_eq(tokens_print(list.id, list.count, &print), ids, "'%s' gives %s in place of %s", text, print.data,
                     ids);
    mx_text_finish(&print);
    mx_tokens_finish(&list);
}

/* The text comes back from its ids, byte by byte, unless bytes were said to be lost. */
static inline void tokens_expect_return(const mx_tokenizer *t, const char *text, size_t length, unsigned flags) {
    mx_tokens list = tokens_encode(t, text, length, flags);
    mx_status st = { 0 };
    mx_text back;

    mx_text_init(&back, 1 << 24);
    cr_assert_eq(mx_tokenizer_decode(t, list.id, list.count, flags, &back, &st), MX_OK, "%s", st.text);
    cr_expect(list.lost == 0 && back.length == length && (!length || memcmp(back.data, text, length) == 0),
              "'%.*s' comes back as '%s', %zu bytes lost", (int)length, text, back.data ? back.data : "", list.lost);
    mx_text_finish(&back);
    mx_tokens_finish(&list);
}

/* Random texts of the sorts that break tokenizers: runs of spaces, digits, letters, marks, emoji, any
 * character of Unicode; in every fourth text also single bytes of 128 and above, when `any_bytes`. Bytes below
 * 32 but for white space only when `controls`: some vocabularies lack them. */
static inline size_t tokens_random_text(mx_rng *rng, bool any_bytes, bool controls, char *to, size_t room) {
    static const char *const PART[] = { " ",  "  ",  "\n",   "\r\n",       "\t",      "a",      "THE",    "'ll",
                                        "'S", "7",   "1234", "é",          "ü",       "ſ",      "ß",      "我",
                                        "ក",  "े",    "🦙", "½",          "\u00a0",  "\u3000", "\u180e", "\xC2\x85",
                                        "¿",  "...", "<s>",  "<|im_end|>", "e\u0301", "_",      "\u200d" };
    size_t used = 0, parts = mx_rng_below(rng, 60);
    bool wild = any_bytes && mx_rng_below(rng, 4) == 0;

    for (size_t i = 0; i < parts && used + 16 < room; i++) {
        uint64_t kind = mx_rng_below(rng, wild ? 5 : 4);

        if (kind < 3) {
            const char *part = PART[mx_rng_below(rng, sizeof PART / sizeof *PART)];

            memcpy(to + used, part, strlen(part));
            used += strlen(part);
        } else if (kind == 3) {
            uint32_t c = (uint32_t)mx_rng_below(rng, mx_rng_below(rng, 2) ? 0x3000 : 0x30000);

            if (c == 0x2581 || (c >= 0xD800 && c < 0xE000) || (c < 32 && !controls)) {
                c = 'x'; /* U+2581 is SentencePiece's sign for the space and does not come back */
            }
            if (c < 0x80) {
                to[used++] = (char)c;
            } else if (c < 0x800) {
                to[used++] = (char)(0xC0 | c >> 6);
                to[used++] = (char)(0x80 | (c & 0x3F));
            } else {
                used += c >= 0x10000;
                if (c >= 0x10000) {
                    to[used - 1] = (char)(0xF0 | c >> 18);
                }
                to[used++] = (char)(c >= 0x10000 ? 0x80 | ((c >> 12) & 0x3F) : 0xE0 | c >> 12);
                to[used++] = (char)(0x80 | ((c >> 6) & 0x3F));
                to[used++] = (char)(0x80 | (c & 0x3F));
            }
        } else {
            to[used++] = (char)(0x80 + mx_rng_below(rng, 128));
        }
    }
    return used;
}

/* llama.cpp's vectors: vocab/NAME.gguf.inp holds texts, each followed by a line "__ggml_vocab_test__", and
 * vocab/NAME.gguf.out a line of ids for each. Returns how many were held against it. */
static inline size_t tokens_check_vectors(const mx_tokenizer *t, const char *name) {
    static const char MARK[] = "\n__ggml_vocab_test__\n";
    char file[256], *texts, *ids, *line, *text;
    mx_status st = { 0 };
    size_t size, count = 0;

    snprintf(file, sizeof file, "vocab/ggml-vocab-%s.gguf.inp", name);
    cr_assert_eq(mx_file_read(tokens_model(file), 1 << 20, &texts, &size, &st), MX_OK, "%s", st.text);
    snprintf(file, sizeof file, "vocab/ggml-vocab-%s.gguf.out", name);
    cr_assert_eq(mx_file_read(tokens_model(file), 1 << 20, &ids, &size, &st), MX_OK, "%s", st.text);
    line = ids;
    text = texts;
    for (char *end; (end = strstr(text, MARK)); text = end + strlen(MARK)) {
        char *next = strchr(line, '\n');

        cr_assert(next, "%s.out has fewer lines than %s.inp texts", name, name);
        *next = *end = '\0';
        tokens_expect(t, text, strlen(text), 0, line + (*line == ' '));
        tokens_expect_return(t, text, strlen(text), 0);
        line = next + 1;
        count++;
    }
    cr_expect(!*text && !*line, "%s: texts or ids are left over", name);
    free(texts);
    free(ids);
    return count;
}

#endif
