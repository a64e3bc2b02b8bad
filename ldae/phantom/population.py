"""Population model of the phantom: subjects, visits, ageing and disease.

Anatomy follows from age, disease severity and lasting individual offsets. Diagnosis follows from severity less the
subject's reserve, so that two subjects with the same brain may carry different labels, as in life.
"""

from dataclasses import astuple, dataclass, field

import numpy as np

from ldae.base.ranges import checked, count, not_negative, positive, share
from ldae.errors import ConfigError

__all__ = [
    "DIAGNOSES",
    "MONTHS",
    "AnatomicalState",
    "PopulationConfig",
    "Session",
    "Subject",
    "anatomical_state",
    "draw_subject",
    "with_severity",
]

DIAGNOSES = ("CN", "MCI", "AD")
"""Cognitively normal, mild cognitive impairment, Alzheimer's disease."""

MONTHS = (0, 6, 12, 18, 24, 36)
"""Months after baseline at which a session may take place."""


@dataclass(frozen=True)
class StructureEffect:
    """Change of a structure with age and disease, in the structure's own unit (mm, or a fraction).

    value = at_70 + per_decade * a + per_decade_squared * a^2 + per_severity * s + individual_sd * offset, with
    a = (age - 70) / 10 years and s the severity (1 is an established dementia). `per_decade_squared` is at most a third of
    `per_decade`, so that ageing never reverses before 100. In the young, before the turn of the parabola, nothing ages.
    """

    at_70: float
    per_decade: float
    per_decade_squared: float
    per_severity: float
    individual_sd: float

    def value(self, age: float, severity: float, offset: float) -> float:
        """The structure's value; `offset` is the subject's, of unit variance."""
        a = (age - 70.0) / 10.0
        if self.per_decade_squared > 0:
            a = max(a, -self.per_decade / (2 * self.per_decade_squared))
        drift = self.at_70 + self.per_decade * a + self.per_decade_squared * a**2
        return drift + self.per_severity * severity + self.individual_sd * offset


@dataclass(frozen=True)
class AnatomicalState:
    """The brain at one moment, as displacements of boundaries from the template.

    Attributes:
        ventricle_mm: outward displacement of the ventricle wall where it moves most, mm.
        hippocampus_left_mm: inward displacement of the left hippocampus' boundary, mm.
        hippocampus_right_mm: the same on the right.
        cortex_mm: thickness that the cortex has lost to the fluid outside it, mm.
        white_matter_darkening: fraction by which white matter is darker than a young adult's.
    """

    ventricle_mm: float = 0.0
    hippocampus_left_mm: float = 0.0
    hippocampus_right_mm: float = 0.0
    cortex_mm: float = 0.0
    white_matter_darkening: float = 0.0


@dataclass(frozen=True)
@checked
class PopulationConfig:
    """Distribution of subjects. Triples are in the order CN, MCI, AD.

    Attributes:
        prevalence: share of each diagnosis at baseline; sums to 1.
        age_mean_years: mean age at baseline by diagnosis; AD is older, so age confounds diagnosis.
        age_sd_years: standard deviation of age within a diagnosis, before it is cut to the range.
        age_range_years: bounds of age at baseline.
        stage_mean: mean clinical stage at baseline (severity less reserve; dimensionless).
        stage_sd: standard deviation of the clinical stage.
        stage_thresholds: stage at which MCI and AD are diagnosed.
        stage_max: the highest stage at baseline.
        reserve_sd: standard deviation of the reserve: severity that causes no symptom.
        rate_per_year: median rise of severity per year by baseline diagnosis.
        rate_log_sd: individual variation of that rate, standard deviation of its logarithm.
        acceleration_per_year: relative growth of the rate per year, which bends the course over time.
        sex_offset_volume: half the relative difference in intracranial volume between men and women.
        volume_mean: mean intracranial volume relative to the template, which is larger than most heads.
        volume_sd: standard deviation of the relative intracranial volume within a sex.
        asymmetry: standard deviation of a hippocampus' own offset against the pair's, in `individual_sd`.
        ventricle: effect on `AnatomicalState.ventricle_mm`, mm.
        hippocampus: effect on both hippocampi, mm.
        cortex: effect on `AnatomicalState.cortex_mm`, mm.
        white_matter: effect on `AnatomicalState.white_matter_darkening`, a fraction.
        n_sites: number of scanners in the cohort.
        single_session: probability of no follow-up at all.
    """

    prevalence: tuple[float, float, float] = share((0.40, 0.25, 0.35))
    age_mean_years: tuple[float, float, float] = positive((67.5, 72.5, 77.5))
    age_sd_years: float = not_negative(11.0)
    age_range_years: tuple[float, float] = positive((55.0, 90.0))
    stage_mean: tuple[float, float, float] = not_negative((0.08, 0.50, 1.00))
    stage_sd: tuple[float, float, float] = not_negative((0.10, 0.10, 0.20))
    stage_thresholds: tuple[float, float] = not_negative((0.35, 0.70))
    stage_max: float = not_negative(1.6)
    reserve_sd: float = not_negative(0.10)
    rate_per_year: tuple[float, float, float] = not_negative((0.012, 0.07, 0.13))
    rate_log_sd: float = not_negative(0.5)
    acceleration_per_year: float = not_negative(0.25)
    sex_offset_volume: float = not_negative(0.04)
    volume_mean: float = positive(0.88)
    volume_sd: float = not_negative(0.045)
    asymmetry: float = not_negative(0.5)
    ventricle: StructureEffect = field(default_factory=lambda: StructureEffect(2.2, 1.5, 0.25, 3.2, 1.5))
    hippocampus: StructureEffect = field(default_factory=lambda: StructureEffect(0.5, 0.3, 0.06, 1.45, 0.45))
    cortex: StructureEffect = field(default_factory=lambda: StructureEffect(0.15, 0.17, 0.02, 0.30, 0.07))
    white_matter: StructureEffect = field(default_factory=lambda: StructureEffect(0.03, 0.02, 0.003, 0.01, 0.01))
    n_sites: int = count(5)
    single_session: float = share(0.15)

    def __post_init__(self) -> None:
        if abs(sum(self.prevalence) - 1.0) > 1e-6:
            msg = f"prevalence must be three shares that sum to 1, got {self.prevalence}; rescale them"
            raise ConfigError(msg)
        low, high = self.age_range_years
        if low >= high:
            msg = f"age_range_years must be a lower and a higher age, got {self.age_range_years}; correct them"
            raise ConfigError(msg)


