"""Confounds: taken out, matched, and of predicted ages."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import check_estimator

from ldae.data.manifest import build_manifest
from ldae.errors import TaskError
from ldae.tasks.probe.confounds import demographics, encode_columns, match_classes
from ldae.tasks.probe.embeddings import embeddings_of
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.models import Residualise
from ldae.tasks.probe.result import CODES, ProbeSettings
from ldae.tasks.probe.targets import choose_target

QUICK = ProbeSettings(resamples=100, permutations=0, by=())


@pytest.fixture
def confounded():
    """People whose disease goes with age, and features that know age and nothing else."""
    rng = np.random.default_rng(0)
    n = 300
    age = rng.uniform(55, 90, n)
    ill = rng.random(n) < 1 / (1 + np.exp(-(age - 72) / 5))
    table = pd.DataFrame(
        {
            "participant_id": [f"s{i:03d}" for i in range(n)],
            "session_id": "M00",
            "image": "x.nii.gz",
            "age": age,
            "sex": rng.choice(["F", "M"], n),
            "diagnosis": np.where(ill, "AD", "CN"),
            "split": np.where(np.arange(n) < 180, "train", "test"),
        }
    )
    manifest = build_manifest(table, "m.tsv")
    features = rng.normal(size=(n, 4))
    features[:, 0] = (age - 72) / 10 + 0.2 * rng.normal(size=n)
    return manifest, embeddings_of(manifest.records, features)


def test_features_that_know_age_alone_know_nothing_once_it_is_controlled(confounded):
    manifest, embeddings = confounded
    target = choose_target(manifest, "diagnosis")
    plain = evaluate_probe(target, embeddings, settings=QUICK).scored[CODES].metrics["auc"]
    assert plain.low > 0.7
    for control in ("residualise", "match"):
        settings = replace(QUICK, confounds=("age",), control=control)
        auc = evaluate_probe(target, embeddings, settings=settings).scored[CODES].metrics["auc"]
        assert auc.low < 0.5 + 0.08
        assert auc.value < plain.value - 0.15


def test_matched_people_are_alike(confounded):
    manifest, _ = confounded
    target = choose_target(manifest, "diagnosis")
    matched = target.select(match_classes(target, ("age", "sex")))
    people = pd.DataFrame([{"age": r.age, "sex": r.sex} for r in matched.records]).assign(ill=matched.values)
    ill, well = people[people["ill"] == 1], people[people["ill"] == 0]
    assert len(ill) == len(well) > 20
    assert abs(ill["age"].mean() - well["age"].mean()) < 1.5
    assert (ill["sex"] == "F").sum() == (well["sex"] == "F").sum()
    with pytest.raises(TaskError, match="only two classes"):
        match_classes(choose_target(manifest, "age"), ("sex",))


def test_residuals_know_nothing_of_their_confounds_in_a_transformer_as_scikit_learns():
    rng = np.random.default_rng(1)
    confound = rng.normal(size=(200, 2))
    features = confound @ rng.normal(size=(2, 5)) + rng.normal(size=(200, 5))
    both = np.concatenate([features, confound], axis=1)
    residual = Residualise(2).fit_transform(both)
    assert residual.shape == (200, 5)
    np.testing.assert_allclose(residual.T @ (confound - confound.mean(axis=0)), 0, atol=1e-8)
    np.testing.assert_allclose(residual.mean(axis=0), features.mean(axis=0))
    np.testing.assert_array_equal(Residualise(0).fit_transform(both), both)
    check_estimator(Residualise())


def test_demographics_are_what_is_known_and_not_the_target(confounded):
    manifest, _ = confounded
    diagnosis = choose_target(manifest, "diagnosis")
    assert demographics(diagnosis, ("age", "sex", "site")).values.shape == (300, 2)
    assert demographics(choose_target(manifest, "sex"), ("sex", "site")) is None
    assert encode_columns(diagnosis.records, ["sex"])[:, 0].mean() == np.mean([r.sex == "M" for r in manifest.records])
    with pytest.raises(TaskError, match="leave it out"):
        encode_columns(diagnosis.records, ["site"])
    age, settings = choose_target(manifest, "age"), replace(QUICK, confounds=("age",), control="residualise")
    with pytest.raises(TaskError, match="cannot be a confound of itself"):
        evaluate_probe(age, embeddings_of(manifest.records, np.ones((300, 1))), settings=settings)


def test_a_bias_is_measured_of_reduced_features_too(confounded):
    """As many components as people to fit on: folds of them must not ask for more."""
    manifest, embeddings = confounded
    wide = replace(embeddings, values=np.random.default_rng(2).normal(size=(300, 400)), components=300)
    report = evaluate_probe(choose_target(manifest, "age"), embeddings, {"wide": wide}, QUICK)
    assert abs(report.scored[CODES].age_bias["gap_age_correlation_corrected"]) < 0.2
    assert np.isfinite(report.scored["wide"].metrics["mae"].value)
