/* tokenizer.c - GGUF's and SentencePiece's tokenizers against llama.cpp's vectors; round trips; damaged files. */
#include "model/tokenizer.h"

#include "tests/support/tokens.h"

enum { VECTORS = 46 }; /* texts in each of llama.cpp's files */

Test(tokenizer, gpt2_equals_llama_cpp_on_46_texts) {
    mx_tokenizer *t = tokens_open(tokens_model("vocab/ggml-vocab-gpt-2.gguf"));

    cr_expect_eq(tokens_check_vectors(t, "gpt-2"), VECTORS);
    cr_expect_eq(mx_tokenizer_size(t), 50257);
    cr_expect_eq(mx_tokenizer_rules(t)->eos, 50256);
    cr_expect_not(mx_tokenizer_rules(t)->add_bos);
    mx_tokenizer_close(t);
}

Test(tokenizer, llama_spm_equals_llama_cpp_on_46_texts) {
    mx_tokenizer *t = tokens_open(tokens_model("vocab/ggml-vocab-llama-spm.gguf"));

    cr_expect_eq(tokens_check_vectors(t, "llama-spm"), VECTORS);
    tokens_expect(t, "Hello", 5, MX_TOKENIZER_RULES, "1 15043");
    tokens_expect(t, "", 0, MX_TOKENIZER_RULES, "1");
    mx_tokenizer_close(t);
}

Test(tokenizer, phi3_equals_llama_cpp_on_46_texts) {
    mx_tokenizer *t = tokens_open(tokens_model("vocab/ggml-vocab-phi-3.gguf"));

    cr_expect_eq(tokens_check_vectors(t, "phi-3"), VECTORS);
    mx_tokenizer_close(t);
}

/* In the file </s> is user-defined and <|end|> a control token; both take the white space after them along. */
Test(tokenizer, phi3s_own_tokens_take_the_space_after_them) {
    mx_tokenizer *t = tokens_open(tokens_model("vocab/ggml-vocab-phi-3.gguf"));

    tokens_expect(t, "<|end|>\n Hello", 14, MX_TOKENIZER_SPECIAL, "32007 15043");
    tokens_expect(t, "Hello</s> \t\n", 12, 0, "15043 2");
    tokens_expect(t, "<|endoftext|>  Hello", 20, MX_TOKENIZER_SPECIAL, "32000 259 15043"); /* not this one */
    mx_tokenizer_close(t);
}

Test(tokenizer, tokenizer_model_of_llama2_equals_llama_cpp_on_46_texts) {
    mx_tokenizer *t = tokens_open(tokens_model("llama2-tokenizer"));
    mx_tokenizer *gguf = tokens_open(tokens_model("vocab/ggml-vocab-llama-spm.gguf"));

    cr_expect_eq(tokens_check_vectors(t, "llama-spm"), VECTORS);
    cr_expect_eq(mx_tokenizer_rules(t)->bos, 1);
    cr_expect(mx_tokenizer_rules(t)->add_bos && !mx_tokenizer_rules(t)->add_eos);
    cr_expect_str_eq(mx_tokenizer_sha256(t), mx_tokenizer_sha256(gguf), "the same tokenizer has the same hash");
    mx_tokenizer_close(t);
    mx_tokenizer_close(gguf);
}

Test(tokenizer, the_default_base_equals_llama_cpp_on_46_texts) {
    mx_tokenizer *t = tokens_open_base();

    cr_expect_eq(tokens_check_vectors(t, "smollm.history"), VECTORS);
    cr_expect_eq(mx_tokenizer_size(t), 49152);
    cr_expect_eq(mx_tokenizer_rules(t)->bos, 1);
    cr_expect_eq(mx_tokenizer_rules(t)->eos, 2);
    cr_expect_not(mx_tokenizer_rules(t)->add_bos);
    cr_expect_str_eq(mx_tokenizer_name(t), "byte-level BPE, smollm, 49,152 tokens");
    mx_tokenizer_close(t);
}

