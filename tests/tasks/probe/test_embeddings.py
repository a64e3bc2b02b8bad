from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ldae.codes import check_origin
from ldae.data.manifest import Record
from ldae.errors import TaskError
from ldae.tasks.probe.embeddings import read_embeddings, write_embeddings
from ldae.tasks.probe.linear import LinearProbe


def test_codes_and_probes_know_their_model(tiny_model, tmp_path):
    own = tiny_model.origin
    record = Record("a", "1", Path("a.nii.gz"), None, None, None, None, None, None, {})
    codes = read_embeddings(write_embeddings(tmp_path / "codes.parquet", [record], np.ones((1, 3)), own))
    assert codes.origin == own
    probe = LinearProbe(*[np.ones(3)] * 3, 0.0, 1.0, True, 1.0, codes.origin)
    check_origin("the probe", LinearProbe.load(probe.save(tmp_path / "probe.json")).origin, own)
    with pytest.raises(TaskError, match="codes of two models do not compare: encode the scans with this model"):
        check_origin("the probe", tiny_model.with_random_encoder().origin, own)
    with pytest.warns(UserWarning, match="names no model"):
        assert LinearProbe.load(replace(probe, origin=None).save(tmp_path / "old.json")).origin is None
