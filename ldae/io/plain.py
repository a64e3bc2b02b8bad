"""Plain mappings (YAML, JSON) to frozen dataclasses and back, strictly."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from ldae.base.ranges import check_range, ranges_of
from ldae.errors import ConfigError, LdaeError

__all__ = ["REMOVED", "drop_removed", "from_plain", "read_setting", "read_yaml", "to_plain"]

T = TypeVar("T")
MOST_VALUES = 100_000
"""Of one YAML file."""


def read_setting(text: str) -> tuple[str, Any]:
    """Name and value of a setting `name=value`, the value as YAML.

    Raises:
        ConfigError: if it is not one.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        msg = f"{text}: expected name=value, for example steps=20"
        raise ConfigError(msg)
    try:
        return name, parse_yaml(value)
    except ValueError as error:
        msg = f"{text[:99]}: not a YAML value after the = ({error})"
        raise ConfigError(msg) from error


def read_yaml(path: Path, loader: type[yaml.SafeLoader | yaml.BaseLoader] = yaml.SafeLoader) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), loader)
    except (ValueError, OSError) as error:
        msg = f"{path}: not readable YAML ({error}); correct it"
        raise ConfigError(msg) from error


def parse_yaml(text: str, loader: type[yaml.SafeLoader | yaml.BaseLoader] = yaml.SafeLoader) -> Any:
    """What a YAML text holds.

    Raises:
        ValueError: if it is none, gives a key twice, or is endless (aliases can make much of little).
    """
    try:
        parser = loader(text)
        try:
            node = parser.get_single_node()
            _check_nodes(node)
            return None if node is None else parser.construct_document(node)
        finally:
            parser.dispose()
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error
    except Exception as error:  # which one a value such as 2020-13-45 raises depends on its tag
        raise ValueError(" ".join(str(error).split())) from error


def _check_nodes(top: yaml.Node | None) -> None:
    waiting = [] if top is None else [top]
    seen = 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            msg = f"more than {MOST_VALUES:,} values, with aliases written out"
            raise ValueError(msg)
        if isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if twice := [key for key, times in keys.items() if times > 1]:
                msg = f"the key {twice[0]} stands there twice"
                raise ValueError(msg)
            waiting += [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


REMOVED: Mapping[str, Any] = {"linear_reads": "scan", "latent_noise": 0}
"""Settings of earlier versions, of semantic encoders that read latents, with their values where none are read."""


def drop_removed(plain: Any) -> list[str]:
    """Take the removed settings out of a configuration of an earlier version, at any depth, where no latents are read.

    Returns:
        Names of those that stay, because they ask for what is no longer offered.
    """
    if not isinstance(plain, dict):
        return []
    kept = []
    for name in [each for each in REMOVED if each in plain]:
        # Without a linear path nothing reads latents.
        if plain[name] == REMOVED[name] or (name == "linear_reads" and not plain.get("linear")):
            del plain[name]
        else:
            kept.append(name)
    return [*kept, *(name for each in plain.values() for name in drop_removed(each))]


def from_plain(cls: type[T], plain: Mapping[str, Any], *, where: str) -> T:
    """Build a dataclass, nested ones included; unknown keys and wrong types fail.

    Args:
        cls: the dataclass.
        plain: its fields; those left out keep their defaults.
        where: what the mapping is, for the message (a file name, say).

    Raises:
        ConfigError: naming the offending key.
    """
    try:
        _check(cls, plain, "")
    except ConfigError as error:
        msg = f"{where}: {error}"
        raise ConfigError(msg) from error
    parser = _parser(cls)  # type: ignore[arg-type]  # for mypy, a class cannot be hashed
    try:
        parsed = parser.instantiate(parser.parse_object({"value": dict(plain)}))
    except LdaeError as error:
        msg = f"{where}: {error}"
        raise ConfigError(msg) from error
    except Exception as error:  # argparse.ArgumentError, TypeError or KeyError by kind of fault
        reason = " ".join(str(error).split()).replace("Group 'value'", "the top level").replace('"value.', '"')
        msg = f"{where}: {reason}; correct or remove that key"
        raise ConfigError(msg) from error
    value: T = parsed.value
    return value


@cache
def _parser(cls: type) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=cls)
    return parser


def _check(cls: Any, plain: Any, path: str) -> None:
    """Refuse what is no group where one must be, and numbers out of range, by their whole names."""
    if not isinstance(plain, Mapping):
        takes = f"a group of settings ({', '.join(get_type_hints(cls))})"
        msg = f"{path.rstrip('.') or 'the top level'} takes {takes}, got {str(plain)[:99]}; correct it"
        raise ConfigError(msg)
    allowed = ranges_of(cls)
    for name, hint in get_type_hints(cls).items():
        given = plain.get(name)
        group = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
        if name in plain and group is not None and not (given is None and type(None) in get_args(hint)):
            _check(group, given, f"{path}{name}.")
        elif name in plain and given is None and type(None) not in get_args(hint):
            msg = f"{path}{name} takes a value, got none; give one, or leave the name out for the default"
            raise ConfigError(msg)
        elif name in allowed:
            check_range(f"{path}{name}", given, allowed[name])


def to_plain(value: Any) -> dict[str, Any]:
    """Fields of a dataclass as lists, numbers and strings, for YAML and JSON; absent options are left out."""

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: plain(each) for key, each in item.items() if each is not None}
        return [plain(each) for each in item] if isinstance(item, list | tuple) else item

    result: dict[str, Any] = plain(asdict(value))
    return result
