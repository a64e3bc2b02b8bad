"""One probe asked of several trainings: whether what is claimed of a code holds of the training, or of one model of it.

    python benchmarks/trainings.py PROBES [PROBES ...] --target diagnosis

Each folder is what `ldae probe` wrote for one training, with the same baselines and the same people. The mean over trainings of
the codes' figure minus each baseline's has an interval over people (the same resamples for all trainings); beside it
stands the difference in each training, whose spread no interval over people knows of.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ldae.metrics.scores import PRIMARY, Predictions, compare_predictions, score_predictions
from ldae.metrics.statistics import holm

KEYS = ["participant_id", "session_id", "target"]


def main() -> None:
    """Print a row for the codes and for each baseline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probes", nargs="+", type=Path, help="folders with probe_TARGET.csv, one a training")
    parser.add_argument("--target", default="diagnosis", help="diagnosis (AUC) or age (mean absolute error)")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default: 1000)")
    options = parser.parse_args()
    tables = [pd.read_csv(folder / f"probe_{options.target}.csv") for folder in options.probes]
    if any(not table[KEYS].equals(tables[0][KEYS]) for table in tables):
        parser.error("the folders hold answers about different people; ask each training of the same manifest")
    truth = tables[0]["target"].to_numpy(dtype=float)
    people = tuple(tables[0]["participant_id"])
    kind = "binary" if set(np.unique(truth)) == {0.0, 1.0} else "regression"
    metric = PRIMARY[kind]
    answers = {
        name: Predictions(kind, truth, np.stack([table[name].to_numpy(dtype=float) for table in tables]), people)
        for name in tables[0].columns.drop(KEYS)
    }
    own = answers["codes"]
    against = {
        name: compare_predictions(own, each, metric, resamples=options.resamples)
        for name, each in answers.items()
        if each is not own
    }
    adjusted = dict(zip(against, holm([each.p for each in against.values()]), strict=True))
    print(f"{options.target}, {metric}: {len(tables)} trainings, {len(set(people))} people")
    for name, each in answers.items():
        interval = score_predictions(each, (metric,), resamples=options.resamples)[metric]
        print(f"{name:18s} {interval.value:.3f} [{interval.ends[0]:.3f}, {interval.ends[1]:.3f}]", end="")
        if name in against:
            found = against[name]
            gaps = [
                replace(own, values=ours[None]).overall(metric) - replace(each, values=theirs[None]).overall(metric)
                for ours, theirs in zip(own.values, each.values, strict=True)
            ]
            print(
                f"   codes minus it {found.value:+.3f} [{found.ends[0]:.3f}, {found.ends[1]:.3f}], p (Holm) {adjusted[name]:.3f};"
                f" in each training {', '.join(f'{gap:+.3f}' for gap in gaps)}",
                end="",
            )
        print()


if __name__ == "__main__":
    main()
