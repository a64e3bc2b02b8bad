"""Import of BIDS data sets made by hand, most of them awkward. That of the generator's own is in test_phantom.py."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldae.data.manifest import read_manifest
from ldae.errors import CohortError
from ldae.prepare.imports.bids import import_bids
from ldae.prepare.imports.bids_names import PREFERENCE, BidsName, rank
from tests.import_files import touch


def dataset(folder: Path, *images: str, **tables: str) -> Path:
    """A data set of empty images, given as `01/M00_acq-x`, with its tables; `sub_01` is the one of a subject's sessions."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}', encoding="utf-8")
    touch(folder, *(image if image.endswith((".nii", ".nii.gz")) else f"{image}.nii.gz" for image in images))
    for name, text in tables.items():
        subject = name.replace("_", "-")
        path = f"{name}.tsv" if name == "participants" else f"{subject}/{subject}_sessions.tsv"
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def scan(label: str, session: str | None = None, *more: str, suffix: str = "T1w") -> str:
    parts = [f"sub-{label}", *([f"ses-{session}"] if session else [])]
    return "/".join([*parts, "anat", "_".join([*parts, *more, suffix])])


def names(report) -> list[str]:
    return [item.source.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".nii") for item in report.taken]


def amiss(report) -> dict[str, str]:
    return {item.source: item.reason for item in report.skipped if not item.expected}


def test_without_sessions_and_without_tables(tmp_path):
    root = dataset(tmp_path / "study.v2 [1]", scan("02"), scan("01"), scan("01", suffix="T2w"))
    report = import_bids(root, tmp_path / "m.tsv")
    records = read_manifest(report.manifest).records
    assert [(r.key, r.age, r.months) for r in records] == [(f"sub-0{i}_01", None, None) for i in (1, 2)]
    assert report.complete
    assert any("no participants.tsv" in note for note in report.notes)
    assert any("1 T2w" in note for note in report.notes)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("run-02_T1w.nii.gz", "run-01_T1w.nii.gz"),
        ("T1w.nii.gz", "rec-norm_run-09_T1w.nii.gz"),
        ("T1w.nii.gz", "acq-hires_T1w.nii.gz"),
        ("acq-a_run-1_T1w.nii.gz", "acq-b_run-2_T1w.nii.gz"),
        ("acq-x_T1w.nii.gz", "acq-defaced_T1w.nii.gz"),
        ("rec-norm_T1w.nii.gz", "ce-gadolinium_T1w.nii.gz"),
        ("run-10_T1w.nii.gz", "run-9_T1w.nii.gz"),
        ("acq-z_T1w.nii.gz", "rec-a_T1w.nii.gz"),
        ("T1w.nii.gz", "T1w.nii"),
    ],
)
def test_one_of_several_is_preferred_and_the_other_reported(tmp_path, better, worse):
    images = [f"sub-01/ses-1/anat/sub-01_ses-1_{name}" for name in (worse, better)]
    report = import_bids(dataset(tmp_path / "d", *images), tmp_path / "m.tsv")
    assert [item.source for item in report.taken] == [images[1]]
    (passed,) = report.skipped
    assert (passed.source, passed.expected, passed.detail) == (images[0], True, f"taken: {images[1]}")
    assert passed.reason.removeprefix("passed over: ") in PREFERENCE


def test_what_the_user_prefers_comes_first(tmp_path):
    root = dataset(tmp_path / "d", scan("01"), scan("01", None, "rec-a"), scan("01", None, "acq-mprage", "run-1"))
    assert names(import_bids(root, tmp_path / "m.tsv", prefer=["acq-mprage"])) == ["sub-01_acq-mprage_run-1_T1w"]
    with pytest.raises(CohortError, match="such as acq-mprage"):
        import_bids(root, tmp_path / "m.tsv", prefer=["mprage"])


LABEL = st.sampled_from(["a", "b", "defaced", "1", "2"])
ENTITIES = st.dictionaries(st.sampled_from(["acq", "rec", "ce", "desc", "space", "echo"]), LABEL, max_size=3)


@given(st.lists(st.tuples(ENTITIES, st.integers(0, 3), st.sampled_from([".nii", ".nii.gz"])), min_size=3, max_size=3))
def test_the_preference_is_an_order(choices):
    ranks = [rank(BidsName({"sub": "1", **e, **({"run": str(r)} if r else {})}, end)) for e, r, end in choices]
    for a, b, c in itertools.permutations(ranks):
        assert not (a < b and b < a)
        assert not (a <= b <= c) or a <= c


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("sub-02/anat/sub-02_run_T1w", "not a BIDS name"),
        ("sub-02/anat/sub-02_run-x_T1w", "run- takes a number"),
        ("sub-02/anat/sub-03_T1w", "wrong folder"),
        ("sub-02/ses-1/anat/sub-02_T1w", "wrong folder"),
        ("sub-02/func/sub-02_T1w", "wrong folder"),
        ("sub-02/anat/T1w", "not a BIDS name"),
        ("sub-02/anat/sub-02_T1W", "suffix is written T1w"),
        ("sub-02/anat/sub-02_acq-1_acq-2_T1w", "stands twice"),
        ("sub-02/anat/sub-02_part-phase_T1w", "not a magnitude"),
        ("sub-02/anat/sub-02_chunk-1_T1w", "part of the head"),
        ("sub-0é/anat/sub-0é_T1w", "not a BIDS name"),
    ],
)
def test_broken_names_are_named_and_stop_nobody_else(tmp_path, image, reason):
    report = import_bids(dataset(tmp_path / "d", scan("01"), image), tmp_path / "m.tsv")
    assert names(report) == ["sub-01_T1w"]
    assert reason in amiss(report)[f"{image}.nii.gz"]
    assert amiss(report)[image.split("/")[0]] == "a subject without a usable T1w"


