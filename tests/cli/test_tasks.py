"""The tasks' commands on a trained model, as they are typed."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.data.manifest import read_manifest
from ldae.io.bids import TEMPLATE, bids_path
from ldae.tasks.probe.embeddings import read_embeddings
from ldae.volume import read_volume, sidecar_path, write_volume
from tests.command_line import run
from tests.heads import textured_head
from tests.tiny_run import FP32, SUBJECTS, assert_complete, few_resamples

WITHOUT_TRUTH = {"random_encoder", "image_pca", "tissue_pca", "tissue_blocks", "latent_pca", "demographics"}
FEW = ("--resamples", "50", "--permutations", "20")


@pytest.fixture
def model(tiny_run):
    """The arguments that name the model and the cohort."""
    return ("--model", tiny_run / "model", "--manifest", tiny_run / "manifest.tsv", *FP32)


def test_study_leaves_everything_it_promises(tiny_run):
    results = assert_complete(tiny_run, baselines=WITHOUT_TRUTH)
    assert results["n_subjects"] == SUBJECTS


def test_a_model_is_refused_before_scans_are_preprocessed(tiny_model, tmp_path, capsys, monkeypatch):
    tiny_model.networks.semantic_encoder.norm.bias.data.fill_(np.nan)
    model = tiny_model.save_pretrained(tmp_path / "model")
    head = write_volume(textured_head(1), tmp_path / "head.nii.gz")
    monkeypatch.setattr("ldae.prepare.preprocess.intake.run_each", None)  # called, it would be a defect
    for command in ("encode", "reconstruct"):
        assert run(command, head, "--model", model, "--out", tmp_path / "out") == 2
        assert "norm.bias are not all finite" in capsys.readouterr().err


def test_codes_are_those_of_the_study_and_can_be_probed(model, tiny_run, tmp_path):
    assert run("encode", *model, "--out", tmp_path / "codes", "--noise", "--baselines") == 0
    codes = tmp_path / "codes" / "codes.parquet"
    studied = pd.read_parquet(tiny_run / "codes.parquet")
    np.testing.assert_allclose(pd.read_parquet(codes).iloc[:, 2:], studied.iloc[:, 2:], atol=1e-4)
    assert list(studied.columns[[2, -1]]) == ["y00", "domain_distance"]
    assert "domain_distance" not in read_embeddings(codes).names
    probe = ("probe", codes, "--manifest", tiny_run / "manifest.tsv", *FEW, "--target")
    assert run(*probe, "age", "--out", tmp_path / "probe") == 0
    assert (tmp_path / "probe" / "report.html").is_file()
    crossed = ("--protocol", "cv", "--folds", "3", "--repeats", "1", "--scans", "first", "--volumes", "age")
    assert run(*probe, "sex", *crossed, "--out", tmp_path / "sex") == 0
    pca = f"pca={tmp_path / 'codes' / 'latent_pca.npz'}@3"
    assert run(*probe, "age", "--out", tmp_path / "b", "--baseline", f"again={codes}", pca) == 0
    for wrong in (("colour",), ("age", "--baseline", "x")):
        assert run(*probe, *wrong, "--out", tmp_path / "none") == 2
        assert not (tmp_path / "none").exists()


def test_a_saved_probe_predicts_for_scans_and_for_their_codes(model, tiny_run, tmp_path, capsys):
    probe = tiny_run / "tasks" / "probe_age_model.json"
    tables = []
    for scans, name in ((tiny_run / "manifest.tsv", "a.csv"), (tiny_run / "codes.parquet", "b.tsv")):
        assert run("predict", probe, scans, *model[:2], *FP32, "--out", tmp_path / name) == 0
        tables.append(pd.read_csv(tmp_path / name, sep="," if name.endswith("csv") else "\t"))
    np.testing.assert_allclose(tables[0]["prediction"], tables[1]["prediction"], rtol=1e-3)
    assert list(tables[0].columns) == ["participant_id", "session_id", "prediction", "distance"]
    assert run("predict", probe, tiny_run / "codes.parquet", *model[:2], "--out", tmp_path / "c.xlsx") == 2
    assert ".csv or .tsv" in capsys.readouterr().err


def test_a_probe_is_tested_on_another_cohort(tiny_run, tmp_path, capsys):
    codes, manifest = pd.read_parquet(tiny_run / "codes.parquet"), pd.read_csv(tiny_run / "manifest.tsv", sep="\t")
    codes.to_csv(tmp_path / "codes.csv", index=False)
    rows = manifest["split"] == "test"
    manifest[~rows].drop(columns="split").to_csv(tmp_path / "here.tsv", sep="\t", index=False)
    manifest[rows].drop(columns="split").to_csv(tmp_path / "there.tsv", sep="\t", index=False)
    here, there = codes[~rows.to_numpy()], codes[rows.to_numpy()]
    here.to_csv(tmp_path / "here.csv", index=False)
    there.to_csv(tmp_path / "there.csv", index=False)
    options = ("--target", "age", *FEW, "--out", tmp_path / "out")
    external = ("--external", tmp_path / "there.csv", tmp_path / "there.tsv")
    assert run("probe", tmp_path / "here.csv", "--manifest", tmp_path / "here.tsv", *options, *external) == 0
    found = json.loads((tmp_path / "out" / "probe_age.json").read_text())
    assert found["counts"]["tested_scans"] == rows.sum()
    assert found["counts"]["trained_scans"] == (~rows).sum()
    assert found["inputs"]["external"].endswith("there.tsv")
    again = (*external, "--baseline", f"x={tmp_path / 'here.csv'}")
    assert run("probe", tmp_path / "here.csv", "--manifest", tmp_path / "here.tsv", *options, *again) == 2
    assert "leave out --protocol cv and --baseline" in capsys.readouterr().err


def test_codes_can_have_a_name_of_their_own_and_need_no_denoiser(model, tiny_run, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ldae.networks.Denoiser", None)
        assert run("encode", *model, "--out", tmp_path / "mine.parquet") == 0
        assert run("encode", *model, "--out", tmp_path / "codes", "--noise") != 0, "noise codes need one"
        shutil.rmtree(tmp_path / "codes", ignore_errors=True)
    capsys.readouterr()
    studied = pd.read_parquet(tiny_run / "codes.parquet")
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "mine.parquet").iloc[:, 2:], studied.iloc[:, 2:], atol=1e-4)
    studied, codes = (read_embeddings(path) for path in (tiny_run / "codes.parquet", tmp_path / "mine.parquet"))
    np.testing.assert_allclose(codes.values, studied.values, atol=1e-4)
    assert codes.origin == studied.origin
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.parquet"]
    assert run("encode", *model, "--out", tmp_path / "other.parquet", "--noise") == 2
    assert "give a folder" in capsys.readouterr().err
    table = pq.read_table(tmp_path / "mine.parquet")
    notes = {key: value.replace(b'"model": "', b'"model": "0') for key, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(notes), tmp_path / "mine.parquet")
    whole = (tmp_path / "mine.parquet").read_bytes()
    before = whole[:8] + bytes(40) + whole[48:]  # the model is known whatever its rows hold
    (tmp_path / "mine.parquet").write_bytes(before)
    assert run("encode", *model, "--out", tmp_path / "mine.parquet") == 2
    assert "holds codes of the model 0" in capsys.readouterr().err
    assert (tmp_path / "mine.parquet").read_bytes() == before


def test_code_usage_is_that_of_the_study(model, tiny_run, tmp_path):
    assert run("code-usage", *model, "--people", "test", "--out", tmp_path) == 0
    found, studied = (json.loads((folder / "code_usage.json").read_text()) for folder in (tmp_path, tiny_run / "tasks"))
    assert found["use"]["gap"]["value"] == pytest.approx(studied["use"]["gap"]["value"], abs=1e-4)


def test_manipulate_writes_edits_and_counterfactuals(model, tiny_run, tmp_path, capsys):
    probe, nuisance = (tiny_run / "tasks" / f"probe_{target}_model.json" for target in ("diagnosis", "age"))
    options = ("--people", "test", "--direction", probe, "--nuisance", nuisance, "--steps", "-1", "1")
    truth = ("--effect", tiny_run / "effect.nii.gz", "--counterfactual", "0.5")
    with few_resamples():
        assert run("manipulate", *model, *options, *truth, "--out", tmp_path) == 0
    edited = list(tmp_path.rglob("*_desc-step0_T1w.nii.gz"))
    found = json.loads((tmp_path / "manipulate.json").read_text())
    assert {"direction", nuisance.stem} == found["findings"]["probe_slopes"].keys()
    assert -1 <= found["effect_correlation"]["effect.nii.gz"] <= 1
    rows = pd.read_csv(tmp_path / "counterfactuals.tsv", sep="\t")
    assert len(rows) == len(edited) == len(list(tmp_path.rglob("*_desc-counterfactual_T1w.nii.gz")))
    reached = rows["step"][rows["reached"]].abs()
    printed = " ".join(capsys.readouterr().out.split())
    assert f"the probe reaches 0.5 in {len(reached)} of {len(rows)} scans" in printed
    assert len(reached) == len(rows) or f"the other {len(rows) - len(reached)} do not within 6 steps" in printed
    assert f"{len(edited) * 3} images ({len(edited)} scans at 3 steps)" in printed
    beyond = (rows["after"] >= 0.5) == (rows["step"] > 0)
    assert beyond[rows["reached"]].all()
    subject = rows["participant_id"].iloc[0]
    one = ("--subject", subject, "--direction", probe, "--steps", "1", "--out", tmp_path / "one")
    assert run("manipulate", *model, *one) == 0
    assert {path.name.split("_ses")[0] for path in (tmp_path / "one").rglob("*.nii.gz")} == {subject}
    assert "nearest to their own" not in capsys.readouterr().out
    deformed = (*one[:-1], tmp_path / "deformed", "--render", "deformed")
    assert run("manipulate", *model, *deformed) == 0
    record = read_manifest(tiny_run / "manifest.tsv")[subject][0]
    zero = bids_path(tmp_path / "deformed", record.stem, f"_space-{TEMPLATE}_desc-step0_T1w.nii.gz")
    loaded = LatentDiffusionAutoencoder.from_pretrained(tiny_run / "model")
    np.testing.assert_array_equal(read_volume(zero).data, loaded.prepare_record(record).data)
    assert json.loads(sidecar_path(zero).read_text())["render"] == "deformed"
    assert run("manipulate", *model, *deformed, "--counterfactual", "0.5") == 2
    assert "leave out --counterfactual or --render deformed" in capsys.readouterr().err


def test_interpolate_scores_and_writes_missing_sessions(model, tmp_path):
    with few_resamples():
        assert run("interpolate", "evaluate", *model, "--people", "all", "--out", tmp_path / "scores") == 0
    subject = ("interpolate", "subject", *model, "--out", tmp_path / "months", "--subject")
    assert run(*subject, "sub-00", "--months", "6") == 0
    assert len(list((tmp_path / "months").rglob("*.nii.gz"))) == 1
    assert run(*subject, "nobody", "--months", "3") == 2


def test_reconstruct_and_sample_write_images(model, tiny_run, tmp_path, capsys):
    assert run("reconstruct", *model, "--people", "test", "--out", tmp_path / "test") == 0
    assert read_volume(next((tmp_path / "test").rglob("*.nii.gz"))).data.max() > 0
    cohort = tiny_run / "manifest.tsv"
    table = read_manifest(cohort)
    one = table.select(np.arange(len(table)) == 0).write(tmp_path / "one.tsv").path
    single = ("--model", tiny_run / "model", *FP32, "--out", tmp_path / "one.nii.gz")
    assert run("reconstruct", cohort, *single) == 2
    assert "takes one scan, got" in capsys.readouterr().err
    assert run("reconstruct", one, *single) == 0
    assert (tmp_path / "one.nii.gz").is_file()
    like = ("--like", tiny_run / "images" / "0_0.nii.gz", "--count", "2")
    assert run("sample", "--model", tiny_run / "model", *like, *FP32, "--out", tmp_path / "drawn") == 0
    assert len(list((tmp_path / "drawn").rglob("*.nii.gz"))) == 2


@pytest.mark.slow
def test_discover_finds_and_draws_directions(model, tmp_path):
    few = ("--components", "2", "--decoder", "1", "--sparse", "8", "--sampling", "steps=1")
    assert run("discover", *model, *few, "--out", tmp_path) == 0
    found = json.loads((tmp_path / "discover.json").read_text())
    assert [len(found["directions"][kind]) for kind in ("principal", "decoder")] == [2, 1]
    assert (tmp_path / "principal-01.png").stat().st_size > 10_000
