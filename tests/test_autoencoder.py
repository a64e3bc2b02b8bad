import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import ldae
from ldae.atlas import template_grid
from ldae.autoencoder import LatentDiffusionAutoencoder, Networks, SamplingConfig, stack_images
from ldae.diffusion import ScheduleConfig
from ldae.errors import CheckpointError, ConfigError, TaskError, VolumeError
from ldae.io import checkpoints
from ldae.networks import semantic_predict
from ldae.volume import Volume


def test_a_saved_model_comes_back_bit_for_bit(tiny_model, head, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model", facts={"cohort": "none"})
    back = LatentDiffusionAutoencoder.from_pretrained(tmp_path / "model", device="cpu", precision="fp32")
    assert back.config == tiny_model.config
    assert back.fingerprint() == tiny_model.fingerprint()
    one, two = tiny_model.encode(head(1), preprocess=False), back.encode(head(1), preprocess=False)
    assert torch.equal(one.noise, two.noise)
    assert torch.equal(one.semantic, two.semantic)
    assert "Not a medical device" in (tmp_path / "model" / "README.md").read_text()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o644}, "anybody may read it"


def test_a_small_file_is_half_as_large_and_gives_nearly_the_same_codes(tiny_model, head, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "HALF_FROM", 64)
    sizes = [
        (tiny_model.save_pretrained(tmp_path / name, small=name == "small") / "model.safetensors").stat().st_size
        for name in ("whole", "small")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    back = ldae.from_pretrained(str(tmp_path / "small"), device="cpu", precision="fp32")
    codes = [
        [model.encode(head(seed), preprocess=False).numpy() for seed in range(1, 5)] for model in (tiny_model, back)
    ]
    np.testing.assert_allclose(codes[1], codes[0], atol=2e-3)  # of about 1
    assert {parameter.dtype for parameter in back.networks.parameters()} == {torch.float32}


def test_a_list_of_scans_gives_a_list_of_codes(tiny_model, head):
    several = tiny_model.encode([head(1), head(2).to_nibabel()], preprocess=False, noise=False)
    for codes, seed in zip(several, (1, 2), strict=True):
        alone = tiny_model.encode(head(seed), preprocess=False, noise=False)
        np.testing.assert_allclose(codes.numpy(), alone.numpy(), atol=1e-5)
        assert codes.noise is None
    assert repr(several[0]).startswith("Codes(semantic: 16 numbers, noise: not computed, scan: ")


def test_a_scan_that_was_registered_goes_back_to_where_it_was(tiny_model, head):
    volume = head(3)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (10, -5, 7), degrees=True).as_matrix()
    elsewhere = Volume(volume.data, np.linalg.inv(turn) @ volume.affine)
    codes = tiny_model.encode(volume, preprocess=False)
    moved = replace(codes, to_template=turn, grid=elsewhere.grid)
    # Rounding decides at the border of the model's grid what is still inside.
    here, there = (tiny_model.decode(each, space="scan").data[4:-4, 4:-4, 4:-4] for each in (codes, moved))
    np.testing.assert_allclose(there, here, atol=1e-3 * here.max())


def test_weights_are_hashed_once(tiny_model, monkeypatch):
    first, twin = tiny_model.fingerprint(), tiny_model.with_sampling(["steps=7"])
    assert tiny_model.with_random_encoder().fingerprint() != first
    monkeypatch.delattr("ldae.autoencoder.hash_tensors")
    assert tiny_model.origin.model == twin.fingerprint() == first


def test_encode_then_decode_is_the_identity_up_to_compression(tiny_model, head):
    scans = [tiny_model.prepare(head(seed)) for seed in (2, 3)]
    images = torch.from_numpy(np.stack([scan.data for scan in scans]))[:, None]
    z_0, y = tiny_model.compress(images), tiny_model.semantic(images)
    sampling = SamplingConfig("bdia", steps=6)
    found = tiny_model.invert(z_0, y, sampling, round_trip=True)
    back = tiny_model.sample_latents(found.noise, y, sampling, record=found.record)
    torch.testing.assert_close(back, z_0, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.round_trip, (back - z_0).square().flatten(1).mean(dim=1).sqrt())