Test(tokenizer, the_default_base_has_the_ids_of_the_golden_prompts) {
    const char *vectors = getenv("MIXRUN_VECTORS");
    char path[4096];
    mx_status st = { 0 };
    mx_tokenizer *t;
    json_t *root, *prompt;
    size_t i, j;

    snprintf(path, sizeof path, "%s/smollm2/expected.json", vectors ? vectors : "");
    if (!vectors || !mx_file_exists(path)) {
        cr_skip_test("MIXRUN_VECTORS is not set or has no smollm2/expected.json");
    }
    t = tokens_open_base();
    cr_assert_eq(mx_json_read(path, 1 << 20, &root, &st), MX_OK, "%s", st.text);
    json_array_foreach (json_object_get(root, "prompts"), i, prompt) {
        const char *text = json_string_value(json_object_get(prompt, "text"));
        json_t *ids = json_object_get(prompt, "ids"), *id;
        mx_text line;

        mx_text_init(&line, 1 << 20);
        json_array_foreach (ids, j, id) {
            mx_text_print(&line, j ? " %d" : "%d", (int)json_integer_value(id));
        }
        tokens_expect(t, text, strlen(text), MX_TOKENIZER_RULES, line.data);
        mx_text_finish(&line);
    }
    cr_expect_eq(i, 8, "%zu prompts", i);
    json_decref(root);
    mx_tokenizer_close(t);
}

Test(tokenizer, control_tokens_in_a_text_are_characters_unless_asked_for) {
    static const char chat[] = "<|im_start|>user\nHi<|im_end|>";
    mx_tokenizer *t = tokens_open_base();
    mx_tokens plain = tokens_encode(t, chat, strlen(chat), 0);
    mx_tokens special = tokens_encode(t, chat, strlen(chat), MX_TOKENIZER_SPECIAL);
    mx_status st = { 0 };
    mx_text text;

    for (size_t i = 0; i < plain.count; i++) {
        cr_expect_not(mx_tokenizer_is_control(t, plain.id[i]));
    }
    cr_expect_eq(special.id[0], 1);
    cr_expect_eq(special.id[special.count - 1], 2);
    mx_text_init(&text, 1 << 10);
    cr_assert_eq(mx_tokenizer_decode(t, special.id, special.count, 0, &text, &st), MX_OK);
    cr_expect_str_eq(text.data, "user\nHi");
    tokens_expect_return(t, chat, strlen(chat), 0);
    tokens_expect_return(t, chat, strlen(chat), MX_TOKENIZER_SPECIAL);
    mx_text_finish(&text);
    mx_tokens_finish(&plain);
    mx_tokens_finish(&special);
    mx_tokenizer_close(t);
}

/* SmolLM2's vocabulary lacks 21 bytes: 0xC0, 0xC1, 0xF1, 0xF2, 0xF5-0xFF and six control characters. */
Test(tokenizer, bytes_without_a_token_are_counted_as_lost) {
    mx_tokenizer *t = tokens_open_base();
    mx_tokens list = tokens_encode(t, "a\x04z\xFF", 4, 0);

    cr_expect_eq(list.lost, 2);
    cr_expect_eq(list.count, 2);
    mx_tokens_finish(&list);
    mx_tokenizer_close(t);
}

static void round_trips(const char *model, bool controls) {
    mx_tokenizer *t = model ? tokens_open(tokens_model(model)) : tokens_open_base();
    char text[1024];
    mx_rng rng;

    mx_rng_init(&rng, 7, "texts");
    for (int i = 0; i < 2000; i++) {
        size_t length = tokens_random_text(&rng, model != NULL, controls, text, sizeof text);

        tokens_expect_return(t, text, length, 0);
    }
    tokens_expect_return(t, "a\0b", 3, 0);
    mx_tokenizer_close(t);
}

Test(tokenizer, any_bytes_come_back_from_gpt2) {
    round_trips("vocab/ggml-vocab-gpt-2.gguf", true);
}

Test(tokenizer, any_bytes_come_back_from_llama_spm) {
    round_trips("vocab/ggml-vocab-llama-spm.gguf", true);
}

Test(tokenizer, any_bytes_come_back_from_tokenizer_model) {
    round_trips("llama2-tokenizer", true);
}

Test(tokenizer, any_utf8_the_default_base_has_bytes_for_comes_back) {
    round_trips(NULL, false);
}

