"""Codes of a scan, the model that they come from, and the maps from codes to codes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldae.base.notebook import Shown
from ldae.errors import TaskError
from ldae.volume import Grid

__all__ = ["Codes", "NoiseCodes", "Origin", "check_origin", "interpolate", "lerp", "slerp"]


@dataclass(frozen=True)
class Origin:
    """The model that codes come from, kept in every table of codes and every probe on them.

    Attributes:
        model: hash of all weights.
        preprocessing: the contract, as plain values.
        version: of this package.
    """

    model: str
    preprocessing: dict[str, Any]
    version: str

    @classmethod
    def of(cls, plain: Any) -> "Origin":
        """The origin that a file holds as plain values.

        Raises:
            ValueError: if it is none.
        """
        kinds = {"model": str, "preprocessing": dict, "version": str}
        found = {name: type(value) for name, value in plain.items()} if isinstance(plain, dict) else None
        if found != kinds:
            msg = (
                f"the origin must hold model (text), preprocessing (a group) and version (text), got {str(plain)[:99]}"
            )
            raise ValueError(msg)
        return cls(**plain)


@dataclass(frozen=True)
class NoiseCodes:
    """Noise codes of a batch, found by inversion.

    Attributes:
        noise: z_T, (B, C, d, h, w).
        record: what an exact solver needs beside it, (K, B, C, d, h, w), or None.
        round_trip: rms error of the latent after sampling back, (B,), in units of the latent's std; None if not measured.
    """

    noise: Tensor
    record: Tensor | None
    round_trip: Tensor | None


def check_origin(name: str, found: Origin | None, expected: Origin | None) -> None:
    """Refuse codes or a probe of another model; where a model is unknown, nothing is refused.

    Args:
        name: of what is used, for the message.
        found: its origin.
        expected: the model that it is used with.

    Raises:
        TaskError: if the weights or the contracts differ.
    """
    if found is None or expected is None:
        return
    # Models of version 0.1 do not name their modality.
    contracts = [{"modality": "T1w"} | each.preprocessing for each in (found, expected)]
    if found.model != expected.model or contracts[0] != contracts[1]:
        msg = (
            f"{name} is of model {found.model[:12]} (ldae {found.version}), but this is model {expected.model[:12]}; codes of "
            "two models do not compare: give --model the model that it is of, or encode scans and train probes with this one"
        )
        raise TaskError(msg)


@dataclass(frozen=True, eq=False, repr=False)
class Codes(Shown):
    """The two codes of one scan, on the CPU.

    Attributes:
        semantic: y, (S,), float32.
        noise: z_T, (C, d, h, w), float32, about unit variance; None if only y was computed.
        grid: the scan's own grid, where decoded images go back to.
        window: intensities that the model's 0 and 1 stand for, in the scan's units.
        record: what an exact solver needs beside `noise` to come back, (K, C, d, h, w), small; None if it needs nothing.
        solver: that found the noise code, by name and settings.
        round_trip: measured rms error of the latent after inversion and sampling, in units of its std; None where it was not
            measured, as for codes that no scan has.
        to_template: RAS mm of the scan to RAS mm of the template, (4, 4); None where the scan was in template space.
        domain_distance: of y from the scans that the model was trained on; above 1 the scan is unlike 99 % of those that it
            was validated on. None where the model does not know its training domain.
    """

    semantic: Tensor
    noise: Tensor | None
    grid: Grid
    window: tuple[float, float] = (0.0, 1.0)
    record: Tensor | None = None
    solver: str = ""
    round_trip: float | None = None
    to_template: npt.NDArray[np.float64] | None = None
    domain_distance: float | None = None

    @property
    def facts(self) -> dict[str, str]:
        """What it shows of itself."""
        unknown = "unknown" if self.domain_distance is None else f"{self.domain_distance:.2f} (inside: at most 1)"
        return {
            "semantic": f"{len(self.semantic)} numbers",
            "noise": "not computed" if self.noise is None else " x ".join(map(str, self.noise.shape)),
            "scan": self.grid.size_words,
            "distance from the training domain": unknown,
        }

    def numpy(self) -> npt.NDArray[np.float32]:
        """y, (S,), for other libraries."""
        return self.semantic.numpy()

    def with_semantic(self, semantic: Tensor) -> "Codes":
        """The same scan with another semantic code, (S,)."""
        return replace(self, semantic=semantic, domain_distance=None)

    def same_image(self, other: "Codes") -> bool:
        """True if both decode to one image, because all that decoding reads is equal."""
        pairs = ((self.semantic, other.semantic), (self.noise, other.noise), (self.record, other.record))
        return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def lerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Straight line: `a` at weight 0, `b` at weight 1, both exactly; beyond them it extrapolates."""
    if weight == 0.0:
        return a.clone()
    if weight == 1.0:
        return b.clone()
    return a + weight * (b - a)


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Great-circle interpolation (Shoemake 1985) of two arrays seen as vectors; keeps the norm of equal-norm ends.

    The angle is taken between directions; the result follows sin((1-w) omega) a + sin(w omega) b, over sin(omega). Where the
    two are (anti)parallel it falls back to the straight line.

    Args:
        a: any shape.
        b: the shape of `a`.
        weight: 0 gives `a`, 1 gives `b`, exactly.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    if weight in (0.0, 1.0):
        return lerp(a, b, weight)
    x, y = a.double().flatten(), b.double().flatten()
    cosine = torch.dot(x, y) / (x.norm() * y.norm()).clamp_min(1e-12)
    omega = torch.arccos(cosine.clamp(-1.0, 1.0))
    sine = torch.sin(omega)
    if sine < 1e-6:
        return lerp(a, b, weight)
    mixed = (torch.sin((1.0 - weight) * omega) * x + torch.sin(weight * omega) * y) / sine
    return mixed.reshape(a.shape).to(a.dtype)


def interpolate(first: Codes, second: Codes, weight: float) -> Codes:
    """Codes between two scans: lerp in y, slerp in z_T, lerp in what an exact solver recorded.

    Args:
        first: codes at weight 0; its grid and window are kept.
        second: codes at weight 1.
        weight: (tau - t_0) / (t_1 - t_0).
    """
    noise = record = None
    if first.noise is not None and second.noise is not None:
        noise = slerp(first.noise, second.noise, weight)
    if first.record is not None and second.record is not None:
        record = lerp(first.record, second.record, weight)
    window = (
        first.window[0] + weight * (second.window[0] - first.window[0]),
        first.window[1] + weight * (second.window[1] - first.window[1]),
    )
    semantic = lerp(first.semantic, second.semantic, weight)
    return Codes(semantic, noise, first.grid, window, record, first.solver, to_template=first.to_template)
