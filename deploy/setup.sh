#!/bin/sh
# Usage: deploy/setup.sh EXTRA
# Creates .venv if there is no working one, installs downpour-ps[EXTRA] in it (editable), and writes a stamp for make.
# EXTRA: worker (for training) or dev (in addition, benchmarks and all checks). PYTHON: the interpreter to use.
set -eu
cd "$(dirname "$0")/.."
home=$(pwd -P)
extra=$1
venv=.venv
log=$(mktemp)
trap 'rm -f "$log" "$log.status"' EXIT

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# Runs a command with its output in the log, which the caller prints after a failure.
quietly() { "$@" >>"$log" 2>&1 </dev/null; }

# Runs a command that installs packages. A terminal shows all of its output, a pipe or a file one line per package.
shown() {
    if [ -t 2 ]; then
        "$@" </dev/null >&2
        return
    fi
    { "$@" </dev/null 2>&1 || echo 1 >"$log.status"; } | while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        case $line in
        *Downloading\ *) say "downloading ${line#*Downloading }" ;;
        Installing\ collected\ packages*) say "unpacking the packages" ;;
        esac
    done
    [ ! -e "$log.status" ]
}

# uv is used where it is installed, as it is faster.
install() {
    if command -v uv >/dev/null; then
        shown uv pip install --python "$venv/bin/python" "$@"
    else
        shown "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@"
    fi
}

# Tests whether an interpreter satisfies requires-python of pyproject.toml.
suits() {
    "$1" - 2>/dev/null <<'END'
import re, sys
line = next(line for line in open("pyproject.toml") if line.startswith("requires-python"))
low, high = (tuple(map(int, bound.split("."))) for bound in re.findall(r"\d+\.\d+", line))
sys.exit(not low <= sys.version_info[:2] < high)
END
}

find_python() {
    bounds=$(sed -n 's/^requires-python = "\(.*\)"$/\1/p' pyproject.toml)
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if suits "$python"; then return; fi
    done
    if [ -n "${PYTHON:-}" ]; then
        fail "PYTHON must be an interpreter with version $bounds (TensorFlow has no packages for others). Received:" \
            "$PYTHON ($("$PYTHON" --version 2>&1 || true)). Omit PYTHON to search for one."
    fi
    fail "Python $bounds must be installed (TensorFlow has no packages for others). Found:" \
        "$(python3 --version 2>&1 || true). Install one, or pass its path: make PYTHON=/path/to/python3.12"
}

has_pip() { quietly "$venv/bin/python" -m pip --version; }

# Debian and Ubuntu ship venv without pip (ensurepip) unless python3-venv is installed.
make_venv() {
    if ! quietly "$python" -m venv --clear --without-pip "$venv"; then
        cat "$log" >&2
        fail "$python could not create $venv. On Debian or Ubuntu: apt install python3-venv"
    fi
    quietly "$venv/bin/python" -m ensurepip --default-pip || true
    if has_pip; then return; fi
    quietly "$python" -m pip --python "$venv/bin/python" install pip || true
    if has_pip; then return; fi
    if command -v virtualenv >/dev/null; then
        quietly virtualenv --clear --python "$python" "$venv" || true
        if has_pip; then return; fi
    fi
    if quietly "$python" -m pip --version; then tail -n 20 "$log" >&2; fi
    fail "$python has no working ensurepip or pip, so packages cannot be installed." \
        "On Debian or Ubuntu: apt install python3-venv (or python$("$python" -c \
        'import sys; print("%d.%d" % sys.version_info[:2])')-venv), then repeat the command."
}

# A second make that runs at the same time waits, and finds the work done. The lock ends with this process.
if command -v flock >/dev/null; then
    exec 9<pyproject.toml
    flock 9
fi
moved=$([ ! -e "$venv/home" ] || [ "$(cat "$venv/home")" = "$home" ] || echo yes)
if [ -z "$moved" ] && [ -e "$venv/home" ] && [ -n "$(find "$venv/$extra.stamp" -newer pyproject.toml 2>/dev/null)" ]; then
    exit 0
fi

if [ -n "$moved" ] || ! suits "$venv/bin/python" || ! has_pip; then
    find_python
    say "creating $venv with $("$python" --version 2>&1)"
    make_venv
fi
say "installing downpour-ps[$extra] in $venv (TensorFlow is large: the first installation takes minutes)"
if ! install --editable ".[$extra]"; then
    tail -n 30 "$log" >&2
    fail "downpour-ps[$extra] could not be installed; the last lines are above. Repeat the command to retry."
fi
printf '%s\n' "$home" >"$venv/home"
touch "$venv/$extra.stamp"
if [ "$extra" = dev ]; then touch "$venv/worker.stamp"; fi
