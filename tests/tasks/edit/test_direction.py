"""Nuisances held in images: exact where images answer linearly, however unlike the code they do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ldae.codes import Codes
from ldae.errors import TaskError
from ldae.tasks.edit.direction import hold_in_images, manipulate_codes, project_out, spread
from ldae.tasks.probe.linear import LinearProbe
from ldae.volume import Grid

GRID = Grid((2, 2, 2), np.eye(4))


def probe(*weights: float) -> LinearProbe:
    return LinearProbe(np.zeros(3), np.ones(3), np.array(weights), 0.0, 1.0, False, 1.0)


def scans(count: int = 5) -> list[Codes]:
    rng = np.random.default_rng(0)
    return [Codes(torch.from_numpy(y).float(), None, GRID, (0.0, 1.0)) for y in rng.normal(size=(count, 3))]


def answering(matrix: np.ndarray) -> SimpleNamespace:
    """A model whose images, encoded anew, say `matrix` times the code that they were drawn from."""

    def decode(batch: list[Codes]) -> np.ndarray:
        images = np.zeros((len(batch), 2, 2, 2), np.float32)
        images.reshape(len(batch), -1)[:, :3] = [matrix @ each.semantic.double().numpy() for each in batch]
        return images

    return SimpleNamespace(decode_images=decode, semantic=lambda images: images.reshape(len(images), -1)[:, :3])


MIXED = np.array([[1.0, 0.2, 0.0], [0.5, 0.8, 0.1], [0.3, 0.0, 0.6]])


def test_a_faithful_decoder_needs_no_more_than_the_projection() -> None:
    disease, age = probe(1.0, 1.0, 0.0), probe(0.0, 1.0, 1.0)
    held = hold_in_images(answering(np.eye(3)), scans(), disease, [age])
    np.testing.assert_allclose(held, project_out(disease, [age]), atol=1e-5)


@pytest.mark.parametrize("nuisances", [[probe(0.0, 1.0, 0.3)], [probe(0.0, 1.0, 0.3), probe(0.2, 0.0, 1.0)]])
def test_images_do_not_answer_to_what_is_held(nuisances: list[LinearProbe]) -> None:
    disease, model = probe(1.0, 0.3, 0.0), answering(MIXED)
    held = hold_in_images(model, scans(), disease, nuisances, batch_size=8)
    before = scans(1)[0]

    def said(each: LinearProbe, step: np.ndarray) -> float:
        pair = [before, manipulate_codes(before, step, 1.5)]
        values = each.value(model.semantic(torch.from_numpy(model.decode_images(pair))).double().numpy())
        return float(values[1] - values[0])

    projected = project_out(disease, nuisances)
    assert max(abs(said(each, projected)) for each in nuisances) > 0.1
    assert all(said(each, held) == pytest.approx(0, abs=1e-4) for each in nuisances)
    assert said(disease, held) > 0.1


def test_nothing_to_hold_is_the_probes_own_step_and_nothing_to_measure_on_is_refused() -> None:
    disease = probe(1.0, 0.0, 0.0)
    np.testing.assert_array_equal(hold_in_images(answering(MIXED), [], disease, []), disease.step)
    with pytest.raises(TaskError, match="scans to measure"):
        hold_in_images(answering(MIXED), [], disease, [probe(0.0, 1.0, 0.0)])


def test_rows_are_spread_evenly() -> None:
    assert spread([3, 5, 8], 5) == [3, 5, 8]
    assert spread(list(range(11)), 3) == [0, 5, 10]


def test_projection_never_leads_the_probe_backward_and_is_the_shortest() -> None:
    # Orthogonal in raw features, the step of these two would lower the probe that it is to raise.
    disease = LinearProbe(np.zeros(2), np.array([2.0, 0.5]), np.array([1.0, 1.0]), 0.0, 1.0, False, 1.0)
    age = LinearProbe(np.zeros(2), np.array([2.0, 0.5]), np.array([2.0, 0.6]), 0.0, 1.0, False, 1.0)
    held = project_out(disease, [age])
    assert age.value(held[None])[0] == pytest.approx(0, abs=1e-12)
    assert disease.value(held[None])[0] > 0
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.3, 3.0, 12)
    disease, age = (LinearProbe(np.zeros(12), scale, rng.normal(size=12), 0.0, 1.0, False, 1.0) for _ in range(2))
    held = project_out(disease, [age])
    gain = disease.value(held[None])[0] / np.linalg.norm(held / scale)
    for _ in range(50):
        other = rng.normal(size=12)
        gradient = age.weights / age.scale
        other -= gradient * (gradient @ other) / (gradient @ gradient)
        assert disease.value(other[None])[0] / np.linalg.norm(other / scale) <= gain + 1e-9
