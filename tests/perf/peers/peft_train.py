"""PEFT's side: trains on the first STEPS x BATCH OpenBookQA questions and prints one JSON line a step.

    peft_train.py BASE TRAIN.jsonl[.gz] --method lora --r 80 --precision bf16 --steps 10

As people write it by hand: pad to the longest question of a batch, mask the padding, AdamW, clipping. Every token of a
question but its last is fed and every one but its first is predicted, as mixrun does it with loss_on: all.
`tokens` are the real ones that were fed, `padded` all that were computed.
"""

import argparse
import gzip
import json
import os
import time

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("base")
    p.add_argument("train")
    p.add_argument("--method", choices=["base", "lora", "dora"], default="lora", help="base: nothing trained")
    p.add_argument("--r", type=int, default=16)
    p.add_argument("--dropout", type=float, default=0.05)
    p.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of the frozen weights and activations")
    p.add_argument("--bf16-adapters", action="store_true", help="adapters too (PEFT's default keeps them f32)")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=42)
    return p.parse_args()


def text(record):
    """MoE-PEFT's prompt with its answer."""
    q = record["question"]
    choices = "".join(f" ({c['label']}) {c['text']}" for c in q["choices"])
    return f"Please choose the correct answer to the question: {q['stem']}{choices}\nAnswer: {record['answerKey']}"


def questions(base, train, count):
    tokenizer = Tokenizer.from_file(os.path.join(base, "tokenizer.json"))
    with (gzip.open if train.endswith(".gz") else open)(train, "rt", encoding="utf-8") as f:
        texts = [text(json.loads(line)) for line, _ in zip(f, range(count))]
    return [e.ids for e in tokenizer.encode_batch(texts)]


def collate(batch):
    longest = max(map(len, batch)) - 1
    ids, targets, mask = (torch.full((len(batch), longest), v) for v in (0, -100, 0))
    for i, q in enumerate(batch):
        n = len(q) - 1
        ids[i, :n], targets[i, :n], mask[i, :n] = torch.tensor(q[:-1]), torch.tensor(q[1:]), 1
    return ids, targets, mask


def build(a):
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.precision]
    model = LlamaForCausalLM.from_pretrained(a.base, dtype=dtype)
    if a.method == "base":
        model.requires_grad_(False)
        model.enable_input_require_grads()
        return model.train(), None
    config = LoraConfig(task_type="CAUSAL_LM", r=a.r, lora_alpha=2 * a.r, lora_dropout=a.dropout,
                        target_modules=LINEARS, use_dora=a.method == "dora")  # fmt: skip
    model = get_peft_model(model, config, autocast_adapter_dtype=not a.bf16_adapters).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trained, lr=5e-4, weight_decay=0.01)


def main():
    a = arguments()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    todo = questions(a.base, a.train, a.steps * a.batch)
    order = torch.randperm(len(todo)).tolist()
    model, optimizer = build(a)
    for step in range(a.steps):
        began = time.perf_counter()
        ids, targets, mask = collate([todo[i] for i in order[step * a.batch : (step + 1) * a.batch]])
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        loss.backward()
        if optimizer:
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()
            optimizer.zero_grad()
        told = {"tokens": int(mask.sum()), "padded": mask.numel(), "loss": loss.item()}
        print(json.dumps({**told, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
