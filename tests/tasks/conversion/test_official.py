import json
import pickle
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from monai.networks.nets import AutoencoderKL
from safetensors.torch import load_file, save_file

from ldae.autoencoder import AutoencoderConfig, LatentDiffusionAutoencoder, Networks
from ldae.config import load_experiment
from ldae.contract import Preprocessing
from ldae.errors import CheckpointError, ConfigError
from ldae.io.plain import from_plain
from ldae.models.compression import CompressionAttention, CompressionAutoencoder, CompressionConfig
from ldae.models.convnext import ConvNeXtConfig
from ldae.models.denoiser import Denoiser, DenoiserConfig
from ldae.models.semantic_encoder import SemanticEncoderConfig, SliceEncoderConfig, positional_encoding
from ldae.tasks.conversion.official import OfficialContract, plan_autoencoder, plan_denoiser, plan_official
from tests.command_line import run

SHAPE = (8, 16, 8)
TINY = AutoencoderConfig(
    semantic_encoder=SemanticEncoderConfig(
        slices=SliceEncoderConfig(ConvNeXtConfig(depths=(1, 2), widths=(8, 16), stem=2), heads=2)
    ),
    preprocessing=Preprocessing(shape=SHAPE),
    compression=CompressionConfig(channels=(4, 8), latent_channels=3, residual_blocks=1, groups=2),
    denoiser=DenoiserConfig(width=8, multipliers=(1, 1, 2), residual_blocks=1, attention_levels=(2,), stride=(1, 2, 2)),
)
CONTRACT = OfficialContract(encoder_heads=2, groups=2, shape=SHAPE)
OPTIONS = ("--shape", *SHAPE, "--encoder-heads", 2, "--groups", 2)

# Names as published, written down apart from the code under test.
LAYERS = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "time_projection": "emb_layers.1",
    "semantic_projection": "emb_z_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
    "projection": "proj_out",
}
ENCODER = {
    "backbone.": "backbone.backbone.",
    "slice_score.": "soft_attention.linear.",
    "query.": "query_projection.",
    "key.": "key_projection.",
    "value.": "value_projection.",
    "norm.": "layer_norm_after_attention.",
}


def alive(networks):
    """Random parameters everywhere, those that start at zero included."""
    for parameter in networks.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return networks


def published_decoder(networks):
    """The state dict of the published decoder with these networks' weights."""
    state = {}
    for name, network in (("", networks.denoiser), ("shift_", networks.gradient_estimator)):
        own = network.state_dict()
        for key, value in own.items():
            head, _, rest = key.partition(".")
            if head == "time_embedding":
                state[f"time_embed.{rest}"] = value
                continue
            if head == "semantic_embedding":
                state[f"label_emb.{rest}"] = value
                continue
            for ours, theirs in LAYERS.items():
                rest = rest.replace(f".{ours}.", f".{theirs}.")
            index = re.match(r"stages\.(\d+)\.", rest)
            up = 2 if index and f"decoder.stages.{index[1]}.attention.norm.weight" in own else 1
            rest = re.sub(r"stages\.(\d+)\.up\.", rf"output_blocks.\1.{up}.", rest)
            if head == "encoder":
                rest = rest.replace("stem.", "input_blocks.0.0.")
                rest = re.sub(r"stages\.(\d+)", lambda match: f"input_blocks.{int(match[1]) + 1}", rest)
            rest = rest.replace("stages.", "output_blocks.").replace(".block.", ".0.").replace(".attention.", ".1.")
            rest = rest.replace("middle_in", "middle_block").replace("middle_out.", "middle_block.2.")
            rest = re.sub(r"^norm\.", "out.0.", re.sub(r"^head\.", "out.2.", rest))
            linear = re.search(r"(qkv|proj_out)\.weight$", rest)
            state[name + rest] = value.unsqueeze(-1) if linear else value
    return state


def published_encoder(encoder, slices):
    """The state dict of the published encoder with this one's weights."""
    state = {"positional_encoding.pe": positional_encoding(slices, encoder.norm.weight.shape[0])}
    for key, value in encoder.state_dict().items():
        ours = next((ours for ours in ENCODER if key.startswith(ours)), "")
        state[ENCODER.get(ours, "") + key.removeprefix(ours)] = value
        if ours == "backbone.":
            state["slice_distributed.module." + "backbone." + key.removeprefix(ours)] = value
    return state


