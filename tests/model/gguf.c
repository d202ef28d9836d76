/* gguf.c - files made here byte by byte, right and wrong; the vocabularies; the default base. */
#include "model/gguf.h"

#include "base/text.h"
#include "model/hub.h"
#include "tests/support/made_file.h"

#include <criterion/criterion.h>
#include <math.h>

enum { TYPE_F32 = 0, TYPE_Q4_1 = 3, TYPE_Q6_K = 14 };

/* A small good file: keys of several kinds, a list of texts, two tensors. */
static made good_file(uint32_t version) {
    made m = { 0 };

    gguf_begin(&m, version, 2, 6);
    gguf_key_text(&m, "general.architecture", "llama");
    gguf_key_u32(&m, "llama.block_count", 7);
    gguf_key_f32(&m, "scale", 0.5f);
    made_text(&m, "flag");
    made_u32(&m, GGUF_BOOL);
    made_put(&m, "\1", 1);
    made_text(&m, "words");
    made_u32(&m, GGUF_LIST);
    made_u32(&m, GGUF_TEXT);
    made_u64(&m, 3);
    made_text(&m, "a");
    made_text(&m, "");
    made_text(&m, "\xc4\xa0z");
    made_text(&m, "scores");
    made_u32(&m, GGUF_LIST);
    made_u32(&m, GGUF_F32);
    made_u64(&m, 2);
    made_f32(&m, -1000.0f);
    made_f32(&m, 0.25f);
    gguf_tensor(&m, "second", 3, 32, TYPE_Q4_1, 32);
    gguf_tensor(&m, "first", 5, 0, TYPE_F32, 0);
    made_align(&m, 32);
    for (int i = 0; i < 8; i++) {
        made_f32(&m, (float)i);
    }
    for (int i = 0; i < 15; i++) {
        made_u32(&m, 0x3c003c00u);
    }
    return m;
}

/* Parsed from memory of exactly its size, so that AddressSanitizer sees the first byte past it. */
static mx_code parse(const made *m, size_t size, mx_gguf **ret, uint8_t **ret_copy, mx_status *st) {
    uint8_t *copy = malloc(size ? size : 1);

    if (size) {
        memcpy(copy, m->bytes, size);
    }
    *ret_copy = copy;
    *st = (mx_status){ 0 };
    return mx_gguf_parse(copy, size, "made.gguf", ret, st);
}

static void expect_refusal(made m, const char *words) {
    uint8_t *copy;
    mx_gguf *g;
    mx_status st;
    mx_code code = parse(&m, m.size, &g, &copy, &st);

    cr_expect_eq(code, MX_E_DATA, "not refused: %s", words);
    cr_expect_str_eq(st.text, words);
    cr_expect_str_eq(st.at.file ? st.at.file : "", "made.gguf");
    mx_gguf_close(g);
    free(copy);
    made_finish(&m);
}

static void check_good(const mx_gguf *g) {
    const mx_gguf_tensor *t = mx_gguf_find(g, "second");

    cr_expect_eq(mx_gguf_tensor_count(g), 2);
    cr_expect_str_eq(mx_gguf_tensor_at(g, 0)->name, "first", "tensors come in the order of their offsets");
    cr_assert_not_null(t);
    cr_expect_eq(t->type, MX_FILE_Q4_1);
    cr_expect(t->rank == 2 && t->dim[0] == 3 && t->dim[1] == 32 && t->size == 60);
    cr_expect_eq(((const uint8_t *)t->bytes)[1], 0x3c);
    cr_expect_null(mx_gguf_find(g, "third"));
}

Test(gguf, versions_2_and_3_are_read_tensors_and_all) {
    for (uint32_t version = 2; version <= 3; version++) {
        made m = good_file(version);
        uint8_t *copy;
        mx_gguf *g;
        mx_status st;

        cr_assert_eq(parse(&m, m.size, &g, &copy, &st), MX_OK, "%s", st.text);
        check_good(g);
        mx_gguf_close(g);
        free(copy);
        made_finish(&m);
    }
}

