"""Where results are written: on the model's grid in template space, or on the raw scan that each came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes
from ldae.data.manifest import Record
from ldae.errors import TaskError
from ldae.io.stored import StoredScan
from ldae.tasks.native.labels import write_synthetic
from ldae.tasks.native.scan import NativeScan, NativeSource
from ldae.volume import Volume

__all__ = ["NativeSpace", "Place", "Result", "Space", "TemplateSpace", "check_way_back", "open_space"]

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Result:
    """A network's image in its space, ready to be written.

    Attributes:
        volume: the image, or its change of `onto`.
        onto: the raw scan that is changed, as stored; None for an image of its own.
        facts: of the space and the source, for the side-car.
    """

    volume: Volume
    onto: StoredScan | None
    facts: dict[str, Any]

    def write(self, path: Path, kind: str, **facts: Any) -> Path:
        """Write it, marked as synthetic, with a side-car that tells these facts too."""
        return write_synthetic(self.volume, path, kind, onto=self.onto, **self.facts, **facts)


class Place(Protocol):
    """Where the results of one scan are put. Images are the model's, (D, H, W) in [0, 1]."""

    def edited(self, image: Image, reference: Image) -> Result:
        """The scan changed by what `image` has more than `reference`."""

    def reconstruction(self, image: Image, scan: Image, *, keep_detail: bool) -> Result:
        """The scan as its codes tell it; with its own detail kept, where it is finer than the model's grid."""

    def spread(self, values: Image) -> Result:
        """A map of standard deviations."""


class Space(Protocol):
    """Template or native.

    Attributes:
        label: of file names.
        needs_reference: whether an edit is shown as a difference, so that its reference has to be decoded.
    """

    label: str
    needs_reference: bool

    def scan(self, record: Record, codes: Codes) -> Place:
        """The place of one scan's results."""


class _SpaceOfModel:
    """What both spaces keep of the model that makes their images."""

    def __init__(self, model: LatentDiffusionAutoencoder) -> None:
        self.model, self.fingerprint = model, model.fingerprint()


class TemplateSpace(_SpaceOfModel):
    """Results on the model's grid in MNI152, in its intensities of [0, 1].

    Args:
        model: that makes the images.
    """

    label = "MNI152"
    needs_reference = False

    def scan(self, record: Record, codes: Codes) -> Place:
        """The place of one scan's results."""
        return _OnTemplate(self.model, {"space": "template", "source": record.image.name, "model": self.fingerprint})


class NativeSpace(_SpaceOfModel):
    """Results on each raw scan, in its grid and intensities; see :mod:`ldae.tasks.native.scan`.

    Args:
        model: that makes the images.
    """

    label = "native"
    needs_reference = True

    def scan(self, record: Record, codes: Codes) -> Place:
        """The place of one scan's results.

        Raises:
            TaskError: if there is no way back to the raw scan.
        """
        native = NativeScan.of(record.image)
        source = native.source
        facts = {
            "space": "native",
            "source": source.raw.name,
            "preprocessed": record.image.name,
            "affine_native_to_template": source.to_template.tolist(),
            "model": self.fingerprint,
        }
        return _OnRawScan(self.model, native, codes.window, facts)


def open_space(name: Literal["template", "native"], model: LatentDiffusionAutoencoder) -> Space:
    """The space of a name."""
    return NativeSpace(model) if name == "native" else TemplateSpace(model)


def check_way_back(records: Sequence[Record]) -> None:
    """See that every scan has a way back to its raw scan, before anything takes long.

    Raises:
        TaskError: telling how many have none, and why the first has none.
    """
    problems = []
    for record in records:
        try:
            NativeSource.of(record.image)
        except TaskError as error:
            problems.append(str(error))
    if problems:
        msg = (
            f"{len(problems)} of {len(records)} scans cannot go back to native space, the first of them: {problems[0]}"
        )
        raise TaskError(msg)


@dataclass(frozen=True, eq=False)
class _OnTemplate:
    model: LatentDiffusionAutoencoder
    facts: dict[str, Any]

    def edited(self, image: Image, reference: Image) -> Result:
        return self._shown(image)

    def reconstruction(self, image: Image, scan: Image, *, keep_detail: bool) -> Result:
        return self._shown(image)  # scan + (image - scan)

    def spread(self, values: Image) -> Result:
        return self._shown(values)

    def _shown(self, image: Image) -> Result:
        return Result(self.model.config.preprocessing.restore(image), None, self.facts)


@dataclass(frozen=True, eq=False)
class _OnRawScan:
    model: LatentDiffusionAutoencoder
    native: NativeScan
    window: tuple[float, float]
    facts: dict[str, Any]

    def edited(self, image: Image, reference: Image) -> Result:
        return self._changed(self.native.change(self._difference(image, reference)))

    def reconstruction(self, image: Image, scan: Image, *, keep_detail: bool) -> Result:
        if keep_detail:
            return self.edited(image, scan)
        shown = self.model.config.preprocessing.restore(image, window=self.window)
        return self._changed(self.native.replacement(shown, scan > 0))

    def spread(self, values: Image) -> Result:
        carried = self.native.change(self._difference(values, np.zeros_like(values)))
        # Splines overshoot; a deviation is never negative.
        return Result(Volume(np.maximum(carried.data, 0.0), carried.affine), None, self.facts)

    def _difference(self, image: Image, reference: Image) -> Volume:
        return self.model.config.preprocessing.difference(image, reference, window=self.window)

    def _changed(self, change: Volume) -> Result:
        return Result(change, self.native.scan, self.facts | {"changed_voxels": int(np.count_nonzero(change.data))})
