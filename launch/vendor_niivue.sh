#!/usr/bin/env bash
# Download the viewer that explanation pages contain, NiiVue's bundle at one verified version, and compress it.
# Usage: bash launch/vendor_niivue.sh        Needs npm.
# Writes covidscan/explanation/niivue/niivue.umd.js.gz. The licence in that folder is from NiiVue's repository.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly version=0.69.0
readonly sha256=6e9a6a471b428eb3b258a0086beca9187d95e43a781a39e8a519c6da246af485

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
(cd "$work" && npm pack --silent "@niivue/niivue@$version" >/dev/null)
archive=$work/niivue-niivue-$version.tgz
echo "$sha256  $archive" | sha256sum --check --quiet || {
  echo "error: the SHA-256 of @niivue/niivue $version is not the expected one: inspect the package before you use it" >&2
  exit 1
}
tar -xzOf "$archive" package/dist/niivue.umd.js | gzip -9 -n >"$work/packed"
mv "$work/packed" covidscan/explanation/niivue/niivue.umd.js.gz
ls -l covidscan/explanation/niivue
