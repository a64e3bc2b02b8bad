"""One probe asked of several trainings: whether what is claimed of a code holds of the training, or of one model of it.

    python benchmarks/trainings.py PROBES [PROBES ...] --target diagnosis

Each folder is what `ldae probe` wrote for one training, with the same baselines and the same people. The mean over trainings of
the codes' figure minus each baseline's has an interval over people (the same resamples for all trainings); beside it
stands the difference in each training, whose spread no interval over people knows of.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import mean_absolute_error, roc_auc_score

from ldae.metrics.statistics import holm, paired_difference, subject_bootstrap

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
    truth = tables[0]["target"].to_numpy()
    people = tables[0]["participant_id"].tolist()
    binary = set(np.unique(truth)) == {0.0, 1.0}
    answers = {name: np.stack([table[name].to_numpy() for table in tables]) for name in tables[0].columns.drop(KEYS)}

    def score(said: np.ndarray, rows: np.ndarray) -> float:
        if binary and len(np.unique(truth[rows])) < 2:
            return float("nan")
        return float(roc_auc_score(truth[rows], said[rows]) if binary else mean_absolute_error(truth[rows], said[rows]))

    def mean_score(name: str, rows: np.ndarray) -> float:
        return float(np.mean([score(said, rows) for said in answers[name]]))

    against = {
        name: paired_difference(
            lambda rows: mean_score("codes", rows),
            lambda rows, name=name: mean_score(name, rows),
            people,
            generator=np.random.default_rng(0),
            resamples=options.resamples,
        )
        for name in answers
        if name != "codes"
    }
    adjusted = dict(zip(against, holm([each.p for each in against.values()]), strict=True))
    everybody = np.arange(len(truth))
    print(
        f"{options.target}, {'AUC' if binary else 'mean absolute error'}: {len(tables)} trainings, {len(set(people))} people"
    )
    for name, said in answers.items():
        interval = subject_bootstrap(
            lambda rows, name=name: mean_score(name, rows),
            people,
            generator=np.random.default_rng(0),
            resamples=options.resamples,
        )
        print(f"{name:18s} {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]", end="")
        if name in against:
            found = against[name]
            each = [
                score(ours, everybody) - score(theirs, everybody)
                for ours, theirs in zip(answers["codes"], said, strict=True)
            ]
            print(
                f"   codes minus it {found.value:+.3f} [{found.low:.3f}, {found.high:.3f}], p (Holm) {adjusted[name]:.3f};"
                f" in each training {', '.join(f'{one:+.3f}' for one in each)}",
                end="",
            )
        print()


if __name__ == "__main__":
    main()
