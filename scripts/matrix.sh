#!/usr/bin/env bash
# The tests again on the newest servers: MySQL with Redis, and with Valkey in place of Redis. Words after it go to pytest.
#
# The servers are those of Debian unstable, unpacked once in LOADER_MATRIX_ROOT. They are run from there, not installed.
set -euo pipefail
cd "$(dirname "$0")/.."

root=${LOADER_MATRIX_ROOT:-$HOME/.cache/mysql-redis-loader/sid}
packages=mysql-server-core,mysql-client-core,redis-server,valkey-server
PATH=$PWD/.venv/bin:$PATH:/usr/sbin

unpack() {
  local sudo=() url
  command -v debootstrap >/dev/null || {
    echo "matrix: missing; install the package debootstrap" >&2
    exit 1
  }
  url=$(scripts/mirror.sh)
  if [ "$(id -u)" != 0 ]; then
    sudo=(sudo -n)
  fi
  mkdir -p "$(dirname "$root")"
  "${sudo[@]}" rm -rf "$root.new" # of a run that was broken off
  "${sudo[@]}" debootstrap --variant=minbase --include="$packages" sid "$root.new" "$url" >"$root.log" 2>&1 || {
    echo "matrix: debootstrap failed; the end of $root.log is" >&2
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

# Run pytest with the programs of the root; the first word says which server takes the place of Redis.
try() {
  local redis=$1
  shift
  rm -f "$programs"/*
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
  PATH=$programs:$PATH pytest -n 3 --dist loadfile --no-loadscope-reorder "$@"
}

[ -d "$root" ] || unpack
root=$(cd "$root" && pwd)
linker=$(echo "$root"/usr/lib/*-linux-gnu/ld-linux-*.so.*)
libraries=$(dirname "$linker")
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT

status=0
try redis "$@" || status=1
try valkey "$@" || status=1
exit $status
