"""Probes know what features hold and no more; every statistic comes from training subjects."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ldae.data.manifest import Manifest
from ldae.errors import TaskError
from ldae.tasks.probe import evaluate
from ldae.tasks.probe.embeddings import Embeddings
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.folds import cross_validation, frozen_split
from ldae.tasks.probe.learning_curve import learning_curve
from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.models import Features
from ldae.tasks.probe.result import CODES, ProbeSettings
from ldae.tasks.probe.targets import choose_target


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    # Ten draws a point are for published curves; the laws hold of four.
    monkeypatch.setattr(evaluate, "learning_curve", partial(learning_curve, draws=4))


QUICK = ProbeSettings(resamples=100, permutations=99, by=())


def noise_like(embeddings):
    return Embeddings(embeddings.keys, np.random.default_rng(5).normal(size=embeddings.values.shape))


def probed(cohort, column="diagnosis", others=None, *, kind="auto", **settings):
    """Report of a probe of a column."""
    manifest, embeddings = cohort
    return evaluate_probe(choose_target(manifest, column, kind=kind), embeddings, others, replace(QUICK, **settings))


@pytest.fixture(scope="module")
def diagnosed(known_cohort):
    """A probe of diagnoses: cohort, embeddings, target and report."""
    manifest, embeddings = known_cohort()
    report = probed((manifest, embeddings), others={"noise": noise_like(embeddings)})
    return manifest, embeddings, choose_target(manifest, "diagnosis"), report


def test_a_linear_signal_is_found_and_only_that(diagnosed):
    *_, report = diagnosed
    own, noise = report.scored[CODES].metrics, report.scored["noise"].metrics
    assert own["auc"].value > 0.85
    assert own["auc"].low < own["auc"].value <= own["auc"].high
    assert own["balanced_accuracy"].value == pytest.approx((own["sensitivity"].value + own["specificity"].value) / 2)
    assert noise["auc"].low < 0.5 < noise["auc"].high
    assert np.abs(report.probe.weights).argmax() == 0
    assert report.permutation_p == 0.01
    against = {each.against: each for each in report.comparisons}
    assert against["noise"].difference.low > 0
    assert against["noise"].delong.p < 0.01
    assert {"noise", "demographics"} == set(against)
    assert all(each.p_holm >= each.difference.p for each in report.comparisons)


def test_the_same_scans_are_asked_of_everyone_and_by_the_frozen_split(diagnosed):
    manifest, embeddings, target, report = diagnosed
    testing = {(r.participant_id, r.session_id) for r in manifest.in_split("test").records if r.diagnosis != "MCI"}
    assert set(zip(report.table["participant_id"], report.table["session_id"], strict=True)) == testing
    assert report.counts["left_out_scans"] == sum(r.diagnosis == "MCI" for r in manifest.records)
    area = roc_auc_score(report.table["target"], report.table[CODES])
    np.testing.assert_allclose(area, report.scored[CODES].metrics["auc"].value)
    # Test subjects' features never touch the fit, neither of the probe nor of principal components.
    changed = Embeddings(embeddings.keys, embeddings.values.copy())
    changed.values[[record.split == "test" for record in manifest.records]] += 100
    again = evaluate_probe(target, changed, settings=QUICK)
    np.testing.assert_array_equal(again.probe.weights, report.probe.weights)
    (fold,) = frozen_split(target)
    fitted, others = (
        Features(each.of(target.records), components=3).fit(target, fold.trained) for each in (embeddings, changed)
    )
    np.testing.assert_array_equal(fitted.pipeline["reduce"].components_, others.pipeline["reduce"].components_)


def test_an_age_probe_has_the_error_of_its_noise(known_cohort):
    manifest, embeddings = known_cohort(400, noise=0.2)
    report = probed((manifest, embeddings), "age")
    own, median = report.scored[CODES].metrics, report.scored["median"].metrics
    # Noise of 0.2 in a feature of slope 5 is an error of about 1 year; its mean absolute value is 0.8.
    assert own["mae"].value == pytest.approx(0.8, abs=0.15)
    assert own["rmse"].value > own["mae"].value
    assert own["r2"].value > 0.9
    assert median["r2"].value < 0.05
    assert median["mae"].value > 3 * own["mae"].value
    test = [r.split == "test" for r in manifest.records]
    np.testing.assert_allclose(report.probe.predict(embeddings.values[test]), report.table[CODES])


def test_the_correction_takes_age_out_of_the_gap_without_asking_it(known_cohort):
    bias = probed(known_cohort(400, noise=1.0), "age").scored[CODES].age_bias
    assert bias["gap_age_correlation"] < -0.4
    assert abs(bias["gap_age_correlation_corrected"]) < 0.15
    assert bias["mae_corrected"] > 0


def test_order_of_rows_does_not_matter(known_cohort):
    manifest, embeddings = known_cohort()
    target = choose_target(manifest, "age")
    order = np.random.default_rng(0).permutation(len(target))
    report = evaluate_probe(target, embeddings, settings=QUICK)
    other = evaluate_probe(target.select(order), embeddings, settings=QUICK)
    # Folds are drawn by subject; near-ties between penalties may fall either way.
    merged = report.table.merge(other.table, on=["participant_id", "session_id"])
    np.testing.assert_allclose(merged[f"{CODES}_x"], merged[f"{CODES}_y"], atol=0.5)


def test_cross_validation_asks_everybody_once_a_repeat_and_nobody_it_was_fitted_on(known_cohort):
    cohort = known_cohort(60)
    target = choose_target(cohort[0], "diagnosis")
    folds = cross_validation(target, folds=4, repeats=3, seed=1)
    subjects = target.subjects
    for repeat in range(3):
        asked = np.concatenate([fold.tested for fold in folds if fold.repeat == repeat])
        assert sorted(asked) == list(range(len(target)))
    assert all(not set(subjects[fold.trained]) & set(subjects[fold.tested]) for fold in folds)
    assert {tuple(f.tested) for f in folds if f.repeat == 0} != {tuple(f.tested) for f in folds if f.repeat == 1}
    report = probed(cohort, protocol="cv", folds=3, repeats=2)
    assert report.scored[CODES].metrics["auc"].value > 0.85
    assert report.counts["tested_scans"] == len(target)
    assert report.probe is None
    assert report.permutation_p is None
    assert all(each.delong is None for each in report.comparisons)


@pytest.mark.parametrize("model", ["linear", "knn"])
def test_classes_and_columns_of_ones_own(known_cohort, model):
    cohort = known_cohort(120)
    classes = probed(cohort, kind="multiclass", model=model)
    assert classes.target["classes"] == ["AD", "CN", "MCI"]
    assert classes.scored[CODES].metrics["auc"].low > 0.55
    np.testing.assert_allclose(classes.table[[f"{CODES}_{name}" for name in ("AD", "CN", "MCI")]].sum(axis=1), 1)
    score = probed(cohort, "score", model=model)
    assert score.target["kind"] == "regression"
    assert score.scored[CODES].metrics["r"].value > 0.4


def test_every_group_is_scored_or_says_why_not(known_cohort):
    report = probed(known_cohort(150), by=("sex", "site"))
    groups = report.scored[CODES].by_group
    assert set(groups) == {"sex", "site"}
    assert sum(each["scans"] for each in groups["sex"].values()) == report.counts["tested_scans"]
    assert all("auc" in each or "reason" in each for column in groups.values() for each in column.values())


def test_more_labels_help_until_all_are_used(known_cohort):
    curve = probed(known_cohort(120), learning_curve=True).curve
    assert curve.per_class[0] == 1
    assert curve.subjects == [2 * count for count in curve.per_class]
    low, mean, high = (np.array(each[CODES]) for each in (curve.low, curve.mean, curve.high))
    assert mean[-1] > mean[0] + 0.1
    assert ((low <= mean) & (mean <= high)).all()


def test_tokens_are_averaged_and_one_scan_a_person_is_the_first(known_cohort):
    manifest, embeddings = known_cohort()
    offset = np.random.default_rng(3).normal(size=(len(manifest), 8))
    values = np.stack([embeddings.values + offset, embeddings.values - offset], axis=1)
    tokens = replace(embeddings, values=values)
    own, averaged = (probed((manifest, each), "age", scans="first").table for each in (embeddings, tokens))
    np.testing.assert_allclose(own[CODES], averaged[CODES])
    assert set(own["session_id"]) == {"ses-0"}
    assert own["participant_id"].is_unique


def test_too_little_is_refused(known_cohort):
    manifest, embeddings = known_cohort()
    target = choose_target(manifest, "diagnosis")
    alone = target.select(np.flatnonzero(target.values == 1))
    with pytest.raises(TaskError, match="1 of 2 classes"):
        evaluate_probe(alone, embeddings, settings=QUICK)
    unseen = manifest.table.copy()
    unseen.loc[unseen.index[-1], "diagnosis"] = "FTD"  # of a test subject
    four = choose_target(Manifest(manifest.path, unseen), "diagnosis", kind="multiclass")
    with pytest.raises(TaskError, match="3 of 4 classes"):
        evaluate_probe(four, embeddings, settings=QUICK)
    with pytest.raises(TaskError, match="hold no row for"):
        evaluate_probe(target, Embeddings(embeddings.keys.iloc[:50], embeddings.values[:50]), settings=QUICK)
    with pytest.raises(TaskError, match="too few for cross-validation with 200 folds"):
        cross_validation(target, folds=200)
    with pytest.raises(TaskError, match="--protocol cv"):
        frozen_split(target.select(np.arange(10)))
    nobody = replace(target, records=tuple(replace(record, split=None) for record in target.records))
    with pytest.raises(TaskError, match="the manifest has no split to keep to"):
        frozen_split(nobody)
    with pytest.raises(TaskError, match="name them and say how"):
        evaluate_probe(target, embeddings, settings=replace(QUICK, control="residualise"))


def test_numbers_that_only_asked_people_lack_are_filled_in(known_cohort):
    manifest, embeddings = known_cohort(60)
    table = manifest.table.copy()
    table.loc[table["split"] == "test", "age"] = np.nan
    manifest = Manifest(manifest.path, table)
    for settings in ({}, {"protocol": "cv", "folds": 2, "repeats": 1, "learning_curve": True}):
        report = probed((manifest, embeddings), **settings)
        assert np.isfinite(report.table["demographics"]).all()


@pytest.mark.slow
def test_learning_curves_leave_confounds_out_too(known_cohort):
    """Features of nothing but noise: with sex regressed out, neither the probe nor its learning curve knows sex."""
    manifest, embeddings = known_cohort(150)
    cohort = manifest, noise_like(embeddings)
    report = probed(cohort, confounds=("age",), control="residualise", learning_curve=True)
    assert report.curve.mean[CODES][-1] == pytest.approx(report.scored[CODES].metrics["auc"].value, abs=0.1)
    assert report.curve.mean[CODES][-1] < 0.65


@pytest.mark.parametrize(("name", "value"), [("folds", 1), ("repeats", 0), ("resamples", 0), ("permutations", -1)])
def test_settings_that_mean_nothing_are_refused(name, value):
    with pytest.raises(TaskError, match=name):
        ProbeSettings(**{name: value})


def test_what_is_written_is_what_was_found(diagnosed, tmp_path):
    _, embeddings, _, report = diagnosed
    results, table, model = report.write(tmp_path)
    plain = json.loads(results.read_text())
    assert plain["scored"][CODES]["metrics"]["auc"]["value"] == report.scored[CODES].metrics["auc"].value
    assert len(plain["predictions"]["target"]) == len(table.read_text().splitlines()) - 1
    back = LinearProbe.load(model)
    np.testing.assert_array_equal(back.predict(embeddings.values), report.probe.predict(embeddings.values))
