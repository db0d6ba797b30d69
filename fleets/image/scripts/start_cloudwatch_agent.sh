#!/usr/bin/env bash
# Starts the CloudWatch agent with this instance's fleet as a dimension of every metric.
set -euo pipefail

AGENT=${AGENT:-/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl}
CONFIGURATION=${CONFIGURATION:-/opt/ml-service/cloudwatch-agent.json}
FILLED=${FILLED:-/run/ml-service-cloudwatch-agent.json}

sed "s/FLEET/${FLEET}/" "${CONFIGURATION}" >"${FILLED}"
"${AGENT}" -a fetch-config -m ec2 -c "file:${FILLED}" -s
