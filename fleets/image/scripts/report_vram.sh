#!/usr/bin/env bash
# Tells the CloudWatch agent how full the GPU's memory is, as ComfyUI itself sees it.
# The agent's own GPU metrics would do for NVIDIA only, and do not know what ComfyUI can free.
set -euo pipefail

STATSD_PORT=${STATSD_PORT:-8125}

used_percent=$(curl --fail --silent --max-time 5 http://127.0.0.1:8188/system_stats |
  jq --raw-output '[.devices[] | select(.vram_total > 0) | 100 * (1 - .vram_free / .vram_total)] | max // empty')
if [[ -n ${used_percent} ]]; then # Empty on a machine without a GPU.
  printf 'vram_used_percent:%.1f|g|#fleet:%s' "${used_percent}" "${FLEET}" >"/dev/udp/127.0.0.1/${STATSD_PORT}"
fi