Test(tokenizer, a_long_text_of_one_piece_takes_no_quadratic_time) {
    static const char *const MODEL[] = { "vocab/ggml-vocab-gpt-2.gguf", "vocab/ggml-vocab-llama-spm.gguf" };
    enum { LENGTH = 1 << 20 };
    char *text = malloc(LENGTH);

    for (size_t i = 0; i < 2; i++) { /* minutes if every merge scanned the piece */
        mx_tokenizer *t = tokens_open(tokens_model(MODEL[i]));

        memset(text, i ? ' ' : 'a', LENGTH);
        tokens_expect_return(t, text, LENGTH, 0);
        mx_tokenizer_close(t);
    }
    free(text);
}

Test(tokenizer, ids_outside_the_vocabulary_are_refused_by_decode) {
    mx_tokenizer *t = tokens_open(tokens_model("vocab/ggml-vocab-gpt-2.gguf"));
    const int32_t bad[] = { -1, 50257, INT32_MAX, INT32_MIN };
    mx_text out;
    size_t length;

    mx_text_init(&out, 1 << 10);
    for (size_t i = 0; i < 4; i++) {
        mx_status st = { 0 };

        cr_expect_eq(mx_tokenizer_decode(t, &bad[i], 1, 0, &out, &st), MX_E_DATA);
        cr_expect_null(mx_tokenizer_token(t, bad[i], &length));
        cr_expect_not(mx_tokenizer_is_control(t, bad[i]));
    }
    cr_expect_str_eq(mx_tokenizer_token(t, 50256, &length), "<|endoftext|>");
    cr_expect_eq(mx_tokenizer_find(t, "<|endoftext|>", 13), 50256);
    cr_expect_eq(mx_tokenizer_find(t, "", 0), -1);
    mx_text_finish(&out);
    mx_tokenizer_close(t);
}

/* --- made files --- */

/* What a test wants of a small GGUF; NULL: the key is left out. */
typedef struct small {
    const char *model, *pre;
    const char *tokens[16];
    uint32_t types[16];
    float scores[16];
    const char *merges[8];
    const char *key; /* one more, a number */
    uint32_t value;
    size_t types_less; /* how many types and scores are missing at the end */
} small;

static size_t count_texts(const char *const *text, size_t limit) {
    size_t n = 0;

    while (n < limit && text[n]) {
        n++;
    }
    return n;
}

static void put_list(made *m, const char *key, uint32_t type, size_t count) {
    made_text(m, key);
    made_u32(m, GGUF_LIST);
    made_u32(m, type);
    made_u64(m, count);
}

static made small_gguf(const small *s) {
    size_t tokens = count_texts(s->tokens, 16), merges = count_texts(s->merges, 8), typed = tokens - s->types_less;
    made m = { 0 };

    gguf_begin(&m, 3, 0, 4 + (s->model != NULL) + (s->pre != NULL) + (s->key != NULL));
    if (s->model) {
        gguf_key_text(&m, "tokenizer.ggml.model", s->model);
    }
    if (s->pre) {
        gguf_key_text(&m, "tokenizer.ggml.pre", s->pre);
    }
    if (s->key) {
        gguf_key_u32(&m, s->key, s->value);
    }
    put_list(&m, "tokenizer.ggml.tokens", GGUF_TEXT, tokens);
    for (size_t i = 0; i < tokens; i++) {
        made_text(&m, s->tokens[i]);
    }
    put_list(&m, "tokenizer.ggml.token_type", GGUF_U32, typed);
    for (size_t i = 0; i < typed; i++) {
        made_u32(&m, s->types[i] ? s->types[i] : 1);
    }
    put_list(&m, "tokenizer.ggml.scores", GGUF_F32, typed);
    for (size_t i = 0; i < typed; i++) {
        made_f32(&m, s->scores[i]);
    }
    put_list(&m, "tokenizer.ggml.merges", GGUF_TEXT, merges);
    for (size_t i = 0; i < merges; i++) {
        made_text(&m, s->merges[i]);
    }
    return m;
}

