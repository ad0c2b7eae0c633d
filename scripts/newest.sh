#!/usr/bin/env bash
# Runs a command with the newest servers first in its PATH: MySQL, and Redis or Valkey in place of it.
#
#     scripts/newest.sh redis|valkey COMMAND...    # scripts/newest.sh redis scripts/follow.sh
#
# The servers are those of Debian unstable, unpacked once in LOADER_MATRIX_ROOT. They are run from there, not installed.
set -euo pipefail

root=${LOADER_MATRIX_ROOT:-$HOME/.cache/mysql-redis-loader/sid}
packages=mysql-server-core,mysql-client-core,redis-server,valkey-server

unpack() {
  local sudo=() url
  command -v debootstrap >/dev/null || {
    echo "newest: missing; install the package debootstrap" >&2
    exit 1
  }
  url=$("$(dirname "$0")/mirror.sh")
  if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
  fi
  mkdir -p "$(dirname "$root")"
  "${sudo[@]}" rm -rf "$root.new" # of a run that was broken off
  "${sudo[@]}" debootstrap --variant=minbase --include="$packages" sid "$root.new" "$url" >"$root.log" 2>&1 || {
    echo "newest: debootstrap failed; the end of $root.log is" >&2
    tail -n 5 "$root.log" >&2
    exit 1
  }
  "${sudo[@]}" mv "$root.new" "$root"
}

# A program of the root under a name, with the libraries of the root, and with words added at the end.
wrap() {
  local name=$1 program=$2
  shift 2
  {
    echo '#!/usr/bin/env bash'
    printf 'exec %q --library-path %q %q "$@"' "$linker" "$libraries" "$root/usr/$program"
    if [ $# != 0 ]; then
      printf ' %q' "$@"
    fi
    echo
  } >"$programs/$name"
  chmod +x "$programs/$name"
}

redis=${1:?redis or valkey}
shift
[ -d "$root" ] || PATH=$PATH:/usr/sbin unpack
root=$(cd "$root" && pwd)
linker=$(echo "$root"/usr/lib/*-linux-gnu/ld-linux-*.so.*)
libraries=$(dirname "$linker")
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT

for name in mysqld mariadbd; do # whatever the machine has installed must not be found first
  wrap "$name" sbin/mysqld --basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql" \
    --character-sets-dir="$root/usr/share/mysql/charsets" --plugin-dir="$root/usr/lib/mysql/plugin"
done
for name in mysql mariadb; do
  wrap "$name" bin/mysql --character-sets-dir="$root/usr/share/mysql/charsets"
done
for name in server cli; do
  wrap "redis-$name" "bin/$redis-$name"
done
printf '\n== %s\n== %s\n' "$("$programs/mysqld" --no-defaults --version)" "$("$programs/redis-server" --version)"
PATH=$programs:$PATH "$@"
