#!/usr/bin/env bash
# Runs a command with a container engine of its own, which ends with it: Docker and compose of Debian unstable.
#
#     scripts/engine.sh COMMAND...    # scripts/engine.sh scripts/image.sh
#
# By root, on a Debian with the packages runc and iptables. Docker's programs are unpacked once in LOADER_ENGINE_ROOT and
# run from there, not installed; its images and volumes are in a temporary directory.
set -euo pipefail

root=${LOADER_ENGINE_ROOT:-$HOME/.cache/mysql-redis-loader/engine}
packages=(docker.io docker-cli docker-buildx docker-compose containerd)

unpack() {
  local apt=$root.new/apt options package
  rm -rf "$root.new" # of a run that was broken off
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $("$(dirname "$0")/mirror.sh") sid main" >"$apt/list"
  options=(-qq -o "Dir::Etc::sourcelist=$apt/list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" download "${packages[@]}")
  for package in "$apt"/*.deb; do
    dpkg -x "$package" "$root.new"
  done
  rm -r "$apt"
  mv "$root.new" "$root"
}

# Takes Docker's rules and its link away again, unless another engine has them too.
tidy() {
  local tables
  if [ -z "$had_docker" ]; then
    for tables in iptables ip6tables; do
      "$tables-save" | grep -vi docker | "$tables-restore"
    done
    ip link delete docker0 2>/dev/null || true
    echo "$had_forward" >/proc/sys/net/ipv4/ip_forward
  fi
}

leave() {
  kill "$engine" 2>/dev/null && wait "$engine" || true
  tidy
  rm -rf "$work"
}

: "${1:?a command}"
for name in apt-get runc iptables ip; do
  if [ "$(id -u)" != 0 ] || ! command -v "$name" >/dev/null; then
    echo "engine: must be run by root, on a Debian with the packages runc, iptables and iproute2" >&2
    exit 1
  fi
done
[ -d "$root" ] || unpack
work=$(mktemp -d)
had_docker=$(iptables-save | grep -i docker || true)
had_forward=$(</proc/sys/net/ipv4/ip_forward)
mkdir -p "$work/config/cli-plugins"
ln -s "$root"/usr/libexec/docker/cli-plugins/* "$work/config/cli-plugins/"
export PATH=$root/usr/sbin:$root/usr/bin:$PATH DOCKER_CONFIG=$work/config DOCKER_HOST=unix://$work/socket

dockerd --data-root "$work/data" --exec-root "$work/run" --pidfile "$work/pid" --host "$DOCKER_HOST" \
  --ip-forward-no-drop >"$work/log" 2>&1 &
engine=$!
trap leave EXIT
until docker info >/dev/null 2>&1; do
  kill -0 "$engine" 2>/dev/null || {
    tail -n 5 "$work/log" >&2
    exit 1
  }
  sleep 0.5
done
"$@"
