"""Numbers and names in words: rounding, units, and what the methods are called for readers who did not write them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldae.report.blocks import Cell
from ldae.report.run_folder import RESULTS, RunFolder, pointer

__all__ = [
    "BASELINES",
    "METHODS",
    "NOT_MEASURED",
    "OWN_METHODS",
    "SHORT_BASELINES",
    "STRUCTURES",
    "asked_for",
    "baseline_name",
    "cell",
    "class_names",
    "duration",
    "fixed",
    "interval_cell",
    "joined",
    "long_class",
    "own_method",
    "rivals",
    "signed",
]

NOT_MEASURED = "not measured"

BASELINES = {
    "random_encoder": "the same encoder with random weights",
    "latent_pca": "principal components of the compressed scan",
    "latent_pca_symmetric": "principal components of the compressed scan and its mirror image",
    "true_volumes": "true volumes of the phantom (known only because the cohort is simulated)",
    "median": "always guessing the median of the fitting subjects",
    "demographics": "age, sex and site without a scan, as far as known and not the target",
    "volumes": "volumes from the manifest",
}
SHORT_BASELINES = {
    "random_encoder": "random encoder",
    "latent_pca": "principal components",
    "latent_pca_symmetric": "components of both sides",
    "true_volumes": "true volumes",
    "median": "guessing the median",
}
METHODS = {
    "ldae": "codes blended in time",
    "ldae_residual": "codes blended in time, residual-corrected",
    "trajectory": "code on the line through all other sessions",
    "trajectory_residual": "all other sessions, each carried by its code to the month, and a line through them",
    "latent_linear": "blend of the compressed scans",
    "voxel_linear": "blend of the two scans, voxel by voxel",
    "voxel_trajectory": "line through all other sessions, voxel by voxel, without a model",
    "copy_nearest": "copy of the nearer session",
    "ceiling": "ceiling: the true scan itself, compressed and restored",
}
OWN_METHODS = {
    "ldae_residual": "the residual-corrected codes",
    "trajectory_residual": "the sessions carried by their codes",
}
"""What the text calls the method of the package that a run reports."""
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


def fixed(value: Any, digits: int = 3, unit: str = "") -> str:
    """A number with so many decimals and a true minus sign, or that there is none."""
    if not isinstance(value, int | float):
        return NOT_MEASURED
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}") + unit


def signed(value: Any, digits: int = 1, unit: str = "") -> str:
    """A change: its sign is always written."""
    text = fixed(value, digits, unit)
    if not isinstance(value, int | float) or text[0] == "\N{MINUS SIGN}" or float(f"{value:.{digits}f}") == 0:
        return text
    return f"+{text}"


def duration(seconds: Any) -> str:
    """Hours, minutes and seconds, as far as they matter."""
    if not isinstance(seconds, int | float):
        return NOT_MEASURED
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def cell(
    run: RunFolder,
    *keys: str | int,
    document: str = RESULTS,
    form: Callable[[Any], str] = fixed,
    best: bool = False,
) -> Cell:
    """A number of a document."""
    value = run.get(document, *keys)
    return Cell(form(value), () if value is None else (pointer(document, *keys),), best)


def interval_cell(run: RunFolder, *keys: str | int, digits: int = 3, unit: str = "") -> Cell:
    """Low and high end of an interval of results.json."""
    value = run.result(*keys)
    if not isinstance(value, Mapping):
        return Cell("not computed")
    text = f"{fixed(value.get('low'), digits)} to {fixed(value.get('high'), digits, unit)}"
    return Cell(text, (pointer(RESULTS, *keys),))


def baseline_name(name: str) -> str:
    """A baseline in words; one that a user brought keeps its own name."""
    return BASELINES.get(name, name)


def asked_for(target: Mapping[str, Any]) -> str:
    """What a probe asked for, in words."""
    classes = target.get("classes")
    if target.get("kind") == "survival" and isinstance(classes, Sequence) and len(classes) == 2:
        return f"conversion from {classes[0]} to {classes[1]}"
    return str(target.get("name"))


def class_names(run: RunFolder) -> tuple[str, str]:
    """The positive and the negative class of the diagnosis probe."""
    classes = run.get("tasks/probe_diagnosis.json", "target", "classes")
    negative, positive = classes if isinstance(classes, list) and len(classes) == 2 else ("CN", "AD")
    return str(positive), str(negative)


def long_class(name: str) -> str:
    """A diagnosis spelled out."""
    return CLASSES.get(name, name)


def own_method(run: RunFolder) -> str:
    """The package's own way to predict a missing session that is reported; runs of before it was recorded have but one."""
    own = run.result("interpolate", "own")
    return own if own in OWN_METHODS else "ldae_residual"


def joined(parts: Sequence[str]) -> str:
    """Parts of a sentence with commas and an 'and'."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def rivals(
    own: Any, others: Mapping[str, Any], *, higher_is_better: bool, name: Callable[[str], str] = baseline_name
) -> dict[str, float]:
    """Those that score better, by name in words, best first."""
    if not isinstance(own, int | float):
        return {}
    better = {
        name(key): float(value)
        for key, value in others.items()
        if isinstance(value, int | float) and (value > own if higher_is_better else value < own)
    }
    return dict(sorted(better.items(), key=lambda item: item[1], reverse=higher_is_better))
