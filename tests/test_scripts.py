"""The pipelines in scripts/: they call commands that the parser takes, and run on phantoms in each study's own tables."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ldae.cli.main import read_command_line
from ldae.data.manifest import Manifest, read_manifest
from ldae.phantom.cohort import PhantomConfig, synthesise_cohort
from tests.cli.test_parts import SBATCH

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "data_manifests"
MODELS = [f"{name}={EXAMPLES}/embeddings/model_{name}.csv" for name in "abc"]
# The script, its arguments before and after the output.
PIPELINES = {
    "adni_diagnosis_and_age": ([f"{EXAMPLES}/adni/ADNIMERGE.csv", f"{EXAMPLES}/adni"], []),
    "oasis3_missing_visits": (
        [f"{EXAMPLES}/oasis3/{name}.csv" for name in ("OASIS3_UDSb4_cdr", "OASIS3_demographics")]
        + [f"{EXAMPLES}/oasis3"],
        [],
    ),
    "bids_probe": ([f"{EXAMPLES}/bids", "age"], []),
    "compare_embeddings": ([f"{EXAMPLES}/embeddings/subjects.csv", "diagnosis"], MODELS),
}
# Fewer folds and resamples than a study needs: each test looks at the way, not at the values.
QUICK = """#!/bin/sh
[ "$1" != probe ] || set -- "$@" --folds 3 --repeats 1 --permutations 0 --resamples 20
exec {python} -m ldae "$@"
"""


def run(name: str, *arguments: object, **environment: str) -> None:
    words = ["bash", str(ROOT / "scripts" / f"{name}.sh"), *map(str, arguments)]
    subprocess.run(words, env={**os.environ, **environment}, cwd=ROOT, check=True, timeout=900)


def executable(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def quick(tmp_path: Path) -> dict[str, str]:
    ldae = executable(tmp_path / "ldae", QUICK.format(python=shlex.quote(sys.executable)))
    return {"LDAE": ldae, "PREPARED": "1"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Sixteen subjects with up to three visits, in a BIDS layout."""
    config = PhantomConfig(n_subjects=16, voxel_size_mm=3, max_sessions=3)
    return read_manifest(synthesise_cohort(tmp_path_factory.mktemp("phantoms"), config, workers=1))


def test_every_pipeline_is_a_page_that_is_tested() -> None:
    found = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("scripts/*.sh")}
    assert set(found) == {*PIPELINES, "prepare", "slurm_parts", "gpu_check"}
    assert max(len(text.splitlines()) for text in found.values()) <= 60


@pytest.mark.parametrize("prepared", ["", "1"], ids=["raw", "prepared"])
@pytest.mark.parametrize("name", PIPELINES)
def test_scripts_call_commands_that_the_parser_takes(name: str, prepared: str, tmp_path: Path) -> None:
    calls, out = tmp_path / "calls", tmp_path / "a run"
    recorder = f'#!/bin/sh\nprintf "%s\\037" "$@" >> {shlex.quote(str(calls))}; echo >> {shlex.quote(str(calls))}\n'
    before, after = PIPELINES[name]
    run(name, *before, out, *after, LDAE=executable(tmp_path / "ldae", recorder), PREPARED=prepared, CONFOUNDS="age")
    lines = [line.split("\037")[:-1] for line in calls.read_text(encoding="utf-8").splitlines()]
    assert {read_command_line(line)[0].path[0] for line in lines} >= {
        "probe" if name != "oasis3_missing_visits" else "study"
    }
    assert any(line[:2] == ["cohort", "preprocess"] for line in lines) == (
        not prepared and name != "compare_embeddings"
    )
    # What a line reads, a line before it wrote: in the file or folder that its --out names.
    written: set[Path] = set()
    for line in lines:
        made = {Path(value) for option, value in pairwise(line) if option == "--out"}
        words = {Path(word.partition("=")[2] or word).with_suffix("") for word in line if str(tmp_path) in word}
        read = words - {path.with_suffix("") for path in made}
        assert all(path in written or path.parent in written for path in read), line
        written |= {path.with_suffix("") for path in made}


