"""Places where a brain differs from those of its age: planted lesions and atrophy, found by the model and by simpler maps.

    python benchmarks/deviation.py RUN [--seed 0]

RUN is a run folder of `ldae demo`. All maps are fitted to the first scans of healthy training subjects: residuals, divided by
their standard deviation at each voxel. `expected for age and sex` is the scan expected from the code that a regression on age
and sex predicts, `expected from the own code` that from the scan's own, `denoised` the scan after so much noise and the
denoiser's estimate under its own code (Wyatt et al. 2022). Rivals: intensities regressed on age and sex at each voxel
(`z-score`), the residual of principal components of scans, and that of the compression alone. Smoothing, noise and the number
of components are chosen on planted validation scans; limits that 5 % of the voxels pass are set on validation scans, by region.
Printed are areas under the precision-recall curve of test scans.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import average_precision_score

from ldae.atlas import load_template
from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import Record, read_manifest
from ldae.metrics.statistics import mean_of, paired_difference
from ldae.networks import semantic_predict
from ldae.volume import Grid

Images = npt.NDArray[np.float32]
Predict = Callable[[Images, npt.NDArray[np.float64]], Images]
"""Expected scans, (N, D, H, W), of scans and their age and sex, (N, 2)."""

COMPONENTS, LEVELS, SMOOTHINGS = (64, 160), (0.05, 0.1, 0.2), (0.0, 1.0, 2.0)
RIVALS = ("z-score", "components", "compression")
CHANGED = 0.1
"""Change of intensity that counts as a planted place, relative to the brain's range."""


def lesion(scan: Images, grid: Grid, rng: np.random.Generator) -> Images:
    """The scan with a dark ball of 5 to 10 mm in its white matter."""
    at = np.argwhere(gaussian_filter(scan, 1.0) > 0.7)
    centre, radius = at[rng.integers(len(at))], rng.uniform(5, 10) / grid.spacing[0]
    distance = np.linalg.norm(np.moveaxis(np.indices(scan.shape), 0, -1) - centre, axis=-1)
    soft = np.clip(radius + 0.5 - distance, 0, 1)
    return np.where(scan > 0, scan * (1 - rng.uniform(0.25, 0.5) * soft), 0).astype(np.float32)


def atrophy(scan: Images, grid: Grid, rng: np.random.Generator) -> Images:
    """The scan with the fluid of one place widened by 3 to 6 mm, which its neighbours make room for."""
    at = np.argwhere((scan > 0.02) & (scan < 0.25) & (gaussian_filter((scan > 0).astype(np.float32), 2) > 0.9))
    centre = at[rng.integers(len(at))][:, None, None, None]
    away = np.indices(scan.shape) - centre
    distance = np.linalg.norm(away, axis=0)
    width = 12 / grid.spacing[0]
    pulled = rng.uniform(3, 6) / grid.spacing[0] * np.exp(-((distance / width) ** 2)) * np.minimum(distance, 1)
    points = np.indices(scan.shape) - away / np.maximum(distance, 1e-6) * np.minimum(pulled, distance * 0.8)
    return np.asarray(np.where(scan > 0, map_coordinates(scan, points, order=1), 0), dtype=np.float32)


PLANTED = {"lesion": lesion, "atrophy": atrophy}


def fitted(model: LatentDiffusionAutoencoder, scans: Images, people: npt.NDArray[np.float64]) -> dict[str, Predict]:
    """Each way to expect a scan, fitted to healthy scans."""
    noise = model.draw_noise(1, torch.Generator().manual_seed(0))

    def encode(images: Images) -> npt.NDArray[np.float64]:
        return model.semantic(torch.from_numpy(images)[:, None]).double().numpy()

    def decode(y: npt.NDArray[np.float64]) -> Images:
        return model.decompress(model.expected_latents(noise.expand(len(y), -1, -1, -1, -1), torch.tensor(y).float()))

    codes = encode(scans)
    by_age = LinearRegression().fit(people, codes)
    voxels = LinearRegression().fit(people, scans.reshape(len(scans), -1))

    def denoised(images: Images, level: float) -> Images:
        """The scan expected once a share of the steps' noise is on its latents."""
        z_0, y = model.compress(torch.from_numpy(images)[:, None]), torch.tensor(encode(images)).float()
        t = torch.full((len(images),), round(level * model.networks.schedule.timesteps))
        with torch.inference_mode():
            z_t = model.networks.schedule.add_noise(z_0, noise.expand_as(z_0), t)
            return model.decompress(semantic_predict(model.networks, y, model.config)(z_t, t).clean)

    found: dict[str, Predict] = {
        "expected for age and sex": lambda images, of: decode(by_age.predict(of)),
        "expected from the own code": lambda images, of: decode(encode(images)),
        "compression": lambda images, of: model.decompress(model.compress(torch.from_numpy(images)[:, None])),
        "z-score": lambda images, of: voxels.predict(of).reshape(images.shape).astype(np.float32),
    }
    for level in LEVELS:
        found[f"denoised from {level:g}"] = lambda images, of, level=level: denoised(images, level)
    for count in COMPONENTS:
        pca = PCA(min(count, len(scans) - 1), random_state=0).fit(scans.reshape(len(scans), -1))
        found[f"{count} components"] = lambda images, of, pca=pca: pca.inverse_transform(
            pca.transform(images.reshape(len(images), -1))
        ).reshape(images.shape)
    return found


