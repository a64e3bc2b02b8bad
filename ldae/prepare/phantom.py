"""A synthetic cohort with known truth: longitudinal brain MRI in BIDS layout, made from the MNI152 template.

It is a test bed that nobody needs permission for, not a model of any population: anatomy varies smoothly around one
template, and disease widens ventricles, shrinks hippocampi and thins the cortex by amplitudes that are set here.
"""

import dataclasses
import gzip
import itertools
import json
import logging
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ldae.errors import CohortError, VolumeError
from ldae.io.files import write_json
from ldae.io.template import grid_around_brain, template_grid
from ldae.prepare.phantom_deformation import ShapeConfig, draw_shape
from ldae.prepare.phantom_effect import severity_effect
from ldae.prepare.phantom_files import (
    MANIFEST_COLUMNS,
    MANIFEST_NAME,
    PARTICIPANT_COLUMNS,
    SESSION_COLUMNS,
    Row,
    image_path,
    session_row,
    truth_row,
    write_descriptions,
    write_table,
)
from ldae.prepare.phantom_head import draw_head_tissue
from ldae.prepare.phantom_image import SubjectMap, map_subject, render
from ldae.prepare.phantom_pose import RawConfig
from ldae.prepare.phantom_raw import RawHead, raw_scan, write_raw_scan
from ldae.prepare.phantom_scanner import ScannerConfig, acquire, draw_scan, draw_site
from ldae.prepare.phantom_subject import MONTHS, PopulationConfig, Subject, draw_subject
from ldae.volume import Grid, Volume, write_volume

__all__ = ["PhantomConfig", "cohort_grid", "draw_cohort", "synthesise_cohort"]

log = logging.getLogger(__name__)

CONFIG_NAME = "phantom_config.json"
EFFECT_NAME = "phantom_effect.nii.gz"
# People who change much are rare; more draws than this for each that is kept are given up.
DRAWS_PER_SUBJECT = 2000
# Settings that cohorts made before there was a choice do not name.
OPTIONS = ("raw",)
# Enough for a mean: single effects differ by the shape of the head alone.
EFFECT_SUBJECTS = 24
GENERATOR_VERSION = 1
DESCRIPTION = "ldae phantom: synthetic, not a person"


# Streams of randomness: each draw has its own, so that no draw depends on another's order or on the workers.
GROUP_STREAM, SUBJECT_STREAM, SHAPE_STREAM, SCAN_STREAM, SITE_STREAM, TISSUE_STREAM, RAW_STREAM = range(7)

GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class PhantomConfig:
    """What to synthesise. The same configuration gives the same bytes.

    Attributes:
        n_subjects: number of subjects.
        voxel_size_mm: edge of the isotropic voxels, 1 to 6 mm.
        seed: source of all randomness, 0 or more. A subject keeps its anatomy at every voxel size and whatever the
            number of subjects.
        shape: voxels along each axis, or None for the smallest multiples of 8 that hold the brain.
        max_sessions: the largest number of sessions of a subject, 1 to 6.
        min_motion_mm: leave out people with fewer than three sessions, or whose ventricles' wall moves less than this between the
            first and the last; 0 leaves nobody out. Large change is rare, and interpolation has to be asked about it.
        save_displacement: also write, for each scan, which template point is seen at each voxel.
        raw: whole heads in native space instead of brains in template space; None is brains.
        population: who they are, and how age and disease act.
        head_shape: how their heads differ otherwise.
        scanner: what scanner and preprocessing do to the image.

    Raises:
        CohortError: if a value is out of range.
    """

    n_subjects: int = 160
    voxel_size_mm: float = 5.0
    seed: int = 0
    shape: tuple[int, int, int] | None = None
    max_sessions: int = 4
    min_motion_mm: float = 0.0
    save_displacement: bool = False
    raw: RawConfig | None = None
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
                msg = f"{name} must be {whole} from {low} to {high}, got {value!r}; change it in the phantom's settings"
                raise CohortError(msg)
        shares = self.population.prevalence
        if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
            msg = f"prevalence must be three shares that sum to 1, got {shares}; rescale them"
            raise CohortError(msg)
        cohort_grid(self)


def cohort_grid(config: PhantomConfig) -> Grid:
    """The grid of all images of a cohort, in MNI space.

    Raises:
        CohortError: if the configured shape cuts the brain.
    """
    if config.shape is None:
        return template_grid(config.voxel_size_mm)
    try:
        d, h, w = config.shape
        return grid_around_brain((int(d), int(h), int(w)), config.voxel_size_mm)
    except (TypeError, ValueError, VolumeError) as error:
        msg = f"shape {config.shape!r} cannot hold the cohort's images: {error}; leave shape unset to have it chosen"
        raise CohortError(msg) from error


