"""Findings on the anatomy of one scan."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ldae.head import registration
from ldae.head.registration import Registration
from ldae.prepare.check.scan import ScanToExamine, examine
from ldae.volume import Volume, write_volume


@pytest.fixture
def head(tmp_path, pose, synthetic_head):
    """A head elsewhere than in template space."""
    return write_volume(synthetic_head(pose((12.0, 8.0, -10.0), (0.9, 0.9, 0.9))), tmp_path / "head.nii.gz")


@pytest.mark.parametrize(
    ("turned", "grown", "word"), [(85.0, 1.0, "turned by 85 degrees"), (5.0, 1.4, "stretched by 1.40")]
)
def test_what_fits_the_template_only_turned_or_stretched_is_not_judged(head, monkeypatch, turned, grown, word):
    affine = np.eye(4)
    affine[:3, :3] = grown * Rotation.from_euler("x", turned, degrees=True).as_matrix()
    weak = Registration(affine, correlation=0.36, coverage=1.0)
    monkeypatch.setattr(registration, "register", lambda *_, **__: weak)
    notes = examine(ScanToExamine("head", head))
    (finding,) = (one for one in notes.findings if one.code == "not-aligned")
    assert finding.message.startswith("registration failed: the best alignment correlates with the template with 0.36")
    assert word in finding.message
    assert not {"not-t1w", "turned"} & {one.code for one in notes.findings}
    monkeypatch.setattr(registration, "register", lambda *_, **__: replace(weak, correlation=0.6))
    codes = {one.code for one in examine(ScanToExamine("head", head)).findings}
    assert "not-aligned" not in codes


def test_a_cut_cerebellum_is_flagged(tmp_path):
    from ldae.atlas import load_template

    template = load_template(2.0)
    inside = template.brain_mask.data > 0.5
    noise = np.random.default_rng(0).normal(size=inside.shape)
    brain = np.where(inside, np.maximum(400 * template.t1.data + 4 * noise, 0.1), 0).astype(np.float32)
    _, y, z = template.grid.world_coordinates()
    for name, data in (("whole", brain), ("cut", np.where((y < -40) & (z < -25), 0, brain))):
        path = write_volume(Volume(data, template.grid.affine), tmp_path / f"{name}.nii.gz")
        codes = {one.code for one in examine(ScanToExamine(name, path)).findings}
        assert ("cerebellum-cut" in codes) == (name == "cut"), codes
        assert "rim-left" not in codes
