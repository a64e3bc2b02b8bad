"""Shared parts of the sections with images: the convention, where scans are cut, and differences."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.report.blocks import Absence
from ldae.report.plots.slice_panels import Cut, choose_cuts
from ldae.report.run_folder import RunFolder

__all__ = ["CONVENTION", "Image", "cuts_of", "difference", "incomplete"]

Image = npt.NDArray[np.floating]

CONVENTION = (
    "Sections follow the radiological convention: the patient's right (R) is on the left of axial and coronal sections. "
    "In sagittal sections anterior (A) is on the left. All grey images share one intensity scale from 0 to 1, without "
    "windowing. Voxels are interpolated for display only."
)


def cuts_of(run: RunFolder, volume: Image, *planes: Any) -> list[Cut]:
    """Sections of a volume of the run, all three planes if none is named; in millimetres where the grid is known."""
    return choose_cuts(volume.shape, *([planes] if planes else []), **run.preprocessing)


def difference(image: Image, reference: Image) -> Image:
    """Image minus reference, in float32."""
    return image.astype(np.float32) - reference.astype(np.float32)


def incomplete(run: RunFolder, task: str) -> Absence:
    """The notice that a task's file does not fit its images."""
    name = run.task(task).name
    return Absence(f"There are no pictures: {name} is missing or does not fit the images; run 'ldae study' again.")
