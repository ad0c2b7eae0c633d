#!/usr/bin/env bash
# Brings what the project needs: programs, and packages in .venv. Says nothing when all is there; never starts a service.
#
#     scripts/setup.sh [dev]
set -euo pipefail
cd "$(dirname "$0")/.."

extras=${1:+[$1]}
PATH=$PATH:/usr/sbin:/usr/local/sbin

have() { command -v "$1" >/dev/null; }

# Runs a command; shows what it said only if it fails.
quietly() {
  local log code=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || code=$?
  if [ $code != 0 ]; then
    cat "$log" >&2
    echo "setup: failed with exit code $code: $*" >&2
  fi
  rm -f "$log"
  return $code
}

# The first python3 that is new enough.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
}

# The Debian packages of what is missing, a line each.
missing() {
  local python
  have mariadbd || have mysqld || printf '%s\n' mariadb-server-core mariadb-client-core
  # The server is redis-check-rdb under another name. The package redis-server would start a service.
  { have redis-server || have redis-check-rdb || have valkey-server; } && { have redis-cli || have valkey-cli; } ||
    echo redis-tools
  have cc || have gcc || printf '%s\n' gcc libc6-dev
  python=$(find_python)
  if [ -z "$python" ]; then
    printf '%s\n' python3 python3-venv python3-dev
    return
  fi
  "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$python-venv"
  "$python" -c 'import os, sysconfig; exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    echo "$python-dev"
}

# Older releases have the MariaDB packages under names with the version only.
apt_name() {
  local newest
  if [[ $1 == mariadb-* && -z $(apt-cache show "$1" 2>/dev/null) ]]; then
    newest=$(apt-cache pkgnames "$1-" | sort -V | tail -n 1)
  fi
  echo "${newest:-$1}"
}

apt_names() {
  local name
  for name in "$@"; do
    apt_name "$name"
  done
}

install_programs() {
  local sudo=() packages
  mapfile -t packages < <(missing)
  if [ ${#packages[@]} = 0 ]; then
    return
  fi
  if ! have apt-get; then
    echo "setup: missing; install by hand (the names are Debian's): ${packages[*]}" >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
  fi
  if ! "${sudo[@]}" true 2>/dev/null; then
    mapfile -t packages < <(apt_names "${packages[@]}")
    echo "sudo apt-get install -y --no-install-recommends ${packages[*]}" >&2
    exit 1
  fi
  quietly "${sudo[@]}" apt-get -qq update
  mapfile -t packages < <(apt_names "${packages[@]}")
  echo "setup: installing with apt, a minute or so: ${packages[*]}" >&2
  quietly "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"
  mapfile -t packages < <(missing)
  if [ ${#packages[@]} != 0 ]; then
    echo "setup: still missing after the installation: ${packages[*]}" >&2
    exit 1
  fi
}

# Without this, each start compiles all modules again if PYTHONDONTWRITEBYTECODE is set: that is half of a small sync.
compile_modules() {
  .venv/bin/python -m compileall -q loader
}

# What was installed for development serves the demo too.
install_packages() {
  local stamp=.venv/.installed sum
  sum=$(cat pyproject.toml setup.py loader/wire/_*.pyx constraints.txt | cksum)
  if [ -x .venv/bin/loader ] && [ -f "$stamp" ] && [[ $(<"$stamp") == "$sum$extras"* ]]; then
    return
  fi
  echo "setup: installing Python packages into .venv, a minute or so" >&2
  [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
  rm -f loader/wire/*.so # one for another ABI would be imported first
  quietly .venv/bin/python -m pip --disable-pip-version-check install -c constraints.txt -e ".$extras"
  echo "$sum$extras" >"$stamp"
}

link_redis_server() {
  if ! have redis-server && ! have valkey-server && have redis-check-rdb; then
    ln -sfn "$(command -v redis-check-rdb)" .venv/bin/redis-server
  fi
}

# promtool, which a test asks what it thinks of our metrics. Its package would start a service, so it is taken out of it;
# where that cannot be done, the test is skipped.
fetch_promtool() {
  local directory
  if [ -z "$extras" ] || have promtool || [ -x .venv/bin/promtool ] || ! have apt-get || ! have dpkg; then
    return
  fi
  directory=$(mktemp -d)
  (cd "$directory" && apt-get -qq download prometheus && dpkg -x prometheus_*.deb .) >/dev/null 2>&1 &&
    cp "$directory/usr/bin/promtool" .venv/bin/ ||
    echo "setup: promtool cannot be had; its test will be skipped" >&2
  rm -rf "$directory"
}

# Programs that some tests need, which are skipped where they cannot be had: what is skipped, then the packages.
install_for_tests() {
  local skipped=$1 sudo=()
  shift
  if [ -z "$extras" ] || ! have apt-get; then
    return
  fi
  if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2 2>/dev/null ||
    echo "setup: $* cannot be had; $skipped will be skipped" >&2
}

install_programs
install_packages
compile_modules
fetch_promtool
have chromium || install_for_tests "the tests in a browser" chromium fonts-dejavu-core
{ have ip && have tc && have iptables; } || install_for_tests "the tests with a cut network" iproute2 iptables
link_redis_server
