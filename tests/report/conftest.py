"""The fabricated run folder, made once for all files of tests."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from ldae.tasks.probe import evaluate as evaluate_probe
from ldae.tasks.probe.learning_curve import learning_curve
from tests.report.fabricated_run import fabricate_run


@pytest.fixture(scope="session")
def fabricated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fabricated run folder that workers share: to be read, never written to."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = shared / "fabricated", shared / "fabricated.made"
    with FileLock(shared / "fabricated.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that was killed
            with pytest.MonkeyPatch.context() as patch:
                # Ten draws a point are for figures; what is drawn of them is the same with three.
                patch.setattr(evaluate_probe, "learning_curve", partial(learning_curve, draws=3))
                fabricate_run(folder)
            made.touch()
    return folder


@pytest.fixture(scope="module")
def copy_of_run(fabricated: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Copies the fabricated run folder to a place that the caller may write to."""
    return lambda: Path(shutil.copytree(fabricated, tmp_path_factory.mktemp("runs") / "fabricated"))
