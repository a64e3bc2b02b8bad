"""From a subject to files: the images of all its sessions, with their truth."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ldae.atlas import Template, load_template
from ldae.base.files import sha256_of
from ldae.base.processes import run_each, whole_or_none
from ldae.phantom.anatomy.combination import Combination, find_warp
from ldae.phantom.anatomy.deformation import draw_shape
from ldae.phantom.anatomy.label_maps import LabelSource, label_anatomy, label_files, place_label_map, read_label_map
from ldae.phantom.anatomy.label_surroundings import LabelHead, check_head_labels
from ldae.phantom.anatomy.surroundings import TemplateHead, draw_head_tissue
from ldae.phantom.anatomy.tissue import Composition, SubjectMap, map_subject, render, severity_effect
from ldae.phantom.artefacts import noisier, spoil_brain, spoil_mask
from ldae.phantom.files import Row, image_path, truth_row
from ldae.phantom.population import Session, Subject
from ldae.phantom.pose import HeadShape
from ldae.phantom.raw import RawHead, raw_scan, write_raw_scan
from ldae.phantom.scanner import Scan, Site, acquire, draw_scan, draw_site
from ldae.phantom.settings import (
    ARTEFACT_STREAM,
    MAP_STREAM,
    RAW_STREAM,
    SCAN_STREAM,
    SHAPE_STREAM,
    SITE_STREAM,
    TISSUE_STREAM,
    PhantomConfig,
    cohort_grid,
    stream,
)
from ldae.volume import Grid, Volume, write_nifti, write_volume

__all__ = ["choose_label_maps", "scan_subject", "write_effect"]

log = logging.getLogger(__name__)

DESCRIPTION = "ldae phantom: synthetic, not a person"


def choose_label_maps(
    config: PhantomConfig, subjects: Sequence[Subject], warps: Path, *, workers: int = 1
) -> dict[int, LabelSource]:
    """Draw each subject's label map and find the place of every map that is used; empty without `config.anatomy`.

    Args:
        config: of the cohort.
        subjects: of the cohort.
        warps: folder that takes the maps' warps, if maps are combined.
        workers: processes.

    Raises:
        CohortError: if a map is unusable.
    """
    if config.anatomy is None:
        return {}
    files = label_files(Path(config.anatomy))
    draws = {subject.index: stream(config, MAP_STREAM, subject.index) for subject in subjects}
    chosen = {index: files[int(draw.integers(len(files)))] for index, draw in draws.items()}
    used = files if config.combine else sorted(set(chosen.values()))
    place = partial(_place, whole_head=config.raw is not None, warps=warps if config.combine else None)
    found = run_each(place, used, lost=whole_or_none, workers=min(workers, len(used)))
    places = dict(zip(used, found, strict=True))
    return {
        index: _combined(
            places[path], _warp_file(warps, path), [_warp_file(warps, each) for each in used], draws[index]
        )
        if config.combine
        else places[path]
        for index, path in chosen.items()
    }


def _place(path: Path, *, whole_head: bool, warps: Path | None) -> LabelSource:
    """Check and register a label map; with a folder, its warp is saved there."""
    if whole_head:
        check_head_labels(path, read_label_map(path).labels)
    log.info("registering %s to the template", path)
    source = place_label_map(str(path), sha256_of(path))
    if warps is not None:
        find_warp(source).save(_warp_file(warps, path))
    return source


def _warp_file(folder: Path, label_map: Path) -> Path:
    return folder / f"{label_map.name}.npy"


def _combined(source: LabelSource, own: Path, warps: Sequence[Path], rng: np.random.Generator) -> LabelSource:
    """A map, or its mirror image, in a shape between its own and that of any map."""
    other, share, mirrored = warps[int(rng.integers(len(warps)))], float(rng.uniform()), bool(rng.random() < 0.5)
    source = source.mirror() if mirrored else source
    return replace(source, combination=Combination(own, other, share, mirrored))


def _anatomy(source: LabelSource | None) -> Template:
    return load_template(1.0) if source is None else label_anatomy(source)


def _shape(config: PhantomConfig, subject: Subject, source: LabelSource | None) -> np.ndarray:
    """The shape of the subject's head, the same at every session."""
    shape = draw_shape(config.head_shape, subject.intracranial_scale, stream(config, SHAPE_STREAM, subject.index))
    return shape if source is None or source.combination is None else source.combination.move(shape)


def _head(config: PhantomConfig, subject: Subject, source: LabelSource | None) -> SubjectMap:
    """The subject's head on the cohort's grid."""
    return map_subject(cohort_grid(config), _shape(config, subject, source), _anatomy(source))


