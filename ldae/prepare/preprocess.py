"""From a raw T1w head to a brain in template space: bias correction, affine registration, brain mask, one resampling.

Registration is affine, never deformable: warping a brain onto the template would remove the atrophy that is to be
learnt.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ldae.data.manifest import Manifest
from ldae.errors import CohortError, LdaeError
from ldae.io.template import template_grid
from ldae.prepare.bias_field import correct_bias
from ldae.prepare.brain import brain_of_stripped, extract_brain, inside, template_brain
from ldae.prepare.derivatives import (
    Outcome,
    ScanJob,
    finished_outcome,
    plan_jobs,
    write_derived_manifest,
    write_scan,
)
from ldae.prepare.morphology import depth_mm, grow, mask_volume
from ldae.prepare.registration import MIN_CORRELATION, Registration, moved, refine, register
from ldae.volume import Grid, Volume, read_volume

__all__ = ["PreprocessConfig", "PreprocessReport", "PreprocessedScan", "preprocess_manifest", "preprocess_scan"]

# The bias field of the final image is fitted on the brain, without the dark fluid at its surface.
BIAS_MARGIN_MM = -2.0
# Brain and surrounding fluid of anyone above infancy.
PLAUSIBLE_BRAIN_ML = (750.0, 2200.0)
# A rim around the brain that is this empty says that somebody has stripped the scan before.
RIM_MM, EMPTY_SHARE = 6.0, 0.95


@dataclass(frozen=True)
class PreprocessConfig:
    """How scans are preprocessed.

    Attributes:
        voxel_size_mm: of the output, in mm.
        already_stripped: the scans hold the brain alone; what is not background is the brain.
        bias_correction: run N4.
        margin_mm: room that the output grid leaves around the template's brain, in mm: brains differ in shape.
        multiple: every axis of the output grid is a multiple of this many voxels.
        min_correlation: with the template, below which a registration counts as failed.
    """

    voxel_size_mm: float = 1.0
    already_stripped: bool = False
    bias_correction: bool = True
    margin_mm: float = 8.0
    multiple: int = 8
    min_correlation: float = MIN_CORRELATION

    def __post_init__(self) -> None:
        _ = self.grid  # refuses impossible values

    @property
    def grid(self) -> Grid:
        """The output grid, axis-aligned RAS in MNI space."""
        return template_grid(self.voxel_size_mm, multiple=self.multiple, margin_mm=self.margin_mm)


@dataclass(frozen=True, eq=False)
class PreprocessedScan:
    """A brain in template space.

    Attributes:
        image: on the template grid, in the scan's own intensities, above 0 inside the brain and exactly 0 outside.
        brain_mask: 0 and 1 on the same grid.
        affine_native_to_template: RAS mm of the scan to RAS mm of the template, (4, 4).
        quality: Pearson correlation with the template's T1 inside the template's brain, at 6 mm.
        brain_volume_ml: inside the brain's surface in native space, in ml.
        warnings: what deserves a look.
    """

    image: Volume
    brain_mask: Volume
    affine_native_to_template: npt.NDArray[np.float64]
    quality: float
    brain_volume_ml: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PreprocessReport:
    """What became of a cohort.

    Attributes:
        manifest: the manifest of the preprocessed scans.
        finished: keys of the scans preprocessed now.
        skipped: keys of the scans that were finished before.
        failures: key -> why the scan could not be preprocessed.
        warnings: key -> what deserves a look.
    """

    manifest: Path
    finished: tuple[str, ...]
    skipped: tuple[str, ...]
    failures: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)


def preprocess_scan(volume: Volume, config: PreprocessConfig | None = None) -> PreprocessedScan:
    """Bring a T1w head to the template grid.

    Args:
        volume: a raw T1w head in any orientation, or a brain with `already_stripped`.
        config: how.

    Raises:
        CohortError: if the registration fails or no brain is found.
    """
    config = config or PreprocessConfig()
    native = volume.to_ras()
    registration, surface, corrected = _locate_brain(native, config)
    to_template = registration.affine_native_to_template
    image, mask = _on_template(corrected, surface, to_template, config)
    brain_volume_ml = float((surface.data > 0).sum()) * surface.grid.voxel_volume_ml
    warnings = [*registration.warnings, *_brain_warnings(native, surface, brain_volume_ml, config)]
    return PreprocessedScan(image, mask, to_template, registration.correlation, brain_volume_ml, tuple(warnings))


def _locate_brain(native: Volume, config: PreprocessConfig) -> tuple[Registration, Volume, Volume]:
    """Registration, brain surface and bias-corrected image, the latter two in native space."""
    # N4 runs before resampling, twice: over the head, so that the registration sees one contrast; then from the raw
    # image over the brain, where its field then has to fit nothing else.
    corrected = correct_bias(native) if config.bias_correction else native
    registration = register(corrected, already_stripped=config.already_stripped, min_correlation=config.min_correlation)
    if config.already_stripped:
        return registration, brain_of_stripped(native), corrected
    to_template = registration.affine_native_to_template
    if config.bias_correction:
        corrected = correct_bias(native, template_brain(native.grid, to_template, margin_mm=BIAS_MARGIN_MM))
    surface = extract_brain(corrected, to_template)
    stripped = Volume(corrected.resample_to(surface.grid).data * (surface.data > 0), surface.affine)
    return refine(stripped, registration, min_correlation=config.min_correlation), surface, corrected


def _on_template(
    corrected: Volume, surface: Volume, to_template: npt.NDArray[np.float64], config: PreprocessConfig
) -> tuple[Volume, Volume]:
    """Image and mask on the template grid, each interpolated once."""
    grid = config.grid
    mask = inside(moved(surface, to_template), grid)
    if not mask.any():
        msg = "no brain on the template grid; the registration must have failed"
        raise CohortError(msg)
    values = corrected.data[inside(surface, corrected.grid)]
    # Cubic splines overshoot at edges; the brain's darkest voxels stay above 0, which means background.
    floor = max(float(values.min()), 1e-4 * float(np.percentile(values, 99.0)), float(np.finfo(np.float32).tiny))
    cubic = moved(corrected, to_template).resample_to(grid, order=3).data
    image = np.where(mask, np.clip(cubic, floor, max(floor, float(values.max()))), 0.0)
    return Volume(image.astype(np.float32), grid.affine), mask_volume(mask, grid.affine)


def _brain_warnings(native: Volume, surface: Volume, brain_volume_ml: float, config: PreprocessConfig) -> list[str]:
    found = []
    low, high = PLAUSIBLE_BRAIN_ML
    if not low <= brain_volume_ml <= high:
        found.append(f"a brain of {brain_volume_ml:.0f} ml, outside {low:.0f} to {high:.0f}; look at the overlay")
    brain = inside(surface, native.grid)
    rim = grow(brain, RIM_MM, native.spacing) & (depth_mm(~brain, native.spacing) > RIM_MM / 2)
    if not config.already_stripped and rim.any() and (native.data[rim] == native.data.min()).mean() > EMPTY_SHARE:
        found.append("the scan seems to be stripped already; preprocess it with already_stripped")
    return found


def preprocess_manifest(
    manifest: Manifest,
    out_dir: Path,
    config: PreprocessConfig | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> PreprocessReport:
    """Preprocess every scan of a manifest into a folder laid out like a BIDS derivative.

    For each scan: ``sub-X/ses-Y/anat/sub-X_ses-Y_space-MNI152_desc-preproc_T1w.nii.gz`` with its JSON (transform,
    quality, provenance), ``..._desc-brain_mask.nii.gz`` and ``..._desc-preproc_overlay.png``; for the cohort
    ``manifest.tsv``, which carries all columns over. A scan that fails is reported and leaves the others alone. A scan
    whose content, configuration and results are unchanged is skipped.

    Args:
        manifest: the raw scans.
        out_dir: where to write.
        config: how.
        workers: processes.
        progress: called with (scans done, all scans).

    Raises:
        CohortError: if two scans would get the same name, or not one scan could be preprocessed.
    """
    config = config or PreprocessConfig()
    out_dir = Path(out_dir)
    jobs = plan_jobs(manifest, out_dir, asdict(config))
    outcomes: dict[str, Outcome] = {}

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.key] = outcome
        if progress is not None:
            progress(len(outcomes), len(jobs))

    if workers <= 1:
        for job in jobs:
            settle(_run(job, config))
    else:
        from multiprocessing import get_context

        # Spawned, not forked: a fork inherits the locks of ITK's thread pool.
        with ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_share_cores, initargs=(workers,)
        ) as pool:
            futures = {pool.submit(_run, job, config): job for job in jobs}
            for future in as_completed(futures):
                error = future.exception()
                settle(future.result() if error is None else Outcome(futures[future].key, failure=_reason(error)))
    in_order = [outcomes[job.key] for job in jobs]
    return PreprocessReport(
        manifest=write_derived_manifest(manifest, out_dir, in_order),
        finished=tuple(outcome.key for outcome in in_order if outcome.failure is None and not outcome.skipped),
        skipped=tuple(outcome.key for outcome in in_order if outcome.skipped),
        failures={outcome.key: outcome.failure for outcome in in_order if outcome.failure is not None},
        warnings={outcome.key: outcome.warnings for outcome in in_order if outcome.warnings},
    )


def _share_cores(workers: int) -> None:
    import os

    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(max(1, (os.cpu_count() or 1) // workers))


def _run(job: ScanJob, config: PreprocessConfig) -> Outcome:
    """One scan from file to files; whatever goes wrong becomes the outcome's failure."""
    try:
        done = finished_outcome(job)
        if done is not None:
            return done
        volume = read_volume(job.image)
        scan = preprocess_scan(volume, config)
        return write_scan(
            job,
            image=scan.image,
            brain_mask=scan.brain_mask,
            sidecar={
                "AffineNativeToTemplate": scan.affine_native_to_template.tolist(),
                "NativeGrid": volume.grid.to_dict(),
                "CorrelationWithTemplate": scan.quality,
                "BrainVolumeMl": scan.brain_volume_ml,
                "Warnings": list(scan.warnings),
            },
        )
    except Exception as error:  # one bad scan never stops the others
        return Outcome(job.key, failure=_reason(error))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, LdaeError) and text else f"{type(error).__name__}: {text}"
