"""Sample: images from drawn noise codes, under a semantic code or under none, and a comparison with real scans."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.part import Part
from ldae.base.ranges import Range, check_range
from ldae.errors import TaskError
from ldae.metrics.samples import coverage, kernel_distance, novelty
from ldae.tasks.encoded_scans import EncodedScans, Progress
from ldae.tasks.probe.baselines import SimpleFeatures

__all__ = ["Judged", "compare_samples", "sample"]

Array = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]
BATCH, DRAWN = 16, 120
FEW_SCANS = 5


def sample(
    model: LatentDiffusionAutoencoder,
    count: int,
    *,
    seed: int,
    semantic: torch.Tensor | None = None,
    batch_size: int = 16,
    part: Part | None = None,
) -> Iterator[npt.NDArray[np.float32]]:
    """Images one by one, each (D, H, W) in [0, 1]; the same seed gives the same images whatever the batch size.

    Args:
        model: the trained model.
        count: number of images.
        seed: of the noise codes.
        semantic: y, (S,), shared by all images: variations of one scan. None samples the denoiser alone.
        batch_size: images at a time.
        part: whose batches alone are drawn.

    Raises:
        TaskError: if the count is not positive.
    """
    if count < 1:
        msg = f"the number of samples must be at least 1, got {count}"
        raise TaskError(msg)
    check_range("batch_size", batch_size, Range(1))
    generator = torch.Generator().manual_seed(seed)
    batches = range(0, count, batch_size)
    chosen = batches if part is None else part.choose(batches)
    noises = (
        torch.cat([model.draw_noise(1, generator) for _ in range(min(batch_size, count - start))]) for start in batches
    )
    return (
        image
        for start, noise in zip(batches, noises, strict=True)
        if start in chosen
        for image in model.generate(noise, None if semantic is None else semantic.expand(len(noise), -1))
    )


@dataclass(frozen=True)
class Judged:
    """Images of one kind against the test scans, by mean tissue in blocks of 40 mm, which no network computes.

    Attributes:
        kernel_distance: squared maximum mean discrepancy; 0 for the same distribution.
        coverage: share of test scans with such an image in their neighbourhood.
        novelty: distance to the nearest training scan relative to that of the test scans; 0 for copies.
    """

    kernel_distance: float
    coverage: float
    novelty: float


def compare_samples(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    blocks: SimpleFeatures,
    *,
    seed: int = 0,
    most: int = DRAWN,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Samples against the first scan of each test subject, beside what needs no diffusion.

    `samples` are unconditional; `samples_of_codes` have each a code drawn from a normal distribution with the mean and
    covariance of the training codes. The rivals are `mean_image`, the mean training latent, and `gaussian`, latents whose
    elements are drawn independently of one another with their means and spreads over the training scans. `compressed` are
    training scans through the compression alone, the best that any sampler of latents can do, and `training_scans` are real.

    Args:
        model: the trained model.
        scans: encoded, of training and test subjects.
        blocks: that saw them all while they were encoded.
        seed: of everything drawn.
        most: images of each kind, at most; fewer where fewer subjects are of a split.
        progress: called with (done, total), of all images.

    Returns:
        `count`, and each kind's :class:`Judged` as plain values.

    Raises:
        TaskError: for fewer than five subjects of a split.
    """
    first = {
        split: np.array([row for row in scans.first_rows if scans.records[row].split == split], dtype=int)
        for split in ("train", "test")
    }
    if min(map(len, first.values())) < FEW_SCANS:
        counts = ", ".join(f"{len(rows)} {split}" for split, rows in first.items())
        msg = f"samples are compared with {FEW_SCANS} subjects of each split at least, got {counts}; give more"
        raise TaskError(msg)
    features = blocks.embeddings()["tissue_blocks"].values
    count = min(most, *map(len, first.values()))
    training, real = features[first["train"]], features[first["test"]][:count]
    some = np.linspace(0, len(training) - 1, count).astype(int)
    known = scans.of_split("train")
    mean, spread = _element_statistics(known)
    noise = model.draw_noise(count, torch.Generator().manual_seed(seed))
    y = known.semantic
    drawn = np.random.default_rng(seed).multivariate_normal(y.mean(axis=0), np.cov(y.T), count)
    codes = torch.from_numpy(drawn).float()
    kinds: dict[str, Callable[[Tensor], Images]] = {
        "samples": lambda rows: model.generate(noise[rows], None),
        "samples_of_codes": lambda rows: model.generate(noise[rows], codes[rows]),
        "gaussian": lambda rows: model.decompress(mean + spread * noise[rows]),
        "mean_image": lambda rows: model.decompress(mean.expand(len(rows), *mean.shape)),
        "compressed": lambda rows: model.decompress(scans.select(first["train"][some[rows]].tolist()).latents()),
    }
    batches = torch.split(torch.arange(count), BATCH)
    of: dict[str, Array] = {}
    for name, make in kinds.items():
        parts: list[Tensor] = []
        for rows in batches:
            parts.append(blocks.tissue_blocks(make(rows)))
            progress(len(of) * count + int(rows[-1]) + 1, len(kinds) * count)
        of[name] = torch.cat(parts).numpy().astype(np.float64)
    of["training_scans"] = training[some]
    centre, scale = training.mean(axis=0), training.std(axis=0).clip(1e-6)
    training, real = ((each - centre) / scale for each in (training, real))
    found: dict[str, Any] = {"count": count}
    for name, values in of.items():
        each = (values - centre) / scale
        judged = Judged(kernel_distance(each, real), coverage(real, each), novelty(each, training, real))
        # Training scans are their own nearest.
        found[name] = asdict(judged) | ({"novelty": None} if name in ("compressed", "training_scans") else {})
    return found


def _element_statistics(scans: EncodedScans, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent element, (C, d, h, w)."""
    total = squares = torch.zeros((), dtype=torch.float64)
    for batch in scans.batches(batch_size):
        latents = batch.latents().double()
        total, squares = total + latents.sum(dim=0), squares + latents.square().sum(dim=0)
    mean = total / len(scans)
    return mean.float(), (squares / len(scans) - mean.square()).clamp_min(0).sqrt().float()