static mx_code open_small(const small *s, mx_tokenizer **ret, mx_status *st) {
    made m = small_gguf(s);
    mx_gguf *g;
    mx_code code;

    *ret = NULL;
    *st = (mx_status){ 0 };
    cr_assert_eq(mx_gguf_parse(m.bytes, m.size, "small.gguf", &g, st), MX_OK, "%s", st->text);
    code = mx_tokenizer_open_gguf(g, ret, st);
    mx_gguf_close(g);
    made_finish(&m);
    return code;
}

static void expect_refused(const char *what, const small *s, const char *words) {
    mx_status st;
    mx_tokenizer *t;

    cr_expect_eq(open_small(s, &t, &st), MX_E_DATA, "%s", what);
    cr_expect_null(t);
    cr_expect(strstr(st.text, words), "%s: says '%s', without '%s'", what, st.text, words);
    cr_expect_str_eq(st.at.file, "small.gguf");
}

Test(tokenizer, wrong_gguf_is_refused_in_words) {
    expect_refused("no model", &(small){ .tokens = { "a" } }, "'tokenizer.ggml.model' is missing");
    expect_refused("wordpiece", &(small){ .model = "bert", .tokens = { "a" } },
                   "the tokenizer model 'bert' is not supported; known are gpt2 and llama");
    expect_refused("no pre", &(small){ .model = "gpt2", .tokens = { "a" } }, "'tokenizer.ggml.pre' is missing");
    expect_refused("another pre", &(small){ .model = "gpt2", .pre = "qwen2", .tokens = { "a" } },
                   "the pre-tokenizer 'qwen2' is not supported; known are gpt-2, llama-bpe and smollm");
    expect_refused("no tokens", &(small){ .model = "gpt2", .pre = "gpt-2" }, "the vocabulary has 0 tokens");
    expect_refused("twins", &(small){ .model = "gpt2", .pre = "gpt-2", .tokens = { "a", "b", "a" } },
                   "tokens 0 and 2 are both spelled 'a'");
    expect_refused("type 9", &(small){ .model = "gpt2", .pre = "gpt-2", .tokens = { "a" }, .types = { 9 } },
                   "known types are 1 to 6");
    expect_refused("few types", &(small){ .model = "gpt2", .pre = "gpt-2", .tokens = { "a", "b" }, .types_less = 1 },
                   "'tokenizer.ggml.token_type' has 1 entries, but there are 2 tokens");
    expect_refused("nan", &(small){ .model = "llama", .tokens = { "a", "b", "c" }, .scores = { 0, NAN } },
                   "the score of token 1 is not a number");
}

Test(tokenizer, merges_and_ids_that_name_no_token_are_refused) {
    small s = { .model = "gpt2", .pre = "gpt-2", .tokens = { "a", "b", "ab", "abc" }, .merges = { "a b" } };

    s.merges[1] = "c a";
    expect_refused("left", &s, "merge 1, 'c' with 'a': its first part is no token");
    s.merges[1] = "a c";
    expect_refused("right", &s, "its second part is no token");
    s.merges[1] = "b a";
    expect_refused("result", &s, "their sum is no token");
    s.merges[1] = "a b";
    expect_refused("twice", &s, "merges 0 and 1 are the same");
    s.merges[1] = "ab";
    expect_refused("one part", &s, "merge 1 is not two parts");
    s.merges[1] = "";
    expect_refused("empty", &s, "merge 1 is not two parts");
    s.merges[1] = "a b ";
    expect_refused("trailing space", &s, "its second part is no token");
    s.merges[1] = NULL;
    s.key = "tokenizer.ggml.eos_token_id";
    s.value = 4;
    expect_refused("eos", &s, "the end-of-sequence token is 4, but the vocabulary ends at 3");
    s.value = UINT32_MAX;
    expect_refused("eos", &s, "'tokenizer.ggml.eos_token_id' is 4294967295, which is no token's id");
    s.pre = "llama-bpe";
    s.key = NULL;
    expect_refused("no bos", &s, "the beginning-of-sequence token is to be added to every text, but none is named");
}

