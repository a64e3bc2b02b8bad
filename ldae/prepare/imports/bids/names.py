"""The names of BIDS files taken apart, and the rule by which one T1w of a session is preferred."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["PREFERENCE", "BidsName", "parse_name", "rank", "why_after"]

ENDINGS = (".nii.gz", ".nii")
LABEL = re.compile(r"[A-Za-z0-9+]+")
# A value that says that the head in the image is no longer whole.
ALTERED = re.compile(r"deface|anon|brain|strip|masked", re.IGNORECASE)
# Entities of images that are T1w by name, but one of a set that only together are, or that need a second look.
SETS = ("ce", "echo", "inv", "flip", "mt", "part")

# Each criterion: smaller is better, and what is said of the one passed over.
PREFERENCE = (
    "what --prefer names comes first, in its order",
    "an image of the derivative asked for, before a raw one",
    "no space- entity (the scanner's own space) before one",
    "no ce-, echo-, inv-, flip-, mt- or part- entity before one",
    "a whole head before one that is defaced, masked or stripped by its name",
    "no rec- entity before one",
    "no acq- entity before one, then acq- in the order of the alphabet",
    "the last run: a scan is repeated because the one before was not good enough",
    "the first of the further entities (rec-, desc-, res-) in the order of the alphabet",
    ".nii.gz before .nii",
)


@dataclass(frozen=True)
class BidsName:
    """A file name in BIDS.

    Attributes:
        path: relative to the data set.
        entities: key to label, in the order of the name, `sub` and `ses` among them.
        suffix: the last part, such as "T1w".
        ending: ".nii.gz" or ".nii".
        derivative: the derivative that the file belongs to; None if it is raw.
    """

    path: PurePosixPath
    entities: dict[str, str]
    suffix: str
    ending: str
    derivative: str | None = None


def parse_name(path: PurePosixPath, derivative: str | None = None) -> BidsName | str:
    """The parts of an image's path, or in words what is wrong with it.

    Args:
        path: `sub-X[/ses-Y]/anat/sub-X[_ses-Y][_key-label...]_suffix.nii[.gz]`, relative to the (derivative) data set.
        derivative: that it belongs to.
    """
    ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
    if ending is None:
        return "not NIfTI (.nii or .nii.gz, in lower case): rename or convert it"
    *parts, suffix = path.name.removesuffix(ending).split("_")
    entities: dict[str, str] = {}
    for part in parts:
        key, dash, label = part.partition("-")
        if not dash or not LABEL.fullmatch(label) or not key.isalpha() or not key.isascii():
            return "not a BIDS name (key-label pairs of letters and digits between underscores): rename it"
        if key in entities:
            return "not a BIDS name (an entity stands twice): rename it"
        entities[key] = label
    if not parts or next(iter(entities)) != "sub":
        return "not a BIDS name (it does not begin with sub-): rename it"
    if "run" in entities and not entities["run"].isdecimal():
        return "not a BIDS name (run- takes a number): rename it"
    folders = path.parts[:-1]
    stated = [f"sub-{entities['sub']}"] + ([f"ses-{entities['ses']}"] if "ses" in entities else [])
    if list(folders) != [*stated, "anat"]:
        return "in the wrong folder (its name states another subject, session or data type): move or rename it"
    return BidsName(path, entities, suffix, ending, derivative)


def rank(name: BidsName, prefer: Sequence[tuple[str, str]] = ()) -> tuple[tuple[object, ...], ...]:
    """The place of an image among those of its session; smaller is better, one item for each line of `PREFERENCE`.

    Args:
        name: of the image.
        prefer: entities and labels that come first.
    """
    has = name.entities
    wished = next((i for i, (key, label) in enumerate(prefer) if has.get(key) == label), len(prefer))
    return (
        (wished,),
        (name.derivative is None,),
        ("space" in has, has.get("space", "")),
        (sum(key in has for key in SETS),),
        (any(ALTERED.search(label) for key, label in has.items() if key not in ("sub", "ses")),),
        ("rec" in has,),
        ("acq" in has, has.get("acq", "")),
        (-int(has.get("run", "0")),),
        tuple(f"{key}-{label}" for key, label in has.items() if key in ("rec", "desc", "res") or key not in KNOWN),
        (name.ending != ".nii.gz",),
    )


KNOWN = frozenset({"sub", "ses", "space", "acq", "run", *SETS})


def why_after(name: BidsName, chosen: BidsName, prefer: Sequence[tuple[str, str]] = ()) -> str:
    """The line of `PREFERENCE` that decided for the chosen image."""
    for criterion, mine, better in zip(PREFERENCE, rank(name, prefer), rank(chosen, prefer), strict=True):
        if mine != better:
            return criterion
    return "the first in the order of the alphabet"
