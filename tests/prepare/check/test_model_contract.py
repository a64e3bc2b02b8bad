"""The contract of a model, against scans that meet it and scans that break it in one way each."""

import json
from pathlib import Path

import numpy as np
import pytest

from ldae.atlas import load_template
from ldae.contract import Preprocessing
from ldae.errors import CheckpointError
from ldae.head.findings import ERROR
from ldae.head.intensities import SkullState
from ldae.prepare.check.model_contract import check_contract, read_contract
from ldae.volume import Volume

CONTRACT = Preprocessing(shape=(32, 40, 32), voxel_size_mm=5.0)


def brain(shift_mm: float = 0.0) -> Volume:
    template = load_template(4.0)
    affine = np.array(template.grid.affine)
    affine[1, 3] += shift_mm
    return Volume(700 * template.t1.data, affine)


def write_model(folder: Path, plain: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"format": 1, "autoencoder": {"preprocessing": plain}}))
    return folder


def test_the_contract_is_read_without_weights(tmp_path: Path) -> None:
    plain = {"shape": [32, 40, 32], "voxel_size_mm": 5.0, "centre_mm": [0, -17, 5], "percentiles": [0.5, 99.5]}
    assert read_contract(write_model(tmp_path / "model", plain)) == CONTRACT


@pytest.mark.parametrize("plain", [None, {"sharpness": 3}, {"voxel_size_mm": -1.0}])
def test_a_contract_that_cannot_be_read_is_refused(tmp_path: Path, plain: object) -> None:
    with pytest.raises(CheckpointError, match="copy the model folder again"):
        read_contract(write_model(tmp_path / "model", plain))


def test_a_brain_in_template_space_meets_it_and_each_breach_names_the_command_that_mends_it() -> None:
    assert check_contract(CONTRACT, brain(), SkullState.BRAIN) == []
    (head,) = check_contract(CONTRACT, brain(), SkullState.HEAD)
    assert (head.severity, head.code) == (ERROR, "contract")
    assert "ldae cohort preprocess --manifest" in head.remedy
    for elsewhere in (60.0, 500.0):
        (moved,) = check_contract(CONTRACT, brain(elsewhere), SkullState.BRAIN)
        assert moved.severity == ERROR
        assert "--already-stripped" in moved.remedy
    (mask,) = check_contract(CONTRACT, load_template(4.0).brain_mask, SkullState.BRAIN)
    assert "one intensity" in mask.message
    # Coarse voxels are a warning.
    fine = Preprocessing(shape=(80, 96, 80), voxel_size_mm=1.9)
    assert [finding.severity.word for finding in check_contract(fine, brain(), SkullState.BRAIN)] == ["warning"]
