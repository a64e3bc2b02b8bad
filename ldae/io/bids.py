"""BIDS data sets: labels and places of files, and the files that describe a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldae.base.files import write_json, write_text
from ldae.io.notice import SYNTHETIC
from ldae.io.version import __version__

__all__ = ["DESCRIPTION", "TEMPLATE", "bids_number", "bids_path", "describe_results", "write_description"]

TEMPLATE = "MNI152NLin2009aSym"
"""BIDS's name of the template of :mod:`ldae.atlas`: left-right symmetric, voxel by voxel."""
DESCRIPTION = "dataset_description.json"
# Files of derived data sets for which BIDS has no rule.
BEYOND_BIDS = ["manifest.tsv", "quality.html", "*_overlay.png", "*_xfm.txt", "prepared/", "group_*"]
BEYOND_BIDS += ["manipulate.json", "reconstruct.json", "counterfactuals.tsv", "samples.json"]


def bids_number(value: float) -> str:
    """A number in the letters and digits of a BIDS label: 1.5 is `1p5`, -2 is `minus2`."""
    return f"{value:g}".replace("-", "minus").replace("+", "").replace(".", "p")


def bids_path(folder: Path, stem: str, ending: str) -> Path:
    """Place of an anatomical image in a data set: `sub-X/ses-Y/anat/sub-X_ses-Y` and the ending."""
    return folder.joinpath(*stem.split("_"), "anat", stem + ending)


def write_description(
    folder: Path, name: str, readme: str, *, kind: str = "derivative", ignored: Sequence[str] = BEYOND_BIDS, **more: Any
) -> None:
    """Describe a data set, raw or derivative; `ignored` files are not of BIDS, `more` are fields of the description."""
    title = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": kind}
    write_json(folder / DESCRIPTION, {**title, "GeneratedBy": [{"Name": "ldae", "Version": __version__}], **more})
    for file, text in (("README", readme), (".bidsignore", "\n".join(ignored) + "\n")):
        if not (folder / file).exists():  # what its owner wrote there is kept
            write_text(folder / file, text)


def describe_results(folder: Path) -> None:
    """Describe a folder of synthetic images, unless it is a data set already."""
    if not (folder / DESCRIPTION).exists():
        readme = (
            f"Images that a latent diffusion autoencoder of ldae made: {SYNTHETIC}.\n"
            "The JSON file beside each image says how it was made: from which scan, by which model, with which settings.\n"
        )
        write_description(folder, "Synthetic images made by ldae", readme)