def write_effect(
    path: Path, config: PhantomConfig, subjects: Sequence[Subject], sources: Mapping[int, LabelSource]
) -> None:
    """Write the mean change of the subjects' clean images for one unit of severity; `sources` as for `choose_label_maps`."""
    effects = [
        severity_effect(
            _head(config, subject, sources.get(subject.index)),
            subject.sessions[0].state,
            config.population,
            config.modality,
        )
        for subject in by_label_map(subjects, sources)
    ]
    mean = Volume(np.mean(effects, axis=0, dtype=np.float32), cohort_grid(config).affine)
    write_volume(mean, path, description="phantom truth: mean change of the image for severity + 1", mni=True)


def by_label_map(subjects: Sequence[Subject], sources: Mapping[int, LabelSource]) -> list[Subject]:
    """The subjects with those of one label map together, so that it is read once."""

    def key(subject: Subject) -> tuple[str, bool, int]:
        source = sources.get(subject.index)
        return ("", False, subject.index) if source is None else (source.path, source.mirrored, subject.index)

    return sorted(subjects, key=key)


def scan_subject(folder: Path, config: PhantomConfig, job: tuple[Subject, LabelSource | None]) -> list[Row]:
    """Write the images of a subject with its anatomy (the template's if None) into the cohort's folder; their rows of truth."""
    subject, source = job
    site = draw_site(config.scanner, stream(config, SITE_STREAM, int(subject.site.removeprefix("site-"))))
    scan = _scan_stripped if config.raw is None else _scan_raw
    rows = []
    for session, found, grid in scan(folder, config, subject, source, site):
        if found.displacement_mm is not None:
            name = image_path(subject, session, config.modality).replace(
                f"_{config.modality}.", "_desc-truth_displacement."
            )
            _write_displacement(found.displacement_mm, grid, folder / name)
        row = truth_row(subject, session, found.volumes_ml)
        rows.append(row if source is None else {**row, "label_map": Path(source.path).name})
    return rows


def _scan_stripped(
    folder: Path, config: PhantomConfig, subject: Subject, source: LabelSource | None, site: Site
) -> Iterator[tuple[Session, Composition, Grid]]:
    """Write brains in template space; the truth of each, and its grid."""
    grid = cohort_grid(config)
    head_map = _head(config, subject, source)
    for session in subject.sessions:
        rng = stream(config, SCAN_STREAM, subject.index, session.months)
        scan = draw_scan(config.scanner, site, rng)
        head = render(head_map, session.state, scan.motion, keep_displacement=config.save_displacement)
        darkening = session.state.white_matter_darkening
        image = _acquire(config, head, grid, scan, darkening, rng, (subject.index, session.months))
        path = folder / image_path(subject, session, config.modality)
        write_volume(Volume(image, grid.affine), path, description=DESCRIPTION, mni=True)
        yield session, head, grid


def _acquire(
    config: PhantomConfig,
    head: Composition,
    grid: Grid,
    scan: Scan,
    darkening: float,
    rng: np.random.Generator,
    key: tuple[int, int],
) -> np.ndarray:
    """An image of a brain, with artefacts if there are any; `key` names the session."""
    how: dict[str, Any] = {"white_matter_darkening": darkening, "rng": rng, "modality": config.modality}
    if config.artefacts is None:
        return acquire(head, grid, scan, config.scanner, **how)
    draw = stream(config, ARTEFACT_STREAM, *key)
    scanner = noisier(config.scanner, config.artefacts, draw)
    spoilt = spoil_brain(head, grid, config.artefacts, draw)
    image = acquire(spoilt, grid, scan, scanner, **how)
    return spoil_mask(image, grid, config.artefacts, draw)


def _scan_raw(
    folder: Path, config: PhantomConfig, subject: Subject, source: LabelSource | None, site: Site
) -> Iterator[tuple[Session, Composition, Grid]]:
    """Write whole heads in native space; the truth of each, and its grid."""
    assert config.raw is not None
    tissue = draw_head_tissue(stream(config, TISSUE_STREAM, subject.index))
    surroundings = TemplateHead(tissue) if source is None else LabelHead(source, tissue)
    head = RawHead(HeadShape.from_lattice(_shape(config, subject, source)), _anatomy(source), surroundings)
    for session in subject.sessions:
        raw = raw_scan(
            head,
            session.state,
            config.raw,
            draw_scan(config.scanner, site, stream(config, SCAN_STREAM, subject.index, session.months)),
            config.scanner,
            voxel_size_mm=config.voxel_size_mm,
            keep_displacement=config.save_displacement,
            rng=stream(config, RAW_STREAM, subject.index, session.months),
        )
        write_raw_scan(folder, image_path(subject, session, config.modality), raw, head.shape, description=DESCRIPTION)
        yield session, raw.composition, raw.grid


def _write_displacement(displacement_mm: np.ndarray, grid: Grid, path: Path) -> None:
    """A four-dimensional NIfTI: x, y and z in mm; 0 where no brain is near."""
    import nibabel

    image = nibabel.Nifti1Image(np.nan_to_num(displacement_mm), grid.affine)
    write_nifti(image, path, description=DESCRIPTION)
