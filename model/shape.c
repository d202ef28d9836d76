/* shape.c - what config.json and GGUF metadata say about a LLaMA-family model, checked. */
#include "model/shape.h"

#include "base/text.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Past these no model of this family goes; they keep every later product of sizes within int64. */
enum {
    WIDTH_MAX = 1 << 20,
    HEADS_MAX = 1 << 12,
    VOCAB_MAX = 1 << 22,
    POSITIONS_MAX = 1 << 28,
};
static const char FAMILY[] = "LLaMA's architecture (LLaMA 1 to 3, SmolLM2, Mistral) can be computed";

#define REFUSE(path, st, ...) mx_fail((st), MX_E_DATA, (mx_mark){ .file = (path) }, __VA_ARGS__)

/* ---- what both kinds of file must satisfy ---------------------------------------------------------------- */

static mx_code check_size(const char *path, const char *what, int64_t value, int64_t max, mx_status *st) {
    if (value < 1 || value > max) {
        return REFUSE(path, st, "%s is %s; 1 to %s can be right", what, mx_text_count(value), mx_text_count(max));
    }
    return MX_OK;
}

static mx_code check_constants(const mx_shape *s, const char *path, mx_status *st) {
    if (!(s->rms_eps > 0 && s->rms_eps < 1)) {
        return REFUSE(path, st, "the norm's epsilon is %g, not between 0 and 1", s->rms_eps);
    }
    if (!(s->rope_theta >= 1 && isfinite(s->rope_theta))) {
        return REFUSE(path, st, "the rotary base is %g; it must be at least 1", s->rope_theta);
    }
    if (!(s->rope_factor > 0 && isfinite(s->rope_factor))) {
        return REFUSE(path, st, "the rotary scaling's factor is %g; it must be positive", s->rope_factor);
    }
    if (s->rope == MX_ROPE_LLAMA3) {
        if (!(s->rope_low_frequency > 0 && s->rope_high_frequency > s->rope_low_frequency &&
              isfinite(s->rope_high_frequency))) {
            return REFUSE(path, st, "the rotary scaling's low and high frequency factors are %g and %g; "
                          "they must be positive, the second larger", s->rope_low_frequency, s->rope_high_frequency);
        }
        MX_TRY(check_size(path, "the rotary scaling's original number of positions", s->rope_original_positions,
                          POSITIONS_MAX, st));
    }
    for (int64_t j = 0; s->has_rope_divisors && j < s->head_dim / 2; j++) {
        if (!(s->rope_divisor[j] > 0 && isfinite(s->rope_divisor[j]))) {
            return REFUSE(path, st, "rotary divisor %d is %g; it must be positive", (int)j,
                          (double)s->rope_divisor[j]);
        }
    }
    return MX_OK;
}

static mx_code check(const mx_shape *s, const char *path, mx_status *st) {
    MX_TRY(check_size(path, "the hidden size", s->hidden, WIDTH_MAX, st));
    MX_TRY(check_size(path, "the feed-forward size", s->inner, WIDTH_MAX, st));
    MX_TRY(check_size(path, "the number of layers", s->layers, MX_LAYERS_MAX, st));
    MX_TRY(check_size(path, "the number of heads", s->heads, HEADS_MAX, st));
    MX_TRY(check_size(path, "the number of key/value heads", s->kv_heads, s->heads, st));
    MX_TRY(check_size(path, "head_dim", s->head_dim, MX_HEAD_DIM_MAX, st));
    MX_TRY(check_size(path, "the vocabulary", s->vocab, VOCAB_MAX, st));
    MX_TRY(check_size(path, "the number of positions", s->max_positions, POSITIONS_MAX, st));
    if (s->heads % s->kv_heads) {
        return REFUSE(path, st, "%d heads cannot share %d key/value heads evenly", (int)s->heads, (int)s->kv_heads);
    }
    if (s->head_dim % 2) {
        return REFUSE(path, st, "head_dim is %d; rotary pairs need it even", (int)s->head_dim);
    }
    if (s->window < 0 || s->window > POSITIONS_MAX) {
        return REFUSE(path, st, "the sliding window is %s", mx_text_count(s->window));
    }
    if (s->bos_id < -1 || s->bos_id >= s->vocab || s->eos_id < -1 || s->eos_id >= s->vocab) {
        return REFUSE(path, st, "the BOS or EOS id (%s, %s) is outside the vocabulary of %s", mx_text_count(s->bos_id),
                      mx_text_count(s->eos_id), mx_text_count(s->vocab));
    }
    return check_constants(s, path, st);
}

