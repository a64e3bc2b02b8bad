"""Reconstruct: how much of a scan its codes keep, beside the ceiling that compression sets."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_json
from ldae.io.bids import bids_path
from ldae.metrics.images import ImageAgreement, compare_images
from ldae.metrics.statistics import Interval, mean_of, subject_bootstrap
from ldae.tasks.encoded_scans import EncodedScans, Progress
from ldae.tasks.native.spaces import Space
from ldae.tasks.shown_images import save_images

__all__ = ["ReconstructResult", "ReconstructedBatch", "reconstruct", "save_shown", "write_reconstructions"]

Images = npt.NDArray[np.float32]
SHOWN = 3


@dataclass(frozen=True, eq=False)
class ReconstructedBatch:
    """A batch of scans with their reconstructions, each (B, D, H, W) in [0, 1].

    Attributes:
        scans: the batch.
        original: the real scans.
        both: from semantic and noise code.
        semantic_only: from the semantic code and drawn noise.
        semantic_mean: what the semantic code leads one to expect, in one step.
        compression: through the compression autoencoder alone, the ceiling.
        missed: mean squared error of each latent after inversion and sampling, (B,), relative to its variance.
    """

    scans: EncodedScans
    original: Images
    both: Images
    semantic_only: Images
    semantic_mean: Images
    compression: Images
    missed: Images


@dataclass(frozen=True)
class ReconstructResult:
    """Means over scans, against the real scans.

    Attributes:
        steps: of the sampler.
        solver: in words.
        scans: number of them.
        both: metrics from both codes.
        semantic_only: metrics from the semantic code alone, with drawn noise.
        semantic_mean: metrics of the expected scan of the semantic code alone. A draw has the same error and that of the
            draw's own variance on top.
        compression: metrics of the ceiling.
        mean_image: metrics of the training split's mean image, if it is given: the score without any code.
        round_trip_rms: error in the latent after inversion and sampling, rms over latent elements in units of its std.
        per_scan: SSIM from both codes by scan.
        intervals: SSIM with 95 % intervals over subjects: from both codes (`ssim`), from the semantic code alone
            (`ssim_semantic_only`) and its expected scan (`ssim_semantic_mean`), of both codes below the ceiling
            (`below_ceiling`), and, with a mean image, of the semantic code alone above it (`above_mean_image`,
            `expected_above_mean_image`).
    """

    steps: int
    solver: str
    scans: int
    both: dict[str, float]
    semantic_only: dict[str, float]
    semantic_mean: dict[str, float]
    compression: dict[str, float]
    mean_image: dict[str, float] | None
    round_trip_rms: float
    per_scan: dict[str, float]
    intervals: dict[str, Interval]

    def write(self, folder: Path, **facts: Any) -> Path:
        """Write reconstruct.json."""
        return write_json(folder / "reconstruct.json", asdict(self) | facts)

    def summary(self) -> dict[str, Any]:
        """Metrics for the results of a run, as plain values."""
        of = {
            "": self.both,
            "_semantic_only": self.semantic_only,
            "_semantic_mean": self.semantic_mean,
            "_mean_image": self.mean_image,
        }
        return {
            "steps": self.steps,
            "solver": self.solver,
            "ssim_brain": self.both["ssim_brain"],
            **{
                f"{name}{kind}": None if each is None else each[name]
                for kind, each in of.items()
                for name in ("ssim", "mse")
            },
            "round_trip_rms": self.round_trip_rms,
            "intervals": {name: asdict(each) for name, each in self.intervals.items()},
        }


def reconstruct(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    *,
    mean_image: Images | None = None,
    seed: int = 0,
    batch_size: int = 16,
    visit: Callable[[ReconstructedBatch], None] = lambda batch: None,
    progress: Progress = lambda done, total: None,
) -> ReconstructResult:
    """Decode scans from both codes, from y alone and through compression, and compare with the real scans.

    Args:
        model: the trained model.
        scans: encoded with noise codes.
        mean_image: voxelwise mean of the training split, (D, H, W).
        seed: of the drawn noise and of the resamples of the intervals.
        batch_size: scans at a time.
        visit: called with each batch of images.
        progress: called with (done, total).
    """
    kinds = ("both", "semantic_only", "semantic_mean", "compression")
    parts: dict[str, list[ImageAgreement]] = {name: [] for name in (*kinds, "mean_image")}
    missed: list[Images] = []
    done = 0
    for batch in _decoded(model, scans, seed, batch_size):
        for name in kinds:
            parts[name].append(compare_images(getattr(batch, name), batch.original))
        if mean_image is not None:
            blank = np.broadcast_to(mean_image, batch.original.shape)
            parts["mean_image"].append(compare_images(blank, batch.original))
        missed.append(batch.missed)
        visit(batch)
        done += len(batch.scans)
        progress(done, len(scans))
    agreement = {name: ImageAgreement.concatenate(each) for name, each in parts.items() if each}
    ssim = {name: each.ssim for name, each in agreement.items()}
    tested = {
        "ssim": ssim["both"],
        "ssim_semantic_only": ssim["semantic_only"],
        "ssim_semantic_mean": ssim["semantic_mean"],
        "below_ceiling": ssim["compression"] - ssim["both"],
    }
    if mean_image is not None:
        tested["above_mean_image"] = ssim["semantic_only"] - ssim["mean_image"]
        tested["expected_above_mean_image"] = ssim["semantic_mean"] - ssim["mean_image"]
    intervals = {name: subject_bootstrap(mean_of(values), scans.subjects, seed=seed) for name, values in tested.items()}
    return ReconstructResult(
        steps=model.config.sampling.steps,
        solver=str(model.config.sampling),
        scans=len(scans),
        both=agreement["both"].mean(),
        semantic_only=agreement["semantic_only"].mean(),
        semantic_mean=agreement["semantic_mean"].mean(),
        compression=agreement["compression"].mean(),
        mean_image=agreement["mean_image"].mean() if mean_image is not None else None,
        round_trip_rms=float(np.sqrt(np.mean(np.concatenate(missed)))),
        per_scan={record.key: float(value) for record, value in zip(scans.records, ssim["both"], strict=True)},
        intervals=intervals,
    )


def _decoded(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, seed: int, batch_size: int, shown: list[int] | None = None
) -> Iterator[ReconstructedBatch]:
    """All scans, or the shown ones alone, under the same noise."""
    generator = torch.Generator().manual_seed(seed)
    start = 0
    for batch in scans.batches(batch_size):
        noise = model.draw_noise(len(batch), generator)
        rows = [row - start for row in (range(start, start + len(batch)) if shown is None else shown)]
        rows = [row for row in rows if 0 <= row < len(batch)]
        start += len(batch)
        if rows:
            some = batch.select(rows)
            semantic = torch.stack([codes.semantic for codes in some.codes])
            latents, sampled = some.latents(), model.latents_of(some.codes)
            yield ReconstructedBatch(
                some,
                some.images(),
                model.decompress(sampled),
                model.generate(noise[rows], semantic),
                model.decompress(model.expected_latents(noise[rows], semantic)),
                model.decompress(latents),
                (sampled - latents).square().flatten(1).mean(dim=1).numpy(),
            )


def save_shown(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    result: ReconstructResult,
    path: Path,
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> list[str]:
    """Write the images of two typical scans and of the worst one as NPZ, and return their keys.

    Args:
        model: the trained model.
        scans: that the result is of.
        result: of :func:`reconstruct`.
        path: of the file.
        seed: that the result was made with.
        batch_size: that the result was made with.
    """
    order = sorted(range(len(scans)), key=lambda row: result.per_scan[scans.records[row].key])
    chosen = [*order[len(order) // 2 :][: SHOWN - 1], order[0]]
    names = [each.name for each in fields(ReconstructedBatch) if each.name not in ("scans", "missed")]
    found: dict[str, dict[str, Images]] = {}
    for batch in _decoded(model, scans, seed, batch_size, chosen):
        for index, record in enumerate(batch.scans.records):
            found[record.key] = {name: getattr(batch, name)[index] for name in names}
    keys = [scans.records[row].key for row in chosen]
    save_images(path, **{name: np.stack([found[key][name] for key in keys]) for name in names})
    return keys


def write_reconstructions(
    batch: ReconstructedBatch, out: Path, space: Space, *, keep_detail: bool = False
) -> list[Path]:
    """Write the images from both codes as NIfTI, BIDS-named, marked as synthetic.

    Args:
        batch: of reconstructions.
        out: folder.
        space: template or native.
        keep_detail: in native space, keep the raw scan's own detail and add what the codes change; without it the brain
            shows only what the codes hold.
    """
    modality = batch.scans.source.model.config.preprocessing.modality
    return [
        space.scan(record, codes)
        .reconstruction(image, scan, keep_detail=keep_detail)
        .write(
            bids_path(out, record.stem, f"_space-{space.label}_desc-reconstruction_{modality}.nii.gz"),
            "reconstruction",
            keep_detail=keep_detail,
        )
        for image, scan, codes, record in zip(
            batch.both, batch.original, batch.scans.codes, batch.scans.records, strict=True
        )
    ]
