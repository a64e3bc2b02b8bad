from dataclasses import replace

import pytest
import torch

from ldae.models.checkpointing import checkpointed
from ldae.models.compression import CompressionAutoencoder, CompressionConfig
from ldae.models.denoiser import Denoiser
from ldae.models.semantic_encoder import SliceEncoder
from tests.tiny_model import SLICES, TINY


def compression():
    model = CompressionAutoencoder(CompressionConfig(channels=(4, 8), latent_channels=2, residual_blocks=1, groups=2))
    return model, lambda x: model.decode_raw(model.posterior(x).mean), torch.rand(1, 1, 8, 8, 8)


def denoiser():
    model = Denoiser(replace(TINY.denoiser, dropout=0.3), 3)
    torch.nn.init.normal_(model.decoder.head.weight)
    return model, lambda z: model(z, torch.tensor([3, 700])), torch.randn(2, 3, 6, 6, 6)


def slice_encoder():
    model = SliceEncoder(SLICES, 6)
    return model, model, torch.rand(2, 1, 8, 8, 6)


@pytest.mark.parametrize("build", [compression, denoiser, slice_encoder])
def test_gradients_are_the_same_and_less_is_kept(build):
    torch.manual_seed(0)
    model, function, x = build()
    names, gradients, kept = list(model.state_dict()), [], []

    def count(tensor):
        kept[-1] += tensor.numel()
        return tensor

    for network in (torch.nn.Identity(), model):
        torch.manual_seed(1)  # dropout draws the same
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), checkpointed(network):
            output = function(x)
        assert list(model.state_dict()) == names
        weight = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
        (output * weight).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad(set_to_none=True)
    for without, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, without)
    assert kept[1] < 0.7 * kept[0]
    assert not any("forward" in vars(module) for module in model.modules())
