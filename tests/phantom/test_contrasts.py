"""Phantoms of other contrasts: the same brains, told apart by their tissues, and through every stage of a model of their own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.errors import CohortError
from ldae.head.tissue import tissue_contrast
from ldae.phantom.anatomy.tissue import tissue_means, white_matter_factor
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from ldae.phantom.pose import RawConfig
from ldae.phantom.scanner import draw_site
from ldae.phantom.settings import stream
from ldae.volume import read_volume
from tests.command_line import run
from tests.tiny_model import make_tiny_model
from tests.tiny_run import FP32, SMALLEST

CONFIG = PhantomConfig(n_subjects=5, voxel_size_mm=6.0, seed=3, max_sessions=1)
OTHERS = ("FLAIR", "T2w")
FLAIR = SMALLEST[0].replace("{", "{modality: FLAIR, ", 1)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Manifests of the same subjects by modality, with a split."""
    folder = tmp_path_factory.mktemp("contrasts")
    subjects = {"T1w": 5, "FLAIR": 5, "T2w": 2}
    made = {
        m: synthesise_cohort(folder / m, replace(CONFIG, modality=m, n_subjects=n), workers=1)
        for m, n in subjects.items()
    }
    for path in made.values():
        table = pd.read_csv(path, sep="\t")
        split = ["train", "train", "validation", "test", "test"][: len(table)]
        table.assign(split=split).to_csv(path, sep="\t", index=False)
    return made


def test_cohorts_of_one_seed_differ_in_their_images_alone(cohorts):
    tables = {modality: pd.read_csv(path, sep="\t") for modality, path in cohorts.items()}
    truths = {modality: pd.read_csv(path.parent / "phantom_truth.tsv", sep="\t") for modality, path in cohorts.items()}
    state = ["severity", "intracranial_scale", "ventricle_mm", "cortex_mm", "white_matter_darkening"]
    for modality in OTHERS:
        same = tables["T1w"][: len(tables[modality])]
        images = same["image"].str.replace("_T1w.nii.gz", f"_{modality}.nii.gz")
        pd.testing.assert_frame_equal(tables[modality], same.assign(image=images))
        pd.testing.assert_frame_equal(truths[modality][state], truths["T1w"][state][: len(same)])
        assert json.loads((cohorts[modality].parent / "phantom_config.json").read_text())["modality"] == modality
    # As cohorts from before there was a choice.
    assert "modality" not in json.loads((cohorts["T1w"].parent / "phantom_config.json").read_text())
    with pytest.raises(CohortError, match="differ in modality"):
        synthesise_cohort(cohorts["T1w"].parent, replace(CONFIG, modality="FLAIR"))


def test_each_contrast_is_recognised(cohorts):
    for modality, manifest in cohorts.items():
        for path in manifest.parent.rglob(f"*_{modality}.nii.gz"):
            assert tissue_contrast(read_volume(path)).kind == modality, path


def test_white_matter_darkens_in_t1w_and_brightens_toward_grey_matter_elsewhere():
    assert white_matter_factor(0.1, "T1w") == 0.9
    (t1_grey, t1_white, _) = tissue_means()
    for modality in OTHERS:
        grey, white, _ = tissue_means(modality)
        assert white_matter_factor(0.1, modality) > 1
        # White matter that is as dark as grey matter in T1w is as bright as grey matter.
        assert white * white_matter_factor(1 - t1_grey / t1_white, modality) == pytest.approx(grey)


def test_each_modality_has_scanners_of_its_own():
    found = [draw_site(CONFIG.scanner, stream(replace(CONFIG, modality=m), "site", 1)) for m in ("T1w", *OTHERS)]
    assert len({site.gamma for site in found}) == 3


def test_whole_heads_are_t1w(tmp_path, capsys):
    with pytest.raises(CohortError, match="whole heads are T1w"):
        PhantomConfig(modality="FLAIR", raw=RawConfig())
    assert run("cohort", "synth", "--out", tmp_path / "out", "--raw", "--modality", "FLAIR") == 2
    assert "leave out FLAIR (--modality)" in " ".join(capsys.readouterr().err.split())


def test_a_model_of_flair_trains_and_takes_flair_alone(cohorts, tmp_path, capsys):
    settings = ("--config", "quick", *FP32, "--set", FLAIR, *SMALLEST[1:])
    assert run("fit", "all", "--manifest", cohorts["FLAIR"], "--out", tmp_path / "run", *settings) == 0
    model = tmp_path / "run" / "model"
    assert LatentDiffusionAutoencoder.from_pretrained(model).config.preprocessing.modality == "FLAIR"
    assert "A FLAIR brain alone" in (model / "README.md").read_text()
    flair = ("--model", model, *FP32)
    assert run("encode", cohorts["FLAIR"], "--out", tmp_path / "codes", *flair) == 0
    assert run("reconstruct", cohorts["FLAIR"], "--people", "test", "--out", tmp_path / "images", *flair) == 0
    images = list((tmp_path / "images").rglob("*_desc-reconstruction_FLAIR.nii.gz"))
    assert len(images) == 2
    assert all(np.isfinite(read_volume(path).data).all() for path in images)

    make_tiny_model().save_pretrained(tmp_path / "t1w")
    for wrong, right, of in (("T1w", "FLAIR", model), ("FLAIR", "T1w", tmp_path / "t1w")):
        capsys.readouterr()
        assert run("encode", cohorts[wrong], "--out", tmp_path / "none", "--model", of, *FP32) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert f"looks {wrong}, not {right}" in said or "correlation with it" in said, said
    assert not (tmp_path / "none" / "codes.parquet").exists()
