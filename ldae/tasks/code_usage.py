"""Diagnose: whether the semantic code is used, or has collapsed to something that says nothing of the scan."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.metrics.code_usage import (
    CodeSpread,
    CodeUse,
    ThreeWays,
    measure_spread,
    measure_use,
    paired_gap,
    strangers,
)
from ldae.metrics.images import compare_images
from ldae.metrics.statistics import Interval
from ldae.models.whitening import Whitening
from ldae.tasks.encode import EncodedScans, Progress

__all__ = ["DiagnoseResult", "ImageUse", "diagnose"]

LEVELS = 10
PICTURED = 32


@dataclass(frozen=True)
class ImageUse:
    """Agreement of images with the real scans, drawn from the same noise with the right code, somebody else's, and none.

    Attributes:
        scans: the first of each subject, up to a limit.
        steps: of the sampler.
        right: mean `ssim`, `ssim_brain`, `mse` and `psnr` with the scan's own code.
        shuffled: the same with the code of a scan of somebody else.
        none: the same without a code.
        gaps: by how much the own code does better than somebody else's in `ssim`, `ssim_brain` and `mse`, with intervals
            over subjects.
    """

    scans: int
    steps: int
    right: dict[str, float]
    shuffled: dict[str, float]
    none: dict[str, float]
    gaps: dict[str, Interval]


@dataclass(frozen=True)
class DiagnoseResult:
    """What the semantic code of a model carries.

    Attributes:
        scans: that were diagnosed.
        subjects: that they are of.
        timesteps: the L noise levels, ascending.
        snr: signal-to-noise ratio at each of them, L.
        unexplained: share of the latent's variance that is left open at each level with the `right` code, the `shuffled` one
            and `none`, L each.
        use: what of the error without a code is explained.
        spread: how codes spread over these scans, as they were learnt, before any whitening.
        images: what it comes to in images.
    """

    scans: int
    subjects: int
    timesteps: list[int]
    snr: list[float]
    unexplained: dict[str, list[float]]
    use: CodeUse
    spread: CodeSpread
    images: ImageUse


def diagnose(
    model: LatentDiffusionAutoencoder,
    scans: EncodedScans,
    *,
    seed: int = 0,
    levels: int = LEVELS,
    pictured: int = PICTURED,
    batch_size: int = 32,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> DiagnoseResult:
    """Compare the right code, shuffled codes and no code at fixed noise levels and in images; noise and shuffling are seeded.

    Args:
        model: the trained model.
        scans: that it has not been trained on, of two subjects or more; noise codes are not needed.
        seed: of noise, shuffling and resamples.
        levels: number of noise levels, evenly spaced over the schedule, its noisy end among them.
        pictured: at most so many scans are decoded, one a subject.
        batch_size: scans at a time.
        resamples: of the bootstrap.
        progress: told (done, total).

    Raises:
        TaskError: if all scans are of one subject.
    """
    schedule = model.networks.schedule
    timesteps = list(schedule.time_grid(levels)[1:])
    subjects = [record.participant_id for record in scans.records]
    partners = strangers(subjects, np.random.default_rng(seed))
    codes, latents = torch.stack([each.semantic for each in scans.codes]), torch.from_numpy(scans.latents)
    others = codes[torch.from_numpy(partners)]
    generator = torch.Generator().manual_seed(seed)
    errors = torch.empty(3, len(scans), levels)
    for level, t in enumerate(timesteps):
        noise = model.draw_noise(len(scans), generator)
        for start in range(0, len(scans), batch_size):
            rows = slice(start, start + batch_size)
            semantics = (codes[rows], others[rows], None)
            errors[:, rows, level] = model.velocity_errors(latents[rows], noise[rows], t, semantics)
        if progress is not None:
            progress(level + 1, levels + 1)
    three = ThreeWays(*errors.numpy().astype(np.float64))
    at = torch.tensor(timesteps, device=schedule.sigma.device)
    # The error of the clean latent is sigma times that of the velocity.
    scale = schedule.sigma[at].double().square().cpu().numpy() / _variance(scans.latents)
    result = DiagnoseResult(
        scans=len(scans),
        subjects=len(set(subjects)),
        timesteps=timesteps,
        snr=[float(value) for value in schedule.snr(at).cpu()],
        unexplained={
            name: (scale * getattr(three, name).mean(axis=0)).tolist() for name in ThreeWays.__dataclass_fields__
        },
        use=measure_use(three, subjects, seed=seed, resamples=resamples),
        spread=measure_spread(_as_learnt(model, codes), subjects),
        images=_compare_images(model, scans.select(scans.first_rows[:pictured]), seed, batch_size, resamples),
    )
    if progress is not None:
        progress(levels + 1, levels + 1)
    return result


def _compare_images(
    model: LatentDiffusionAutoencoder, scans: EncodedScans, seed: int, batch_size: int, resamples: int
) -> ImageUse:
    subjects = [record.participant_id for record in scans.records]
    codes = torch.stack([each.semantic for each in scans.codes])
    others = codes[torch.from_numpy(strangers(subjects, np.random.default_rng(seed)))]
    noise = model.draw_noise(len(scans), torch.Generator().manual_seed(seed))

    def drawn(semantic: Tensor | None) -> npt.NDArray[np.float32]:
        parts = [slice(start, start + batch_size) for start in range(0, len(scans), batch_size)]
        return np.concatenate(
            [model.generate(noise[rows], None if semantic is None else semantic[rows]) for rows in parts]
        )

    right, shuffled, none = (compare_images(drawn(each), scans.images) for each in (codes, others, None))
    return ImageUse(
        scans=len(scans),
        steps=model.config.sampling.steps,
        right=right.mean(),
        shuffled=shuffled.mean(),
        none=none.mean(),
        gaps={
            name: paired_gap(better, worse, subjects, seed=seed, resamples=resamples)
            for name, better, worse in (
                ("ssim", right.ssim, shuffled.ssim),
                ("ssim_brain", right.ssim_brain, shuffled.ssim_brain),
                ("mse", shuffled.mse, right.mse),
            )
        },
    )


def _variance(latents: npt.NDArray[np.float32]) -> float:
    """Of a latent's elements about their channel's mean, over scans and voxels."""
    return float(latents.astype(np.float64).var(axis=(0, 2, 3, 4)).mean())


def _as_learnt(model: LatentDiffusionAutoencoder, codes: Tensor) -> npt.NDArray[np.float64]:
    """Codes before they were whitened, which hides a collapse; the same where they are not."""
    whitening = model.networks.semantic_encoder.whitening
    return np.asarray((whitening.undo(codes) if isinstance(whitening, Whitening) else codes).double().numpy())
