#!/usr/bin/env bash
# Builds docker/Dockerfile without a container engine, and tries what came out of it; as root, in a minute or two.
#
#     scripts/image.sh
#
# buildah carries out the Dockerfile's own steps, in chroots. No image is pulled: a Debian made by debootstrap, with Debian's
# Python, stands in for the base, and package clients in it use this machine's configuration. The image is then run as
# compose.yaml has it run, by its user, on a read-only root and without rights, beside a lab; all of it in namespaces of
# their own, so that no port of this machine is used, and nothing is left.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=trixie # which python:3.13-slim is made of
PACKAGES=python3,python3-dev,python3-pip,python3-venv
CLIENTS=(/etc/pip.conf /etc/ssl/certs /etc/apt/apt.conf.d /etc/apt/auth.conf.d)

say() {
  printf '\n== %s\n' "$*"
}

build() {
  buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"
}

make_base() {
  local base
  debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$work/base" "$(scripts/mirror.sh)" >"$work/log" 2>&1 || {
    tail -n 5 "$work/log" >&2
    exit 1
  }
  ln -s ../../bin/python3 "$work/base/usr/local/bin/python"
  rm -rf "$work/base"/var/cache/apt/archives/*.deb
  base=$(build from scratch)
  build add --quiet "$base" "$work/base" / >/dev/null
  build commit --quiet --rm "$base" python:3.13-slim >/dev/null
  rm -rf "$work/base"
}

make_image() {
  local words=() path name
  for path in "${CLIENTS[@]}"; do
    [ ! -e "$path" ] || words+=(--volume "$path:$path:ro")
  done
  for name in $(compgen -e | grep -E '^(PIP|SSL|REQUESTS)_'); do
    words+=(--env "$name" --unsetenv "$name")
  done
  build bud --quiet --isolation chroot --pull-never --format docker "${words[@]}" \
    -f docker/Dockerfile -t loader . >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    exit 1
  }
}

try_image() {
  local environment user inside entry command health path daemon code
  ip link set lo up
  mount --bind "$work/container" "$work/root"
  mkdir -p "$work/root/etc/loader"
  install -m 644 docker/loader.yaml "$work/root/etc/loader/loader.yaml"
  mount -o remount,bind,ro "$work/root"
  mount -t proc proc "$work/root/proc"
  mount --rbind /dev "$work/root/dev"

  .venv/bin/loader lab up --dir "$work/lab" >/dev/null
  MYSQL_URL=$(sed -n 's/^  url: \(mysql:.*\)/\1/p' "$work/lab/loader.yaml")
  REDIS_URL=$(sed -n 's/^  url: \(redis:.*\)/\1/p' "$work/lab/loader.yaml")
  MYSQL_PASSWORD=$(<"$work/lab/mysql.password")
  REDIS_PASSWORD=$(<"$work/lab/redis.password")
  mapfile -t environment < <(jq -r '.Docker.config.Env[]' "$work/image.json")
  environment+=(MYSQL_URL="$MYSQL_URL" MYSQL_PASSWORD="$MYSQL_PASSWORD")
  environment+=(REDIS_URL="$REDIS_URL" REDIS_PASSWORD="$REDIS_PASSWORD")
  user=$(jq -r .Docker.config.User "$work/image.json")
  # in the image, as its user, with its environment and what compose.yaml adds to it
  inside=(env -i "${environment[@]}" chroot "$work/root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups
    --no-new-privs --bounding-set=-all)
  mapfile -t entry < <(jq -r '.Docker.config.Entrypoint[]' "$work/image.json")
  mapfile -t command < <(jq -r '.Docker.config.Cmd[]' "$work/image.json")
  mapfile -t health < <(jq -r '.Docker.config.Healthcheck.Test[1:][]' "$work/image.json")

  say "${entry[*]} --version"
  "${inside[@]}" "${entry[@]}" --version | tee "$work/log"
  grep -q compiled "$work/log"
  say 'who it is, and what it may write'
  "${inside[@]}" id
  for path in /opt/loader/x /tmp/x /x; do
    if "${inside[@]}" touch "$path"; then
      exit 1
    fi
  done

  say "${entry[*]} ${command[*]}, until it is healthy"
  "${inside[@]}" "${entry[@]}" "${command[@]}" &
  daemon=$!
  for _ in $(seq 60); do
    "${inside[@]}" "${health[@]}" 2>"$work/log" && break
    sleep 0.5
  done
  "${inside[@]}" "${health[@]}"
  until "${inside[@]}" "${entry[@]}" get stu 5 >"$work/log" 2>&1; do
    kill -0 "$daemon"
    sleep 1
  done
  cat "$work/log"
  "${inside[@]}" python -c 'import urllib.request as r; assert b"/jobs/stu" in r.urlopen("http://127.0.0.1:9462/").read()'
  say 'SIGTERM'
  kill "$daemon"
  code=0
  wait "$daemon" || code=$?
  echo "exit code $code"
  if "${inside[@]}" "${health[@]}" 2>/dev/null; then
    echo "image: what does not run is not healthy" >&2
    exit 1
  fi
  .venv/bin/loader lab down --dir "$work/lab" >/dev/null
  [ "$code" = 0 ]
}

if [ "${1:-}" = --inside ]; then # in namespaces of its own, which the call below has made
  work=$2
  try_image
  exit
fi

for name in buildah debootstrap jq ip; do
  if [ "$(id -u)" != 0 ] || ! command -v "$name" >/dev/null; then
    echo "image: must be run by root, and wants the packages buildah, debootstrap, jq and iproute2" >&2
    exit 1
  fi
done
scripts/setup.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "a base of Debian $SUITE"
make_base
say 'the steps of docker/Dockerfile'
make_image
build images --format '{{.Name}}:{{.Tag}} {{.Size}}'
build inspect --type image loader >"$work/image.json"
mkdir "$work/root"
ln -s "$(build mount "$(build from --pull-never loader)")" "$work/container"
unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$work"
say 'the image is as it should be'
