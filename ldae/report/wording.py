"""Numbers and names in words: rounding, units, names of methods, baselines and structures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldae.report.blocks import Cell

__all__ = [
    "METHODS",
    "OWN_METHODS",
    "RIVALS",
    "STRUCTURES",
    "baseline_name",
    "capital",
    "counted",
    "duration",
    "fixed",
    "joined",
    "long_class",
    "ranks",
    "short_name",
    "target_name",
    "verdict",
    "words",
]

NOT_MEASURED = "not measured"

BASELINES = {
    "random_encoder": ("random encoder", "the same encoder with random weights"),
    "image_pca": ("image components", "principal components of the scan, averaged over 12 mm and both sides"),
    "tissue_pca": ("tissue components", "principal components of tissue maps, averaged over 12 mm and both sides"),
    "tissue_blocks": ("tissue blocks", "mean of tissue maps in blocks of 40 mm, both sides averaged"),
    "latent_pca": ("latent components", "principal components of the compressed scan"),
    "latent_pca_symmetric": (
        "symmetric latent components",
        "principal components of the compressed scan and its mirror image",
    ),
    "true_volumes": ("true volumes", "true volumes of the phantom (known only in a simulation)"),
    "median": ("median", "median of the training subjects"),
    "demographics": ("demographics", "age, sex and site without a scan, as far as known and not the target"),
    "volumes": ("volumes", "volumes from the manifest"),
}
"""Short and long names of baselines."""

METHODS = {
    "ldae": "codes interpolated in time",
    "ldae_residual": "codes interpolated in time, residual-corrected",
    "trajectory": "linear fit of the codes of all other sessions",
    "trajectory_residual": "linear fit of all other sessions, each carried by its code to the month",
    "latent_linear": "interpolated compressed scans",
    "voxel_linear": "interpolated voxels of the two scans",
    "voxel_trajectory": "linear fit of the voxels of all other sessions, without a model",
    "copy_nearest": "copy of the nearer session",
    "ceiling": "ceiling: the true scan itself, compressed and decoded",
}
OWN_METHODS = {
    "ldae_residual": "the residual-corrected codes",
    "trajectory_residual": "the sessions carried by their codes",
}
"""Names in a sentence of the methods of the package that a run reports."""

RIVALS = {
    "voxel_linear": "interpolated voxels",
    "voxel_trajectory": "linear fit of voxels",
    "copy_nearest": "nearest copy",
}
"""Short names of the methods without a model, for sentences."""

STRUCTURES = {
    "ventricles_ml": "ventricles",
    "hippocampus_left_ml": "left hippocampus",
    "hippocampus_right_ml": "right hippocampus",
    "brain_ml": "brain tissue",
}
CLASSES = {
    "AD": "Alzheimer's disease (AD)",
    "CN": "cognitively normal (CN)",
    "MCI": "mild cognitive impairment (MCI)",
}


def fixed(value: Any, digits: int = 3, unit: str = "", *, signed: bool = False) -> str:
    """A number with so many decimals and a true minus sign; a change, if signed, has a plus sign too."""
    if not isinstance(value, int | float):
        return NOT_MEASURED
    text = f"{value:{'+' if signed else ''}z.{digits}f}"
    return (text.lstrip("+") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}") + unit


def counted(value: Any) -> str:
    """A whole number with separators."""
    return f"{value:,}" if isinstance(value, int) else NOT_MEASURED


def duration(seconds: Any) -> str:
    """Hours, minutes and seconds, as far as they matter."""
    if not isinstance(seconds, int | float):
        return NOT_MEASURED
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def words(text: Any) -> Cell:
    """A table cell that holds words."""
    return Cell(str(text) if text else "not recorded", prose=True)


def capital(text: str) -> str:
    """The text with a capital letter in front."""
    return text[:1].upper() + text[1:]


def joined(parts: Sequence[str]) -> str:
    """Parts of a sentence with commas and an 'and'; empty if there are none."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def baseline_name(name: str) -> str:
    """Long name of a baseline; one that a user brought keeps its own."""
    return BASELINES[name][1] if name in BASELINES else name


def short_name(name: str) -> str:
    """Short name of a baseline, for legends and narrow columns."""
    return BASELINES[name][0] if name in BASELINES else name


def long_class(name: str) -> str:
    """Name of a diagnosis, spelled out."""
    return CLASSES.get(name, name)


def target_name(target: Mapping[str, Any]) -> str:
    """Name of a probe's target."""
    classes = target.get("classes")
    if target.get("kind") == "survival" and isinstance(classes, Sequence) and len(classes) == 2:
        return f"conversion from {classes[0]} to {classes[1]}"
    return str(target.get("name"))


def ranks(differences: Mapping[str, Any], *, higher_is_better: bool) -> dict[str, list[str]]:
    """Names that the own value is better than, ties with, and is worse than, by differences of own minus other.

    A difference is a tie unless its interval leaves out 0 and its adjusted p, where there is one, is below 0.05.
    """
    found: dict[str, list[str]] = {"better": [], "tie": [], "worse": []}
    for name, each in differences.items():
        low, high, p = (each.get(key) for key in ("low", "high", "p_holm"))
        sure = low is not None and high is not None and (low > 0 or high < 0) and (p is None or p < 0.05)
        found["tie" if not sure else "better" if (low > 0) is higher_is_better else "worse"].append(name)
    return found


def verdict(
    own: str,
    values: Mapping[str, str],
    differences: Mapping[str, Any],
    *,
    higher_is_better: bool,
    name: Callable[[str], str],
) -> tuple[str, bool]:
    """What the own method is better than, ties with, and is worse than, in words; and if it is better than all.

    Args:
        own: its name and value.
        values: of the others, as text.
        differences: as of :func:`ranks`.
        higher_is_better: of the metric.
        name: of the others in words.
    """
    found = ranks({key: each for key, each in differences.items() if key in values}, higher_is_better=higher_is_better)
    found["not compared"] = [key for key in values if key not in differences]
    words = {"better": "better than", "tie": "a tie with", "worse": "worse than", "not compared": "not compared with"}
    named = {rank: joined([f"{name(key)} ({values[key]})" for key in keys]) for rank, keys in found.items()}
    text = "; ".join(f"{words[rank]} {names}" for rank, names in named.items() if names)
    tie = " In a tie the difference may be chance." if found["tie"] else ""
    return f"{capital(own)}: {text}.{tie}", len(found["better"]) == len(values)
