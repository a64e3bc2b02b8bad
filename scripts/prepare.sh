# Sourced by the pipelines that start from images: their settings, and the way from a table of scans to scans in MNI152 space.
#
#   PARTS=32       preprocess and encode as SLURM arrays of 32 tasks (slurm_parts.sh)
#   PREPARED=1     the images are brains in MNI152 space already: no preprocessing
#   MODEL=FOLDER   another model than ldae-t1-3mm
LDAE="${LDAE:-ldae}"
MODEL="${MODEL:-ldae-t1-3mm}"
parts="$(dirname "${BASH_SOURCE[0]}")/slurm_parts.sh"

# Exit code 1: some scans were left out, each with its reason. Go on with the others.
most() { "$@" || [ $? -eq 1 ]; }

# Check OUT/cohort.tsv, preprocess its scans, and name the table of what came out `cohort`.
prepare() {
    # Stops here on errors. Read the warnings too.
    "$LDAE" cohort check "$1/cohort.tsv"
    cohort="$1/cohort.tsv"
    if [ -z "${PREPARED:-}" ]; then
        most "$parts" cohort preprocess "$cohort" --out "$1/preprocessed" --workers 4
        cohort="$1/preprocessed/manifest.tsv" # look at preprocessed/quality.html
    fi
}
