#!/usr/bin/env bash
# Turns a machine with an NVIDIA driver (Ubuntu or Debian) into the image of a fleet's instances. As root:
#
#   fleets/image/install.sh v0.12.1 [REQUIREMENTS]
#
# It installs that version of ComfyUI, the packages of REQUIREMENTS (those of the fleet's custom nodes), and the units
# of ml-service. Run again with another version, it adds that one beside the first. docs/image.md has the rest.
set -euo pipefail

if [[ ! ${1:-} =~ ^v[0-9]+(\.[0-9]+)+$ ]]; then
  echo "usage: $0 VERSION [REQUIREMENTS], with a version such as v0.12.1" >&2
  exit 2
fi
version=$1
requirements=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
home=/opt/comfyui/${version}

apt-get update --quiet
apt-get install --quiet --yes curl git jq python3-venv
for tool in aws /opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl; do
  command -v "${tool}" >/dev/null || {
    echo "${tool} is missing: install it first, as docs/image.md says" >&2
    exit 1
  }
done

id comfyui &>/dev/null || useradd --system --create-home --home-dir /var/lib/comfyui --shell /usr/sbin/nologin comfyui
if [[ ! -d ${home} ]]; then
  git clone --quiet --depth 1 --branch "${version}" https://github.com/comfyanonymous/ComfyUI "${home}"
fi
python3 -m venv "${home}/.venv"
"${home}/.venv/bin/pip" install --quiet --requirement "${home}/requirements.txt"
if [[ -n ${requirements} ]]; then
  "${home}/.venv/bin/pip" install --quiet --requirement "${requirements}"
fi
# ComfyUI writes inputs, outputs and its settings below its own folder.
chown --recursive comfyui:comfyui /opt/comfyui

install --directory /etc/ml-service /opt/ml-service/scripts
install --mode 0755 "${here}"/scripts/*.sh /opt/ml-service/scripts/
install --mode 0644 "${here}/cloudwatch-agent.json" /opt/ml-service/
install --mode 0644 "${here}"/units/* /etc/systemd/system/
install --directory /etc/systemd
printf '[Journal]\nSystemMaxUse=200M\nMaxRetentionSec=3day\n' >/etc/systemd/journald@comfyui.conf
systemctl daemon-reload
# Not enabled: user data does that, when it has said which fleet this is.
echo "installed ComfyUI ${version} and the units of ml-service"
