"""Code usage: whether the decoder uses the semantic code, or the code has collapsed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_json
from ldae.metrics.code_usage import (
    CodeSpread,
    CodeUse,
    ThreeWays,
    measure_spread,
    measure_use,
    step_variation,
    strangers,
)
from ldae.metrics.images import ImageAgreement, compare_images
from ldae.metrics.statistics import Interval, mean_of, subject_bootstrap
from ldae.models.whitening import Whitening
from ldae.tasks.encoded_scans import EncodedScans, Progress

__all__ = ["CodeUsageResult", "ImageUse", "code_usage"]

LEVELS = 10
PICTURED = 32
LINES, POINTS = 8, 11
"""Lines between the codes of two subjects, and evenly spaced codes that are decoded on each."""


@dataclass(frozen=True)
class ImageUse:
    """Agreement with the real scans of images drawn from the same noise with the own code, another subject's, and none.

    Attributes:
        scans: the first of each subject, up to a limit.
        steps: of the sampler.
        right: mean `ssim`, `ssim_brain`, `mse` and `psnr` with the scan's own code.
        shuffled: the same with the code of another subject's scan.
        none: the same without a code.
        gaps: advantage of the own code over another subject's in `ssim`, `ssim_brain` and `mse`, with intervals over subjects.
        step_variation: on lines between the codes of two subjects, mean of some; 0 where images change evenly.
    """

    scans: int
    steps: int
    right: dict[str, float]
    shuffled: dict[str, float]
    none: dict[str, float]
    gaps: dict[str, Interval]
    step_variation: float


@dataclass(frozen=True)
class CodeUsageResult:
    """Information that the semantic code of a model carries.

    Attributes:
        scans: number of scans.
        subjects: number of subjects.
        timesteps: the L noise levels, ascending.
        snr: signal-to-noise ratio at each of them, L.
        unexplained: share of the latent's variance left unexplained at each level with the `right` code, the `shuffled` one
            and `none`, L each.
        use: share of the error without a code that the code explains.
        spread: of the codes over these scans, as they were learnt, before any whitening.
        images: the same comparison in images.
    """

    scans: int
    subjects: int
    timesteps: list[int]
    snr: list[float]
    unexplained: dict[str, list[float]]
    use: CodeUse
    spread: CodeSpread
    images: ImageUse

    def write(self, folder: Path) -> Path:
        """Write code_usage.json."""
        return write_json(folder / "code_usage.json", asdict(self))

    def summary(self) -> dict[str, Any]:
        """Metrics for the results of a run, as plain values."""
        return {
            "verdict": self.use.verdict,
            **{name: asdict(getattr(self.use, name)) for name in ("share", "shuffled_share", "gap")},
            **asdict(self.spread),
            **{
                metric: {name: getattr(self.images, name)[metric] for name in ("right", "shuffled", "none")}
                for metric in ("ssim", "ssim_brain", "mse")
            },
            "step_variation": self.images.step_variation,
            "image_gaps": {name: asdict(gap) for name, gap in self.images.gaps.items()},
        }


def code_usage(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    *,
    seed: int = 0,
    levels: int = LEVELS,
    pictured: int = PICTURED,
    batch_size: int = 16,
    resamples: int = 1000,
    progress: Progress = lambda done, total: None,
) -> CodeUsageResult:
    """Compare the own code, shuffled codes and no code at fixed noise levels and in images; noise and shuffling are seeded.

    Args:
        model: the trained model.
        scans: that it has not been trained on, of two subjects or more; noise codes are not needed.
        seed: of noise, shuffling and resamples.
        levels: number of noise levels, evenly spaced over the schedule, its noisy end among them.
        pictured: most scans that are decoded, one a subject.
        batch_size: scans at a time.
        resamples: of the bootstrap.
        progress: called with (done, total).

    Raises:
        TaskError: if all scans are of one subject.
    """
    schedule = model.networks.schedule
    timesteps = list(schedule.time_grid(levels)[1:])
    partners = strangers(scans.subjects, np.random.default_rng(seed))
    codes = torch.stack([each.semantic for each in scans.codes])
    errors, variance = _errors(
        model, scans, codes, codes[torch.from_numpy(partners)], timesteps, seed, batch_size, progress
    )
    at = torch.tensor(timesteps, device=schedule.sigma.device)
    # The error of the clean latent is sigma times that of the velocity.
    scale = schedule.sigma[at].double().square().cpu().numpy() / variance
    return CodeUsageResult(
        scans=len(scans),
        subjects=len(set(scans.subjects)),
        timesteps=timesteps,
        snr=[float(value) for value in schedule.snr(at).cpu()],
        unexplained={
            name: (scale * getattr(errors, name).mean(axis=0)).tolist() for name in ThreeWays.__dataclass_fields__
        },
        use=measure_use(errors, scans.subjects, seed=seed, resamples=resamples),
        spread=measure_spread(_as_learnt(model, codes), scans.subjects),
        images=_compare_images(model, scans.select(scans.first_rows[:pictured]), seed, batch_size, resamples),
    )


def _errors(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    codes: Tensor,
    others: Tensor,
    timesteps: Sequence[int],
    seed: int,
    batch_size: int,
    progress: Progress,
) -> tuple[ThreeWays, float]:
    """Squared errors of the velocity, (N, L), and the variance of latent elements about their channel's mean."""
    errors = torch.empty(3, len(scans), len(timesteps))
    sums, elements = torch.zeros(2, 1, dtype=torch.float64), 0
    # Noise is drawn level by level, so that the batch size changes nothing.
    generators = []
    drawn = torch.Generator().manual_seed(seed)
    for _ in timesteps:
        generators.append(torch.Generator().set_state(drawn.get_state()))
        for batch in scans.batches(batch_size):
            model.draw_noise(len(batch), drawn)
    start = 0
    for batch in scans.batches(batch_size):
        rows = slice(start, start + len(batch))
        latents = batch.latents()
        for level, (t, generator) in enumerate(zip(timesteps, generators, strict=True)):
            noise = model.draw_noise(len(batch), generator)
            errors[:, rows, level] = model.velocity_errors(latents, noise, t, (codes[rows], others[rows], None))
        values = latents.double().transpose(0, 1).flatten(1)
        sums = sums + torch.stack([values.sum(dim=1), values.square().sum(dim=1)])
        elements += values.shape[1]
        start += len(batch)
        progress(start, len(scans))
    mean, square = sums / elements
    return ThreeWays(*errors.numpy().astype(np.float64)), float((square - mean.square()).mean())


