"""Missing sessions in a study: which cases are kept to look at, and that their images are those that were scored."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ldae.metrics.change import change_error
from ldae.tasks.longitudinal.interpolate import find_triples
from ldae.tasks.longitudinal.study import shown_cases, study_interpolation


class Result:
    """What is asked of a result."""

    own = "ldae_residual"

    def __init__(self, errors):
        others = pd.DataFrame({"method": "voxel_linear", "change_error": errors[::-1]})
        own = pd.DataFrame({"method": self.own, "change_error": errors})
        self.table = pd.concat([others, own], ignore_index=True)


@pytest.mark.parametrize(
    ("errors", "cases"),
    [
        ([0.4], {"only": 0}),
        ([0.9, 0.4], {"typical": 1, "worst": 0}),
        ([0.5, 0.9, 0.4], {"typical": 0, "worst": 1}),
        ([0.7, 0.7, 0.7], {"typical": 1, "worst": 2}),
    ],
)
def test_a_typical_and_the_worst_case_are_chosen_by_the_own_method(errors, cases):
    assert shown_cases(Result(errors)) == cases


@pytest.mark.parametrize("returning", [True, False])
def test_shown_images_are_those_that_were_scored(tiny_model, scans, tmp_path, returning):
    decoded = tiny_model.decode_images(scans.codes)
    people = scans if returning else scans.select([0, 3])
    extra = (replace(r, participant_id=r.participant_id + "b") for r in people.records)
    training = replace(people.select([*range(len(people))] * 2), records=(*people.records, *extra))
    results = study_interpolation(tiny_model, scans, decoded, find_triples(scans), training, tmp_path)
    assert results["own"] == ("trajectory_residual" if returning else "ldae_residual")
    assert "groups" not in results
    shown = json.loads((tmp_path / "interpolate.json").read_text())["shown"]
    assert [each["case"] for each in shown] == ["typical", "worst"]
    errors = [each["change_error"][results["own"]] for each in shown]
    assert errors[0] <= errors[1]
    with np.load(tmp_path / "interpolate.npz") as arrays:
        for at, facts in enumerate(shown):
            first, target, predicted, blend = (
                arrays[name][at].astype(np.float32) for name in ("first", "target", "predicted", "voxel_linear")
            )
            assert change_error(predicted, target, first) == pytest.approx(errors[at], rel=0.02)
            assert change_error(blend, target, first) == pytest.approx(facts["change_error"]["voxel_linear"], rel=0.02)