@dataclass(frozen=True)
class Session:
    """The truth of a visit: age in years, severity (0 is none, 1 an established dementia), diagnosis, and the brain."""

    session_id: str
    months: int
    age: float
    severity: float
    diagnosis: str
    state: AnatomicalState


@dataclass(frozen=True)
class Subject:
    """A subject with its sessions in order of time; the intracranial scale is a volume relative to the template."""

    index: int
    participant_id: str
    sex: str
    site: str
    intracranial_scale: float
    sessions: tuple[Session, ...]


def _truncated_normal(rng: np.random.Generator, mean: float, sd: float, low: float, high: float) -> float:
    """One draw within [low, high], by rejection; the nearer bound if that never succeeds."""
    for _ in range(200):
        value = float(rng.normal(mean, sd))
        if low <= value <= high:
            return value
    return float(np.clip(mean, low, high))


def _draw_months(rng: np.random.Generator, config: PopulationConfig, max_sessions: int) -> list[int]:
    """Baseline and a random subset of the later visits."""
    if max_sessions == 1 or rng.random() < config.single_session:
        return [0]
    follow_ups = int(rng.integers(1, max_sessions))
    return [0, *sorted(int(m) for m in rng.choice(MONTHS[1:], size=follow_ups, replace=False))]


def draw_subject(
    config: PopulationConfig, *, index: int, group: int, max_sessions: int, rng: np.random.Generator
) -> Subject:
    """Draw a subject and the truth of its visits; its baseline diagnosis is `DIAGNOSES[group]`."""
    sex = "F" if rng.random() < 0.5 else "M"
    site = f"site-{int(rng.integers(config.n_sites)) + 1}"
    sign = 1.0 if sex == "M" else -1.0
    relative = float(np.clip(rng.normal(), -2.5, 2.5)) * config.volume_sd + sign * config.sex_offset_volume
    age = _truncated_normal(rng, config.age_mean_years[group], config.age_sd_years, *config.age_range_years)
    bounds = (0.0, *config.stage_thresholds, config.stage_max)
    stage = _truncated_normal(rng, config.stage_mean[group], config.stage_sd[group], bounds[group], bounds[group + 1])
    reserve = float(rng.normal(0.0, config.reserve_sd))
    rate = config.rate_per_year[group] * float(np.exp(config.rate_log_sd * rng.normal()))
    offsets = rng.normal(size=6)
    sessions = []
    for months in _draw_months(rng, config, max_sessions):
        years = months / 12.0
        growth = config.acceleration_per_year
        rise = rate * (float(np.expm1(growth * years)) / growth if growth else years)
        diagnosis = DIAGNOSES[sum(stage + rise >= threshold for threshold in config.stage_thresholds)]
        severity = max(stage + reserve + rise, 0.0)
        state = anatomical_state(config, age + years, severity, offsets)
        sessions.append(Session(f"ses-M{months:02d}", months, age + years, severity, diagnosis, state))
    return Subject(
        index=index,
        participant_id=f"sub-{index + 1:04d}",
        sex=sex,
        site=site,
        intracranial_scale=config.volume_mean * (1.0 + relative),
        sessions=tuple(sessions),
    )


def anatomical_state(
    config: PopulationConfig, age: float, severity: float, offsets: np.ndarray | None = None
) -> AnatomicalState:
    """The brain of a subject of some age (years) and severity.

    The subject's lasting offsets, (6,), have unit variance: ventricle, hippocampi together, left, right, cortex, white
    matter. None is the average subject.
    """
    o = np.zeros(6) if offsets is None else offsets
    left, right = ((o[1] + config.asymmetry * o[i]) / np.hypot(1.0, config.asymmetry) for i in (2, 3))
    return AnatomicalState(
        ventricle_mm=config.ventricle.value(age, severity, o[0]),
        hippocampus_left_mm=config.hippocampus.value(age, severity, left),
        hippocampus_right_mm=config.hippocampus.value(age, severity, right),
        cortex_mm=config.cortex.value(age, severity, o[4]),
        white_matter_darkening=config.white_matter.value(age, severity, o[5]),
    )


def with_severity(state: AnatomicalState, change: float, population: PopulationConfig) -> AnatomicalState:
    """The same brain at the same age after a change of severity; 1 is from none to an established dementia."""
    p = population
    effects = (p.ventricle, p.hippocampus, p.hippocampus, p.cortex, p.white_matter)
    moved = (v + change * effect.per_severity for v, effect in zip(astuple(state), effects, strict=True))
    return AnatomicalState(*moved)
