#!/usr/bin/env bash
# everything.sh - all that can be proved of the CUDA backend on a machine without a GPU.
#
#   tests/cuda/everything.sh [BUILD]      BUILD: a build folder (build); BUILD-sanitized is made beside it
#
# 1. the suite `cuda`, as `meson test` runs it: ops, model and program on the shim, the shim itself, planted faults
# 2. the suite `checkers`: every op under ThreadSanitizer and under AddressSanitizer, with several schedules, and the ops' tests
#    under ThreadSanitizer
# 3. more problems of each op, CUDA against CPU, under the shuffled schedules
# 4. the suite `cuda` once more, everything compiled for AddressSanitizer and UndefinedBehaviorSanitizer
# Set MIXRUN_VECTORS and MIXRUN_TEST_MODELS for the golden vectors and the small real models. Every step runs; the exit status
# is 0 when all have passed.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build}
failed=()

try() {
  echo "== $*"
  "$@" || failed+=("$*")
}

[ -f "$build/build.ninja" ] || meson setup "$build" || exit 1
[ -f "$build-sanitized/build.ninja" ] ||
  meson setup "$build-sanitized" -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dcuda=disabled || exit 1
try meson test -C "$build" --suite cuda --print-errorlogs
try meson test -C "$build" --suite checkers --print-errorlogs
for seed in 1 2 3; do
  try env OMP_NUM_THREADS=1 MIXRUN_SHIM_SEED=$seed "$build/tests/cuda/races-plain" 100 ${seed}000
done
try env MIXRUN_PARITY_SEEDS=200 MIXRUN_PARITY_PRINT=1 "$build/tests/cuda/test-cuda-parity"
try meson test -C "$build-sanitized" --suite cuda --print-errorlogs

for f in "${failed[@]}"; do
  echo "failed: $f"
done
if [ ${#failed[@]} -eq 0 ]; then
  echo "everything.sh: all passed"
fi
exit $((${#failed[@]} > 0))
