"""Space in which results are written: on the model's grid in template space, or on the raw scan that each came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.codes import Codes
from ldae.data.manifest import Record
from ldae.errors import TaskError
from ldae.io.bids import TEMPLATE
from ldae.io.stored import StoredScan
from ldae.tasks.native.labels import write_synthetic
from ldae.tasks.native.scan import NativeScan, NativeSource
from ldae.volume import Volume

__all__ = ["NativeSpace", "Place", "Result", "Space", "TemplateSpace", "check_names", "check_way_back", "open_space"]

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
        """Write it, marked as synthetic, with these facts in its side-car too."""
        return write_synthetic(self.volume, path, kind, onto=self.onto, **self.facts, **facts)


@dataclass(frozen=True, eq=False)
class _OnTemplate:
    """Results of one scan on the model's grid. Images are the model's, (D, H, W) in [0, 1]."""

    model: LatentDiffusionAutoencoder
    facts: dict[str, Any]

    def edited(self, image: Image, reference: Image) -> Result:
        """The image itself."""
        return Result(self.model.config.preprocessing.restore(image), None, self.facts)

    def deformed(self, image: Image, displacement: Image) -> Result:
        """The image itself."""
        return self.edited(image, image)

    def reconstruction(self, image: Image, scan: Image, *, keep_detail: bool) -> Result:
        """The image itself: scan + (image - scan)."""
        return self.edited(image, scan)

    def spread(self, values: Image) -> Result:
        """A map of standard deviations."""
        return self.edited(values, values)


@dataclass(frozen=True, eq=False)
class _OnRawScan:
    """Results of one scan on its raw scan. Images are the model's, (D, H, W) in [0, 1]."""

    model: LatentDiffusionAutoencoder
    native: NativeScan
    window: tuple[float, float]
    facts: dict[str, Any]

    def edited(self, image: Image, reference: Image) -> Result:
        """The raw scan changed by the difference of `image` from `reference`."""
        return self._changed(self.native.change(self._difference(image, reference)))

    def deformed(self, image: Image, displacement: Image) -> Result:
        """The raw scan deformed by a displacement in voxels of the model's grid, (D, H, W, 3)."""
        affine = self.model.config.preprocessing.grid.affine
        return self._changed(self.native.deformation((displacement @ affine[:3, :3].T).astype(np.float32), affine))

    def reconstruction(self, image: Image, scan: Image, *, keep_detail: bool) -> Result:
        """The raw scan with the image in its brain; or changed by its difference, which keeps detail finer than the grid."""
        if keep_detail:
            return self.edited(image, scan)
        shown = self.model.config.preprocessing.restore(image, window=self.window)
        return self._changed(self.native.replacement(shown, scan > 0))

    def spread(self, values: Image) -> Result:
        """A map of standard deviations on the raw scan's grid."""
        carried = self.native.change(self._difference(values, np.zeros_like(values)))
        # Splines overshoot; a deviation is never negative.
        return Result(Volume(np.maximum(carried.data, 0.0), carried.affine), None, self.facts)

    def _difference(self, image: Image, reference: Image) -> Volume:
        return self.model.config.preprocessing.difference(image, reference, window=self.window)

    def _changed(self, change: Volume) -> Result:
        return Result(change, self.native.scan, self.facts | {"changed_voxels": int(np.count_nonzero(change.data))})


@dataclass(frozen=True, eq=False)
class TemplateSpace:
    """Results on the model's grid in MNI152, in its intensities of [0, 1].

    Attributes:
        model: whose images they are.
        label: of file names.
        needs_reference: whether an edit is shown as a difference, so that its reference has to be decoded.
    """

    model: LatentDiffusionAutoencoder
    label: ClassVar[str] = TEMPLATE
    needs_reference: ClassVar[bool] = False

    def scan(self, record: Record, codes: Codes) -> _OnTemplate:
        """The place of one scan's results."""
        facts = {"space": "template", "source": record.image.name, "model": self.model.fingerprint()}
        return _OnTemplate(self.model, facts)


@dataclass(frozen=True, eq=False)
class NativeSpace:
    """Results on each raw scan's own grid, as a change that is added to it; attributes as of :class:`TemplateSpace`."""

    model: LatentDiffusionAutoencoder
    label: ClassVar[str] = "native"
    needs_reference: ClassVar[bool] = True

    def scan(self, record: Record, codes: Codes) -> _OnRawScan:
        """The place of one scan's results.

        Raises:
            TaskError: if the scan has no way back to the raw scan.
        """
        native = NativeScan.of(record.image)
        source, around = native.source, native.scan.volume.data.copy()
        around[native.box] = 0
        facts = {
            "space": "native",
            "SkullStripped": not around.any(),
            "SpatialReference": "orig",  # BIDS's word for a scan's own space
            "source": source.raw.name,
            "preprocessed": record.image.name,
            "affine_native_to_template": source.to_template.tolist(),
            "model": self.model.fingerprint(),
        }
        return _OnRawScan(self.model, native, codes.window, facts)


Space = TemplateSpace | NativeSpace
Place = _OnTemplate | _OnRawScan


def open_space(name: Literal["template", "native"], model: LatentDiffusionAutoencoder) -> Space:
    """The space of a name."""
    return NativeSpace(model) if name == "native" else TemplateSpace(model)


def check_names(records: Sequence[Record]) -> None:
    """Refuse scans whose results would have the same file names.

    Raises:
        TaskError: naming the first two.
    """
    owner: dict[str, Record] = {}
    for record in records:
        other = owner.setdefault(record.stem, record)
        if other is not record:
            msg = f"results of {other.key} and {record.key} would both be named {record.stem}; rename one in letters or digits"
            raise TaskError(msg)


def check_way_back(records: Sequence[Record]) -> None:
    """See that every scan has a way back to its raw scan, before anything takes long.

    Raises:
        TaskError: with the number of scans that have none, and the reason of the first.
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
