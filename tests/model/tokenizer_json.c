/* tokenizer_json.c - tokenizer.json: LLaMA-3's own against llama.cpp's vectors, small made ones, refusals by name. */
#include "model/tokenizer.h"

#include "tests/support/tokens.h"

Test(tokenizer_json, llama3_equals_llama_cpp_on_46_texts) {
    mx_tokenizer *t = tokens_open(tokens_model("llama3-tokenizer"));

    cr_expect_eq(tokens_check_vectors(t, "llama-bpe"), 46);
    cr_expect_eq(mx_tokenizer_size(t), 128256);
    cr_expect_eq(mx_tokenizer_rules(t)->bos, 128000);
    cr_expect_eq(mx_tokenizer_rules(t)->eos, 128001);
    cr_expect_not(mx_tokenizer_rules(t)->add_bos, "this file's post_processor adds nothing");
    tokens_expect(t, "<|begin_of_text|>Hello<|eot_id|>", 32, MX_TOKENIZER_SPECIAL, "128000 9906 128009");
    mx_tokenizer_close(t);
}

Test(tokenizer_json, any_bytes_come_back_from_llama3) {
    mx_tokenizer *t = tokens_open(tokens_model("llama3-tokenizer"));
    char text[1024];
    mx_rng rng;

    mx_rng_init(&rng, 7, "texts");
    for (int i = 0; i < 2000; i++) {
        size_t length = tokens_random_text(&rng, true, true, text, sizeof text);

        tokens_expect_return(t, text, length, 0);
        tokens_expect_return(t, text, length, MX_TOKENIZER_SPECIAL);
    }
    mx_tokenizer_close(t);
}

/* --- made files --- */

static const char *folder;

static void begin(void) {
    folder = made_folder();
}

static void end(void) {
    made_folder_remove(folder);
}

static void put_file(const char *name, const char *text) {
    char path[256];
    mx_status st = { 0 };

    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert_eq(mx_file_write(path, text, strlen(text), &st), MX_OK, "%s", st.text);
}

static mx_code open_text(const char *json, mx_tokenizer **ret, mx_status *st) {
    static mx_arena arena; /* holds the paths that *st points to */

    mx_arena_finish(&arena);
    mx_arena_init(&arena, 1 << 20);
    *st = (mx_status){ 0 };
    put_file("tokenizer.json", json);
    return mx_tokenizer_open(folder, &arena, ret, st);
}

/* One with these parts; `model` replaces everything between the braces of the model. */
static const char *with(const char *added, const char *normalizer, const char *pre, const char *post,
                        const char *model) {
    static char text[1 << 16];

    snprintf(text, sizeof text,
             "{\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, "
             "\"model\": {%s}}",
             added, normalizer, pre, post, model);
    return text;
}

#define BYTES "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define GPT2 "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}"
#define MODEL                                                                                                          \
    "\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"\u0120\": 2, \"1\": 3, \"2\": 4, \"12\": 5, \"ab\": 6, "     \
    "\"\u0120ab\": 7, \"\u00c3\": 8, \"\u00a9\": 9, \"\u00c3\u00a9\": 10, \"e\": 11, \"<\": 12, \"n\": 13}, "          \
    "\"merges\": [\"a b\", [\"\u0120\", \"ab\"], \"1 2\", \"\u00c3 \u00a9\"]"
#define ADDED(id, content, special, more)                                                                              \
    "{\"id\": " id ", \"content\": \"" content "\", \"special\": " special more "}"

static mx_tokenizer *open_good(const char *json) {
    mx_tokenizer *t;
    mx_status st;

    if (open_text(json, &t, &st)) {
        cr_assert_fail("%s", st.text);
    }
    return t;
}

Test(tokenizer_json, pre_tokenizers_split_as_their_words_say, .init = begin, .fini = end) {
    mx_tokenizer *t = open_good(with("", "null", BYTES, "null", MODEL));

    tokens_expect(t, "ab ab1212", 9, 0, "6 7 5 5");
    mx_tokenizer_close(t);
    t = open_good(with(
        "", "null",
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, " GPT2 "]}",
        "null", MODEL));
    tokens_expect(t, "ab ab12", 7, 0, "6 7 3 4");
    mx_tokenizer_close(t);
    t = open_good(
        with("", "null",
             "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \" a\"}, "
             "\"behavior\": \"Isolated\", \"invert\": false}, " BYTES "]}",
             "null", MODEL));
    tokens_expect(t, "ab ab", 5, 0, "6 2 0 1"); /* " a" stands alone, so " ab" cannot be */
    mx_tokenizer_close(t);
    t = open_good(
        with("", "null",
             "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"String\": \".\"}, "
             "\"behavior\": \"Removed\", \"invert\": false}, " BYTES "]}",
             "null", MODEL));
    tokens_expect(t, "a.b.1a2", 7, 0, "0 1 3 0 4"); /* a point, not any character */
    mx_tokenizer_close(t);
}

