"""Forecasts of a measured value: laws of the model, no leak from later visits, errors, files."""

import json

import numpy as np
import pandas as pd
import pytest

from ldae.data.manifest import Manifest, read_manifest
from ldae.errors import TaskError
from ldae.tasks.longitudinal.forecast import OWN, forecast
from ldae.tasks.longitudinal.trajectory import fit_trajectory_prior
from ldae.tasks.probe.embeddings import embeddings_of
from tests.command_line import run
from tests.records import record_of

CODE = OWN["code"]
MONTHS = (0.0, 12.0, 24.0, 36.0)


def cohort(tmp_path, rng, *, subjects=120, noise=0.1, spread=0.02, visits=4):
    """Subjects whose volume rises with their stage; the code shows the stage, and the diagnosis its sign."""
    rows, codes = [], []
    for subject in range(subjects):
        stage, level = rng.normal(), 30 + 5 * rng.normal()
        slope = 0.1 + 0.08 * stage + spread * rng.normal()
        for month in MONTHS[:visits]:
            rows.append(
                {
                    "participant_id": f"sub-{subject:03d}",
                    "session_id": f"ses-M{month:02.0f}",
                    "image": "scan.nii.gz",
                    "diagnosis": "AD" if stage + 0.3 * rng.normal() > 0 else "CN",
                    "months": month,
                    "split": "train" if subject % 2 else "test",
                    "volume_ml": level + slope * month + noise * rng.normal(),
                }
            )
            codes.append([stage + 0.1 * rng.normal(), *rng.normal(size=3)])
    path = tmp_path / "cohort.tsv"
    table = pd.DataFrame(rows)
    # One diagnosis a subject.
    table["diagnosis"] = table.groupby("participant_id")["diagnosis"].transform("first")
    table.to_csv(path, sep="\t", index=False)
    return path, np.array(codes)


def opened(path, codes):
    manifest = read_manifest(path, images=False)
    return embeddings_of(manifest.records, codes), manifest


def test_the_code_tells_how_fast_subjects_change(tmp_path):
    codes, manifest = opened(*cohort(tmp_path, np.random.default_rng(0)))
    result = forecast(codes, manifest, "volume_ml", resamples=200)
    assert len(result.cases) == 60 * 6
    for rival in ("last value", "mean slope", "own line", "mixed model"):
        assert result.differences[rival].high < 0, rival
    assert result.errors[CODE].value < 0.7 * result.errors["mixed model"].value
    # The diagnosis shows the sign of the stage alone.
    recorded = forecast(codes, manifest, "volume_ml", stage_from="record", resamples=50)
    assert result.errors[CODE].value < recorded.errors[recorded.own].value < result.errors["mixed model"].value


def test_intervals_hold_as_many_values_as_they_say(tmp_path):
    codes, manifest = opened(*cohort(tmp_path, np.random.default_rng(1), subjects=200))
    assert 0.86 <= forecast(codes, manifest, "volume_ml", resamples=50).coverage.value <= 0.94


def test_exact_lines_are_continued_exactly(tmp_path):
    codes, manifest = opened(*cohort(tmp_path, np.random.default_rng(2), noise=0.0, subjects=40))
    result = forecast(codes, manifest, "volume_ml", resamples=50)
    known = result.cases[result.cases["visits"] > 1]
    np.testing.assert_allclose(known[CODE], known["volume_ml"], atol=1e-3)
    later = result.future.set_index(["participant_id", "months_ahead"])["volume_ml"]
    of = manifest.table.pivot(index="participant_id", columns="months", values="volume_ml").astype(float)
    expected = of[36.0] + (of[36.0] - of[24.0])
    np.testing.assert_allclose(later.xs(12, level=1).sort_index(), expected.sort_index(), atol=1e-3)


def test_later_visits_of_test_subjects_change_no_forecast(tmp_path):
    path, codes = cohort(tmp_path, np.random.default_rng(3), subjects=40)
    before = forecast(*opened(path, codes), "volume_ml", resamples=50).cases
    table = pd.read_csv(path, sep="\t")
    late = (table["split"] == "test") & (table["months"] == 36)
    table.loc[late, "volume_ml"] += 100
    table.loc[table["split"] == "test", "diagnosis"] = "CN"
    table.to_csv(path, sep="\t", index=False)
    after = forecast(*opened(path, codes), "volume_ml", resamples=50).cases
    columns = ["last value", "mean slope", "own line", "mixed model", CODE, "margin"]
    pd.testing.assert_frame_equal(before[columns], after[columns])


def test_a_slope_that_depends_on_covariates_is_found():
    rng = np.random.default_rng(4)
    records, values, covariates = [], [], []
    for subject in range(300):
        x = rng.normal()
        slope = 0.5 - 0.3 * x + 0.05 * rng.normal()
        for month in MONTHS:
            records.append(record_of(f"sub-{subject}", f"ses-{month:.0f}", months=month))
            values.append([slope * month + 0.2 * rng.normal()])
            covariates.append([1.0, x])
    prior = fit_trajectory_prior(records, np.array(values), np.array(covariates))
    np.testing.assert_allclose(prior.slope[:, 0], [0.5, -0.3], atol=0.015)
    assert np.sqrt(prior.slope_variance[0]) == pytest.approx(0.05, abs=0.01)


def test_what_cannot_be_forecast_is_refused(tmp_path):
    path, codes = cohort(tmp_path, np.random.default_rng(5), subjects=24)
    features, manifest = opened(path, codes)
    with pytest.raises(TaskError, match="no column nose"):
        forecast(features, manifest, "nose")
    table = manifest.table
    with pytest.raises(TaskError, match="training and test subjects"):
        forecast(features, manifest.select((table["split"] == "train").to_numpy()), "volume_ml")
    three = Manifest(path, table.assign(diagnosis=np.resize(["a", "b", "c"], len(table))))
    with pytest.raises(TaskError, match="3 classes"):
        forecast(features, three, "volume_ml")
    with pytest.raises(TaskError, match="take the stage from the code"):
        forecast(
            features,
            Manifest(path, table.assign(stage=table["months"])),
            "volume_ml",
            stage="stage",
            stage_from="record",
        )
    first = manifest.select(((table["split"] == "train") | (table["months"] == 0)).to_numpy())
    with pytest.raises(TaskError, match="no test subject has two visits"):
        forecast(features, first, "volume_ml")


def test_the_command_writes_forecasts_and_their_test(tmp_path, capsys):
    path, codes = cohort(tmp_path, np.random.default_rng(6), subjects=40)
    columns = {f"y{index}": column for index, column in enumerate(codes.T)}
    keys = pd.read_csv(path, sep="\t")[["participant_id", "session_id"]]
    keys.assign(**columns).to_csv(tmp_path / "codes.csv", index=False)
    out = tmp_path / "out"
    words = ["forecast", tmp_path / "codes.csv", "--manifest", path, "--target", "volume_ml", "--out", out]
    assert run(*words, "--months", "6", "18", "--resamples", "50") == 0
    assert "90 % prediction intervals hold" in capsys.readouterr().out
    future = pd.read_csv(out / "forecast_volume_ml.csv")
    assert len(future) == 40 * 2
    assert (future["low"] < future["volume_ml"]).all()
    found = json.loads((out / "forecast_volume_ml.json").read_text())
    assert found["own"] == CODE
    assert found["cases"] == 20 * 6
