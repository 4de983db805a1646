#!/usr/bin/env bash
# Try a run of several hosts on this machine: start several processes of a command, which connect on loopback.
# Usage: bash launch/local.sh [--dry_run] PROCESSES COMMAND [FLAGS …]
#   DEVICES=2 bash launch/local.sh 2 train --flagfile=covidscan/presets/demo.flags --workdir=runs/two
# DEVICES: CPU devices per process (1). Exits with the first status that is not 0; signals go to all processes.
set -euo pipefail
set -m # in background jobs the processes would ignore Ctrl-C; each in a group of its own, they get it from the trap

dry_run=
if [[ "${1-}" == --dry_run ]]; then dry_run=1; shift; fi
if (($# < 2)) || ! [[ "$1" =~ ^[1-9][0-9]*$ ]]; then
  sed -n '3,5s/^# //p' "$0" >&2
  exit 2
fi
processes=$1 command=$2
shift 2
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS-} --xla_force_host_platform_device_count=${DEVICES:-1}"

pids=()
# shellcheck disable=SC2317 # called by the traps
stop_all() { ((${#pids[@]} == 0)) || kill "-$1" "${pids[@]}" 2>/dev/null || true; }
trap 'stop_all TERM' TERM
trap 'stop_all INT' INT
trap 'stop_all KILL' EXIT

for ((process = 0; process < processes; process++)); do
  line=("$python" -m "covidscan.$command" "$@"
    "--coordinator_address=127.0.0.1:$port" "--num_processes=$processes" "--process_id=$process")
  echo "${line[*]@Q}" >&2
  if [[ -z "$dry_run" ]]; then
    "${line[@]}" &
    pids+=("$!")
  fi
done

# A signal ends `wait` before the process has ended: wait again until it has.
status=0
for pid in "${pids[@]}"; do
  while true; do
    ended=0
    wait "$pid" || ended=$?
    kill -0 "$pid" 2>/dev/null || break
  done
  ((status)) || status=$ended
done
exit "$status"
