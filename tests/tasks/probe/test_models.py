"""How features are scaled before a probe, and how that is chosen."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from ldae.tasks.probe.linear import LinearProbe
from ldae.tasks.probe.models import CommonScaler, Features, FittedProbe, fit_probe


def test_common_scaling_keeps_what_varies_most_the_largest():
    spread = np.array([0.1, 2.0, 30.0])
    features = np.random.default_rng(0).normal(5.0, spread, (500, 3))
    scaled = CommonScaler().fit_transform(features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(
        scaled.std(axis=0) / scaled.std(axis=0)[0], features.std(axis=0) / features.std(axis=0)[0]
    )
    assert np.isclose((scaled**2).mean(), 1.0)
    assert CommonScaler().fit_transform(np.ones((4, 2))).tolist() == [[0.0, 0.0]] * 4


@pytest.mark.parametrize("scaler", [StandardScaler(), CommonScaler()])
def test_a_step_is_what_goes_with_the_prediction_however_features_were_scaled(scaler):
    """For uncorrelated features it is the covariance of each with the prediction, over the standard deviation of that."""
    rng = np.random.default_rng(2)
    features = np.linalg.qr(rng.normal(size=(200, 6)))[0]
    features = np.linalg.qr(features - features.mean(axis=0))[0] * np.array([9.0, 5.0, 2.0, 1.0, 0.5, 0.1]) + 4.0
    target = features @ rng.normal(size=6) + rng.normal(size=200)
    pipeline = Pipeline([("standardise", scaler), ("model", Ridge(1.0))]).fit(features, target)
    probe = LinearProbe.of(FittedProbe(pipeline, 1.0), features)
    told = pipeline.predict(features)
    np.testing.assert_allclose(probe.value(features), told, atol=1e-9)
    together = (features - features.mean(axis=0)).T @ (told - told.mean()) / len(told)
    np.testing.assert_allclose(probe.step, together / told.std(), atol=1e-9)


@pytest.mark.parametrize(("told_by", "chosen"), [("the largest", CommonScaler), ("the smallest", None)])
def test_the_scaling_is_that_which_predicts_better(told_by, chosen):
    """Of 60 features one tells the target: where it varies most, the others need not be made as large as it is."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 60)) * np.linspace(3.0, 0.1, 60)
    column = 0 if told_by == "the largest" else -1
    target = features[:, column] / features[:, column].std() + 0.3 * rng.normal(size=80)
    fitted = fit_probe(Features(features), target, [str(n) for n in range(80)], "regression")
    assert isinstance(fitted.pipeline.named_steps["standardise"], CommonScaler) == (chosen is CommonScaler)
