#!/usr/bin/env bash
# The method on a phantom cohort, step by step, through the command line alone. Run again, it goes on where it stopped.
#
#   scripts/phantom_study.sh
#   OUT=runs/toy SUBJECTS=24 VOXEL_SIZE=6 CONFIG=quick DEVICE=cpu scripts/phantom_study.sh
#
# VOXEL_SIZE should be that of CONFIG's grid: 3 for demo, 6 for quick.
set -euo pipefail

LDAE="${LDAE:-ldae}"
OUT="${OUT:-runs/phantom_study}"
SUBJECTS="${SUBJECTS:-160}"
VOXEL_SIZE="${VOXEL_SIZE:-3}"
CONFIG="${CONFIG:-demo}"
DEVICE="${DEVICE:-auto}"

MANIFEST="$OUT/manifest.tsv"
MODEL="$OUT/model"
CODES="$OUT/codes/codes.parquet"

# A cohort with known truth, and a split by subject that nothing changes afterwards.
"$LDAE" cohort synth --out "$OUT/cohort" --subjects "$SUBJECTS" --voxel-size "$VOXEL_SIZE"
"$LDAE" cohort split "$OUT/cohort/manifest.tsv" --out "$MANIFEST" \
    --train 0.6 --validation 0.1 --test 0.3

# Compression, denoiser, representation.
"$LDAE" fit all --config "$CONFIG" --manifest "$MANIFEST" --out "$OUT" --device "$DEVICE"

# What the codes know.
"$LDAE" encode "$MANIFEST" --model "$MODEL" --out "$OUT/codes" --device "$DEVICE"
"$LDAE" probe "$CODES" --manifest "$MANIFEST" --target diagnosis --out "$OUT/probes"
"$LDAE" probe "$CODES" --manifest "$MANIFEST" --target age --out "$OUT/probes"

# What they give back, and what lies between two visits; test subjects only.
"$LDAE" reconstruct "$MANIFEST" --model "$MODEL" --people test \
    --out "$OUT/reconstructions" --device "$DEVICE"
"$LDAE" interpolate evaluate "$MANIFEST" --model "$MODEL" --people test \
    --out "$OUT/interpolation" --device "$DEVICE"

# Every task once more on one footing, with baselines, and the report.
"$LDAE" study "$MANIFEST" --model "$MODEL" --out "$OUT" --device "$DEVICE"
"$LDAE" report "$OUT"
