"""Every way to train, on the toy configuration: what each leaves, and that its codes come back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ldae.autoencoder import LatentDiffusionAutoencoder
from ldae.config import load_experiment
from ldae.contract import clear_background
from ldae.data.manifest import read_manifest, write_manifest
from ldae.errors import CheckpointError, ConfigError, TrainingError
from ldae.io.checkpoints import save_tensors
from ldae.models.whitening import Whitening
from ldae.networks import Networks
from ldae.training.experiment import Experiment
from ldae.training.fit import FitSettings
from ldae.training.recipe import STAGES, build_stage, scan_shapes
from ldae.training.representation import RepresentationStage
from ldae.training.stage import Draws
from tests.command_line import run

VELOCITY = ["denoiser.model.prediction=velocity", "representation.shift=velocity"]
SHORT = [f"{stage}.optimisation.steps=2" for stage in STAGES]

pytestmark = pytest.mark.usefixtures("uncounted")


@pytest.mark.parametrize(
    "recipe",
    [
        ["schedule.kind=rectified", *VELOCITY],
        pytest.param(
            ["schedule.zero_terminal_snr=true", *(f"{name}.weighting=min_snr" for name in STAGES[1:]), *VELOCITY],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["representation.semantic_dropout=0.5", "resample_posterior=true", "sampling.guidance=1.5"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                "preprocessing={shape: [12, 12, 8], voxel_size_mm: 20.0, centre_mm: [0.0, -17.0, 5.0]}",
                "compression.model.channels=[]",
                "compression.model.latent_channels=1",
                *VELOCITY,
            ],
            marks=pytest.mark.slow,
        ),
        [
            "compression.model={channels: [], latent_channels: 3, components: {patch: 4}}",
            "representation.code_map=true",
            "denoiser.model.gaussian_components=2",
            "representation.semantic_encoder.whitening=0.0",
            "mirror_latents=true",
            *VELOCITY,
        ],
    ],
    ids=["rectified", "zero_terminal_snr", "dropout_and_draws", "voxel_space", "components"],
)
def test_every_recipe_trains_and_its_codes_come_back(cohort, tmp_path, recipe, fit):
    experiment, records = fit(cohort, tmp_path / "run", *SHORT, *recipe)
    assert all(np.isfinite(list(record.losses.values())).all() for record in records.values())
    model = experiment.model()
    assert model.config.semantic_dropout == ("representation.semantic_dropout=0.5" in recipe)
    # Posterior draws reach training only.
    assert ("latent_std" in experiment._latents("train")[0]) == ("resample_posterior=true" in recipe)
    assert "latent_std" not in experiment._latents("validation")[0]
    scans = experiment._dataset("validation").images([0])
    z_0, y = model.compress(scans), model.semantic(scans)
    assert float(model.invert(z_0, y, round_trip=True).round_trip) < 1e-4
    if "denoiser.model.gaussian_components=2" in recipe:
        latents, estimator = experiment._latents("train"), model.networks.gradient_estimator
        codes = experiment._codes(experiment._latents("train", images=True))
        mapped = estimator.embed(codes)[:, estimator.embedding_width :]
        estimator.begin_map(codes, latents.latents)
        torch.testing.assert_close(
            mapped, estimator.embed(codes)[:, estimator.embedding_width :], msg="fitted at the end"
        )
        assert model.networks.denoiser.gaussian.basis.any()
    if "compression.model.channels=[]" in recipe:
        assert records["compression"].steps == 0
        np.testing.assert_allclose(model.decompress(z_0), clear_background(scans[:, 0].numpy()), atol=1e-6)
        assert z_0.shape == scans.shape


def test_withheld_codes_are_not_learnt_from_and_noise_reaches_training_alone():
    config = load_experiment("quick", ["representation.semantic_dropout=0.999999", "representation.image_noise=0.5"])
    networks = Networks(config.autoencoder)
    parts = (networks.denoiser, networks.semantic_encoder, networks.gradient_estimator, networks.schedule, 0)
    stage = RepresentationStage(config.representation, *parts)
    latent = torch.randn(2, *config.compression.model.latent_shape(config.preprocessing.shape))
    # Layers that start at zero would hide what they are given.
    for parameter in stage.learning["gradient_estimator"].parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)

    def loss(image: torch.Tensor) -> float:
        torch.manual_seed(0)  # of what drops out
        with torch.no_grad():
            return float(stage.losses({"image": image, "latent": latent}, Draws(0, 0))["loss"])

    scans = [torch.rand(2, 1, *config.preprocessing.shape) for _ in range(2)]
    stage.train()
    assert loss(scans[0]) == loss(scans[1])
    stage.eval()
    assert loss(scans[0]) != loss(scans[1])


def test_compression_starts_from_given_weights_or_keeps_them(cohort, tmp_path, fit):
    _, records = fit(cohort, tmp_path / "first", *SHORT, until="compression")
    weights = tmp_path / "first" / "compression" / "weights.safetensors"
    frozen = [f"compression.initial_weights={weights}", "compression.frozen=true"]
    kept, again = fit(cohort, tmp_path / "kept", *SHORT, *frozen, until="compression")
    assert again["compression"].steps == 0
    assert again["compression"].fingerprint == records["compression"].fingerprint
    assert kept.model().config.compression.channels == (8, 8, 16)
    with pytest.raises(CheckpointError, match="of another shape"):
        fit(cohort, tmp_path / "wrong", f"compression.initial_weights={weights}", "compression.model.latent_channels=2")
    with pytest.raises(ConfigError, match=r"weights of compression\.initial_weights or of the model"):
        fit(cohort, tmp_path / "nothing", "compression.frozen=true")


def test_stage_three_trains_on_a_given_denoiser_and_the_scale_of_its_latents(cohort, tmp_path, fit):
    first, records = fit(cohort, tmp_path / "first", *SHORT, until="denoiser")
    compression = first.networks.compression
    compression.latent_std.fill_(0.7)
    save_tensors(tmp_path / "compression.safetensors", compression.state_dict())
    given = [
        f"compression.initial_weights={tmp_path / 'compression.safetensors'}",
        f"denoiser.initial_weights={tmp_path / 'first' / 'denoiser' / 'weights.safetensors'}",
    ]
    frozen = ["compression.frozen=true", "denoiser.frozen=true"]
    for _ in range(2):  # the second time, all stages are done
        kept, again = fit(cohort, tmp_path / "kept", *SHORT, *given, *frozen)
        assert [again[stage].steps == 0 for stage in STAGES] == [True, True, False]
        assert again["denoiser"].fingerprint == records["denoiser"].fingerprint
        assert kept.networks.compression.latent_std.tolist() == pytest.approx([0.7] * len(compression.latent_std))
    _, onwards = fit(cohort, tmp_path / "on", *SHORT, *given, frozen[0], until="denoiser")
    assert onwards["denoiser"].steps > 0
    with pytest.raises(ConfigError, match=r"weights of denoiser\.initial_weights or of the model"):
        fit(cohort, tmp_path / "nothing", "denoiser.frozen=true")


def test_fine_tuning_keeps_contract_and_compression_and_starts_from_the_codes(cohort, tmp_path, tiny_model):
    steps = [f"{stage}.optimisation.{key}=2" for stage in STAGES[1:] for key in ("steps", "batch_size")]
    settings = {"device": "cpu", "precision": "fp32"}

    def tune(name, *more):
        experiment = load_experiment("fine_tune", [*steps, *more], tiny_model.config)
        run = Experiment(experiment, cohort, FitSettings(tmp_path / name, **settings), tiny_model)
        return run, run.fit()

    run, records = tune("learns")
    assert (records["compression"].steps, records["denoiser"].steps, records["representation"].steps) == (0, 2, 2)
    model = run.model()
    assert model.config.preprocessing == tiny_model.config.preprocessing
    kept = tiny_model.networks.compression.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.networks.compression.state_dict().items())
    assert model.fingerprint() != tiny_model.fingerprint()
    still, _ = tune("stands still", *[f"{stage}.optimisation.learning_rate=1e-12" for stage in STAGES[1:]])
    images = run._dataset("validation").images([0])
    codes = [each.semantic(images) for each in (tiny_model, still.model(), model)]
    assert torch.allclose(codes[0], codes[1], atol=1e-5)
    assert not torch.allclose(codes[0], codes[2], atol=1e-5)
    experiment = load_experiment("fine_tune", steps, model.config)
    with pytest.raises(TrainingError, match="changed: start"):
        Experiment(experiment, cohort, FitSettings(tmp_path / "learns", **settings), model).fit()


def test_an_encoder_that_is_kept_needs_no_subjects_with_several_scans(cohort, tmp_path, tiny_model):
    encoder = replace(tiny_model.config.semantic_encoder, whitening=1.0, whitening_of="within")
    config = replace(tiny_model.config, semantic_encoder=encoder)
    model = LatentDiffusionAutoencoder(config, Networks(config))
    settings = FitSettings(tmp_path / "run", device="cpu", precision="fp32")
    assert Experiment(load_experiment("fine_tune", [], config), cohort, settings, model).taken.keeps("semantic_encoder")
    with pytest.raises(TrainingError, match="needs subjects with several training scans"):
        Experiment(load_experiment("fine_tune", [], config), cohort, settings, tiny_model)


def test_codes_are_whitened_within_subjects_and_a_mirrored_scan_is_another_subject(cohort, tmp_path, tiny_model):
    encoder = replace(tiny_model.config.semantic_encoder, whitening=1.0, whitening_of="within")
    trains = ["compression.frozen=false", "compression.loss.adversarial=0"]
    config = load_experiment("fine_tune", trains, replace(tiny_model.config, semantic_encoder=encoder))
    table = cohort.table.astype(str)
    first, second = table.index[table["split"] == "train"][:2]
    table.loc[second, ["participant_id", "session_id"]] = table.loc[first, "participant_id"], "ses-again"
    twice = read_manifest(write_manifest(table, cohort.path.parent / "twice.tsv"))
    experiment = Experiment(config, twice, FitSettings(tmp_path / "run", device="cpu", precision="fp32"))
    subjects = [record.participant_id for record in experiment.records["train"]]
    assert len(set(subjects)) < len(subjects)
    width = encoder.semantic_width
    codes = torch.randn(2 * len(subjects), width, generator=torch.Generator().manual_seed(0))
    expected = Whitening(width)
    expected.fit(codes, 1.0, [*subjects, *(f"mirrored {name}" for name in subjects)])
    torch.testing.assert_close(experiment._whiten(codes), expected(codes), atol=1e-4, rtol=1e-4)
    expected.fit(codes, 1.0)
    assert (experiment._whiten(codes) - expected(codes)).abs().max() > 0.1


def test_training_goes_on_at_another_grid_and_latent_width(cohort, tmp_path, tiny_model):
    model = tiny_model.save_pretrained(tmp_path / "model")
    wider = ("preprocessing.shape=[20,24,16]", "compression.model.latent_channels=3", "compression.frozen=false")
    wider = (*wider, "compression.loss.adversarial=0")
    steps = [f"{stage}.optimisation.{key}=2" for stage in STAGES for key in ("steps", "batch_size")]
    words = ("fit", "all", "--from", model, "--manifest", cohort.path, "--device", "cpu", "--precision", "fp32")
    assert run(*words, "--out", tmp_path / "wider", "--set", *steps, *wider) == 0
    taken = json.loads((tmp_path / "wider" / "warm_start.json").read_text())
    assert "denoiser.encoder.stem.weight" in taken["part"]
    assert not taken["initial"]
    assert taken["changed"]["compression.latent_channels"] == [tiny_model.config.compression.latent_channels, 3]
    trained = LatentDiffusionAutoencoder.from_pretrained(tmp_path / "wider" / "model").config
    assert (trained.preprocessing.shape, trained.compression.latent_channels) == ((20, 24, 16), 3)


def test_a_model_that_fits_in_part_is_not_kept_frozen(cohort, tmp_path, tiny_model):
    wider = load_experiment("fine_tune", ["compression.model.latent_channels=3"], tiny_model.config)
    with pytest.raises(ConfigError, match=r"that are not all its own .*; set compression\.frozen=false"):
        Experiment(wider, cohort, FitSettings(tmp_path / "frozen", device="cpu"), tiny_model)


@pytest.mark.slow
def test_one_thread_in_single_precision_gives_the_same_bits_twice(cohort, tmp_path, fit):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (first, _), (second, _) = (fit(cohort, tmp_path / name, *SHORT) for name in ("first", "second"))
        scans = first._dataset("validation").images([0])
        found = [(m := e.model()).invert(m.compress(scans), m.semantic(scans)) for e in (first, second)]
    finally:
        torch.set_num_threads(threads)
    assert first.model().fingerprint() == second.model().fingerprint()
    assert torch.equal(found[0].noise, found[1].noise)


@pytest.mark.parametrize("name", STAGES)
def test_a_batch_of_one_trains(name):
    config = load_experiment("quick", [f"{name}.optimisation.batch_size=1"])
    stage = build_stage(name, config, Networks(config.autoencoder)).train()
    stage.steps_done = config.compression.loss.adversarial_start
    batch = {key: torch.rand(1, *shape) for key, shape in scan_shapes(config, stage).items()}
    for loss, _ in stage.passes(batch):
        loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in stage.parameters() if p.grad is not None)


def test_batches_too_small_for_a_batch_norm_are_refused():
    normed = "representation.semantic_encoder={volume: {widths: [4]}}"
    with pytest.raises(ConfigError, match="at least 2"):
        load_experiment("quick", [normed, "representation.optimisation.batch_size=1"])
    with pytest.raises(ConfigError, match="needs 2 along each axis"):
        load_experiment("quick", ["compression.discriminator.layers=4"])


def test_the_discriminator_is_frozen_before_it_judges():
    config = load_experiment("quick", ["compression.loss.adversarial_start=0"])
    stage = build_stage("compression", config, Networks(config.autoencoder)).train()
    learning = []
    stage.discriminator.register_forward_hook(
        lambda module, *_: learning.append(all(p.requires_grad for p in module.parameters()))
    )
    for loss, _ in stage.passes({"image": torch.rand(1, 1, *config.preprocessing.shape)}):
        loss.backward()
    assert learning == [False, True, True], "once for the autoencoder, then on both sides"