/* \s is Unicode's White_Space: U+180E is not in it since Unicode 6.3, U+0085 is. PCRE2's own \s has both. */
Test(tokenizer_json, white_space_in_expressions_is_unicodes, .init = begin, .fini = end) {
    static const char split[] = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
                                "{\"Regex\": \"%s\"}, \"behavior\": \"Removed\", \"invert\": false}, " BYTES "]}";
    static const char *const PATTERN[] = { "\\\\s+", "[\\\\s]", "[^\\\\S]" };
    char pre[512];
    mx_status st;
    mx_tokenizer *t;

    for (size_t i = 0; i < 2; i++) {
        mx_tokens list;

        snprintf(pre, sizeof pre, split, PATTERN[i]);
        t = open_good(with("", "null", pre, "null", MODEL));
        tokens_expect(t,
                      "a\xC2\x85"
                      "b\xE3\x80\x80"
                      "a \t\r\nb",
                      13, 0, "0 1 0 1");
        list = tokens_encode(t,
                             "a\xE1\xA0\x8E"
                             "b",
                             5, 0);
        cr_expect_eq(list.lost, 3, "U+180E is kept, and has no token here");
        mx_tokens_finish(&list);
        mx_tokenizer_close(t);
    }
    snprintf(pre, sizeof pre, split, PATTERN[2]);
    cr_expect_eq(open_text(with("", "null", pre, "null", MODEL), &t, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "uses \\S within [ ], which is not supported"), "%s", st.text);
}

Test(tokenizer_json, added_tokens_come_before_everything, .init = begin, .fini = end) {
    mx_tokenizer *t = open_good(
        with(ADDED("14", "<s>", "true", "") "," ADDED("15", "ba", "false", "") "," ADDED(
                 "16", "<m>", "false", ", \"lstrip\": true, \"rstrip\": true") "," ADDED("17", "bab", "false", ""),
             "null", GPT2, "null", MODEL));

    tokens_expect(t, "aba", 3, 0, "0 15");
    tokens_expect(t, "ababa", 5, 0, "0 17 0"); /* leftmost, then longest */
    tokens_expect(t, "a<s>b", 5, MX_TOKENIZER_SPECIAL, "0 14 1");
    tokens_expect(t, "a \xC2\xA0<m>\n b", 10, 0, "0 16 1"); /* white space on both sides goes with it */
    cr_expect(mx_tokenizer_is_control(t, 14) && !mx_tokenizer_is_control(t, 15));
    mx_tokenizer_close(t);
}

Test(tokenizer_json, nfc_composes_before_the_split, .init = begin, .fini = end) {
    mx_tokenizer *t =
        open_good(with(ADDED("14", "\u00e9n", "false", ", \"normalized\": true") "," ADDED("15", "e\u0301e", "false",
                                                                                           ", \"normalized\": false"),
                       "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}", GPT2, "null", MODEL));

    tokens_expect(t, "e\xCC\x81", 3, 0, "10");
    tokens_expect(t, "e\xCC\x81n", 4, 0, "14"); /* found in normalised text */
    tokens_expect(t,
                  "ae\xCC\x81"
                  "e",
                  5, 0, "0 15"); /* found in the text as it was */
    tokens_expect(t,
                  "\xC3\xA9"
                  "e",
                  3, 0, "10 11");
    mx_tokenizer_close(t);
}

#define TEMPLATE(parts)                                                                                                \
    "{\"type\": \"TemplateProcessing\", \"single\": [" parts "], \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", "     \
    "\"ids\": [14], \"tokens\": [\"<s>\"]}, \"</s>\": {\"id\": \"</s>\", \"ids\": [15], \"tokens\": [\"</s>\"]}}}"
#define SPECIAL(token) "{\"SpecialToken\": {\"id\": \"" token "\", \"type_id\": 0}}"
#define TEXT "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"

