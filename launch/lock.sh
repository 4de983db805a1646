#!/usr/bin/env bash
# Lock the packages: one version each, with hashes, for every Python from 3.11 on every platform.
# Usage: bash launch/lock.sh [--upgrade]        Needs uv: pip install uv
# Locked versions stay if the requirements files still allow them, or all become the newest: --upgrade. Writes cpu.txt
# in launch/locked (requirements.txt, and what buckets need), and what is needed besides: gpu.txt, tpu.txt, tests.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

# Usage: lock NAME REQUIREMENT …: versions that NAME.txt holds already are kept.
lock() {
  printf '%s\n' "-r $PWD/requirements.txt" gcsfs s3fs "${@:2}" |
    uv pip compile - --quiet --universal --python-version=3.11 --generate-hashes --no-header --no-annotate \
      --no-emit-index-url --no-emit-find-links "--overrides=$work/overrides" --output-file="$work/$1.txt"
}

# Usage: locked NAME …: print what was locked before.
locked() {
  local name
  [[ "$upgrade" != --upgrade ]] || return 0
  for name; do cat "launch/locked/$name.txt"; done
}

# Usage: additional NAME: print the packages of NAME, with hashes, that cpu.txt lacks.
additional() {
  awk 'NR == FNR { if (/^[^ ]/) seen[$1] = 1; next } /^[^ ]/ { new = !($1 in seen) } new' "$work/cpu.txt" "$work/$1.txt"
}

upgrade=${1-}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
# All others get the versions that are tested.
locked cpu tests >"$work/tests.txt"
: >"$work/overrides"
lock tests "-r $PWD/tests/requirements.txt"
# tensorflow-datasets requires pyarrow, 165 MB, for file formats that are not used here; Beam, which the tests need, does use it.
echo 'pyarrow; python_version < "3"' >"$work/overrides"
for kind in gpu tpu; do { cat "$work/tests.txt"; locked "$kind"; } >"$work/$kind.txt"; done
cp "$work/tests.txt" "$work/cpu.txt"
lock cpu
lock gpu 'jax[cuda13]'
lock tpu 'jax[tpu]'
cp "$work/cpu.txt" launch/locked/cpu.txt
for kind in gpu tpu tests; do additional "$kind" >"launch/locked/$kind.txt"; done
wc -l launch/locked/*.txt