Test(gguf, metadata_is_read_by_key_and_kind) {
    made m = good_file(3);
    mx_arena arena;
    uint8_t *copy;
    mx_gguf *g;
    mx_status st;
    int64_t n = -5;
    double x = -5;
    bool b = false, found = true;
    const char *word = NULL;
    const mx_gguf_text *words = NULL;
    const double *scores = NULL;
    size_t count = 0;

    mx_arena_init(&arena, 1 << 20);
    cr_assert_eq(parse(&m, m.size, &g, &copy, &st), MX_OK, "%s", st.text);
    cr_expect(mx_gguf_integer(g, "llama.block_count", &n, &found, &st) == MX_OK && found && n == 7);
    cr_expect(mx_gguf_integer(g, "absent", &n, &found, &st) == MX_OK && !found && n == 7);
    cr_expect(mx_gguf_real(g, "scale", &x, NULL, &st) == MX_OK && x == 0.5);
    cr_expect(mx_gguf_real(g, "llama.block_count", &x, NULL, &st) == MX_OK && x == 7);
    cr_expect(mx_gguf_boolean(g, "flag", &b, NULL, &st) == MX_OK && b);
    cr_assert_eq(mx_gguf_word(g, "general.architecture", &arena, &word, NULL, &st), MX_OK);
    cr_expect_str_eq(word, "llama");
    cr_assert_eq(mx_gguf_texts(g, "words", &arena, &words, &count, NULL, &st), MX_OK);
    cr_expect(count == 3 && words[0].length == 1 && words[1].length == 0 && words[2].length == 3);
    cr_expect_eq(memcmp(words[2].bytes, "\xc4\xa0z", 3), 0);
    cr_assert_eq(mx_gguf_numbers(g, "scores", &arena, &scores, &count, NULL, &st), MX_OK);
    cr_expect(count == 2 && scores[0] == -1000 && scores[1] == 0.25);

    cr_expect_eq(mx_gguf_integer(g, "scale", &n, NULL, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "key 'scale' is a f32, not a whole number of 63 bits");
    st = (mx_status){ 0 };
    cr_expect_eq(mx_gguf_word(g, "words", &arena, &word, NULL, &st), MX_E_DATA);
    cr_expect_str_eq(st.text, "key 'words' is a list of text, not a text");
    st = (mx_status){ 0 };
    cr_expect_eq(mx_gguf_numbers(g, "words", &arena, &scores, &count, NULL, &st), MX_E_DATA);
    mx_gguf_close(g);
    free(copy);
    made_finish(&m);
    mx_arena_finish(&arena);
}

/* A file of one tensor of 4 F32 unless told otherwise. */
static made one_tensor(const char *name, uint32_t rank, uint64_t dim, uint32_t type, uint64_t offset) {
    made m = { 0 };

    gguf_begin(&m, 3, 1, 0);
    made_text(&m, name);
    made_u32(&m, rank);
    for (uint32_t i = 0; i < rank && i < 8; i++) {
        made_u64(&m, dim);
    }
    made_u32(&m, type);
    made_u64(&m, offset);
    made_align(&m, 32);
    made_u64(&m, 0);
    made_u64(&m, 0);
    return m;
}

Test(gguf, hostile_headers_are_refused_with_words) {
    made m = { 0 };

    made_put(&m, "GGML\3\0\0\0", 8);
    expect_refusal(m, "is not a GGUF file");
    m = (made){ 0 };
    expect_refusal(m, "is not a GGUF file");
    gguf_begin(&m, 1, 0, 0);
    expect_refusal(m, "is GGUF version 1; 2 and 3 can be read");
    m = (made){ 0 };
    gguf_begin(&m, 0x03000000, 0, 0);
    expect_refusal(m, "is a big-endian GGUF; little-endian ones can be read");
    m = (made){ 0 };
    gguf_begin(&m, 3, 0, UINT64_MAX);
    expect_refusal(m, "says it has more than 9,223,372,036,854,775,807 keys, more than can be right");
    m = (made){ 0 };
    gguf_begin(&m, 3, 60000, 0);
    expect_refusal(m, "says it has 60,000 tensors, more than it has room for: is the download complete?");
    m = (made){ 0 };
    made_put(&m, "GGUF\3\0\0\0\1", 9);
    expect_refusal(m, "the file ends within its header, at byte 9: is the download complete?");
}

Test(gguf, hostile_metadata_is_refused_with_words) {
    made m = { 0 };

    gguf_begin(&m, 3, 0, 1);
    made_u64(&m, UINT64_MAX);
    made_text(&m, "padding");
    expect_refusal(m, "a key of more than 9,223,372,036,854,775,807 bytes at byte 32 goes past the file's end (47): "
                      "is the download complete?");
    m = (made){ 0 };
    gguf_begin(&m, 3, 0, 1);
    made_text(&m, "k");
    made_u32(&m, 13);
    made_u64(&m, 0);
    expect_refusal(m, "key 'k' is of kind 13; the format knows 0 to 12");
    m = (made){ 0 };
    gguf_begin(&m, 3, 0, 1);
    made_text(&m, "numbers");
    made_u32(&m, GGUF_LIST);
    made_u32(&m, GGUF_U64);
    made_u64(&m, UINT64_MAX / 8 + 2); /* times 8 is 8 again */
    made_u64(&m, 0);
    expect_refusal(m, "key 'numbers' has 2,305,843,009,213,693,953 values of kind u64, more than the rest of the file "
                      "holds: is the download complete?");
    m = (made){ 0 };
    gguf_begin(&m, 3, 0, 1);
    made_text(&m, "deep");
    made_u32(&m, GGUF_LIST);
    for (int i = 0; i < 40; i++) {
        made_u32(&m, GGUF_LIST);
        made_u64(&m, 1);
    }
    expect_refusal(m, "key 'deep' holds a list that is broken (kind 9, nesting 4)");
    m = (made){ 0 };
    gguf_begin(&m, 3, 0, 2);
    gguf_key_u32(&m, "twice", 1);
    gguf_key_u32(&m, "twice", 2);
    expect_refusal(m, "key 'twice' is there twice");
    m = (made){ 0 };
    gguf_begin(&m, 3, 0, 1);
    gguf_key_u32(&m, "general.alignment", 24);
    expect_refusal(m, "general.alignment is 24, not a power of two up to 1,048,576");
    m = (made){ 0 };
    gguf_begin(&m, 3, 0, 1);
    gguf_key_u32(&m, "bell\a", 24);
    expect_refusal(m, "a key before byte 37 holds control characters");
}

Test(gguf, hostile_tensors_are_refused_with_words) {
    made m = { 0 };

    expect_refusal(one_tensor("t", 0, 4, TYPE_F32, 0), "tensor 't' has 0 dimensions; 1 to 4 can be right");
    expect_refusal(one_tensor("t", 5, 1, TYPE_F32, 0), "tensor 't' has 5 dimensions; 1 to 4 can be right");
    expect_refusal(one_tensor("t", 1, 0, TYPE_F32, 0), "tensor 't' has a dimension of 0");
    expect_refusal(one_tensor("t", 4, 1u << 20, TYPE_F32, 0), "tensor 't' has more values than a file can hold");
    expect_refusal(one_tensor("t", 1, 4, TYPE_Q6_K, 0),
                   "tensor 't' is stored as Q6_K; can be read: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1");
    expect_refusal(one_tensor("t", 1, 4, 4, 0),
                   "tensor 't' is of the unknown type 4; can be read: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1");
    expect_refusal(one_tensor("t", 1, 33, TYPE_Q4_1, 0), "tensor 't' has rows of 33 values, not whole blocks of Q4_1");
    expect_refusal(one_tensor("t", 1, 4, TYPE_F32, 16), "tensor 't' is at offset 16, not a multiple of 32");
    expect_refusal(one_tensor("t", 1, 4, TYPE_F32, UINT64_MAX - 31), "tensor 't' is at an impossible offset");
    expect_refusal(one_tensor("blk.3.ffn_up.weight", 1, 5, TYPE_F32, 0),
                   "tensor 'blk.3.ffn_up.weight' ends at byte 116, the file has 112: is the download complete?");
    gguf_begin(&m, 3, 2, 0);
    gguf_tensor(&m, "a", 16, 0, TYPE_F32, 0);
    gguf_tensor(&m, "b", 8, 0, TYPE_F32, 32);
    made_align(&m, 32);
    made_put(&m, (uint8_t[64]){ 0 }, 64);
    expect_refusal(m, "tensors 'a' and 'b' overlap");
    m = (made){ 0 };
    gguf_begin(&m, 3, 2, 0);
    gguf_tensor(&m, "a", 8, 0, TYPE_F32, 0);
    gguf_tensor(&m, "a", 8, 0, TYPE_F32, 32);
    made_align(&m, 32);
    made_put(&m, (uint8_t[64]){ 0 }, 64);
    expect_refusal(m, "tensor 'a' is there twice");
}

Test(gguf, every_truncation_is_refused) {
    made m = good_file(3);

    for (size_t size = 0; size < m.size; size++) {
        uint8_t *copy;
        mx_gguf *g;
        mx_status st;

        cr_expect_eq(parse(&m, size, &g, &copy, &st), MX_E_DATA, "%zu of %zu bytes were taken for whole", size, m.size);
        cr_expect_null(g);
        free(copy);
    }
    made_finish(&m);
}

/* ---- real files ---- */

static mx_gguf *vocabulary(const char *name) {
    const char *folder = getenv("MIXRUN_TEST_MODELS");
    static char path[4096];
    mx_gguf *g = NULL;
    mx_status st = { 0 };

    snprintf(path, sizeof path, "%s/vocab/%s", folder ? folder : "", name);
    if (!folder || !mx_file_exists(path)) {
        cr_skip_test("MIXRUN_TEST_MODELS has no vocab/%s", name);
    }
    cr_assert_eq(mx_gguf_open(path, &g, &st), MX_OK, "%s", st.text);
    return g;
}

Test(gguf, published_vocabularies_are_read) {
    static const struct {
        const char *file, *model;
        size_t tokens, merges, scores;
    } FILES[] = {
        { "ggml-vocab-gpt-2.gguf", "gpt2", 50257, 50000, 0 },
        { "ggml-vocab-llama-spm.gguf", "llama", 32000, 0, 32000 },
        { "ggml-vocab-phi-3.gguf", "llama", 32064, 0, 32064 },
    };

    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        mx_gguf *g = vocabulary(FILES[i].file);
        size_t tokens = 0, merges = 0, scores = 0, types = 0;
        const mx_gguf_text *texts;
        const double *numbers;
        const char *model = "";
        mx_status st = { 0 };
        mx_arena arena;

        mx_arena_init(&arena, 16 << 20);
        cr_assert_eq(mx_gguf_word(g, "tokenizer.ggml.model", &arena, &model, NULL, &st), MX_OK, "%s", st.text);
        cr_assert_eq(mx_gguf_texts(g, "tokenizer.ggml.tokens", &arena, &texts, &tokens, NULL, &st), MX_OK);
        cr_assert_eq(mx_gguf_texts(g, "tokenizer.ggml.merges", &arena, &texts, &merges, NULL, &st), MX_OK);
        cr_assert_eq(mx_gguf_numbers(g, "tokenizer.ggml.scores", &arena, &numbers, &scores, NULL, &st), MX_OK);
        cr_assert_eq(mx_gguf_numbers(g, "tokenizer.ggml.token_type", &arena, &numbers, &types, NULL, &st), MX_OK);
        cr_expect_str_eq(model, FILES[i].model);
        cr_expect(tokens == FILES[i].tokens && merges == FILES[i].merges && scores == FILES[i].scores &&
                  types == tokens, "%s: %zu tokens, %zu merges, %zu scores, %zu types", FILES[i].file, tokens, merges,
                  scores, types);
        cr_expect_eq(mx_gguf_tensor_count(g), 0);
        mx_arena_finish(&arena);
        mx_gguf_close(g);
    }
}

