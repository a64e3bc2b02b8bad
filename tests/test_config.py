import math
import re
from dataclasses import is_dataclass, replace
from itertools import pairwise
from typing import get_args, get_type_hints

import pytest
import yaml

from ldae.base.ranges import ranges_of
from ldae.config import find_config, load_experiment, shipped_configs
from ldae.errors import ConfigError
from ldae.io.plain import from_plain, to_plain
from ldae.training.recipe import ExperimentConfig
from tests.tiny_model import TINY

BOMB = "a: &a [1, 1, 1]\n" + "".join(f"{y}: &{y} [{5 * f'*{x}, '}]\n" for x, y in pairwise("abcdefghi"))
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


def ranged(cls=ExperimentConfig, prefix=""):
    """Every setting that has a range, by its whole name."""
    allowed = ranges_of(cls)
    for name, hint in get_type_hints(cls).items():
        group = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
        if group is not None:
            yield from ranged(group, f"{prefix}{name}.")
        elif name in allowed:
            yield f"{prefix}{name}", allowed[name], isinstance(getattr(cls, name), tuple)


@pytest.mark.parametrize(("name", "allowed", "several"), list(ranged()))
def test_every_setting_out_of_range_is_refused_by_its_whole_name(name, allowed, several):
    wrong = [allowed.low - 1] + ([allowed.high + 1] if math.isfinite(allowed.high) else [])
    for value in (*wrong, ".nan"):
        given = f"[{value}, 1, 1]" if several else value
        with pytest.raises(ConfigError, match=rf"{re.escape(name)} must be {re.escape(str(allowed))}"):
            load_experiment("quick", [f"{name}={given}"])


@pytest.mark.parametrize("group", ["compression", "denoiser.model", "representation.semantic_encoder.volume", "data"])
@pytest.mark.parametrize("value", ["5", "[1]", "text"])
def test_a_group_takes_no_value(group, value):
    with pytest.raises(ConfigError, match=rf"{re.escape(group)} takes a group of settings \("):
        load_experiment("quick", [f"{group}={value}"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("denoiser.stepz=7", "^--set denoiser.stepz=7: there is no setting"),
        ("compression.optimisation.batchsize=1", r"did you mean compression\.optimisation\.batch_size\?"),
        ("xyz=1", "'ldae config demo' prints all"),
        ("seed", "name=value"),
        ("seed=[", "YAML"),
        ("seed=2020-13-45", "not a YAML value"),
        ("seed=null", "seed takes a value"),
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
        ("a: " + 999 * "[", "nested too deeply"),
        ("compression: &a {x: *a}", "more than 100,000 values"),
        (BOMB, "more than 100,000 values"),
        ("seed: 1\nseed: 2", "the key seed stands there twice"),
        ("seed: 2020-13-45", "not readable YAML"),
        ("seed: !!bool x", "not readable YAML"),
        ("seed:", "seed takes a value, got none"),
        (f"include: {'x' * 5000}", "no such file beside it"),
        ("- 1", "mapping"),
        ("include: none.yaml", "includes none.yaml, but there is no such file"),
        ("include: self.yaml", "includes itself"),
        ("include: 5", "include takes the name of a file, or a list of names, got 5"),
        ("include: [null]", r"got \[None\]"),
        ("include:", "got None"),
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


def test_a_configuration_of_when_encoders_could_read_latents(tmp_path):
    plain = to_plain(load_experiment("demo"))
    stage = plain["representation"]
    volume = stage["semantic_encoder"]["volume"]
    stage["latent_noise"], volume["linear_reads"] = 0.0, "scan"  # as 'ldae config' printed them
    path = tmp_path / "former.yaml"
    path.write_text(yaml.safe_dump(plain))
    assert load_experiment(path) == load_experiment("demo")
    volume["linear_reads"] = "latent"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(
        ConfigError, match=r"former.yaml: .* read latents \(linear_reads\) are no longer offered; leave"
    ):
        load_experiment(path)
    volume["linear"] = 0  # nothing reads them
    path.write_text(yaml.safe_dump(plain))
    assert load_experiment(path) == load_experiment("demo", ["representation.semantic_encoder.volume.linear=0"])
    with pytest.raises(ConfigError, match=r"--set .* read latents \(latent_noise\) are no longer offered; leave"):
        load_experiment("demo", ["representation.latent_noise=0.2"])


def test_a_model_gives_what_the_file_names_not():
    found = load_experiment("fine_tune", ["compression.model.latent_channels=3"], TINY)
    assert found.autoencoder == replace(TINY, compression=replace(TINY.compression, latent_channels=3))
    assert found.compression.frozen
    assert load_experiment("quick", [], TINY).preprocessing == load_experiment("quick").preprocessing
