#!/usr/bin/env bash
# OASIS-3: from clinical visits and demographics to a report on how well a missing visit is predicted from the others.
#
#   scripts/oasis3_missing_visits.sh OASIS3_UDSb4_cdr.csv OASIS3_demographics.csv scans runs/oasis3
#
# data_manifests/oasis3 shows what the tables and the folder look like. The report is runs/oasis3/report.html.
#
# Settings, before the command:
#   PARTS=32       preprocess and encode as SLURM arrays of 32 tasks (scripts/slurm_parts.sh)
#   PREPARED=1     the images are brains in MNI152 space already: no preprocessing
#   MODEL=FOLDER   another model than ldae-t1-3mm
set -euo pipefail
LDAE="${LDAE:-ldae}"
MODEL="${MODEL:-ldae-t1-3mm}"
parts="$(dirname "$0")/slurm_parts.sh"
# Exit code 1: some scans were left out, each with its reason. Go on with the others.
most() { "$@" || [ $? -eq 1 ]; }

visits="$1" people="$2" images="$3" out="$4"

most "$LDAE" cohort import table "$visits" "$people" --map oasis3 --images "$images" --out "$out/cohort.tsv"
# Stops here on errors. Read the warnings too.
"$LDAE" cohort check "$out/cohort.tsv"
cohort="$out/cohort.tsv"
if [ -z "${PREPARED:-}" ]; then
    most "$parts" cohort preprocess "$cohort" --out "$out/preprocessed" --workers 4
    cohort="$out/preprocessed/manifest.tsv" # look at preprocessed/quality.html
fi

# Training subjects show the mean change over time; missing visits are predicted for test subjects.
[ -e "$out/manifest.tsv" ] || "$LDAE" cohort split "$cohort" --out "$out/manifest.tsv" --train 0.5 --validation 0.1 --test 0.4

# Every middle visit of three, predicted from the others by each method, beside copies and blends of voxels.
"$LDAE" interpolate evaluate "$out/manifest.tsv" --model "$MODEL" --out "$out/missing_visits"
# The report: the same with pictures, and every other task.
"$LDAE" study "$out/manifest.tsv" --model "$MODEL" --out "$out"
