"""Scans as people have them in Python: files, images of other libraries, arrays."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from ldae.contract import PreparedScan, Preprocessing
from ldae.data.manifest import Record
from ldae.errors import VolumeError
from ldae.head.intake import Preprocess, find_brain
from ldae.image_files import unit_in_mm
from ldae.volume import Volume, read_volume

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage
    from torch import Tensor

__all__ = ["ScanLike", "prepare_scan", "read_scan"]

ScanLike: TypeAlias = Union[str, os.PathLike[str], Volume, Record, "SpatialImage", "Tensor", tuple[Any, Any]]
"""A file, a volume, a row of a manifest, a nibabel image, a MONAI MetaTensor, or a pair of an array or tensor and its affine."""


def read_scan(scan: ScanLike) -> Volume:
    """A scan as a volume.

    Args:
        scan: see :data:`ScanLike`. Arrays are (D, H, W), or (1, D, H, W); affines take voxel indices to RAS mm.

    Raises:
        VolumeError: if it cannot be read, has not three axes, or says not where its voxels lie.
    """
    if isinstance(scan, Volume):
        return scan
    if isinstance(scan, Record):
        return read_volume(scan.image)
    if isinstance(scan, str | os.PathLike):
        return read_volume(scan)
    if isinstance(scan, tuple) and len(scan) == 2:
        return _volume(*scan)
    affine = getattr(scan, "affine", None)
    if affine is not None:
        volume = _volume(getattr(scan, "dataobj", scan), affine)
        return Volume(volume.data, np.diag([unit_in_mm(getattr(scan, "header", None))] * 3 + [1.0]) @ volume.affine)
    msg = (
        f"an object of type {type(scan).__name__} does not say where its voxels lie; give a file, a nibabel image, a "
        "MetaTensor, a Volume, or the pair (array, affine)"
    )
    raise VolumeError(msg)


def prepare_scan(scan: ScanLike, contract: Preprocessing, *, preprocess: Preprocess = "auto") -> PreparedScan:
    """A scan, raw or preprocessed, as a model sees it; what is still to be done is found out.

    For `preprocess` see :func:`ldae.head.intake.find_brain`.

    Raises:
        VolumeError: if it is no T1-weighted scan of a head or brain, or breaks the contract; it names the file.
    """
    volume = read_scan(scan)
    try:
        brain, to_template = find_brain(
            volume, preprocess=preprocess, voxel_size_mm=contract.voxel_size_mm, modality=contract.modality
        )
        return replace(contract.prepare(brain), grid=volume.grid, to_template=to_template)
    except VolumeError as error:
        path = scan.image if isinstance(scan, Record) else scan if isinstance(scan, str | os.PathLike) else None
        if path is None:
            raise
        msg = f"{os.fspath(path)}: {error}"
        raise VolumeError(msg) from error


def _volume(data: Any, affine: Any) -> Volume:
    """An array or tensor with its affine."""
    data, affine = (each.detach().cpu() if hasattr(each, "detach") else each for each in (data, affine))
    array = np.asarray(data, dtype=np.float32)
    return Volume(array[0] if array.ndim == 4 and len(array) == 1 else array, np.asarray(affine, dtype=np.float64))
