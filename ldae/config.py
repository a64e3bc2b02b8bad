"""Experiments from YAML: files that include one another, shipped ones by name, and single values set by hand.

A file names only what differs from the defaults. `include` names files beside it that it builds on. A key that two files
give is an error: no value is written twice.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ldae.errors import ConfigError
from ldae.io.plain import REMOVED, drop_removed, from_plain, read_setting, read_yaml
from ldae.networks import AutoencoderConfig
from ldae.training.recipe import STAGES, ExperimentConfig, describe

__all__ = ["find_config", "load_experiment", "shipped_configs"]


def shipped_configs() -> Path:
    """The folder of the experiments that come with the package: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str | os.PathLike[str]) -> Path:
    """A config file: a path, or the name of a shipped one (`demo`, `paper`, `demo/denoiser`).

    Raises:
        ConfigError: if there is none, listing those that ship.
    """
    path = Path(name)
    if _is_file(path):
        return path
    shipped = shipped_configs()
    for candidate in (path / "all.yaml", shipped / path, shipped / f"{path}.yaml", shipped / path / "all.yaml"):
        if _is_file(candidate):
            return candidate
    files = [each.relative_to(shipped) for each in shipped.rglob("*.yaml")]
    # A folder's all.yaml goes by the folder's name.
    names = sorted({(each.parent if each.stem == "all" else each.with_suffix("")).as_posix() for each in files})
    near = get_close_matches(os.fspath(name), names, n=1)
    guess = f"did you mean {near[0]}? Else " if near else ""
    msg = f"{name}: no such config; {guess}give a YAML file, or one that ships: {', '.join(names)}"
    raise ConfigError(msg)


def load_experiment(
    name: str | os.PathLike[str], overrides: Iterable[str] = (), model: AutoencoderConfig | None = None
) -> ExperimentConfig:
    """Read an experiment.

    Args:
        name: file or shipped name.
        overrides: `key.path=value` each, the value as YAML.
        model: whose preprocessing and networks are taken where the file names none; overrides may change them.

    Raises:
        ConfigError: for a missing file, bad YAML, unknown keys, wrong types, impossible values.
    """
    path = find_config(name)
    plain = _read(path, ())
    if model is not None:
        plain = _beneath(plain, describe(model))
    overrides = tuple(overrides)
    for override in overrides:
        _set(plain, override)
    where = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    if kept := drop_removed(plain):
        msg = f"{where}: semantic encoders that read latents ({', '.join(kept)}) are no longer offered; leave those settings out"
        raise ConfigError(msg)
    return from_plain(ExperimentConfig, plain, where=where)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        msg = f"{path} includes itself ({' -> '.join(str(p) for p in (*seen, path))}); remove one include"
        raise ConfigError(msg)
    plain = read_yaml(path)
    plain = {} if plain is None else plain
    if not isinstance(plain, dict):
        msg = f"{path}: a config is a mapping of names to values, got {type(plain).__name__}; see 'ldae config demo'"
        raise ConfigError(msg)
    includes = plain.pop("include", [])
    includes = [includes] if isinstance(includes, str) else includes
    if not isinstance(includes, list) or not all(isinstance(each, str) for each in includes):
        msg = f"{path}: include takes the name of a file, or a list of names, got {str(includes)[:99]}; correct it"
        raise ConfigError(msg)
    merged: dict[str, Any] = {}
    for include in includes:
        below = path.parent / include
        if not _is_file(below):
            msg = f"{path}: includes {include[:99]}, but there is no such file beside it; correct the name"
            raise ConfigError(msg)
        merged = _merge(merged, _read(below, (*seen, path)), below)
    return _merge(merged, plain, path)


def _merge(base: Mapping[str, Any], more: Mapping[str, Any], path: Path, prefix: str = "") -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        former = merged.get(key)
        if isinstance(former, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(former, value, path, f"{prefix}{key}.")
        elif key in merged and former != value:
            msg = f"{path}: {prefix}{key} is already set to {former!r} by an included file; set it in one place"
            raise ConfigError(msg)
        else:
            merged[key] = value
    return merged


def _beneath(plain: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the groups of a model that it lacks."""
    found = {**model, **plain}
    for stage in STAGES:
        if isinstance(found[stage], dict):
            found[stage] = {**model[stage], **found[stage]}
    return found


def _set(plain: dict[str, Any], override: str) -> None:
    try:
        key, value = read_setting(override)
    except ConfigError as error:
        msg = f"--set {error}"
        raise ConfigError(msg) from error
    groups, settings = _names(ExperimentConfig)
    *parents, last = key.split(".")
    # What lies below a setting (a mapping, say) is its own affair; what was removed is refused with the file's.
    if last not in REMOVED and key not in groups and not any(f"{key}.".startswith(f"{each}.") for each in settings):
        near = get_close_matches(key, settings, n=1)
        guess = f"did you mean {near[0]}?" if near else "'ldae config demo' prints all of them"
        msg = f"--set {override}: there is no setting {key}; {guess}"
        raise ConfigError(msg)
    for parent in parents:
        below: Any = plain.setdefault(parent, {})
        if not isinstance(below, dict):
            msg = f"--set {override}: {parent} is a value, not a group; correct the key"
            raise ConfigError(msg)
        plain = below
    plain[last] = value


def _names(cls: Any, prefix: str = "") -> tuple[list[str], list[str]]:
    """The groups and the settings of a configuration, by their paths."""
    groups: list[str] = []
    settings: list[str] = []
    for name, hint in get_type_hints(cls).items():
        inner = [each for each in (hint, *get_args(hint)) if is_dataclass(each)]
        (groups if inner else settings).append(prefix + name)
        for each in inner:
            below = _names(each, f"{prefix}{name}.")
            groups += below[0]
            settings += below[1]
    return groups, settings
