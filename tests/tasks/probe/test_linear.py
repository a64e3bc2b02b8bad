"""A saved probe says the same of other scans as the model that it was taken from."""

import json

import numpy as np
import pandas as pd
import pytest

from ldae.codes import Origin
from ldae.errors import TaskError
from ldae.tasks.probe.linear import LinearProbe, predict, write_predictions

ORIGIN = Origin("abc" * 10, {}, "1")
KEYS = pd.DataFrame({"participant_id": ["a", "b", "c"], "session_id": ["1", "1", "2"]})


@pytest.fixture
def probe() -> LinearProbe:
    mean, scale = np.array([1.0, -2.0]), np.array([2.0, 0.5])
    return LinearProbe(mean, scale, np.array([0.6, -0.8]), 0.3, 1.0, True, 1.0, ORIGIN)


def test_a_saved_probe_predicts_as_before(probe, tmp_path):
    codes = np.array([[1.0, -2.0], [3.0, -2.0], [1.0, 8.0]])
    found = predict(LinearProbe.load(probe.save(tmp_path / "probe.json")), KEYS, codes, ORIGIN)
    np.testing.assert_allclose(found["prediction"], 1 / (1 + np.exp(-(0.3 + np.array([0.0, 0.6, -16.0])))))
    np.testing.assert_allclose(found["distance"], np.sqrt([0.0, 0.5, 200.0]))
    pd.testing.assert_frame_equal(found[["participant_id", "session_id"]], KEYS)
    for name in ("table.csv", "table.tsv"):
        assert write_predictions(tmp_path / name, found) == ["c"], "far from the training scans"
        back = pd.read_csv(tmp_path / name, sep=None, engine="python", dtype={"session_id": str})
        pd.testing.assert_frame_equal(back, found, rtol=1e-5)


def test_codes_of_another_model_or_width_are_refused(probe):
    with pytest.raises(TaskError, match="codes of two models do not compare"):
        predict(probe, KEYS, np.zeros((3, 2)), Origin("other" * 6, {}, "1"))
    with pytest.raises(TaskError, match=r"reads 2 features, the codes are \(3, 5\)"):
        predict(probe, KEYS, np.zeros((3, 5)), ORIGIN)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": [1.0]}, r"mean, scale, weights must be of one length, got \[2, 2, 1\]"),
        ({"mean": [1.0, float("inf")]}, "mean must be a list of finite numbers, got inf"),
        ({"mean": 1.0}, "mean must be a list of finite numbers, got 1.0"),
        ({"mean": [[1.0], [2.0, 3.0]]}, r"mean must be a list of finite numbers, got \[1.0\]"),
        ({"mean": [], "scale": [], "weights": []}, r"mean must be a list of finite numbers, got \[\]"),
        ({"weights": ["1", "2"]}, "weights must be a list of finite numbers, got '1'"),
        ({"scale": [1.0, 0.0]}, "scale must be a list of finite numbers above 0, got 0.0"),
        ({"intercept": 10**400}, "intercept must be a finite number, got 1000"),
        ({"intercept": [1.0]}, r"intercept must be a finite number, got \[1.0\]"),
        ({"spread": None}, "spread must be a finite number from 0 on, got None"),
        ({"spread": -1.0}, "spread must be a finite number from 0 on, got -1.0"),
        ({"penalty": {"a": 1}}, "penalty must be a finite number above 0, got {'a': 1}"),
        ({"penalty": True}, "penalty must be a finite number above 0, got True"),
        ({"logistic": "x"}, "logistic must be true or false, got 'x'"),
        ({"origin": {"model": "m", "preprocessing": [1], "version": "1"}}, "the origin must hold model"),
        ({"origin": "x"}, "the origin must hold model"),
        ({"other": 1}, "it must hold mean, scale, .*, got .*, other"),
    ],
)
def test_a_saved_probe_of_other_fields_is_refused_by_file_and_field(tmp_path, values, message):
    path = LinearProbe(np.zeros(2), np.ones(2), np.ones(2), 0.1, 1.0, True, 1.0).save(tmp_path / "probe.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(TaskError, match=rf"probe.json: not a saved probe \({message}"):
        LinearProbe.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 200_000, "nested too deeply"), ("[1]", r"it must hold mean, .* got \[1\]"), ("{}", "it must hold mean")],
)
def test_a_file_that_is_no_probe_is_refused(tmp_path, text, message):
    (tmp_path / "probe.json").write_text(text)
    with pytest.raises(TaskError, match=message):
        LinearProbe.load(tmp_path / "probe.json")
