#!/usr/bin/env bash
# Install as the demo does, then run the linters, the type checker and the tests.
# Usage: bash launch/test.sh [pytest arguments]
# COVIDSCAN_REAL_CT: folder of real CT studies, for the tests that need them.
# COVIDSCAN_FULL_TESTS=1: the long series (kills, damaged files, simulations) in full. Otherwise a random tenth of them
# runs; COVIDSCAN_TEST_SEED=NUMBER repeats that of an earlier run, whose summary names the number.
# The tests of one folder, without all this: .venv/bin/python -m pytest tests/FOLDER
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"

install cpu tests
# The compiler for TPUs, beside the packages: JAX would look for a TPU if it found libtpu. It exists for this platform alone.
if [[ "$(uname -sm)" == "Linux x86_64" ]] && ! cmp --silent launch/locked/tpu.txt .venv/tpu/installed; then
  echo "installing libtpu in .venv/tpu, 210 MB, with which tests compile for TPUs" >&2
  if .venv/bin/python -m pip install --disable-pip-version-check --no-input --quiet --require-hashes --no-deps --upgrade \
    --target=.venv/tpu --requirement=launch/locked/tpu.txt; then
    cp launch/locked/tpu.txt .venv/tpu/installed
  else
    echo "libtpu cannot be installed: the tests that compile for TPUs are skipped" >&2
  fi
fi
.venv/bin/ruff format --check --quiet . || { echo "error: run ruff format" >&2; exit 1; }
.venv/bin/ruff check --quiet .
.venv/bin/pyright --pythonpath .venv/bin/python
# Three modules in parallel, as some only wait, in their order, so that no long one is left to the end; then the tests that
# measure time.
# Exit status 5: no test was selected.
status=0
.venv/bin/python -m pytest -m "not alone" --numprocesses=3 --dist=loadscope --no-loadscope-reorder "$@" || status=$?
.venv/bin/python -m pytest -m alone "$@" || (($? == 5))
((status == 0 || status == 5))
