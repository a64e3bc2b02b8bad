"""`--space native`, as it is typed: what reconstruct, manipulate and interpolate write on the raw scans."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest

from ldae.data.manifest import write_manifest
from ldae.io.bids import TEMPLATE, bids_path
from ldae.io.notice import SYNTHETIC
from ldae.tasks.native.scan import NativeScan
from ldae.tasks.probe.linear import LinearProbe
from ldae.volume import read_volume, sidecar_path
from tests.command_line import run
from tests.tiny_run import FP32


@pytest.fixture
def two_visits(made_scan, tiny_model, tmp_path):
    """One subject's raw and preprocessed scans at months 0 and 12, the arguments that name them, and a probe."""
    made = [
        made_scan(tmp_path, f"sub-1_ses-{n}", turn=(0.2, 0.1 * n, 0.3), bias=0.3, thickening=0.4 * n) for n in range(2)
    ]
    visits = {"session_id": ["ses-0", "ses-1"], "image": [str(each.preprocessed) for each in made], "months": [0, 12]}
    manifest = write_manifest(pd.DataFrame({"participant_id": "sub-1", **visits}), tmp_path / "manifest.tsv")
    model = tiny_model.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    probe = LinearProbe(np.zeros(16), np.ones(16), rng.normal(size=16), 0.0, 3.0, True, 1.0).save(tmp_path / "p.json")
    # The scans are texture in an ellipsoid, known everywhere, and so no brains.
    steps = ("--sampling", "steps=2", "--force")
    return made, ("--model", model, "--manifest", manifest, "--space", "native", *steps, *FP32), probe


def unscaled(path):
    return nibabel.load(path).dataobj.get_unscaled()


def outside(made):
    """Voxels of the raw scan's grid that nothing may change."""
    native = NativeScan.of(made.preprocessed)
    mask = np.ones(native.scan.volume.data.shape, bool)
    mask[native.box] = native.fade == 0
    return mask


def changed_inside(path, made):
    """Voxels of a result that differ from the raw scan, none of them where nothing may change."""
    changed = unscaled(path) != unscaled(made.raw)
    assert not changed[outside(made)].any()
    return changed


def in_native_space(folder, session, what):
    """The file of a result."""
    return bids_path(folder, f"sub-1_ses-{session}", f"_space-native_desc-{what}_T1w.nii.gz")


def assert_marked(path, made, kind):
    """Header and side-car say what it is and where it came from."""
    assert SYNTHETIC in bytes(nibabel.load(path).header["descrip"]).decode()
    facts = json.loads(sidecar_path(path).read_text())
    assert (facts["synthetic"], facts["kind"], facts["space"]) == (True, kind, "native")
    assert facts["source"] == made.raw.name
    np.testing.assert_allclose(facts["affine_native_to_template"], made.to_template)
    return facts


def test_an_edit_of_size_zero_is_the_raw_scan(two_visits, tmp_path, capsys):
    made, arguments, probe = two_visits
    out = tmp_path / "edits"
    command = ("manipulate", *arguments, "--direction", probe, "--steps", "0", "40", "--counterfactual", "0.5")
    assert run(*command, "--out", out) == 0, capsys.readouterr().err
    for n, each in enumerate(made):
        zero, edited, counterfactual = (in_native_space(out, n, what) for what in ("step0", "step40", "counterfactual"))
        np.testing.assert_array_equal(unscaled(zero), unscaled(each.raw))
        np.testing.assert_array_equal(nibabel.load(zero).get_fdata(), nibabel.load(each.raw).get_fdata())
        changed = changed_inside(edited, each)
        assert changed.any()
        facts = assert_marked(edited, each, "edit")
        assert (facts["step"], facts["probe"]) == (40, str(probe))
        assert facts["changed_voxels"] == pytest.approx(changed.sum(), rel=0.05)
        assert assert_marked(zero, each, "edit")["changed_voxels"] == 0
        assert_marked(counterfactual, each, "counterfactual")


def test_a_deformed_edit_moves_the_raw_scan_and_nothing_outside_the_brain(two_visits, tmp_path, capsys):
    made, arguments, probe = two_visits
    command = ("manipulate", *arguments, "--direction", probe, "--steps", "0", "80", "--render", "deformed")
    assert run(*command, "--out", tmp_path / "edits") == 0, capsys.readouterr().err
    for n, each in enumerate(made):
        zero, edited = (in_native_space(tmp_path / "edits", n, what) for what in ("step0", "step80"))
        np.testing.assert_array_equal(unscaled(zero), unscaled(each.raw))
        assert changed_inside(edited, each).any()
        assert assert_marked(edited, each, "edit")["render"] == "deformed"


def test_a_reconstruction_shows_what_the_codes_hold(two_visits, tmp_path, capsys):
    made, arguments, _ = two_visits
    for out, *option in (("codes",), ("detail", "--keep-detail")):
        assert run("reconstruct", *arguments, *option, "--out", tmp_path / out) == 0, capsys.readouterr().err
    shown, kept = (in_native_space(tmp_path / out, 0, "reconstruction") for out in ("codes", "detail"))
    for path in (shown, kept):
        changed_inside(path, made[0])
        assert_marked(path, made[0], "reconstruction")
    # An untrained model holds nothing of the texture; with the detail kept, it is still there.
    native = NativeScan.of(made[0].preprocessed)
    deep, raw = native.fade == 1, read_volume(made[0].raw).data[native.box]
    texture = [np.corrcoef(read_volume(path).data[native.box][deep], raw[deep])[0, 1] for path in (shown, kept)]
    assert texture[1] > texture[0]


def test_months_come_on_the_nearest_visits_raw_scan(two_visits, tmp_path, capsys):
    made, arguments, _ = two_visits
    months = ("--subject", "sub-1", "--months", "0", "3", "9", "12", "--draws", "2")
    assert run("interpolate", "subject", *arguments, *months, "--out", tmp_path / "m") == 0, capsys.readouterr().err
    for month, visit, changes in ((0, 0, False), (3, 0, True), (9, 1, True), (12, 1, False)):
        path = in_native_space(tmp_path / "m", f"month{month}", "interpolated")
        assert changed_inside(path, made[visit]).any() == changes
        facts = assert_marked(path, made[visit], "interpolation")
        assert (facts["month"], facts["session"]) == (month, f"ses-{visit}")
        spread = path.with_name(path.name.replace("interpolated", "uncertainty"))
        assert_marked(spread, made[visit], "uncertainty")
        deviation = read_volume(spread)
        assert deviation.grid == read_volume(made[visit].raw).grid
        assert deviation.data.min() == 0 < deviation.data.max()
        assert not deviation.data[outside(made[visit])].any()


def test_a_scan_without_a_way_back_is_told_before_anything_is_done(two_visits, tmp_path, capsys):
    made, arguments, _ = two_visits
    made[1].raw.write_bytes(b"another file")
    assert run("reconstruct", *arguments, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "1 of 2 scans cannot go back to native space" in printed
    assert "has changed since" in printed
    assert "--space template" in printed
    assert not (tmp_path / "out").exists()
    assert run("reconstruct", *arguments, "--space", "template", "--out", tmp_path / "out") == 0
    template = bids_path(tmp_path / "out", "sub-1_ses-1", f"_space-{TEMPLATE}_desc-reconstruction_T1w.nii.gz")
    assert json.loads(sidecar_path(template).read_text())["space"] == "template"
