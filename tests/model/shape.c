/* shape.c - shapes of good configs, refusals of others, and rotary frequencies against formulas written apart. */
#include "model/shape.h"

#include "tests/support/made_file.h"

#include <criterion/criterion.h>
#include <math.h>

/* A whole config.json but for what a case adds; later keys of `more` stand for themselves. */
#define SIZES "\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":176,\"num_hidden_layers\":3," \
              "\"num_attention_heads\":4,\"vocab_size\":259,\"max_position_embeddings\":256"

static mx_code shape_of(const char *text, mx_shape *ret, mx_status *st) {
    json_t *config = NULL;
    mx_code code;

    *st = (mx_status){ 0 };
    cr_assert_eq(mx_json_parse(text, strlen(text), "config.json", 1, &config, st), MX_OK, "%s: %s", text, st->text);
    code = mx_shape_from_config(config, "config.json", ret, st);
    json_decref(config);
    return code;
}

static mx_shape good(const char *text) {
    mx_shape s;
    mx_status st;

    cr_assert_eq(shape_of(text, &s, &st), MX_OK, "%s: %s", text, st.text);
    return s;
}

Test(shape, what_a_config_leaves_out_is_llamas_default) {
    mx_shape s = good("{" SIZES "}");

    cr_expect(s.hidden == 64 && s.inner == 176 && s.layers == 3 && s.heads == 4 && s.kv_heads == 4 &&
              s.head_dim == 16 && s.vocab == 259 && s.max_positions == 256 && s.window == 0);
    cr_expect(s.rms_eps == 1e-6 && s.rope_theta == 10000 && s.rope == MX_ROPE_PLAIN);
    cr_expect(!s.tied_head && !s.qkv_bias && !s.output_bias && !s.mlp_bias && s.bos_id == -1 && s.eos_id == -1);
    cr_expect_str_eq(s.architecture, "llama");
}

Test(shape, what_a_config_says_is_taken) {
    mx_shape s = good("{" SIZES ",\"num_key_value_heads\":2,\"head_dim\":32,\"rms_norm_eps\":1e-5,\"rope_theta\":5e5,"
                      "\"tie_word_embeddings\":true,\"attention_bias\":true,\"mlp_bias\":true,\"bos_token_id\":1,"
                      "\"eos_token_id\":[2,3],\"rope_scaling\":null,\"hidden_act\":\"silu\"}");

    cr_expect(s.kv_heads == 2 && s.head_dim == 32 && s.rms_eps == 1e-5 && s.rope_theta == 5e5);
    cr_expect(s.tied_head && s.qkv_bias && s.output_bias && s.mlp_bias && s.bos_id == 1 && s.eos_id == 2);
    /* q 128x64, k and v 64x64, o 64x128, their biases, three of 176x64, biases, two norms; embedding; norm */
    cr_expect_eq(mx_shape_values(&s), 3 * (2 * 128 * 64 + 2 * 64 * 64 + 128 + 2 * 64 + 64 + 3 * 176 * 64 +
                                           2 * 176 + 64 + 2 * 64) + 259 * 64 + 64);
}

Test(shape, mistral_is_taken_up_to_its_window) {
    mx_shape s = good("{\"model_type\":\"mistral\",\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":64,"
                      "\"intermediate_size\":176,\"num_hidden_layers\":3,\"num_attention_heads\":4,\"vocab_size\":259,"
                      "\"max_position_embeddings\":256,\"sliding_window\":100}");
    mx_status st = { 0 };

    cr_expect_str_eq(s.architecture, "mistral");
    cr_expect_eq(mx_shape_check_length(&s, 100, &st), MX_OK);
    cr_expect_eq(mx_shape_check_length(&s, 101, &st), MX_E_RECIPE);
    cr_expect_str_eq(st.text, "sequences of 101 tokens are longer than the base's sliding window of 100, which is "
                              "computed only up to its width");
    st = (mx_status){ 0 };
    cr_expect_eq(mx_shape_check_length(&s, 257, &st), MX_E_RECIPE);
    cr_expect_str_eq(st.text, "sequences of 257 tokens are longer than the base's 256 positions");
}

