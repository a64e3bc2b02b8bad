import pytest

from ldae.config import find_config, load_experiment, shipped_configs
from ldae.errors import ConfigError
from ldae.io.plain import from_plain, to_plain
from ldae.training.recipe import ExperimentConfig

SHIPPED = sorted(str(path.relative_to(shipped_configs()).with_suffix("")) for path in shipped_configs().rglob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_and_survives_a_round_trip(name):
    experiment = load_experiment(name)
    assert from_plain(ExperimentConfig, to_plain(experiment), where=name) == experiment
    assert experiment.autoencoder.compression.latent_shape(experiment.preprocessing.shape)


def test_the_paper_is_the_paper():
    paper = load_experiment("paper")
    assert paper.compression.model.channels == (64, 128, 128, 128)
    assert paper.denoiser.model.widths == (256, 512, 768)
    assert paper.denoiser.optimisation.batch_size == 64
    assert paper.denoiser.optimisation.ema_decay == 0.999
    assert paper.representation.semantic_encoder.semantic_width == 768


def test_overrides_reach_their_key_and_an_unknown_name_lists_those_that_ship():
    experiment = load_experiment("demo", ["denoiser.optimisation.steps=7", "seed=3"])
    assert experiment.denoiser.optimisation.steps == 7
    assert experiment.seed == 3
    with pytest.raises(ConfigError, match="ships: demo, demo/compression, "):
        find_config("nope")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("denoiser.stepz=7", "^--set denoiser.stepz=7: there is no setting"),
        ("compression.optimisation.batchsize=1", r"did you mean compression\.optimisation\.batch_size\?"),
        ("xyz=1", "'ldae config demo' prints all"),
        ("seed", "name=value"),
        ("seed=[", "YAML"),
        ("seed.x=1", "seed"),
        ("seed=abc", "with --set seed=abc: "),
    ],
)
def test_bad_overrides_are_refused(override, words):
    with pytest.raises(ConfigError, match=words):
        load_experiment("demo", [override])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not readable YAML"),
        ("- 1", "mapping"),
        ("include: none.yaml", "does not exist"),
        ("include: self.yaml", "includes itself"),
        ("nonsense: 1", "nonsense"),
        ("include: base.yaml\nseed: 2", "set it in one place"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, words):
    (tmp_path / "base.yaml").write_text("seed: 1")
    path = tmp_path / "self.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_experiment(path)