def old_names(state):
    """MONAI's AutoencoderKL names as GenerativeModels wrote them."""
    rooms = {"postconv": "conv", ".attn.out_proj": ".proj_attn", ".attn.": "."}
    renamed = {}
    for key, value in state.items():
        for new, old in rooms.items():
            key = key.replace(new, old)
        renamed[key] = value
    return renamed


def lightning(path, averaged):
    """A Lightning checkpoint with averaged networks by prefix, and other weights that are not averaged."""
    state = {f"ema_{prefix}.{key}": value for prefix, part in averaged.items() for key, value in part.items()}
    state |= {f"{prefix}.{key}": value + 1 for prefix, part in averaged.items() for key, value in part.items()}
    training = {"epoch": 3, "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}], "loops": {}}
    torch.save({"state_dict": state, **training}, path)
    return path


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return alive(Networks(TINY))


@pytest.fixture(scope="module")
def files(tmp_path_factory, networks):
    """The three published files of a tiny model: one Lightning checkpoint for two networks, and a bare state dict."""
    folder = tmp_path_factory.mktemp("published")
    states = {"decoder": published_decoder(networks), "encoder": published_encoder(networks.semantic_encoder, SHAPE[2])}
    both = lightning(folder / "ldae.ckpt", states)
    torch.save(old_names(networks.compression.network.state_dict()), folder / "autoencoder.pth")
    return both, both, folder / "autoencoder.pth"


@cache
def averaged(path, name):
    state = torch.load(path, weights_only=True)["state_dict"]
    prefix = f"ema_{name}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def bare(files, tmp_path, name):
    """One of the networks as a bare state dict, and where to save a changed one."""
    return dict(averaged(files[0], name)), tmp_path / f"{name}.pt"


def test_a_lightning_checkpoint_becomes_the_model_that_it_holds(files, networks, tmp_path, capsys):
    out = tmp_path / "model"
    decoder, encoder, autoencoder = files
    assert run("convert", "official", decoder, encoder, autoencoder, "--out", out, *OPTIONS) == 0
    printed = capsys.readouterr().out
    assert "not averaged" in printed
    assert str(out) in printed
    model = LatentDiffusionAutoencoder.from_pretrained(out, device="cpu", precision="fp32")
    expected = networks.state_dict()
    for name, tensor in model.networks.state_dict().items():
        if not name.startswith("compression.latent"):
            assert torch.equal(tensor, expected[name]), name
    assert (model.config.denoiser, model.config.compression) == (TINY.denoiser, TINY.compression)
    assert (model.config.shift, model.config.denoiser.prediction) == ("score", "noise")
    sampling = model.config.sampling
    assert (sampling.solver, sampling.clamp, sampling.corrections, sampling.steps) == ("ddim", 1.0, 0, 100)
    raw = torch.randn(1, 3, 2, 2, 2)
    compression = model.networks.compression
    torch.testing.assert_close(compression.decode(raw * 0.873), compression.decode_raw(raw))
    images = model.generate(model.draw_noise(1, torch.Generator().manual_seed(0)), torch.zeros(1, 16))
    assert images.shape == (1, *SHAPE)
    assert np.isfinite(images).all()
    assert "AD = 0, CN = 1" in (out / "README.md").read_text()
    assert "license: other" in (out / "README.md").read_text()
    plain = json.loads((out / "config.json").read_text())
    assert plain["fingerprint"] == model.fingerprint()
    facts = plain["facts"]
    assert facts["latent scale"] == "0.873"
    assert "linspace" in facts["time grid"]
    # A second conversion into the same folder would replace what somebody may need.
    assert run("convert", "official", decoder, encoder, autoencoder, "--out", out, *OPTIONS) == 2
    assert "new folder" in capsys.readouterr().err


def test_every_tensor_is_accounted_for_once(files):
    plan = plan_official(*files, CONTRACT)
    for kind, record in plan.record().items():
        places = [*record["used"].values(), *record["equal_copies"], *record["recomputed"]]
        places += [name for names in record["left_out"].values() for name in names]
        assert sorted(places) == sorted(plan.accounts[kind].file.tensors), kind
    assert plan.record()["encoder"]["recomputed"] == ["ema_encoder.positional_encoding.pe"]
    assert plan.record()["decoder"]["beside_the_weights"] == ["epoch", "optimizer_states", "loops"]
    steps = plan.config.sampling.steps
    grid = Networks(TINY).schedule.time_grid(steps)
    assert grid == tuple(int(t) for t in np.linspace(0, 999, steps + 1))


def test_a_second_stage_becomes_what_the_third_starts_from(networks, tmp_path):
    averaged = {k: v for k, v in published_decoder(networks).items() if not k.startswith(("shift_", "label_emb"))}
    vae = old_names(networks.compression.network.state_dict())
    state = {f"ema_unet.{key}": value for key, value in averaged.items()}
    state |= {f"unet.{key}": value + 1 for key, value in averaged.items()}
    state |= {f"vae.{key}": value for key, value in vae.items()} | {"lpips.net.0.weight": torch.zeros(3)}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "stage2.ckpt")
    parts = {"denoiser": (), "autoencoder": ("--groups", 2, "--latent-scale", 0.873)}
    for kind, options in parts.items():
        assert run("convert", kind, tmp_path / "stage2.ckpt", "--out", tmp_path / kind, *options) == 0
        (record,) = json.loads((tmp_path / kind / "conversion.json").read_text()).values()
        assert record["left_out"]["only for training"] == ["lpips.net.0.weight"]
    plain = json.loads((tmp_path / "denoiser" / "config.json").read_text())["denoiser"]
    config = from_plain(DenoiserConfig, plain, where="config.json")
    assert config == TINY.denoiser
    denoiser = Denoiser(config, 3)
    denoiser.load_state_dict(load_file(tmp_path / "denoiser" / "weights.safetensors"), strict=True)
    expected = networks.denoiser.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in denoiser.state_dict().items())
    raw = torch.randn(1, 3, 2, 2, 2)
    autoencoder = converted(tmp_path / "autoencoder")
    with torch.no_grad():
        torch.testing.assert_close(autoencoder.decode(raw * 0.873), networks.compression.network.decode(raw))
    with pytest.raises(CheckpointError, match=r"without a gradient estimator.*'ldae convert denoiser'"):
        plan_official(*[tmp_path / "stage2.ckpt"] * 3, CONTRACT)


