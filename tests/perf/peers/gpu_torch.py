"""One case of PEFT or MoE-PEFT: whole training steps of a random LLaMA on the GPU; prints one JSON line.

    gpu_torch.py --side peft --method lora --shape 7b --tokens 8192

Sequences of 256 tokens without padding, which is kind to both: packing is not what is compared. Times are CUDA's own, from
before the forward pass to behind the optimizer; memory is what the allocator took from the device at most.

PEFT is driven as its documentation does: transformers' model with scaled-dot-product attention, adapters in f32, AdamW,
clipping. MoE-PEFT (TUDB-Labs/MoE-PEFT) is driven as its trainer does: eager attention, which it recommends for training, every
layer recomputed in the backward pass, its efficient operators on, AdamW without clipping, its router loss added.
"""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig

SHAPES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
           "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": False},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
}  # fmt: skip
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LENGTH, DROPOUT, RATE = 256, 0.05, 1e-4


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--side", choices=["peft", "moe_peft"], required=True)
    p.add_argument("--method", choices=["base", "lora", "dora", "mixlora"], required=True)
    p.add_argument("--shape", choices=SHAPES, default="7b")
    p.add_argument("--tokens", type=int, default=8192)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--warm-up", type=int, default=2)
    p.add_argument("--keep-activations", action="store_true")
    return p.parse_args()


def random_model(shape, attention):
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, rms_norm_eps=1e-5, hidden_act="silu", use_cache=False)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    finally:
        torch.set_default_dtype(before)


def peft_step(a, ids):
    """A function that computes one step."""
    model = random_model(a.shape, "sdpa")
    optimizer = None
    if a.method == "base":
        model.requires_grad_(False)
        model.enable_input_require_grads()
    else:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(task_type="CAUSAL_LM", r=80, lora_alpha=160, lora_dropout=DROPOUT, target_modules=LINEARS,
                            use_dora=a.method == "dora")  # fmt: skip
        model = get_peft_model(model, config)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01, fused=True)
    model.train()

    def step():
        logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        if optimizer:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return step


def moe_peft_step(a, ids):
    import moe_peft
    from moe_peft.models import from_pretrained

    words = {"r": 80, "lora_alpha": 160, "lora_dropout": DROPOUT, "target_modules": LINEARS}
    if a.method == "mixlora":
        words |= {"r": 16, "lora_alpha": 32, "routing_strategy": "mixlora", "num_experts": 8, "top_k": 2}
    elif a.method == "dora":
        words |= {"use_dora": True}
    base = random_model(a.shape, "eager").requires_grad_(False)
    model = moe_peft.LLMModel(from_pretrained(base, attn_impl="eager", device="cuda"))
    kind = "MIXLORA" if a.method == "mixlora" else "LORA"
    model.init_adapter(moe_peft.adapter_factory(peft_type=kind, adapter_name="peer", **words))
    trained = [p for p in model.get_adapter_weight_dict("peer").values() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)

    def step():
        out = model.forward(moe_peft.LLMModelInput(
            batch_configs_=[moe_peft.LLMBatchConfig("peer", 0, len(ids))],
            batch_tokens_=ids, batch_labels_=ids.clone(), batch_masks_=torch.ones_like(ids),
            gradient_checkpoint_="none" if a.keep_activations else "recompute",
        ))[0]  # fmt: skip
        loss = out.loss if out.aux_loss is None else out.loss + out.aux_loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def main():
    a = arguments()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU")
    torch.manual_seed(1)
    ids = torch.randint(SHAPES[a.shape]["vocab_size"], (a.tokens // LENGTH, LENGTH), device="cuda")
    step = (peft_step if a.side == "peft" else moe_peft_step)(a, ids)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(a.warm_up + a.steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        loss = step()
        mark.record()
    torch.cuda.synchronize()
    seconds = [before.elapsed_time(after) / 1e3 for before, after in zip(marks, marks[1:])][a.warm_up :]
    told = {"side": a.side, "method": a.method, "shape": a.shape, "tokens": ids.numel(), "loss": loss.item()}
    told |= {"seconds": seconds, "tokens_per_second": ids.numel() / statistics.median(seconds)}
    print(json.dumps({**told, "memory": torch.cuda.max_memory_reserved()}), flush=True)


if __name__ == "__main__":
    main()
