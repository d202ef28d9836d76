/* tiny_base.h - a base model of our own in Hugging Face's layout: random weights, one token a byte. A run on it takes a moment. */
#ifndef TESTS_SUPPORT_TINY_BASE_H
#define TESTS_SUPPORT_TINY_BASE_H

#include "base/rng.h"
#include "base/text.h"
#include "model/safetensors.h"

#include <criterion/criterion.h>
#include <string.h>

enum { TINY_HIDDEN = 32, TINY_INNER = 48, TINY_LAYERS = 2, TINY_VOCAB = 258, TINY_TENSORS = 2 + 9 * TINY_LAYERS };

/* GPT-2's printable stand-ins for bytes, as UTF-8. */
static inline void tiny_byte_token(int byte, char ret[4]) {
    int code = byte, extra = 256;

    for (int b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);

        if (b == byte) {
            code = printable ? b : extra;
            break;
        }
        extra += !printable;
    }
    if (code < 0x80) {
        snprintf(ret, 4, "%c", code);
    } else {
        snprintf(ret, 4, "%c%c", 0xC0 | (code >> 6), 0x80 | (code & 0x3F));
    }
}

static inline void tiny_tokenizer(const char *path) {
    json_t *vocab = json_object(), *root;
    char *text, token[4];
    mx_status st = { 0 };

    for (int b = 0; b < 256; b++) {
        tiny_byte_token(b, token);
        json_object_set_new(vocab, token, json_integer(b));
    }
    json_object_set_new(vocab, "<s>", json_integer(256));
    json_object_set_new(vocab, "</s>", json_integer(257));
    root = json_pack("{s:s, s:[{s:i,s:s,s:b,s:b,s:b,s:b,s:b},{s:i,s:s,s:b,s:b,s:b,s:b,s:b}], s:n, s:{s:s,s:b,s:b,s:b}, s:n, s:{s:s,s:b,s:b,s:b}, s:{s:s,s:n,s:n,s:n,s:n,s:b,s:b,s:o,s:[]}}",
                     "version", "1.0", "added_tokens", "id", 256, "content", "<s>", "single_word", 0, "lstrip", 0, "rstrip", 0,
                     "normalized", 0, "special", 1, "id", 257, "content", "</s>", "single_word", 0, "lstrip", 0, "rstrip", 0,
                     "normalized", 0, "special", 1, "normalizer", "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", 1, "post_processor", "decoder", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", 1, "model", "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                     "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "vocab", vocab, "merges");
    cr_assert_not_null(root, "the tokenizer's JSON");
    text = json_dumps(root, JSON_COMPACT);
    cr_assert_eq(mx_file_write(path, text, strlen(text), &st), MX_OK, "%s", st.text);
    free(text);
    json_decref(root);
}

static inline void tiny_base(const char *folder) {
    static const char config[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":8,\"vocab_size\":258,"
        "\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"max_position_embeddings\":1024,"
        "\"tie_word_embeddings\":true,\"bos_token_id\":256,\"eos_token_id\":257}";
    static const struct {
        const char *name;
        int out, in;
    } part[] = { { "self_attn.q_proj.weight", 32, 32 }, { "self_attn.k_proj.weight", 16, 32 }, { "self_attn.v_proj.weight", 16, 32 },
                 { "self_attn.o_proj.weight", 32, 32 }, { "mlp.gate_proj.weight", 48, 32 }, { "mlp.up_proj.weight", 48, 32 },
                 { "mlp.down_proj.weight", 32, 48 }, { "input_layernorm.weight", 32, 0 }, { "post_attention_layernorm.weight", 32, 0 } };
    mx_named_values values[TINY_TENSORS];
    size_t n = 0;
    mx_arena a;
    mx_rng rng;
    mx_status st = { 0 };

    mx_arena_init(&a, 16 << 20);
    mx_rng_init(&rng, 7, "tiny base");
    cr_assert_eq(mx_folder_make(folder, &st), MX_OK, "%s", st.text);
    for (int i = -2; i < 9 * TINY_LAYERS; i++) {
        bool norm = i == -1 || (i >= 0 && part[i % 9].in == 0);
        int out = i == -2 ? TINY_VOCAB : i == -1 ? TINY_HIDDEN : part[i % 9].out, in = i == -2 ? TINY_HIDDEN : norm ? 1 : part[i % 9].in;
        float *data = MX_TAKE(&a, float, out * in);

        for (int j = 0; j < out * in; j++) {
            data[j] = norm ? 1.0f : (float)(mx_rng_normal(&rng) * 0.15);
        }
        values[n++] = (mx_named_values){ .name = i == -2   ? "model.embed_tokens.weight"
                                                 : i == -1 ? "model.norm.weight"
                                                           : mx_arena_text(&a, "model.layers.%d.%s", i / 9, part[i % 9].name),
                                         .rank = norm ? 1 : 2, .dim = { out, in }, .data = data };
    }
    cr_assert_eq(mx_safetensors_write(mx_arena_text(&a, "%s/model.safetensors", folder), values, n, NULL, &st), MX_OK, "%s", st.text);
    cr_assert_eq(mx_file_write(mx_arena_text(&a, "%s/config.json", folder), config, strlen(config), &st), MX_OK, "%s", st.text);
    tiny_tokenizer(mx_arena_text(&a, "%s/tokenizer.json", folder));
    mx_arena_finish(&a);
}

#endif
