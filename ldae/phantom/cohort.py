"""A synthetic cohort with known truth: longitudinal brain MRI in BIDS layout, made from the MNI152 template.

It is a test bed, not a model of any population: anatomy varies smoothly around one template, and disease widens ventricles,
shrinks hippocampi and thins the cortex by amplitudes that are set.
"""

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ldae.base.files import atomic_folder, own_json, read_json, sha256_of, write_json
from ldae.base.processes import run_each, whole_or_none
from ldae.errors import CohortError
from ldae.phantom.anatomy.label_maps import label_files
from ldae.phantom.files import MANIFEST_NAME, Row, write_descriptions, write_tables
from ldae.phantom.scan import Job, choose_label_maps, scan_subject, write_effect
from ldae.phantom.settings import PhantomConfig, cohort_grid, draw_cohort

__all__ = ["PhantomConfig", "cohort_grid", "draw_cohort", "synthesise_cohort"]

log = logging.getLogger(__name__)

CONFIG_NAME = "phantom_config.json"
BEGUN = ".begun"
"""Folder of what a finished cohort does not hold: the settings, and the truth of each finished subject."""
EFFECT_NAME = "phantom_effect.nii.gz"
# Settings that cohorts made before there was a choice do not name.
OPTIONS = ("modality", "raw", "anatomy", "combine", "artefacts")
# Enough for a mean: single effects differ by the shape of the head alone.
EFFECT_SUBJECTS = 24
GENERATOR_VERSION = 1


def synthesise_cohort(
    out_dir: str | os.PathLike[str],
    config: PhantomConfig,
    *,
    workers: int = 1,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort in BIDS layout, with its manifest and its truth.

    The folder appears when it is complete. A finished cohort of the same settings is left as it is; one that was interrupted
    goes on with the subjects that are missing.

    Args:
        out_dir: the cohort's folder: new, empty, or this very cohort.
        config: of the cohort.
        workers: processes; more than one needs the usual `if __name__ == "__main__"` in a script that calls this.
        force: replace a phantom cohort of other settings.
        progress: called with (subjects done, all subjects).

    Returns:
        The manifest, `out_dir/manifest.tsv`.

    Raises:
        CohortError: if the folder holds anything else, `workers` is not positive, or a worker dies.
    """
    out = Path(out_dir).absolute()
    if _is_finished(out, config, force):
        log.info("%s already holds this cohort", out)
        return out / MANIFEST_NAME
    with atomic_folder(out, keep=True) as place:
        try:
            _clear_other(place, config)
            _write_cohort(place, config, workers, progress)
        except BaseException:
            if not any((place / BEGUN).glob("sub-*.json")):  # nothing to go on with
                shutil.rmtree(place)
            raise
    return out / MANIFEST_NAME


def _clear_other(place: Path, config: PhantomConfig) -> None:
    """Empty a folder that was begun with other settings, and note these."""
    begun, plain = place / BEGUN / CONFIG_NAME, _plain(config)
    if not begun.is_file() or own_json(begun) != plain:
        shutil.rmtree(place)
        write_json(begun, plain)


def _scan_once(folder: Path, config: PhantomConfig, job: Job) -> list[Row]:
    """What :func:`scan_subject` gives, which an interrupted run may have kept."""
    kept = folder / BEGUN / f"{job[0].participant_id}.json"
    if not kept.is_file():
        write_json(kept, scan_subject(folder, config, job))
    rows: list[Row] = read_json(kept)
    return rows


def _plain(config: PhantomConfig) -> Any:
    """The configuration as JSON would give it back, with the generator's version."""
    plain = {"generator_version": GENERATOR_VERSION, **dataclasses.asdict(config)}
    if config.anatomy is not None:
        # The content counts, not its place.
        plain["anatomy"] = {path.name: sha256_of(path) for path in label_files(Path(config.anatomy))}
    chosen = {k: v for k, v in plain.items() if k not in OPTIONS or v != getattr(PhantomConfig, k)}
    return json.loads(json.dumps(chosen))


def _is_finished(out: Path, config: PhantomConfig, force: bool) -> bool:
    """True if the folder is this cohort, False if it is to be made; any other content is refused."""
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
        before = read_json(saved)
    except ValueError as error:
        msg = f"{saved} is damaged ({error}); delete the folder {out} to make the cohort again"
        raise CohortError(msg) from error
    now = _plain(config)
    # Cohorts of earlier versions: before there was a choice, or with one that is gone.
    before.setdefault("min_motion_mm", 0.0)
    if before.get("shape") is None:
        before.pop("shape", None)
    if before != now and force:
        return False
    if before != now:
        names = sorted(k for k in now.keys() | before.keys() if now.get(k) != before.get(k))
        msg = (
            f"{out} holds a phantom cohort made with other settings (they differ in {', '.join(names)}); "
            "name a new folder, or give --force to replace this one"
        )
        raise CohortError(msg)
    return True


def _write_cohort(
    folder: Path, config: PhantomConfig, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    """Everything the cohort's folder holds."""
    subjects = draw_cohort(config)
    with TemporaryDirectory(prefix="ldae-warps-") as warps:
        jobs = choose_label_maps(config, subjects, Path(warps), workers=workers)
        scan, workers = partial(_scan_once, folder, config), min(workers, len(jobs))
        found = run_each(scan, jobs, lost=whole_or_none, workers=workers, progress=progress)
    truth = {subject.index: rows for (subject, _), rows in zip(jobs, found, strict=True)}
    write_tables(folder, subjects, [row for subject in subjects for row in truth[subject.index]], config.modality)
    if not config.combine:  # a mean over brains of different shapes says little
        first = {subject.index for subject in subjects[:EFFECT_SUBJECTS]}
        write_effect(folder / EFFECT_NAME, config, [job for job in jobs if job[0].index in first])
    write_json(folder / CONFIG_NAME, _plain(config))
    whole, label_maps = config.raw is not None, config.anatomy is not None
    write_descriptions(folder, GENERATOR_VERSION, modality=config.modality, raw=whole, label_maps=label_maps)
    shutil.rmtree(folder / BEGUN)
