#!/usr/bin/env bash
# Train several networks by the same recipe on the same studies, evaluate each, and compare them with paired tests.
# Usage: bash launch/compare_networks.sh [--dry_run] FOLDER [FLAGS …]
#   NETWORKS="lung_resnet resnet3d18 mynet:Net" bash launch/compare_networks.sh runs/peers --flagfile=mosmed_public.flags
# NETWORKS: values of --model (all of this project's). FLAGS are those of training; FOLDER/comparison gets the page.
# After a network that failed it goes on, compares those that finished, and ends with status 1.
set -euo pipefail

run=()
if [[ "${1-}" == --dry_run ]]; then run=(echo); shift; fi
if (($# < 1)) || [[ "$1" == -* ]]; then
  sed -n '3,5s/^# //p' "$0" >&2
  exit 2
fi
folder=$1 python=${PYTHON:-.venv/bin/python} workdirs=() failed=()
shift
for network in ${NETWORKS:-lung_resnet resnet3d18 densenet3d121 keras_cnn covidscan_cnn}; do
  workdir=$folder/${network//:/_}
  if "${run[@]}" "$python" -m covidscan.train "$@" "--model=$network" "--workdir=$workdir" &&
    "${run[@]}" "$python" -m covidscan.evaluate "--workdir=$workdir"; then
    workdirs+=("$workdir")
  else
    status=$?
    if ((status == 75 || status == 130)); then exit "$status"; fi # asked to stop: the same command goes on
    failed+=("$network")
  fi
done
if ((${#workdirs[@]} > 1)); then
  "${run[@]}" "$python" -m covidscan.compare "--output_dir=$folder/comparison" "${workdirs[@]}"
fi
if ((${#failed[@]})); then
  echo "failed, and not compared: ${failed[*]}" >&2
  exit 1
fi