static const mx_shape UNSAID = { .rope_theta = 10000, .rope_factor = 1, .rope_low_frequency = 1,
                                 .rope_high_frequency = 1, .rms_eps = 1e-6, .bos_id = -1, .eos_id = -1 };

/* ---- config.json ----------------------------------------------------------------------------------------- */

typedef struct config {
    const json_t *map;
    const char *path;
    mx_status *st;
} config;

#define REFUSE_CONFIG(c, ...) REFUSE((c)->path, (c)->st, __VA_ARGS__)

/* Hugging Face writes null for "not set". */
static const json_t *value(const config *c, const char *key) {
    const json_t *v = json_object_get(c->map, key);

    return json_is_null(v) ? NULL : v;
}

/* Absent: *ret stays, unless the key is `needed`. */
static mx_code integer(const config *c, const char *key, bool needed, int64_t *ret) {
    const json_t *v = value(c, key);

    if (!v) {
        return needed ? REFUSE_CONFIG(c, "'%s' is missing", key) : MX_OK;
    }
    if (!json_is_integer(v)) {
        return REFUSE_CONFIG(c, "'%s' is not a whole number", key);
    }
    *ret = json_integer_value(v);
    return MX_OK;
}

static mx_code real(const config *c, const char *key, bool needed, double *ret) {
    const json_t *v = value(c, key);

    if (!v) {
        return needed ? REFUSE_CONFIG(c, "'%s' is missing", key) : MX_OK;
    }
    if (!json_is_number(v)) {
        return REFUSE_CONFIG(c, "'%s' is not a number", key);
    }
    *ret = json_number_value(v);
    return MX_OK;
}

static mx_code boolean(const config *c, const char *key, bool *ret) {
    const json_t *v = value(c, key);

    if (v && !json_is_boolean(v)) {
        return REFUSE_CONFIG(c, "'%s' is neither true nor false", key);
    }
    *ret = v ? json_is_true(v) : *ret;
    return MX_OK;
}

static mx_code word(const config *c, const char *key, const char **ret) {
    const json_t *v = value(c, key);

    if (v && !json_is_string(v)) {
        return REFUSE_CONFIG(c, "'%s' is not a text", key);
    }
    *ret = v ? json_string_value(v) : *ret;
    return MX_OK;
}

/* One id, or a list of which the first counts. */
static mx_code token(const config *c, const char *key, int64_t *ret) {
    const json_t *v = value(c, key);

    if (json_is_array(v) && json_array_size(v)) {
        v = json_array_get(v, 0);
    }
    if (v && !json_is_integer(v)) {
        return REFUSE_CONFIG(c, "'%s' is not a token id", key);
    }
    *ret = v ? json_integer_value(v) : -1;
    return MX_OK;
}

static mx_code config_architecture(const config *c, const char **ret) {
    const char *type = NULL;
    const json_t *classes = value(c, "architectures");
    const char *class = json_string_value(json_array_get(classes, 0));

    MX_TRY(word(c, "model_type", &type));
    if (!type) {
        return REFUSE_CONFIG(c, "'model_type' is missing: is this a model's config.json?");
    }
    *ret = strcmp(type, "llama") == 0 ? "llama" : strcmp(type, "mistral") == 0 ? "mistral" : NULL;
    if (!*ret) {
        return REFUSE_CONFIG(c, "the architecture is '%s'; only %s", type, FAMILY);
    }
    if (class && strcmp(class, "LlamaForCausalLM") != 0 && strcmp(class, "MistralForCausalLM") != 0) {
        return REFUSE_CONFIG(c, "the model is a '%s'; only %s, with its language head", class, FAMILY);
    }
    return MX_OK;
}

