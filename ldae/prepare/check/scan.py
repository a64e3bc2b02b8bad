"""Quality control of one scan: findings, measurements, and a signature of its anatomy."""

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldae.atlas import load_template
from ldae.contract import Preprocessing
from ldae.errors import CohortError, NonFiniteError, VolumeError
from ldae.head.findings import ERROR, NOTICE, WARNING, Finding
from ldae.head.header import check_file, check_header
from ldae.head.intake import CEREBELLUM, OUTSIDE, TemplateFit, template_fit
from ldae.head.intensities import SkullState, Surroundings, check_intensities, check_view, find_surroundings
from ldae.head.morphology import coarse_grid
from ldae.head.tissue import tissue_contrast
from ldae.image_files import COPY_AGAIN, axis_word, read_header
from ldae.prepare.check.likeness import signature
from ldae.prepare.check.model_contract import check_contract
from ldae.prepare.check.shape_spread import ventricle_ml
from ldae.volume import Volume, read_volume, spikes_word

__all__ = ["Examination", "ScanToExamine", "examine"]

ALIGN_MM, OVERLAP_MM = 2.0, 6.0
# Overlap of a brain's mask with the template's, or correlation of a head with it, of scans in template space.
MIN_OVERLAP, MIN_TEMPLATE_CORRELATION = 0.85, 0.75
# With a worse alignment, anatomy is not compared.
MIN_CORRELATION = 0.45
TURNED_DEG, MIN_COVERAGE = 45.0, 0.97
SMALL_BRAIN = 1.2
"""Stretch to the template, mean of the axes, that adults' brains do not need."""
BRAIN_WHOLE = "nothing: the brain is whole, as its alignment with the template shows"


@dataclass(frozen=True)
class ScanToExamine:
    """One scan to examine.

    Attributes:
        anatomy: examine the anatomy, for which heads are aligned with the template.
        contract: of the model that is to read the scan, if any.
        fast: read the header alone.
    """

    key: str
    image: Path
    anatomy: bool = True
    contract: Preprocessing | None = None
    fast: bool = False


@dataclass(eq=False)
class Examination:
    """Findings and measurements of one scan, as they come.

    Attributes:
        voxel_hash: SHA-256 of shape and intensities in RAS order; None for an unreadable scan.
        signature: of its anatomy; None if it is not aligned with the template.
        in_place: the scan is stored in template space.
    """

    key: str
    findings: list[Finding] = field(default_factory=list)
    measurements: dict[str, Any] = field(default_factory=dict)
    voxel_hash: str | None = None
    signature: npt.NDArray[np.float16] | None = None
    in_place: bool = False

    def add(self, *found: Finding) -> bool:
        """Note findings, each with the scan's key; true if one is an error."""
        self.findings += [replace(one, scans=(self.key,)) for one in found]
        return any(one.severity == ERROR for one in found)

    def measure(self, **values: float) -> None:
        """Note measurements, to six digits."""
        self.measurements |= {name: float(f"{value:.6g}") for name, value in values.items()}


def examine(scan: ScanToExamine) -> Examination:
    """Examine one scan; whatever is wrong with it becomes a finding."""
    started = time.perf_counter()
    notes = Examination(scan.key)
    try:
        _examine(scan, notes)
    except Exception as error:  # one bad scan never stops the others
        message = f"the examination failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        notes.add(Finding(ERROR, "not-examined", message, "look at the scan; if it is sound, report this message"))
    notes.measurements["seconds"] = round(time.perf_counter() - started, 2)
    return notes


def _examine(scan: ScanToExamine, notes: Examination) -> None:
    volume = _read(scan, notes)
    if volume is None:
        return
    notes.measurements |= {
        "shape": list(volume.data.shape),
        "spacing_mm": [round(size, 4) for size in volume.spacing],
        "axes": axis_word(volume.affine),
    }
    notes.voxel_hash = _hash(volume.to_ras())
    volume, spikes = volume.without_spikes()
    if spikes:
        notes.add(Finding(WARNING, "spikes", spikes_word(spikes), "look at the scan; convert it again from DICOM"))
    ras = volume.to_ras()
    found, measured = check_intensities(volume.data)
    notes.measure(**measured)
    if notes.add(*found):
        return
    around = find_surroundings(ras)
    found, measured = check_view(around)
    notes.measurements["shows"] = around.skull
    notes.measure(**measured)
    if scan.contract is not None:
        notes.add(*check_contract(scan.contract, ras, around.skull))
    if scan.anatomy:
        _look_at_anatomy(ras, around, notes)
    # A head may lose chin or vertex to the field of view, and the brain be whole.
    whole = notes.measurements.get("template_coverage", 0.0) >= MIN_COVERAGE and around.skull == SkullState.HEAD
    notes.add(*(replace(one, severity=NOTICE, remedy=BRAIN_WHOLE) if whole else one for one in found))


def _read(scan: ScanToExamine, notes: Examination) -> Volume | None:
    """The volume; None, with a finding, if file, header or voxels cannot be used, and None if no voxels are to be read."""
    path = scan.image
    missing = check_file(path)
    if missing is not None:
        notes.add(missing)
        return None
    try:
        header = read_header(path)
        notes.measurements |= {"shape": list(header.shape), "stored_as": header.dtype.name}
        if notes.add(*check_header(header, (header.voxels_path or path).stat().st_size)):
            return None
        if scan.fast:
            notes.measurements["spacing_mm"] = [round(size, 4) for size in header.spacing[:3]]
            return None
        return read_volume(path)
    except NonFiniteError as error:
        reason = str(error).removeprefix(f"{path}: ").split(";")[0]
        notes.add(Finding(ERROR, "non-finite", reason, "replace them (0 is usual outside the brain)"))
    except (VolumeError, OSError) as error:
        notes.add(Finding(ERROR, "unreadable", " ".join(str(error).split())[:300], COPY_AGAIN))
    return None


