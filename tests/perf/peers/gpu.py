"""mixrun beside PEFT and MoE-PEFT on a GPU: tokens per second and memory of whole training steps on random weights.

Run it by gpu.sh. Each case is a process of its own, one at a time. All sides compute the same: sequences of 256 tokens, loss
on all of them, bf16 weights and activations, adapters of the same rank on all linears, dropout 0.05, AdamW.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))

# A name, ours, and what each of the others calls it; None: it has none.
CASES = [
    ("frozen base, forward and backward", "frozen base", {"peft": "base"}),
    ("LoRA r80", "lora r80", {"peft": "lora", "moe_peft": "lora"}),
    ("DoRA r80", "dora r80", {"peft": "dora", "moe_peft": "dora"}),
    ("MixLoRA r16 E8 top-2", "mixlora r16 E8", {"moe_peft": "mixlora"}),
]
SIDES = {"peft": "PEFT", "moe_peft": "MoE-PEFT"}
NEEDS = {"peft": ["torch", "transformers", "peft"], "moe_peft": ["torch", "transformers", "moe_peft"]}
NO_GPU = 77


def versions():
    found = []
    for package in ("torch", "transformers", "peft", "moe_peft"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} installed" if importlib.util.find_spec(package) else f"no {package}")
    return ", ".join(found)


def missing(side):
    return [package for package in NEEDS[side] if importlib.util.find_spec(package) is None]


def run_ours(cases, a):
    """All of our cases in one process, since they share a base; {(case, tokens): record}."""
    only = ";".join(f"steps {a.shape} {ours}$" for _, ours, _ in cases)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ours.json")
        command = [a.ours, "--device", a.device, "--peers", "--only", only, "--json", path]
        command += ["--quick"] if a.quick else []
        child = subprocess.run(command, capture_output=True, text=True)
        if child.returncode == NO_GPU:
            print(child.stdout.strip() or child.stderr.strip())
            sys.exit(NO_GPU)
        if child.returncode:
            sys.exit(f"{' '.join(command)}\nfailed:\n{child.stdout}{child.stderr}")
        with open(path) as f:
            report = json.load(f)
    memory = {m["case"]: m["device"] or m["used"] for m in report.get("memory", []) if m["shape"] == a.shape}
    print(f"{report['environment']['mixrun']}; {report['environment']['backend']}", flush=True)
    steps = [s for s in report.get("steps", []) if s["shape"] == a.shape]
    return {(s["case"], s["tokens"]): {**s, "memory": memory.get(s["case"], 0)} for s in steps}


def run_theirs(side, method, tokens, a):
    """A record, or why there is none."""
    command = [sys.executable, os.path.join(HERE, "gpu_torch.py"), "--side", side, "--method", method, "--shape", a.shape,
               "--tokens", str(tokens), "--steps", str(a.steps), "--warm-up", str(a.warm_up)]  # fmt: skip
    command += ["--keep-activations"] if a.keep_activations else []
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=a.timeout)
    except subprocess.TimeoutExpired:
        return f"took more than {a.timeout} s"
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        return (child.stderr.strip().splitlines() or ["no words"])[-1][:200]
    return json.loads(lines[-1])


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def shown(record, ours=None):
    """Tokens per second, memory, and how many times theirs we are."""
    if not isinstance(record, dict):
        return ["", "", ""]
    ratio = f"{ours['tokens_per_second'] / record['tokens_per_second']:.2f} x" if ours else ""
    return [f"{record['tokens_per_second']:.0f}", f"{record['memory'] / 2**30:.1f}", ratio]


def compare(a):
    cases = [c for c in CASES if a.only in c[0]]
    sides, report, notes = {}, [], []
    for side in SIDES:
        lacks = missing(side)
        sides[side] = not lacks
        if lacks:
            notes.append(f"{SIDES[side]} is not compared: no {', '.join(lacks)} in {sys.executable}")
    ours = run_ours(cases, a)
    print(f"\n{a.shape}, sequences of 256, loss on all tokens, bf16; median of {a.steps} steps. GiB: taken from the device.\n")
    heads = [f"{SIDES[s]} {what}" for s in SIDES for what in ("tok/s", "GiB", "ours / theirs")]
    row("", "tokens", "ours tok/s", "ours GiB", *heads)
    row("---", *["---:"] * (3 + len(heads)))
    for name, case, words in cases:
        for tokens in sorted({t for c, t in ours if c == case}, reverse=True):
            if a.tokens and tokens not in a.tokens:
                continue
            mine, cells = ours[case, tokens], []
            record = {"case": name, "tokens": tokens, "mixrun": mine}
            for side in SIDES:
                theirs = run_theirs(side, words[side], tokens, a) if side in words and sides[side] else None
                record[side] = theirs
                cells += shown(theirs, mine)
                if isinstance(theirs, str):
                    notes.append(f"{SIDES[side]}, {name}, {tokens} tokens: {theirs}")
            report.append(record)
            row(name, str(tokens), *shown(mine)[:2], *cells)
    print("\n" + "\n".join(notes) if notes else "")
    return {"date": str(datetime.date.today()), "shape": a.shape, "versions": versions(), "cases": report, "notes": notes}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", required=True, help="perf-gpu")
    p.add_argument("--device", default="cuda", help="ours; the others take the same GPU by CUDA_VISIBLE_DEVICES")
    p.add_argument("--shape", choices=["7b", "1b", "135m"], default="7b")
    p.add_argument("--tokens", type=int, nargs="*", help="of a micro-batch: 8192, 2048 or both")
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--warm-up", type=int, default=2)
    p.add_argument("--timeout", type=int, default=300, help="seconds for one case of theirs")
    p.add_argument("--only", default="", help="cases whose name contains this")
    p.add_argument("--keep-activations", action="store_true", help="MoE-PEFT without its recomputation of every layer")
    p.add_argument("--quick", action="store_true", help="ours in miniature: tries this script out")
    p.add_argument("--json", help="write the figures here too")
    return p.parse_args()


def main():
    a = arguments()
    print(f"# mixrun beside PEFT and MoE-PEFT on a GPU, {datetime.date.today()}\n\n{versions()}")
    report = compare(a)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(report, f, indent=1)


if __name__ == "__main__":
    main()
