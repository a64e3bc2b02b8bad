#!/usr/bin/env bash
#SBATCH --job-name=ldae
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#
# A command that takes --part, on SLURM: each task of the array does its part, and an array of one task, once they have ended,
# does what they left and puts the results together. Options of sbatch, such as --array=1-32, stand before the script.
#
#   raw=$(sbatch --parsable scripts/slurm_parts.sh cohort preprocess raw.tsv --out prepared --workers 4)
#   sbatch --array=1 --dependency=afterany:$raw scripts/slurm_parts.sh cohort preprocess raw.tsv --out prepared --workers 4
#
# The same two lines with 'encode prepared/manifest.tsv --model runs/a/model --out codes' encode the cohort.
# Called without sbatch, it submits both and waits if PARTS is the number of tasks; else it runs the command here.
set -euo pipefail

if [ -n "${PARTS:-}" ] && [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    # What a task left undone, the last one does.
    sbatch --wait --array="1-$PARTS" "$0" "$@" || true
    exec sbatch --wait --array=1 "$0" "$@"
fi
part=()
if [ "${SLURM_ARRAY_TASK_COUNT:-1}" -gt 1 ]; then
    part=(--part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi
exec "${LDAE:-ldae}" "$@" ${part[@]+"${part[@]}"}
