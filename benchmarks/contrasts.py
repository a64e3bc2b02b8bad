"""Codes of T1w and of FLAIR, alone and joined, of the same subjects and visits.

    python benchmarks/contrasts.py T1W_RUN FLAIR_RUN [FLAIR_RUN ...]

Each RUN holds codes.parquet of a model of one modality. Linear probes of age and of AD against CN are trained on the training and
validation subjects of T1W_RUN/manifest.tsv, and tested on its test subjects. The joined code has both codes' numbers. The last
column is the joined code's metric less that of each alone, by a paired bootstrap over subjects.
"""

import argparse
from pathlib import Path

import numpy as np

from ldae.data.manifest import read_manifest
from ldae.metrics.statistics import Interval
from ldae.tasks.probe.embeddings import embeddings_of, read_embeddings
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.result import CODES, ProbeSettings
from ldae.tasks.probe.targets import choose_target


def words(interval: Interval) -> str:
    """A value and its interval."""
    return f"{interval.value:.3f} [{interval.ends[0]:.3f}, {interval.ends[1]:.3f}]"


def main() -> None:
    """Print a row for each code and target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("t1w", type=Path)
    parser.add_argument("other", type=Path, nargs="+")
    options = parser.parse_args()
    manifest = read_manifest(options.t1w / "manifest.tsv")
    runs = (options.t1w, *options.other)
    parts = [read_embeddings(run / "codes.parquet").of(manifest.records, what=str(run)) for run in runs]
    alone = {str(run): embeddings_of(manifest.records, part) for run, part in zip(runs, parts, strict=True)}
    joined = embeddings_of(manifest.records, np.concatenate(parts, axis=1))
    for column in ("diagnosis", "age"):
        settings = ProbeSettings(permutations=0, by=())
        report = evaluate_probe(choose_target(manifest, column), joined, alone, settings)
        differences = {each.against: each for each in report.comparisons}
        print(f"\n{report.counts}\n| {column} | {report.primary} | joined minus it | p (Holm) |\n|---|---|---|---|")
        for name in (CODES, *differences):
            cells = ["", ""]
            if name != CODES:
                cells = [words(differences[name].difference), f"{differences[name].p_holm:.3f}"]
            title = "joined" if name == CODES else name
            print(
                f"| {title} | {words(report.scored[name].metrics[report.primary])} | {' | '.join(cells)} |", flush=True
            )


if __name__ == "__main__":
    main()