def _stream(config: PhantomConfig, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def draw_cohort(config: PhantomConfig) -> list[Subject]:
    """Draw who is in the cohort, without rendering any image.

    Diagnoses follow a sequence of low discrepancy, so that the first subjects of every cohort have the configured
    shares too.
    """
    start = float(_stream(config, GROUP_STREAM).random())
    limits = np.cumsum(config.population.prevalence)[:-1]
    subjects: list[Subject] = []
    for index in itertools.count():
        if len(subjects) == config.n_subjects:
            break
        if index >= DRAWS_PER_SUBJECT * config.n_subjects:
            msg = (
                f"{len(subjects)} of {index} people have three sessions between which the ventricles' wall moves by "
                f"{config.min_motion_mm:g} mm, too few; lower min_motion_mm or raise max_sessions"
            )
            raise CohortError(msg)
        group = int(np.searchsorted(limits, (start + index * GOLDEN_RATIO) % 1.0, side="right"))
        rng = _stream(config, SUBJECT_STREAM, index)
        subject = draw_subject(config.population, index=index, group=group, max_sessions=config.max_sessions, rng=rng)
        if config.min_motion_mm == 0 or _moves(subject, config.min_motion_mm):
            subjects.append(subject)
    return subjects


def _moves(subject: Subject, least_mm: float) -> bool:
    """Whether there is a middle session to leave out, and the ventricles' wall moves at least so far around it."""
    first, last = (subject.sessions[at].state.ventricle_mm for at in (0, -1))
    return len(subject.sessions) >= 3 and abs(last - first) >= least_mm


def synthesise_cohort(
    out_dir: str | os.PathLike[str],
    config: PhantomConfig,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort in BIDS layout, with its manifest and its truth.

    The folder appears under its name only when it is complete. A finished cohort of the same configuration is left
    as it is.

    Args:
        out_dir: the cohort's folder: new, empty, or this very cohort.
        config: what to synthesise.
        workers: processes; more than one needs the usual `if __name__ == "__main__"` in a script that calls this.
        progress: called with the number of scans done and their total.

    Returns:
        The manifest, `out_dir/manifest.tsv`.

    Raises:
        CohortError: if the folder holds anything else, `workers` is not positive, or a worker dies.
    """
    if workers < 1:
        msg = f"workers must be at least 1, got {workers}; it is the number of processes"
        raise CohortError(msg)
    out = Path(out_dir).absolute()
    if _is_finished(out, config):
        log.info("%s already holds this cohort", out)
        return out / MANIFEST_NAME
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write_cohort(partial, config, workers, progress)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / MANIFEST_NAME


def _plain(config: PhantomConfig) -> Any:
    """The configuration as JSON would give it back, with the generator's version."""
    plain = {"generator_version": GENERATOR_VERSION, **dataclasses.asdict(config)}
    return json.loads(json.dumps({name: value for name, value in plain.items() if name not in OPTIONS or value}))


def _is_finished(out: Path, config: PhantomConfig) -> bool:
    """Whether the folder is this cohort; the effect of severity, which older ones lack, is added.

    Raises:
        CohortError: if it holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        msg = f"{out} is a file; name a new folder for the cohort"
        raise CohortError(msg)
    saved = out / CONFIG_NAME
    if not saved.is_file():
        msg = f"{out} is not empty and holds no phantom cohort; name a new folder, or empty this one yourself"
        raise CohortError(msg)
    try:
        before = json.loads(saved.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{saved} is damaged ({error}); delete the folder {out} to make the cohort again"
        raise CohortError(msg) from error
    now = _plain(config)
    before.setdefault("min_motion_mm", 0.0)  # cohorts made before there was a choice
    if before != now:
        names = sorted(k for k in now.keys() | before.keys() if now.get(k) != before.get(k))
        msg = (
            f"{out} holds a phantom cohort made with other settings (they differ in {', '.join(names)}); "
            "name a new folder, or delete this one to replace it"
        )
        raise CohortError(msg)
    if not (out / EFFECT_NAME).is_file():
        _write_effect(out / EFFECT_NAME, config, draw_cohort(config)[:EFFECT_SUBJECTS])
    return True


def _write_cohort(
    folder: Path, config: PhantomConfig, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    """Everything the cohort's folder holds."""
    subjects = draw_cohort(config)
    total = sum(len(subject.sessions) for subject in subjects)
    truth: dict[int, list[Row]] = {}
    done = 0
    for index, rows in _scan_subjects(folder, config, subjects, workers):
        truth[index] = rows
        done += len(rows)
        if progress is not None:
            progress(done, total)
    manifest = []
    participants = []
    for subject in subjects:
        rows = [session_row(subject, session) for session in subject.sessions]
        manifest += rows
        participants.append(rows[0])
        name = f"{subject.participant_id}_sessions.tsv"
        write_table(folder / subject.participant_id / name, rows, SESSION_COLUMNS)
    write_table(folder / "participants.tsv", participants, PARTICIPANT_COLUMNS)
    truths = [row for subject in subjects for row in truth[subject.index]]
    write_table(folder / "phantom_truth.tsv", truths, tuple(truths[0]))
    write_table(folder / MANIFEST_NAME, manifest, MANIFEST_COLUMNS)
    _write_effect(folder / EFFECT_NAME, config, subjects[:EFFECT_SUBJECTS])
    write_json(folder / CONFIG_NAME, _plain(config))
    write_descriptions(folder, GENERATOR_VERSION, raw=config.raw is not None)


def _write_effect(path: Path, config: PhantomConfig, subjects: Sequence[Subject]) -> None:
    """The mean change of clean images for one unit of severity."""
    grid = cohort_grid(config)
    effects = [
        severity_effect(_head(config, grid, subject), subject.sessions[0].state, config.population)
        for subject in subjects
    ]
    description = "phantom truth: mean change of the image for severity + 1"
    write_volume(Volume(np.mean(effects, axis=0, dtype=np.float32), grid.affine), path, description=description)


def _shape(config: PhantomConfig, subject: Subject) -> np.ndarray:
    """The shape of the subject's head, the same at every session."""
    return draw_shape(config.head_shape, subject.intracranial_scale, _stream(config, SHAPE_STREAM, subject.index))


def _head(config: PhantomConfig, grid: Grid, subject: Subject) -> SubjectMap:
    """The subject's head on the cohort's grid."""
    return map_subject(grid, _shape(config, subject))


def _scan_subjects(
    folder: Path, config: PhantomConfig, subjects: Sequence[Subject], workers: int
) -> Iterator[tuple[int, list[Row]]]:
    """Scan everybody; yields a subject's number and its truth as it is done."""
    if workers == 1 or len(subjects) == 1:
        for subject in subjects:
            yield subject.index, _scan_subject(folder, config, subject)
        return
    # Forked children inherit the locks of a parent's threads (torch has some); spawned ones start clean.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(subjects)), mp_context=context) as pool:
        futures = {pool.submit(_scan_subject, folder, config, subject): subject.index for subject in subjects}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            msg = (
                f"a worker process ended early ({error}); use fewer workers if memory is short, and call this under "
                "'if __name__ == \"__main__\":' in a script"
            )
            raise CohortError(msg) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _scan_subject(folder: Path, config: PhantomConfig, subject: Subject) -> list[Row]:
    """Write a subject's images; returns a row of truth for each."""
    if config.raw is not None:
        return _scan_raw(folder, config, config.raw, subject)
    grid = cohort_grid(config)
    site_number = int(subject.site.removeprefix("site-"))
    site = draw_site(config.scanner, _stream(config, SITE_STREAM, site_number))
    head_map = _head(config, grid, subject)
    rows = []
    for session in subject.sessions:
        rng = _stream(config, SCAN_STREAM, subject.index, session.months)
        scan = draw_scan(config.scanner, site, rng)
        head = render(head_map, session.state, scan.motion, keep_displacement=config.save_displacement)
        darkening = session.state.white_matter_darkening
        image = acquire(head, grid, scan, config.scanner, white_matter_darkening=darkening, rng=rng)
        path = folder / image_path(subject, session)
        write_volume(Volume(image, grid.affine), path, description=DESCRIPTION)
        if head.displacement_mm is not None:
            _write_displacement(head.displacement_mm, grid, path)
        rows.append(truth_row(subject, session, head.volumes_ml))
    return rows


def _scan_raw(folder: Path, config: PhantomConfig, raw_config: RawConfig, subject: Subject) -> list[Row]:
    """As `_scan_subject`, with whole heads in native space."""
    site = draw_site(config.scanner, _stream(config, SITE_STREAM, int(subject.site.removeprefix("site-"))))
    tissue = draw_head_tissue(_stream(config, TISSUE_STREAM, subject.index))
    head = RawHead(_shape(config, subject), tissue)
    rows = []
    for session in subject.sessions:
        raw = raw_scan(
            head,
            session.state,
            raw_config,
            draw_scan(config.scanner, site, _stream(config, SCAN_STREAM, subject.index, session.months)),
            config.scanner,
            voxel_size_mm=config.voxel_size_mm,
            keep_displacement=config.save_displacement,
            rng=_stream(config, RAW_STREAM, subject.index, session.months),
        )
        path = image_path(subject, session)
        write_raw_scan(folder, path, raw, head.shape_mm, description=DESCRIPTION)
        if raw.composition.displacement_mm is not None:
            _write_displacement(raw.composition.displacement_mm, raw.grid, folder / path)
        rows.append(truth_row(subject, session, raw.composition.volumes_ml))
    return rows


def _write_displacement(displacement_mm: np.ndarray, grid: Grid, image_path: Path) -> None:
    """A four-dimensional NIfTI beside the image: x, y and z in mm; 0 where no brain is near."""
    import nibabel

    image = nibabel.Nifti1Image(np.nan_to_num(displacement_mm), grid.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = DESCRIPTION.encode()
    path = image_path.with_name(image_path.name.replace("_T1w", "_desc-truth_displacement"))
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=3, mtime=0))
