"""Scans of one scanner as if taken by another: the model, histogram matching, means by voxel, and ComBat of codes.

    python benchmarks/harmonise.py RUN --out DIR [--subjects 240]        (needs `pip install neuroCombat`)

RUN is a run folder of `ldae demo`. Each phantom is scanned by a reference scanner and by one of other tissue contrast and
gamma, at the same moment and with the same noise. Half of the subjects are for training: a third of them are known from the
reference scanner alone, the others from the other. The model inverts a scan of the other scanner exactly, moves its semantic
code, its noise code or both by the difference of the scanners' means (of equal age, sex and diagnosis), and decodes; the change
is added to the scan. Printed are, on the other half: error to the true scan of the reference scanner, AUC of a classifier of
the scanner, trained after harmonising on other subjects, and the age and diagnosis that probes of reference scans predict.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from neuroCombat import neuroCombat
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import read_manifest
from ldae.metrics.images import compare_images
from ldae.metrics.statistics import mean_of, paired_difference
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.phantom.population import PopulationConfig
from ldae.phantom.scanner import ScannerConfig
from ldae.tasks.probe.baselines import SimpleFeatures
from ldae.tasks.probe.models import Features, fit_probe

Images = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
LABELS = ["age", "male", "MCI", "AD"]


def scanned(out: Path, subjects: int, voxel_size_mm: float, seed: int) -> list[Path]:
    """Manifests of the same subjects in the reference scanner and the other."""
    population = PopulationConfig(n_sites=1, single_session=1.0)
    plain = PhantomConfig(subjects, voxel_size_mm, seed, population=population, max_sessions=1)
    scanners = (
        ScannerConfig(site_contrast_sd=0.0, site_gamma_sd=0.0),
        ScannerConfig(site_contrast_sd=0.08, site_gamma_sd=0.2),
    )
    return [
        synthesise_cohort(out / name, replace(plain, scanner=scanner), workers=2)
        for name, scanner in zip(("reference", "other"), scanners, strict=True)
    ]


def matched(images: Images, references: Images) -> Images:
    """Images whose brain has the mean quantiles of the references' brains."""
    levels = np.linspace(0, 1, 257)
    target = np.mean([np.quantile(each[each > 0], levels) for each in references], axis=0)
    found = np.zeros_like(images)
    for image, kept in zip(images, found, strict=True):
        brain = image > 0
        kept[brain] = np.interp(image[brain], np.quantile(image[brain], levels), target)
    return found


def site_effect(values: Array, people: Array, other: npt.NDArray[np.bool_]) -> Array:
    """Difference of the scanners' means, (S,), other less reference, at equal age, sex and diagnosis; values (N, S)."""
    effect: Array = LinearRegression().fit(np.column_stack([other, people]), values).coef_[:, 0]
    return effect


