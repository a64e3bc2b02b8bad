"""The names of BIDS files, and the rule by which one T1w of a session is preferred."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

__all__ = ["PREFERENCE", "SUFFIX", "BidsName", "parse_name", "rank", "why_after"]

SUFFIX = "T1w"
LABEL = re.compile(r"[A-Za-z0-9+]+")
# Labels of images whose head is no longer whole.
ALTERED = re.compile(r"deface|anon|brain|strip|masked", re.IGNORECASE)
# Entities of images that are T1w by name, but one of a set that only together are, or that need a second look.
SETS = ("ce", "echo", "inv", "flip", "mt", "part")
RANKED = frozenset({"sub", "ses", "space", "acq", "run", *SETS})

# One line for each item of a rank.
PREFERENCE = (
    "what --prefer names comes first, in its order",
    "an image of the derivative named, before a raw one",
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
    """The name of a T1w image.

    Attributes:
        entities: key to label, in the order of the name, `sub` and `ses` among them.
        ending: ".nii.gz" or ".nii".
        derivative: the image belongs to a derivative.
    """

    entities: dict[str, str]
    ending: str = ".nii.gz"
    derivative: bool = False


def parse_name(path: PurePosixPath, *, derivative: bool = False) -> BidsName | str:
    """The name of a T1w image taken apart, or the reason why it is none.

    Args:
        path: `sub-X[/ses-Y]/anat/sub-X[_ses-Y][_key-label...]_T1w.nii[.gz]`, relative to the (derivative) data set.
        derivative: the data set is a derivative.
    """
    found = re.fullmatch(r"(.*)(\.nii\.gz|\.nii)", path.name)
    if found is None:
        return "not NIfTI (.nii or .nii.gz, in lower case): rename or convert it"
    *parts, suffix = found[1].split("_")
    pairs = [part.partition("-") for part in parts]
    entities = {key: label for key, _, label in pairs}
    if not all(LABEL.fullmatch(label) and key.isalpha() and key.isascii() for key, _, label in pairs):
        return "not a BIDS name (key-label pairs of letters and digits between underscores): rename it"
    if len(entities) < len(pairs):
        return "not a BIDS name (an entity stands twice): rename it"
    if next(iter(entities), None) != "sub":
        return "not a BIDS name (it does not begin with sub-): rename it"
    if not entities.get("run", "0").isdecimal():
        return "not a BIDS name (run- takes a number): rename it"
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    if list(path.parts[:-1]) != [*folders, "anat"]:
        return "in the wrong folder (its name states another subject, session or data type): move or rename it"
    if suffix != SUFFIX:
        return f"the suffix is written {SUFFIX}: rename it"
    if entities.get("part", "mag") != "mag":
        return "not a magnitude image (part-phase, part-real or part-imag)"
    if "chunk" in entities:
        return "a part of the head only (chunk-)"
    return BidsName(entities, found[2], derivative)


def rank(name: BidsName, prefer: Sequence[tuple[str, str]] = ()) -> tuple[tuple[object, ...], ...]:
    """The place of an image among those of its session; smaller is better, one item for each line of `PREFERENCE`."""
    has = name.entities
    wished = next((i for i, (key, label) in enumerate(prefer) if has.get(key) == label), len(prefer))
    return (
        (wished,),
        (not name.derivative,),
        ("space" in has, has.get("space", "")),
        (sum(key in has for key in SETS),),
        (any(ALTERED.search(label) for key, label in has.items() if key not in ("sub", "ses")),),
        ("rec" in has,),
        ("acq" in has, has.get("acq", "")),
        (-int(has.get("run", "0")),),
        tuple(f"{key}-{label}" for key, label in has.items() if key not in RANKED),
        (name.ending != ".nii.gz",),
    )


def why_after(name: BidsName, chosen: BidsName, prefer: Sequence[tuple[str, str]] = ()) -> str:
    """The line of `PREFERENCE` that decided for the chosen image."""
    ranks = zip(PREFERENCE, rank(name, prefer), rank(chosen, prefer), strict=True)
    return next((line for line, mine, better in ranks if mine != better), "the first in the order of the alphabet")
