"""What edits are said to do is what was done to them."""

from dataclasses import replace

import numpy as np
import pytest

from ldae.codes import Codes
from ldae.data.manifest import Record
from ldae.errors import TaskError
from ldae.tasks.edit.evaluate import effect_map, evaluate_edits, map_edit
from ldae.tasks.edit.manipulate import Edits
from ldae.tasks.encode import EncodedScans
from ldae.tasks.probe.linear import LinearProbe
from ldae.volume import Grid

STEPS = (-1.0, 0.0, 1.0, 2.0)
SHAPE = (6, 7, 5)


def probe(*weights, intercept=0.0, logistic=True):
    size = len(weights)
    return LinearProbe(np.zeros(size), np.ones(size), np.array(weights), intercept, 1.0, logistic, 1.0)


@pytest.fixture
def people():
    """Twelve people, the last half ill; a brain is 1 or more, and the ill are brighter in one corner by 0.3."""
    import torch

    rng = np.random.default_rng(0)
    records, images = [], []
    field = np.zeros(SHAPE, np.float32)
    field[1:3, 1:3, 1:3] = 0.3
    for index in range(12):
        age = 60.0 + 5 * (index % 6)
        ill = index >= 6
        image = np.zeros(SHAPE, np.float32)
        image[1:-1, 1:-1, 1:-1] = 0.4 + 0.1 * rng.random() + 0.02 * rng.normal(size=(4, 5, 3)) + 0.002 * (age - 70)
        images.append(image + ill * field)
        diagnosis = "AD" if ill else "CN"
        records.append(Record(f"s{index}", "M00", "x", age, "FM"[index % 2], diagnosis, 0.0, None, "test", {}))
    codes = tuple(
        Codes(torch.tensor([float(index), -1.0], dtype=torch.float32), None, Grid(SHAPE, np.eye(4)), (0.0, 1.0))
        for index in range(12)
    )
    return EncodedScans(tuple(records), np.stack(images), codes, np.zeros((12, 1, 1, 1, 1), np.float32)), field


def edit(scans, field, direction=(0.1, 0.5)):
    """Edits that add the field, and move y along a direction."""
    found = []
    for row in range(len(scans)):
        images = np.stack([scans.images[row] + amount * field for amount in STEPS])
        semantic = scans.semantic[row] + np.outer(STEPS, direction)
        found.append(Edits(STEPS, images, semantic, [0.0] * 4, {}))
    return found


def test_every_probe_is_asked_and_slopes_are_what_codes_moved(people):
    scans, field = people
    others = {"age": probe(1.0, 0.0, logistic=False), "blind": probe(5.0, -1.0, logistic=False)}
    findings = evaluate_edits(edit(scans, field), scans, probe(0.0, 2.0), others)
    assert findings.probe_slopes["direction"].value == pytest.approx(2.0 * 0.5)
    assert findings.probe_slopes["age"].value == pytest.approx(0.1)
    assert findings.probe_slopes["blind"].value == pytest.approx(0.0, abs=1e-12)
    assert findings.probes["age"][1] == pytest.approx(scans.semantic[:, 0].mean())
    # All start at a logit of -2 and rise by 1 a step: at step 2 they are at one half.
    assert findings.flipped == 1.0
    assert findings.flip_step == pytest.approx(2.0)
    assert findings.outside_brain == 0


def test_identity_is_lost_where_people_become_others(people):
    scans, field = people
    kept = evaluate_edits(edit(scans, field * 0), scans, probe(0.0, 1.0))
    assert kept.own_nearest_image == [1.0] * 4
    swapped = edit(scans, field * 0)
    swapped[0] = replace(swapped[0], images=np.stack([scans.images[1]] * 4))
    assert evaluate_edits(swapped, scans, probe(0.0, 1.0)).own_nearest_image == pytest.approx([11 / 12] * 4)
    far = evaluate_edits(edit(scans, field, direction=(10.0, 0.0)), scans, probe(0.0, 1.0))
    assert far.own_nearest_code[1] == 1.0
    assert far.own_nearest_code[3] < 0.5


def test_the_map_finds_the_field_and_nothing_else(people):
    scans, field = people
    rng = np.random.default_rng(1)
    edits = [
        replace(each, images=each.images + 0.01 * rng.normal(size=each.images.shape).astype(np.float32))
        for each in edit(scans, field)
    ]
    effect = effect_map(scans.images, scans, "AD", "CN")
    inside = field > 0
    assert effect[inside].mean() == pytest.approx(0.3, abs=0.08)
    mapped = map_edit(edits, scans.images, {"real": effect})
    assert mapped.significant[inside].all()
    assert mapped.significant[(scans.images[0] > 0) & ~inside].mean() < 0.15
    assert mapped.effect_correlations["real"] > 0.9
    assert map_edit(edits, scans.images).effect_correlations == {}


def test_what_cannot_be_asked_is_refused(people):
    scans, field = people
    edits = edit(scans, field)
    with pytest.raises(TaskError, match="one of each"):
        evaluate_edits(edits[:3], scans, probe(0.0, 1.0))
    with pytest.raises(TaskError, match="needs three"):
        map_edit(edits[:2], scans.images)
    with pytest.raises(TaskError, match="scans of both"):
        effect_map(scans.images, scans, "AD", "FTD")
