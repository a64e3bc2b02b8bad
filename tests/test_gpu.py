"""What a CUDA device does is what the CPU does; skipped where there is none."""

import pytest
import torch

from ldae.io.checkpoints import load_tensors
from ldae.training.recipe import STAGES
from tests.training.shared_training import config, together, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture
def exact(monkeypatch):
    """Products of float32 in float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def test_codes_and_images_are_those_of_the_cpu(exact, tiny_model):
    there = tiny_model
    images = torch.rand(2, 1, *tiny_model.config.preprocessing.shape)
    z_0 = there.compress(images)
    semantic = there.semantic(images)
    noise = there.invert(z_0, semantic).noise
    decoded = there.decompress(there.sample_latents(noise, semantic))
    here = there.to("cuda")
    torch.testing.assert_close(here.compress(images).cpu(), z_0, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(here.semantic(images).cpu(), semantic, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(here.invert(z_0, semantic).noise.cpu(), noise, rtol=1e-2, atol=1e-3)
    again = torch.as_tensor(here.decompress(here.sample_latents(noise, semantic)))
    torch.testing.assert_close(again, torch.as_tensor(decoded), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_stage_trains_and_goes_on(stage, precision, tmp_path):
    train(tmp_path, stage, config(6), device="cuda", precision=precision)
    weights, _ = load_tensors(tmp_path / stage / "weights.safetensors")
    assert all(each.isfinite().all() for each in weights.values())
    # A finished stage leaves no checkpoint; a stopped one is taken up on the other device.
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stage, config(6), device="cuda", precision=precision, stop=4)
    train(tmp_path / "stopped", stage, config(6), device="cpu")
    again, _ = load_tensors(tmp_path / "stopped" / stage / "weights.safetensors")
    assert weights.keys() == again.keys()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_gpus_train(tmp_path):
    assert together(tmp_path, 2, 6, *STAGES, device="cuda") == 0