Test(tokenizer, merging_takes_the_lowest_rank_and_the_leftmost_of_equals) {
    small s = { .model = "gpt2",
                .pre = "gpt-2",
                .tokens = { "a", "b", "c", "bc", "ab", "aa" },
                .merges = { "b c", "a b", "a a" } };
    mx_status st;
    mx_tokenizer *t;

    cr_assert_eq(open_small(&s, &t, &st), MX_OK, "%s", st.text);
    tokens_expect(t, "abc", 3, 0, "0 3"); /* bc before ab */
    tokens_expect(t, "aaa", 3, 0, "5 0"); /* the left pair */
    tokens_expect(t, "aab", 3, 0, "0 4");
    mx_tokenizer_close(t);
}

/* "<s>" can be merged from "<s" and ">", and llama.cpp lets it through. Ours is SentencePiece's rule. */
Test(tokenizer, merging_by_score_never_makes_a_control_token) {
    small s = { .model = "llama",
                .tokens = { "<unk>", "<s>", "</s>", "<", "s", ">", "<s", "\xE2\x96\x81" },
                .types = { 2, 3, 3 },
                .scores = { 0, 0, 0, -1, -1, -1, -2, -3 } };
    mx_status st;
    mx_tokenizer *t;

    cr_assert_eq(open_small(&s, &t, &st), MX_OK, "%s", st.text);
    tokens_expect(t, "<s>", 3, 0, "7 6 5");
    tokens_expect(t, "<s>", 3, MX_TOKENIZER_SPECIAL, "1");
    tokens_expect(t, "sqs", 3, MX_TOKENIZER_RULES, "1 7 4 0 4"); /* no byte tokens here: unknown */
    mx_tokenizer_close(t);
}

/* --- tokenizer.model, made and damaged --- */

static void put_varint(made *m, uint64_t v) {
    do {
        made_put(m, &(uint8_t){ (uint8_t)((v & 0x7F) | (v > 0x7F ? 0x80 : 0)) }, 1);
        v >>= 7;
    } while (v);
}

static void put_bytes(made *m, unsigned number, const void *bytes, size_t size) {
    put_varint(m, number << 3 | 2);
    put_varint(m, size);
    made_put(m, bytes, size);
}

static void put_number(made *m, unsigned number, uint64_t v) {
    put_varint(m, number << 3);
    put_varint(m, v);
}

static void put_piece(made *m, const char *text, float score, unsigned type) {
    made p = { 0 };

    put_bytes(&p, 1, text, strlen(text));
    put_varint(&p, 2 << 3 | 5);
    made_f32(&p, score);
    put_number(&p, 3, type);
    put_bytes(m, 1, p.bytes, p.size);
    made_finish(&p);
}

/* Pieces <unk> <s> </s> ▁ a b ▁a ab, then the two specs. */
static made small_model(uint64_t model_type, const char *charsmap, bool collapse) {
    made m = { 0 }, spec = { 0 };

    put_piece(&m, "<unk>", 0, 2);
    put_piece(&m, "<s>", 0, 3);
    put_piece(&m, "</s>", 0, 3);
    put_piece(&m, "\xE2\x96\x81", -5, 1);
    put_piece(&m, "a", -6, 1);
    put_piece(&m, "b", -7, 1);
    put_piece(&m,
              "\xE2\x96\x81"
              "a",
              -1, 1);
    put_piece(&m, "ab", -2, 1);
    put_number(&spec, 3, model_type);
    put_bytes(&m, 2, spec.bytes, spec.size);
    made_finish(&spec);
    put_bytes(&spec, 1, "nmt_nfkc", 8);
    put_bytes(&spec, 2, charsmap, strlen(charsmap));
    put_number(&spec, 4, collapse);
    put_bytes(&m, 3, spec.bytes, spec.size);
    made_finish(&spec);
    return m;
}

