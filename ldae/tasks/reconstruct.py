"""Reconstruct: how much of a scan its codes keep, beside the ceiling that compression sets."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.metrics.images import ImageAgreement, compare_images
from ldae.metrics.statistics import Interval, subject_bootstrap
from ldae.tasks.encode import EncodedScans
from ldae.tasks.native.spaces import Space

__all__ = ["ReconstructResult", "Reconstructions", "evaluate_reconstruction", "reconstruct", "write_reconstructions"]

Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reconstructions:
    """Images of the same scans, each (N, D, H, W) in [0, 1].

    Attributes:
        both: from semantic and noise code.
        semantic_only: from the semantic code and drawn noise.
        compression: through the compression autoencoder alone, the ceiling.
    """

    both: Images
    semantic_only: Images
    compression: Images


@dataclass(frozen=True)
class ReconstructResult:
    """Means over scans, against the real scans.

    Attributes:
        steps: of the sampler.
        solver: in words.
        scans: number of them.
        both: metrics from both codes.
        semantic_only: metrics from the semantic code alone.
        compression: metrics of the ceiling.
        mean_image: metrics of the training split's mean image, if it is given; what knowing nothing scores.
        round_trip_rms: error in the latent after inversion and sampling, rms over latent elements in units of its std.
        per_scan: SSIM from both codes by scan.
        intervals: SSIM with 95 % intervals over subjects: from both codes (`ssim`), from the semantic code alone
            (`ssim_semantic_only`), what both codes are below the ceiling (`below_ceiling`), and, with a mean image, what the
            semantic code alone is above it (`above_mean_image`).
    """

    steps: int
    solver: str
    scans: int
    both: dict[str, float]
    semantic_only: dict[str, float]
    compression: dict[str, float]
    mean_image: dict[str, float] | None
    round_trip_rms: float
    per_scan: dict[str, float]
    intervals: dict[str, Interval]


def reconstruct(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, *, seed: int = 0, batch_size: int = 32
) -> Reconstructions:
    """Decode scans from both codes, from y alone, and through compression.

    Args:
        model: the trained model.
        scans: encoded with noise codes.
        seed: of the drawn noise.
        batch_size: scans at a time.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Images]] = {"both": [], "semantic_only": [], "compression": []}
    for start in range(0, len(scans), batch_size):
        batch = scans.select(range(start, min(start + batch_size, len(scans))))
        semantic = torch.stack([codes.semantic for codes in batch.codes])
        parts["both"].append(model.decode_images(batch.codes))
        parts["semantic_only"].append(model.generate(model.draw_noise(len(batch), generator), semantic))
        parts["compression"].append(model.decompress(torch.from_numpy(batch.latents)))
    return Reconstructions(**{name: np.concatenate(images) for name, images in parts.items()})


def evaluate_reconstruction(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    images: Reconstructions,
    *,
    mean_image: Images | None = None,
    seed: int = 0,
) -> ReconstructResult:
    """Compare reconstructions with the real scans.

    Args:
        model: the trained model.
        scans: the real scans.
        images: their reconstructions.
        mean_image: voxelwise mean of the training split, (D, H, W).
        seed: of the resamples of the intervals.
    """
    agreement: dict[str, ImageAgreement] = {
        name: compare_images(getattr(images, name), scans.images) for name in images.__dataclass_fields__
    }
    both, alone = agreement["both"].ssim, agreement["semantic_only"].ssim
    asked = {
        "ssim": both,
        "ssim_semantic_only": alone,
        "below_ceiling": agreement["compression"].ssim - both,
    }
    blank = None
    if mean_image is not None:
        of_mean = compare_images(np.broadcast_to(mean_image, scans.images.shape), scans.images)
        asked["above_mean_image"] = alone - of_mean.ssim
        blank = of_mean.mean()
    subjects = [record.participant_id for record in scans.records]
    intervals = {
        name: subject_bootstrap(
            lambda rows, values=values: float(values[rows].mean()),  # type: ignore[misc]
            subjects,
            generator=np.random.default_rng(seed),
        )
        for name, values in asked.items()
    }
    round_trips = [codes.round_trip for codes in scans.codes if codes.round_trip is not None]
    return ReconstructResult(
        steps=model.config.sampling.steps,
        solver=str(model.config.sampling),
        scans=len(scans),
        both=agreement["both"].mean(),
        semantic_only=agreement["semantic_only"].mean(),
        compression=agreement["compression"].mean(),
        mean_image=blank,
        round_trip_rms=float(np.sqrt(np.mean(np.square(round_trips)))),
        per_scan={record.key: float(value) for record, value in zip(scans.records, both, strict=True)},
        intervals=intervals,
    )


def write_reconstructions(
    scans: EncodedScans, images: Images, out: Path, space: Space, *, keep_detail: bool = False
) -> list[Path]:
    """Write images of scans as NIfTI, BIDS-named, marked as synthetic.

    Args:
        scans: that the images reconstruct.
        images: (N, D, H, W) in [0, 1].
        out: folder.
        space: template or native.
        keep_detail: in native space, keep the raw scan's own detail and change it by what the codes miss, instead of showing
            nothing but what they hold.
    """
    return [
        space.scan(record, codes)
        .reconstruction(image, scan, keep_detail=keep_detail)
        .write(
            out / f"{record.key}_space-{space.label}_desc-reconstruction_T1w.nii.gz",
            "reconstruction",
            keep_detail=keep_detail,
        )
        for image, scan, codes, record in zip(images, scans.images, scans.codes, scans.records, strict=True)
    ]
