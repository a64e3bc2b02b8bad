"""Edits of scans along a probe's direction, and the smallest change of their codes that makes one step."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.hardware import trim_heap
from ldae.codes import Codes, check_origin
from ldae.errors import TaskError
from ldae.metrics.volumetry import known_volumes
from ldae.tasks.edit.deformation import deform, find_displacement
from ldae.tasks.edit.direction import BATCH, manipulate_codes
from ldae.tasks.probe.linear import LinearProbe

__all__ = ["DEFAULT_STEPS", "DriftWarning", "Edits", "check_probes", "edit_scans", "ready_step"]

Images = npt.NDArray[np.float32]
# About a fifth of what one standard deviation along a probe's direction changes in a latent of the demo's model.
DRIFT = 0.02
DEFAULT_STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


class DriftWarning(UserWarning):
    """Codes that do not bring their scans back well enough to be edited."""


@dataclass(frozen=True, eq=False)
class Edits:
    """Edited images of one scan.

    Attributes:
        steps: signed, in standard deviations of the training cohort along the direction.
        images: (K, D, H, W) in [0, 1].
        semantic: y of the re-encoded images, (K, S).
        predicted: the probe on the re-encoded images: probability or years, (K,).
        volumes: measured in each image in ml, by structure; None where the image does not show it.
        displacements: by which the scan was deformed, (D, H, W, 3) in voxels, at each step; None where images are decoded.
    """

    steps: tuple[float, ...]
    images: Images
    semantic: npt.NDArray[np.float64]
    predicted: list[float]
    volumes: dict[str, list[float | None]]
    displacements: list[Images] | None = None


def edit_scans(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    probe: LinearProbe,
    *,
    steps: Sequence[float] = DEFAULT_STEPS,
    step: npt.NDArray[np.float64] | None = None,
    scan: Callable[[int], Images] | None = None,
) -> Iterator[list[Edits]]:
    """Edits of a few scans at a time, in the order of their codes.

    Step 0 is decoded by itself, as :meth:`LatentDiffusionAutoencoder.decode` does it, so that it is the reconstruction bit
    for bit: batches of other sizes may round otherwise.

    Args:
        model: the trained model.
        codes: of the scans, with noise codes.
        probe: whose direction is followed; positive steps raise it.
        steps: signed, in standard deviations of the training cohort along the direction.
        step: change of y that one step makes; the probe's if it is not given.
        scan: gives the scan of a row, (D, H, W) in [0, 1], to be deformed as its decoded edits are against its reconstruction;
            without it, edits are the decoded images.

    Raises:
        TaskError: if the probe was trained on codes of another width.
    """
    step = ready_step(model, codes, probe, step)
    chunk, amounts = max(1, BATCH // max(1, len(steps))), tuple(map(float, steps))

    def edit(start: int) -> list[Edits]:
        scans = codes[start : start + chunk]
        moved = [manipulate_codes(each, step, amount) for each in scans for amount in amounts if amount != 0]
        edited = iter(model.decode_images(moved)) if moved else iter(())
        found = []
        for row, each in enumerate(scans, start):
            plain = model.decode_images([each])[0]
            images = np.stack([next(edited) if amount != 0 else plain for amount in amounts])
            fields = None
            if scan is not None:
                original, fields = scan(row), [find_displacement(plain, image) for image in images]
                images = np.stack([deform(original, field) for field in fields])
            semantic = model.semantic(torch.from_numpy(images)[:, None]).double().numpy()
            predicted = probe.predict(semantic).tolist()
            found.append(Edits(amounts, images, semantic, predicted, _volumes(model, images), fields))
        trim_heap()
        return found

    return (edit(start) for start in range(0, len(codes), chunk))


def check_probes(model: LatentDiffusionAutoencoder, probes: Sequence[LinearProbe]) -> None:
    """Refuse probes that were trained on codes of another model.

    Raises:
        TaskError: naming both models.
    """
    for probe in probes:
        if probe.origin is not None:  # the model's own takes a hash of its weights
            check_origin("the probe", probe.origin, model.origin)


def ready_step(
    model: LatentDiffusionAutoencoder,
    codes: Sequence[Codes],
    probe: LinearProbe,
    step: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Change of y that one step of an edit makes, the probe's if none is given; a warning tells if the codes drift.

    Raises:
        TaskError: if the probe was trained on codes of another width or model.
    """
    check_probes(model, [probe])
    for each in codes[:1]:
        if probe.weights.shape[0] != each.semantic.shape[0]:
            msg = (
                f"the probe was trained on {probe.weights.shape[0]} features, the codes have {each.semantic.shape[0]}; "
                "train a probe on this model's codes"
            )
            raise TaskError(msg)
    drifted = [each.round_trip for each in codes if each.round_trip is not None and each.round_trip > DRIFT]
    if drifted:
        warnings.warn(
            f"{len(drifted)} of {len(codes)} codes come back to their latents only within {max(drifted):.2g} of their standard "
            f"deviation ({codes[0].solver}), more than {DRIFT:g}: differences from the real scan are not all of the edit; "
            "encode with the solver bdia, or with more steps",
            DriftWarning,
            stacklevel=3,
        )
    return probe.step if step is None else step


def _volumes(model: LatentDiffusionAutoencoder, images: Images) -> dict[str, list[float | None]]:
    """Volumes in each image, by structure."""
    measured = [known_volumes(model.config.preprocessing.restore(image)) for image in images]
    return {name: [each[name] if np.isfinite(each[name]) else None for each in measured] for name in measured[0]}
