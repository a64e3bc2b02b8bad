"""Structures of real heads from 1 to 9 labelled ones: features of the model beside intensities, registration and a UNet.

    python benchmarks/segmentation.py HEADS --labels FOLDER [--known 1 3 5 9] [--unet-steps 300] [--targets 10]

HEADS is a manifest of heads that `ldae cohort preprocess` prepared at the model's grid; FOLDER has a DLMUSE segmentation of each
raw scan, `*ID*_DLMUSE.nii.gz`. Each head is left out in turn and told from the next ones; printed is the mean Dice of each
structure. `forest` sees intensities and places. `forest, model` sees also what the denoiser finds at two noise levels, the scan
expected from the semantic code, and the scan denoised from two levels. `registration` carries the labels along (diffeomorphic
demons, majority).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.ensemble import RandomForestClassifier

import ldae
from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import Record
from ldae.networks import semantic_predict
from ldae.volume import Grid, read_volume, sidecar_path

STRUCTURES = {
    "fluid outside": (1, 46),
    "ventricles": (4, 11, 49, 50, 51, 52),
    "hippocampi": (47, 48),
    "white matter": (35, 40, 41, 61, 62, 69, *range(81, 96)),
    "grey matter": (23, 30, 31, 32, 36, 37, 38, 39, *range(55, 61), *range(71, 77), *range(100, 208)),
}
LEVELS = (0.2, 0.5)
SAMPLED = 20_000
Array = npt.NDArray[np.float32]


def labels_of(record: Record, folder: Path, grid: Grid) -> npt.NDArray[np.int64]:
    """Structures on the model's grid, 0 outside, by the nearest voxel of the raw segmentation."""
    number = record.participant_id.removeprefix("sub-")
    (path,) = folder.glob(f"*{number}-*_DLMUSE.nii.gz")
    raw = read_volume(path)
    affine = np.array(json.loads(sidecar_path(record.image).read_text(encoding="utf-8"))["AffineNativeToTemplate"])
    to_raw = np.linalg.inv(raw.affine) @ np.linalg.inv(affine) @ grid.affine
    places = to_raw[:3, :3] @ np.indices(grid.shape).reshape(3, -1) + to_raw[:3, 3:]
    values = map_coordinates(raw.data, places, order=0).reshape(grid.shape).round()
    found = np.zeros(grid.shape, dtype=np.int64)
    for index, numbers in enumerate(STRUCTURES.values(), start=1):
        found[np.isin(values, numbers)] = index
    return found


def plain_features(scan: Array) -> Array:
    """Intensities at five scales, their neighbours, and places: (F, D, H, W)."""
    scales = [scan, *(gaussian_filter(scan, sigma) for sigma in (0.7, 1.5, 3.0, 6.0))]
    neighbours = [np.roll(scan, step, axis) for axis in range(3) for step in (-1, 1)]
    places = np.indices(scan.shape) / np.array(scan.shape)[:, None, None, None]
    return np.stack([*scales, *neighbours, *places]).astype(np.float32)


@torch.inference_mode()
def model_features(model: LatentDiffusionAutoencoder, scan: Array) -> Array:
    """What the model knows of each voxel: (F, D, H, W)."""
    images = torch.from_numpy(scan)[None, None]
    z_0, y, schedule = model.compress(images), model.semantic(images), model.networks.schedule
    noise = model.draw_noise(1, torch.Generator().manual_seed(0))
    found: list[Array] = list(model.decompress(model.expected_latents(noise, y)))
    predict = semantic_predict(model.networks, y, model.config)
    for level in LEVELS:
        t = torch.tensor([round(level * schedule.timesteps)])
        z_t = schedule.add_noise(z_0, noise, t)
        found += list(model.decompress(predict(z_t, t).clean))
        maps = torch.cat([z_t, *model.networks.denoiser.features(z_t, t).skips[:2]], dim=1)
        found += list(torch.nn.functional.interpolate(maps, scan.shape, mode="trilinear")[0].numpy())
    return np.stack(found)


def forest(
    features: list[Array], labels: list[npt.NDArray[np.int64]], target: Array, seed: int
) -> npt.NDArray[np.int64]:
    """Labels of the target's voxels by a random forest."""
    rng = np.random.default_rng(seed)
    x, y = [], []
    for each, known in zip(features, labels, strict=True):
        chosen = rng.permutation(np.flatnonzero(each[0] > 0))[: SAMPLED // len(features) + 4_000]
        rare = np.flatnonzero(
            ((known == 2) | (known == 3)) & (each[0] > 0)
        )  # all of ventricles and hippocampi, which are few
        rows = np.union1d(chosen, rare)
        x.append(each.reshape(len(each), -1)[:, rows].T)
        y.append(known.reshape(-1)[rows])
    grown = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=2, random_state=seed, max_features="sqrt")
    grown.fit(np.concatenate(x), np.concatenate(y))
    found = np.zeros(target.shape[1:], dtype=np.int64)
    inside = target[0] > 0
    found[inside] = grown.predict(target[:, inside].T)
    return found


