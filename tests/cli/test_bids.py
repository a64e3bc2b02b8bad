"""Every folder that is written as a BIDS data set, by the BIDS validator."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import pytest
from nilearn import datasets

from ldae.data.manifest import read_manifest
from ldae.io.bids import TEMPLATE, bids_number, bids_path
from tests.command_line import run

# What the validator would like to know of a scanner or an author that there is not.
WISHES = {"JSON_KEY_RECOMMENDED", "NO_AUTHORS", "SIDECAR_KEY_RECOMMENDED", "TOO_FEW_AUTHORS"}


def test_labels_are_letters_and_digits() -> None:
    assert [bids_number(value) for value in (0.0, 1.5, -2.0, 1e-05)] == ["0", "1p5", "minus2", "1eminus05"]
    assert bids_path(Path(), "sub-1_ses-2", "_T1w.json").as_posix() == "sub-1/ses-2/anat/sub-1_ses-2_T1w.json"


def test_the_template_is_symmetric_as_its_name_says() -> None:
    image = datasets.load_mni152_template(resolution=1)
    left = image.affine[:3, 3]
    assert left[0] + image.shape[0] - 1 == -left[0]  # x = 0 is the middle of the voxels of 1 mm
    assert (image.get_fdata() == image.get_fdata()[::-1]).all()


@pytest.fixture(scope="module")
def validator() -> str:
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.is_file():
        pytest.skip("bids-validator-deno is not installed; it is in the extra 'dev'")
    return str(program)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cohorts, preprocessed scans, edits, interpolations and samples."""
    folder = tmp_path_factory.mktemp("bids")
    small = ("--subjects", "1", "--max-sessions", "2", "--voxel-size", "3", "--displacement")  # two sessions
    assert run("cohort", "synth", "--out", folder / "cohort", *small) == 0
    assert run("cohort", "synth", "--out", folder / "heads", *small, "--raw") == 0
    assert run("cohort", "preprocess", folder / "heads" / "manifest.tsv", "--out", folder / "preprocessed") == 0
    manifest = folder / "preprocessed" / "manifest.tsv"
    subject = read_manifest(manifest).subjects[0]
    for space in ("template", "native"):
        options = ("--space", space, "--device", "cpu", "--precision", "fp32", "--out")
        edit = ("--direction", "ventricles", "--steps", "-1", "1.5", "--counterfactual", "30")
        months = ("--subject", subject, "--months", "2.5", "--draws", "2")
        assert run("reconstruct", manifest, *options, folder / space / "reconstructions") == 0
        assert run("manipulate", manifest, *edit, *options, folder / space / "edits") == 0
        assert run("interpolate", "subject", manifest, *months, *options, folder / space / "months") == 0
    assert run("sample", "--count", "2", "--device", "cpu", "--out", folder / "samples") == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "cohort",
        "heads",
        "heads/derivatives/truth",
        "preprocessed",
        *(f"{space}/{kind}" for space in ("template", "native") for kind in ("reconstructions", "edits", "months")),
        "samples",
    ],
)
def test_the_validator_finds_no_error(validator: str, made: Path, name: str) -> None:
    check(validator, made / name)


@pytest.mark.slow
def test_an_import_from_dicom_is_valid_too(validator: str, tmp_path: Path, make_dicom) -> None:
    make_dicom(tmp_path / "export")
    assert run("cohort", "import", "dicom", tmp_path / "export", "--out", tmp_path / "imported") == 0
    check(validator, tmp_path / "imported")


@pytest.mark.slow
def test_headers_say_which_images_lie_in_mni_space(made: Path) -> None:
    codes = {path: int(nibabel.load(path).header["sform_code"]) for path in made.rglob("*_T1w.nii.gz")}
    in_template = {path for path in codes if f"_space-{TEMPLATE}_" in path.name or path.is_relative_to(made / "cohort")}
    assert {codes[path] for path in in_template} == {4}
    assert 4 not in {codes[path] for path in codes.keys() - in_template}


def check(validator: str, folder: Path) -> None:
    found = subprocess.run([validator, "--format", "json", folder], capture_output=True, text=True, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert not [issue for issue in issues if issue["severity"] == "error"]
    assert {issue["code"] for issue in issues} <= WISHES
