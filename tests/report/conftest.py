"""The fabricated run folder, made once for all files of tests."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from ldae.tasks.probe import evaluate, models
from ldae.tasks.probe.learning_curve import learning_curve
from tests.report.fabricated_run import fabricate_run
from tests.shared_folder import SharedFolder


@pytest.fixture(scope="session")
def fabricated(shared_folder: SharedFolder) -> Path:
    """A fabricated run folder that workers share: to be read, never written to."""
    with pytest.MonkeyPatch.context() as patch:
        # Two draws a point and given hyperparameters: the report shows the same of them as of many and of chosen ones.
        patch.setattr(evaluate, "learning_curve", partial(learning_curve, draws=2))
        patch.setattr(models, "MIN_SUBJECTS", 1000)
        patch.setitem(models.GIVEN, "ridge", 1.0)
        return shared_folder("fabricated", fabricate_run)


@pytest.fixture(scope="module")
def run(fabricated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the fabricated run folder, to which a report can be written."""
    return Path(shutil.copytree(fabricated, tmp_path_factory.mktemp("runs") / "fabricated"))
