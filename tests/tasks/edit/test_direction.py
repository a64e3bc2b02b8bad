"""Nuisances held in images: exact where images answer linearly, however unlike the code they do."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ldae.errors import TaskError
from ldae.tasks.edit.direction import hold_in_images, manipulate_codes, project_out, spread
from ldae.tasks.probe.linear import LinearProbe
from tests.tasks.edit import transparent as model_and_probes
from tests.tasks.edit.transparent import codes_of, transparent

SCANS = codes_of(np.random.default_rng(0).normal(size=(5, 3)))
probe = partial(model_and_probes.probe, logistic=False)
MIXED = np.array([[1.0, 0.2, 0.0], [0.5, 0.8, 0.1], [0.3, 0.0, 0.6]])


def test_a_faithful_decoder_needs_no_more_than_the_projection() -> None:
    disease, age = probe(1.0, 1.0, 0.0), probe(0.0, 1.0, 1.0)
    held = hold_in_images(transparent(np.eye(3)), SCANS, disease, [age])
    np.testing.assert_allclose(held, project_out(disease, [age]), atol=1e-5)


@pytest.mark.parametrize("nuisances", [[probe(0.0, 1.0, 0.3)], [probe(0.0, 1.0, 0.3), probe(0.2, 0.0, 1.0)]])
def test_images_do_not_answer_to_what_is_held(nuisances: list[LinearProbe]) -> None:
    disease, model = probe(1.0, 0.3, 0.0), transparent(MIXED)
    held = hold_in_images(model, SCANS, disease, nuisances)
    before = SCANS[0]

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
    np.testing.assert_array_equal(hold_in_images(transparent(MIXED), [], disease, []), disease.step)
    with pytest.raises(TaskError, match="scans to measure"):
        hold_in_images(transparent(MIXED), [], disease, [probe(0.0, 1.0, 0.0)])


def test_rows_are_spread_evenly() -> None:
    assert spread([3, 5, 8], 5) == [3, 5, 8]
    assert spread(list(range(11)), 3) == [0, 5, 10]


def test_projection_never_leads_the_probe_backward_and_is_the_shortest() -> None:
    # Orthogonal in raw features, the step of these two would lower the probe that it is to raise.
    disease, age = (replace(probe(*weights), scale=np.array([2.0, 0.5])) for weights in ((1.0, 1.0), (2.0, 0.6)))
    held = project_out(disease, [age])
    assert age.value(held[None])[0] == pytest.approx(0, abs=1e-12)
    assert disease.value(held[None])[0] > 0
    with pytest.raises(TaskError, match="nothing of the direction is left"):
        project_out(disease, [disease])
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.3, 3.0, 12)
    disease, age = (replace(probe(*rng.normal(size=12)), scale=scale) for _ in range(2))
    held = project_out(disease, [age])
    gain = disease.value(held[None])[0] / np.linalg.norm(held / scale)
    for _ in range(50):
        other = rng.normal(size=12)
        gradient = age.weights / age.scale
        other -= gradient * (gradient @ other) / (gradient @ gradient)
        assert disease.value(other[None])[0] / np.linalg.norm(other / scale) <= gain + 1e-9
