"""Volume: a scan on its grid, and how it is read, written and resampled."""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldae.base.files import atomic_file, write_bytes
from ldae.base.notebook import Shown, slices_png
from ldae.errors import NonFiniteError, VolumeError
from ldae.grid import Grid
from ldae.image_files import LPS_TO_RAS, MGH_SUFFIXES, NIFTI_SUFFIXES, NRRD_SUFFIXES, check_size, read_image

if TYPE_CHECKING:
    from monai.data import MetaTensor
    from nibabel import Nifti1Image

__all__ = [
    "SUFFIXES",
    "Grid",
    "Volume",
    "read_volume",
    "sidecar_path",
    "spikes_word",
    "to_itk",
    "write_nifti",
    "write_volume",
]

FAR, FEWEST_FOR_SPIKES = 20.0, 1000
SUFFIXES = NIFTI_SUFFIXES + MGH_SUFFIXES + NRRD_SUFFIXES


@dataclass(frozen=True, eq=False, repr=False)
class Volume(Shown):
    """A scalar image with its place in the world.

    Attributes:
        data: voxel intensities, (D, H, W), float32, finite.
        affine: voxel indices to RAS millimetres, (4, 4).

    Raises:
        NonFiniteError: if voxels are NaN or infinite.
        VolumeError: if the data is not a non-empty 3D array or the affine is singular.

    >>> Volume(np.ones((4, 5, 6)), np.diag([3.0, 3.0, 3.0, 1.0]))
    Volume(size: 12 x 15 x 18 mm, voxels: 4 x 5 x 6, intensities: 1 to 1)
    """

    data: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.ndim != 3:
            msg = f"a volume has three axes, got an array of shape {data.shape}; choose one volume of the series"
            raise VolumeError(msg)
        if data.size == 0:
            msg = f"the volume is empty (shape {data.shape}); check that the export finished"
            raise VolumeError(msg)
        data = data.astype(np.float32, copy=False)
        if not np.isfinite(data).all():
            count = int(np.count_nonzero(~np.isfinite(data)))
            msg = f"{count} of {data.size} voxels are NaN or infinite; replace them (0 is usual outside the brain)"
            raise NonFiniteError(msg)
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "affine", Grid(data.shape, self.affine).affine)

    @property
    def grid(self) -> Grid:
        """Shape and affine together."""
        return Grid(self.data.shape, self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each axis in mm."""
        return self.grid.spacing

    @property
    def facts(self) -> dict[str, str]:
        """What it shows of itself."""
        return {
            "size": self.grid.size_words,
            "voxels": " x ".join(map(str, self.data.shape)),
            "intensities": f"{self.data.min():.4g} to {self.data.max():.4g}",
        }

    def picture(self) -> bytes:
        """Its middle slices, as PNG."""
        upright = self.to_ras()
        return slices_png(upright.data, upright.spacing)

    def to_nibabel(self) -> "Nifti1Image":
        """The same voxels and affine as a nibabel image, in mm."""
        import nibabel

        image = nibabel.Nifti1Image(self.data, self.affine)
        image.header.set_xyzt_units("mm")
        return image

    def to_metatensor(self) -> "MetaTensor":
        """The same voxels and affine for MONAI, (1, D, H, W)."""
        import torch
        from monai.data import MetaTensor

        return MetaTensor(torch.from_numpy(self.data)[None], affine=torch.from_numpy(self.affine.copy()))

    def without_spikes(self) -> tuple["Volume", int]:
        """The scan, with voxels far beyond all others at the median of their neighbours; and how many there were.

        Far is twenty times the range of 99.8 % of the voxels above the minimum.
        """
        shown = self.data[self.data > self.data.min()]
        if shown.size < FEWEST_FOR_SPIKES:
            return self, 0
        low, middle, high = np.percentile(shown, (0.1, 50.0, 99.9))
        far = FAR * (high - low)
        spikes = (self.data > high + far) | (self.data < low - far)
        places = np.argwhere(spikes)
        if not len(places) or far == 0:
            return self, 0
        data = self.data.copy()
        for place in places:
            around = tuple(slice(max(0, at - 1), at + 2) for at in place)
            sound = self.data[around][~spikes[around]]
            data[tuple(place)] = np.median(sound) if sound.size else middle
        return Volume(data, self.affine), len(places)

    def to_ras(self) -> "Volume":
        """The same voxels with axes reordered and flipped to be closest to right, anterior, superior."""
        import nibabel

        image = nibabel.as_closest_canonical(self.to_nibabel())
        return Volume(np.ascontiguousarray(image.dataobj), image.affine)

    def resample_to(self, grid: Grid, *, order: int = 1, outside: float = 0.0) -> "Volume":
        """Interpolate on another grid; voxels that both grids share come back unchanged.

        Where the target is coarser, the image is first smoothed with a Gaussian that brings its point spread to that
        of the target voxel (variance (r^2 - 1) / 12 source voxels squared for a ratio r), so that nothing aliases.

        Args:
            grid: the target.
            order: spline order; 0 is nearest neighbour (labels, never smoothed), 1 linear, 3 cubic.
            outside: value beyond the image's field of view.
        """
        if grid == self.grid:
            return Volume(self.data, self.affine)
        check_size(grid.shape, where="the new grid")
        from scipy.ndimage import affine_transform, gaussian_filter

        target_to_source = np.linalg.inv(self.affine) @ grid.affine
        data = self.data
        if np.allclose(target_to_source[:3, :3], np.eye(3), atol=1e-6):
            start = np.round(target_to_source[:3, 3]).astype(int)
            if np.allclose(target_to_source[:3, 3], start, atol=1e-4):
                return Volume(_shifted(data, start, grid.shape, outside), grid.affine)
        if order > 0:
            # How many source voxels one target voxel spans, along each source axis.
            ratio = np.abs(target_to_source[:3, :3]).max(axis=1)
            sigma = np.sqrt(np.maximum(ratio**2 - 1.0, 0.0) / 12.0)
            if (sigma > 0.1).any():
                along_axes = np.allclose(target_to_source[:3, :3], np.diag(np.diag(target_to_source)[:3]), atol=1e-9)
                if along_axes and order == 1 and outside == 0.0:
                    return Volume(_coarser(data, target_to_source, grid.shape, sigma), grid.affine)
                data = gaussian_filter(data, sigma)
        resampled = affine_transform(
            data,
            target_to_source[:3, :3],
            offset=target_to_source[:3, 3],
            output_shape=grid.shape,
            order=order,
            mode="constant",
            cval=outside,
        )
        return Volume(resampled, grid.affine)

    def continued(self, inside: npt.NDArray[np.bool_]) -> "Volume":
        """The volume with each voxel outside of a mask as its nearest one inside, so that interpolation mixes in no background.

        Args:
            inside: the mask, (D, H, W), not empty.
        """
        from scipy.ndimage import distance_transform_edt

        nearest = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        return Volume(self.data[tuple(nearest)], self.affine)


def _shifted(
    data: npt.NDArray[np.float32], start: npt.NDArray[np.int_], shape: tuple[int, int, int], outside: float
) -> npt.NDArray[np.float32]:
    """The voxels from `start` on, which may lie outside: cut and padded, not interpolated."""
    found = np.full(shape, outside, dtype=data.dtype)
    first, last = np.maximum(start, 0), np.minimum(start + shape, data.shape)
    if (first < last).all():
        taken = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        put = tuple(slice(a, b) for a, b in zip(first - start, last - start, strict=True))
        found[put] = data[taken]
    return found


def _coarser(
    data: npt.NDArray[np.float32],
    target_to_source: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    sigma: npt.NDArray,
) -> npt.NDArray[np.float32]:
    """Smoothing and linear interpolation on a grid of the same axes: one matrix an axis, many times as fast as filters."""
    from scipy.ndimage import affine_transform, gaussian_filter

    for axis, (size, count) in enumerate(zip(data.shape, shape, strict=True)):
        smooth = gaussian_filter(np.eye(size), (sigma[axis], 0.0))
        scale, start = target_to_source[axis, [axis, 3]]
        weights = affine_transform(smooth, (scale, 1.0), (start, 0.0), (count, size), order=1, mode="constant")
        data = np.moveaxis(np.tensordot(weights.astype(np.float32), data, (1, axis)), 0, axis)
    return np.ascontiguousarray(data)


def spikes_word(count: int) -> str:
    """What :meth:`Volume.without_spikes` did, as a sentence without a final stop."""
    return f"{count} voxel{'' if count == 1 else 's'} far beyond all others; the median of the neighbours is taken"


def volume_suffix(path: Path) -> str:
    """The image suffix of a path, '.nii.gz' counting as one.

    Raises:
        VolumeError: if the suffix names no format that is read or written here.
    """
    name = path.name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    msg = f"{path}: not an image format this package knows; expected a name ending in {', '.join(SUFFIXES)}"
    raise VolumeError(msg)


def sidecar_path(path: Path) -> Path:
    """The JSON file that describes an image, beside it.

    Raises:
        VolumeError: if the suffix is none of an image.
    """
    return path.with_name(path.name[: -len(volume_suffix(path))] + ".json")


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a NIfTI, MGH/MGZ or NRRD image as it is stored (no reorientation), scaled to its physical intensities.

    Trailing axes of length one are dropped.

    Raises:
        NonFiniteError: if voxels are NaN or infinite.
        VolumeError: if the file is missing, damaged, 4D or RGB, empty, larger than allowed, or does not say where its voxels
            lie; see :class:`ldae.image_files.Reading`.
    """
    path = Path(path)
    volume_suffix(path)
    if not path.is_file():
        msg = f"{path}: no such file; check the path (relative paths in a manifest resolve against the manifest)"
        raise VolumeError(msg)
    data, affine = read_image(path)
    try:
        return Volume(data, affine)
    except VolumeError as error:
        msg = f"{path}: {error}"
        raise type(error)(msg) from error


def write_volume(volume: Volume, path: str | os.PathLike[str], *, description: str = "", mni: bool = False) -> Path:
    """Write a volume; the format follows the suffix. Written beside its name first, then renamed.

    Args:
        volume: what to write, as float32.
        path: the file; its folder is made if need be.
        description: at most 79 characters for the NIfTI header's `descrip` (synthetic images say so there).
        mni: the affine leads to MNI space, which a NIfTI header then says (sform and qform code 4).

    Returns:
        The path written.

    Raises:
        VolumeError: if the suffix is unknown.
    """
    path = Path(path)
    suffix = volume_suffix(path)
    if suffix in NIFTI_SUFFIXES:
        image = volume.to_nibabel()
        if mni:
            image.set_sform(volume.affine, "mni")
            image.set_qform(volume.affine, "mni")
        return write_nifti(image, path, description=description)
    if suffix == ".nhdr":
        msg = f"{path.suffix} keeps its voxels in a second file; write .nrrd instead"
        raise VolumeError(msg)
    with atomic_file(path) as temporary:
        if suffix in NRRD_SUFFIXES:
            import SimpleITK

            SimpleITK.WriteImage(to_itk(volume), str(temporary), useCompression=True)
        else:
            import nibabel

            nibabel.save(nibabel.MGHImage(np.ascontiguousarray(volume.data), volume.affine), temporary)
    return path


def write_nifti(image: "Nifti1Image", path: Path, *, description: str = "") -> Path:
    """Write a nibabel image in mm, under a temporary name first; equal images give equal bytes.

    Args:
        image: of any type and number of axes; its units and description are set.
        path: a name in .nii or .nii.gz; its folder is made if need be.
        description: at most 79 characters for the header.

    Returns:
        The path written.
    """
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    payload = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        # No file name and no time stamp in the gzip header.
        payload = gzip.compress(payload, compresslevel=3, mtime=0)
    return write_bytes(path, payload)


def to_itk(volume: Volume) -> Any:
    """A SimpleITK image with the volume's place in the world (ITK's axes: x fastest, LPS)."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.data.T))
    affine = LPS_TO_RAS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image
