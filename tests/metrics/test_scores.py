import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics

from ldae.metrics.scores import METRICS, Predictions, concordance, score_predictions

N = 60
RNG = np.random.default_rng(0)
CLASSES = np.arange(N) % 3
CHANCES = RNG.dirichlet(np.ones(3), N)
CHANCE = np.round(RNG.uniform(size=N), 1)
AGES = RNG.normal(70, 8, N)
GUESSES = AGES + RNG.normal(0, 5, N)
MONTHS = np.stack([RNG.integers(1, 30, N), RNG.integers(0, 2, N)], axis=1).astype(float)


def one_against_rest(target, values):
    return np.mean([metrics.roc_auc_score(target == k, values[:, k]) for k in range(3)])


@pytest.mark.parametrize(
    ("kind", "name", "target", "values", "expected"),
    [
        ("binary", "auc", CLASSES == 1, CHANCE, metrics.roc_auc_score),
        ("binary", "balanced_accuracy", CLASSES == 1, CHANCE, lambda t, v: metrics.balanced_accuracy_score(t, v > 0.5)),
        ("binary", "sensitivity", CLASSES == 1, CHANCE, lambda t, v: metrics.recall_score(t, v > 0.5)),
        ("binary", "specificity", CLASSES == 1, CHANCE, lambda t, v: metrics.recall_score(t, v > 0.5, pos_label=0)),
        ("binary", "brier", CLASSES == 1, CHANCE, metrics.brier_score_loss),
        ("multiclass", "auc", CLASSES, CHANCES, one_against_rest),
        (
            "multiclass",
            "balanced_accuracy",
            CLASSES,
            CHANCES,
            lambda t, v: metrics.balanced_accuracy_score(t, v.argmax(axis=1)),
        ),
        ("multiclass", "log_loss", CLASSES, CHANCES, metrics.log_loss),
        ("regression", "mae", AGES, GUESSES, metrics.mean_absolute_error),
        ("regression", "rmse", AGES, GUESSES, metrics.root_mean_squared_error),
        ("regression", "r2", AGES, GUESSES, metrics.r2_score),
        ("regression", "r", AGES, GUESSES, lambda t, v: pearsonr(t, v)[0]),
        ("survival", "concordance", MONTHS, GUESSES, concordance),
    ],
)
def test_weights_count_rows_as_often_as_repeating_them(kind, name, target, values, expected):
    target = target.astype(float)
    weights = np.stack([np.ones(N), *np.random.default_rng(1).integers(0, 4, (5, N))])
    found = METRICS[kind][name](target, values, weights)
    rows = [np.repeat(np.arange(N), each.astype(int)) for each in weights]
    np.testing.assert_allclose(found, [expected(target[each], values[each]) for each in rows], atol=1e-10)
    predictions = Predictions(kind, target, np.stack([values, values]), tuple(map(str, range(N))))
    assert predictions.overall(name) == pytest.approx(found[0])


def test_what_cannot_be_computed_is_no_number():
    weights = np.ones((1, 4))
    one = np.ones(4)
    assert np.isnan(METRICS["binary"]["auc"](one, CHANCE[:4], weights)).all()
    assert np.isnan(METRICS["binary"]["specificity"](one, CHANCE[:4], weights)).all()
    assert METRICS["binary"]["brier"](one, one / 2, weights) == [0.25]
    assert np.isnan(METRICS["regression"]["r2"](one, AGES[:4], weights)).all()
    assert METRICS["regression"]["r"](AGES[:4], one / 3, weights) == [0.0]


def test_intervals_hold_their_value():
    people = tuple(map(str, range(N)))
    for name, each in score_predictions(Predictions("regression", AGES, GUESSES[None], people)).items():
        assert each.low < each.value < each.high, name


def test_what_predicts_nothing_has_no_correlation_in_cross_validation():
    """The mean of the other folds is the higher, the lower the fold's own: over all folds it correlates with the target."""
    folds = np.stack([np.random.default_rng(seed).permutation(N) % 5 for seed in range(3)])
    means = np.array([[AGES[row != fold].mean() for fold in row] for row in folds])
    people = tuple(map(str, range(N)))
    assert Predictions("regression", AGES, means, people).overall("r") < -0.05
    assert Predictions("regression", AGES, means, people, folds).overall("r") == 0
    noise = np.random.default_rng(3).normal(size=(200, N))
    for offset in (0.0, 1.0):
        values = noise + offset * (means[:1] - AGES.mean())
        found = Predictions("regression", AGES, values, people, np.repeat(folds[:1], 200, axis=0)).overall("r")
        assert abs(found) < 3 / np.sqrt(200 * N)
