#!/usr/bin/env bash
# Compare CovidScan with Keras on TensorFlow, PyTorch, MONAI and TorchIO on this machine's CPUs; takes hours on two cores.
# Usage: COVIDSCAN_REAL_CT=STUDY.nii.gz bash tests/peers/run.sh [--cap=TIMES] [steps] [preparation] [auroc]
# Writes tests/peers/results.json and the tables of tests/peers/README.md. Installs the peers into .venv-peers.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/../../launch/setup.sh"

install cpu tests
if [[ "$(cat .venv-peers/installed 2>/dev/null)" != "$(cat tests/peers/requirements.txt)" ]]; then
  echo "installing tests/peers/requirements.txt" >&2
  [[ -x .venv-peers/bin/python ]] || .venv/bin/python -m venv .venv-peers
  .venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement=tests/peers/requirements.txt
  cp tests/peers/requirements.txt .venv-peers/installed
fi
.venv/bin/python -m tests.peers "$@"
