#!/usr/bin/env bash
# Build records on Dataflow, for many or remote raw studies. They are the same as those built on one machine.
# Usage: PROJECT=p REGION=us-east5 BUCKET=gs://bucket IMAGE=i bash launch/beam_dataflow.sh \
#          [--dry_run] DATASET MANUAL_DIR DATA_DIR
#   … bash launch/beam_dataflow.sh mosmed/256x256x40 /mnt/mosmed /mnt/data
# MANUAL_DIR and DATA_DIR must be mounted at the same paths here and on the workers; IMAGE is the workers' container, with
# the project's packages and the Beam of here: .venv/bin/python -m pip install "apache-beam[gcp]"
set -euo pipefail

run=()
if [[ "${1-}" == --dry_run ]]; then run=(echo); shift; fi
if (($# != 3)) || [[ -z "${PROJECT-}" || -z "${REGION-}" || -z "${BUCKET-}" || -z "${IMAGE-}" ]]; then
  sed -n '3,7s/^# //p' "$0" >&2
  exit 2
fi
cd "$(dirname "$0")/.."
options="runner=DataflowRunner,project=$PROJECT,region=$REGION,temp_location=$BUCKET/temp,sdk_container_image=$IMAGE"
"${run[@]}" "${PYTHON:-.venv/bin/python}" -m covidscan.build \
  "--dataset=$1" "--manual_dir=$2" "--data_dir=$3" "--beam_options=$options"
