"""Settings of a phantom cohort, its grid, and the draws that need no image."""

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import numpy as np

from ldae.atlas import template_grid
from ldae.base.ranges import SEEDS, Range, checked, within
from ldae.contract import Modality
from ldae.errors import CohortError
from ldae.phantom.anatomy.deformation import ShapeConfig
from ldae.phantom.artefacts import ArtefactConfig
from ldae.phantom.population import MONTHS, PopulationConfig, Subject, draw_subject
from ldae.phantom.pose import RawConfig
from ldae.phantom.scanner import ScannerConfig
from ldae.volume import Grid

__all__ = ["PhantomConfig", "cohort_grid", "draw_cohort", "stream"]

# Subjects with large change are rare; the search ends after so many draws for each that is kept.
DRAWS_PER_SUBJECT = 2000

Stream = Literal["group", "subject", "shape", "scan", "site", "tissue", "raw", "map", "artefact"]
"""Each draw has its own stream of randomness, so that no draw depends on another's order or on the workers."""

GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
@checked
class PhantomConfig:
    """Settings of a cohort. The same settings give the same bytes.

    Attributes:
        n_subjects: number of subjects.
        voxel_size_mm: edge of the isotropic voxels, 1 to 6 mm.
        seed: source of all randomness, 0 or more. A subject keeps its anatomy at every voxel size and whatever the
            number of subjects.
        max_sessions: the largest number of sessions of a subject, 1 to 6.
        min_motion_mm: leave out subjects with fewer than three sessions, or whose ventricles' wall moves less than this
            between the first and the last; 0 keeps all. Interpolation is tested on large change, which is rare.
        modality: contrast of the images: T1w, T2w or FLAIR. Cohorts that differ in it alone show the same subjects, visits,
            brains and artefacts, each on scanners and in a position of its own. Not with `raw`.
        save_displacement: also write, for each scan, which template point is seen at each voxel.
        raw: whole heads in native space instead of brains in template space; None is brains.
        anatomy: folder of label maps in FreeSurfer's numbering, one of which is each subject's brain; None is the
            template's brain for all.
        combine: shapes between label maps, and mirrored ones, instead of the maps alone.
        population: distribution of subjects, and effects of age and disease.
        head_shape: variation of head shape besides.
        scanner: effects of scanner and preprocessing on the image.
        artefacts: lesions, thick slices and errors of brain extraction; None is none. Not with `raw`.

    Raises:
        ConfigError: if a value is out of range.
        CohortError: if values contradict one another.
    """

    n_subjects: int = within(160, Range(1, 99_999))
    voxel_size_mm: float = within(5.0, Range(1, 6))
    seed: int = within(0, SEEDS)
    max_sessions: int = within(4, Range(1, len(MONTHS)))
    min_motion_mm: float = within(0.0, Range(0, 10))
    modality: Modality = "T1w"
    save_displacement: bool = False
    raw: RawConfig | None = None
    anatomy: str | None = None
    combine: bool = False
    population: PopulationConfig = field(default_factory=PopulationConfig)
    head_shape: ShapeConfig = field(default_factory=ShapeConfig)
    scanner: ScannerConfig = field(default_factory=ScannerConfig)
    artefacts: ArtefactConfig | None = None

    def varied(self) -> Self:
        """The same for training models of real scans: brains between label maps, of all ages, from hundreds of scanners.

        Brains have the template's size, as preprocessing registers them with twelve parameters.

        Raises:
            CohortError: if no label maps are named, or whole heads are asked for.
        """
        population = PopulationConfig(
            prevalence=(0.55, 0.2, 0.25),
            age_mean_years=(50.0, 65.0, 72.0),
            age_sd_years=25.0,
            age_range_years=(18.0, 95.0),
            sex_offset_volume=0.0,
            volume_mean=1.0,
            n_sites=300,
        )
        scanner = ScannerConfig(
            site_contrast_sd=0.05,
            site_gamma_sd=0.12,
            bias_sd=0.05,
            rotation_sd_deg=1.2,
            translation_sd_mm=1.0,
            mask_jitter=0.35,
            ghost_probability=0.1,
        )
        return replace(self, combine=True, population=population, scanner=scanner, artefacts=ArtefactConfig())

    def __post_init__(self) -> None:
        if self.combine and self.anatomy is None:
            msg = "shapes between label maps need label maps; name their folder (anatomy, --anatomy)"
            raise CohortError(msg)
        if self.artefacts is not None and self.raw is not None:
            msg = "artefacts are those of extracted brains; leave them out (--varied), or leave out raw (--raw)"
            raise CohortError(msg)
        if self.modality != "T1w" and self.raw is not None:
            msg = f"whole heads are T1w, as preprocessing takes no other; leave out {self.modality} (--modality), or raw (--raw)"
            raise CohortError(msg)


def cohort_grid(config: PhantomConfig) -> Grid:
    """The grid of all stripped images of a cohort, in MNI space: multiples of 8 voxels that hold the brain."""
    return template_grid(config.voxel_size_mm)


def stream(config: PhantomConfig, name: Stream, *number: int) -> np.random.Generator:
    """The source of one draw's randomness; a scanner and what it adds to a scan are other draws in each modality."""
    key = (get_args(Stream).index(name), *number)
    if name in ("scan", "site") and config.modality != "T1w":
        key = (*key, get_args(Modality).index(config.modality))
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def draw_cohort(config: PhantomConfig) -> list[Subject]:
    """Draw the subjects of a cohort, without rendering any image.

    Diagnoses follow a sequence of low discrepancy, so that the first subjects of every cohort have the configured shares too.
    """
    start = float(stream(config, "group").random())
    limits = np.cumsum(config.population.prevalence)[:-1]
    subjects: list[Subject] = []
    for index in itertools.count():
        if len(subjects) == config.n_subjects:
            break
        if index >= DRAWS_PER_SUBJECT * config.n_subjects:
            msg = (
                f"{len(subjects)} of {index} subjects have three sessions between which the ventricles' wall moves by "
                f"{config.min_motion_mm:g} mm, too few; lower --min-motion or raise --max-sessions"
            )
            raise CohortError(msg)
        group = int(np.searchsorted(limits, (start + index * GOLDEN_RATIO) % 1.0, side="right"))
        rng = stream(config, "subject", index)
        subject = draw_subject(config.population, index=index, group=group, max_sessions=config.max_sessions, rng=rng)
        if config.min_motion_mm == 0 or _moves(subject, config.min_motion_mm):
            subjects.append(subject)
    return subjects


def _moves(subject: Subject, least_mm: float) -> bool:
    """True if there is a middle session to leave out, and the ventricles' wall moves at least so far around it."""
    first, last = (subject.sessions[at].state.ventricle_mm for at in (0, -1))
    return len(subject.sessions) >= 3 and abs(last - first) >= least_mm
