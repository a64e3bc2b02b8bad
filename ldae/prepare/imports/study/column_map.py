"""The map of a study's tables: which column holds what, in which codes, and how image names state person and visit.

A map is a YAML file. Those that come with the package are in `data_manifests/maps`; a further study needs a further file
and no code. Unknown keys fail.
"""

import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from ldae.errors import ConfigError
from ldae.io.plain import from_plain
from ldae.prepare.imports.dates import DateOrder

__all__ = ["DiagnosisRule", "ImageRule", "StudyColumns", "StudyMap", "load_map", "shipped_maps"]

KEYS_OF_A_SCAN = ("image", "visit", "day", "date")


@dataclass(frozen=True)
class StudyColumns:
    """The names that each quantity's column goes by; the first that a table has counts. Case and punctuation do not matter.

    Attributes:
        participant_id: the person; every table needs it.
        visit: code of the visit ("bl", "m06").
        image_id: number of the image, where it stands in file names.
        day: days since the person's entry, a number or a text that ends like "d0129".
        exam_date: date of the visit or scan.
        months: months since baseline.
        birth_date: of the person.
        age: years at the visit.
        baseline_age: years at baseline (month 0, day 0).
        sex: of the person.
        diagnosis: at the visit.
        baseline_diagnosis: at baseline; given to scans of month 0 only.
        site: of the visit.
    """

    participant_id: tuple[str, ...]
    visit: tuple[str, ...] = ()
    image_id: tuple[str, ...] = ()
    day: tuple[str, ...] = ()
    exam_date: tuple[str, ...] = ()
    months: tuple[str, ...] = ()
    birth_date: tuple[str, ...] = ()
    age: tuple[str, ...] = ()
    baseline_age: tuple[str, ...] = ()
    sex: tuple[str, ...] = ()
    diagnosis: tuple[str, ...] = ()
    baseline_diagnosis: tuple[str, ...] = ()
    site: tuple[str, ...] = ()


@dataclass(frozen=True)
class DiagnosisRule:
    """How the study's diagnoses become the manifest's.

    Attributes:
        recode: the study's word to the manifest's, without regard to case.
        unlisted: a word that is not in `recode` is kept as it is ("keep") or becomes n/a ("missing").
        carry_days: a visit without a diagnosis takes that of the person's nearest visit within so many days; 0 leaves
            it n/a.
    """

    recode: dict[str, str] = field(default_factory=dict)
    unlisted: Literal["keep", "missing"] = "keep"
    carry_days: int = 0


@dataclass(frozen=True)
class ImageRule:
    """How an image's path, relative to the folder of images, states person and visit.

    Attributes:
        patterns: regular expressions with a group `participant`, and at most one of `image`, `visit`, `day` and `date`;
            the first that is found in a path counts. Without the second group a person has one visit.
        within_days: a scan that states its day or date belongs to the nearest visit within so many days.
        exclude: regular expressions of images that are never taken.
        prefer: regular expressions; among several images of a visit the one that fits the earliest of them is taken.
    """

    patterns: tuple[str, ...]
    within_days: int = 0
    exclude: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyMap:
    """How one study's tables are read.

    Attributes:
        study: which tables of which study, in words.
        columns: which column holds what.
        images: how names of images state person and visit.
        sex: the study's codes to F and M; male and female in any case need none.
        diagnosis: how diagnoses are recoded and filled.
        visits: codes of visits to months, beyond those that say it themselves (bl, sc, m06, y1, d0129).
        dates: "day-first" or "month-first" for dates such as 03/04/2006; "stated" refuses those that could be either.
        missing: words for a missing value, beyond empty cells, n/a, na, nan, none and null.
        keep: further columns that go into the manifest.
    """

    study: str
    columns: StudyColumns
    images: ImageRule
    sex: dict[str, str] = field(default_factory=dict)
    diagnosis: DiagnosisRule = field(default_factory=DiagnosisRule)
    visits: dict[str, float] = field(default_factory=dict)
    dates: DateOrder = "stated"
    missing: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could never work.

        Raises:
            ConfigError: naming the key.
        """
        if not self.columns.participant_id:
            msg = "columns.participant_id names no column; every table needs one of identifiers"
            raise ConfigError(msg)
        wrong = [word for word in self.sex.values() if word not in ("F", "M")]
        if wrong:
            msg = f"sex must map codes to F or M, got {', '.join(map(repr, wrong))}"
            raise ConfigError(msg)
        if min(self.diagnosis.carry_days, self.images.within_days) < 0:
            msg = "diagnosis.carry_days and images.within_days must be 0 or more"
            raise ConfigError(msg)
        if not self.images.patterns:
            msg = "images.patterns is empty; give a regular expression with a group (?P<participant>...)"
            raise ConfigError(msg)
        for name in ("patterns", "exclude", "prefer"):
            for text in getattr(self.images, name):
                _check_pattern(text, f"images.{name}", keyed=name == "patterns")


def shipped_maps() -> Path:
    """The folder of the maps that come with the package: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[3]
    inside = package / "maps"
    return inside if inside.is_dir() else package.parent / "data_manifests" / "maps"


