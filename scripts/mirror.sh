#!/usr/bin/env bash
# Tells the mirror that this machine's own packages come from, for debootstrap.
set -euo pipefail

# shellcheck disable=SC2016  # apt-get fills in the words
apt-get indextargets --format '$(REPO_URI) $(CREATED_BY)' | awk '$2 == "Packages" { print $1; exit }'
