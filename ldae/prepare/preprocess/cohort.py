"""Preprocess a cohort: every scan of a manifest into a folder laid out like a BIDS derivative, on one machine or many."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

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
from ldae.prepare.processes import ProcessLanes, one_itk_thread
from ldae.volume import read_volume

__all__ = ["PreprocessReport", "preprocess_manifest"]

CONNECT_SECONDS = 30


@dataclass(frozen=True)
class PreprocessReport:
    """What became of a cohort.

    Attributes:
        manifest: the manifest of the preprocessed scans.
        outcomes: of every scan, in the order of the raw manifest.
    """

    manifest: Path
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
        """Key -> why the scan could not be preprocessed."""
        return {each.key: each.failure for each in self.outcomes if each.failure is not None}

    @property
    def warnings(self) -> dict[str, tuple[str, ...]]:
        """Key -> what deserves a look."""
        return {each.key: each.warnings for each in self.outcomes if each.warnings}


def preprocess_manifest(
    manifest: Manifest,
    out_dir: Path,
    config: PreprocessConfig | None = None,
    *,
    brain_masks: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreprocessReport:
    """Preprocess every scan of a manifest.

    For each scan, in ``sub-X/ses-Y/anat``: the brain in template space with its mask, a JSON side-car (transform, quality,
    provenance), the transform in ITK's format, a picture, and the brain mask on the scan's own grid; for the cohort
    ``manifest.tsv``, which carries all columns over. A scan that fails is reported and leaves the others alone. A scan
    whose content, configuration and results are unchanged is skipped.

    Args:
        manifest: the raw scans.
        out_dir: where to write.
        config: how.
        brain_masks: masks to take instead of extracting brains: a column of the manifest (paths relative to it), or a
            path in which ``{participant_id}`` and ``{session_id}`` stand for a scan's own.
        workers: processes on this machine.
        scheduler: address of a Dask scheduler that does the work instead, such as ``tcp://host:8786``; its workers must
            see the same files.
        progress: called with (scans done, all scans).

    Raises:
        CohortError: if the folder holds raw scans, two scans would get the same name, masks are missing, the scheduler
            cannot be reached, or not one scan could be preprocessed.
    """
    config = config or PreprocessConfig()
    out_dir = Path(out_dir)
    check_folder(out_dir, manifest)
    jobs = plan_jobs(manifest, out_dir, asdict(config), brain_masks)
    outcomes: dict[str, Outcome] = {}

    def settle(outcome: Outcome) -> None:
        outcomes[outcome.key] = outcome
        if progress is not None:
            progress(len(outcomes), len(jobs))

    if workers == 1 and scheduler is None:
        for job in jobs:
            settle(_run(job, config))
    else:
        with ProcessLanes(workers) if scheduler is None else _cluster(scheduler) as executor:
            futures = {executor.submit(_run, job, config): job for job in jobs}
            for future in as_completed(futures):
                error = future.exception()
                settle(future.result() if error is None else Outcome(futures[future].key, failure=_reason(error)))
    in_order = tuple(outcomes[job.key] for job in jobs)
    return PreprocessReport(write_derived_manifest(manifest, out_dir, in_order), in_order)


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


def _run(job: ScanJob, config: PreprocessConfig) -> Outcome:
    """One scan from file to files; whatever goes wrong becomes the outcome's failure."""
    try:
        done = finished_outcome(job)
        if done is not None:
            return done
        volume = read_volume(job.image)
        mask = None if job.brain_mask_source is None else read_volume(job.brain_mask_source)
        with one_itk_thread():
            scan = preprocess_scan(volume, config, brain_mask=mask)
        return write_scan(job, scan, volume.grid)
    except Exception as error:  # one bad scan never stops the others
        return Outcome(job.key, failure=_reason(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return "its process was killed, for want of memory as a rule; preprocess it with fewer --workers"
    text = " ".join(str(error).split())
    return text if isinstance(error, LdaeError) and text else f"{type(error).__name__}: {text}"
