#!/usr/bin/env bash
# Looks for weak spots: bandit reads loader/, pip-audit asks of each pinned package whether a hole in it is known.
#
#     scripts/audit.sh
#
# Both live in environments of their own below build/. Exit code 1: a finding; 2: the packages could not be asked about.
set -euo pipefail
cd "$(dirname "$0")/.."

# What bandit finds in any program of this kind, and why it is no fault of this one; anything else is.
skipped=(
  B101 # assert: narrows types and states what cannot be; nothing is checked by one that a person could get wrong
  B311 # random: spreads retries in time; passwords are made by `secrets`
  B404 # subprocess: the lab starts servers and their own clients
  B603 # without a shell, from lists that the code composes: nothing that a user of the loader types gets there
  B608 # SQL out of strings: names are quoted, literals checked; `where`, `query` and expressions are SQL by design
)

# A program in an environment of its own.
bring() {
  local name=$1 version=$2 home=build/$1-$2
  if [ ! -x "$home/bin/$name" ]; then
    python3 -m venv "$home"
    "$home/bin/python" -m pip --quiet --disable-pip-version-check install "$name==$version" >&2
  fi
  echo "$home/bin/$name"
}

bandit=$(bring bandit 1.9.4)
audit=$(bring pip-audit 2.10.1)

echo '== bandit'
ids=$(IFS=,; echo "${skipped[*]}")
"$bandit" --quiet --recursive --skip "$ids" loader
echo 'no findings'

echo '== pip-audit'
log=build/audit.log
if "$audit" --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off >"$log" 2>&1; then
  cat "$log"
elif grep -q 'known vulnerabilit' "$log"; then
  cat "$log" >&2
  exit 1
else
  tail -n 1 "$log" >&2
  echo "audit: pip-audit could not ask about the packages, so nothing is known of them; the machine that runs this must" \
    "reach the JSON interface of the Python Package Index, which a mirror may lack" >&2
  exit 2
fi
