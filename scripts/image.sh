#!/usr/bin/env bash
# Builds the container image, starts the playground, and types all of docker/README.md there, in about five minutes.
#
#     scripts/image.sh
#
# It needs a container engine with `docker compose` and `docker buildx`; DOCKER_HOST names another than the usual one,
# and scripts/engine.sh before it brings one.
# Images that the engine lacks are made of Debian's packages: then it is to be run by root, and needs the package
# debootstrap. Their roots are kept in LOADER_IMAGE_ROOTS, usually ~/.cache/mysql-redis-loader. All else is removed.
#
# Files that apt and pip need in the build, on a network that is not the open internet, are named by
#
#     LOADER_IMAGE_APT_CONF    for /etc/apt/apt.conf
#     LOADER_IMAGE_PIP_CONF    for /etc/pip.conf
#     LOADER_IMAGE_CA          for /etc/ssl/certs/ca-certificates.crt
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
exec .venv/bin/python tests/containers/playground.py "$@"