/* Words of Hugging Face's configs that would change the forward pass into one we do not have. */
static mx_code config_refuse_strangers(const config *c) {
    static const char *const MUST_BE_UNSET[] = { "attn_logit_softcapping", "final_logit_softcapping",
                                                 "query_pre_attn_scalar", "embedding_multiplier", "logits_scaling",
                                                 "residual_multiplier", "num_local_experts" };
    const char *activation = "silu";
    double rotary = 1;

    MX_TRY(word(c, "hidden_act", &activation));
    if (strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0) {
        return REFUSE_CONFIG(c, "the activation is '%s'; only silu can be computed", activation);
    }
    MX_TRY(real(c, "partial_rotary_factor", false, &rotary));
    if (rotary != 1) {
        return REFUSE_CONFIG(c, "'partial_rotary_factor' is %g; only whole heads can be rotated", rotary);
    }
    if (value(c, "quantization_config")) {
        return REFUSE_CONFIG(c, "the weights are quantised ('quantization_config'); in folders F32, F16 and BF16 "
                                "can be read, quantised weights in GGUF");
    }
    for (size_t i = 0; i < sizeof MUST_BE_UNSET / sizeof *MUST_BE_UNSET; i++) {
        if (value(c, MUST_BE_UNSET[i])) {
            return REFUSE_CONFIG(c, "'%s' is set; only %s", MUST_BE_UNSET[i], FAMILY);
        }
    }
    return MX_OK;
}

/* "rope_scaling" beside "rope_theta", or (transformers 5) both within "rope_parameters". */
static mx_code config_rope(const config *c, mx_shape *s) {
    const char *kind = "default", *older = "default";
    const json_t *within = value(c, "rope_parameters");
    config r = *c;

    MX_TRY(real(c, "rope_theta", false, &s->rope_theta));
    r.map = within ? within : value(c, "rope_scaling");
    if (!r.map) {
        return MX_OK;
    }
    if (!json_is_object(r.map)) {
        return REFUSE_CONFIG(c, "'%s' is not a map", within ? "rope_parameters" : "rope_scaling");
    }
    MX_TRY(word(&r, "type", &older));
    kind = older;
    MX_TRY(word(&r, "rope_type", &kind));
    MX_TRY(real(&r, "rope_theta", false, &s->rope_theta));
    if (strcmp(kind, "default") == 0) {
        return MX_OK;
    }
    if (strcmp(kind, "linear") == 0) {
        s->rope = MX_ROPE_LINEAR;
        return real(&r, "factor", true, &s->rope_factor);
    }
    if (strcmp(kind, "llama3") == 0) {
        s->rope = MX_ROPE_LLAMA3;
        MX_TRY(real(&r, "factor", true, &s->rope_factor));
        MX_TRY(real(&r, "low_freq_factor", true, &s->rope_low_frequency));
        MX_TRY(real(&r, "high_freq_factor", true, &s->rope_high_frequency));
        return integer(&r, "original_max_position_embeddings", true, &s->rope_original_positions);
    }
    return REFUSE_CONFIG(c, "the rotary scaling is '%s'; default, linear and llama3 can be computed", kind);
}