def test_old_torch_files_and_safetensors_read_alike(files, tmp_path):
    state, path = bare(files, tmp_path, "decoder")
    torch.save(state, path, _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "decoder.safetensors")
    plans = [plan_official(each, *files[1:], CONTRACT) for each in (path, tmp_path / "decoder.safetensors", files[0])]
    for name in plans[0].shapes:
        assert all(torch.equal(plans[0].tensor(name), plan.tensor(name)) for plan in plans), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_said(files, tmp_path, dtype):
    state, path = bare(files, tmp_path, "decoder")
    save_file({key: value.to(dtype) for key, value in state.items()}, path.with_suffix(".safetensors"))
    plan = plan_official(path.with_suffix(".safetensors"), *files[1:], CONTRACT)
    name = "denoiser.encoder.stem.weight"
    assert torch.equal(plan.tensor(name), state["input_blocks.0.0.weight"].to(dtype).float())
    assert f"{len(state)} tensors widened from {str(dtype)[6:]} to float32" in plan.facts["decoder file"]


def test_other_tensors_need_a_word(files, tmp_path):
    loaded = torch.load(files[0], weights_only=True)
    loaded["state_dict"]["betas"] = torch.zeros(10)
    torch.save(loaded, tmp_path / "more.ckpt")
    more = (tmp_path / "more.ckpt", *files[1:])
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors have no place .*\(betas\).*--ignore"):
        plan_official(*more, CONTRACT)
    plan = plan_official(*more, CONTRACT, ignore=["betas"])
    assert plan.record()["decoder"]["left_out"]["left out by request"] == ["betas"]


@pytest.mark.parametrize(
    ("absent", "shapes", "words"),
    [
        ("middle_block.1.qkv.bias", {}, r"1 of \d+ tensors .* missing .*middle_in.attention.qkv.bias"),
        (("shift_", "label_emb"), {}, "without a gradient estimator"),
        ((), {"input_blocks.3.0.op.weight": 1}, r"no place in a denoiser .*input_blocks.3.0.op.weight"),
        (
            (),
            {"shift_out.2.weight": (3, 8, 3, 3)},
            r"shift_out.2.weight is \(3, 8, 3, 3\), needed is \(3, 8, 3, 3, 3\)",
        ),
        ((), {"input_blocks.0.0.weight": (8, 3, 3, 3)}, "2 spatial dimensions"),
        ((), {"output_blocks.0.2.in_layers.0.weight": 8}, "levels of equal depth"),
        ((), {"label_emb.weight": (32, 24)}, "code width: 24 in .* 16 in"),
        ((), {"input_blocks.0.0.weight": (8, 4, 3, 3, 3)}, "latent channels: 4 in .* 3 in"),
        ((), {"out.2.bias": torch.zeros(3, dtype=torch.int64)}, "out.2.bias is torch.int64"),
    ],
)
def test_faults_of_a_decoder_are_named(files, tmp_path, absent, shapes, words):
    state, path = bare(files, tmp_path, "decoder")
    kept = {key: value for key, value in state.items() if not key.startswith(absent)}
    changed = {key: each if torch.is_tensor(each) else torch.zeros(each) for key, each in shapes.items()}
    torch.save(kept | changed, path)
    with pytest.raises(CheckpointError, match=words):
        plan_official(path, *files[1:], CONTRACT)


