"""What a scan shows, and what is still to be done to it."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from ldae.atlas import Template, load_template
from ldae.errors import VolumeError
from ldae.head import intake
from ldae.head.intake import content_of, find_brain
from ldae.head.registration import moved
from ldae.volume import Volume


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(2.0)


def noisy(data: np.ndarray, sd: float = 4.0) -> np.ndarray:
    """As a scanner gives it: no two neighbours are equal."""
    rng = np.random.default_rng(0)
    return np.where(data > 0, np.maximum(data + sd * rng.standard_normal(data.shape), 0.1), 0.0).astype(np.float32)


@pytest.fixture
def brain(template) -> Volume:
    """The template's brain alone, in a scanner's units."""
    inside = template.brain_mask.data > 0.5
    return Volume(noisy(400.0 * template.t1.data * inside), template.grid.affine)


def test_content_is_told_apart(brain, pose, synthetic_head):
    turned = pose((12.0, 8.0, -10.0), (0.9, 0.9, 0.9))
    assert content_of(brain, "T1w")[0] == "prepared"
    assert content_of(moved(brain, turned), "T1w")[0] == "brain"
    head = synthetic_head(turned)
    assert content_of(Volume(noisy(head.data), head.affine), "T1w")[0] == "head"
    upside_down = np.diag([1.0, 1.0, -1.0, 1.0])
    assert content_of(moved(brain, upside_down), "T1w")[0] == "brain"


def test_a_prepared_brain_is_taken_as_it_is(brain):
    for preprocess in ("auto", False):
        image, to_template = find_brain(brain, preprocess=preprocess)
        assert image is brain
        assert to_template is None


def test_what_is_not_prepared_is_registered(brain, pose, monkeypatch):
    asked = []

    def preprocess(_, config):
        asked.append((config.voxel_size_mm, config.already_stripped))
        return SimpleNamespace(image=brain, affine_native_to_template=np.eye(4), warnings=())

    monkeypatch.setattr(intake, "preprocess_scan", preprocess)
    scan = moved(brain, pose((12.0, 8.0, -10.0), (0.9, 0.9, 0.9)))
    image, to_template = find_brain(scan, voxel_size_mm=3.0)
    assert image is brain
    np.testing.assert_array_equal(to_template, np.eye(4))
    assert find_brain(brain, preprocess=True)[1] is not None, "asked for"
    assert asked == [(3.0, True), (1.0, True)]


def test_other_contrasts_are_refused(template, brain, monkeypatch):
    t2 = 400.0 * (0.4 * template.white_matter.data + 0.6 * template.grey_matter.data + 1.0 * template.csf.data)
    scan = Volume(noisy(t2 * (template.brain_mask.data > 0.5)), template.grid.affine)
    assert content_of(scan, "T1w")[0] == "brain", "its contrast is not the template's"
    with pytest.raises(VolumeError, match="looks T2w, not T1w: white matter is -"):
        intake.check_prepared(scan, "T1w")
    intake.check_prepared(brain, "T1w")
    assert intake.contract_problem(scan, "T2w") is None
    assert "looks T1w, not T2w" in intake.contract_problem(brain, "T2w")
    with pytest.raises(VolumeError, match="give T2w brains"):
        find_brain(Volume(scan.data[:, ::-1], scan.affine), modality="T2w", preprocess=True)


def test_a_rim_of_the_skull_and_a_cut_cerebellum_are_refused(template, brain):
    fit = intake.template_fit(brain)
    assert (fit.overlap, fit.outside, fit.cerebellum) == pytest.approx((1, 0, 1), abs=0.05)
    assert intake.contract_problem(brain, "T1w") is None
    _, y, z = template.grid.world_coordinates()
    cut = Volume(np.where((y < -40) & (z < -25), 0, brain.data), brain.affine)
    assert "only 0 % of the cerebellum is inside the brain mask" in intake.contract_problem(cut, "T1w")
    short = Volume(np.where(z > z[brain.data > 0].max() - 32, 0, brain.data), brain.affine)
    assert "covers 0 % of the upper 25 mm of the template's brain" in intake.contract_problem(short, "T1w")
    thick = ndimage.binary_dilation(brain.data > 0, iterations=4)
    rim = Volume(noisy(np.where(thick, np.maximum(brain.data, 150.0), 0)), brain.affine)
    assert "skull or dura is left at its rim" in intake.contract_problem(rim, "T1w")


@pytest.mark.filterwarnings("error")
def test_a_spike_changes_nothing(brain):
    data = brain.data.copy()
    data[tuple(n // 2 for n in data.shape)] = 1e30
    spiked = Volume(data, brain.affine)
    assert intake.contract_problem(spiked, "T1w") is None
    assert intake.template_fit(spiked).correlation == pytest.approx(intake.template_fit(brain).correlation, abs=1e-3)