def test_codes_say_who_found_them_and_how_well_they_come_back(tiny_model, head):
    rough = replace(tiny_model.config, sampling=SamplingConfig("ddim", steps=2))
    model = LatentDiffusionAutoencoder(rough, tiny_model.networks, device="cpu", precision="fp32")
    exact, drifted = (each.encode(head(2), preprocess=False, round_trip=True) for each in (tiny_model, model))
    assert exact.solver == "bdia, 3 steps"
    assert exact.round_trip < 1e-5
    assert drifted.record is None
    returned = model.latents_of([drifted])
    missed = returned - model.compress(stack_images([model.prepare(head(2))]))
    assert drifted.round_trip == pytest.approx(float(missed.square().mean().sqrt()), rel=1e-4)
    assert drifted.round_trip > 10 * exact.round_trip


@pytest.mark.parametrize("small", [False, True])
def test_a_model_for_semantic_codes_alone_is_the_same_model(tiny_model, head, tmp_path, small):
    folder = tiny_model.save_pretrained(tmp_path / "model", small=small)
    whole, light = (
        LatentDiffusionAutoencoder.from_pretrained(folder, device="cpu", precision="fp32", semantic_only=light)
        for light in (False, True)
    )
    assert [name for name, count in light.count_parameters().items() if count] == ["semantic_encoder"]
    assert light.origin == whole.origin
    codes, expected = (each.encode(head(1), preprocess=False, noise=False) for each in (light, whole))
    assert torch.equal(codes.semantic, expected.semantic)
    for needs_more in (
        lambda: light.encode(head(1), preprocess=False),
        lambda: light.generate(light.draw_noise(1, torch.Generator()), codes.semantic[None]),
        lambda: light.save_pretrained(tmp_path / "saved"),
    ):
        with pytest.raises(TaskError, match="loaded for semantic codes alone"):
            needs_more()


def test_the_recorded_hash_is_checked_and_a_model_without_one_is_loaded_whole(tiny_model, tmp_path):
    folder = tiny_model.save_pretrained(tmp_path / "model")
    plain = json.loads((folder / "config.json").read_text())
    assert plain.pop("fingerprint") == tiny_model.fingerprint()
    (folder / "config.json").write_text(json.dumps(plain))
    older = LatentDiffusionAutoencoder.from_pretrained(folder, device="cpu", semantic_only=True)
    assert older.fingerprint() == tiny_model.fingerprint()
    (folder / "config.json").write_text(json.dumps(plain | {"fingerprint": "0"}))
    with pytest.raises(CheckpointError, match=r"fingerprint in its config\.json"):
        LatentDiffusionAutoencoder.from_pretrained(folder, device="cpu").fingerprint()


def test_encoding_samples_back_only_if_asked(tiny_model, head, monkeypatch):
    features, calls = tiny_model.networks.denoiser.features, []
    monkeypatch.setattr(tiny_model.networks.denoiser, "features", lambda *given: calls.append(1) or features(*given))
    assert tiny_model.encode(head(1), preprocess=False).round_trip is None
    steps = tiny_model.config.sampling.steps
    assert len(calls) == steps + 1
    tiny_model.encode(head(1), preprocess=False, round_trip=True)
    assert len(calls) == (steps + 1) + (2 * steps + 1)


def test_batches_and_single_scans_agree(tiny_model, head):
    together = tiny_model.encode_prepared([tiny_model.prepare(head(seed)) for seed in (1, 2)])
    alone = tiny_model.encode(head(2), preprocess=False)
    torch.testing.assert_close(together[1].semantic, alone.semantic, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[1].noise, alone.noise, atol=1e-3, rtol=1e-3)
    images = tiny_model.decode_images(together)
    np.testing.assert_allclose(images[1], tiny_model.decode(together[1]).data, atol=1e-3)


