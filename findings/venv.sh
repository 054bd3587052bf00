# Sourced by every script here: a temporary folder that goes when the script ends, and a way to fill an environment in it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1

# venv NAME PACKAGE==VERSION ...: makes $work/NAME/bin/python with those packages.
venv() {
    python3 -m venv "$work/$1"
    "$work/$1/bin/pip" install -qq "${@:2}"
}
