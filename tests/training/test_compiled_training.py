"""Stages whose networks are compiled train as others do."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ldae.errors import ConfigError, DependencyError
from ldae.training.recipe import STAGES
from tests.training.shared_training import config as shared_config
from tests.training.shared_training import train

pytestmark = pytest.mark.usefixtures("uncounted")


def config(steps, **optimisation):
    """The shared stages, with a discriminator that plays from the first step."""
    found = shared_config(steps, **optimisation)
    loss = replace(found.compression.loss, adversarial_start=0)
    return replace(found, compression=replace(found.compression, loss=loss))


def compiled_by(monkeypatch, function):
    """The modules that are compiled from here on, by a function that takes the place of torch's compiler."""
    found = []

    def compile(module, **options):
        found.append((type(module).__name__, options))
        module._compiled_call_impl = function(module)

    monkeypatch.setattr(nn.Module, "compile", compile)
    return found


@pytest.mark.parametrize(
    ("stage", "networks"),
    [
        ("compression", ["Encoder", "Decoder", "PatchDiscriminator"]),
        ("denoiser", ["UNetEncoder", "UNetDecoder"]),
        ("representation", ["UNetEncoder", "UNetDecoder", "VolumeEncoder", "GradientEstimator"]),
    ],
)
def test_the_option_reaches_the_networks_of_a_stage(tmp_path, monkeypatch, stage, networks):
    plain = train(tmp_path / "plain", stage, config(1))
    calls = []
    found = compiled_by(
        monkeypatch, lambda module: lambda *args: calls.append(type(module).__name__) or module._call_impl(*args)
    )
    compiled = train(tmp_path / "compiled", stage, config(1, compile=True))
    assert found == [(name, {"dynamic": False}) for name in networks]
    assert set(calls) == set(networks)
    assert list(compiled) == list(plain)
    assert all(torch.equal(compiled[name], tensor) for name, tensor in plain.items())


def test_a_missing_compiler_is_told(tmp_path, monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    def fail(*_):
        msg = "no working C++ compiler"
        raise TorchDynamoException(msg)

    compiled_by(monkeypatch, lambda module: fail)
    with pytest.raises(DependencyError, match=r"no working C\+\+ compiler.*optimisation\.compile=false"):
        train(tmp_path, "denoiser", config(1, compile=True))


def test_compiled_networks_keep_their_activations():
    with pytest.raises(ConfigError, match="both compile and checkpoint_activations"):
        config(1, compile=True, checkpoint_activations=True)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_compiled_stages_learn_the_same_weights(tmp_path, stage):
    # Adam makes much of the last digits of a gradient that is nearly zero: at this rate weights change by 3e-4 at most.
    settings = [config(3, compile=flag, learning_rate=1e-4) for flag in (False, True)]
    plain, compiled = (train(tmp_path / str(number), stage, each) for number, each in enumerate(settings))
    assert list(compiled) == list(plain)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
