#!/usr/bin/env bash
# run.sh - does PEFT compute from our saved adapters what mixrun computed?
#
#   tests/perf/peft/run.sh [--install] ENV [BUILD]
#
# ENV is a Python environment with torch, transformers and peft; --install creates it (some GB). BUILD is the build
# folder (default: build). The base is tiny-a of $MIXRUN_VECTORS. Prints each adapter's largest difference; exits 1
# beyond 1e-4.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
usage() { sed -n '4,8s/^# \{0,1\}//p' "$0"; exit 2; }

install=no
if [ "${1:-}" = --install ]; then install=yes; shift; fi
[ $# -ge 1 ] || usage
env=$1 build=${2:-$root/build}
vectors=${MIXRUN_VECTORS:?"MIXRUN_VECTORS must name the folder with tiny-a"}
[ "$install" = no ] || "$here/../peers/install.sh" "$env"
ninja -C "$build" tests/perf/peft/peft-export >/dev/null

export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error PYTHONWARNINGS=ignore::FutureWarning

# One adapter_config.json a line: what a run's words would have been saved as.
all='"q_proj","k_proj","v_proj","o_proj","gate_proj","up_proj","down_proj"'
cases() {
  cat <<END
lora   {"r": 4, "lora_alpha": 8, "target_modules": [$all], "peft_type": "LORA"}
part   {"r": 6, "lora_alpha": 9, "target_modules": ["q_proj", "v_proj", "down_proj"], "peft_type": "LORA"}
rslora {"r": 4, "lora_alpha": 8, "target_modules": [$all], "use_rslora": true, "peft_type": "LORA"}
dora   {"r": 4, "lora_alpha": 8, "target_modules": [$all], "use_dora": true, "peft_type": "LORA"}
rsdora {"r": 6, "lora_alpha": 9, "target_modules": ["o_proj"], "use_dora": true, "use_rslora": true, "peft_type": "LORA"}
END
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
outs=()
while read -r name words; do
  printf '%s' "$words" > "$work/$name.json"
  "$build/tests/perf/peft/peft-export" "$vectors/tiny-a" "$vectors/tiny-a/batch.json" "$work/$name.json" "$work/$name"
  outs+=("$work/$name")
done < <(cases)
"$env/bin/python" "$here/check.py" "$vectors/tiny-a" "$vectors/tiny-a/batch.json" "${outs[@]}"
