#!/usr/bin/env bash
# run.sh - mixrun's speed and memory beside PEFT's, on this machine, in one run.
#
#   tests/perf/peers/run.sh [--install] ENV [words of compare.py: --steps N --precision bf16 --only "LoRA r80" ...]
#
# ENV is a Python environment with torch, transformers and peft; --install creates it (some GB). Needs build/mixrun (or
# $MIXRUN), the default base (setup.sh fetches it) and OpenBookQA in $MIXRUN_DATA. The table goes to standard output;
# keep one from a quiet machine as tests/perf/results/peers-DATE.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
die() { printf 'peers: %s\n' "$*" >&2; exit 2; }

install=no
if [ "${1:-}" = --install ]; then install=yes; shift; fi
[ $# -ge 1 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0"; exit 2; }
env=$1; shift
[ "$install" = no ] || "$here/install.sh" "$env" >&2
[ -x "$env/bin/python" ] || die "$env is no Python environment; --install creates it"
mixrun=${MIXRUN:-$root/build/mixrun}
[ -x "$mixrun" ] || die "$mixrun is not built; ./setup.sh builds it"
train=${MIXRUN_DATA:?"MIXRUN_DATA must name the folder with openbookqa/train.jsonl"}/openbookqa/train.jsonl
[ -f "$train" ] || train=$train.gz
[ -f "$train" ] || die "${train%.gz} is not there; mixrun fetch openbookqa gets it"

model=$root/configs/models/smollm2-135m-instruct.yaml
fact() { sed -n "s/^$1: *//p" "$model"; }
hub=${HF_HUB_CACHE:-${HF_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/huggingface}/hub}
gguf=$hub/models--$(fact repository | sed 's,/,--,')/snapshots/$(fact revision)/$(fact file)
[ -f "$gguf" ] || die "$gguf is not there; ./setup.sh fetches it"
base=$env/smollm2-135m-instruct
[ -f "$base/config.json" ] || "$env/bin/python" "$here/gguf_to_hf.py" "$gguf" "$base" >&2

export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
exec "$env/bin/python" "$here/compare.py" --base "$base" --train "$train" --mixrun "$mixrun" "$@"
