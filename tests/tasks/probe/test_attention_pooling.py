"""Attention pooling finds the token that knows, is the linear probe where none stands out, and is a scikit-learn estimator."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import check_estimator

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.errors import ConfigError, TaskError
from ldae.models.semantic_encoder import SemanticEncoderConfig, VolumeEncoderConfig
from ldae.networks import Networks
from ldae.tasks.encode import write_slices
from ldae.tasks.probe.attention_pooling import AttentionPoolingClassifier, AttentionPoolingRegressor
from ldae.tasks.probe.embeddings import Embeddings, read_embeddings
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.models import Features, fit_probe
from ldae.tasks.probe.result import CODES, ProbeSettings
from ldae.tasks.probe.targets import choose_target

TOKENS, FEATURES = 5, 3


def scans(count: int, *, seed: int = 0, known: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of noise, one of which is marked by its last feature and tells the label by its first."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(count, TOKENS, FEATURES)), rng.integers(0, 2, count)
    x[:, :, 2] = 0.0
    x[:, known, 2] = 3.0
    x[:, known, 0] += 3.0 * y
    return x.reshape(count, -1), y


def test_the_token_that_knows_gets_the_weight() -> None:
    (x, y), (asked, truth) = scans(200), scans(400, seed=1)
    pooled = AttentionPoolingClassifier(tokens=TOKENS, alpha=1e-3).fit(x, y)
    mean, mean_asked = (each.reshape(len(each), TOKENS, -1).mean(axis=1) for each in (x, asked))
    of_mean = LogisticRegression().fit(mean, y).score(mean_asked, truth)
    assert pooled.score(asked, truth) > of_mean + 0.05
    weights = pooled.attention(asked)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights.mean(axis=0).argmax() == 2
    assert weights[:, 2].mean() > 0.5


def test_equal_tokens_are_the_ridge_regression_of_one() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(80, 4))
    y = one @ [1.0, -2.0, 0.5, 0.0] + 0.1 * rng.normal(size=80)
    alpha = 0.01
    pooled = AttentionPoolingRegressor(tokens=3, alpha=alpha, iterations=200).fit(np.tile(one, 3), y)
    # The loss is a mean over standardised features and targets; Ridge adds squares.
    scaled = (one - one.mean(axis=0)) / one.std(axis=0)
    ridge = Ridge(alpha=alpha * len(y)).fit(scaled, (y - y.mean()) / y.std())
    expected = ridge.predict(scaled) * y.std() + y.mean()
    np.testing.assert_allclose(pooled.predict(np.tile(one, 3)), expected, atol=1e-3)
    np.testing.assert_allclose(pooled.attention(np.tile(one, 3)), 1 / 3, atol=1e-9)


def test_places_that_differ_much_do_not_draw_attention() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    # All tokens know equally little; their places differ by twenty times what people do.
    x = rng.normal(size=(300, 8, 4)) + 0.5 * y[:, None, None] + 20 * rng.normal(size=(1, 8, 4))
    pooled = AttentionPoolingClassifier(tokens=8, alpha=0.01).fit(x.reshape(300, -1), y)
    assert pooled.attention(x.reshape(300, -1)).mean(axis=0).max() < 0.2


@pytest.mark.slow
def test_confounds_leave_tokens_their_places() -> None:
    x, y = scans(200)
    confound = np.random.default_rng(1).normal(size=(200, 1))
    subjects = [str(n) for n in range(200)]
    plain, controlled = (
        fit_probe(Features(values, confounds, tokens=TOKENS), y.astype(float), subjects, "binary", model="attention")
        for values, confounds in ((x, 0), (np.hstack([x, confound]), 1))
    )
    weights = controlled.attention(np.hstack([x, confound])).mean(axis=0)
    assert weights.argmax() == 2
    np.testing.assert_allclose(weights, plain.attention(x).mean(axis=0), atol=0.1)


def test_the_same_seed_gives_the_same_model_and_tokens_divide_the_columns() -> None:
    x, y = scans(60)
    first, second = (AttentionPoolingClassifier(tokens=TOKENS).fit(x, y).predict_proba(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="tokens of equal width"):
        AttentionPoolingClassifier(tokens=4).fit(np.zeros((4, 10)), [0, 1, 0, 1])


@pytest.mark.parametrize("estimator", [AttentionPoolingClassifier(), AttentionPoolingRegressor()])
def test_scikit_learns_own_checks(estimator) -> None:
    check_estimator(clone(estimator).set_params(iterations=30))


def test_probe_with_attention_reports_which_tokens_count(known_cohort) -> None:
    manifest, embeddings = known_cohort(60)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(embeddings.values), 3, embeddings.values.shape[1] + 1))
    values[:, :, -1] = 0.0
    values[:, 1, :-1], values[:, 1, -1] = embeddings.values, 2.0
    tokens = Embeddings(embeddings.keys, values)
    settings = ProbeSettings(model="attention", resamples=50, permutations=0)
    target = choose_target(manifest, "diagnosis")
    report = evaluate_probe(target, tokens, {"mean": embeddings}, settings=settings)
    assert report.attention is not None
    assert sum(report.attention) == pytest.approx(1)
    assert int(np.argmax(report.attention)) == 1
    assert report.scored[CODES].metrics["auc"].value > 0.6
    assert report.probe is None
    with pytest.raises(TaskError, match="one vector a scan"):
        evaluate_probe(target, embeddings, settings=settings)


def test_slices_become_tokens_and_whole_volumes_have_none(tiny_config, tiny_model, cohort, tmp_path) -> None:
    records = cohort.records[:3]
    found = read_embeddings(write_slices(tiny_model, records, tmp_path / "slices.npz", batch_size=2))
    assert found.tokens == tiny_config.preprocessing.shape[2]
    images = torch.from_numpy(np.stack([tiny_model.prepare_record(each).data for each in records]))[:, None]
    np.testing.assert_allclose(found.of(records), tiny_model.slice_vectors(images), atol=1e-5)
    volumes = replace(
        tiny_config, semantic_encoder=SemanticEncoderConfig(volume=VolumeEncoderConfig(widths=(4,), semantic_width=8))
    )
    with pytest.raises(ConfigError, match="reads whole volumes"):
        LatentDiffusionAutoencoder(volumes, Networks(volumes)).slice_vectors(images)
