from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ldae.data.manifest import build_manifest
from ldae.errors import TaskError
from ldae.metrics.scores import concordance
from ldae.tasks.probe.embeddings import embeddings_of
from ldae.tasks.probe.evaluate import evaluate_probe
from ldae.tasks.probe.result import CODES, ProbeSettings
from ldae.tasks.probe.targets import find_conversions

QUICK = ProbeSettings(protocol="cv", folds=2, repeats=1, resamples=100)


@pytest.fixture
def converters():
    """People with mild impairment whose first feature sets their hazard; visits every six months for four years."""
    rng = np.random.default_rng(0)
    n = 120
    risk = rng.normal(size=n)
    months = rng.exponential(24 * np.exp(-1.2 * risk))
    rows = []
    for person in range(n):
        for visit in range(0, 49, 6):
            diagnosis = "AD" if visit >= months[person] and visit else "MCI"
            split = "train" if person < 80 else "test"
            rows.append([f"s{person:03d}", f"M{visit:02d}", "x.nii.gz", float(visit), diagnosis, split])
    columns = ["participant_id", "session_id", "image", "months", "diagnosis", "split"]
    target = find_conversions(build_manifest(pd.DataFrame(rows, columns=columns), "m.tsv"))
    features = rng.normal(size=(n, 6))
    features[:, 0] = risk
    return target, embeddings_of(target.records, features), embeddings_of(target.records, rng.normal(size=(n, 6)))


def test_who_converts_first_has_the_higher_risk(converters):
    target, embeddings, noise = converters
    report = evaluate_probe(target, embeddings, {"noise": noise}, QUICK)
    assert report.scored[CODES].metrics["concordance"].low > 0.65
    assert report.scored["noise"].metrics["concordance"].low < 0.55
    assert report.comparisons[0].difference.low > 0
    assert report.counts["events"] == int(target.events.sum())
    split = evaluate_probe(target, embeddings, settings=replace(QUICK, protocol="split"))
    assert split.counts["tested_subjects"] == 40
    with pytest.raises(TaskError, match="not controlled here"):
        evaluate_probe(target, embeddings, settings=replace(QUICK, control="match", confounds=("age",)))


def test_concordance_has_its_closed_form():
    outcome = np.array([[6.0, 1], [12, 1], [18, 0], [24, 1]])
    # Pairs: (0,1) (0,2) (0,3) (1,2) (1,3); 2 was last seen before 3 and says nothing of it.
    assert concordance(outcome, np.array([4.0, 3, 2, 1])) == 1
    assert concordance(outcome, np.array([1.0, 2, 3, 4])) == 0
    assert concordance(outcome, np.array([3.0, 3, 2, 1])) == pytest.approx(4.5 / 5)
    assert np.isnan(concordance(outcome[2:3], np.ones(1)))