def test_a_decoded_scan_is_on_the_scans_own_grid(tiny_model, head):
    volume = head(3)
    codes = tiny_model.encode(volume, preprocess=False)
    decoded = tiny_model.decode(codes, space="scan")
    assert decoded.grid == volume.grid
    model = tiny_model.decode(codes)
    assert model.grid == tiny_model.config.preprocessing.grid
    assert 0 <= model.data.min() <= model.data.max() <= 1


def test_a_decoded_brain_keeps_its_edge_and_its_range_on_a_finer_grid(tiny_model, head):
    codes = tiny_model.encode(head(3), preprocess=False)
    image = tiny_model.decode(codes).data
    grid = tiny_model.config.preprocessing.grid
    finer = template_grid(grid.spacing[0] / 2)
    found = tiny_model.restore(image, replace(codes, grid=finer), space="scan").data
    low, high = codes.window
    shown = found[found != 0]
    assert low <= shown.min() <= shown.max() <= low + (high - low) * image.max() + 1e-3
    whole = tiny_model.restore(np.full_like(image, 0.5), replace(codes, grid=finer), space="scan")
    np.testing.assert_allclose(whole.data[8:-8, 8:-8, 8:-8], low + 0.5 * (high - low), rtol=1e-5)
    edges = tiny_model.restore(np.where(image > 0, 0.5, 0.0), replace(codes, grid=finer), space="scan").data
    np.testing.assert_allclose(edges[edges != 0], low + 0.5 * (high - low), rtol=1e-5)
    assert not tiny_model.restore(np.zeros_like(image), replace(codes, grid=finer), space="scan").data.any()

    def wave(grid):
        """A smooth image of a wavelength of 6 voxels of the model."""
        points = np.stack(np.indices(grid.shape), axis=-1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        return (0.5 + 0.3 * np.sin(points.sum(axis=-1) * 2 * np.pi / (6 * 3**0.5 * 5))).astype(np.float32)

    model_grid = tiny_model.config.preprocessing.grid
    inner = replace(codes, grid=finer, window=(0.0, 1.0))
    shown = tiny_model.restore(wave(model_grid), inner, space="scan").data[8:-8, 8:-8, 8:-8]
    linear = Volume(wave(model_grid), model_grid.affine).resample_to(finer).data[8:-8, 8:-8, 8:-8]
    truth = wave(finer)[8:-8, 8:-8, 8:-8]
    assert np.abs(shown - truth).mean() < 0.5 * np.abs(linear - truth).mean()


def test_neither_orientation_nor_unit_of_the_input_matters(tiny_model, head):
    volume = head(4)
    flipped = Volume(
        volume.data[::-1].copy(), volume.affine @ np.array([[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    )
    scaled = Volume(volume.data * 7, volume.affine)
    plain, turned, brighter = map(tiny_model.prepare, (volume, flipped, scaled))
    np.testing.assert_allclose(plain.data, turned.data, atol=1e-4)
    np.testing.assert_allclose(plain.data, brighter.data, atol=1e-5)
    assert brighter.window[1] == pytest.approx(7 * plain.window[1], rel=1e-5)


def test_the_code_is_heard_and_needs_its_noise(tiny_model, head):
    codes = tiny_model.encode(head(1), preprocess=False)
    other = codes.with_semantic(codes.semantic + 1)
    assert np.abs(tiny_model.decode(codes).data - tiny_model.decode(other).data).max() > 1e-5
    (silent,) = tiny_model.encode_prepared([tiny_model.prepare(head(1))], noise=False)
    with pytest.raises(TaskError, match="no noise code"):
        tiny_model.decode_images([silent])
    with pytest.raises(TaskError, match=r"shapes \(\(3,\), .*, this model's \(\(16,\), "):
        tiny_model.decode(codes.with_semantic(codes.semantic[:3]))
    with pytest.raises(ConfigError, match="space must be one of model, scan, got 'nativ'"):
        tiny_model.decode(codes, space="nativ")
    with pytest.raises(ConfigError, match="preprocess must be one of auto, True, False, got 'yes'"):
        tiny_model.encode(head(1), preprocess="yes")
    assert codes.same_image(tiny_model.encode(head(1), preprocess=False))
    assert not any(codes.same_image(each) for each in (other, silent))


@pytest.mark.parametrize("shift", ["posterior", "score", "velocity"])
def test_without_a_code_the_denoiser_speaks_alone(tiny_config, shift):
    torch.manual_seed(0)
    denoiser = replace(tiny_config.denoiser, prediction="noise")
    tiny_config = replace(tiny_config, denoiser=denoiser, shift=shift)
    networks = Networks(tiny_config).eval()
    z, t = torch.randn(2, 2, 4, 6, 4), torch.tensor([3, 700])
    torch.nn.init.normal_(networks.denoiser.decoder.head.weight)
    alone = semantic_predict(networks, None, tiny_config)(z, t)
    torch.testing.assert_close(alone.noise, networks.denoiser(z, t))
    # A new gradient estimator is zero, so stage 3 starts from the denoiser.
    shifted = semantic_predict(networks, torch.randn(2, 16), tiny_config)(z, t)
    torch.testing.assert_close(shifted.noise, alone.noise)


@torch.no_grad()
def test_guidance_goes_on_in_the_direction_of_the_code(tiny_model, tiny_config):
    networks, y = tiny_model.networks, torch.randn(2, 16)
    z, t = torch.randn(2, 2, 4, 6, 4), torch.tensor([300, 700])

    def noise(semantic, guidance, *, dropout=False):
        config = replace(tiny_config, semantic_dropout=dropout)
        return semantic_predict(networks, semantic, config, SamplingConfig(guidance=guidance))(z, t).noise

    alone, heard = noise(None, 1.0), noise(y, 1.0)
    torch.testing.assert_close(noise(y, 0.0), alone)
    torch.testing.assert_close(noise(y, 2.5) - alone, 2.5 * (heard - alone), atol=1e-5, rtol=1e-4)
    # Where the estimator has learnt to do without the code, guidance starts from what it says then.
    without = noise(y, 0.0, dropout=True)
    assert (without - alone).abs().max() > 1e-4
    torch.testing.assert_close(noise(y, 1.0, dropout=True), heard)
    torch.testing.assert_close(noise(y, 2.5, dropout=True) - without, 2.5 * (heard - without), atol=1e-5, rtol=1e-4)


def test_impossible_networks_are_refused(tiny_config):
    with pytest.raises(ConfigError, match="pure noise"):
        Networks(replace(tiny_config, schedule=ScheduleConfig("rectified"), shift="score"))
    shape = replace(tiny_config.preprocessing, shape=(16, 24, 4))
    with pytest.raises(ConfigError, match="too small for 2 levels"):
        Networks(replace(tiny_config, preprocessing=shape))


def test_random_encoder_leaves_the_rest_alone(tiny_model, head):
    before = tiny_model.encode(head(1), preprocess=False)
    twin = tiny_model.with_random_encoder(seed=3)
    images = torch.from_numpy(tiny_model.prepare(head(1)).data)[None, None]
    assert not torch.equal(twin.semantic(images), tiny_model.semantic(images))
    assert torch.equal(twin.compress(images), tiny_model.compress(images))
    assert torch.equal(tiny_model.encode(head(1), preprocess=False).semantic, before.semantic)
    assert torch.equal(tiny_model.with_random_encoder(seed=3).semantic(images), twin.semantic(images))


def test_the_contract_refuses_what_the_model_never_saw(tiny_model, head):
    volume, grid = head(1), tiny_model.config.preprocessing.grid
    elsewhere = volume.affine.copy()
    elsewhere[:3, 3] += 500
    for data, affine, words in (
        (np.random.default_rng(0).uniform(5, 9, grid.shape), grid.affine, "skull"),
        (volume.data, elsewhere, "MNI space"),
        ((volume.resample_to(grid).data > 100).astype(np.float32), grid.affine, "mask, not a scan"),
    ):
        with pytest.raises(VolumeError, match=words):
            tiny_model.prepare(Volume(data, affine))


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("config.json", lambda content: content.replace(b'"format": ', b'"format": 9')),
        ("config.json", lambda content: content.replace(b'"width": 8', b'"width": 16')),
        ("config.json", lambda content: b"{"),
        ("config.json", None),
        ("model.safetensors", lambda content: content[:100]),
        ("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    ],
    ids=["format", "width", "json", "missing", "cut", "one bit"],
)
def test_damaged_model_folders_are_refused(tiny_model, tmp_path, name, damaged):
    path = tiny_model.save_pretrained(tmp_path / "model") / name
    content = path.read_bytes()
    path.unlink()
    if damaged is not None:
        assert damaged(content) != content
        path.write_bytes(damaged(content))
    with pytest.raises(CheckpointError, match="model"):
        LatentDiffusionAutoencoder.from_pretrained(path.parent)


def test_weights_that_are_not_finite_are_refused_at_load(tiny_model, tmp_path):
    with torch.no_grad():
        next(tiny_model.networks.denoiser.parameters()).view(-1)[0] = float("nan")
    folder = tiny_model.save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"model: the weights denoiser\..* are not all finite"):
        LatentDiffusionAutoencoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "words"), [("[]", "it is a list, not an object"), ('{"format": 2}', "it has no group 'autoencoder'")]
)
def test_a_config_that_is_none_is_refused_by_name(tiny_model, tmp_path, config, words):
    folder = tiny_model.save_pretrained(tmp_path / "model")
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=f"config.json: not the configuration of a model .{words}"):
        LatentDiffusionAutoencoder.from_pretrained(folder)


