"""Preprocessing: a synthetic head of known pose, a real one, and a cohort with a bad scan in it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ldae.atlas import load_template
from ldae.errors import CohortError, VolumeError
from ldae.head.bias_field import correct_bias
from ldae.head.morphology import close, coarse_grid, depth_mm, grow, largest_piece, shrink
from ldae.head.preprocess import PreprocessConfig, preprocess_scan
from ldae.head.registration import Registration, moved, refine, register
from ldae.volume import Grid, Volume, read_volume

# Root mean square over the brain of where the affine may end from the truth: less than a voxel of the synthetic head (2.0 mm
# was measured at 4 mm voxels, whose template has no sulci to hold on to).
TOLERANCE_MM = 3.0


Pose = Callable[..., npt.NDArray[np.float64]]
Head = Callable[..., Volume]


def pose_error_mm(found: npt.NDArray[np.float64], template_to_scan: npt.NDArray[np.float64]) -> float:
    """Root mean square distance between where the brain's voxels are and where the affine puts them."""
    mask = load_template(6.0).brain_mask
    points = mask.grid.world_coordinates()[:, mask.data > 0.5]
    points = np.vstack([points, np.ones(points.shape[1])])
    return float(np.sqrt(((found @ template_to_scan @ points - points)[:3] ** 2).sum(axis=0).mean()))


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


# A registration that will do for brains near the template, a short N4, and coarse voxels of the brain's surface.
SHORT = {
    "registration.STARTS_REFINED": 2,
    "registration.FINALISTS": 1,
    "registration.AFFINE_MM": 6.0,
    "registration.FINAL_MM": 4.0,
    "registration.PITCHES_DEG": (0.0, 15.0),
    "registration.START_SCALES": (0.9,),
    "alignment.NEIGHBOURHOOD_VOXELS": 2,
    "bias_field.ITERATIONS": (10, 10, 10),
    "brain.WORKING_MM": 2.5,
}


def shorten(monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]) -> None:
    for name, value in settings.items():
        monkeypatch.setattr(f"ldae.head.{name}", value)


@pytest.mark.parametrize("settings", [SHORT, pytest.param({}, marks=pytest.mark.slow)])
def test_the_known_pose_of_a_synthetic_head_is_recovered(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, pose: Pose, synthetic_head: Head
) -> None:
    shorten(monkeypatch, settings)
    template_to_scan = pose((14.0, -7.0, 9.0), (0.88, 0.92, 0.9))
    config = PreprocessConfig(voxel_size_mm=4.0)
    scan = preprocess_scan(synthetic_head(template_to_scan), config)

    assert pose_error_mm(scan.affine_native_to_template, template_to_scan) < TOLERANCE_MM
    assert scan.quality.score > 0.85
    assert scan.warnings == ()
    assert scan.image.grid == scan.brain_mask.grid == config.grid
    np.testing.assert_array_equal(scan.image.data > 0, scan.brain_mask.data > 0)
    assert (scan.image.data >= 0).all()
    truth = load_template(4.0).brain_mask.resample_to(config.grid).data > 0.5
    assert dice(scan.brain_mask.data > 0, truth) > 0.93
    # Intensities keep the scan's unit.
    assert 200 < np.median(scan.image.data[truth]) < 500


def test_a_wrong_orientation_in_the_header_is_mended_and_told(
    monkeypatch: pytest.MonkeyPatch, pose: Pose, synthetic_head: Head
) -> None:
    shorten(monkeypatch, SHORT)
    template_to_scan = pose((0.0, 0.0, 0.0), (0.9, 0.9, 0.9))
    stripped = synthetic_head(template_to_scan, skull=False)
    turn = np.eye(4)
    turn[:3, :3] = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    found = register(moved(stripped, turn), already_stripped=True)
    assert pose_error_mm(found.affine_native_to_template, turn @ template_to_scan) < TOLERANCE_MM
    assert "turned by" in " ".join(found.warnings)