def _hash(ras: Volume) -> str:
    digest = hashlib.sha256(str(ras.data.shape).encode())
    # Adding 0 makes -0.0 and 0.0 one.
    digest.update(np.ascontiguousarray(ras.data + 0.0).tobytes())
    return digest.hexdigest()


def _look_at_anatomy(ras: Volume, around: Surroundings, notes: Examination) -> None:
    """Modality and signature, in template space."""
    in_place = _in_template_space(around, notes)
    if around.skull == SkullState.UNCLEAR:
        return
    aligned: Volume | None = ras if in_place else _align(ras, around, notes)
    if aligned is None:
        return
    if around.skull == SkullState.BRAIN:
        _look_at_rim(template_fit(aligned), notes)
    contrast = tissue_contrast(aligned)
    white, fluid = contrast.white_minus_grey, contrast.fluid_minus_grey
    notes.measure(white_minus_grey=white, fluid_minus_grey=fluid, explained_by_tissue=contrast.explained)
    notes.measurements["modality"] = contrast.kind
    if contrast.kind == "unknown":
        message = "white matter, grey matter and fluid do not differ in brightness at their places in the template"
        notes.add(Finding(WARNING, "no-tissue-contrast", message, "look at the scan: it must be T1-weighted"))
    elif contrast.kind != "T1w":
        message = (
            f"looks {contrast.kind}, not T1w: white matter is {100 * white:+.0f} % and fluid {100 * fluid:+.0f} % brighter "
            "than grey matter near it"
        )
        notes.add(Finding(ERROR, "not-t1w", message, "give the T1-weighted scan of the visit"))
    else:
        notes.measure(ventricle_ml=ventricle_ml(aligned))
        notes.signature, notes.in_place = signature(aligned), in_place


def _look_at_rim(fit: TemplateFit, notes: Examination) -> None:
    """What a brain extraction left, and what it took too much of."""
    notes.measure(outside_template=fit.outside, cerebellum_covered=fit.cerebellum)
    remedy = "extract the brain again, by another program or from the raw scan ('ldae cohort preprocess')"
    if fit.outside > OUTSIDE:
        notes.add(Finding(WARNING, "rim-left", fit.rim, remedy))
    if fit.cerebellum < CEREBELLUM:
        notes.add(Finding(WARNING, "cerebellum-cut", fit.cerebellum_cut, remedy))


def _in_template_space(around: Surroundings, notes: Examination) -> bool:
    template = load_template(OVERLAP_MM)
    brain = template.brain_mask.data > 0.5
    if around.skull == SkullState.BRAIN:
        mask = Volume(around.mask.astype(np.float32), around.image.affine).resample_to(template.grid).data > 0.5
        overlap = float(2 * (mask & brain).sum() / max(int(mask.sum() + brain.sum()), 1))
        notes.measure(overlap_with_template=overlap)
        return overlap > MIN_OVERLAP
    values = around.image.resample_to(template.grid).data[brain]
    correlation = float(np.corrcoef(values, template.t1.data[brain])[0, 1]) if values.std() > 0 else 0.0
    return correlation > MIN_TEMPLATE_CORRELATION


def _align(ras: Volume, around: Surroundings, notes: Examination) -> Volume | None:
    from ldae.head.registration import moved, register, rotation_deg

    coarse = ras.resample_to(coarse_grid(ras.grid, ALIGN_MM))
    try:
        # Other contrasts correlate less and are still aligned; their tissues then reveal the modality.
        found = register(coarse, already_stripped=around.skull == SkullState.BRAIN, min_correlation=0.3)
    except CohortError as error:
        remedy = "look at the scan: preprocessing will probably fail too; its anatomy was not compared"
        notes.add(Finding(WARNING, "not-aligned", str(error).split(";")[0], remedy))
        return None
    turned = rotation_deg(found.affine_native_to_template)
    grown = float(np.cbrt(np.linalg.det(found.affine_native_to_template[:3, :3])))
    notes.measure(template_correlation=found.correlation, template_coverage=found.coverage, turned_deg=turned)
    if found.correlation < MIN_CORRELATION and (turned > TURNED_DEG or grown > SMALL_BRAIN):
        message = (
            f"registration failed: the best alignment correlates with the template with {found.correlation:.2f}, turned by "
            f"{turned:.0f} degrees and stretched by {grown:.2f}"
        )
        remedy = (
            "look at the scan: a head that is not aligned, or an infant's, whose tissues look otherwise, is not judged"
        )
        notes.add(Finding(WARNING, "not-aligned", message, remedy))
        return None
    if found.coverage < MIN_COVERAGE:
        message = f"{100 * (1 - found.coverage):.0f} % of the brain lie outside the field of view"
        notes.add(Finding(WARNING, "brain-cut", message, "look at the scan"))
    if turned > TURNED_DEG:
        message = f"the head is turned by {turned:.0f} degrees against its header: the orientation is probably wrong"
        remedy = "convert the scan again from DICOM; check left and right, which the image does not show"
        notes.add(Finding(WARNING, "turned", message, remedy))
    aligned = moved(coarse, found.affine_native_to_template)
    if found.correlation < MIN_CORRELATION and tissue_contrast(aligned).kind == "T1w":
        message = f"the correlation with the template is only {found.correlation:.2f}; the anatomy was not compared"
        notes.add(Finding(NOTICE, "weak-alignment", message, "look at the overlay after preprocessing"))
        return None
    return aligned
