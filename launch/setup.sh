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

# Usage: pip … | show_packages TOTAL: print packages done, of all, and the time left: every 15 s, on a terminal in one line.
show_packages() {
  local total=$1 number=0 started=$SECONDS shown=$SECONDS passed line text
  while IFS= read -r line; do
    case $line in
      Collecting*)
        ((++number))
        passed=$((SECONDS - started)) text="downloading: $number of $total packages"
        if ((passed >= 5)); then text+=", about $((passed * (total - number) / number)) s left"; fi
        ;;
      "Installing collected"*) text="unpacking $total packages, which takes up to a minute" ;;
      *) continue ;;
    esac
    if [[ -t 2 ]]; then
      printf '\e[K%s\r' "$text" >&2 # a warning of pip, which comes from another process, takes its place
    elif [[ $line == Installing* ]] || ((SECONDS - shown >= 15)); then
      echo "$text" >&2
      shown=$SECONDS
    fi
  done
  if [[ -t 2 ]]; then printf '\e[K' >&2; fi
}

# Usage: install NAME …: install the locked packages of launch/locked/NAME.txt, unless .venv has them already.
install() {
  local python wanted total started=$SECONDS files=("${@/#/launch/locked/}")
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
  total=$(grep -c "^[A-Za-z]" <<<"$wanted" || true)
  echo "installing $total packages of ${files[*]}, which takes one to some minutes" >&2
  # Without warnings: pip 23.0, of Python 3.11, has one about a package that has no wheel.
  .venv/bin/python -W ignore -m pip install --disable-pip-version-check --no-input --progress-bar=off --require-hashes --no-deps \
    "${files[@]/#/--requirement=}" | show_packages "$total"
  [[ ${PIPESTATUS[0]} == 0 ]] || return 1
  echo "$wanted" >.venv/installed
  echo "installed $total packages in $((SECONDS - started)) s" >&2
}
