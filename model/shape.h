/* shape.h - the sizes and constants of a LLaMA-family model, from config.json or GGUF metadata.
 *
 * A shape that was returned is sane: every size within the limits below, heads a multiple of
 * key/value heads, an even head width, finite constants. Models that LLaMA's forward pass would
 * compute wrongly (another architecture, activation, partial rotary, soft caps, experts, already
 * quantised weights) are refused by name; nothing is ignored that changes a number. */
#ifndef MODEL_SHAPE_H
#define MODEL_SHAPE_H

#include "base/json.h"
#include "model/gguf.h"

enum { MX_HEAD_DIM_MAX = 512, MX_LAYERS_MAX = 1024 };

typedef enum mx_rope_kind {
    MX_ROPE_PLAIN,  /* RoFormer: inverse[j] = theta^(-2j/D) */
    MX_ROPE_LINEAR, /* inverse / factor */
    MX_ROPE_LLAMA3, /* long waves divided by factor, short ones kept, a ramp between */
} mx_rope_kind;

typedef struct mx_shape {
    const char *architecture; /* "llama" or "mistral"; static */
    int64_t hidden, inner;    /* width of the stream, of the feed-forward block */
    int64_t layers;
    int64_t heads, kv_heads, head_dim; /* heads x head_dim need not be hidden */
    int64_t vocab;
    int64_t max_positions;
    int64_t window; /* Mistral's sliding window; 0: none. See mx_shape_check_length */
    double rms_eps;
    double rope_theta;
    mx_rope_kind rope;
    double rope_factor, rope_low_frequency, rope_high_frequency; /* 1 where unused */
    int64_t rope_original_positions;
    bool has_rope_divisors; /* GGUF's tensor rope_freqs.weight: replaces the scaling above */
    float rope_divisor[MX_HEAD_DIM_MAX / 2];
    bool tied_head;              /* the head is the embedding */
    bool qkv_bias, output_bias;  /* Hugging Face's attention_bias sets both */
    bool mlp_bias;               /* gate, up and down */
    int64_t bos_id, eos_id;      /* -1: the file does not say; of several EOS the first */
} mx_shape;

/* `path` is the file in errors and must outlive the status. MX_E_DATA. */
MX_MUST_CHECK mx_code mx_shape_from_config(const json_t *config, const char *path, mx_shape *ret, mx_status *st);
/* Needs only the metadata (llama.* keys) and the names and sizes of the tensors, which decide what the
 * metadata does not say: biases, tied head, rope divisors. A file without tensors (a vocabulary) has no shape. */
MX_MUST_CHECK mx_code mx_shape_from_gguf(const mx_gguf *g, mx_shape *ret, mx_status *st);

/* inverse[j], j < head_dim / 2: radians per position of rotary pair j, scaling included; in f64, then rounded. */
void mx_shape_rope_inverse(const mx_shape *s, float *inverse);

/* May sequences of `length` tokens be computed? Not past max_positions, nor past a sliding window: within the
 * window plain causal attention is what Mistral computes, beyond it would need a mask we do not have. So such a
 * model is refused only for recipes whose sequences would reach that far. MX_E_RECIPE without a place. */
MX_MUST_CHECK mx_code mx_shape_check_length(const mx_shape *s, int64_t length, mx_status *st);

/* Values of the whole model, the tied head once. */
int64_t mx_shape_values(const mx_shape *s);

#endif
