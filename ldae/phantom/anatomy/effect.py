"""What disease does to the phantom's images: the truth that an edit toward a diagnosis can be held against."""

import dataclasses

import numpy as np
import numpy.typing as npt

from ldae.phantom.anatomy.tissue import Composition, SubjectMap, render, tissue_means
from ldae.phantom.population import AnatomicalState, PopulationConfig

__all__ = ["severity_effect", "with_severity"]


def with_severity(state: AnatomicalState, change: float, population: PopulationConfig) -> AnatomicalState:
    """The same brain at the same age with more or less of the disease.

    Args:
        state: the brain.
        change: of severity; 1 is from none to an established dementia.
        population: how disease acts.
    """
    return dataclasses.replace(
        state,
        ventricle_mm=state.ventricle_mm + change * population.ventricle.per_severity,
        hippocampus_left_mm=state.hippocampus_left_mm + change * population.hippocampus.per_severity,
        hippocampus_right_mm=state.hippocampus_right_mm + change * population.hippocampus.per_severity,
        cortex_mm=state.cortex_mm + change * population.cortex.per_severity,
        white_matter_darkening=state.white_matter_darkening + change * population.white_matter.per_severity,
    )


def severity_effect(head: SubjectMap, state: AnatomicalState, population: PopulationConfig) -> npt.NDArray[np.float32]:
    """Change of the clean image of one person for one unit of severity, (D, H, W).

    The difference of the person half a unit up and half a unit down, without noise, motion, field or a scanner's contrast, on
    the template's intensities.

    Args:
        head: the person's head.
        state: of the person's brain.
        population: how disease acts.
    """
    more, less = (with_severity(state, change, population) for change in (0.5, -0.5))
    return _clean(render(head, more), more) - _clean(render(head, less), less)


def _clean(head: Composition, state: AnatomicalState) -> npt.NDArray[np.float32]:
    grey, white, csf = (np.float32(mean) for mean in tissue_means())
    return grey * head.grey + white * np.float32(1.0 - state.white_matter_darkening) * head.white + csf * head.csf
