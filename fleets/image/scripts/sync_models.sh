#!/usr/bin/env bash
# Brings the fleet's models from S3 to this instance, and takes away what is no longer there.
# Runs before every start of ComfyUI; only the first time there is much to copy.
set -euo pipefail

MODEL_ROOT=${MODEL_ROOT:-/var/lib/comfyui}

if [[ -z ${MODEL_BUCKET} ]]; then
  echo "no model bucket: the image holds the models"
  exit 0
fi
aws s3 sync "s3://${MODEL_BUCKET}/${FLEET}/models" "${MODEL_ROOT}/models" \
  --delete --exact-timestamps --only-show-errors
# Last: ComfyUI must not be told of a folder before it is there.
aws s3 cp "s3://${MODEL_BUCKET}/${FLEET}/extra_model_paths.yaml" \
  "${MODEL_ROOT}/extra_model_paths.yaml" --only-show-errors
