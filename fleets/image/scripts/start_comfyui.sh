#!/usr/bin/env bash
# Becomes ComfyUI, of the one version that the stack names.
set -euo pipefail

COMFYUI_ROOT=${COMFYUI_ROOT:-/opt/comfyui}
MODEL_ROOT=${MODEL_ROOT:-/var/lib/comfyui}

home=${COMFYUI_ROOT}/${COMFYUI_VERSION}
if [[ ! -x ${home}/.venv/bin/python ]]; then
  echo "this image has no ComfyUI ${COMFYUI_VERSION}, only: $(ls "${COMFYUI_ROOT}")" >&2
  exit 1
fi
options=(
  --listen 0.0.0.0 # The security group admits the functions alone.
  --port 8188
  --max-upload-size 500 # MB: the largest input that a job may have.
  --disable-auto-launch
)
if [[ -f ${MODEL_ROOT}/extra_model_paths.yaml ]]; then
  options+=(--extra-model-paths-config "${MODEL_ROOT}/extra_model_paths.yaml")
fi
cd "${home}"
exec .venv/bin/python main.py "${options[@]}"
