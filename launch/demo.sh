#!/usr/bin/env bash
# From a fresh machine to a judged network: .venv, synthetic chest CT, training, evaluation, report.
# Usage: bash launch/demo.sh
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"

install requirements.txt
run=runs/demo
.venv/bin/python -m covidscan.train --flagfile=launch/flags/demo.flags --workdir="$run"
.venv/bin/python -m covidscan.evaluate --workdir="$run"
