"""The transformer behaves as scikit-learn's do, and gives the model's own codes."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)

from ldae import SemanticEncoderTransformer
from ldae.errors import CheckpointError, TaskError, VolumeError
from ldae.volume import read_volume


@pytest.fixture
def transformer(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    return SemanticEncoderTransformer(tmp_path / "model", preprocess=False, device="cpu", precision="fp32")


def test_features_are_the_models_codes(transformer, tiny_model, cohort):
    paths = [record.image for record in cohort.records]
    features = transformer.fit(paths).transform(paths)
    expected = [tiny_model.encode(read_volume(path), preprocess=False).semantic.numpy() for path in paths]
    np.testing.assert_allclose(features, expected, atol=1e-5)
    volumes = [read_volume(path) for path in paths[:2]]
    np.testing.assert_allclose(transformer.transform(volumes), features[:2], atol=1e-5)
    assert transformer.transform(np.array([str(path) for path in paths])).shape == features.shape
    assert features.shape[1] == 16
    assert list(transformer.get_feature_names_out()) == [f"y{number:02d}" for number in range(16)]


def test_it_stands_in_pipelines_and_survives_being_copied(transformer, cohort):
    paths = np.array([str(record.image) for record in cohort.records])
    labels = [record.diagnosis for record in cohort.records]
    pipeline = make_pipeline(transformer, StandardScaler(), LogisticRegression())
    assert pipeline.fit(paths, labels).score(paths, labels) > 0.8
    assert cross_val_predict(clone(pipeline), paths, labels, cv=2).shape == (len(paths),)
    transformer.fit(paths)
    assert "_autoencoder" not in transformer.__getstate__()
    copied = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_allclose(copied.transform(paths[:1]), transformer.transform(paths[:1]))


def test_codes_of_files_are_kept(transformer, cohort, tmp_path, monkeypatch):
    paths = [record.image for record in cohort.records[:3]]
    kept = transformer.set_params(cache=tmp_path / "codes")
    first = kept.transform(paths)
    assert len(list((tmp_path / "codes").iterdir())) == 3
    monkeypatch.setattr(kept._loaded(), "encode_prepared", lambda *_, **__: pytest.fail("encoded again"))
    np.testing.assert_array_equal(kept.transform(paths), first)


@pytest.mark.parametrize(
    "check",
    [
        check_get_params_invariance,
        check_no_attributes_set_in_init,
        check_parameters_default_constructible,
        check_set_params,
    ],
)
def test_scikit_learns_checks_that_need_no_table(check):
    check("SemanticEncoderTransformer", SemanticEncoderTransformer())


def test_what_is_no_scan_is_refused(transformer, cohort, tmp_path):
    with pytest.raises(VolumeError, match="type int does not say where its voxels lie"):
        transformer.transform([1, 2])
    with pytest.raises(TaskError, match="no scans"):
        transformer.transform([])
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no scan")
    with pytest.raises(VolumeError, match="broken"):
        transformer.transform([cohort.records[0].image, broken])
    with pytest.raises(CheckpointError):
        SemanticEncoderTransformer(tmp_path / "none").fit([])
