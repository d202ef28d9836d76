#!/usr/bin/env bash
# install.sh ENV - a Python environment with what the comparisons with other programs need; quick when it is there.
set -euo pipefail
env=${1:?"usage: install.sh ENV"}
if "$env/bin/python" -c 'import torch, transformers, peft, safetensors, gguf' 2>/dev/null; then
  exit 0
fi
echo "install: putting torch, transformers, peft, safetensors and gguf into $env (some GB)"
python3 -m venv "$env"
"$env/bin/pip" install --quiet --disable-pip-version-check torch numpy transformers peft safetensors gguf
