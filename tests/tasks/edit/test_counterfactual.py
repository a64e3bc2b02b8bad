"""Counterfactuals against the closed form: a model whose images hold y itself, and a linear probe."""

import numpy as np
import pytest

from ldae.errors import TaskError
from ldae.tasks.edit import counterfactual
from ldae.tasks.edit.counterfactual import FARTHEST, find_counterfactuals
from ldae.tasks.edit.direction import project_out
from tests.tasks.edit.transparent import codes_of, probe, transparent

MODEL = transparent(np.eye(2))


def test_step_is_the_closed_forms_and_just_beyond_it(monkeypatch):
    monkeypatch.setattr(counterfactual, "BISECTIONS", 9)
    asked, starts = probe(3.0, 4.0, intercept=-1.0), [(-0.2, 0.1), (1.0, 1.0), (0.4, -0.5)]
    found = find_counterfactuals(MODEL, codes_of(starts), asked, 0.7, batch_size=2)
    wanted = np.log(0.7 / 0.3)
    for start, each in zip(starts, found, strict=True):
        # The direction has unit length, so a step raises the logit by the norm of the weights, 5.
        exact = (wanted - (np.dot(start, (3.0, 4.0)) - 1.0)) / 5.0
        assert each.reached
        assert 0 <= (each.amount - exact) * np.sign(exact) < FARTHEST / 2**9
        assert (each.after >= 0.7) == (exact > 0)
        assert each.before == pytest.approx(asked.predict(np.array([start]))[0], abs=1e-6)
        moved = np.array(start) + each.amount * np.array([0.6, 0.8])
        np.testing.assert_allclose(each.image.ravel()[:2], moved, atol=1e-5)


def test_nuisance_is_left_alone():
    other = probe(1.0, 0.0, logistic=False)
    asked = probe(3.0, 4.0)
    (found,) = find_counterfactuals(MODEL, codes_of([(0.3, -0.4)]), asked, 0.5, step=project_out(asked, [other]))
    assert found.reached
    assert found.image.ravel()[0] == pytest.approx(0.3, abs=1e-6)
    assert found.after >= 0.5


def test_a_model_that_shows_little_is_searched_farther_and_one_that_shows_nothing_is_said_so():
    weak, none = (
        next(find_counterfactuals(transparent(np.eye(2), gain), codes_of([(-0.4, -0.3)]), probe(3.0, 4.0), 0.9))
        for gain in (0.5, 0.0)
    )
    assert weak.reached
    assert weak.amount > 0.9  # twice the way of a faithful model
    assert not none.reached
    assert none.amount == FARTHEST


def test_numbers_have_targets_in_their_unit(monkeypatch):
    monkeypatch.setattr(counterfactual, "BISECTIONS", 10)
    years = probe(0.0, 10.0, intercept=70.0, logistic=False)
    up, down = find_counterfactuals(MODEL, codes_of([(0, 0.5), (0, -0.5)]), years, 70.0)
    assert up.amount == pytest.approx(-0.5, abs=0.01)
    assert down.amount == pytest.approx(0.5, abs=0.01)


def test_impossible_targets_are_refused():
    with pytest.raises(TaskError, match="between 0 and 1"):
        find_counterfactuals(MODEL, codes_of([(0, 0)]), probe(1.0, 0.0), 1.0)
    with pytest.raises(TaskError, match="3 features"):
        find_counterfactuals(MODEL, codes_of([(0, 0)]), probe(1.0, 0.0, 0.0))