#define FAMILY "LLaMA's architecture (LLaMA 1 to 3, SmolLM2, Mistral) can be computed"

Test(shape, other_models_are_refused_by_name) {
    static const struct {
        const char *config, *words;
    } CASES[] = {
        { "[]", "is not a JSON map" },
        { "{}", "'model_type' is missing: is this a model's config.json?" },
        { "{\"model_type\":\"qwen2\"}", "the architecture is 'qwen2'; only " FAMILY },
        { "{\"model_type\":\"gemma\"}", "the architecture is 'gemma'; only " FAMILY },
        { "{\"model_type\":\"mixtral\"}", "the architecture is 'mixtral'; only " FAMILY },
        { "{" SIZES ",\"architectures\":[\"LlamaForSequenceClassification\"]}",
          "the model is a 'LlamaForSequenceClassification'; only " FAMILY ", with its language head" },
        { "{" SIZES ",\"hidden_act\":\"gelu\"}", "the activation is 'gelu'; only silu can be computed" },
        { "{" SIZES ",\"partial_rotary_factor\":0.5}",
          "'partial_rotary_factor' is 0.5; only whole heads can be rotated" },
        { "{" SIZES ",\"quantization_config\":{}}", "the weights are quantised ('quantization_config'); in folders "
          "F32, F16 and BF16 can be read, quantised weights in GGUF" },
        { "{" SIZES ",\"attn_logit_softcapping\":50.0}", "'attn_logit_softcapping' is set; only " FAMILY },
        { "{" SIZES ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0}}",
          "the rotary scaling is 'yarn'; default, linear and llama3 can be computed" },
        { "{" SIZES ",\"rope_scaling\":{\"type\":\"linear\"}}", "'factor' is missing" },
        { "{" SIZES ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}",
          "the rotary scaling's factor is 0; it must be positive" },
        { "{" SIZES ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
          "\"high_freq_factor\":1,\"original_max_position_embeddings\":8192}}",
          "the rotary scaling's low and high frequency factors are 4 and 1; they must be positive, the second larger" },
        { "{" SIZES ",\"num_key_value_heads\":3}", "4 heads cannot share 3 key/value heads evenly" },
        { "{" SIZES ",\"num_key_value_heads\":8}", "the number of key/value heads is 8; 1 to 4 can be right" },
        { "{" SIZES ",\"head_dim\":15}", "head_dim is 15; rotary pairs need it even" },
        { "{" SIZES ",\"head_dim\":1024}", "head_dim is 1,024; 1 to 512 can be right" },
        { "{" SIZES ",\"rms_norm_eps\":0}", "the norm's epsilon is 0, not between 0 and 1" },
        { "{" SIZES ",\"rope_theta\":0.5}", "the rotary base is 0.5; it must be at least 1" },
        { "{" SIZES ",\"eos_token_id\":259}", "the BOS or EOS id (-1, 259) is outside the vocabulary of 259" },
        { "{" SIZES ",\"tie_word_embeddings\":1}", "'tie_word_embeddings' is neither true nor false" },
        { "{" SIZES ",\"sliding_window\":1.5}", "'sliding_window' is not a whole number" },
        { "{\"model_type\":\"llama\"}", "'hidden_size' is missing" },
        { "{\"model_type\":\"llama\",\"hidden_size\":65,\"intermediate_size\":176,\"num_hidden_layers\":3,"
          "\"num_attention_heads\":4,\"vocab_size\":259,\"max_position_embeddings\":256}",
          "a hidden size of 65 is no multiple of 4 heads, and 'head_dim' is not given" },
        { "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":176,\"num_hidden_layers\":30000,"
          "\"num_attention_heads\":4,\"vocab_size\":259,\"max_position_embeddings\":256}",
          "the number of layers is 30,000; 1 to 1,024 can be right" },
        { "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":176,\"num_hidden_layers\":3,"
          "\"num_attention_heads\":0,\"vocab_size\":259,\"max_position_embeddings\":256}",
          "'num_attention_heads' is 0; 1 to 4,096 can be right" },
    };

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        mx_shape s;
        mx_status st;

        cr_expect_eq(shape_of(CASES[i].config, &s, &st), MX_E_DATA, "not refused: %s", CASES[i].config);
        cr_expect_str_eq(st.text, CASES[i].words);
    }
}

