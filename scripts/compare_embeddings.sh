#!/usr/bin/env bash
# Three or more models' embeddings of the same scans, from CSV: which predicts a column best? No image is read.
#
#   scripts/compare_embeddings.sh cohort.tsv diagnosis runs/compared brainiac=b.csv medicalnet=m.csv resnet=r.csv
#
# Each table has participant_id, session_id and numbers; data_manifests/embeddings holds three. Every model is once the one that
# the others are compared with: the same folds, paired differences with intervals. Reports: runs/compared/NAME/report.html.
#
# Settings, before the command:
#   CONFOUNDS="age sex"   columns whose linear effect is removed from every embedding, inside each fold
set -euo pipefail
LDAE="${LDAE:-ldae}"

manifest="$1" target="$2" out="$3"
shift 3
hold=()
if [ -n "${CONFOUNDS:-}" ]; then
    read -ra columns <<< "$CONFOUNDS"
    hold=(--confounds "${columns[@]}" --control residualise)
fi

for model in "$@"; do
    others=()
    for other in "$@"; do
        [ "$other" = "$model" ] || others+=("$other")
    done
    # The first scan of each subject, cross-validated: no table needs a split.
    "$LDAE" probe "${model#*=}" --manifest "$manifest" --target "$target" --protocol cv --scans first \
        --baseline "${others[@]}" ${hold[@]+"${hold[@]}"} --out "$out/${model%%=*}"
done
