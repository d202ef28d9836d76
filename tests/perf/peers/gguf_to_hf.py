"""A LLaMA GGUF as a Hugging Face folder in float32: config.json, model.safetensors, tokenizer.json.

    gguf_to_hf.py MODEL.gguf FOLDER

For programs that cannot read GGUF, or not this kind; the numbers are the same. Byte-level BPE vocabularies only.
"""

import json
import os
import sys

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}  # fmt: skip
CONTROL = 3  # tokenizer.ggml.token_type of special tokens


def word(reader, name, default=None):
    return reader.fields[name].contents() if name in reader.fields else default


def config(reader):
    def get(name, default=None):
        return word(reader, "llama." + name, default)

    heads = get("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "dtype": "float32",
        "hidden_size": get("embedding_length"), "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": get("rope.dimension_count", get("embedding_length") // heads),
        "max_position_embeddings": get("context_length"), "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": get("rope.freq_base", 10000.0), "vocab_size": len(word(reader, "tokenizer.ggml.tokens")),
        "tie_word_embeddings": not any(t.name == "output.weight" for t in reader.tensors),
        "bos_token_id": word(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": word(reader, "tokenizer.ggml.eos_token_id"),
    }  # fmt: skip


def unpermute(w, heads):
    """GGUF has the rows of q and k as interleaved rotary pairs, Hugging Face as two halves of a head."""
    rows, columns = w.shape
    return w.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def weights(reader, c):
    for t in reader.tensors:
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        if t.name in OUTER:
            yield OUTER[t.name], w
            continue
        _, layer, kind, _ = t.name.split(".")
        if kind in ("attn_q", "attn_k"):
            w = unpermute(w, c["num_attention_heads" if kind == "attn_q" else "num_key_value_heads"])
        yield f"model.layers.{layer}.{NAMES[kind]}.weight", np.ascontiguousarray(w)


def tokenizer(reader):
    tokens, merges, types = (word(reader, f"tokenizer.ggml.{n}") for n in ("tokens", "merges", "token_type"))
    pre = word(reader, "tokenizer.ggml.pre")
    if word(reader, "tokenizer.ggml.model") != "gpt2" or pre not in ("smollm", "gpt-2", "default"):
        sys.exit(f"the vocabulary of this file ({pre}) is not one this script rebuilds")
    digits = [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
    t = Tokenizer(models.BPE({s: i for i, s in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    t.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True) for s, kind in zip(tokens, types) if kind == CONTROL])
    return t


def main(gguf, folder):
    reader = GGUFReader(gguf)
    c = config(reader)
    os.makedirs(folder, exist_ok=True)
    tokenizer(reader).save(os.path.join(folder, "tokenizer.json"))
    save_file(dict(weights(reader, c)), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as f:  # last: whoever finds it finds the others whole
        json.dump(c, f, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
