"""The training domain of a model."""

import numpy as np
import pytest
import torch

from ldae.errors import CheckpointError
from ldae.metrics.domain import TrainingDomain


def test_distance_is_that_of_mahalanobis_in_units_of_the_validation_scans():
    rng = np.random.default_rng(0)
    spread = np.array([1.0, 5.0, 0.2])
    train, validation = (rng.normal(3.0, spread, (n, 3)) for n in (4000, 1000))
    domain = TrainingDomain.of(train, validation)
    assert np.isclose((domain.distance(validation) > 1).mean(), 0.01, atol=1e-3)
    # Every axis counts in units of its own spread, but for the shrinkage.
    far = domain.mean + 10 * np.diag(spread)
    assert np.allclose(domain.distance(far) / domain.distance(far).mean(), 1, atol=0.1)
    assert domain.distance(domain.mean[None])[0] == 0.0


def test_it_comes_back_from_a_file_of_weights_and_leaves_the_weights_alone():
    rng = np.random.default_rng(1)
    domain = TrainingDomain.of(rng.normal(size=(30, 4)), rng.normal(size=(20, 4)))
    tensors = domain.tensors() | {"weight": None}
    back = TrainingDomain.take_from(tensors, 4, where="m")
    assert list(tensors) == ["weight"]
    codes = rng.normal(size=(5, 4))
    assert np.array_equal(back.distance(codes), domain.distance(codes))
    assert TrainingDomain.take_from(tensors, 4, where="m") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", torch.full((4,), torch.nan)), ("mean", torch.zeros(1)), ("precision", torch.eye(3)), ("edge", None)],
)
def test_a_damaged_one_is_refused(name, value):
    tensors = TrainingDomain.of(np.eye(4), np.eye(4)).tensors()
    damaged = {key: value if key.endswith(name) else each for key, each in tensors.items()}
    with pytest.raises(CheckpointError, match="training domain is damaged"):
        TrainingDomain.take_from({key: each for key, each in damaged.items() if each is not None}, 4, where="m")


def test_equal_codes_lie_inside():
    domain = TrainingDomain.of(np.ones((5, 3)), np.ones((2, 3)))
    assert domain.distance(np.ones((1, 3))).tolist() == [0.0]