mx_code mx_shape_from_config(const json_t *map, const char *path, mx_shape *ret, mx_status *st) {
    config c = { .map = map, .path = path, .st = st };
    mx_shape s = UNSAID;
    bool attention_bias = false;

    if (!json_is_object(map)) {
        return REFUSE_CONFIG(&c, "is not a JSON map");
    }
    MX_TRY(config_architecture(&c, &s.architecture));
    MX_TRY(config_refuse_strangers(&c));
    MX_TRY(integer(&c, "hidden_size", true, &s.hidden));
    MX_TRY(integer(&c, "intermediate_size", true, &s.inner));
    MX_TRY(integer(&c, "num_hidden_layers", true, &s.layers));
    MX_TRY(integer(&c, "num_attention_heads", true, &s.heads));
    MX_TRY(integer(&c, "vocab_size", true, &s.vocab));
    MX_TRY(integer(&c, "max_position_embeddings", true, &s.max_positions));
    MX_TRY(check_size(path, "'num_attention_heads'", s.heads, HEADS_MAX, st));
    s.kv_heads = s.heads;
    MX_TRY(integer(&c, "num_key_value_heads", false, &s.kv_heads));
    s.head_dim = s.hidden / s.heads;
    MX_TRY(integer(&c, "head_dim", false, &s.head_dim));
    if (!value(&c, "head_dim") && s.hidden % s.heads) {
        return REFUSE_CONFIG(&c, "a hidden size of %s is no multiple of %d heads, and 'head_dim' is not given",
                             mx_text_count(s.hidden), (int)s.heads);
    }
    MX_TRY(integer(&c, "sliding_window", false, &s.window));
    MX_TRY(real(&c, "rms_norm_eps", false, &s.rms_eps));
    MX_TRY(boolean(&c, "tie_word_embeddings", &s.tied_head));
    MX_TRY(boolean(&c, "attention_bias", &attention_bias));
    MX_TRY(boolean(&c, "mlp_bias", &s.mlp_bias));
    MX_TRY(token(&c, "bos_token_id", &s.bos_id));
    MX_TRY(token(&c, "eos_token_id", &s.eos_id));
    MX_TRY(config_rope(&c, &s));
    s.qkv_bias = s.output_bias = attention_bias;
    MX_TRY(check(&s, path, st));
    *ret = s;
    return MX_OK;
}

/* ---- GGUF ------------------------------------------------------------------------------------------------ */

static mx_code gguf_needed(const mx_gguf *g, const char *key, int64_t *ret, mx_status *st) {
    bool found;

    MX_TRY(mx_gguf_integer(g, key, ret, &found, st));
    return found ? MX_OK : REFUSE(mx_gguf_path(g), st, "key '%s' is missing", key);
}

static mx_code gguf_architecture(const mx_gguf *g, mx_arena *arena, mx_status *st) {
    const char *name = NULL;
    int64_t experts = 0;

    MX_TRY(mx_gguf_word(g, "general.architecture", arena, &name, NULL, st));
    if (!name) {
        return REFUSE(mx_gguf_path(g), st, "key 'general.architecture' is missing");
    }
    if (strcmp(name, "llama") != 0) {
        return REFUSE(mx_gguf_path(g), st, "the architecture is '%s'; only %s", name, FAMILY);
    }
    MX_TRY(mx_gguf_integer(g, "llama.expert_count", &experts, NULL, st));
    if (experts) {
        return REFUSE(mx_gguf_path(g), st, "the base has %s experts of its own (Mixtral); only %s",
                      mx_text_count(experts), FAMILY);
    }
    if (!mx_gguf_tensor_count(g)) {
        return REFUSE(mx_gguf_path(g), st, "has no tensors: it is a vocabulary, not a model");
    }
    return MX_OK;
}

