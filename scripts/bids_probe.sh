#!/usr/bin/env bash
# Any BIDS data set: from raw scans to embeddings of all T1w scans and a probe of one column.
#
#   scripts/bids_probe.sh my_study age runs/my_study     # data set, column of its tables, output
#
# data_manifests/bids shows the tables. The embeddings are runs/my_study/codes/codes.parquet, the report is probes/report.html.
#
# Settings, before the command: PARTS, PREPARED, MODEL (scripts/prepare.sh says what they do)
set -euo pipefail
source "$(dirname "$0")/prepare.sh"

dataset="$1" target="$2" out="$3"

most "$LDAE" cohort import bids "$dataset" --out "$out/cohort.tsv"
prepare "$out"

most "$parts" encode "$cohort" --model "$MODEL" --out "$out/codes"
# Cross-validated by subject, beside age, sex and site.
"$LDAE" probe "$out/codes/codes.parquet" --manifest "$cohort" --target "$target" --protocol cv --out "$out/probes"
