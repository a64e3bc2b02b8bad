#!/usr/bin/env bash
# Any BIDS data set: from raw scans to embeddings of all T1w scans and a probe of one column.
#
#   scripts/bids_probe.sh my_study age runs/my_study     # data set, column of its tables, output
#
# data_manifests/bids shows the tables. The embeddings are runs/my_study/codes/codes.parquet, the report is probes/report.html.
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

dataset="$1" target="$2" out="$3"

most "$LDAE" cohort import bids "$dataset" --out "$out/cohort.tsv"
# Stops here on errors. Read the warnings too.
"$LDAE" cohort check "$out/cohort.tsv"
cohort="$out/cohort.tsv"
if [ -z "${PREPARED:-}" ]; then
    most "$parts" cohort preprocess "$cohort" --out "$out/preprocessed" --workers 4
    cohort="$out/preprocessed/manifest.tsv" # look at preprocessed/quality.html
fi

most "$parts" encode "$cohort" --model "$MODEL" --out "$out/codes"
# Cross-validated by subject, beside age, sex and site.
"$LDAE" probe "$out/codes/codes.parquet" --manifest "$cohort" --target "$target" --protocol cv --out "$out/probes"