/* The width of a head is key_length where it is said; all of it must be rotated. */
static mx_code gguf_heads(const mx_gguf *g, mx_shape *s, mx_status *st) {
    int64_t values, rotated;

    MX_TRY(gguf_needed(g, "llama.attention.head_count", &s->heads, st));
    MX_TRY(check_size(mx_gguf_path(g), "'llama.attention.head_count'", s->heads, HEADS_MAX, st));
    s->kv_heads = s->heads;
    MX_TRY(mx_gguf_integer(g, "llama.attention.head_count_kv", &s->kv_heads, NULL, st));
    s->head_dim = s->hidden / s->heads;
    MX_TRY(mx_gguf_integer(g, "llama.attention.key_length", &s->head_dim, NULL, st));
    values = rotated = s->head_dim;
    MX_TRY(mx_gguf_integer(g, "llama.attention.value_length", &values, NULL, st));
    MX_TRY(mx_gguf_integer(g, "llama.rope.dimension_count", &rotated, NULL, st));
    if (values != s->head_dim || rotated != s->head_dim) {
        return REFUSE(mx_gguf_path(g), st, "heads are %s wide, their values %s, and %s of it is rotated; "
                      "only equal widths can be computed", mx_text_count(s->head_dim), mx_text_count(values),
                      mx_text_count(rotated));
    }
    return MX_OK;
}

static mx_code gguf_divisors(const mx_gguf *g, mx_shape *s, mx_status *st) {
    const mx_gguf_tensor *t = mx_gguf_find(g, "rope_freqs.weight");

    if (!t) {
        return MX_OK;
    }
    if (t->rank != 1 || t->dim[0] != s->head_dim / 2 || t->dim[0] > MX_HEAD_DIM_MAX / 2 || t->type != MX_FILE_F32) {
        return REFUSE(mx_gguf_path(g), st, "tensor 'rope_freqs.weight' is not %s F32 values, one for each rotary pair",
                      mx_text_count(s->head_dim / 2));
    }
    s->has_rope_divisors = true;
    memcpy(s->rope_divisor, t->bytes, t->size);
    return MX_OK;
}

static mx_code gguf_rope(const mx_gguf *g, mx_arena *arena, mx_shape *s, mx_status *st) {
    const char *kind = "none";
    double older = 1; /* llama.rope.scale_linear, before llama.rope.scaling.* */

    MX_TRY(mx_gguf_real(g, "llama.rope.freq_base", &s->rope_theta, NULL, st));
    MX_TRY(mx_gguf_real(g, "llama.rope.scale_linear", &older, NULL, st));
    MX_TRY(mx_gguf_word(g, "llama.rope.scaling.type", arena, &kind, NULL, st));
    if (strcmp(kind, "linear") == 0) {
        s->rope = MX_ROPE_LINEAR;
        s->rope_factor = older;
        MX_TRY(mx_gguf_real(g, "llama.rope.scaling.factor", &s->rope_factor, NULL, st));
    } else if (strcmp(kind, "none") != 0) {
        return REFUSE(mx_gguf_path(g), st, "the rotary scaling is '%s'; none, linear and LLaMA-3's can be computed",
                      kind);
    } else if (older != 1) {
        s->rope = MX_ROPE_LINEAR;
        s->rope_factor = older;
    }
    return gguf_divisors(g, s, st);
}

/* llama.cpp writes no key for these: a tensor is there or it is not. base_model.c then asks for it in every layer. */
static void gguf_tensors_tell(const mx_gguf *g, mx_shape *s) {
    s->tied_head = !mx_gguf_find(g, "output.weight");
    s->qkv_bias = mx_gguf_find(g, "blk.0.attn_q.bias") != NULL;
    s->output_bias = mx_gguf_find(g, "blk.0.attn_output.bias") != NULL;
    s->mlp_bias = mx_gguf_find(g, "blk.0.ffn_up.bias") != NULL;
}

