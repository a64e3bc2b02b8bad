#!/usr/bin/env bash
# OASIS-3: from clinical visits and demographics to a report on how well a missing visit is predicted from the others.
#
#   scripts/oasis3_missing_visits.sh OASIS3_UDSb4_cdr.csv OASIS3_demographics.csv scans runs/oasis3
#
# data_manifests/oasis3 shows what the tables and the folder look like. The report is runs/oasis3/report.html.
#
# Settings, before the command: PARTS, PREPARED, MODEL (scripts/prepare.sh says what they do)
set -euo pipefail
source "$(dirname "$0")/prepare.sh"

visits="$1" people="$2" images="$3" out="$4"

most "$LDAE" cohort import table "$visits" "$people" --map oasis3 --images "$images" --out "$out/cohort.tsv"
prepare "$out"

# Training subjects show the mean change over time; missing visits are predicted for test subjects.
[ -e "$out/manifest.tsv" ] || "$LDAE" cohort split "$cohort" --out "$out/manifest.tsv" --train 0.5 --validation 0.1 --test 0.4

# Every middle visit of three, predicted from the others by each method, beside copies and blends of voxels.
"$LDAE" interpolate evaluate "$out/manifest.tsv" --model "$MODEL" --out "$out/missing_visits"
# The report: the same with pictures, and every other task.
"$LDAE" study "$out/manifest.tsv" --model "$MODEL" --out "$out"
