"""From a subject to files: the images of all its sessions, with their truth."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
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
from ldae.phantom.scanner import Site, acquire, draw_scan, draw_site
from ldae.phantom.settings import PhantomConfig, cohort_grid, stream
from ldae.volume import Grid, Volume, write_nifti, write_volume

__all__ = ["Job", "choose_label_maps", "scan_subject", "write_effect"]

log = logging.getLogger(__name__)

DESCRIPTION = "ldae phantom: synthetic, not a person"


Job = tuple[Subject, LabelSource | None]
"""A subject and its label map; without one, its brain is the template's."""


def choose_label_maps(config: PhantomConfig, subjects: Sequence[Subject], warps: Path, *, workers: int) -> list[Job]:
    """Draw each subject's label map and find the place of every map that is used, if `config.anatomy` holds any.

    The subjects of one map come together, so that it is read once. The folder takes the maps' warps, if maps are combined.

    Raises:
        CohortError: if a map is unusable.
    """
    if config.anatomy is None:
        return [(subject, None) for subject in subjects]
    files = label_files(Path(config.anatomy))
    draws = [stream(config, "map", subject.index) for subject in subjects]
    chosen = [files[int(draw.integers(len(files)))] for draw in draws]
    used = files if config.combine else sorted(set(chosen))
    place = partial(_place, whole_head=config.raw is not None, warps=warps if config.combine else None)
    found = run_each(place, used, lost=whole_or_none, workers=min(workers, len(used)))
    places = dict(zip(used, found, strict=True))
    sources = [places[path] for path in chosen]
    if config.combine:
        sources = [_combined(source, files, warps, draw) for source, draw in zip(sources, draws, strict=True)]
    pairs = sorted(
        zip(sources, subjects, strict=True), key=lambda pair: (pair[0].path, pair[0].mirrored, pair[1].index)
    )
    return [(subject, source) for source, subject in pairs]


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


def _combined(source: LabelSource, files: Sequence[Path], warps: Path, rng: np.random.Generator) -> LabelSource:
    """A map, or its mirror image, in a shape between its own and that of any of the files."""
    other, share, mirrored = files[int(rng.integers(len(files)))], float(rng.uniform()), bool(rng.random() < 0.5)
    own = _warp_file(warps, Path(source.path))
    source = source.mirror() if mirrored else source
    return replace(source, combination=Combination(own, _warp_file(warps, other), share, mirrored))


def _anatomy(source: LabelSource | None) -> Template:
    return load_template(1.0) if source is None else label_anatomy(source)


def _shape(config: PhantomConfig, subject: Subject, source: LabelSource | None) -> np.ndarray:
    """The shape of the subject's head, the same at every session."""
    shape = draw_shape(config.head_shape, subject.intracranial_scale, stream(config, "shape", subject.index))
    return shape if source is None or source.combination is None else source.combination.move(shape)


def _head(config: PhantomConfig, subject: Subject, source: LabelSource | None) -> SubjectMap:
    """The subject's head on the cohort's grid."""
    return map_subject(cohort_grid(config), _shape(config, subject, source), _anatomy(source))


def write_effect(path: Path, config: PhantomConfig, jobs: Sequence[Job]) -> None:
    """Write the mean change of the subjects' clean images for one unit of severity."""
    heads = ((_head(config, subject, source), subject.sessions[0].state) for subject, source in jobs)
    effects = [severity_effect(head, state, config.population, config.modality) for head, state in heads]
    mean = Volume(np.mean(effects, axis=0, dtype=np.float32), cohort_grid(config).affine)
    write_volume(mean, path, description="phantom truth: mean change of the image for severity + 1", mni=True)


def scan_subject(folder: Path, config: PhantomConfig, job: Job) -> list[Row]:
    """Write the images of a subject into the cohort's folder; their rows of truth."""
    subject, source = job
    site = draw_site(config.scanner, stream(config, "site", int(subject.site.removeprefix("site-"))))
    scan = _scan_stripped if config.raw is None else _scan_raw
    rows = []
    for session, found, grid in scan(folder, config, subject, source, site):
        if found.displacement_mm is not None:
            # Four-dimensional: x, y and z in mm; 0 where no brain is near.
            image = nibabel.Nifti1Image(np.nan_to_num(found.displacement_mm), grid.affine)
            name = image_path(subject, session, config.modality)
            name = name.replace(f"_{config.modality}.", "_desc-truth_displacement.")
            write_nifti(image, folder / name, description=DESCRIPTION)
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
        rng = stream(config, "scan", subject.index, session.months)
        draw = stream(config, "artefact", subject.index, session.months)
        scan, scanner = draw_scan(config.scanner, site, rng), config.scanner
        head = seen = render(head_map, session.state, scan.motion, keep_displacement=config.save_displacement)
        if config.artefacts is not None:
            scanner = noisier(scanner, config.artefacts, draw)
            seen = spoil_brain(head, grid, config.artefacts, draw)
        darkening = session.state.white_matter_darkening
        image = acquire(seen, grid, scan, scanner, white_matter_darkening=darkening, rng=rng, modality=config.modality)
        if config.artefacts is not None:
            image = spoil_mask(image, grid, config.artefacts, draw)
        path = folder / image_path(subject, session, config.modality)
        write_volume(Volume(image, grid.affine), path, description=DESCRIPTION, mni=True)
        yield session, head, grid


def _scan_raw(
    folder: Path, config: PhantomConfig, subject: Subject, source: LabelSource | None, site: Site
) -> Iterator[tuple[Session, Composition, Grid]]:
    """Write whole heads in native space; the truth of each, and its grid."""
    assert config.raw is not None
    tissue = draw_head_tissue(stream(config, "tissue", subject.index))
    surroundings = TemplateHead(tissue) if source is None else LabelHead(source, tissue)
    head = RawHead(HeadShape.from_lattice(_shape(config, subject, source)), _anatomy(source), surroundings)
    for session in subject.sessions:
        raw = raw_scan(
            head,
            session.state,
            config.raw,
            draw_scan(config.scanner, site, stream(config, "scan", subject.index, session.months)),
            config.scanner,
            voxel_size_mm=config.voxel_size_mm,
            keep_displacement=config.save_displacement,
            rng=stream(config, "raw", subject.index, session.months),
        )
        write_raw_scan(folder, image_path(subject, session, config.modality), raw, head.shape, description=DESCRIPTION)
        yield session, raw.composition, raw.grid
