"""Kinds of images, made from the template's tissues with a bias field and noise; and real ones, where there are any."""

from pathlib import Path

import numpy as np
import pytest

from ldae.atlas import load_template
from ldae.head.morphology import coarse_grid
from ldae.head.registration import moved, register
from ldae.head.tissue import tissue_contrast
from ldae.volume import Volume, read_volume

# White matter, grey matter, fluid.
KINDS = {"T1w": (1.0, 0.75, 0.3), "T2w": (0.5, 0.65, 1.0), "FLAIR": (0.75, 0.9, 0.25)}


def image(tissues: tuple[float, float, float], *, bias: float = 0.3, noise: float = 0.05) -> Volume:
    template = load_template(4.0)
    maps = (template.white_matter, template.grey_matter, template.csf)
    data = sum(weight * tissue.data for weight, tissue in zip(tissues, maps, strict=True))
    x, y, _ = template.grid.world_coordinates()
    # A coil that sees the rim brighter: grey matter would be brighter than white by its mean alone.
    data = data * np.exp(bias * ((x / 70) ** 2 + (y / 90) ** 2))
    noisy = data + np.random.default_rng(0).normal(0, noise, data.shape) * (data > 0)
    return Volume((900 * np.clip(noisy, 0, None)).astype(np.float32), template.grid.affine)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_the_kind_is_told_through_bias_and_noise(kind: str, bias: float) -> None:
    scan = image(KINDS[kind], bias=bias)
    found, brighter = tissue_contrast(scan), tissue_contrast(Volume(scan.data * 37.0, scan.affine))
    assert found.kind == kind
    assert brighter.white_minus_grey == pytest.approx(found.white_minus_grey, rel=1e-3), "the unit does not matter"


def test_a_picture_without_the_anatomy_is_unknown() -> None:
    brain = load_template(4.0).brain_mask
    noise = np.random.default_rng(1).normal(500, 50, brain.data.shape) * brain.data
    assert tissue_contrast(Volume(noise.astype(np.float32), brain.affine)).kind == "unknown"


@pytest.mark.slow
def test_a_real_flair_is_told_from_the_t1w_of_its_visit(shared: Path) -> None:
    folder = shared / "data" / "openms" / "patient12"
    t1w, flair = (read_volume(folder / f"study1_{name}.nii.gz").to_ras() for name in ("T1W", "FLAIR"))
    # One session: the T1w's alignment holds for both.
    to_template = register(t1w.resample_to(coarse_grid(t1w.grid, 2.0))).affine_native_to_template
    assert tissue_contrast(moved(t1w, to_template)).kind == "T1w"
    assert tissue_contrast(moved(flair, to_template)).kind == "FLAIR"
