"""Holds PEFT's logits, on an adapter that mixrun saved, against those mixrun computed.

    check.py BASE BATCH OUT...

BASE is a Hugging Face folder, each OUT what peft-export wrote: adapter/ and logits.f32. Both sides run in float32.
Prints the largest differences; exits 1 beyond 1e-4, or when PEFT did not take every tensor of an adapter.
"""

import json
import os
import sys

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.numpy import load_file
from transformers import LlamaForCausalLM

TOLERANCE = 1e-4  # float32, logits of a few units; the two sum in different orders


def load(base, adapter):
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).eval()


def same_tensors(model, adapter):
    """PEFT only warns of names it does not know and of layers left at their start: compare name by name."""
    saved = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    taken = {name: t.numpy() for name, t in get_peft_model_state_dict(model).items()}
    odd = sorted(saved.keys() ^ taken.keys())
    odd += [name for name in saved.keys() & taken.keys() if not np.array_equal(saved[name], taken[name])]
    for name in odd[:5]:
        print(f"  {name}: {'saved' if name in saved else 'not saved'}, {'taken' if name in taken else 'not taken'}")
    return not odd


def logits(model, sequences):
    with torch.no_grad():
        return np.concatenate([model(input_ids=ids).logits[0].numpy() for ids in sequences])


def check(base, sequences, out):
    adapter = os.path.join(out, "adapter")
    ours = np.fromfile(os.path.join(out, "logits.f32"), dtype=np.float32)
    model = load(base, adapter)
    theirs = logits(model, sequences)
    with model.disable_adapter():
        moved = np.abs(logits(model, sequences) - theirs).max()  # an adapter that does nothing would prove nothing
    if ours.size != theirs.size:
        sys.exit(f"{out}: mixrun gave {ours.size} logits, PEFT {theirs.size}")
    worst = np.abs(ours.reshape(theirs.shape) - theirs).max()
    fine = bool(worst <= TOLERANCE and moved > 1 and same_tensors(model, adapter))
    print(f"{os.path.basename(out):8} largest difference {worst:.2e} of {theirs.size} logits, which the adapter moves "
          f"by up to {moved:.1f}: {'ok' if fine else 'NOT THE SAME'}", flush=True)  # fmt: skip
    return fine


def main(base, batch, *outs):
    with open(batch) as f:
        sequences = [torch.tensor([s["ids"]]) for s in json.load(f)["sequences"]]
    sys.exit(not all([check(base, sequences, out) for out in outs]))


if __name__ == "__main__":
    main(*sys.argv[1:])