def test_people_and_sessions_without_a_scan_are_reported(tmp_path):
    people = "participant_id\tage\nsub-01\t60\nsub-02\t61\nsub-03\t62\n"
    root = dataset(tmp_path / "d", scan("01", "1"), scan("01", "2", suffix="bold"), participants=people)
    (root / "sub-02").mkdir()
    report = import_bids(root, tmp_path / "m.tsv")
    absent = {"sub-02": "without a usable T1w", "sub-03": "of participants.tsv without a folder"}
    assert amiss(report) == {name: f"a subject {what}" for name, what in absent.items()}
    assert [item.source for item in report.skipped if item.expected] == ["sub-01/ses-2"]


def test_sessions_know_better_than_participants(tmp_path):
    root = dataset(
        tmp_path / "d",
        *(scan("01", label) for label in ("M00", "M12", "late")),
        participants="\ufeffparticipant_id\tage\tgender\tdx\tscore\n01\t60\tfemale\tMCI\t7\n",
        sub_01="session_id\tdx\tmonths\nses-M00\tMCI\t0\nM12\tn/a\t12.5\nses-late\tAD\tn/a\n",
    )
    records = read_manifest(import_bids(root, tmp_path / "m.tsv").manifest).records
    assert [(r.session_id, r.age, r.diagnosis, r.months) for r in records] == [
        ("ses-M00", 60.0, "MCI", 0.0),
        ("ses-M12", 61.042, None, 12.5),
        ("ses-late", None, "AD", None),
    ]
    assert {(r.sex, r.extra["score"]) for r in records} == {("F", 7)}


def test_labels_or_acquisition_times_give_months(tmp_path):
    root = dataset(
        tmp_path / "d",
        *(scan("01", label) for label in ("bl", "m06")),
        *(scan("02", label) for label in ("a", "b")),
        *(scan("03", label) for label in ("a", "b")),
        participants="participant_id\tage\nsub-01\t60\nsub-02\t70\nsub-03\t80\n",
        sub_02="session_id\tacq_time\nses-b\t1925-07-01T10:00:00\nses-a\t1924-07-01\n",
    )
    for label, day in (("a", "2001-01-01"), ("b", "2003-01-01")):
        (root / "sub-03" / f"ses-{label}" / f"sub-03_ses-{label}_scans.tsv").write_text(
            f"filename\tacq_time\nanat/sub-03_ses-{label}_T1w.nii.gz\t{day}T00:00:00\n../../../secret.nii\t1990-01-01\n",
            encoding="utf-8",
        )
    report = import_bids(root, tmp_path / "m.tsv")
    months = {r.key: (r.months, r.age) for r in read_manifest(report.manifest).records}
    assert months["sub-01_ses-m06"] == (6.0, 60.5)
    assert months["sub-02_ses-a"] == (0.0, 70.0)
    assert months["sub-02_ses-b"] == (11.99, pytest.approx(71.0, abs=0.01))
    assert months["sub-03_ses-b"] == (23.98, pytest.approx(82.0, abs=0.01))
    assert set(amiss(report).values()) == {"names a file outside the data set"}


def test_values_without_a_place_become_missing_and_are_counted(tmp_path):
    # One age for several sessions would be wrong.
    root = dataset(tmp_path / "several", scan("01", "1"), scan("01", "2"), participants="participant_id\tage\n01\t60\n")
    report = import_bids(root, tmp_path / "m.tsv")
    assert [r.age for r in read_manifest(report.manifest).records] == [None, None]
    assert any("n/a for 2" in note for note in report.notes)
    root = dataset(
        tmp_path / "d",
        *(scan(f"0{i}") for i in range(1, 5)),
        participants="participant_id\tage\tsex\nsub-01\t89+\tO\nsub-02\t50\t1\nsub-03\t200\tf\nsub-04\t51\t0\n",
    )
    (root / "participants.json").write_text(
        json.dumps({"sex": {"Levels": {"1": "female", "0": "Male"}}}), encoding="utf-8"
    )
    report = import_bids(root, tmp_path / "m.tsv")
    found = [(r.age, r.sex) for r in read_manifest(report.manifest).records]
    assert found == [(89.0, None), (50.0, "F"), (None, "F"), (51.0, "M")]
    assert sum("so n/a" in note for note in report.notes) == 2
    assert "baseline_age is a bound, which is taken for the value: '89+' in 1 row(s)" in report.notes
    (root / "participants.json").write_text(json.dumps({"age": {"Units": "weeks"}}), encoding="utf-8")
    weeks = import_bids(root, tmp_path / "m.tsv")
    assert {r.age for r in read_manifest(weeks.manifest).records} == {None}
    assert "ages in weeks" in amiss(weeks)["participants.tsv"]