def copy(image: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(image, to)


def write_table(example: Path, out: Path, rows: list[dict[str, object]]) -> Path:
    """A table with the columns of a worked example; cells that a row does not name are empty."""
    with example.open(encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert {name for row in rows for name in row} <= set(columns)
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(rows)
    return out


@pytest.mark.slow
def test_adni_from_its_table_to_diagnosis_and_age(phantoms: Manifest, quick: dict[str, str], tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for record in phantoms.records:
        (first, *_) = phantoms[record.participant_id]
        number = int(record.participant_id.removeprefix("sub-"))
        subject, visit = f"901_S_{number:04d}", f"m{record.months:02.0f}".replace("m00", "bl")
        copy(record.image, tmp_path / "ADNI" / f"{subject}_{visit}_T1w.nii.gz")
        diagnosis = {"AD": "Dementia"}.get(str(record.diagnosis), record.diagnosis)
        sex = {"F": "Female", "M": "Male"}[str(record.sex)]
        known = {"RID": number, "PTID": subject, "VISCODE": visit, "SITE": record.site, "Month_bl": record.months}
        rows.append({**known, "AGE": first.age, "PTGENDER": sex, "DX": diagnosis, "DX_bl": first.diagnosis})
    table = write_table(EXAMPLES / "adni" / "ADNIMERGE.csv", tmp_path / "ADNIMERGE.csv", rows)
    # Encoded by an array of three tasks, as on a cluster.
    executable(tmp_path / "sbatch", SBATCH)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    run("adni_diagnosis_and_age", table, tmp_path / "ADNI", tmp_path / "out", **quick, PARTS="3", PATH=path)
    made = read_manifest(tmp_path / "out" / "cohort.tsv")
    found, true = ({(r.age, r.sex, r.diagnosis, r.months) for r in each.records} for each in (made, phantoms))
    # Months have decimals in ages; everything else comes through the table unchanged.
    assert {each[1:] for each in found} == {each[1:] for each in true}
    assert (
        "tissue_pca" in json.loads((tmp_path / "out" / "probes" / "probe_diagnosis.json").read_text("utf-8"))["scored"]
    )
    assert (tmp_path / "out" / "probes" / "probe_age.csv").is_file()
    assert (tmp_path / "out" / "probes_age_and_sex_removed" / "report.html").is_file()


@pytest.mark.slow
def test_oasis_from_its_tables_to_missing_visits(phantoms: Manifest, quick: dict[str, str], tmp_path: Path) -> None:
    visits: list[dict[str, object]] = []
    people: list[dict[str, object]] = []
    for number, subject in enumerate(phantoms.subjects):
        name = f"OAS3{number:04d}"
        first = phantoms[subject][0]
        people.append({"OASISID": name, "AgeatEntry": first.age, "GENDER": {"M": 1, "F": 2}[str(first.sex)]})
        for record in phantoms[subject]:
            day = round((record.months or 0) * 30.4375)
            copy(record.image, tmp_path / "scans" / f"sub-{name}_ses-d{day:04d}_T1w.nii.gz")
            words = {"CN": "Cognitively normal", "AD": "AD Dementia"}.get(str(record.diagnosis), "uncertain dementia")
            # Clinical visits are a month after the scan.
            label = f"{name}_UDSb4_d{day + 30:04d}"
            row = {"OASISID": name, "OASIS_session_label": label, "days_to_visit": day + 30, "dx1": words}
            visits.append(row)
    tables = [
        write_table(EXAMPLES / "oasis3" / f"{name}.csv", tmp_path / f"{name}.csv", rows)
        for name, rows in (("OASIS3_UDSb4_cdr", visits), ("OASIS3_demographics", people))
    ]
    run("oasis3_missing_visits", *tables, tmp_path / "scans", tmp_path / "out", **quick)
    made = read_manifest(tmp_path / "out" / "cohort.tsv")
    assert [r.months for r in made.records] == pytest.approx([r.months for r in phantoms.records], abs=0.05)
    result = json.loads((tmp_path / "out" / "missing_visits" / "interpolate.json").read_text("utf-8"))
    assert {"trajectory_residual", "copy_nearest"} <= set(result["ssim"])
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_any_bids_data_set_to_a_probe(phantoms: Manifest, quick: dict[str, str], tmp_path: Path) -> None:
    run("bids_probe", phantoms.path.parent, "age", tmp_path / "out", **quick)
    assert len(read_manifest(tmp_path / "out" / "cohort.tsv")) == len(phantoms)
    assert (tmp_path / "out" / "codes" / "codes.parquet").is_file()
    assert (tmp_path / "out" / "probes" / "report.html").is_file()


@pytest.mark.slow
def test_three_tables_of_embeddings_are_compared(quick: dict[str, str], tmp_path: Path) -> None:
    before, after = PIPELINES["compare_embeddings"]
    run("compare_embeddings", *before, tmp_path, *after, **quick)
    area = {}
    for name in "abc":
        result = json.loads((tmp_path / name / "probe_diagnosis.json").read_text("utf-8"))
        area[name] = result["scored"]["codes"]["metrics"]["auc"]["value"]
        assert {each["against"] for each in result["comparisons"]} >= set("abc") - {name}
    assert area["a"] > area["b"] > area["c"]