def _compare_images(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, seed: int, batch_size: int, resamples: int
) -> ImageUse:
    codes = torch.stack([each.semantic for each in scans.codes])
    others = codes[torch.from_numpy(strangers(scans.subjects, np.random.default_rng(seed)))]
    noise = model.draw_noise(len(scans), torch.Generator().manual_seed(seed))
    parts: list[list[ImageAgreement]] = []
    start = 0
    for batch in scans.batches(batch_size):
        rows, images = slice(start, start + len(batch)), batch.images()
        drawn = [model.generate(noise[rows], semantic) for semantic in (codes[rows], others[rows], None)]
        parts.append([compare_images(each, images) for each in drawn])
        start += len(batch)
    right, shuffled, none = (ImageAgreement.concatenate(each) for each in zip(*parts, strict=True))
    shares = torch.linspace(0, 1, POINTS)
    lines = [
        model.generate(
            noise[row].expand(POINTS, *noise.shape[1:]), torch.lerp(codes[row], others[row], shares[:, None])
        )
        for row in range(min(LINES, len(scans)))
    ]
    return ImageUse(
        scans=len(scans),
        steps=model.config.sampling.steps,
        right=right.mean(),
        shuffled=shuffled.mean(),
        none=none.mean(),
        gaps={
            name: subject_bootstrap(mean_of(better - worse), scans.subjects, seed=seed, resamples=resamples)
            for name, better, worse in (
                ("ssim", right.ssim, shuffled.ssim),
                ("ssim_brain", right.ssim_brain, shuffled.ssim_brain),
                ("mse", shuffled.mse, right.mse),
            )
        },
        step_variation=float(np.mean([step_variation(images) for images in lines])),
    )


def _as_learnt(model: LatentDiffusionAutoencoder, codes: Tensor) -> npt.NDArray[np.float64]:
    """Codes before they were whitened, which hides a collapse."""
    whitening = model.networks.semantic_encoder.whitening
    return np.asarray((whitening.undo(codes) if isinstance(whitening, Whitening) else codes).double().numpy())
