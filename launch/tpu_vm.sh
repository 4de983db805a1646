#!/usr/bin/env bash
# Train on a TPU slice of Google Cloud: create it, install and train on all of its workers, stop, delete it.
# Usage: NAME=my-slice ZONE=us-east5-b bash launch/tpu_vm.sh [--dry_run] create|install|run|stop|delete [FLAGS of run …]
#   NAME=s ZONE=us-east5-b bash launch/tpu_vm.sh run --flagfile=full.flags --manual_dir= --data_dir=gs://bucket/data \
#     --workdir=gs://bucket/runs/full --batch_size=64
# The bucket holds records that were built before, with covidscan.build; libtpu of Python 3.12 and newer needs 8 studies
# a chip, see launch/README.md.
# TYPE: accelerator (v6e-8); VERSION: runtime (v2-alpha-tpuv6e); SPOT=0: not preemptible; PROJECT: default of gcloud;
# SOURCE: git URL of the project, for install. After preemption: delete, create, install, and run again: it resumes.
set -euo pipefail

dry_run=
if [[ "${1-}" == --dry_run ]]; then dry_run=1; shift; fi
action=${1-}
shift || true
if [[ -z "${NAME-}" || -z "${ZONE-}" || ! "$action" =~ ^(create|install|run|stop|delete)$ ]]; then
  sed -n '3,7s/^# //p' "$0" >&2
  exit 2
fi

location=("--zone=$ZONE")
[[ -z "${PROJECT-}" ]] || location+=("--project=$PROJECT")

# Run gcloud, or print the command in a dry run.
call() {
  if [[ -n "$dry_run" ]]; then
    echo "gcloud ${*@Q}"
  else
    gcloud "$@"
  fi
}

on_all_workers() {
  call compute tpus tpu-vm ssh "$NAME" "${location[@]}" --worker=all "--command=$1"
}

case "$action" in
  create)
    spot=(--spot)
    [[ "${SPOT-1}" == 1 ]] || spot=()
    call compute tpus queued-resources create "$NAME" "${location[@]}" "--node-id=$NAME" \
      "--accelerator-type=${TYPE:-v6e-8}" "--runtime-version=${VERSION:-v2-alpha-tpuv6e}" "${spot[@]}"
    ;;
  install)
    : "${SOURCE:?set it to the URL that git clones the project from}"
    on_all_workers "git clone --depth=1 ${SOURCE@Q} covidscan && source covidscan/launch/setup.sh && install cpu tpu"
    ;;
  run)
    # JAX finds the other workers through the TPU VM's metadata.
    on_all_workers "cd covidscan && .venv/bin/python -m covidscan.train ${*@Q}"
    ;;
  stop)
    # The bracket keeps the pattern from matching pkill's own shell.
    on_all_workers "pkill -TERM -f '[c]ovidscan.train'"
    ;;
  delete)
    call compute tpus queued-resources delete "$NAME" "${location[@]}" --force --quiet
    ;;
esac
