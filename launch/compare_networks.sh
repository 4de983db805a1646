#!/usr/bin/env bash
# Train several networks by the same recipe on the same studies, evaluate each, and compare them with paired tests.
# Usage: bash launch/compare_networks.sh [--dry_run] FOLDER [FLAGS …]
#   NETWORKS="lung_resnet resnet3d18 mynet:Net" bash launch/compare_networks.sh runs/peers --flagfile=mosmed_public.flags
# NETWORKS: values of --model (all of this project's). FLAGS are those of training; FOLDER/comparison gets the page.
set -euo pipefail

run=()
if [[ "${1-}" == --dry_run ]]; then run=(echo); shift; fi
if (($# < 1)) || [[ "$1" == -* ]]; then
  sed -n '3,5s/^# //p' "$0" >&2
  exit 2
fi
folder=$1 python=${PYTHON:-.venv/bin/python} workdirs=()
shift
for network in ${NETWORKS:-lung_resnet covidscan_cnn resnet3d18 densenet3d121 keras_cnn}; do
  workdirs+=("$folder/${network//:/_}")
  "${run[@]}" "$python" -m covidscan.train "$@" "--model=$network" "--workdir=${workdirs[-1]}"
  "${run[@]}" "$python" -m covidscan.evaluate "--workdir=${workdirs[-1]}"
done
"${run[@]}" "$python" -m covidscan.compare "--output_dir=$folder/comparison" "${workdirs[@]}"
