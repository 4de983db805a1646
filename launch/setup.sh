# Functions sourced by the launch scripts: create .venv with the newest working Python, install locked packages.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# Print the newest Python that runs and has venv; one on the PATH may do neither.
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

# Usage: install NAME …: install the locked packages of launch/locked/NAME.txt, unless .venv has them already.
install() {
  local python wanted files=("${@/#/launch/locked/}")
  files=("${files[@]/%/.txt}")
  wanted=$(cat "${files[@]}")
  if [[ -x .venv/bin/python && "$(cat .venv/installed 2>/dev/null)" == "$wanted" ]]; then
    return
  fi
  # Without pip: .venv is not there, was interrupted in the making, or is another tool's.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || return 1
    echo "creating .venv with $("$python" --version)" >&2
    "$python" -m venv .venv || return 1
  fi
  echo "installing ${files[*]}" >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
    "${files[@]/#/--requirement=}" || return 1
  echo "$wanted" >.venv/installed
}
