"""A study that is interrupted goes on with the part that it was in, and ends with the same results."""

import json
import shutil

import pytest

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.base.files import write_bytes
from ldae.data.manifest import read_manifest
from ldae.tasks.study import run as study
from ldae.volume import read_volume
from tests.tiny_run import FP32, few_resamples

FUNCTIONS = (
    "reconstruct",
    "code_usage",
    "evaluate_probe",
    "manipulate",
    "evaluate_interpolation",
    "compare_samples",
)


@pytest.fixture
def once(tiny_run, tmp_path):
    """Runs the study of the tiny run in a new folder, with latents known; returns its results as JSON gives them."""
    model = LatentDiffusionAutoencoder.from_pretrained(tiny_run / "model", device=FP32[1], precision=FP32[3])
    manifest = read_manifest(tiny_run / "manifest.tsv")
    effect = read_volume(tiny_run / "effect.nii.gz")
    latents = model.latent_cache(tiny_run / "cache").shards
    shutil.copytree(latents, tmp_path / "cache" / latents.name)

    def run(**keywords):
        with few_resamples():
            return json.loads(json.dumps(study.run_study(model, manifest, tmp_path, effect=effect, **keywords)))

    return run


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_interrupted(once, tiny_run, tmp_path, monkeypatch):
    calls = []

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def counted(name, function):
        return lambda *args, **keywords: calls.append(name) or function(*args, **keywords)

    whole = {name: counted(name, getattr(study, name)) for name in FUNCTIONS}
    for name in FUNCTIONS:
        monkeypatch.setattr(study, name, whole[name])
    for name in FUNCTIONS:
        monkeypatch.setattr(study, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            once()
        monkeypatch.setattr(study, name, whole[name])
    parts = []
    found = once(progress=lambda part, done, total: parts.append(part))
    assert [calls.count(name) for name in FUNCTIONS] == [1, 1, 2, 2, 1, 1]
    assert set(parts) == {"samples"}
    expected = json.loads((tiny_run / "results.json").read_text())
    assert found == {name: expected[name] for name in found}
    for path in (tiny_run / "tasks").glob("*.json"):
        assert json.loads((tmp_path / "tasks" / path.name).read_text()) == json.loads(path.read_text()), path.name
    assert not list(tmp_path.rglob(".writing-*"))
    (kept,) = tmp_path.glob("cache/study-*/encode.safetensors")
    write_bytes(kept, kept.read_bytes()[:1000])
    parts.clear()
    assert once(progress=lambda part, done, total: parts.append(part)) == found
    assert set(parts) == {"encode"}  # what is damaged is made again
