"""What real scans have besides the scanner's effects: lesions, thick slices, and errors of brain extraction."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ldae.base.ranges import checked, not_negative, share
from ldae.phantom.anatomy.lattice import FWHM_PER_SIGMA, Array, smooth_noise
from ldae.phantom.anatomy.tissue import Composition
from ldae.phantom.scanner import ScannerConfig
from ldae.volume import Grid

__all__ = ["ArtefactConfig", "noisier", "spoil_brain", "spoil_mask"]

LESION_MM, ERROR_MM, RIM_MM = 7.0, 25.0, 5.0


@dataclass(frozen=True)
@checked
class ArtefactConfig:
    """How often and how much. Each scan draws its own.

    Attributes:
        lesion_share: largest share of white matter that looks like grey matter, in blobs of some mm.
        slice_mm: thickest slices; half of all scans have slices thicker than a voxel, along one axis.
        error_share: largest share of the brain's surface where the extraction errs: half of it cuts brain away, half leaves
            tissue of any brightness on it.
        noise_log_sd: standard deviation of the logarithm of the noise between scans.
    """

    lesion_share: float = share(0.08)
    slice_mm: float = not_negative(5.0)
    error_share: float = share(0.2)
    noise_log_sd: float = not_negative(0.35)


def noisier(scanner: ScannerConfig, config: ArtefactConfig, rng: np.random.Generator) -> ScannerConfig:
    """The scanner with the noise of one scan."""
    return replace(scanner, noise_sd=scanner.noise_sd * float(np.exp(config.noise_log_sd * rng.standard_normal())))


def spoil_brain(head: Composition, grid: Grid, config: ArtefactConfig, rng: np.random.Generator) -> Composition:
    """A brain with lesions of white matter, seen in thick slices; the true volumes stay."""
    # Most people have few lesions.
    lesion = head.white * _blobs(grid, LESION_MM, config.lesion_share * float(rng.uniform()) ** 2, rng)
    maps = {"grey": head.grey + lesion, "white": head.white - lesion, "csf": head.csf, "texture": head.texture}
    axis, thickness = int(rng.integers(3)), float(rng.uniform(-config.slice_mm, config.slice_mm))
    if thickness > grid.spacing[axis]:
        # Together with the voxel itself, which has averaged already.
        sigma = float(np.sqrt(thickness**2 - grid.spacing[axis] ** 2)) / FWHM_PER_SIGMA / grid.spacing[axis]
        maps = {name: ndimage.gaussian_filter1d(values, sigma, axis=axis) for name, values in maps.items()}
    return replace(head, grey=maps["grey"], white=maps["white"], csf=maps["csf"], texture=maps["texture"])


def spoil_mask(image: Array, grid: Grid, config: ArtefactConfig, rng: np.random.Generator) -> Array:
    """A brain cut out with errors, (D, H, W): in places its surface is cut away, or other tissue is left on it."""
    brain = image > 0
    soft = ndimage.gaussian_filter(brain.astype(np.float32), RIM_MM / FWHM_PER_SIGMA / np.array(grid.spacing))
    where = config.error_share * float(rng.uniform()) / 2
    brightness = np.float32(rng.uniform(0.2, 1.0)) * (1 + 0.2 * smooth_noise(rng, grid.shape, 6.0, grid.spacing))
    left = ~brain & (soft > 0.15) & (_blobs(grid, ERROR_MM, where, rng) > 0)
    lost = brain & (soft < 0.85) & (_blobs(grid, ERROR_MM, where, rng) > 0)
    return np.where(lost, 0.0, np.where(left, np.maximum(brightness, 0.05), image)).astype(np.float32)


def _blobs(grid: Grid, size_mm: float, share: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Soft-edged blobs, 0 to 1, that cover a share of the grid."""
    noise = smooth_noise(rng, grid.shape, size_mm, grid.spacing)
    threshold = float(np.quantile(noise, 1.0 - share))
    return np.clip((noise - threshold) / 0.3, 0.0, 1.0)