def test_labels_are_refused_before_the_registration() -> None:
    template = load_template(6.0).t1
    labels = np.digitize(template.data, np.quantile(template.data, (0.3, 0.6, 0.85))).astype(np.float32)
    with pytest.raises(VolumeError, match="labels, not a scan; give the T1-weighted image"):
        preprocess_scan(Volume(labels, template.affine))


def test_impossible_alignments_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, {"registration.FINAL_MM": 8.0, "alignment.NEIGHBOURHOOD_VOXELS": 2})
    template = load_template(6.0).t1
    for scale, expected in ((3.0, "registration failed"), (1.0, "correlation with the template")):
        affine = np.diag([scale, scale, scale, 1.0])
        noise = np.random.default_rng(0).uniform(size=template.data.shape).astype(np.float32)
        with pytest.raises(CohortError, match=expected):
            refine(Volume(noise, template.affine), Registration(affine, 1.0, 1.0))
    half = Volume(template.data[:, :, : template.data.shape[2] // 2], template.affine)
    with pytest.raises(CohortError, match="field of view"):
        refine(half, Registration(np.eye(4), 1.0, 1.0), min_correlation=-1.0)
    with pytest.raises(CohortError, match="no contrast"):
        register(Volume(np.ones((8, 8, 8)), np.eye(4)))
    doubtful = Registration(np.eye(4), 0.46, 0.8)
    assert "low correlation" in doubtful.warnings[0]
    assert "20 % of the brain" in doubtful.warnings[1]


def test_bias_is_removed_and_the_unit_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, {"bias_field.ITERATIONS": (15, 15, 15)})
    template = load_template(4.0)
    bias = np.exp(0.008 * template.grid.world_coordinates()[1]).astype(np.float32)
    biased = Volume(300 * template.t1.data * bias, template.grid.affine)
    corrected = correct_bias(biased, template.brain_mask)
    white = template.white_matter.data > 0.9

    def variation(data: npt.NDArray[np.float32]) -> float:
        return float(data[white].std() / data[white].mean())

    assert variation(corrected.data) < 0.4 * variation(biased.data)
    assert 0.8 < corrected.data[white].mean() / biased.data[white].mean() < 1.25
    assert corrected.grid == biased.grid


def test_shapes_in_millimetres() -> None:
    spacing = (1.0, 2.0, 4.0)
    mask = np.zeros((21, 15, 13), dtype=bool)
    mask[10, 7, 6] = True
    ball = grow(mask, 6.0, spacing)
    assert [int(np.ptp(axis)) for axis in np.nonzero(ball)] == [12, 6, 2]
    assert shrink(ball, 7.5, spacing).sum() == 0
    assert shrink(ball, 3.5, spacing)[10, 7, 6]
    hollow = ball.copy()
    hollow[10, 7, 6] = False
    np.testing.assert_array_equal(close(hollow, 2.0, spacing)[ball], True)
    two = mask.copy()
    two[0, 0, :3] = True
    assert largest_piece(two).sum() == 3
    assert not largest_piece(np.zeros_like(mask)).any()
    assert np.isinf(depth_mm(np.ones_like(mask), spacing)).all()
    grid = Grid((10, 20, 30), np.diag([1.0, 2.0, 4.0, 1.0]))
    coarse = coarse_grid(grid, 3.0)
    np.testing.assert_allclose(np.asarray(coarse.shape) * coarse.spacing, np.asarray(grid.shape) * grid.spacing)
    assert coarse.shape == (3, 13, 30)


@pytest.mark.slow
def test_a_real_head_becomes_a_brain_in_template_space(shared: Path) -> None:
    ixi = shared / "data" / "ixi"
    head = read_volume(ixi / "t1w" / "IXI049-HH-1358-T1_ds.nii.gz")
    scan = preprocess_scan(head, PreprocessConfig(voxel_size_mm=4.0))
    assert scan.quality.correlation > 0.65
    assert scan.warnings == ()
    labels = read_volume(ixi / "dlmuse" / "IXI049-HH-1358-T1_ds_DLMUSE.nii.gz")
    back = moved(scan.brain_mask, np.linalg.inv(scan.affine_native_to_template)).resample_to(labels.grid)
    assert dice(back.data > 0.5, labels.data > 0) > 0.94
