"""Settings of a phantom cohort, its grid, and the draws that need no image."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

from ldae.atlas import template_grid
from ldae.errors import CohortError
from ldae.phantom.anatomy.deformation import ShapeConfig
from ldae.phantom.population import MONTHS, PopulationConfig, Subject, draw_subject
from ldae.phantom.pose import RawConfig
from ldae.phantom.scanner import ScannerConfig
from ldae.volume import Grid

__all__ = ["PhantomConfig", "cohort_grid", "draw_cohort", "stream"]

# Subjects with large change are rare; the search ends after so many draws for each that is kept.
DRAWS_PER_SUBJECT = 2000

# Streams of randomness: each draw has its own, so that no draw depends on another's order or on the workers.
GROUP_STREAM, SUBJECT_STREAM, SHAPE_STREAM, SCAN_STREAM, SITE_STREAM, TISSUE_STREAM, RAW_STREAM, MAP_STREAM = range(8)

GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
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
        save_displacement: also write, for each scan, which template point is seen at each voxel.
        raw: whole heads in native space instead of brains in template space; None is brains.
        anatomy: folder of label maps in FreeSurfer's numbering, one of which is each subject's brain; None is the
            template's brain for all.
        population: distribution of subjects, and effects of age and disease.
        head_shape: variation of head shape besides.
        scanner: effects of scanner and preprocessing on the image.

    Raises:
        CohortError: if a value is out of range.
    """

    n_subjects: int = 160
    voxel_size_mm: float = 5.0
    seed: int = 0
    max_sessions: int = 4
    min_motion_mm: float = 0.0
    save_displacement: bool = False
    raw: RawConfig | None = None
    anatomy: str | None = None
    population: PopulationConfig = field(default_factory=PopulationConfig)
    head_shape: ShapeConfig = field(default_factory=ShapeConfig)
    scanner: ScannerConfig = field(default_factory=ScannerConfig)

    def __post_init__(self) -> None:
        for name, kind, low, high in (
            ("n_subjects", int, 1, 99_999),
            ("voxel_size_mm", (int, float), 1.0, 6.0),
            ("seed", int, 0, 2**63 - 1),
            ("max_sessions", int, 1, len(MONTHS)),
            ("min_motion_mm", (int, float), 0.0, 10.0),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or not low <= value <= high:
                whole = "a whole number" if kind is int else "a number"
                msg = f"{name} must be {whole} from {low} to {high}, got {value!r}; change it"
                raise CohortError(msg)
        shares = self.population.prevalence
        if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
            msg = f"prevalence must be three shares that sum to 1, got {shares}; rescale them"
            raise CohortError(msg)


def cohort_grid(config: PhantomConfig) -> Grid:
    """The grid of all stripped images of a cohort, in MNI space: multiples of 8 voxels that hold the brain."""
    return template_grid(config.voxel_size_mm)


def stream(config: PhantomConfig, *key: int) -> np.random.Generator:
    """The source of one draw's randomness."""
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def draw_cohort(config: PhantomConfig) -> list[Subject]:
    """Draw the subjects of a cohort, without rendering any image.

    Diagnoses follow a sequence of low discrepancy, so that the first subjects of every cohort have the configured
    shares too.
    """
    start = float(stream(config, GROUP_STREAM).random())
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
        rng = stream(config, SUBJECT_STREAM, index)
        subject = draw_subject(config.population, index=index, group=group, max_sessions=config.max_sessions, rng=rng)
        if config.min_motion_mm == 0 or _moves(subject, config.min_motion_mm):
            subjects.append(subject)
    return subjects


def _moves(subject: Subject, least_mm: float) -> bool:
    """True if there is a middle session to leave out, and the ventricles' wall moves at least so far around it."""
    first, last = (subject.sessions[at].state.ventricle_mm for at in (0, -1))
    return len(subject.sessions) >= 3 and abs(last - first) >= least_mm