def test_faults_of_an_encoder_and_the_wrong_file_are_named(files, tmp_path):
    def refused(words, change, contract=CONTRACT):
        state, path = bare(files, tmp_path, "encoder")
        state.update(change)
        torch.save(state, path)
        with pytest.raises((CheckpointError, ConfigError), match=words):
            plan_official(files[0], path, files[2], contract)

    second = "slice_distributed.module.backbone.features.1.0.block.3.bias"
    refused("stored twice, and slice_distributed", {second: torch.ones(32)})
    refused("not the sinusoidal encoding", {"positional_encoding.pe": torch.zeros(1, 8, 16)})
    colour = torch.zeros(8, 3, 2, 2)
    stems = ("backbone.backbone", "slice_distributed.module.backbone")
    refused("first layer of a backbone", {f"{stem}.features.0.0.weight": colour for stem in stems})
    refused("no place in a semantic encoder .*classifier.2.weight", {"backbone.backbone.classifier.2.weight": colour})
    refused("positions of 8 axial slices", {}, OfficialContract(encoder_heads=2, groups=2))
    refused("no multiple of 3 heads", {}, OfficialContract(encoder_heads=3, groups=2, shape=SHAPE))


def test_the_wrong_file_is_recognised(files):
    with pytest.raises(
        CheckpointError, match="it holds a compression autoencoder: give it in the place of that network"
    ):
        plan_official(files[2], files[1], files[2], CONTRACT)


def test_nothing_is_left_of_weights_that_are_not_finite(files, tmp_path, capsys):
    state, path = bare(files, tmp_path, "decoder")
    state["out.2.bias"][1] = torch.nan
    torch.save(state, path)
    before = sorted(each.name for each in tmp_path.iterdir())
    arguments = ("--decoder", path, "--encoder", files[1], "--autoencoder", files[2], "--out", tmp_path / "model")
    assert run("convert", "official", *arguments, *OPTIONS) == 2
    assert "out.2.bias holds NaN or infinity" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == before


class Harmful:
    def __reduce__(self):
        return print, ("this would have run",)


