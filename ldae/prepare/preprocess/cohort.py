"""Preprocessing of a cohort into a folder laid out like a BIDS derivative, on one machine or many."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ldae.base.part import Part
from ldae.base.processes import run_each
from ldae.data.manifest import Manifest
from ldae.errors import CohortError, LdaeError
from ldae.head.preprocess import PreprocessConfig, preprocess_scan
from ldae.prepare.preprocess.derivatives import (
    Outcome,
    ScanJob,
    check_folder,
    finished_outcome,
    plan_jobs,
    write_derived_manifest,
    write_scan,
)
from ldae.volume import read_volume

__all__ = ["PreprocessReport", "preprocess_manifest"]

CONNECT_SECONDS = 30


@dataclass(frozen=True)
class PreprocessReport:
    """Result of preprocessing a cohort.

    Attributes:
        manifest: the manifest of the preprocessed scans; None where a part of them was preprocessed.
        outcomes: of every scan, in the order of the raw manifest.
    """

    manifest: Path | None
    outcomes: tuple[Outcome, ...]

    @property
    def finished(self) -> tuple[str, ...]:
        """Keys of the scans preprocessed now."""
        return tuple(each.key for each in self.outcomes if each.failure is None and not each.skipped)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Keys of the scans that were finished before."""
        return tuple(each.key for each in self.outcomes if each.skipped)

    @property
    def failures(self) -> dict[str, str]:
        """Reason of each failed scan, by key."""
        return {each.key: each.failure for each in self.outcomes if each.failure is not None}

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """Reasons to look at a scan, by key."""
        return {each.key: each.warnings for each in self.outcomes if each.warnings}


def preprocess_manifest(
    manifest: Manifest,
    out_dir: Path,
    config: PreprocessConfig | None = None,
    *,
    brain_masks: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    part: Part | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreprocessReport:
    """Preprocess every scan of a manifest.

    For each scan, in ``sub-X/ses-Y/anat``: the brain in template space with its mask, a JSON side-car (transform, quality,
    provenance), the transform in ITK's format, a picture, and the brain mask on the scan's own grid; for the cohort
    ``manifest.tsv`` with all columns. A scan that fails is reported and does not stop the others. A scan whose content,
    configuration and results are unchanged is skipped.

    Args:
        manifest: the raw scans.
        out_dir: folder to write to.
        config: settings.
        brain_masks: masks to use instead of extracting brains: a column of the manifest (paths relative to it), or a
            path with ``{participant_id}`` and ``{session_id}`` in it.
        workers: processes on this machine.
        scheduler: address of a Dask scheduler to run on, such as ``tcp://host:8786``; its workers must see the same files.
        part: of the scans; the manifest is left to a call for all of them, which skips what the parts have done.
        progress: called with (scans done, all scans).

    Raises:
        CohortError: if the folder holds raw scans, two scans would get the same name, masks are missing, the scheduler
            cannot be reached, or not one scan could be preprocessed.
    """
    config = config or PreprocessConfig()
    out_dir = Path(out_dir)
    check_folder(out_dir, manifest)
    jobs = plan_jobs(manifest, out_dir, config, brain_masks)
    jobs = jobs if part is None else part.choose(jobs)
    with nullcontext() if scheduler is None else _cluster(scheduler) as executor:
        outcomes = run_each(_preprocess, jobs, lost=_failed, workers=workers, executor=executor, progress=progress)
    path = write_derived_manifest(manifest, out_dir, outcomes) if part is None else None
    return PreprocessReport(path, tuple(outcomes))


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        msg = "a Dask scheduler needs the extra 'dask': pip install 'ldae[dask]', here and on the workers"
        raise CohortError(msg) from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        msg = f"{address}: no Dask scheduler answers ({error}); start one with 'dask scheduler', or use --workers"
        raise CohortError(msg) from error
    with client:
        yield client.get_executor(pure=False)


def _preprocess(job: ScanJob) -> Outcome:
    try:
        done = finished_outcome(job)
        if done is not None:
            return done
        volume = read_volume(job.image)
        mask = None if job.brain_mask_source is None else read_volume(job.brain_mask_source)
        return write_scan(job, preprocess_scan(volume, job.config, brain_mask=mask), volume.grid)
    except Exception as error:  # one bad scan never stops the others
        return _failed(job, error)


def _failed(job: ScanJob, error: BaseException) -> Outcome:
    reason = " ".join(str(error).split())
    if isinstance(error, BrokenProcessPool):
        reason = "its process was killed, usually for lack of memory; preprocess it with fewer --workers"
    elif not isinstance(error, LdaeError) or not reason:
        reason = f"{type(error).__name__}: {reason}"
    return Outcome(job.key, failure=reason)
