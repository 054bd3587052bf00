#!/bin/sh
# All that needs a CUDA GPU, in one run: the kernels' tests, their errors, their times. Arguments go to kernels.py.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
"$python" -c 'import edgeser.export_tools.plugins' 2>/dev/null ||
    "$python" -m pip install --quiet --no-deps --no-build-isolation -e .
if "$python" -c 'import hypothesis, pytest, soundfile' 2>/dev/null; then
    "$python" -m pytest -m gpu -rs tests/export_tools/plugins tests/export_tools/building tests/runtime/test_jetson.py
else
    echo "run.sh: without pytest, hypothesis and soundfile the tests are left out: pip install 'edgeser[dev]'" >&2
fi
# Every engine of the default bundle: built, compared with its golden vectors, timed. A failure is in the table.
"$python" -m edgeser.cli.main selftest --json selftest.json || echo "run.sh: selftest failed, see above" >&2
exec "$python" benchmarks/gpu/kernels.py "$@"
