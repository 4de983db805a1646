#!/usr/bin/env bash
# Download the JavaScript that pages contain, NiiVue's viewer and plotly.js, at verified versions, and compress it.
# Usage: bash launch/vendor.sh        Needs npm.
# Writes explanation/niivue and report/plotly in covidscan. NiiVue's licence there is from its repository.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# Usage: vendor PACKAGE VERSION SHA256 FILE TARGET: compress a file of an npm package.
vendor() {
  local archive
  archive=$work/$(cd "$work" && npm pack --silent "$1@$2")
  echo "$3  $archive" | sha256sum --check --quiet || {
    echo "error: the SHA-256 of $1 $2 is not the expected one: inspect the package before you use it" >&2
    exit 1
  }
  tar -xzOf "$archive" "package/$4" | gzip -9 -n >"$work/packed"
  mv "$work/packed" "$5"
  ls -l "$5"
}

vendor @niivue/niivue 0.69.0 6e9a6a471b428eb3b258a0086beca9187d95e43a781a39e8a519c6da246af485 \
  dist/niivue.umd.js covidscan/explanation/niivue/niivue.umd.js.gz
vendor plotly.js-cartesian-dist-min 4.1.1 c5f9a84666b97e571a04de689e09319869e60900e265c89eac2f71d0b5a0de88 \
  plotly-cartesian.min.js covidscan/report/plotly/plotly-cartesian.min.js.gz
