"""Laws of volumetry: scale and orientation do not matter, and what grows in truth grows in the measure."""

import numpy as np
import pytest

from ldae.atlas import Template, load_template, template_grid
from ldae.errors import VolumeError
from ldae.metrics.volumetry import STRUCTURES, known_volumes, measure_volumes
from ldae.phantom.anatomy.deformation import ShapeConfig, draw_shape
from ldae.phantom.anatomy.tissue import SubjectMap, map_subject, render
from ldae.phantom.population import AnatomicalState
from ldae.phantom.scanner import ScannerConfig, acquire, draw_scan, draw_site
from ldae.volume import Volume

VOXEL_MM = 5.0


def scan_of(subject: SubjectMap, state: AnatomicalState, seed: int) -> tuple[Volume, dict[str, float]]:
    """An image and the volumes that are truly in it."""
    config = ScannerConfig()
    rng = np.random.default_rng(seed)
    scan = draw_scan(config, draw_site(config, rng), rng)
    head = render(subject, state, scan.motion)
    image = acquire(head, subject.grid, scan, config, white_matter_darkening=state.white_matter_darkening, rng=rng)
    return Volume(image, subject.grid.affine), head.volumes_ml


def head_of(seed: int, scale: float = 0.92) -> SubjectMap:
    shape = draw_shape(ShapeConfig(), scale, np.random.default_rng(seed))
    return map_subject(template_grid(VOXEL_MM), shape, load_template(1.0))


@pytest.fixture(scope="module")
def subject() -> SubjectMap:
    return head_of(0)


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(VOXEL_MM)


def test_the_template_measures_itself(template):
    inside = template.brain_mask.data > 0.5
    measured = measure_volumes(Volume(np.where(inside, template.t1.data, 0), template.grid.affine))
    assert tuple(measured) == STRUCTURES
    for name in ("ventricles", "hippocampus_left", "hippocampus_right"):
        true = getattr(template, name).data.sum() * template.grid.voxel_volume_ml
        assert measured[f"{name}_ml"] == pytest.approx(true, rel=0.05), name


def test_neither_unit_nor_order_of_axes_nor_a_noisy_background_matters(subject):
    image, _ = scan_of(subject, AnatomicalState(ventricle_mm=3.0), 0)
    data, affine = image.data, image.affine
    measured = measure_volumes(image)
    for factor in (1e-3, 700.0):
        assert measure_volumes(Volume(data * factor, affine)) == pytest.approx(measured, rel=1e-4)
    turn = np.array([[0, 0, -1, data.shape[0] - 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    turned = Volume(np.ascontiguousarray(data[::-1].transpose(2, 1, 0)), affine @ turn)
    noise = np.random.default_rng(0).normal(0, 0.01, data.shape)
    decoded = Volume(np.where(data > 0, data, noise).astype(np.float32), affine)
    for same in (turned, decoded):
        assert measure_volumes(same) == pytest.approx(measured, rel=1e-3)


def test_ventricles_follow_the_truth_across_people():
    rng = np.random.default_rng(5)
    true, measured = [], []
    for seed in range(10):
        state = AnatomicalState(ventricle_mm=rng.uniform(0, 8), cortex_mm=rng.uniform(0, 0.6))
        image, volumes = scan_of(head_of(seed, rng.uniform(0.85, 1.0)), state, seed)
        true.append(volumes)
        measured.append(measure_volumes(image))
    for name, least in (("ventricles_ml", 0.95), ("brain_ml", 0.8)):
        assert np.corrcoef([t[name] for t in true], [m[name] for m in measured])[0, 1] > least, name


def test_each_hippocampus_shrinks_by_itself(subject):
    before = measure_volumes(scan_of(subject, AnatomicalState(), 1)[0])
    after = measure_volumes(scan_of(subject, AnatomicalState(hippocampus_left_mm=3.0), 1)[0])
    assert after["hippocampus_left_ml"] < 0.95 * before["hippocampus_left_ml"]
    assert after["hippocampus_right_ml"] == pytest.approx(before["hippocampus_right_ml"], rel=0.01)
    assert after["ventricles_ml"] == pytest.approx(before["ventricles_ml"], rel=0.02)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0])
def test_an_image_without_a_brain_has_no_volumes(level):
    grid = template_grid(VOXEL_MM)
    measured = measure_volumes(Volume(np.full(grid.shape, level, dtype=np.float32), grid.affine))
    assert tuple(measured) == STRUCTURES
    assert np.isnan(list(measured.values())).all()


def test_an_image_outside_template_space_is_refused():
    volume = Volume(np.ones((16, 16, 16), dtype=np.float32), np.diag([4.0, 4.0, 4.0, 1.0]))
    with pytest.raises(VolumeError, match="MNI space"):
        measure_volumes(volume)
    assert np.isnan(list(known_volumes(volume).values())).all()