Test(tokenizer_json, templates_add_what_they_say, .init = begin, .fini = end) {
    static const char added[] = ADDED("14", "<s>", "true", "") "," ADDED("15", "</s>", "true", "");
    mx_tokenizer *t;

    t = open_good(with(added, "null", GPT2, TEMPLATE(SPECIAL("<s>") "," TEXT), MODEL));
    tokens_expect(t, "a", 1, MX_TOKENIZER_RULES, "14 0");
    tokens_expect(t, "a", 1, 0, "0");
    mx_tokenizer_close(t);
    t = open_good(with(added, "null", GPT2,
                       "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, " TEMPLATE(
                           SPECIAL("<s>") "," TEXT "," SPECIAL("</s>")) "]}",
                       MODEL));
    tokens_expect(t, "a", 1, MX_TOKENIZER_RULES, "14 0 15");
    mx_tokenizer_close(t);
    put_file("tokenizer_config.json", "{\"tokenizer_class\": \"LlamaTokenizerFast\", \"add_bos_token\": false, "
                                      "\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_eos_token\": true}");
    t = open_good(with(added, "null", GPT2, TEMPLATE(SPECIAL("<s>") "," TEXT), MODEL));
    tokens_expect(t, "a", 1, MX_TOKENIZER_RULES, "0 15");
    mx_tokenizer_close(t);
    put_file("tokenizer_config.json", "{}");
    put_file("config.json", "{\"bos_token_id\": 14, \"eos_token_id\": [15, 3]}");
    t = open_good(with(added, "null", GPT2, "null", MODEL));
    cr_expect(mx_tokenizer_rules(t)->bos == 14 && mx_tokenizer_rules(t)->eos == 15);
    cr_expect(!mx_tokenizer_rules(t)->add_bos && !mx_tokenizer_rules(t)->add_eos);
    mx_tokenizer_close(t);
}

/* The llama-spm vocabulary as transformers' converter would write it: a merge for every way to cut a token into
 * two, in the order of the token's score (convert_slow_tokenizer.py, SentencePieceExtractor). */
typedef struct merge {
    double score;
    size_t left_length, right_length;
    int32_t id;
} merge;

static int order_merges(const void *left, const void *right) {
    const merge *a = left, *b = right;

    if (a->score != b->score) {
        return a->score < b->score ? 1 : -1;
    }
    return a->left_length != b->left_length ? (a->left_length < b->left_length ? 1 : -1)
                                            : (a->right_length < b->right_length) - (a->right_length > b->right_length);
}

static json_t *converted(const mx_tokenizer *spm, const double *score, const char *more) {
    enum { ROOM = 1 << 20 };
    int32_t size = mx_tokenizer_size(spm);
    json_t *vocab = json_object(), *merges = json_array(), *root;
    merge *all = malloc(ROOM * sizeof *all);
    size_t count = 0;
    json_error_t error;

    for (int32_t id = 0; id < size; id++) {
        size_t length;
        const char *token = mx_tokenizer_token(spm, id, &length);

        json_object_set_new(vocab, token, json_integer(id));
        for (size_t cut = 1; cut < length && count < ROOM; cut++) {
            if (mx_tokenizer_find(spm, token, cut) >= 0 && mx_tokenizer_find(spm, token + cut, length - cut) >= 0) {
                all[count++] = (merge){ score[id], cut, length - cut, id };
            }
        }
    }
    qsort(all, count, sizeof *all, order_merges);
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *token = mx_tokenizer_token(spm, all[i].id, &length);

        json_array_append_new(merges, json_pack("[s%s]", token, all[i].left_length, token + all[i].left_length));
    }
    root = json_loads(more, 0, &error);
    cr_assert(root, "%s", error.text);
    json_object_set_new(json_object_get(root, "model"), "vocab", vocab);
    json_object_set_new(json_object_get(root, "model"), "merges", merges);
    free(all);
    return root;
}