def load_map(name: str | os.PathLike[str]) -> StudyMap:
    """Read a map.

    Args:
        name: a YAML file, or the name of one that comes with the package ("adni", "oasis3").

    Raises:
        ConfigError: if there is none, or it is not YAML, has unknown keys or says what cannot be.
    """
    shipped = shipped_maps()
    path = next((path for path in (Path(name), shipped / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
        msg = f"{name}: no such map; give a YAML file, or one that comes with ldae: {names}"
        raise ConfigError(msg)
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        msg = f"{path}: not readable YAML ({' '.join(str(error).split())}); correct it"
        raise ConfigError(msg) from error
    if not isinstance(plain, dict):
        msg = f"{path}: a map is a mapping of names to values, got {type(plain).__name__}; start from {shipped}"
        raise ConfigError(msg)
    return from_plain(StudyMap, _as_text(plain), where=str(path))


def _as_text(plain: dict[str, Any]) -> dict[str, Any]:
    """Codes as text, and single names as lists: `1: M` means the text "1", `sex: GENDER` one name."""

    def texts(value: Any) -> Any:
        if isinstance(value, list):
            return [str(item) for item in value]
        return [str(value)] if isinstance(value, str | int) else value

    def codes(value: Any, *, numbers: bool = False) -> Any:
        if not isinstance(value, dict):
            return value
        return {str(key): item if numbers else str(item) for key, item in value.items()}

    result = dict(plain)
    listed = {spec.name for spec in fields(StudyColumns)}
    if isinstance(columns := result.get("columns"), dict):
        result["columns"] = {key: texts(value) if key in listed else value for key, value in columns.items()}
    for name in ("missing", "keep"):
        if name in result:
            result[name] = texts(result[name])
    if "sex" in result:
        result["sex"] = codes(result["sex"])
    if "visits" in result:
        result["visits"] = codes(result["visits"], numbers=True)
    if isinstance(rule := result.get("diagnosis"), dict) and "recode" in rule:
        result["diagnosis"] = {**rule, "recode": codes(rule["recode"])}
    return result


def _check_pattern(text: str, key: str, *, keyed: bool) -> None:
    try:
        groups = set(re.compile(text).groupindex)
    except re.error as error:
        msg = f"{key}: {text!r} is no regular expression ({error}); correct it"
        raise ConfigError(msg) from error
    if not keyed:
        return
    unknown = sorted(groups - {"participant", *KEYS_OF_A_SCAN})
    if "participant" not in groups or unknown or len(groups) > 2:
        msg = (
            f"{key}: {text!r} must have a group (?P<participant>...) and at most one of {', '.join(KEYS_OF_A_SCAN)}, "
            f"got {', '.join(sorted(groups)) or 'none'}"
        )
        raise ConfigError(msg)
