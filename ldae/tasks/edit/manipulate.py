"""Manipulate: move a scan's semantic code along a probe's direction, and see what the edited image says."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes
from ldae.errors import TaskError
from ldae.metrics.volumetry import measure_volumes
from ldae.tasks.edit.direction import manipulate_codes, project_out
from ldae.tasks.probe.linear import LinearProbe

__all__ = [
    "DriftWarning",
    "Edits",
    "ManipulateResult",
    "manipulate",
    "ready_step",
    "summarise_edits",
]

Images = npt.NDArray[np.float32]
# About a fifth of what one standard deviation along a probe's direction changes in a latent of the demo's model.
DRIFT = 0.02
DEFAULT_STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


class DriftWarning(UserWarning):
    """Codes that do not bring their scans back well enough to be edited."""


@dataclass(frozen=True)
class Edits:
    """Edited scans of one subject.

    Attributes:
        steps: signed, in standard deviations of the training cohort along the direction.
        images: (K, D, H, W) in [0, 1].
        semantic: y of the re-encoded images, (K, S).
        predicted: the probe on the re-encoded images: probability or years, (K,).
        volumes: measured in each image in ml, by structure; None where the image does not show it.
    """

    steps: tuple[float, ...]
    images: Images
    semantic: npt.NDArray[np.float64]
    predicted: list[float]
    volumes: dict[str, list[float | None]]


@dataclass(frozen=True)
class ManipulateResult:
    """Means over scans.

    Attributes:
        steps: signed, in standard deviations of the training cohort along the direction.
        predicted: mean of the probe on the re-encoded edited images, at each step.
        volume_change_ml: mean change of each measured volume against step 0, at each step; None where no image shows it.
        scans: number of them.
    """

    steps: list[float]
    predicted: list[float]
    volume_change_ml: dict[str, list[float | None]]
    scans: int

    @property
    def monotone(self) -> bool:
        """Whether the mean prediction rises with every step."""
        return all(low < high for low, high in zip(self.predicted, self.predicted[1:], strict=False))


def manipulate(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    probe: LinearProbe,
    *,
    steps: Sequence[float] = DEFAULT_STEPS,
    nuisances: Sequence[LinearProbe] = (),
    step: npt.NDArray[np.float64] | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[Edits]:
    """Edit scans.

    Step 0 is decoded by itself, as :meth:`LatentDiffusionAutoencoder.decode` does it, so that it is the reconstruction bit
    for bit: batches of other sizes may round otherwise.

    Args:
        model: the trained model.
        codes: of the scans, with noise codes.
        probe: whose direction is followed; positive steps raise it.
        steps: signed, in standard deviations of the training cohort along the direction.
        nuisances: probes whose value must not move, in codes (:func:`~ldae.tasks.edit.direction.project_out`).
        step: change of y that one step makes; the probe's, less the nuisances', if it is not given.
        batch_size: images at a time.
        progress: told (done, total) scans.

    Raises:
        TaskError: if the probe was fitted on codes of another width.
    """
    step = ready_step(codes, probe, nuisances, step)
    edits: list[Edits] = []
    chunk = max(1, batch_size // max(1, len(steps)))
    for start in range(0, len(codes), chunk):
        scans = codes[start : start + chunk]
        moved = [manipulate_codes(each, step, amount) for each in scans for amount in steps if amount != 0]
        edited = iter(model.decode_images(moved)) if moved else iter(())
        for each in scans:
            images = np.stack([next(edited) if amount != 0 else model.decode_images([each])[0] for amount in steps])
            edits.append(_describe(model, images, probe, steps))
        if progress is not None:
            progress(len(edits), len(codes))
    return edits


def ready_step(
    codes: Sequence[Codes],
    probe: LinearProbe,
    nuisances: Sequence[LinearProbe],
    step: npt.NDArray[np.float64] | None,
) -> npt.NDArray[np.float64]:
    """The change of y that one step of an edit makes, once it is known that these codes can be edited by this probe.

    Args:
        codes: that are to be edited; a warning tells if they drift.
        probe: whose direction is followed.
        nuisances: probes whose value must not move, in codes.
        step: given instead of the probe's, less the nuisances'.

    Raises:
        TaskError: if the probe was fitted on codes of another width.
    """
    for each in codes[:1]:
        if probe.weights.shape[0] != each.semantic.shape[0]:
            msg = (
                f"the probe was fitted on {probe.weights.shape[0]} features, the codes have {each.semantic.shape[0]}; "
                "fit a probe on this model's codes"
            )
            raise TaskError(msg)
    warn_of_drift(codes)
    return project_out(probe, nuisances) if step is None else step


def warn_of_drift(codes: Sequence[Codes]) -> None:
    """Warn if codes do not come back to their scans: what then looks like an edit is partly the solver's error."""
    drifted = [each.round_trip for each in codes if each.round_trip is not None and each.round_trip > DRIFT]
    if drifted:
        warnings.warn(
            f"{len(drifted)} of {len(codes)} codes come back to their latents only within {max(drifted):.2g} of their standard "
            f"deviation ({codes[0].solver}), more than {DRIFT:g}: differences from the real scan are not all of the edit; "
            "encode with the solver bdia, or with more steps",
            DriftWarning,
            stacklevel=4,
        )


def _describe(model: LatentDiffusionAutoencoder, images: Images, probe: LinearProbe, steps: Sequence[float]) -> Edits:
    """What the probe and the volumes say of the edited images of one scan."""
    semantic = model.semantic(torch.from_numpy(images)[:, None]).double().numpy()
    measured = [measure_volumes(model.config.preprocessing.restore(image)) for image in images]
    return Edits(
        steps=tuple(float(amount) for amount in steps),
        images=images,
        semantic=semantic,
        predicted=probe.predict(semantic).tolist(),
        volumes={
            name: [volumes[name] if np.isfinite(volumes[name]) else None for volumes in measured]
            for name in measured[0]
        },
    )


def summarise_edits(edits: Sequence[Edits]) -> ManipulateResult:
    """Means over scans edited by the same steps, which include 0.

    Raises:
        TaskError: if there are none, or step 0 is missing.
    """
    if not edits or 0.0 not in edits[0].steps:
        msg = (
            "edits of at least one scan with step 0 among the steps are needed, because changes are measured against it"
        )
        raise TaskError(msg)
    zero = edits[0].steps.index(0.0)

    def change(name: str) -> list[float | None]:
        """Mean over the scans whose volume could be measured at this step and at step 0."""
        volumes = np.array([edit.volumes[name] for edit in edits], dtype=np.float64)
        changes = np.ma.masked_invalid(volumes - volumes[:, [zero]]).mean(axis=0)
        return [None if value is np.ma.masked else float(value) for value in changes]

    return ManipulateResult(
        steps=list(edits[0].steps),
        predicted=np.mean([e.predicted for e in edits], axis=0).tolist(),
        volume_change_ml={name: change(name) for name in edits[0].volumes},
        scans=len(edits),
    )
