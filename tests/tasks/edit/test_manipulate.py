"""Measured effects of edits are the effects that were put in."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ldae.errors import TaskError
from ldae.tasks.edit import evaluate
from ldae.tasks.edit.change_map import effect_map
from ldae.tasks.edit.evaluate import manipulate
from ldae.tasks.edit.manipulate import Edits
from ldae.tasks.encoded_scans import EncodedScans
from tests.records import record_of
from tests.tasks.edit.transparent import codes_of, probe
from tests.tasks.fixed_source import FixedSource

STEPS = (-1.0, 0.0, 1.0, 2.0)
SHAPE = (6, 7, 5)


@pytest.fixture
def people():
    """Twelve people, the last half ill; a brain is 1 or more, and the ill are brighter in one corner by 0.3."""
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
        known = {"age": age, "sex": "FM"[index % 2], "diagnosis": "AD" if ill else "CN"}
        records.append(record_of(f"s{index}", "M00", months=0.0, split="test", **known))
    codes = codes_of([(index, -1) for index in range(12)])
    return EncodedScans(tuple(records), codes, FixedSource(records, np.stack(images))), field


def edit(scans, field, direction=(0.1, 0.5), noise=None):
    """Edits that add the field, and noise if asked for, and move y along a direction."""
    found = []
    for row, image in enumerate(scans.images()):
        images = np.stack([image + amount * field for amount in STEPS])
        if noise is not None:
            images += 0.01 * noise.normal(size=images.shape).astype(np.float32)
        semantic = scans.semantic[row] + np.outer(STEPS, direction)
        found.append(Edits(STEPS, images, semantic, [0.0] * 4, {"brain_ml": [1.0] * 4}))
    return found


def measure(edits, scans, *probes, size=5, **more):
    """Edits measured a few at a time."""
    batches = [edits[start : start + size] for start in range(0, len(edits), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "edit_scans", lambda *_, **__: batches)
        return manipulate(None, scans, *probes, steps=STEPS, resamples=50, **more)


def test_every_probe_is_measured_and_slopes_follow_the_codes(people):
    scans, field = people
    others = {"age": probe(1.0, 0.0, logistic=False), "blind": probe(5.0, -1.0, logistic=False)}
    findings = measure(edit(scans, field), scans, probe(0.0, 2.0), others).findings
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
    kept = measure(edit(scans, field * 0), scans, probe(0.0, 1.0)).findings
    assert kept.own_nearest_image == [1.0] * 4
    swapped = edit(scans, field * 0)
    swapped[0] = replace(swapped[0], images=np.stack([scans.images()[1]] * 4))
    assert measure(swapped, scans, probe(0.0, 1.0)).findings.own_nearest_image == pytest.approx([11 / 12] * 4)
    far = measure(edit(scans, field, direction=(10.0, 0.0)), scans, probe(0.0, 1.0)).findings
    assert far.own_nearest_code[1] == 1.0
    assert far.own_nearest_code[3] < 0.5


def test_the_map_finds_the_field_and_nothing_else(people):
    scans, field = people
    edits = edit(scans, field, noise=np.random.default_rng(1))
    effect = effect_map(scans, "AD", "CN")
    inside, images = field > 0, scans.images()
    assert effect[inside].mean() == pytest.approx(0.3, abs=0.08)
    mapped = measure(edits, scans, probe(0.0, 1.0), effects={"real": effect}).map
    assert mapped.significant[inside].all()
    assert mapped.significant[(images[0] > 0) & ~inside].mean() < 0.15
    assert mapped.effect_correlations["real"] > 0.9
    assert measure(edits, scans, probe(0.0, 1.0)).map.effect_correlations == {}


def test_a_map_streamed_over_subjects_is_that_of_all_at_once(people):
    scans, field = people
    edits = edit(scans, field, noise=np.random.default_rng(2))
    mapped = measure(edits, scans, probe(0.0, 1.0), size=1).map
    changes, brain = np.stack([each.images[3] - each.images[1] for each in edits]), scans.images()[0] > 0
    np.testing.assert_allclose(mapped.mean, changes.mean(axis=0), atol=1e-6)
    p = stats.ttest_1samp(changes[:, brain].astype(float), 0.0).pvalue
    np.testing.assert_array_equal(mapped.significant[brain], stats.false_discovery_control(p) <= 0.05)
    design = np.array([[1, r.diagnosis == "AD", r.age, r.sex == "F"] for r in scans.records], dtype=float)
    solution = np.linalg.lstsq(design, scans.images().reshape(12, -1).astype(float), rcond=None)[0]
    np.testing.assert_allclose(effect_map(scans, "AD", "CN").ravel(), solution[1], atol=1e-6)


def test_edits_of_nothing_are_refused_and_few_subjects_have_no_map(people):
    scans, field = people
    with pytest.raises(TaskError, match=r"edits of 0 of 12 scans at steps \[1.0, 2.0\]: .* step 0"):
        manipulate(None, scans, probe(0.0, 1.0), steps=(1, 2))
    with pytest.raises(TaskError, match="edits of 0 of 0 scans"):
        manipulate(None, scans.select([]), probe(0.0, 1.0))
    assert measure(edit(scans, field)[:2], scans.select([0, 1]), probe(0.0, 1.0)).map is None
    with pytest.raises(TaskError, match="scans of both"):
        effect_map(scans, "AD", "FTD")
