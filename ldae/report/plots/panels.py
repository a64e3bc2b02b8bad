"""What the pages of images share: the convention told to the reader, where scans are cut, and differences."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.report.blocks import Absence
from ldae.report.plots.slice_panels import Cut, choose_cuts
from ldae.report.run_folder import RunFolder

__all__ = ["CONVENTION", "Image", "cuts_of", "difference", "incomplete"]

Image = npt.NDArray[np.floating]

CONVENTION = (
    "Sections are shown as in radiology: the patient's right (R) is on the left side of axial and coronal sections; "
    "the front is up in axial sections, the top of the head is up in coronal and sagittal ones; in sagittal "
    "sections the face (A, anterior) is on the left. All grey images share one scale, without windowing of single "
    "images. Voxels are interpolated for display only."
)


def cuts_of(run: RunFolder, volume: Image, *planes: Any) -> list[Cut]:
    """Sections of a run's images; in millimetres where its grid is known.

    Args:
        run: whose images.
        volume: one of them.
        planes: which; all three if none is named.
    """
    return choose_cuts(volume.shape, *([planes] if planes else []), **run.preprocessing)


def difference(image: Image, reference: Image) -> Image:
    """Image minus reference, in float32."""
    return image.astype(np.float32) - reference.astype(np.float32)


def incomplete(task: str) -> Absence:
    """That a task's facts do not fit its images."""
    return Absence(
        f"There are no pictures: tasks/{task}.json is missing or does not fit the images; run 'ldae study' again."
    )