def test_two_rows_of_one_person(tmp_path):
    people = "participant_id\tage\nsub-01\t60\nsub-02\t61\nsub-01\t63\nsub-02\t61\n"
    root = dataset(tmp_path / "d", scan("01"), scan("02"), participants=people)
    report = import_bids(root, tmp_path / "m.tsv")
    assert [r.age for r in read_manifest(report.manifest).records] == [None, 61.0]
    (item,) = report.skipped
    assert (item.source, item.detail) == ("sub-01", "participants.tsv, line 2; participants.tsv, line 4")
    by_session = people.replace("participant_id", "participant_id\tsession_id").replace("\t6", "\tses-1\t6")
    root = dataset(tmp_path / "e", scan("02", "1"), participants=by_session)
    assert [r.age for r in read_manifest(import_bids(root, tmp_path / "m.tsv").manifest).records] == [61.0]


@pytest.mark.parametrize("text", ["participant_id\tage\n", "participant_id\tage\nsub-01\n", "name\nx\n", "\x00"])
def test_a_damaged_table_is_reported_and_the_images_are_taken(tmp_path, text):
    report = import_bids(dataset(tmp_path / "d", scan("01"), participants=text), tmp_path / "m.tsv")
    assert names(report) == ["sub-01_T1w"]
    assert [source.split(",")[0] for source in amiss(report)] == ["participants.tsv"]


def test_links_never_multiply_scans_and_leave_the_data_set_only_when_asked(tmp_path):
    root, other = dataset(tmp_path / "ä ö" / "d", scan("01")), dataset(tmp_path / "other", scan("02"), scan("03"))
    (root / "sub-01" / "again").symlink_to(root, target_is_directory=True)
    (root / "sub-02").symlink_to(other / "sub-02", target_is_directory=True)
    (root / "sub-03" / "anat").mkdir(parents=True)
    linked = f"{scan('03')}.nii.gz"
    (root / linked).symlink_to(other / linked)
    report = import_bids(root, tmp_path / "m.tsv")
    assert names(report) == ["sub-01_T1w"]
    assert {"sub-02", linked} < set(amiss(report))
    followed = import_bids(root, tmp_path / "m.tsv", follow_links=True)
    assert names(followed) == ["sub-01_T1w", "sub-02_T1w", "sub-03_T1w"]
    assert followed.complete


def test_a_derivative_comes_first_when_asked_for(tmp_path):
    root = dataset(tmp_path / "d", scan("01"), scan("02"))
    prep = root / "derivatives" / "prep"
    dataset(prep, scan("01", None, "desc-preproc"), scan("01", None, "space-MNI152NLin6Asym", "desc-preproc"))
    dataset(prep, scan("03", None, "space-MNI152", "desc-preproc"))
    raw = import_bids(root, tmp_path / "m.tsv")
    assert names(raw) == ["sub-01_T1w", "sub-02_T1w"]
    assert any("derivatives not looked at" in note and "prep" in note for note in raw.notes)
    report = import_bids(root, tmp_path / "m.tsv", derivative="prep")
    assert names(report) == ["sub-01_desc-preproc_T1w", "sub-02_T1w", "sub-03_space-MNI152_desc-preproc_T1w"]
    assert ["deformable" in item.note for item in report.taken] == [False, False, True]
    for name in ("..", "../..", "prep/..", "nope"):
        with pytest.raises(CohortError, match="names no derivative"):
            import_bids(root, tmp_path / "m.tsv", derivative=name)


def test_what_is_no_data_set_says_what_to_give_instead(tmp_path):
    dataset(tmp_path / "up" / "d", scan("01"))
    with pytest.raises(CohortError, match="its folder d has some"):
        import_bids(tmp_path / "up", tmp_path / "m.tsv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match=r"an empty folder; give .* images of any other names as files"):
        import_bids(tmp_path / "empty", tmp_path / "m.tsv")
    (tmp_path / "empty" / "scan.nii.gz").touch()
    with pytest.raises(CohortError, match=r"got scan.nii.gz; give .* images of any other names as files"):
        import_bids(tmp_path / "empty", tmp_path / "m.tsv")
    with pytest.raises(CohortError, match="no such folder"):
        import_bids(tmp_path / "nowhere", tmp_path / "m.tsv")
    with pytest.raises(CohortError, match=r"no T1w image in 1 subject folder\(s\) \(1 bold\)"):
        import_bids(dataset(tmp_path / "f", "sub-01/func/sub-01_task-rest_bold"), tmp_path / "m.tsv")
    assert not (tmp_path / "m.tsv").exists()