def test_what_is_no_checkpoint_is_one_paragraph(files, tmp_path, capsys):
    state, path = {"a": torch.zeros(1)}, tmp_path / "some.ckpt"
    for content, words in (
        (None, "no such weights file"),
        (b"<html>not found</html>", "neither safetensors nor written by torch.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (files[0].read_bytes()[:2000], "copy it again"),
        ((200).to_bytes(8, "little") + b'{"a": 1}', "not a readable safetensors file"),
        (pickle.dumps(Harmful()), "not run"),
        ({"state_dict": state, "hyper_parameters": Harmful()}, "holds a Python object (print)"),
        ([torch.zeros(1)], "holds a list"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"model": state, "state_dict": {}}, "found state_dict and model"),
        ({"state_dict": state, "ema": state}, "first: ema"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        assert run("convert", "autoencoder", path, "--out", tmp_path / "out") == 2
        printed = capsys.readouterr()
        assert words in printed.err
        assert len(printed.err.strip().splitlines()) == 1
        assert "this would have run" not in printed.out
    assert not (tmp_path / "out").exists()


def monai_network(**changes):
    options = {
        "channels": (4, 8, 8),
        "latent_channels": 2,
        "num_res_blocks": (2, 2, 2),
        "attention_levels": (False, False, False),
        "norm_num_groups": 2,
        "with_encoder_nonlocal_attn": False,
        "with_decoder_nonlocal_attn": False,
    }
    torch.manual_seed(0)
    return alive(AutoencoderKL(spatial_dims=3, **{**options, **changes})).eval()


def bundle(path):
    """The autoencoder of the Brain LDM bundle with random weights, by its old names."""
    four = {"num_res_blocks": (2,) * 4, "attention_levels": (False,) * 4}
    network = monai_network(channels=(64, 128, 128, 128), latent_channels=3, norm_num_groups=32, **four)
    torch.save(old_names(network.state_dict()), path)
    return path


def converted(out):
    """The compression autoencoder that a conversion wrote."""
    plain = json.loads((out / "config.json").read_text())["compression"]
    model = CompressionAutoencoder(from_plain(CompressionConfig, plain, where="config.json")).eval()
    model.load_state_dict(load_file(out / "weights.safetensors"), strict=True)
    return model


COARSEST = {"with_encoder_nonlocal_attn": True, "with_decoder_nonlocal_attn": True}


@pytest.mark.parametrize("names", [dict, old_names], ids=["monai", "generative"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_levels": (False, True, True)},
        {**COARSEST, "num_res_blocks": (1, 1, 1)},
        {**COARSEST, "attention_levels": (False, False, True), "channels": (2, 4, 6)},
    ],
    ids=["plain", "levels", "coarsest", "both"],
)
def test_monai_autoencoders_compute_what_they_computed(changes, names, tmp_path):
    network, x = monai_network(**changes), torch.rand(1, 1, 8, 12, 8)
    torch.save(names(network.state_dict()), tmp_path / "autoencoder.pt")
    out = tmp_path / "converted"
    options = ("--groups", 2, "--latent-scale", 2)
    assert run("convert", "autoencoder", tmp_path / "autoencoder.pt", "--out", out, *options) == 0
    model = converted(out)
    with torch.no_grad():
        mean, std = network.encode(x)
        torch.testing.assert_close(model.posterior(x).mean, mean)
        torch.testing.assert_close(model.posterior(x).std, std)
        torch.testing.assert_close(model.encode(x).mean, 2 * mean)
        torch.testing.assert_close(model.decode_raw(mean), network.decode(mean))


def test_the_brain_ldm_bundles_autoencoder_is_the_published_architecture(tmp_path):
    plan = plan_autoencoder(bundle(tmp_path / "model_autoencoder.pth"))
    assert plan.config == CompressionConfig()
    assert set(plan.shapes) == set(CompressionAutoencoder(CompressionConfig()).state_dict())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_res_blocks": (1, 2, 2)}, "equally many residual blocks"),
        ({"in_channels": 2}, "one channel"),
        ({"with_encoder_nonlocal_attn": True}, "decoder's blocks are crrurrurrnc, where the encoder's ask for crarrr"),
        ({"use_convtranspose": True}, "transposed convolutions"),
        ({"include_fc": False, "attention_levels": (False, False, True)}, "are missing"),
    ],
)
def test_autoencoders_that_the_compression_network_cannot_be(changes, words, tmp_path):
    torch.save(monai_network(**changes).state_dict(), tmp_path / "autoencoder.pt")
    with pytest.raises(CheckpointError, match=words):
        plan_autoencoder(tmp_path / "autoencoder.pt", groups=2)


def test_settings_that_the_compression_network_cannot_have_are_refused(tmp_path):
    torch.save(monai_network().state_dict(), tmp_path / "autoencoder.pt")
    with pytest.raises(ConfigError, match="groups=32"):
        plan_autoencoder(tmp_path / "autoencoder.pt")
    with pytest.raises(ConfigError, match=r"levels 0\.\.1"):
        CompressionConfig(channels=(32, 64), attention=CompressionAttention(levels=(2,)))


# With reference tensors that the published implementation produced.


def convert_with(tmp_path, config, *, decoder=None, encoder=None, contract):
    """A model converted from published tensors where they are given, and from random ones elsewhere."""
    networks = alive(Networks(config))
    states = {
        "decoder": decoder or published_decoder(networks),
        "encoder": encoder or published_encoder(networks.semantic_encoder, config.preprocessing.shape[2]),
    }
    path = lightning(tmp_path / "ldae.ckpt", states)
    torch.save(old_names(networks.compression.network.state_dict()), tmp_path / "autoencoder.pth")
    plan = plan_official(path, path, tmp_path / "autoencoder.pth", contract)
    return LatentDiffusionAutoencoder.from_pretrained(plan.write(tmp_path / "model"), device="cpu", precision="fp32")


