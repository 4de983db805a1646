#!/usr/bin/env bash
# From a fresh machine to an evaluated network: .venv, synthetic chest CT, training, evaluation, report.
# Usage: bash launch/demo.sh
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh"

install cpu
# Huge pages for large arrays, where Linux offers them: training on CPUs takes up to a tenth less time.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
run=runs/demo python=.venv/bin/python
"$python" -m covidscan.train --flagfile=covidscan/presets/demo.flags --workdir="$run"
"$python" -m covidscan.evaluate --workdir="$run"

# A study to predict: the demo's data set has the seeds 1 to 200.
"$python" - "$run/phantom.nii.gz" <<'PYTHON'
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
from tfds_mosmed.ct_phantom.generator import make_phantom, write_study

write_study(make_phantom(seed=201, category="CT-2", matrix=256), sys.argv[1])
PYTHON
cat <<NEXT

Next, in $PWD:
  $python -m covidscan.predict --workdir=$run $run/phantom.nii.gz
  $python -m covidscan.predict --workdir=$run --explain --output_dir=$run/explained $run/phantom.nii.gz
  $python -m covidscan.evaluate --workdir=$run --split=validation
or activate the environment for commands that begin with "python -m": source .venv/bin/activate
NEXT
