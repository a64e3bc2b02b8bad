"""The scanner: contrast, bias, noise, motion, ghost, and the brain cut out by the preprocessing after it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldae.base.ranges import checked, not_negative, share
from ldae.contract import Modality
from ldae.phantom.anatomy.lattice import Array
from ldae.phantom.anatomy.tissue import Composition, RigidMotion, tissue_means, tissue_slope, white_matter_factor
from ldae.volume import Grid

__all__ = ["Scan", "ScannerConfig", "Site", "acquire", "bias_field", "draw_scan", "draw_site", "receive"]


@dataclass(frozen=True)
@checked
class ScannerConfig:
    """Differences between scans of one head. Intensities are in units where the brightest pure tissue is about 0.88.

    Attributes:
        site_contrast_sd: relative standard deviation of each tissue's mean intensity between sites.
        site_gamma_sd: standard deviation of the logarithm of a site's gamma.
        contrast_sd: relative standard deviation of each tissue's mean between sessions.
        gamma_sd: standard deviation of the logarithm of gamma between sessions.
        gain_sd: standard deviation of the logarithm of the overall intensity between sessions.
        bias_sd: standard deviation of each coefficient of the logarithm of the bias field (what correction left).
        noise_sd: standard deviation of each channel of the Rician noise, intensity; the same at every voxel size.
        rotation_sd_deg: residual misregistration about each axis, degrees.
        translation_sd_mm: residual misregistration along each axis, mm.
        mask_jitter: half the range of the brain fraction at which skull stripping cuts, around 0.5.
        ghost_probability: share of sessions with motion ghosts.
        ghost_amplitude: largest relative intensity of a ghost.
    """

    site_contrast_sd: float = not_negative(0.03)
    site_gamma_sd: float = not_negative(0.05)
    contrast_sd: float = not_negative(0.025)
    gamma_sd: float = not_negative(0.06)
    gain_sd: float = not_negative(0.05)
    bias_sd: float = not_negative(0.03)
    noise_sd: float = not_negative(0.026)
    rotation_sd_deg: float = not_negative(0.6)
    translation_sd_mm: float = not_negative(0.52)
    mask_jitter: float = share(0.22)
    ghost_probability: float = share(0.04)
    ghost_amplitude: float = share(0.12)


@dataclass(frozen=True)
class Site:
    """A site's factors of the mean intensity of grey matter, white matter and fluid, and exponent of its intensity curve."""

    contrast: tuple[float, float, float]
    gamma: float


@dataclass(frozen=True, eq=False)
class Scan:
    """The random factors of one session.

    Attributes:
        contrast: factors of the tissue means, grey, white, fluid.
        gamma: exponent of the intensity curve.
        gain: overall factor.
        bias: coefficients of the log bias field, (9,).
        motion: residual misregistration.
        mask_threshold: brain fraction at which the mask is cut.
        ghost: relative intensity of the ghost, 0 for none.
        ghost_shift: its shift along y as a fraction of the field of view.
    """

    contrast: tuple[float, float, float]
    gamma: float
    gain: float
    bias: npt.NDArray[np.float64]
    motion: RigidMotion
    mask_threshold: float
    ghost: float
    ghost_shift: float


def draw_site(config: ScannerConfig, rng: np.random.Generator) -> Site:
    """Draw a scanner."""
    grey, white, csf = (1.0 + config.site_contrast_sd * rng.standard_normal(3)).tolist()
    return Site((grey, white, csf), float(np.exp(config.site_gamma_sd * rng.standard_normal())))


def draw_scan(config: ScannerConfig, site: Site, rng: np.random.Generator) -> Scan:
    """Draw a session on a scanner."""
    grey, white, csf = (np.array(site.contrast) * (1.0 + config.contrast_sd * rng.standard_normal(3))).tolist()
    gamma = site.gamma * float(np.exp(config.gamma_sd * rng.standard_normal()))
    gain = float(np.exp(config.gain_sd * rng.standard_normal()))
    bias = config.bias_sd * rng.standard_normal(9)
    rx, ry, rz = (config.rotation_sd_deg * rng.standard_normal(3)).tolist()
    tx, ty, tz = (config.translation_sd_mm * rng.standard_normal(3)).tolist()
    threshold = 0.5 + config.mask_jitter * float(rng.uniform(-1.0, 1.0))
    moved = rng.random() < config.ghost_probability
    strength, shift = float(rng.uniform(0.3, 1.0)), float(rng.uniform(0.1, 0.5))
    return Scan(
        contrast=(grey, white, csf),
        gamma=gamma,
        gain=gain,
        bias=bias,
        motion=RigidMotion((rx, ry, rz), (tx, ty, tz)),
        mask_threshold=threshold,
        ghost=config.ghost_amplitude * strength if moved else 0.0,
        ghost_shift=shift,
    )


def bias_field(grid: Grid, coefficients: npt.NDArray[np.float64]) -> Array:
    """A smooth positive factor, (D, H, W): the exponential of a polynomial of degree two in the position.

    Its coefficients, (9,), are of x, y, z, x^2, y^2, z^2, xy, yz, zx with x, y, z from -1 to 1 across the grid.
    """
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in grid.shape), indexing="ij", sparse=True)
    terms = (x, y, z, x * x - 0.25, y * y - 0.25, z * z - 0.25, x * y, y * z, z * x)
    log_field = np.zeros(grid.shape, dtype=np.float32)
    for coefficient, term in zip(coefficients, terms, strict=True):
        log_field += np.float32(coefficient) * term
    return np.exp(log_field)


def receive(
    signal: Array, grid: Grid, scan: Scan, bias: npt.NDArray[np.float64], noise_sd: float, rng: np.random.Generator
) -> Array:
    """A signal, (D, H, W), after the intensity curve, the bias field, the ghost and Rician noise."""
    signal = np.maximum(signal, 0.0) ** np.float32(scan.gamma)
    signal *= bias_field(grid, bias)
    if scan.ghost:
        signal = signal + np.float32(scan.ghost) * np.roll(signal, round(scan.ghost_shift * grid.shape[1]), axis=1)
    noise = np.float32(noise_sd) * rng.standard_normal((2, *grid.shape), dtype=np.float32)
    return np.hypot(signal + noise[0], noise[1])


def acquire(
    head: Composition,
    grid: Grid,
    scan: Scan,
    config: ScannerConfig,
    *,
    white_matter_darkening: float,
    rng: np.random.Generator,
    modality: Modality = "T1w",
) -> Array:
    """Scan a head and cut the brain out: intensities, (D, H, W), exactly 0 outside the brain and positive inside."""
    grey, white, csf = (mean * factor for mean, factor in zip(tissue_means(modality), scan.contrast, strict=True))
    white *= white_matter_factor(white_matter_darkening, modality)
    signal = np.float32(grey) * head.grey + np.float32(white) * head.white + np.float32(csf) * head.csf
    signal += np.float32(tissue_slope(modality)) * head.texture
    image = receive(signal, grid, scan, scan.bias, config.noise_sd, rng) * np.float32(scan.gain)
    inside = head.grey + head.white + head.csf > scan.mask_threshold
    # A positive floor keeps every voxel of the brain apart from the background's exact zero.
    return np.where(inside, np.maximum(image, np.float32(1e-3)), np.float32(0.0))