static mx_code from_gguf(const mx_gguf *g, mx_arena *arena, mx_shape *s, mx_status *st) {
    const mx_gguf_tensor *embedding = mx_gguf_find(g, "token_embd.weight");

    MX_TRY(gguf_architecture(g, arena, st));
    s->architecture = "llama";
    MX_TRY(gguf_needed(g, "llama.embedding_length", &s->hidden, st));
    MX_TRY(gguf_needed(g, "llama.feed_forward_length", &s->inner, st));
    MX_TRY(gguf_needed(g, "llama.block_count", &s->layers, st));
    MX_TRY(gguf_needed(g, "llama.context_length", &s->max_positions, st));
    MX_TRY(mx_gguf_real(g, "llama.attention.layer_norm_rms_epsilon", &s->rms_eps, NULL, st));
    MX_TRY(mx_gguf_integer(g, "llama.attention.sliding_window", &s->window, NULL, st));
    MX_TRY(gguf_heads(g, s, st));
    MX_TRY(gguf_rope(g, arena, s, st));
    if (!embedding || embedding->rank != 2) {
        return REFUSE(mx_gguf_path(g), st, "tensor 'token_embd.weight' is %s", embedding ? "no matrix" : "missing");
    }
    s->vocab = embedding->dim[0];
    MX_TRY(mx_gguf_integer(g, "tokenizer.ggml.bos_token_id", &s->bos_id, NULL, st));
    MX_TRY(mx_gguf_integer(g, "tokenizer.ggml.eos_token_id", &s->eos_id, NULL, st));
    gguf_tensors_tell(g, s);
    return check(s, mx_gguf_path(g), st);
}

mx_code mx_shape_from_gguf(const mx_gguf *g, mx_shape *ret, mx_status *st) {
    mx_shape s = UNSAID;
    mx_arena words;
    mx_code code;

    mx_arena_init(&words, 16 << 20);
    code = from_gguf(g, &words, &s, st);
    mx_arena_finish(&words);
    if (!code) {
        *ret = s;
    }
    return code;
}

/* ---- what follows from a shape --------------------------------------------------------------------------- */

/* LLaMA-3's scaling, as transformers' _compute_llama3_parameters: wavelengths longer than original/low are stretched
 * by the factor, those shorter than original/high stay, and between them the two are blended. */
static double stretch(const mx_shape *s, double inverse) {
    double turns = (double)s->rope_original_positions * inverse / (2 * M_PI); /* within the original positions */
    double blend = (turns - s->rope_low_frequency) / (s->rope_high_frequency - s->rope_low_frequency);

    blend = blend < 0 ? 0 : blend > 1 ? 1 : blend;
    return (1 - blend) * inverse / s->rope_factor + blend * inverse;
}

void mx_shape_rope_inverse(const mx_shape *s, float *inverse) {
    for (int64_t j = 0; j < s->head_dim / 2; j++) {
        double plain = pow(s->rope_theta, -2.0 * (double)j / (double)s->head_dim);

        if (s->has_rope_divisors) {
            plain /= (double)s->rope_divisor[j];
        }
        inverse[j] = (float)(s->rope == MX_ROPE_LLAMA3 ? stretch(s, plain) : plain / s->rope_factor);
    }
}

mx_code mx_shape_check_length(const mx_shape *s, int64_t length, mx_status *st) {
    if (length > s->max_positions) {
        return mx_fail(st, MX_E_RECIPE, MX_NOWHERE, "sequences of %s tokens are longer than the base's %s positions",
                       mx_text_count(length), mx_text_count(s->max_positions));
    }
    if (s->window && length > s->window) {
        return mx_fail(st, MX_E_RECIPE, MX_NOWHERE, "sequences of %s tokens are longer than the base's sliding window "
                       "of %s, which is computed only up to its width", mx_text_count(length),
                       mx_text_count(s->window));
    }
    return MX_OK;
}

int64_t mx_shape_values(const mx_shape *s) {
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    int64_t layer = s->hidden * (2 * q + 2 * kv) + 3 * s->hidden * s->inner + 2 * s->hidden;

    layer += s->qkv_bias ? q + 2 * kv : 0;
    layer += s->output_bias ? s->hidden : 0;
    layer += s->mlp_bias ? 2 * s->inner + s->hidden : 0;
    return s->layers * layer + s->vocab * s->hidden * (s->tied_head ? 1 : 2) + s->hidden;
}
