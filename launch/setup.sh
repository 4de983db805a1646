# Sourced by the launch scripts: makes .venv with the newest Python that works, and installs what is missing.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# A Python may be on the PATH and yet not run, or lack venv: try each, newest first.
find_python() {
  local candidate
  for candidate in python3.{20..11} python3 python; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python >= 3.11 with venv on the PATH: install one (on Debian: apt install python3 python3-venv)" >&2
  return 1
}

# Install each requirements file, unless .venv holds what exactly these files ask for already.
install() {
  local python wanted
  wanted=$(cat "$@")
  if [[ -x .venv/bin/python && "$(cat .venv/installed 2>/dev/null)" == "$wanted" ]]; then
    return
  fi
  if [[ ! -x .venv/bin/python ]]; then
    python=$(find_python) || return 1
    echo "making .venv with $("$python" --version)" >&2
    "$python" -m venv .venv || return 1
  fi
  echo "installing $*" >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "${@/#/--requirement=}" || return 1
  echo "$wanted" >.venv/installed
}
