"""Plain mappings (YAML, JSON) to frozen dataclasses and back, strictly."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import yaml

from ldae.errors import ConfigError, LdaeError

__all__ = ["from_plain", "read_setting", "to_plain"]

T = TypeVar("T")


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
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        msg = f"{text}: {value!r} is not a YAML value ({' '.join(str(error).split())})"
        raise ConfigError(msg) from error


def from_plain(cls: type[T], plain: Mapping[str, Any], *, where: str) -> T:
    """Build a dataclass, nested ones included; unknown keys and wrong types fail.

    Args:
        cls: the dataclass.
        plain: its fields; those left out keep their defaults.
        where: what the mapping is, for the message (a file name, say).

    Raises:
        ConfigError: naming the offending key.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=cls)
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


def to_plain(value: Any) -> dict[str, Any]:
    """Fields of a dataclass as lists, numbers and strings, for YAML and JSON; absent options are left out."""

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: plain(each) for key, each in item.items() if each is not None}
        return [plain(each) for each in item] if isinstance(item, list | tuple) else item

    result: dict[str, Any] = plain(asdict(value))
    return result
