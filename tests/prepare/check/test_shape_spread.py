"""Brains too alike: copies of one brain, as a deformable registration leaves them, against brains that differ."""

import numpy as np
import pytest
from scipy import ndimage

from ldae.atlas import load_template
from ldae.prepare.check.likeness import signature
from ldae.prepare.check.shape_spread import MIN_SUBJECTS, check_spread, ventricle_ml
from ldae.volume import Volume


def person(seed: int, *, own_shape: bool) -> Volume:
    """The template with noise and, if asked, ventricles of its own size and a smooth warp of its own."""
    rng = np.random.default_rng(seed)
    template = load_template(3.0)
    data = template.t1.data.copy()
    if own_shape:
        wider = ndimage.binary_dilation(template.ventricles.data > 0.3, iterations=1 + seed % 3)
        data = np.where(wider, 0.25, data)
        shift = [4.0 * ndimage.gaussian_filter(rng.normal(size=data.shape), 8.0) for _ in range(3)]
        shift = [field / field.std() for field in shift]
        data = ndimage.map_coordinates(data, np.indices(data.shape) + np.array(shift), order=1)
    noise = rng.normal(0.0, 0.04, data.shape)
    return Volume(np.where(data > 0, np.clip(data + noise, 1e-3, None), 0).astype(np.float32), template.grid.affine)


def checked(*, own_shape: bool, count: int = MIN_SUBJECTS) -> tuple[list, dict[str, float]]:
    people = {f"p{seed}": person(seed, own_shape=own_shape) for seed in range(count)}
    signatures = [signature(one) for one in people.values()]
    return check_spread(
        {name: ventricle_ml(one) for name, one in people.items()}, [s for s in signatures if s is not None]
    )


def test_brains_that_differ_have_no_finding() -> None:
    found, figures = checked(own_shape=True)
    assert found == []
    assert figures["ventricle_spread"] > 0.1


def test_copies_of_one_brain_are_suspected_of_a_deformable_registration() -> None:
    found, figures = checked(own_shape=False)
    assert [finding.code for finding in found] == ["deformable"]
    assert figures["ventricle_spread"] < 0.05
    assert "ldae cohort preprocess" in found[0].remedy
    assert checked(own_shape=False, count=MIN_SUBJECTS - 1) == ([], {}), "too few people say nothing"


def test_wider_ventricles_measure_larger() -> None:
    template = load_template(3.0)
    wider = ndimage.binary_dilation(template.ventricles.data > 0.3, iterations=2)
    data = np.where(wider & (template.t1.data > 0), 0.2, template.t1.data).astype(np.float32)
    assert ventricle_ml(Volume(data, template.grid.affine)) > 1.2 * ventricle_ml(template.t1)
    assert ventricle_ml(template.t1) == pytest.approx(27.0, abs=10.0)