def test_converted_decoder_computes_the_published_outputs(shared, tmp_path):
    parity = shared / "parity"
    io = load_file(parity / "io.safetensors")
    model = convert_with(tmp_path, TINY, decoder=load_file(parity / "decoder.safetensors"), contract=CONTRACT)
    denoiser, estimator = model.networks.denoiser, model.networks.gradient_estimator
    assert (model.config.denoiser.width, model.config.denoiser.multipliers) == (32, (1, 2))
    assert (model.config.denoiser.residual_blocks, model.config.denoiser.attention_levels) == (1, (1,))
    with torch.no_grad():
        features = denoiser.features(io["z"], io["t"])
        assert (denoiser.predict(features) - io["eps"]).abs().max() < 1e-4
        assert (estimator(features, io["y"]) - io["gradient"]).abs().max() < 1e-4


def test_a_converted_denoiser_computes_the_published_output(shared, tmp_path):
    io = load_file(shared / "parity" / "io.safetensors")
    plan = plan_denoiser(shared / "parity" / "unet.safetensors")
    denoiser = Denoiser(plan.config, 3).eval()
    denoiser.load_state_dict(load_file(plan.write(tmp_path / "denoiser") / plan.weights), strict=True)
    with torch.no_grad():
        assert (denoiser(io["z"], io["t"]) - io["unet_eps"]).abs().max() < 1e-4


def test_converted_encoder_computes_the_published_code(shared, tmp_path):
    parity = shared / "parity"
    io = load_file(parity / "encoder_io.safetensors")
    slices = io["x_slices_first"]
    shape = (slices.shape[3], slices.shape[4], slices.shape[2])
    slice_encoder = SliceEncoderConfig(ConvNeXtConfig((1, 1, 2, 1), (16, 32, 64, 128)), heads=8)
    encoder, preprocessing = SemanticEncoderConfig(slices=slice_encoder), Preprocessing(shape=shape)
    config = replace(TINY, semantic_encoder=encoder, preprocessing=preprocessing)
    contract = OfficialContract(groups=2, shape=shape)
    model = convert_with(tmp_path, config, encoder=load_file(parity / "encoder.safetensors"), contract=contract)
    assert model.config.semantic_encoder == config.semantic_encoder
    y = model.semantic(slices.permute(0, 1, 3, 4, 2))
    assert (y - io["y"]).abs().max() < 1e-4


def full_size(keys):
    """A checkpoint of the published size in a few kilobytes: each tensor repeats one random number."""
    return {key: torch.rand(()).expand(shape) for key, shape in keys.items()}


def test_full_size_checkpoint_fills_the_paper_config(shared, tmp_path):
    names = ("official_decoder_keys.json", "official_encoder_keys.json")
    decoder, encoder = (full_size(json.loads((shared / "parity" / name).read_text())) for name in names)
    encoder["positional_encoding.pe"] = positional_encoding(128, 768)
    for key in encoder:
        if key.startswith("slice_distributed."):
            encoder[key] = encoder["backbone." + key.removeprefix("slice_distributed.module.")]
    state = {f"ema_decoder.{k}": v for k, v in decoder.items()} | {f"ema_encoder.{k}": v for k, v in encoder.items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "ldae.ckpt")
    plan = plan_official(tmp_path / "ldae.ckpt", tmp_path / "ldae.ckpt", bundle(tmp_path / "autoencoder.pth"))
    paper = load_experiment("paper").autoencoder
    assert (plan.config.denoiser, plan.config.compression) == (paper.denoiser, paper.compression)
    assert plan.config.preprocessing == paper.preprocessing
    assert plan.config.sampling.steps == paper.sampling.steps
    assert plan.config.semantic_encoder.chosen == paper.semantic_encoder.chosen
    assert plan.parameters["denoiser"] + plan.parameters["gradient_estimator"] == 865_339_142
    used = plan.record()
    assert (len(used["decoder"]["used"]), len(used["encoder"]["used"])) == (530, 356)
    assert len(used["encoder"]["equal_copies"]) == 342
    values = {name: tensor for account in plan.accounts.values() for name, tensor in account.tensors.items()}
    for kind, account in plan.accounts.items():
        source = torch.load(account.file.path, weights_only=True, mmap=True)
        source = source["state_dict"] if kind != "autoencoder" else source
        for ours, theirs in account.sources.items():
            assert values[ours].shape == plan.shapes[ours]
            assert values[ours].flatten()[0] == source[theirs].flatten()[0]
