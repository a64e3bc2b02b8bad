"""Golden outputs of the networks and samplers, written when they agreed with the published implementation's.

The weights follow from a formula, so that nothing depends on a random generator. `python tests/models/test_golden.py` writes
the file anew; do so only while the parity tests pass.
"""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldae.autoencoder import LatentDiffusionAutoencoder, Networks, SamplingConfig
from ldae.models.semantic_encoder import SemanticEncoderConfig, VolumeEncoderConfig
from tests.tiny_model import TINY

GOLDEN = Path(__file__).parents[1] / "data" / "golden.safetensors"
TOLERANCE = 1e-4  # relative to the largest value of a tensor; rounding differs between processors
ENCODERS = {
    "slice": TINY.semantic_encoder,
    "volume": SemanticEncoderConfig(
        volume=VolumeEncoderConfig(widths=(4, 8), semantic_width=16, linear=2, symmetric=True)
    ),
}


def waves(*shape, phase=0.0):
    """Numbers between -1 and 1 without a visible order."""
    return (
        torch.sin(1.7 * torch.arange(math.prod(shape), dtype=torch.float64).square() % 6.2831 + phase)
        .reshape(shape)
        .float()
    )


def build(encoder):
    """A small model of every kind of layer, in fp32 on the CPU, with weights of unit gain."""
    config = replace(TINY, semantic_encoder=ENCODERS[encoder])
    networks = Networks(config)
    with torch.no_grad():
        for index, parameter in enumerate(networks.parameters()):
            fan_in = math.prod(parameter.shape[1:])
            value = waves(*parameter.shape, phase=index) * math.sqrt(2 / fan_in) if parameter.ndim > 1 else None
            parameter.copy_(1 + 0.1 * waves(*parameter.shape, phase=index) if value is None else value)
    return LatentDiffusionAutoencoder(config, networks, device="cpu", precision="fp32")


@torch.inference_mode()
def outputs():
    """Outputs by name."""
    model = build("slice")
    networks, x = model.networks, waves(2, 1, 16, 24, 16).abs()
    posterior, z, t = networks.compression.encode(x), waves(2, 2, 4, 6, 4, phase=1), torch.tensor([5, 700])
    y = networks.semantic_encoder(x)
    features = networks.denoiser.features(z, t)
    found = {
        "posterior_mean": posterior.mean,
        "posterior_std": posterior.std,
        "decoded": networks.compression.decode(z)[:, :, ::2, ::2, ::2],
        "denoiser": networks.denoiser.predict(features),
        "gradient_estimator": networks.gradient_estimator(features, y),
        "slice_encoder": y,
        "volume_encoder": build("volume").networks.semantic_encoder(x),
    }
    for solver in ("ddim", "bdia"):
        sampling = SamplingConfig(solver=solver, steps=4, corrections=2 if solver == "ddim" else 0)
        codes = model.invert(z, y, sampling)
        found[f"{solver}_inverted"] = codes.noise
        found[f"{solver}_sampled"] = model.sample_latents(z, y, sampling)
    return {name: value.contiguous() for name, value in found.items()}


def test_outputs_are_the_golden_ones():
    golden, found = load_file(GOLDEN), outputs()
    assert found.keys() == golden.keys()
    for name, expected in golden.items():
        error = float((found[name] - expected).abs().max() / expected.abs().max())
        assert error < TOLERANCE, f"{name}: {error:.2g}"
        assert expected.std() > 1e-3, f"{name} says nothing"


@pytest.mark.parametrize("name", ["denoiser", "gradient_estimator", "slice_encoder"])
def test_a_changed_weight_is_noticed(name):
    """The golden outputs depend on every network: a weight with its channels in another order is far beyond."""
    golden, model = load_file(GOLDEN), build("slice")
    networks = model.networks
    network = networks.semantic_encoder if name == "slice_encoder" else getattr(networks, name)
    with torch.inference_mode():
        weight = next(p for p in network.parameters() if p.ndim > 1)
        weight.copy_(weight.roll(1, 0))
        x, z, t = waves(2, 1, 16, 24, 16).abs(), waves(2, 2, 4, 6, 4, phase=1), torch.tensor([5, 700])
        features = networks.denoiser.features(z, t)
        found = {
            "slice_encoder": lambda: networks.semantic_encoder(x),
            "denoiser": lambda: networks.denoiser.predict(features),
            "gradient_estimator": lambda: networks.gradient_estimator(features, networks.semantic_encoder(x)),
        }[name]()
    assert float((found - golden[name]).abs().max() / golden[name].abs().max()) > 10 * TOLERANCE


if __name__ == "__main__":
    save_file(outputs(), GOLDEN)