static void expect_converted(const char *parts, bool prefix_always) {
    mx_status st = { 0 };
    mx_arena arena;
    mx_gguf *g;
    mx_tokenizer *spm, *t;
    const double *score;
    size_t count;
    json_t *root;
    char *text;

    mx_arena_init(&arena, 1 << 24);
    cr_assert_eq(mx_gguf_open(tokens_model("vocab/ggml-vocab-llama-spm.gguf"), &g, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_tokenizer_open_gguf(g, &spm, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_gguf_numbers(g, "tokenizer.ggml.scores", &arena, &score, &count, NULL, &st), MX_OK);
    root = converted(spm, score, parts);
    text = json_dumps(root, JSON_COMPACT);
    t = open_good(text);
    if (prefix_always) {
        cr_expect_eq(tokens_check_vectors(t, "llama-spm"), 46);
    }
    tokens_expect(t, "Hello", 5, MX_TOKENIZER_RULES, "1 15043");
    tokens_expect(t, " Hello", 6, MX_TOKENIZER_RULES, prefix_always ? "1 29871 15043" : "1 15043");
    tokens_expect(t, "\xF0\x9F\xA6\x99", 4, 0, "29871 243 162 169 156"); /* no token: four bytes */
    free(text);
    json_decref(root);
    mx_tokenizer_close(t);
    mx_tokenizer_close(spm);
    mx_gguf_close(g);
    mx_arena_finish(&arena);
}

#define LLAMA2_PARTS                                                                                                   \
    "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [" SPECIAL(                                    \
        "<s>") "," TEXT "], "                                                                                          \
               "\"special_tokens\": {\"<s>\": {\"ids\": [1]}}}, \"added_tokens\": [" ADDED(                            \
                   "0", "<unk>", "true", "") "," ADDED("1", "<s>", "true",                                             \
                                                       "") "," ADDED("2", "</s>", "true",                              \
                                                                     "") "], \"model\": {\"type\": \"BPE\", "          \
                                                                         "\"byte_fallback\": true, \"fuse_unk\": "     \
                                                                         "true, \"unk_token\": \"<unk>\"}"

Test(tokenizer_json, llama2_with_prepend_equals_llama_cpp_on_46_texts, .init = begin, .fini = end) {
    expect_converted("{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": "
                     "\"\u2581\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
                     "\"\u2581\"}]}, " LLAMA2_PARTS "}",
                     true);
}

Test(tokenizer_json, llama2_with_metaspace_adds_a_space_only_where_none_is, .init = begin, .fini = end) {
    expect_converted("{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": "
                     "\"first\", \"split\": false}, " LLAMA2_PARTS "}",
                     false);
}

/* --- refusals --- */

static void expect_refused(const char *json, const char *words) {
    mx_status st;
    mx_tokenizer *t;

    cr_expect_eq(open_text(json, &t, &st), MX_E_DATA, "no '%s'", words);
    cr_expect_null(t);
    cr_expect(strstr(st.text, words), "says '%s', without '%s'", st.text, words);
    cr_expect(st.at.file && strstr(st.at.file, "tokenizer.json"), "the file is named");
}

Test(tokenizer_json, what_is_not_supported_is_refused_by_name, .init = begin, .fini = end) {
    static const struct {
        const char *normalizer, *pre, *post, *model, *words;
    } CASE[] = {
        { "{\"type\": \"Lowercase\"}", GPT2, "null", MODEL, "the normalizer 'Lowercase' is not supported" },
        { "{\"type\": \"NFKC\"}", GPT2, "null", MODEL, "the normalizer 'NFKC' is not supported" },
        { "null", "{\"type\": \"Whitespace\"}", "null", MODEL, "the pre_tokenizer 'Whitespace' is not supported" },
        { "null", "null", "null", MODEL, "neither 'ByteLevel' nor one sign for the space" },
        { "null", "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "null", MODEL, "add_prefix_space: true" },
        { "null", "{\"type\": \"Sequence\", \"pretokenizers\": [" BYTES ", {\"type\": \"Digits\"}]}", "null", MODEL,
          "'Digits' after 'ByteLevel'" },
        { "null", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"MergedWithNext\"}", "null",
          MODEL, "behavior: MergedWithNext" },
        { "null",
          "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\"}, \"behavior\": \"Isolated\", \"invert\": true}",
          "null", MODEL, "invert: true" },
        { "null", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"a(\"}, \"behavior\": \"Isolated\"}", "null", MODEL,
          "expression 'a(' is wrong" },
        { "null", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\h\"}, \"behavior\": \"Isolated\"}", "null",
          MODEL, "uses \\h, which is not supported" },
        { "null", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\p{N}{1,3}+\"}, \"behavior\": \"Isolated\"}",
          "null", MODEL, "uses }+, which is not supported" },
        { "null", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a[bc]]\"}, \"behavior\": \"Isolated\"}", "null",
          MODEL, "uses [ within [ ], which is not supported" },
        { "null", GPT2, "{\"type\": \"BertProcessing\"}", MODEL,
          "the post_processor 'BertProcessing' is not supported" },
        { "null", GPT2, TEMPLATE(TEXT "," TEXT), MODEL, "has 2 texts" },
        { "null", GPT2, TEMPLATE(SPECIAL("<s>") "," SPECIAL("<s>") "," TEXT), MODEL,
          "more than one token before or after" },
        { "null", GPT2, TEMPLATE(SPECIAL("<x>") "," TEXT), MODEL, "'<x>' does not stand for one id" },
        { "null", GPT2, "null", "\"type\": \"Unigram\", \"vocab\": []",
          "the tokenizer model 'Unigram' is not supported" },
        { "null", GPT2, "null", MODEL ", \"dropout\": 0.1", "BPE dropout 0.1" },
        { "null", GPT2, "null", MODEL ", \"end_of_word_suffix\": \"</w>\"", "end_of_word_suffix: </w>" },
        { "null", GPT2, "null", MODEL ", \"byte_fallback\": true", "'ByteLevel' together with byte_fallback" },
        { "null", GPT2, "null", MODEL ", \"unk_token\": \"<unk>\"", "unk_token is '<unk>', which is no token" },
    };

    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++) {
        expect_refused(with(ADDED("14", "<s>", "true", "") "," ADDED("15", "</s>", "true", ""), CASE[i].normalizer,
                            CASE[i].pre, CASE[i].post, CASE[i].model),
                       CASE[i].words);
    }
}

Test(tokenizer_json, damaged_files_are_refused, .init = begin, .fini = end) {
    static const char *const MODELS[][2] = {
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []", "both have the id 0" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []", "'a' has no id between 0 and" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 4194304}, \"merges\": []", "'a' has no id between 0 and" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 4194303}, \"merges\": []",
          "the largest token id is 4194303, but there are only 1" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 1.5}, \"merges\": []", "'a' has no id between 0 and" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 9223372036854775807}, \"merges\": []", "'a' has no id between 0 and" },
        { "\"type\": \"BPE\", \"vocab\": {}, \"merges\": []", "the vocabulary has 0 tokens" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 0}", "no list of merges" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a\"]", "merge 0 is not two texts" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [7]", "merge 0 is not two texts" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]", "merge 0 is not two texts" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]", "their sum is no token" },
        { "\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []", "duplicate object key" },
        { "\"type\": \"BPE\"", "no model with a vocabulary" },
    };
    char text[1 << 16];

    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        expect_refused(with("", "null", GPT2, "null", MODELS[i][0]), MODELS[i][1]);
    }
    expect_refused(with(ADDED("0", "x", "true", ""), "null", GPT2, "null", MODEL),
                   "has the id 0, which is 'a' already");
    expect_refused(with(ADDED("20", "a", "true", ""), "null", GPT2, "null", MODEL),
                   "tokens 0 and 20 are both spelled 'a'");
    expect_refused(with(ADDED("20", "", "true", ""), "null", GPT2, "null", MODEL), "the added token 20 has no content");
    expect_refused(with(ADDED("20", "x", "true", ", \"single_word\": true"), "null", GPT2, "null", MODEL),
                   "single_word");
    expect_refused("[]", "no model with a vocabulary");
    snprintf(text, sizeof text, "%s", with("", "null", GPT2, "null", MODEL));
    for (size_t length = strlen(text) - 1; length > 0; length -= length < 7 ? 1 : 7) {
        text[length] = '\0';
        expect_refused(text, "not JSON");
    }
}

/* (a+)+c on a long text of a's: the expression's author is told, and nothing runs for hours. */
Test(tokenizer_json, an_expression_that_explodes_gives_up_in_words, .init = begin, .fini = end) {
    mx_tokenizer *t = open_good(with("", "null",
                                     "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
                                     "{\"Regex\": \"(a+)+[cd]\"}, \"behavior\": \"Isolated\"}, " BYTES "]}",
                                     "null", MODEL));
    char text[4096];
    mx_tokens list = { 0 };
    mx_status st = { 0 };

    memset(text, 'a', sizeof text);
    cr_expect_eq(mx_tokenizer_encode(t, text, sizeof text, 0, &list, &st), MX_E_DATA);
    cr_expect(strstr(st.text, "gives up on a text of 4096 bytes"), "%s", st.text);
    mx_tokens_finish(&list);
    mx_tokenizer_close(t);
}
