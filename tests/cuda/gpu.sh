#!/usr/bin/env bash
# gpu.sh - everything there is to check where a GPU is. On a machine without one it says so and exits 77.
#
#   tests/cuda/gpu.sh [BUILD] [RESULTS]   BUILD: a build folder made with nvcc (build); RESULTS: a folder for the figures
#                                         (tests/perf/results)
#
# 1. mixrun env and selftest on the device (golden vectors where MIXRUN_VECTORS is set)
# 2. the tests of ops and model, built for the device, against plain double references and the CPU backend
# 3. the whole program on the device: runs as on the processor, twice the same bytes, stopped and gone on, sweeps
# 4. the same ops under compute-sanitizer, where it is installed
# 5. the benchmark: perf-gpu, its table and its JSON
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build}
results=${2:-tests/perf/results}
failed=()

"$build/mixrun" env
"$build/mixrun" selftest --device cuda >/dev/null 2>&1
case $? in
  0|3) ;;
  *) "$build/mixrun" selftest --device cuda; echo "gpu.sh: no GPU to check on"; exit 77 ;;
esac

try() {
  echo "== $*"
  "$@" || failed+=("$*")
}

ninja -C "$build" gpu-tests tests/test-cuda-runner || exit 1
for precision in f32 bf16; do
  try "$build/mixrun" selftest --device cuda --precision $precision
  for folder in ${MIXRUN_VECTORS:+"$MIXRUN_VECTORS"/*/}; do
    if [ -f "$folder/batch.json" ]; then
      try "$build/mixrun" selftest --device cuda --precision $precision --vectors "$folder"
    fi
  done
done
for t in "$build"/tests/test-gpu-*; do
  if [ -f "$t" ] && [ -x "$t" ]; then
    try "$t" -j1
  fi
done
program=$(realpath "$build/mixrun")
try env MIXRUN_HOME="$PWD" MIXRUN_PROGRAM="$program" MIXRUN_SHIM="$program" "$build/tests/test-cuda-runner" -j1
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    for t in linears attention norms router experts head optimizer dora; do
      try compute-sanitizer --tool $tool --target-processes all --error-exitcode 1 "$build/tests/test-gpu-$t" -j1
    done
  done
else
  echo "== compute-sanitizer is not installed: skipped"
fi
mkdir -p "$results"
try "$build/tests/perf/perf-gpu" --json "$results/gpu-$(date +%F).json"

if [ ${#failed[@]} -gt 0 ]; then
  printf 'gpu.sh: FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "gpu.sh: all passed"
