#!/usr/bin/env bash
# gpu.sh - mixrun beside PEFT and MoE-PEFT on this machine's GPU, in one run: same shapes, same tokens, random weights.
#
#   tests/perf/peers/gpu.sh [ENV] [words of gpu.py: --shape 7b --tokens 8192 2048 --only "LoRA r80" --json FILE ...]
#
# ENV is a Python environment with torch (and peft, transformers, moe_peft: what lacks is said and left out); without it the
# python3 on PATH. Needs build/tests/perf/perf-gpu (or $PERF_GPU) and a GPU that both sides can use: without one it says so
# and exits 77.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
die() { printf 'peers: %s\n' "$*" >&2; exit 2; }

python=python3
if [ $# -ge 1 ] && [ "${1#-}" = "$1" ]; then
  python=$1/bin/python
  [ -x "$python" ] || die "$1 is no Python environment; install.sh makes one"
  shift
fi
command -v "$python" >/dev/null || die "there is no $python"
ours=${PERF_GPU:-$root/build/tests/perf/perf-gpu}
[ -x "$ours" ] || die "$ours is not built; ./setup.sh builds it"

export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=false
exec "$python" "$here/gpu.py" --ours "$ours" "$@"
