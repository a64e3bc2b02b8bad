#!/usr/bin/env bash
# ADNI: from the merged table to a report on how well codes predict diagnosis and age. Again, it goes on where it stopped.
#
#   scripts/adni_diagnosis_and_age.sh ADNIMERGE.csv ADNI runs/adni     # table, folder of images, output
#
# data_manifests/adni shows what the table and the folder look like. The report is runs/adni/probes/report.html.
#
# Settings, before the command: PARTS, PREPARED, MODEL (scripts/prepare.sh says what they do)
# and MAP=FILE, another map of the table than data_manifests/maps/adni.yaml
set -euo pipefail
source "$(dirname "$0")/prepare.sh"

table="$1" images="$2" out="$3"

most "$LDAE" cohort import table "$table" --map "${MAP:-adni}" --images "$images" --out "$out/cohort.tsv"
prepare "$out"

# One vector a scan, and simple features to compare with.
most "$parts" encode "$cohort" --model "$MODEL" --out "$out/codes"
most "$LDAE" encode "$cohort" --model "$MODEL" --baselines --out "$out/baselines"

# Cross-validated by subject: the model saw none of them. One scan a subject, so that visits do not count as new subjects.
for target in diagnosis age; do
    "$LDAE" probe "$out/codes/codes.parquet" --manifest "$cohort" --target "$target" --protocol cv --scans first \
        --out "$out/probes" --baseline random_encoder="$out/baselines/random_encoder.parquet" \
        tissue_pca="$out/baselines/tissue_pca.npz@100"
done
# The same with age and sex held, since subjects with AD are older.
"$LDAE" probe "$out/codes/codes.parquet" --manifest "$cohort" --target diagnosis --protocol cv --scans first \
    --confounds age sex --control residualise --out "$out/probes_age_and_sex_removed"
