#!/usr/bin/env bash
# Set up as the demo does and run the checks and the tests. Usage: bash launch/test.sh [pytest arguments]
# COVIDSCAN_REAL_CT=FOLDER names real CT studies for the tests that want them.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"

install requirements.txt tests/requirements.txt
.venv/bin/ruff format --check --quiet . || { echo "error: run ruff format" >&2; exit 1; }
.venv/bin/ruff check --quiet .
.venv/bin/pyright --pythonpath .venv/bin/python
# Two at a time, each module in one process, in their order, so that no long one is left to the end; what measures time
# comes after, alone. 5: none of its tests was asked for.
status=0
.venv/bin/python -m pytest -m "not alone" --numprocesses=2 --dist=loadscope --no-loadscope-reorder "$@" || status=$?
.venv/bin/python -m pytest -m alone "$@" || (($? == 5))
((status == 0 || status == 5))
