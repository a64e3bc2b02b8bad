#!/usr/bin/env bash
# The first check of a GPU, in ten minutes at most: parity with the CPU, speed and memory of each training stage at the published
# widths, tests, throughput, the quick demo. Writes check.json and check.md.
#
#   scripts/gpu_check.sh [--wheels DIR] [further options of benchmarks/gpu_check.py, such as --out DIR]
#
# With --wheels, whatever this Python lacks is installed from that folder, without a network and beside the torch that is there.
# Rehearse it without a GPU: scripts/gpu_check.sh --device cpu --tiny
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
if [ "${1:-}" = --wheels ]; then
  "$python" -m venv --system-site-packages .venv-gpu
  .venv-gpu/bin/python -m pip install --quiet --no-index --find-links "$2" --editable ".[test]"
  python=.venv-gpu/bin/python
  shift 2
fi
exec "$python" benchmarks/gpu_check.py "$@"