def test_a_model_of_a_stranger_runs_nothing_and_cannot_ask_for_a_billion_layers(tiny_model, tmp_path):
    folder = tiny_model.save_pretrained(tmp_path / "model")
    for name in ("model.bin", "model.pt", "modeling.py", "config.py", "__init__.py"):
        (folder / name).write_text("raise SystemExit('this was run')")
    found = LatentDiffusionAutoencoder.from_pretrained(folder, device="cpu", precision="fp32")
    assert found.fingerprint() == tiny_model.fingerprint()
    config = (folder / "config.json").read_text()
    assert '"residual_blocks": 1' in config
    (folder / "config.json").write_text(config.replace('"residual_blocks": 1', '"residual_blocks": 1000000000', 1))
    with pytest.raises(ConfigError, match="residual_blocks must be between 1 and 1000, got 1000000000"):
        LatentDiffusionAutoencoder.from_pretrained(folder)


def test_another_way_to_sample_leaves_the_networks_alone(tiny_model):
    other = tiny_model.with_sampling(["solver=ddim", "steps=7", "guidance=1.5"])
    assert other.config.sampling == SamplingConfig("ddim", 7, guidance=1.5)
    assert other.networks is tiny_model.networks
    assert tiny_model.config.sampling.steps == 3
    wrongs = {"solver=euler": "euler", "step=7": "step", "steps": "name=value", "steps=0": "at least 1"}
    for wrong, words in wrongs.items():
        with pytest.raises(ConfigError, match=words):
            tiny_model.with_sampling([wrong])


def test_scans_in_parts_are_the_same_scans(tiny_model, head):
    images = torch.from_numpy(tiny_model.prepare(head(1)).data)[None, None]
    z_0 = tiny_model.compress(images)
    whole = tiny_model.decompress(z_0)
    tiny_model.whole_voxels = 1
    torch.testing.assert_close(tiny_model.compress(images), z_0, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(tiny_model.decompress(z_0), whole, atol=1e-5)


def test_a_grid_need_not_divide(tiny_config, head):
    config = replace(tiny_config, preprocessing=replace(tiny_config.preprocessing, shape=(15, 22, 17)))
    torch.manual_seed(0)
    model = LatentDiffusionAutoencoder(config, Networks(config), device="cpu", precision="fp32")
    codes = model.encode(head(1), preprocess=False)
    assert codes.noise.shape == (2, 4, 6, 5)
    assert model.decode(codes).data.shape == (15, 22, 17)
    assert model.decode(codes, space="scan").grid == head(1).grid