def carried(moving: Array, fixed: Array, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels of one scan on another, along diffeomorphic demons."""
    import SimpleITK as sitk

    to, of = (sitk.GetImageFromArray(gaussian_filter(each, 0.5)) for each in (fixed, moving))
    of = sitk.HistogramMatching(of, to)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(60)
    demons.SetStandardDeviations(1.2)
    field = sitk.Cast(demons.Execute(to, of), sitk.sitkVectorFloat64)
    moved = sitk.Resample(
        sitk.GetImageFromArray(labels.astype(np.uint8)),
        to,
        sitk.DisplacementFieldTransform(field),
        sitk.sitkNearestNeighbor,
    )
    return sitk.GetArrayFromImage(moved).astype(np.int64)


def unet(scans: list[Array], labels: list[npt.NDArray[np.int64]], target: Array, steps: int, seed: int) -> Any:
    """Labels of the target by a small UNet from scratch, trained on crops."""
    from monai.networks.nets import UNet

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = UNet(3, 1, len(STRUCTURES) + 1, (16, 32, 64), (2, 2), num_res_units=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    weight = torch.tensor([0.2, 1.0, 2.0, 6.0, 1.0, 1.0])
    for _ in range(steps):
        row = rng.integers(len(scans))
        start = [int(rng.integers(0, n - 31)) for n in scans[row].shape]
        crop = tuple(slice(a, a + 32) for a in start)
        x = torch.from_numpy(scans[row][crop].copy())[None, None] * float(rng.uniform(0.9, 1.1))
        loss = torch.nn.functional.cross_entropy(network(x), torch.from_numpy(labels[row][crop].copy())[None], weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.inference_mode():
        return network(torch.from_numpy(target)[None, None])[0].argmax(dim=0).numpy() * (target > 0)


def dice(found: npt.NDArray[np.int64], true: npt.NDArray[np.int64]) -> list[float]:
    """Dice of each structure."""
    return [
        2 * float(((found == k) & (true == k)).sum()) / max(1, int((found == k).sum() + (true == k).sum()))
        for k in range(1, len(STRUCTURES) + 1)
    ]


def main() -> None:
    """Print a row a method and number of labelled heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--model", default="ldae-t1-3mm")
    parser.add_argument("--known", type=int, nargs="+", default=[1, 3, 5, 9])
    parser.add_argument("--unet-steps", type=int, default=300)
    parser.add_argument("--targets", type=int, default=10, help="heads that are left out")
    options = parser.parse_args()
    model = ldae.from_pretrained(options.model, precision="fp32")
    records = list(ldae.read_manifest(options.heads).records)
    scans: list[Array] = [model.prepare_record(record).data for record in records]
    true = [labels_of(record, options.labels, model.config.preprocessing.grid) for record in records]
    plain = [plain_features(scan) for scan in scans]
    both = [np.concatenate([of, model_features(model, scan)]) for of, scan in zip(plain, scans, strict=True)]
    warped = {
        (a, b): carried(scans[a], scans[b], true[a])
        for a in range(len(scans))
        for b in range(min(options.targets, len(scans)))
        if a != b and (a - b) % len(scans) <= max(options.known)
    }
    print(f"| labelled heads | method | {' | '.join(STRUCTURES)} |\n|---|---|{'---|' * len(STRUCTURES)}")
    for count in options.known:
        scored: dict[str, list[list[float]]] = {}
        for target, scan in enumerate(scans[: options.targets]):
            known = [(target + step) % len(scans) for step in range(1, count + 1)]
            votes = np.stack([np.eye(len(STRUCTURES) + 1)[warped[each, target]] for each in known]).sum(axis=0)
            given = [true[each] for each in known]
            found = {
                "registration": votes.argmax(axis=-1) * (scan > 0),
                "forest": forest([plain[each] for each in known], given, plain[target], target),
                "forest, model": forest([both[each] for each in known], given, both[target], target),
                "UNet": unet([scans[each] for each in known], given, scan, options.unet_steps, target),
            }
            for name, each in found.items():
                scored.setdefault(name, []).append(dice(each, true[target]))
        for name, rows in scored.items():
            print(f"| {count} | {name} | {' | '.join(f'{v:.3f}' for v in np.mean(rows, axis=0))} |", flush=True)


if __name__ == "__main__":
    main()