def main() -> None:
    """Print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--subjects", type=int, default=240)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    model = LatentDiffusionAutoencoder.from_pretrained(options.run / "model", precision="fp32")
    paths = scanned(options.out, options.subjects, model.config.preprocessing.voxel_size_mm, options.seed)
    records = [list(read_manifest(path).records) for path in paths]
    table = read_manifest(paths[0]).table
    people = np.column_stack(
        [table["age"], table["sex"] == "M", *(table["diagnosis"] == each for each in ("MCI", "AD"))]
    )
    people = people.astype(float)
    reference, other = (np.stack([model.prepare_record(each).data for each in rows]) for rows in records)
    training = np.arange(len(table)) < len(table) // 2
    from_other = training & (np.arange(len(table)) % 3 > 0)
    from_reference = training & ~from_other
    own = np.concatenate([np.flatnonzero(from_reference), np.flatnonzero(from_other)])
    is_other = np.arange(len(own)) >= from_reference.sum()
    known = np.concatenate([reference[from_reference], other[from_other]])
    test = ~training
    source, truth = other[test], reference[test]

    def semantic(images: Images) -> Array:
        return model.semantic(torch.from_numpy(images)[:, None]).double().numpy()

    def encode(images: Images) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Latents, y, z_T and the solver's record."""
        z_0, y = model.compress(torch.from_numpy(images)[:, None]), torch.from_numpy(semantic(images)).float()
        found = model.invert(z_0, y)
        return z_0, y, found.noise, found.record

    latents, codes, noise, _ = encode(known)
    effects = [
        torch.tensor(site_effect(each.flatten(1).double().numpy(), people[own], is_other)).float().view(each.shape[1:])
        for each in (latents, codes, noise)
    ]
    z_0, y, z_t, record = encode(source)
    before = model.decompress(z_0)

    def edited(of_code: float, of_noise: float) -> Images:
        moved = model.sample_latents(z_t - of_noise * effects[2], y - of_code * effects[1], record=record)
        return np.where(source > 0, np.clip(source + model.decompress(moved) - before, 0, 1), 0).astype(np.float32)

    voxels = site_effect(known.reshape(len(known), -1).astype(np.float64), people[own], is_other).reshape(
        known.shape[1:]
    )
    images: dict[str, Images] = {
        "as scanned": source,
        "histogram matching": matched(source, reference[from_reference]),
        "means by voxel": np.where(source > 0, np.clip(source - voxels, 0, 1), 0).astype(np.float32),
        "means of latents, no diffusion": np.where(
            source > 0, np.clip(source + model.decompress(z_0 - effects[0]) - before, 0, 1), 0
        ).astype(np.float32),
        "model: semantic code moved": edited(1, 0),
        "model: noise code moved": edited(0, 1),
        "model: both moved": edited(1, 1),
    }
    batch_codes = semantic(truth)
    by_image: dict[str, Array] = {name: semantic(each) for name, each in images.items()}
    # ComBat sees the codes that it corrects, of both scanners.
    covariates = pd.DataFrame(people[[*own, *np.flatnonzero(test), *np.flatnonzero(test)]], columns=LABELS)
    covariates["scanner"] = [*is_other, *np.repeat([True, False], test.sum())]
    together = np.concatenate([codes.double().numpy(), by_image["as scanned"], batch_codes])
    fixed = neuroCombat(together.T, covariates, "scanner", LABELS[1:], LABELS[:1])["data"].T[len(own) :]
    combat, combat_reference = np.split(fixed, 2)

    # Averages of intensities see the scanner; tissue maps, which the model's code is made of, hardly do.
    simple = SimpleFeatures(model.config.preprocessing.voxel_size_mm)
    groups = np.tile(np.arange(test.sum()), 2)
    site = np.repeat([1, 0], test.sum())
    probes = {
        name: fit_probe(Features(codes_of), target, [str(row) for row in range(len(target))], kind)
        for name, codes_of, target, kind in (
            ("age", semantic(reference[training]), people[training, 0], "regression"),
            (
                "AD",
                semantic(reference[training & (people[:, 2] == 0)]),
                people[training & (people[:, 2] == 0), 3],
                "binary",
            ),
        )
    }
    clear = people[test, 2] == 0

    def site_auc(first: Array, second: Array) -> float:
        classifier = make_pipeline(
            StandardScaler(),
            GridSearchCV(LogisticRegression(max_iter=2000), {"C": np.logspace(-5, 1, 7)}, scoring="neg_log_loss"),
        )
        x = np.concatenate([first, second])
        return float(
            roc_auc_score(
                site,
                cross_val_predict(classifier, x, site, groups=groups, cv=GroupKFold(5), method="predict_proba")[:, 1],
            )
        )

    def blocks(of: Images) -> Array:
        pooled = torch.nn.functional.avg_pool3d(torch.from_numpy(of)[:, None], simple.coarse // 2, ceil_mode=True)
        return pooled.flatten(1).double().numpy()

    print(
        "| scans of the other scanner | RMS error in the brain | less histogram matching | SSIM in the brain | "
        "scanner's AUC, intensities | scanner's AUC, code | age, years | AD, AUC |\n|---|---|---|---|---|---|---|---|"
    )
    brain = truth > 0

    def error(of: Images) -> Array:
        return np.array(
            [np.sqrt(np.square(a - b)[inside].mean()) for a, b, inside in zip(of, truth, brain, strict=True)],
            np.float64,
        )

    rival = error(images["histogram matching"])
    names = [str(row) for row in range(len(truth))]

    def probed(of: Array) -> str:
        age = float(np.abs(probes["age"].predict(of) - people[test, 0]).mean())
        return f"{age:.2f} | {roc_auc_score(people[test, 3][clear], probes['AD'].predict(of[clear])):.3f}"

    for name, each in images.items():
        less = paired_difference(mean_of(error(each)), mean_of(rival), names)
        ssim = compare_images(each, truth).ssim_brain.mean()
        between = "" if name == "histogram matching" else f"{less.value:+.4f} [{less.low:+.4f}, {less.high:+.4f}]"
        print(
            f"| {name} | {error(each).mean():.4f} | {between} | {ssim:.3f} | {site_auc(blocks(each), blocks(truth)):.2f} | "
            f"{site_auc(by_image[name], batch_codes):.2f} | {probed(by_image[name])} |",
            flush=True,
        )
    print(f"| ComBat of codes | | | | | {site_auc(combat, combat_reference):.2f} | {probed(combat)} |")
    print(f"| the reference scanner's own | 0 | | 1 | | | {probed(batch_codes)} |")


if __name__ == "__main__":
    main()
