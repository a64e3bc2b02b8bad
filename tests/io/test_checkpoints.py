import json
import shutil
from pathlib import Path

import pytest
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.contract import clear_background
from ldae.errors import CheckpointError
from ldae.io.checkpoints import FORMAT_VERSION, load_tensors

FORMAT_1 = Path(__file__).parents[1] / "data" / "model_format_1"


def test_a_model_of_format_1_does_what_it_did(tmp_path):
    model = LatentDiffusionAutoencoder.from_pretrained(FORMAT_1, device="cpu", precision="fp32")
    expected, _ = load_tensors(FORMAT_1 / "expected.safetensors")
    # Its pictures were written before decoded images had a background of 0.
    expected["image"] = torch.from_numpy(clear_background(expected["image"].numpy()))
    images = torch.linspace(0, 1, 8 * 12 * 8).reshape(1, 1, 8, 12, 8)
    latent = model.compress(images)
    semantic = model.semantic(images)
    found = model.invert(latent, semantic)
    image = torch.from_numpy(model.decompress(model.sample_latents(found.noise, semantic, record=found.record)))
    for name, value in {"latent": latent, "semantic": semantic, "noise": found.noise, "image": image}.items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-4, msg=name)
    saved = model.save_pretrained(tmp_path / "model")
    assert json.loads((saved / "config.json").read_text())["format"] == FORMAT_VERSION
    again = LatentDiffusionAutoencoder.from_pretrained(saved, device="cpu", precision="fp32")
    assert again.config == model.config
    assert again.fingerprint() == model.fingerprint()


def test_a_model_whose_encoder_reads_latents_is_refused_with_a_remedy(tmp_path):
    folder = shutil.copytree(FORMAT_1, tmp_path / "model")
    plain = json.loads((folder / "config.json").read_text())
    volume = plain["autoencoder"]["semantic_encoder"]["volume"]
    assert (volume["linear_reads"], volume["linear"]) == ("scan", 0)
    volume["linear_reads"] = "latent"
    (folder / "config.json").write_text(json.dumps(plain))
    LatentDiffusionAutoencoder.from_pretrained(folder)  # without a linear path nothing reads them
    volume["linear"] = 1
    (folder / "config.json").write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match=r"reads latents \(linear_reads\).*train the model again"):
        LatentDiffusionAutoencoder.from_pretrained(folder)


@pytest.mark.parametrize("setting", [{"solver": "dpm"}, {"solver": "direct"}, {"reuse": 2}])
def test_a_model_of_format_1_with_a_removed_sampler_is_refused_with_a_remedy(setting, tmp_path):
    folder = shutil.copytree(FORMAT_1, tmp_path / "model")
    plain = json.loads((folder / "config.json").read_text())
    plain["autoencoder"]["sampling"] |= setting
    (folder / "config.json").write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match=r"no longer offered; set solver to 'bdia' and reuse to 1"):
        LatentDiffusionAutoencoder.from_pretrained(folder)
