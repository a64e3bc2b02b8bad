"""The map of a study's tables: the columns, their codes, and how image names state subject and visit.

A map is a YAML file. Those of the package are in `data_manifests/maps`; a further study needs a further file and no code.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ldae.errors import ConfigError
from ldae.io.plain import from_plain, read_yaml
from ldae.prepare.imports.columns import SYNONYMS
from ldae.prepare.imports.dates import DateOrder

__all__ = ["DiagnosisRule", "ImageRule", "StudyMap", "load_map", "shipped_maps", "usual_map"]

KEYS_OF_A_SCAN = ("image", "visit", "day", "date")
EVERY_COLUMN = "*"


QUANTITIES = (
    "participant_id", "visit", "image_id", "day", "exam_date", "months", "birth_date", "age", "baseline_age", "sex",
    "diagnosis", "baseline_diagnosis", "site", "split",
)  # fmt: skip
"""Contents of a column: the subject; code of the visit; number of the image; days since entry (a number, or a text that ends
like "d0129"); date of the visit or scan; months since baseline; date of birth; age in years at the visit, and at baseline; sex;
diagnosis at the visit, and at baseline (given to scans of month 0 only); site; train, validation or test."""


@dataclass(frozen=True)
class DiagnosisRule:
    """Recoding of the study's diagnoses.

    Attributes:
        recode: the study's word to the manifest's, without regard to case.
        unlisted: a word that is not in `recode` is kept as it is ("keep") or becomes n/a ("missing").
        carry_days: a visit without a diagnosis takes that of the subject's nearest visit within so many days; 0 leaves
            it n/a.
    """

    recode: dict[str, str] = field(default_factory=dict)
    unlisted: Literal["keep", "missing"] = "keep"
    carry_days: int = 0


@dataclass(frozen=True)
class ImageRule:
    """Reading of subject and visit from an image's path, relative to the folder of images.

    Attributes:
        patterns: regular expressions with a group `participant`, and at most one of `image`, `visit`, `day` and `date`;
            the first that is found in a path counts. Without the second group a subject has one visit. Without any pattern
            the identifiers and visits of the tables are looked for in the path, as whole words.
        within_days: a scan that states its day or date belongs to the nearest visit within so many days.
        exclude: regular expressions of images that are never taken.
        prefer: regular expressions; among several images of a visit the one that fits the earliest of them is taken.
    """

    patterns: tuple[str, ...] = ()
    within_days: int = 0
    exclude: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyMap:
    """Map of one study's tables.

    Attributes:
        study: the study and its tables, in words.
        columns: one of :data:`QUANTITIES` -> the names of its column, without regard to case and punctuation; the first
            that a table has counts.
        images: how names of images state subject and visit.
        sex: the study's codes to F and M; male and female in any case need none.
        diagnosis: how diagnoses are recoded and filled.
        visits: codes of visits to months, beyond those that say it themselves (bl, sc, m06, y1, d0129).
        dates: "day-first" or "month-first" for dates such as 03/04/2006; "stated" refuses those that could be either.
        missing: words for a missing value, beyond empty cells, n/a, na, nan, none and null.
        keep: further columns that go into the manifest; "*" is all of them.
        strict: refuse cells that cannot be used and rows or images with several partners, instead of reporting them.
    """

    study: str
    columns: dict[str, tuple[str, ...]]
    images: ImageRule = field(default_factory=ImageRule)
    sex: dict[str, Literal["F", "M"]] = field(default_factory=dict)
    diagnosis: DiagnosisRule = field(default_factory=DiagnosisRule)
    visits: dict[str, float] = field(default_factory=dict)
    dates: DateOrder = "stated"
    missing: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible rules.

        Raises:
            ConfigError: naming the key.
        """
        if not self.columns.get("participant_id"):
            msg = "columns.participant_id names no column; every table needs one of identifiers"
            raise ConfigError(msg)
        if unknown := set(self.columns) - set(QUANTITIES):
            msg = f"columns has no {', '.join(sorted(unknown))}; choose among {', '.join(QUANTITIES)}"
            raise ConfigError(msg)
        if min(self.diagnosis.carry_days, self.images.within_days) < 0:
            msg = "diagnosis.carry_days and images.within_days must be 0 or more"
            raise ConfigError(msg)
        for name in ("patterns", "exclude", "prefer"):
            for text in getattr(self.images, name):
                _check_pattern(text, f"images.{name}")


def usual_map(id_column: str | None = None, *, strict: bool = False) -> StudyMap:
    """The map of a table with one row a scan or a subject, whose identifiers stand in the names of the images.

    Args:
        id_column: the column of identifiers; without it, it goes by one of its usual names.
        strict: refuse what cannot be used, instead of a report of it.
    """
    columns = SYNONYMS if id_column is None else {**SYNONYMS, "participant_id": (id_column,)}
    return StudyMap("a table with usual names of columns", columns, keep=(EVERY_COLUMN,), strict=strict)


def shipped_maps() -> Path:
    """The folder of the maps that come with the package: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[2]
    inside = package / "maps"
    return inside if inside.is_dir() else package.parent / "data_manifests" / "maps"


def load_map(name: str | os.PathLike[str]) -> StudyMap:
    """Read a map.

    Args:
        name: a YAML file, or the name of one that comes with the package ("adni", "oasis3").

    Raises:
        ConfigError: if there is none, or it is not YAML, has unknown keys or impossible values.
    """
    shipped = shipped_maps()
    path = next((path for path in (Path(name), shipped / f"{name}.yaml") if path.is_file()), None)
    if path is None:
        names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
        msg = f"{name}: no such map; give a YAML file, or one that comes with ldae: {names}"
        raise ConfigError(msg)
    plain = read_yaml(path, yaml.BaseLoader)  # codes are text: `1: M` and `missing: [-9]` need no quotes
    if not isinstance(plain, dict):
        msg = f"{path}: a map is a mapping of names to values, got {type(plain).__name__}; start from {shipped}"
        raise ConfigError(msg)
    if isinstance(columns := plain.get("columns"), dict):
        plain["columns"] = {key: _listed(value) for key, value in columns.items()}
    plain |= {name: _listed(plain[name]) for name in ("missing", "keep") if name in plain}
    return from_plain(StudyMap, plain, where=str(path))


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _check_pattern(text: str, key: str) -> None:
    try:
        groups = set(re.compile(text).groupindex)
    except re.error as error:
        msg = f"{key}: {text!r} is no regular expression ({error}); correct it"
        raise ConfigError(msg) from error
    unknown = groups - {"participant", *KEYS_OF_A_SCAN}
    if key == "images.patterns" and ("participant" not in groups or unknown or len(groups) > 2):
        msg = (
            f"{key}: {text!r} must have a group (?P<participant>...) and at most one of {', '.join(KEYS_OF_A_SCAN)}, "
            f"got {', '.join(sorted(groups)) or 'none'}"
        )
        raise ConfigError(msg)
