"""mixrun beside PEFT on OpenBookQA, in one run: real tokens per second, memory, seconds to the end of the first step.

Run it by run.sh. Each case is a process of its own, one at a time, PEFT's and ours in turn, so that both see the same
machine. Both train on the same questions; that both counted the same tokens is checked.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "../../.."))

# What is compared: a name, PEFT's words, ours. None: that side does not have it.
R16 = ["adapter.lora_r=16", "adapter.lora_alpha=32"]
MIX = [*R16, "+adapter.num_experts=8", "+adapter.routing_strategy=top_k", "+adapter.top_k=2"]
CASES = [
    ("frozen base, forward and backward", ["--method", "base"], ["adapter.method=base"]),
    ("LoRA r80", ["--method", "lora", "--r", "80"], ["adapter.method=lora"]),
    ("LoRA r80, adapters in bf16", ["--method", "lora", "--r", "80", "--bf16-adapters"], None),
    ("LoRA r16", ["--method", "lora", "--r", "16"], ["adapter.method=lora", *R16]),
    ("DoRA r80", ["--method", "dora", "--r", "80"], ["adapter.method=dora"]),
    ("MixLoRA r16 E8 top-2", None, ["adapter.method=mixlora", *MIX]),
    ("MixDoRA r16 E8 top-2", None, ["adapter.method=mixdora", *MIX]),
]  # fmt: skip
QUOTED = """\
Quoted, not measured here. Another slow two-core machine, the same model, recipe and batch, real tokens per second
(f32, bf16): PEFT frozen base 130, 203; LoRA r80 98, 90; LoRA r16 98, 108; DoRA r80 47. The reference trainer MoE-PEFT:
LoRA r80 55, 74; MixLoRA r16 E8 top-2 39, 46 (56 without its recomputation); MixDoRA 30. 3 to 6.5 GB; 17 to 37 s to the
end of the first step."""
QUOTED_PEFT_R80, QUOTED_MIXLORA = {"f32": 98, "bf16": 90}, {"f32": 39, "bf16": 46}


class Process:
    """A child, watched: peaks of resident and anonymous memory, and when `first` first says that a step has ended."""

    def __init__(self, command, stdout, first=None, env=None):
        self.errors = tempfile.TemporaryFile("w+")
        self.began = time.perf_counter()
        self.child = subprocess.Popen(command, stdout=stdout, stderr=self.errors, text=True, cwd=ROOT, env=env)
        self.resident = self.anonymous = 0
        self.first_step, self.first = None, first
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def watch(self):
        while self.child.poll() is None:
            try:
                with open(f"/proc/{self.child.pid}/status") as f:
                    kib = dict(re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB", f.read(), re.M))
            except (FileNotFoundError, ProcessLookupError):
                kib = {}
            self.resident = max(self.resident, int(kib.get("VmHWM", 0)))
            self.anonymous = max(self.anonymous, int(kib.get("RssAnon", 0)))
            if self.first and self.first_step is None and self.first():
                self.note_first_step()
            time.sleep(0.02)

    def note_first_step(self):
        self.first_step = time.perf_counter() - self.began

    def finish(self):
        """Waits. A failed child ends the comparison with its words."""
        self.watcher.join()
        if self.child.returncode:
            self.errors.seek(0)
            sys.exit(f"{' '.join(self.child.args)}\nfailed:\n{self.errors.read()}")

    def figures(self, tokens, speeds, warm_up, **more):
        return {"speed": statistics.median(speeds[warm_up:]), "tokens": sum(tokens), "first_step": self.first_step,
                "resident": self.resident / 2**20, "anonymous": self.anonymous / 2**20, **more}  # fmt: skip


def run_peft(words, precision, a):
    command = [sys.executable, os.path.join(HERE, "peft_train.py"), a.base, a.train, *words, "--precision", precision,
               "--steps", str(a.steps), "--batch", str(a.batch), "--threads", str(a.threads)]  # fmt: skip
    p = Process(command, subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": str(a.threads)})
    steps = []
    for line in p.child.stdout:
        steps.append(json.loads(line))
        if len(steps) == 1:
            p.note_first_step()
    p.finish()
    padded = 1 - sum(s["tokens"] for s in steps) / sum(s["padded"] for s in steps)
    speeds = [s["tokens"] / s["seconds"] for s in steps]
    return p.figures([s["tokens"] for s in steps], speeds, a.warm_up, padded=padded)


def metric(db, name):
    """One value a step, in order; none while the database is not there yet."""
    try:
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as connection:
            return [v for v, in connection.execute("SELECT value FROM metrics WHERE name = ? ORDER BY step", [name])]
    except sqlite3.OperationalError:
        return []


def run_ours(words, precision, a):
    with tempfile.TemporaryDirectory() as folder:
        db = os.path.join(folder, "peers.db")
        command = [a.mixrun, os.path.join(HERE, "recipe.yaml"), *words, f"precision={precision}", f"db={db}",
                   f"output_dir={folder}", f"threads={a.threads}", f"train.batch_size={a.batch}",
                   f"train.tasks=[{{task: openbookqa, limit: {a.steps * a.batch}}}]"]  # fmt: skip
        p = Process(command, subprocess.DEVNULL, first=lambda: metric(db, "tokens"))
        p.finish()
        return p.figures(metric(db, "tokens"), metric(db, "tokens_per_second"), a.warm_up)


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def show(name, precision, theirs, ours):
    def both(key, form):
        return [form.format(side[key]) if side else "" for side in (theirs, ours)]

    ratio = f"{ours['speed'] / theirs['speed']:.2f} x" if theirs and ours else ""
    row(name, precision, *both("speed", "{:.0f}"), ratio, *both("resident", "{:.2f}"), *both("anonymous", "{:.2f}"),
        *both("first_step", "{:.1f}"))  # fmt: skip


def machine(a):
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*: (.*)", f.read())
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "peft"))
    ours = subprocess.run([a.mixrun, "version"], capture_output=True, text=True).stdout.strip().splitlines()[0]
    return f"{model.group(1) if model else platform.machine()}, {a.threads} threads; {versions}; {ours}"


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", required=True, help="the default base as a Hugging Face folder")
    p.add_argument("--train", required=True, help="OpenBookQA's train.jsonl")
    p.add_argument("--mixrun", required=True)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--warm-up", type=int, default=3, help="steps left out of the median")
    p.add_argument("--batch", type=int, default=16, help="questions a step")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--precision", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    p.add_argument("--only", default="", help="cases whose name contains this")
    a = p.parse_args()
    if a.warm_up >= a.steps:
        p.error("--warm-up must leave a step to measure")
    return a


def main():
    a = arguments()
    results = {}
    print(f"# mixrun beside PEFT, {datetime.date.today()}\n\n{machine(a)}\n")
    print(f"OpenBookQA, {a.batch} questions a step, loss on all tokens. Median of {a.steps - a.warm_up} steps.")
    print("Tokens are those of the questions, padding is not counted. GiB: peak resident, and peak anonymous memory.\n")
    row("", "", "PEFT tok/s", "ours tok/s", "ours / PEFT", "PEFT GiB", "ours GiB", "PEFT anon GiB", "ours anon GiB",
        "PEFT s to 1st step", "ours s")  # fmt: skip
    row(*["---"] * 2, *["---:"] * 9)
    for precision in a.precision:
        for name, theirs, ours in CASES:
            if a.only not in name or (precision == "f32" and theirs and "--bf16-adapters" in theirs):
                continue
            theirs = theirs and run_peft(theirs, precision, a)
            ours = ours and run_ours(ours, precision, a)
            results[name, precision] = theirs, ours
            show(name, precision, theirs, ours)
    tokens = {side["tokens"] for pair in results.values() for side in pair if side}
    if len(tokens) > 1:
        sys.exit(f"the sides did not compute the same tokens: {sorted(tokens)}")
    print(f"\n{tokens.pop() / a.steps:.0f} tokens a step on both sides", end="")
    padded = [pair[0]["padded"] for pair in results.values() if pair[0]]
    print(f"; of what PEFT computes {padded[0]:.0%} is padding." if padded else ".")
    for precision in a.precision:
        scale, mix = (results.get((name, precision), (None, None)) for name in ("LoRA r80", "MixLoRA r16 E8 top-2"))
        if scale[0] and mix[1]:
            reference = QUOTED_MIXLORA[precision] * scale[0]["speed"] / QUOTED_PEFT_R80[precision]
            ratio = mix[1]["speed"] / reference
            print(f"MixLoRA {precision}: {ratio:.1f} x its reference, if that did {reference:.0f} tok/s")
            print("here (an estimate: the figure quoted below, times PEFT's LoRA r80 here over PEFT's LoRA r80 there).")
    print("\n" + QUOTED)


if __name__ == "__main__":
    main()
