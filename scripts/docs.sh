#!/usr/bin/env bash
# Builds the site of the documentation into build/site; a link that leads nowhere is an error.
#
#     scripts/docs.sh
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh dev
# Pages and the files that they link to stand as in the project, so each link means the same in both.
rm -rf build/pages
mkdir -p build/pages
cp -r ./*.md LICENSE configs deploy docker docs sql build/pages/
mkdir build/pages/benchmarks
cp benchmarks/{RESULTS.md,results.json,results.svg} build/pages/benchmarks/
rm build/pages/docs/mkdocs.yml
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs --quiet build --config-file docs/mkdocs.yml
echo build/site/index.html