/* transformers' _compute_llama3_parameters, by wavelengths and cases as it stands there. */
static double llama3_reference(double inverse, double factor, double low, double high, double original) {
    double wavelength = 2 * M_PI / inverse;

    if (wavelength < original / high) {
        return inverse;
    }
    if (wavelength > original / low) {
        return inverse / factor;
    }
    double smooth = (original / wavelength - low) / (high - low);

    return (1 - smooth) * inverse / factor + smooth * inverse;
}

/* One rounding to f32 of values computed by two orders of f64 operations: 1 ulp. */
static void expect_near(float got, double expected, const char *what, int j) {
    cr_expect(fabs((double)got - expected) <= 1.2e-7 * expected, "%s, pair %d: %.9g, expected %.9g", what, j,
              (double)got, expected);
}

Test(shape, rotary_frequencies_follow_their_formulas) {
    mx_shape plain = good("{" SIZES ",\"head_dim\":128,\"rope_theta\":500000.0}");
    mx_shape linear = good("{" SIZES ",\"head_dim\":128,\"rope_theta\":500000.0,"
                           "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}");
    mx_shape llama3 = good("{" SIZES ",\"head_dim\":128,\"rope_theta\":500000.0,\"rope_scaling\":{\"factor\":8.0,"
                           "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,"
                           "\"rope_type\":\"llama3\"}}");
    mx_shape newer = good("{" SIZES ",\"head_dim\":128,\"rope_parameters\":{\"rope_theta\":500000.0,\"factor\":8.0,"
                          "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,"
                          "\"rope_type\":\"llama3\"}}");
    float p[64], l[64], t[64], n[64];
    int between = 0;

    mx_shape_rope_inverse(&plain, p);
    mx_shape_rope_inverse(&linear, l);
    mx_shape_rope_inverse(&llama3, t);
    mx_shape_rope_inverse(&newer, n);
    cr_expect_eq(memcmp(t, n, sizeof t), 0, "rope_parameters say the same as rope_scaling");
    for (int j = 0; j < 64; j++) {
        double inverse = 1 / pow(500000.0, j / 64.0), scaled = llama3_reference(inverse, 8, 1, 4, 8192);

        between += scaled != inverse && scaled != inverse / 8;
        expect_near(p[j], inverse, "plain", j);
        expect_near(l[j], inverse / 4, "linear", j);
        expect_near(t[j], scaled, "llama3", j);
    }
    cr_expect_gt(between, 0, "some pair lies on the ramp");
}