static mx_code open_model(const char *folder, const made *m, const char *config, mx_tokenizer **ret, mx_status *st) {
    char path[256];
    static mx_arena arena; /* holds the paths that *st points to */

    mx_arena_finish(&arena);
    mx_arena_init(&arena, 1 << 20);
    snprintf(path, sizeof path, "%s/tokenizer.model", folder);
    made_write(m, path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    *st = (mx_status){ 0 };
    cr_assert_eq(mx_file_write(path, config, strlen(config), st), MX_OK);
    return mx_tokenizer_open(folder, &arena, ret, st);
}

Test(tokenizer, tokenizer_model_obeys_the_config_beside_it) {
    const char *folder = made_folder();
    made m = small_model(2, "", false);
    mx_tokenizer *t;
    mx_status st;

    cr_assert_eq(open_model(folder, &m, "{}", &t, &st), MX_OK, "%s", st.text);
    tokens_expect(t, "ab a", 4, MX_TOKENIZER_RULES, "1 6 5 6");
    mx_tokenizer_close(t);
    cr_assert_eq(
        open_model(folder, &m,
                   "{\"add_bos_token\": false, \"add_eos_token\": true, \"tokenizer_class\": \"LlamaTokenizer\","
                   "\"model_max_length\": 1000000000000000019884624838656, \"pad_token\": {\"content\": \"<p>\"},"
                   "\"added_tokens_decoder\": {\"9\": {\"content\": \"<p>\", \"special\": false}}}",
                   &t, &st),
        MX_OK, "%s", st.text);
    cr_expect_eq(mx_tokenizer_size(t), 10, "id 8 is a hole");
    cr_expect_eq(mx_tokenizer_rules(t)->pad, 9);
    tokens_expect(t, "b<p>a", 5, MX_TOKENIZER_RULES, "3 5 9 6 2");
    mx_tokenizer_close(t);
    cr_expect_eq(open_model(folder, &m, "{\"tokenizer_class\": \"GemmaTokenizer\"}", &t, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "'GemmaTokenizer' is not supported"), "%s", st.text);
    cr_expect_eq(open_model(folder, &m, "{\"bos_token\": \"<bos>\"}", &t, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "bos_token is '<bos>', which is no token"), "%s", st.text);
    cr_expect_eq(open_model(folder, &m, "{\"added_tokens_decoder\": {\"4\": {\"content\": \"x\"}}}", &t, &st),
                 MX_E_DATA);
    cr_expect(strstr(st.text, "has the id 4, which is 'a' already"), "%s", st.text);
    made_finish(&m);
    made_folder_remove(folder);
}

Test(tokenizer, wrong_and_truncated_tokenizer_model_is_refused) {
    const char *folder = made_folder();
    made m = small_model(1, "", false);
    mx_tokenizer *t;
    mx_status st;

    cr_expect_eq(open_model(folder, &m, "{}", &t, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "'unigram' is not supported"), "%s", st.text);
    made_finish(&m);
    m = small_model(2, "xyz", false);
    cr_expect_eq(open_model(folder, &m, "{}", &t, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "the normalizer 'nmt_nfkc' is not supported"), "%s", st.text);
    made_finish(&m);
    m = small_model(2, "", true);
    cr_expect_eq(open_model(folder, &m, "{}", &t, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "removes extra white space"), "%s", st.text);
    made_finish(&m);
    m = small_model(2, "", false);
    for (size_t whole = m.size; m.size > 0;) {
        m.size--; /* the specs come last, so that every shorter file lacks something */
        cr_expect_eq(open_model(folder, &m, "{}", &t, &st), MX_E_DATA, "%zu bytes of %zu", m.size, whole);
    }
    put_varint(&m, 1 << 3 | 2);
    put_varint(&m, UINT64_MAX);
    cr_expect_eq(open_model(folder, &m, "{}", &t, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "longer than what is left of the file"), "%s", st.text);
    made_finish(&m);
    made_folder_remove(folder);
}

Test(tokenizer, what_is_not_there_is_said_to_be_missing) {
    const char *folder = made_folder();
    mx_status st = { 0 };
    mx_tokenizer *t;
    mx_arena arena;

    mx_arena_init(&arena, 1 << 20);
    cr_expect_eq(mx_tokenizer_open(folder, &arena, &t, &st), MX_E_MISSING);
    cr_expect(strstr(st.text, "neither tokenizer.json nor tokenizer.model"), "%s", st.text);
    st = (mx_status){ 0 };
    cr_expect_eq(mx_tokenizer_open("/nowhere/x.gguf", &arena, &t, &st), MX_E_MISSING);
    mx_arena_finish(&arena);
    made_folder_remove(folder);
}
