"""No importer writes over a table of its user's."""

from functools import partial
from pathlib import Path

import pytest

from ldae.errors import CohortError, OutputError
from ldae.prepare.imports.bids import import_bids
from ldae.prepare.imports.study import import_study
from ldae.prepare.imports.study_map import load_map, usual_map
from tests.import_files import touch

TABLE = "participant_id\tage\n01\t60\n02\t61\n"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A BIDS data set whose table also serves the other importers."""
    touch(tmp_path / "study", "sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "study" / "participants.tsv").write_text(TABLE, encoding="utf-8")
    return tmp_path / "study"


def table(study: Path, out: Path, *, name: str) -> None:
    import_study([study / "participants.tsv"], load_map(name) if name else usual_map(), study, out)


@pytest.mark.parametrize("run", [import_bids, partial(table, name="generic"), partial(table, name="")])
def test_the_users_own_tables_are_never_overwritten(study: Path, run) -> None:
    people = study / "participants.tsv"
    # Not even where an import's report lies beside it.
    for beside in (False, True):
        if beside:
            (study / "participants_import.json").write_text("{}", encoding="utf-8")
        with pytest.raises(CohortError, match=r"participants\.tsv: .*another name with --out"):
            run(study, people)
        assert people.read_text(encoding="utf-8") == TABLE
    other = study / "scores.tsv"
    other.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"no import wrote \(no scores_import.json beside it\)"):
        run(study, other)
    assert other.read_text(encoding="utf-8") == "mine"
    (study / "folder.tsv").mkdir()
    with pytest.raises(CohortError, match="there is a folder"):
        run(study, study / "folder.tsv")