Test(shape, the_vectors_base_is_read) {
    const char *folder = getenv("MIXRUN_VECTORS");
    char path[4096];
    json_t *config;
    mx_shape s;
    mx_status st = { 0 };

    snprintf(path, sizeof path, "%s/tiny-a/config.json", folder ? folder : "");
    if (!folder || !mx_file_exists(path)) {
        cr_skip_test("MIXRUN_VECTORS has no tiny-a");
    }
    cr_assert_eq(mx_json_read(path, 1 << 20, &config, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_shape_from_config(config, path, &s, &st), MX_OK, "%s", st.text);
    cr_expect(s.kv_heads == 2 && s.head_dim == 16 && s.bos_id == 256 && s.eos_id == 257 && !s.tied_head);
    json_decref(config);
}

/* ---- GGUF ---- */

typedef struct wish {
    const char *architecture, *scaling;
    uint32_t rotated, experts;
    bool divisors;
} wish;

/* hidden 32, two heads of 16, one key/value head; only the tensors a shape looks at. */
static made gguf_with(wish w) {
    made m = { 0 };

    gguf_begin(&m, 3, 1 + w.divisors, 11);
    gguf_key_text(&m, "general.architecture", w.architecture ? w.architecture : "llama");
    gguf_key_u32(&m, "llama.embedding_length", 32);
    gguf_key_u32(&m, "llama.feed_forward_length", 64);
    gguf_key_u32(&m, "llama.block_count", 2);
    gguf_key_u32(&m, "llama.context_length", 128);
    gguf_key_u32(&m, "llama.attention.head_count", 2);
    gguf_key_u32(&m, "llama.attention.head_count_kv", 1);
    gguf_key_u32(&m, "llama.rope.dimension_count", w.rotated ? w.rotated : 16);
    gguf_key_u32(&m, "llama.expert_count", w.experts);
    gguf_key_text(&m, "llama.rope.scaling.type", w.scaling ? w.scaling : "none");
    gguf_key_f32(&m, "llama.rope.scaling.factor", 4);
    gguf_tensor(&m, "token_embd.weight", 10, 32, 0, 0);
    if (w.divisors) {
        gguf_tensor(&m, "rope_freqs.weight", 8, 0, 0, 1280);
    }
    made_align(&m, 32);
    for (int i = 0; i < 10 * 32; i++) {
        made_f32(&m, 0);
    }
    for (int j = 0; j < 8 && w.divisors; j++) {
        made_f32(&m, (float)(1 + j));
    }
    return m;
}

static mx_code gguf_shape(wish w, mx_shape *ret, mx_status *st) {
    made m = gguf_with(w);
    mx_gguf *g = NULL;
    mx_code code;

    *st = (mx_status){ 0 };
    cr_assert_eq(mx_gguf_parse(m.bytes, m.size, "made.gguf", &g, st), MX_OK, "%s", st->text);
    code = mx_shape_from_gguf(g, ret, st);
    mx_gguf_close(g);
    made_finish(&m);
    return code;
}

Test(shape, gguf_metadata_gives_the_same_shape) {
    mx_shape s;
    mx_status st;

    cr_assert_eq(gguf_shape((wish){ 0 }, &s, &st), MX_OK, "%s", st.text);
    cr_expect(s.hidden == 32 && s.inner == 64 && s.layers == 2 && s.heads == 2 && s.kv_heads == 1 && s.head_dim == 16 &&
              s.vocab == 10 && s.max_positions == 128 && s.tied_head && !s.qkv_bias && s.rope == MX_ROPE_PLAIN);
}

Test(shape, gguf_scalings_and_divisors_reach_the_frequencies) {
    mx_shape s;
    mx_status st;
    float inverse[8];

    cr_assert_eq(gguf_shape((wish){ .scaling = "linear" }, &s, &st), MX_OK, "%s", st.text);
    mx_shape_rope_inverse(&s, inverse);
    for (int j = 0; j < 8; j++) {
        expect_near(inverse[j], pow(10000, -j / 8.0) / 4, "linear", j);
    }
    cr_assert_eq(gguf_shape((wish){ .divisors = true }, &s, &st), MX_OK, "%s", st.text);
    mx_shape_rope_inverse(&s, inverse);
    for (int j = 0; j < 8; j++) {
        expect_near(inverse[j], pow(10000, -j / 8.0) / (1 + j), "divisors", j);
    }
}

Test(shape, other_ggufs_are_refused_by_name) {
    static const struct {
        wish wish;
        const char *words;
    } CASES[] = {
        { { .architecture = "qwen2" }, "the architecture is 'qwen2'; only " FAMILY },
        { { .scaling = "yarn" }, "the rotary scaling is 'yarn'; none, linear and LLaMA-3's can be computed" },
        { { .rotated = 8 },
          "heads are 16 wide, their values 16, and 8 of it is rotated; only equal widths can be computed" },
        { { .experts = 8 }, "the base has 8 experts of its own (Mixtral); only " FAMILY },
    };

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        mx_shape s;
        mx_status st;

        cr_expect_eq(gguf_shape(CASES[i].wish, &s, &st), MX_E_DATA, "not refused: %s", CASES[i].words);
        cr_expect_str_eq(st.text, CASES[i].words);
        cr_expect_str_eq(st.at.file, "made.gguf");
    }
}
