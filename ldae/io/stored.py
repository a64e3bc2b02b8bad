"""A scan as its file stores it, so that a changed copy keeps every voxel that was not changed, bit for bit."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.errors import VolumeError
from ldae.image_files import NIFTI_SUFFIXES, read_header, read_numbers
from ldae.volume import Volume, read_volume, volume_suffix, write_nifti

__all__ = ["StoredScan", "read_stored"]

# float32 holds every whole number up to here, float64 up to 2^53.
EXACT_IN_FLOAT32 = 2**24
# Header fields of free text, which may name a person.
TEXT_FIELDS = ("data_type", "db_name", "aux_file", "intent_name")


@dataclass(frozen=True, eq=False)
class StoredScan:
    """The numbers of a file and what they stand for: intensity = slope * number + inter.

    Attributes:
        volume: the scan in intensities, float32.
        numbers: the same as stored, (D, H, W), of any real type; of complex numbers their magnitude.
        slope: of the scaling; 1 where the format has none.
        inter: its intercept.
        header: of a NIfTI file; None for other formats.
    """

    volume: Volume
    numbers: npt.NDArray[Any]
    slope: float
    inter: float
    header: Any

    def changed(self, change: Volume) -> Volume:
        """Scan + change in intensities; exactly the scan where the change is 0, nowhere darker than its darkest voxel.

        Args:
            change: in intensities, on the scan's grid.

        Raises:
            VolumeError: if the change is on another grid.
        """
        where = self._changed_voxels(change)
        data = self.volume.data.copy()
        data[where] = np.maximum(data[where] + change.data[where], data.min())
        return Volume(data, self.volume.affine)

    def write_changed(self, change: Volume, path: str | os.PathLike[str], *, description: str = "") -> Path:
        """Write scan + change as NIfTI, beside its name first, then renamed.

        Numbers stay in the file's own unit, with its slope and intercept, but as floats: a whole-number type would round the
        change to its steps. So every reader finds equal intensities where the change is 0. Geometry is the source's; the texts
        of its header and its extensions are left out, because they may name a person.

        Args:
            change: in intensities, on the scan's grid.
            path: a name in .nii or .nii.gz.
            description: at most 79 characters for the header.

        Raises:
            VolumeError: if the change is on another grid or the name is none of a NIfTI file.
        """
        import nibabel

        path = Path(path)
        if volume_suffix(path) not in NIFTI_SUFFIXES:
            msg = f"{path}: only NIfTI keeps a scan's numbers with their scaling; end the name in .nii.gz"
            raise VolumeError(msg)
        where = self._changed_voxels(change)
        numbers = self.numbers.astype(self._exact_type())
        darkest = self.numbers.min() if self.slope > 0 else self.numbers.max()
        moved = numbers[where] + change.data[where].astype(np.float64) / self.slope
        numbers[where] = np.maximum(moved, darkest) if self.slope > 0 else np.minimum(moved, darkest)
        header = self._geometry()
        image_type = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        image = image_type(numbers, self.volume.affine, header=header)
        image.header.set_data_dtype(numbers.dtype)
        image.header.set_slope_inter(self.slope, self.inter)
        return write_nifti(image, path, description=description)

    def _changed_voxels(self, change: Volume) -> npt.NDArray[np.bool_]:
        if change.grid != self.volume.grid:
            msg = f"a change of {change.data.shape} voxels does not lie on its scan's {self.volume.data.shape}; resample it"
            raise VolumeError(msg)
        return np.asarray(change.data != 0)

    def _exact_type(self) -> type[np.floating]:
        """The narrower of float32 and float64 that holds every stored number."""
        if self.numbers.dtype.kind == "f":
            return np.float32 if self.numbers.dtype.itemsize <= 4 else np.float64
        largest = max(abs(int(self.numbers.min())), abs(int(self.numbers.max())))
        return np.float32 if largest <= EXACT_IN_FLOAT32 else np.float64

    def _geometry(self) -> Any:
        """The source's header without texts and extensions."""
        if self.header is None:
            return None
        header = type(self.header)(self.header.binaryblock, self.header.endianness, False)
        for name in TEXT_FIELDS:
            if name in header:
                header[name] = b""
        return header


def read_stored(path: Path) -> StoredScan:
    """Read a scan with its stored numbers.

    Raises:
        VolumeError: as :func:`ldae.volume.read_volume` does.
    """
    volume, header = read_volume(path), read_header(path)
    if header.nifti is None or header.dtype.kind == "c":  # nothing is scaled, or the magnitude stands for the numbers
        return StoredScan(volume, volume.data, 1.0, 0.0, header.nifti)
    return StoredScan(volume, read_numbers(path, header), header.slope, header.inter, header.nifti)
