"""The code at a later visit: time to conversion from it, and the scan to come, with their rivals.

    python benchmarks/next_visit.py RUN --out DIR [--subjects 200] [--repeats 10]

RUN is a run folder of `ldae demo`; its training subjects give the mean course of codes and of scans, as a line whose slope
depends on the stage that a probe of diagnosis reads from the last code. New phantoms, all with MCI at first, are written to DIR.
Conversion: subjects with two visits before AD, and a third. A Cox regression predicts months from the second visit to AD from the
code at the first visit, at the second, or as the course predicts it 24 months later (repeated 5-fold cross-validation). Scans:
each subject's last visit from those before it, as the error of the change since the last known scan; 1 is no change predicted.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import read_manifest
from ldae.metrics.change import change_error
from ldae.metrics.scores import concordance
from ldae.metrics.statistics import mean_of, paired_difference
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.phantom.population import PopulationConfig
from ldae.tasks.encode import encode_scans
from ldae.tasks.encoded_scans import EncodedScans
from ldae.tasks.longitudinal.trajectory import TrajectoryPrior, fit_trajectory_prior, line_weights, sessions_of
from ldae.tasks.probe.cox import choose_cox
from ldae.tasks.probe.models import Features, fit_probe

Array = npt.NDArray[np.float64]
AHEAD = 24.0


def months_of(scans: EncodedScans) -> Array:
    """Months of the scans, (N,)."""
    return np.array([float(record.months or 0) for record in scans.records])


def conversions(scans: EncodedScans, prior: TrajectoryPrior, x: Array, severity: Array, repeats: int) -> None:
    """Print the concordance of each code, and of the true severity, with the months from the second visit to AD."""
    months, y = months_of(scans), scans.semantic
    outcome, codes = (
        [],
        {
            "first visit": [],
            "second visit": [],
            "24 months after the second": [],
            "both visits": [],
            "true severity at the second": [],
        },
    )
    for rows in sessions_of(scans.records).values():
        told = [scans.records[row].diagnosis for row in rows]
        if len(rows) < 3 or "AD" in told[:2]:
            continue
        event = told.index("AD") if "AD" in told else len(rows) - 1
        outcome.append((months[rows[event]] - months[rows[1]], float("AD" in told)))
        known = rows[:2]
        codes["first visit"].append(y[known[0]])
        codes["second visit"].append(y[known[1]])
        codes["both visits"].append(y[known].ravel())
        codes["true severity at the second"].append(severity[known[1:]])
        later = months[known[1]] + AHEAD
        codes["24 months after the second"].append(prior.predict(y[known], months[known], later, x[known[1]]))
    truth = np.array(outcome)
    print(
        f"{len(truth)} subjects, {int(truth[:, 1].sum())} convert\n\n| code | concordance | over repeats |\n|---|---|---|"
    )
    for name, rows_of in codes.items():
        features, found = np.stack(rows_of), []
        for seed in range(repeats):
            folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(features, truth[:, 1])
            each = [
                concordance(truth[test], choose_cox(features[train], truth[train])[0].predict(features[test]))
                for train, test in folds
            ]
            found.append(np.nanmean(each))
        print(f"| {name} | {np.mean(found):.3f} | {np.min(found):.3f} to {np.max(found):.3f} |", flush=True)


def pictures(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, prior: TrajectoryPrior, x: Array, mean: Array
) -> None:
    """Print the error of each method's last scan."""
    months, y = months_of(scans), scans.semantic
    noise = model.draw_noise(1, torch.Generator().manual_seed(0))

    def expected(codes: Array) -> npt.NDArray[np.float32]:
        both = torch.from_numpy(codes).float()
        return model.decompress(model.expected_latents(noise.expand(len(both), -1, -1, -1, -1), both))

    errors: dict[str, list[float]] = {}
    for rows in sessions_of(scans.records).values():
        if len(rows) < 2:
            continue
        known, target = rows[:-1], rows[-1]
        images = scans.select(rows.tolist()).images()
        last, truth, ahead = images[-2], images[-1], months[target] - months[known[-1]]
        weights = line_weights(months[known], months[target]) if len(known) > 1 else np.ones(1)
        later = prior.predict(y[known], months[known], months[target], x[known[-1]])
        before, after = expected(np.stack([y[known[-1]], later]))
        inside = last > 0
        found = {
            "last scan": last,
            "line through the own scans": np.tensordot(weights, images[:-1], axes=1),
            "mean slope of voxels": last + inside * np.tensordot(x[known[-1]], mean, axes=1) * ahead,
            "course of the code": last + inside * (after - before),
        }
        for name, image in found.items():
            errors.setdefault(name, []).append(change_error(np.clip(image, 0, 1).astype(np.float32), truth, last))
    names = [str(row) for row in range(len(errors["last scan"]))]
    print(f"\n{len(names)} last visits\n\n| scan | error of the change | less the last scan's |\n|---|---|---|")
    for name, values in errors.items():
        both = (mean_of(np.array(each)) for each in (values, errors["last scan"]))
        less = paired_difference(*both, names)
        print(f"| {name} | {np.mean(values):.3f} | {less.value:+.4f} [{less.ends[0]:+.4f}, {less.ends[1]:+.4f}] |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    model = LatentDiffusionAutoencoder.from_pretrained(options.run / "model", precision="fp32")
    population = PopulationConfig(prevalence=(0.0, 1.0, 0.0), single_session=0.0)
    size = model.config.preprocessing.voxel_size_mm
    people = PhantomConfig(options.subjects, size, seed=11, population=population)
    new = encode_scans(model, list(read_manifest(synthesise_cohort(options.out, people, workers=2)).records))
    training = encode_scans(model, list(read_manifest(options.run / "manifest.tsv").in_split("train").records))

    told = np.array([record.diagnosis for record in training.records])
    clear = told != "MCI"
    subjects = [name for name, kept in zip(training.subjects, clear, strict=True) if kept]
    features = Features(training.semantic[clear])
    probe = fit_probe(features, (told[clear] == "AD").astype(float), subjects, "binary").pipeline

    def covariates(scans: EncodedScans) -> Array:
        return np.column_stack([np.ones(len(scans)), probe.decision_function(scans.semantic)])

    prior = fit_trajectory_prior(training.records, training.semantic, covariates(training))
    truth = pd.read_csv(options.out / "phantom_truth.tsv", sep="\t").set_index(["participant_id", "session_id"])[
        "severity"
    ]
    severity = truth.loc[[(each.participant_id, each.session_id) for each in new.records]].to_numpy()
    conversions(new, prior, covariates(new), severity, options.repeats)
    images = np.concatenate([batch.images() for batch in training.batches(16)])
    voxels = fit_trajectory_prior(training.records, images.reshape(len(images), -1), covariates(training)).slope
    pictures(model, new, prior, covariates(new), voxels.reshape(-1, *images.shape[1:]))


if __name__ == "__main__":
    main()
