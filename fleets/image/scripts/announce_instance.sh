#!/usr/bin/env bash
# Lets Auto Scaling go on with this instance (into service, or to sleep in the warm pool) once ComfyUI answers.
# Without this call the instance is ended when the group's launch hook times out.
set -euo pipefail

PAUSE_SECONDS=${PAUSE_SECONDS:-5}
TRIES=${TRIES:-12}

until curl --fail --silent --output /dev/null --max-time 5 http://127.0.0.1:8188/queue; do
  sleep "${PAUSE_SECONDS}"
done

metadata=http://169.254.169.254/latest
token=$(curl --fail --silent --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "${metadata}/api/token")
instance_id=$(curl --fail --silent --header "X-aws-ec2-metadata-token: ${token}" "${metadata}/meta-data/instance-id")

for ((try = 1; try <= TRIES; try++)); do
  if answer=$(aws autoscaling complete-lifecycle-action --instance-id "${instance_id}" \
    --auto-scaling-group-name "${GROUP_NAME}" --lifecycle-hook-name comfyui-answers \
    --lifecycle-action-result CONTINUE 2>&1); then
    echo "ComfyUI answers: Auto Scaling goes on with ${instance_id}"
    exit 0
  fi
  if [[ ${answer} != *"No active Lifecycle Action"* ]]; then
    echo "${answer}" >&2
    exit 1
  fi
  # The instance was faster than its group, or it only restarted and nobody waits for it.
  sleep "${PAUSE_SECONDS}"
done
echo "ComfyUI answers; Auto Scaling does not wait for ${instance_id}"