def main() -> None:
    """Print the areas of each map, their difference to the best rival, and the share of voxels beyond the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = LatentDiffusionAutoencoder.from_pretrained(options.run / "model", precision="fp32")
    grid = model.config.preprocessing.grid
    manifest = read_manifest(options.run / "manifest.tsv")

    def healthy(split: str) -> tuple[list[Record], Images, npt.NDArray[np.float64]]:
        table = manifest.in_split(split)
        kept = table.select((table.table["diagnosis"] == "CN") & ~table.table["participant_id"].duplicated())
        records = list(kept.records)
        people = np.stack([kept.table["age"].to_numpy(float), (kept.table["sex"] == "M").to_numpy(float)], axis=1)
        return records, np.stack([model.prepare_record(each).data for each in records]), people

    sets = {split: healthy(split) for split in ("train", "validation", "test")}
    _, scans, people = sets["train"]
    expect = fitted(model, scans, people)
    spread = {name: np.maximum((scans - predict(scans, people)).std(axis=0), 0.02) for name, predict in expect.items()}

    def deviation(name: str, images: Images, of: npt.NDArray[np.float64]) -> dict[float, Images]:
        """Absolute deviation of each voxel by smoothing."""
        z = (images - expect[name](images, of)) / spread[name] * (images > 0)
        return {
            smoothing: np.abs(np.stack([gaussian_filter(each, smoothing) for each in z])).astype(np.float32)
            for smoothing in SMOOTHINGS
        }

    def areas(split: str, kind: str) -> dict[tuple[str, float], npt.NDArray[np.float64]]:
        """Area of each scan by map and smoothing."""
        _, plain, of = sets[split]
        rng = np.random.default_rng([options.seed, len(split), len(kind)])
        changed = np.stack([PLANTED[kind](each, grid, rng) for each in plain])
        places = np.abs(changed - plain) > CHANGED
        rows = [row for row, place in enumerate(places) if place.sum() >= 3]
        return {
            (name, smoothing): np.array(
                [
                    average_precision_score(places[row][changed[row] > 0], each[changed[row] > 0])
                    for row, each in zip(rows, found, strict=True)
                ]
            )
            for name in expect
            for smoothing, found in deviation(name, changed[rows], of[rows]).items()
        }

    best: dict[str, tuple[str, float]] = {}
    for kind in PLANTED:
        chosen = {key: float(values.mean()) for key, values in areas("validation", kind).items()}
        on_test = areas("test", kind)
        print(f"\n{kind}, {len(next(iter(on_test.values())))} test scans\n")
        print("| map | smoothing | validation | test |\n|---|---|---|---|")
        groups: dict[str, list[tuple[str, float]]] = {}
        for key in chosen:
            groups.setdefault(key[0].strip("0123456789. "), []).append(key)
        best = {name: max(keys, key=lambda key: chosen[key]) for name, keys in groups.items()}
        for key in best.values():
            print(f"| {key[0]} | {key[1]:g} | {chosen[key]:.3f} | {on_test[key].mean():.3f} |")
        own, rival = (
            max((key for name, key in best.items() if (name in RIVALS) is not ours), key=lambda key: chosen[key])
            for ours in (True, False)
        )
        first, second = on_test[own], on_test[rival]
        found = paired_difference(mean_of(first), mean_of(second), [str(row) for row in range(len(first))])
        print(f"\n{own[0]} less {rival[0]}: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]", flush=True)

    template = load_template(1.0).resample_to(grid)
    regions = {
        "ventricles": template.ventricles.data > 0.5,
        "hippocampi": template.hippocampus_left.data + template.hippocampus_right.data > 0.5,
        "grey matter": template.grey_matter.data > 0.5,
        "white matter": template.white_matter.data > 0.5,
    }
    print(f"\n| outside the limits, healthy test scans | {' | '.join(regions)} |\n|---|{'---|' * len(regions)}")
    for name, smoothing in best.values():
        known, new = (deviation(name, *sets[split][1:])[smoothing] for split in ("validation", "test"))
        shares = [(new[:, at] > np.quantile(known[:, at], 0.95)).mean() for at in regions.values()]
        print(f"| {name} | {' | '.join(f'{100 * share:.1f} %' for share in shares)} |")


if __name__ == "__main__":
    main()
