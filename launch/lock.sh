#!/usr/bin/env bash
# Lock the packages of the container image: one version each, with hashes, for Linux on x86-64.
# Usage: bash launch/lock.sh        Needs uv: pip install uv
# Writes launch/locked/cpu.txt, and the additional packages of GPUs and TPUs to gpu.txt and tpu.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

# Usage: lock NAME [REQUIREMENT …]
lock() {
  printf '%s\n' "-r $PWD/requirements.txt" gcsfs s3fs "${@:2}" |
    uv pip compile - --quiet --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
      --python-version=3.13 --python-platform=x86_64-manylinux_2_31 --output-file="$work/$1.txt"
}

# Usage: additional NAME: print the packages of NAME, with hashes, that cpu.txt lacks at the same version.
additional() {
  awk 'NR == FNR { if (/^[^ ]/) seen[$1] = 1; next } /^[^ ]/ { new = !($1 in seen) } new' "$work/cpu.txt" "$work/$1.txt"
}

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
lock cpu
lock gpu 'jax[cuda13]'
lock tpu 'jax[tpu]'
mkdir -p launch/locked
cp "$work/cpu.txt" launch/locked/cpu.txt
for kind in gpu tpu; do additional "$kind" >"launch/locked/$kind.txt"; done
wc -l launch/locked/*.txt
