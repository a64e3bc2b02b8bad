"""Scans and decoded scans at half the voxel size: a small network on the B-spline image beside interpolation.

    python benchmarks/voxel_size.py PHANTOMS [--heads HEADS --labels FOLDER] [--steps 250] [--seeds 0 1 2]

PHANTOMS is a cohort of `ldae cohort synth --anatomy`; the first half of its label maps trains, the others are tested on. HEADS
is a manifest of raw heads and FOLDER has a DLMUSE segmentation of each, `*ID*_DLMUSE.nii.gz`, which tells the brain; their
voxels are never interpolated. Coarse images of each scan are brought back to its own grid: means of 2 x 2 x 2 voxels, means of
four slices, and, of phantoms, what the model decodes from both codes (with an exact solver that is the scan after compression
alone). The network learns what the cubic B-spline misses, from all three, and begins as the B-spline. Printed are the
similarity in the brain (SSIM), the same where the true outline of the brain is given, the PSNR in a box around the brain, and
the difference of the first from the best interpolation, with its 95 % interval over subjects.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from monai.losses import SSIMLoss
from monai.networks.blocks import UpSample
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import Tensor, nn

import ldae
from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import Record
from ldae.metrics.images import compare_images
from ldae.metrics.statistics import mean_of, subject_bootstrap
from ldae.volume import Grid, Volume, read_volume

FACTORS = {"2 x 2 x 2 voxels": (2, 2, 2), "4 slices": (1, 1, 4)}
CROP, BATCH, MARGIN = 32, 8, 8
PERCENTILES = (0.5, 99.5)
WIDTHS = (8, 32, 32, 32, 8)
Array = npt.NDArray[np.float32]
Method = Callable[[Volume, Grid], Array]


@dataclass(frozen=True)
class Example:
    """A scan and what is left of it.

    Attributes:
        scan: the truth, in [0, 1], in a box around the brain whose axes are multiples of four.
        coarse: image of each kind, on a grid of its own.
    """

    scan: Volume
    coarse: dict[str, Volume]


class Refinement(nn.Module):
    """Adds to an image, (B, 1, D, H, W), what convolutions find in it; at first nothing.

    They run on 2 x 2 x 2 voxels at a time (Shi et al. 2016), which costs an eighth.
    """

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv3d(a, b, 3, padding=1) for a, b in pairwise(WIDTHS)]
        for each in (convolutions[-1].weight, convolutions[-1].bias):
            nn.init.zeros_(each)
        parts = [part for each in convolutions for part in (each, nn.ReLU())]
        self.body = nn.Sequential(*parts[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """The better image."""
        return x + pixelshuffle(self.body(pixelunshuffle(x, 3, 2)), 3, 2)


def averaged(scan: Volume, factors: tuple[int, int, int]) -> Volume:
    """Means of blocks of voxels."""
    d, h, w = (n // f for n, f in zip(scan.data.shape, factors, strict=True))
    a, b, c = factors
    data = scan.data[: d * a, : h * b, : w * c].reshape(d, a, h, b, w, c).mean(axis=(1, 3, 5))
    to_fine = np.diag([*factors, 1.0])
    to_fine[:3, 3] = (np.array(factors) - 1) / 2
    return Volume(data, scan.affine @ to_fine)


def coarsened(brain: Volume, decoded: Volume | None = None, axis: int = 2) -> Example:
    """A brain in a box with intensities in [0, 1], and its coarse images; slices lie along an axis."""
    inside = np.argwhere(brain.data > 0)
    start = inside.min(axis=0) - MARGIN
    d, h, w = (inside.max(axis=0) + MARGIN - start + 3) // 4 * 4
    affine = brain.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    data = brain.resample_to(Grid((d, h, w), affine)).data
    low, high = np.percentile(data[data > 0], PERCENTILES)
    scan = Volume(np.where(data > 0, np.clip((data - low) / (high - low), 1e-6, 1.0), 0.0), affine)
    coarse = {name: averaged(scan, tuple(np.roll(factors, axis - 2).tolist())) for name, factors in FACTORS.items()}
    if decoded is not None:
        data = np.where(decoded.data > 0, (decoded.data - low) / (high - low), 0.0)
        coarse["decoded"] = Volume(data, decoded.affine)
    return Example(scan, coarse)


def phantom_example(model: LatentDiffusionAutoencoder, record: Record, axis: int = 2) -> Example:
    """A phantom, which is in template space, with what the model decodes."""
    prepared = model.prepare_record(record)
    image = model.decompress(model.compress(torch.from_numpy(prepared.data)[None, None]))[0]
    low, high = prepared.window
    decoded = Volume(np.where(image > 0, image * (high - low) + low, 0.0), model.config.preprocessing.grid.affine)
    return coarsened(read_volume(record.image).to_ras(), decoded, axis)


def head_example(record: Record, folder: Path) -> Example:
    """A raw head's brain."""
    (path,) = folder.glob(f"*{record.participant_id.removeprefix('sub-')}-*_DLMUSE.nii.gz")
    scan, labels = (read_volume(each).to_ras() for each in (record.image, path))
    return coarsened(Volume(scan.data * (labels.resample_to(scan.grid, order=0).data > 0), scan.affine))


