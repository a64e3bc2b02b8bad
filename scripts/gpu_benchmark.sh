#!/usr/bin/env bash
# Throughput and roofline at 128x160x128 voxels with the published widths, on one GPU.
#
#   scripts/gpu_benchmark.sh [OUT.json] [further options of benchmarks/throughput.py]
#
# Speed does not depend on what the weights are, so they are random unless --models names a folder with paper/model and
# paper_voxel/model in it. The record holds hardware, versions, medians, spread and the roofline.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-docs/benchmarks/gpu.json}
[ $# -gt 0 ] && shift
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
"$python" - <<'CHECK'
import sys
import torch
if not torch.cuda.is_available():
    sys.exit(f"this torch ({torch.__version__}) finds no CUDA device; install a CUDA build, or run 'make bench' for the CPU")
print(torch.cuda.get_device_name(), "torch", torch.__version__)
CHECK
weights=(--untrained)
for option in "$@"; do [ "$option" = --models ] && weights=(); done
exec "$python" benchmarks/throughput.py --device cuda --config paper --baseline paper_voxel "${weights[@]}" \
  --batch 8 --repeats 5 --scans 2 --baseline-batch 2 --baseline-repeats 3 --out "$out" "$@"
