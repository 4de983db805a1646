#!/usr/bin/env bash
# Install as the demo does, then run the linters, the type checker and the tests.
# Usage: bash launch/test.sh [pytest arguments]
# COVIDSCAN_REAL_CT: folder of real CT studies, for the tests that need them.
# COVIDSCAN_FULL_TESTS=1: the long series (kills, damaged files, simulations) in full. Otherwise a random tenth of them
# runs; COVIDSCAN_TEST_SEED=NUMBER repeats that of an earlier run, whose summary names the number.
# The tests of one room, without all this: .venv/bin/python -m pytest tests/ROOM
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"

install cpu tests
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