def interpolated(coarse: Volume, grid: Grid, order: int) -> Array:
    """Linear or cubic B-spline interpolation."""
    return np.clip(coarse.resample_to(grid, order=order).data, 0.0, 1.0)


def monai_upsampled(coarse: Volume, grid: Grid) -> Array:
    """MONAI's upsampling without weights, then linear interpolation where the grid is another one."""
    factors = [max(1, round(a / b)) for a, b in zip(coarse.spacing, grid.spacing, strict=True)]
    image = UpSample(3, scale_factor=factors, mode="nontrainable")(torch.from_numpy(coarse.data)[None, None])[0, 0]
    to_coarse = np.diag([*(1 / np.array(factors)), 1.0])
    to_coarse[:3, 3] = (1 / np.array(factors) - 1) / 2
    return interpolated(Volume(image.numpy(), coarse.affine @ to_coarse), grid, 1)


@torch.inference_mode()
def refined(network: nn.Module, coarse: Volume, grid: Grid) -> Array:
    """What a trained network makes of the B-spline image."""
    image: Array = network(torch.from_numpy(interpolated(coarse, grid, 3))[None, None])[0, 0].numpy()
    return image.clip(0.0, 1.0)


def train(network: nn.Module, pairs: Sequence[tuple[Array, Array]], steps: int, seed: int) -> nn.Module:
    """Train on crops of pairs of a B-spline image and a scan, mirrored at random."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    unlike = SSIMLoss(3)  # what is measured
    boxes = [np.argwhere(scan[::4, ::4, ::4] > 0) * 4 for _, scan in pairs]

    def crop() -> Array:
        row = rng.integers(len(pairs))
        middle = boxes[row][rng.integers(len(boxes[row]))]
        start = np.clip(middle - CROP // 2, 0, np.array(pairs[row][1].shape) - CROP) // 4 * 4
        both = np.stack([image[tuple(slice(a, a + CROP) for a in start)] for image in pairs[row]])
        return np.flip(both, [axis for axis in (1, 2, 3) if rng.random() < 0.5]).astype(np.float32)

    for _ in range(steps):
        x, truth = torch.from_numpy(np.stack([crop() for _ in range(BATCH)])).split(1, dim=1)
        found = network(x)
        loss = (found - truth).abs().mean() + unlike(found, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def measured(method: Method, kind: str, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
    """SSIM in the brain, the same with the true outline, and PSNR: (3, N)."""
    rows = []
    for each in examples:
        scan, image = each.scan.data, method(each.coarse[kind], each.scan.grid)
        both = compare_images(np.stack([image, image * (scan > 0)]), np.stack([scan, scan]))
        rows.append((*both.ssim_brain, both.psnr[0]))
    return np.array(rows).T


def main() -> None:
    """Print a row for each test, kind of image and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--model", default="ldae-t1-3mm")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    model = ldae.from_pretrained(options.model, precision="fp32")
    pairs: list[tuple[Array, Array]] = []
    truth = pd.read_csv(options.phantoms / "phantom_truth.tsv", sep="\t").set_index("participant_id")["label_map"]
    known = sorted(set(truth))[: truth.nunique() // 2]
    phantoms = ldae.read_manifest(options.phantoms / "manifest.tsv").records
    training = [record for record in phantoms if truth[record.participant_id] in known]
    for index, record in enumerate(training):
        example = phantom_example(model, record, index % 3)
        scan = example.scan.data.astype(np.float16)
        pairs += [
            (interpolated(each, example.scan.grid, 3).astype(np.float16), scan) for each in example.coarse.values()
        ]
    methods: dict[str, Method] = {
        "trilinear": partial(interpolated, order=1),
        "cubic B-spline": partial(interpolated, order=3),
        "MONAI UpSample": monai_upsampled,
    }
    rivals = list(methods)
    for seed in options.seeds:
        started = time.perf_counter()
        torch.manual_seed(seed)
        methods[f"network, seed {seed}"] = partial(refined, train(Refinement(), pairs, options.steps, seed))
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s to train", flush=True)
    print("| scans | coarse image | method | SSIM | with the outline | PSNR | SSIM above the best interpolation |")
    print("|---|---|---|---|---|---|---|")
    tests: dict[str, list[Example]] = {}
    if options.heads:
        tests["heads"] = [head_example(record, options.labels) for record in ldae.read_manifest(options.heads).records]
    tests["phantoms"] = [phantom_example(model, record) for record in phantoms if record not in training]
    for name, examples in tests.items():
        for kind in examples[0].coarse:
            found = {method: measured(of, kind, examples) for method, of in methods.items()}
            best = max((found[method][0] for method in rivals), key=np.mean)
            for method, values in found.items():
                rows = [str(row) for row in range(len(best))]  # one scan a subject
                above = subject_bootstrap(mean_of(values[0] - best), rows)
                low, high = above.ends
                ssim, outline, psnr = values.mean(axis=1)
                row = f"{ssim:.3f} | {outline:.3f} | {psnr:.1f} | {above.value:+.3f} [{low:+.3f}, {high:+.3f}]"
                print(f"| {name} | {kind} | {method} | {row} |", flush=True)


if __name__ == "__main__":
    main()
