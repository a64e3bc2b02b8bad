"""What new networks take from a trained model."""

from dataclasses import replace

import pytest
import torch

from ldae.autoencoder import Networks
from ldae.diffusion import ScheduleConfig
from ldae.errors import CheckpointError
from ldae.models.components import ComponentsConfig
from ldae.models.compression import CompressionConfig
from ldae.models.semantic_encoder import SemanticEncoderConfig, VolumeEncoderConfig
from ldae.networks import EMBEDDING, WHITENING, take_weights
from tests.tiny_model import TINY

# Every kind of tensor that belongs to places of the grid or channels of the latent.
ENCODER = VolumeEncoderConfig(widths=(4,), semantic_width=8, linear=1)
PLACED = replace(
    TINY,
    semantic_encoder=SemanticEncoderConfig(volume=ENCODER, whitening=1.0),
    compression=CompressionConfig(channels=(), latent_channels=6, components=ComponentsConfig()),
    denoiser=replace(TINY.denoiser, coordinates=1),
    code_map=True,
)
BARE = replace(PLACED, semantic_encoder=SemanticEncoderConfig(volume=ENCODER))


def drawn(config, seed):
    """Networks in which no two tensors agree."""
    networks = Networks(config)
    generator = torch.Generator().manual_seed(seed)
    for tensor in networks.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return networks


def taking(config, from_config):
    """What networks took; their tensors before and after, and the model's."""
    own, model = drawn(config, 1), drawn(from_config, 2)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    return take_weights(own, config, model, from_config), before, own.state_dict(), model.state_dict()


@pytest.mark.parametrize("config", [TINY, PLACED])
def test_the_same_networks_take_all(config):
    taken, _, own, model = taking(config, config)
    assert set(taken.whole) == own.keys()
    assert (taken.part, taken.initial, taken.unused) == ((), (), ())
    assert taken.covers("")
    assert all(torch.equal(own[name], model[name]) for name in own)
    assert str(taken) == f"{len(own)} taken whole"


@pytest.mark.parametrize(("wide", "given"), [(5, 2), (2, 5)])
def test_another_latent_width_takes_the_channels_that_both_have(wide, given):
    configs = [replace(TINY, compression=replace(TINY.compression, latent_channels=n)) for n in (wide, given)]
    taken, before, own, model = taking(*configs)
    assert taken.initial == taken.unused == ()
    assert {"denoiser.encoder.stem.weight", "denoiser.decoder.head.weight", "compression.latent_std"} <= set(taken.part)
    assert not any(name.startswith("semantic_encoder.") for name in taken.part)
    assert taken.covers("semantic_encoder.")
    assert not taken.covers("denoiser.")
    assert all(torch.equal(own[name], model[name]) for name in taken.whole)
    stem, head = "denoiser.encoder.stem.weight", "gradient_estimator.decoder.head.weight"
    assert torch.equal(own[stem][:, :2], model[stem][:, :2])
    assert torch.equal(own[stem][:, 2:], before[stem][:, 2:])
    assert torch.equal(own[head][:2], model[head][:2])
    assert torch.equal(own[head][2:], before[head][2:])


def test_positions_keep_their_channels_beside_another_latent_width():
    narrow = replace(BARE, compression=replace(BARE.compression, latent_channels=4))
    taken, _, own, model = taking(narrow, BARE)
    stem = "denoiser.encoder.stem.weight"
    assert torch.equal(own[stem], torch.cat([model[stem][:, :4], model[stem][:, 6:]], dim=1))
    # The components read another latent; so does the map of the code, but not the blocks' embedding.
    embedding, width = "gradient_estimator.semantic_embedding.weight", BARE.denoiser.embedding_width
    assert embedding in taken.part
    assert torch.equal(own[embedding][:width], model[embedding][:width])
    assert "compression.network.basis" in taken.initial
    assert taken.covers("semantic_encoder."), "the linear path reads the scan"


@pytest.mark.parametrize("change", [{"shape": (24, 16, 16)}, {"shape": (32, 24, 16)}, {"centre_mm": (0.0, 0.0, 0.0)}])
def test_another_grid_takes_what_knows_no_place(change):
    other = replace(BARE, preprocessing=replace(BARE.preprocessing, **change))
    taken, before, own, _ = taking(other, BARE)
    places = ("compression.network.", "semantic_encoder.linear.")
    assert set(taken.initial) == {name for name in own if name.startswith(places)}
    assert set(taken.part) == {f"gradient_estimator.semantic_embedding.{name}" for name in ("weight", "bias")}
    assert all(torch.equal(own[name], before[name]) for name in taken.initial)
    assert taken.covers("denoiser.")
    other = replace(TINY, preprocessing=replace(TINY.preprocessing, **change))
    assert taking(other, TINY)[0].covers("")


def test_without_its_whitening_what_reads_whitened_codes_is_left():
    half, none = (replace(PLACED, semantic_encoder=replace(PLACED.semantic_encoder, whitening=n)) for n in (0.5, 0.0))
    moved = replace(PLACED, preprocessing=replace(PLACED.preprocessing, shape=(24, 16, 16)))
    for config in (half, none, moved):
        taken, before, own, _ = taking(config, PLACED)
        left = [name for name in own if name.startswith((WHITENING, EMBEDDING))]
        assert left
        assert set(left) <= set(taken.initial)
        assert all(torch.equal(own[name], before[name]) for name in left)
        assert not taken.keeps("semantic_encoder")


@pytest.mark.parametrize(
    ("change", "told", "changed"),
    [
        (
            {"denoiser": replace(TINY.denoiser, prediction="noise")},
            {"denoiser.prediction": (TINY.denoiser.prediction, "noise")},
            "denoiser",
        ),
        ({"schedule": ScheduleConfig("rectified")}, {"schedule.kind": (TINY.schedule.kind, "rectified")}, "denoiser"),
        ({"denoiser": replace(TINY.denoiser, dropout=0.3)}, {}, ""),
    ],
)
def test_weights_that_mean_another_thing_are_not_kept(change, told, changed):
    taken = taking(replace(TINY, **change), TINY)[0]
    assert taken.covers("")
    assert taken.changed == told
    assert all(f"{name} {old} -> {new}" in str(taken) for name, (old, new) in told.items())
    kept = {name for name in ("compression", "denoiser", "semantic_encoder") if taken.keeps(name)}
    assert kept == {"compression", "denoiser", "semantic_encoder"} - {changed}


def test_an_axis_as_wide_as_the_latent_is_not_taken_for_it():
    wide = replace(TINY, denoiser=replace(TINY.denoiser, width=2 * TINY.denoiser.width))
    latents = [
        replace(each, compression=replace(each.compression, latent_channels=each.denoiser.width))
        for each in (wide, TINY)
    ]
    taken = taking(*latents)[0]
    assert not [name for name in taken.part if name.startswith("denoiser.")]


def test_networks_that_share_no_weight_are_refused():
    other = replace(
        TINY,
        semantic_encoder=SemanticEncoderConfig(volume=VolumeEncoderConfig(widths=(3,), semantic_width=6)),
        compression=replace(TINY.compression, channels=(6,), latent_channels=3),
        denoiser=replace(TINY.denoiser, width=12, multipliers=(1,), attention_levels=()),
    )
    with pytest.raises(CheckpointError, match=r"none of the weights .* name a configuration of like networks"):
        taking(other, TINY)