Test(gguf, the_default_base_has_272_tensors_end_to_end) {
    mx_status st = { 0 };
    mx_hub_base base;
    mx_arena arena;
    mx_gguf *g;
    uint64_t end = 0;
    size_t by_type[MX_FILE_TYPES] = { 0 };

    mx_arena_init(&arena, 1 << 20);
    if (mx_hub_resolve("smollm2-135m-instruct", MX_NOWHERE, &arena, &base, &st)) {
        cr_skip_test("%s", st.text);
    }
    cr_assert_eq(mx_gguf_open(base.path, &g, &st), MX_OK, "%s", st.text);
    cr_expect_eq(mx_gguf_tensor_count(g), 272);
    for (size_t i = 0; i < mx_gguf_tensor_count(g); i++) {
        const mx_gguf_tensor *t = mx_gguf_tensor_at(g, i);

        by_type[t->type]++;
        cr_expect(t->offset >= end);
        end = t->offset + t->size;
    }
    cr_expect_eq(end, 98362432, "the last tensor ends where the file does");
    cr_expect(by_type[MX_FILE_Q4_1] == 210 && by_type[MX_FILE_Q8_0] == 1 && by_type[MX_FILE_F32] == 61,
              "%zu Q4_1, %zu Q8_0, %zu F32", by_type[MX_FILE_Q4_1], by_type[MX_FILE_Q8_0], by_type[MX_FILE_F32]);
    mx_gguf_close(g);
    mx_arena_finish(&arena);
}
