"""Import of studies' tables by maps: the shipped ones on exports in their studies' shapes, and maps of one's own."""

import json
from pathlib import Path

import pytest
import yaml

from ldae.data.manifest import Manifest, read_manifest
from ldae.errors import CohortError, ConfigError
from ldae.prepare.imports.import_report import ImportReport
from ldae.prepare.imports.study_map import load_map, shipped_maps
from tests.import_files import import_tables

ADNIMERGE = """"RID","PTID","VISCODE","SITE","COLPROT","EXAMDATE","DX_bl","AGE","PTGENDER","APOE4","DX","Month_bl","Month","M"
413,"002_S_0413","bl",2,"ADNI1","2006-05-19","CN",76.3,"Female",0,"CN",0,0,0
413,"002_S_0413","m12",2,"ADNI1","2007-06-01","CN",76.3,"Female",0,"",12.42,12,12
1,"003_S_0001","m06",3,"ADNI1","2007-06-01","LMCI",70,"Male",1,"Dementia",6.1,6,6
221,"005_S_0221","bl",3,"ADNI1","2006-05-02","LMCI",70.5,"Male",-4,"MCI",0,0,0
221,"005_S_0221","m06",3,"ADNI1","2006-11-02","LMCI",70.5,"Male",-4,"MCI",6.03,6,6
"""
SEARCH = """"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date","Format","Downloaded"
"I14438","002_S_0413","CN","F","76","sc","MRI","MPRAGE","Original","5/19/2006","NiFTI","1/2/2024"
"I55","002_S_0413","CN","F","77","m12","MRI","MPRAGE","Original","6/01/2007","NiFTI","1/2/2024"
"I77","002_S_0413","CN","F","78","m24","MRI","MPRAGE","Original","6/01/2008","NiFTI","1/2/2024"
"""
UDSB4 = """OASISID,OASIS_session_label,days_to_visit,age at visit,MMSE,CDRTOT,dx1
OAS30001,OAS30001_UDSb4_d0000,0,65.19,28,0,Cognitively normal
OAS30001,OAS30001_UDSb4_d0722,722,67.17,27,0.5,AD Dementia
"""
DEMOGRAPHICS = "OASISID,AgeatEntry,GENDER,EDUC\nOAS30001,65.2,2,12\nOAS30002,67.25,1,18\n"
GENERIC = yaml.safe_load((shipped_maps() / "generic.yaml").read_text(encoding="utf-8"))


def imported(folder: Path, images: list[str], map_name: str | Path, *tables: str) -> ImportReport:
    return import_tables(folder, images, load_map(map_name), *tables)


def map_file(folder: Path, **changes: object) -> Path:
    """The generic map with some keys changed."""
    path = folder / "map.yaml"
    path.write_text(yaml.safe_dump({**GENERIC, **changes}), encoding="utf-8")
    return path


def rows(manifest: Path, *names: str) -> list[tuple[object, ...]]:
    made: Manifest = read_manifest(manifest)
    return [tuple(getattr(record, name, record.extra.get(name)) for name in names) for record in made.records]


def amiss(report) -> dict[str, str]:
    return {item.source: item.reason for item in report.skipped if not item.expected}


def test_adni_by_visit_code_and_by_date(tmp_path):
    loni = "005_S_0221/{0}/2006-05-25_10_00_00.0/I{1}/ADNI_005_S_0221_MR_{0}_br_raw_S1_I{1}.nii"
    images = ["002_S_0413_m12_T1w.nii.gz", "sub-ADNI002S0413_ses-M000_T1w.nii.gz", "003_S_0001_m06.nii"]
    images += [loni.format("MP-RAGE", 1), loni.format("MP-RAGE_REPEAT", 2), "099_S_9999_bl.nii", "odd.nii"]
    report = imported(tmp_path, images, "adni", "\ufeff" + ADNIMERGE)
    assert rows(report.manifest, "participant_id", "session_id", "age", "sex", "diagnosis", "months", "site") == [
        ("002_S_0413", "M000", 76.3, "F", "CN", 0.0, "2"),
        ("002_S_0413", "m12", 77.335, "F", None, 12.42, "2"),
        ("003_S_0001", "m06", 70.508, "M", "AD", 6.1, "3"),
        # 23 days after the visit.
        ("005_S_0221", "20060525", 70.563, "M", "MCI", 0.0, "3"),
    ]
    assert rows(report.manifest, "diagnosis_gap_days", "APOE4")[3] == (23.0, None)
    assert set(amiss(report)) == {"099_S_9999_bl.nii", "odd.nii"}
    expected = {item.reason for item in report.skipped if item.expected}
    assert expected == {"another image of the visit was preferred", "a visit of the table without an image"}
    written = json.loads((tmp_path / "cohort_import.json").read_text(encoding="utf-8"))
    assert (written["counts"]["taken"], written["counts"]["amiss"]) == (4, 2)


def test_the_list_of_images_alone_and_with_the_merged_table(tmp_path):
    names = {"I14438": "2006-05-19", "I55": "2007-06-01"}
    images = [
        f"002_S_0413/MPRAGE/{day}_1_1_1/{image}/ADNI_002_S_0413_MR_S1_{image}.nii" for image, day in names.items()
    ]
    alone = imported(tmp_path / "a", images, "adni_search", SEARCH)
    # The research group is of enrolment: it does not stand for the visit a year later.
    found = rows(alone.manifest, "session_id", "age", "diagnosis", "months")
    assert found == [("sc", 76.0, "CN", 0.0), ("m12", 77.0, None, 12.0)]
    assert amiss(alone) == {"table0.csv, line 4": "an image of the table that is not in the folder"}
    merged = ADNIMERGE.replace('"CN",76.3,"Female",0,"",', '"CN",76.3,"Female",0,"MCI",')
    both = imported(tmp_path / "b", images, "adni_search", SEARCH, merged)
    # AGE of the merged table, the age at baseline, must not pass for Age, that at the scan.
    found = rows(both.manifest, "session_id", "age", "diagnosis", "site")
    assert found == [("sc", 76.0, "CN", "2"), ("m12", 77.0, "MCI", "2")]


def test_oasis_pools_visits_and_people_by_days(tmp_path):
    folder = "OAS30001_MR_d{0}/anat2/NIFTI/sub-OAS30001_ses-d{0}"
    images = [folder.format("0129") + f"_run-0{i}_T1w.nii.gz" for i in (1, 2)]
    images += [folder.format("0757") + "_T1w.nii.gz", folder.format("0757") + "_T2w.nii.gz"]
    images += [folder.format("3132") + "_T1w.nii.gz"]
    report = imported(tmp_path, images, "oasis3", UDSB4, DEMOGRAPHICS)
    assert rows(report.manifest, "session_id", "age", "sex", "diagnosis", "months", "diagnosis_gap_days", "EDUC") == [
        ("d0129", 65.553, "F", "CN", 0.0, 129.0, 12),
        ("d0757", 67.273, "F", "AD", 20.63, 35.0, 12),
        ("d3132", 73.775, "F", None, 98.66, None, 12),
    ]
    assert report.complete
    assert "run-02" in report.taken[0].source
    assert report.taken[2].note == "no visit within 365 days"


def test_a_missing_diagnosis_is_carried_only_when_the_map_says_so(tmp_path):
    table = "id,visit,exam_date,dx\nP1,bl,2020-01-01,MCI\nP1,m06,2020-07-01,\nP1,m36,2023-01-01,\n"
    images = ["P1_bl.nii", "P1_m06.nii", "P1_m36.nii"]
    plain = imported(tmp_path / "a", images, "generic", table)
    assert rows(plain.manifest, "diagnosis") == [("MCI",), (None,), (None,)]
    rule = map_file(tmp_path, diagnosis={"carry_days": 200, "recode": {"mci": "impaired"}})
    carried = imported(tmp_path / "b", images, rule, table)
    found = rows(carried.manifest, "diagnosis", "diagnosis_gap_days")
    assert found == [("impaired", 0.0), ("impaired", 182.0), (None, None)]


def test_ages_come_from_the_date_of_birth_where_there_is_one(tmp_path):
    people = ("Ä 1;2020-05-19;1950-05-19;m", "A2;19.05.2020;19-May-1950;f", "A3;20200519;May 19, 1950;f")
    table = "\n".join(("id;scan_date;dob;sex", *people, ""))
    images = ["Ä 1_x.nii", "A2_20200525_T1w.nii", "A3_y.nii"]
    patterns = [*GENERIC["images"]["patterns"][3:4], r"^(?P<participant>[^/_]+)_"]
    own = map_file(tmp_path, images={"patterns": patterns, "within_days": 10})
    report = imported(tmp_path, images, own, table)
    assert rows(report.manifest, "participant_id", "session_id", "age", "months") == [
        ("1", "20200519", 70.001, 0.0),
        ("A2", "20200525", 70.018, 0.0),
        ("A3", "20200519", 70.001, 0.0),
    ]
    assert "identifiers without the letters that a manifest cannot hold: 'Ä 1' is '1'" in report.notes


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ("1-12", "11-2", "line 2 has '1-12' and table0.csv, line 3 '11-2': one subject or two"),
        ("1-12", "112", "line 2 has '1-12' and table0.csv, line 3 '112': one subject or two"),
        ("Ä 1", "Ö 1", "'Ä 1' and 'Ö 1' would both be '1'"),
    ],
)
def test_two_subjects_never_become_one(tmp_path, first, other, expected):
    own = map_file(tmp_path, images={"patterns": [r"^(?P<participant>[^/_]+)_"]})
    table = f"id,sex,age\n{first},f,60\n{other},m,70\n"
    with pytest.raises(CohortError, match=expected):
        imported(tmp_path, [f"{first}_bl.nii", f"{other}_m12.nii"], own, table)
    assert not (tmp_path / "cohort.tsv").exists()


def test_an_image_never_goes_to_a_subject_of_other_punctuation(tmp_path):
    table = "id,visit,age\n1-12,bl,60\n(1_12),m12,61\n"
    images = ["1-12_bl.nii", "112_m12.nii", "11-2_bl_T1w.nii"]
    report = imported(tmp_path, images, "generic", table)
    assert [item.source for item in report.taken] == ["1-12_bl.nii", "112_m12.nii"]
    assert list(amiss(report)) == ["11-2_bl_T1w.nii"]
    # Letters of any alphabet count.
    own = map_file(tmp_path, images={"patterns": [r"^(?P<participant>[^_]+)_"]})
    report = imported(tmp_path / "b", ["bä-1_x.nii"], own, "id,age,sex\nBÄ1,60,f\nBÖ1,61,m\n")
    assert rows(report.manifest, "participant_id", "age", "sex") == [("B-1", 60.0, "F")]


def test_a_date_that_could_be_two_days_is_refused_with_the_remedy(tmp_path):
    table = "id,scan_date\nA1,13/04/2020\nA2,03/04/2020\n"
    with pytest.raises(CohortError, match=r"line 3, column scan_date.*3 April or 4 March.*'dates: day-first'"):
        imported(tmp_path, ["A1.nii", "A2.nii"], "generic", table)
    assert not (tmp_path / "cohort.tsv").exists()
    report = imported(tmp_path, ["A1.nii", "A2.nii"], map_file(tmp_path, dates="day-first"), table)
    assert rows(report.manifest, "session_id") == [("20200413",), ("20200403",)]


def test_a_visit_without_an_image_is_named_by_its_date_where_it_has_no_code(tmp_path):
    report = imported(tmp_path, ["A1_20200101.nii"], "generic", "id,exam_date\nA1,2020-01-01\nA1,2020-06-01\n")
    assert [item.detail for item in report.skipped] == ["A1 2020-06-01"]


def test_two_rows_for_one_visit(tmp_path):
    table = "id,visit,age\nA1,bl,60\nA1,bl,61\nA2,bl,60\nA2,bl,60\n"
    report = imported(tmp_path, ["A1_bl.nii", "A2_bl.nii"], "generic", table)
    assert [item.scan for item in report.taken] == ["A2_bl"]
    (item,) = [item for item in report.skipped if not item.expected]
    assert (item.source, item.detail) == ("A1_bl.nii", "table0.csv, line 2; table0.csv, line 3: age")


def test_images_that_the_tables_cannot_place_are_named(tmp_path):
    table = "id,visit,sex,age\nA1,bl,f,60\nA1,m12,m,61\nA2,v3,x,abc\nA3,m01,f,50\n"
    images = ["A1_bl_T1w.nii", "A1_bl_T2w.nii", "A1_m06_T1w.nii", "A1.nii", "A2_v3_a.nii", "A2_v3_b.nii", "A3_m1.nii"]
    report = imported(tmp_path, images, "generic", table)
    assert [(item.scan, item.source) for item in report.taken] == [("A1_bl", "A1_bl_T1w.nii"), ("A3_m1", "A3_m1.nii")]
    assert {source: reason.split(":")[0] for source, reason in amiss(report).items()} == {
        "A1_m06_T1w.nii": "an image of a visit that is not in the tables",
        "A1.nii": "an image whose name states no visit, of a subject with several",
        **dict.fromkeys(("A2_v3_a.nii", "A2_v3_b.nii"), "several images of one visit, none of them preferred"),
    }
    # One person is not of two sexes.
    assert rows(report.manifest, "sex") == [(None,), ("F",)]
    assert any("sex of A1 differs between rows" in note for note in report.notes)
    assert any("'x' in 1 row(s)" in note for note in report.notes)
    assert any("'abc' in 1 row(s)" in note for note in report.notes)


def test_nothing_that_matches_is_an_error_with_an_example(tmp_path):
    words = r"none of 1 images .* belongs to a visit of 1 subjects \(B1.nii: an image of a s"
    with pytest.raises(CohortError, match=words):
        imported(tmp_path, ["B1.nii"], "generic", "id,age\nA1,60\n")
    with pytest.raises(CohortError, match=r"no row of the tables can be used \(table0.csv, line 3: a row with more"):
        imported(tmp_path, ["A1.nii"], "generic", "id,age\n,60\nA1,60,1\n")
    with pytest.raises(CohortError, match="looks for PTID"):
        imported(tmp_path, ["B1.nii"], "adni", "id,age\nA1,60\n")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": "red"}, "colour"),
        ({"columns": {"participant_id": ["id"], "agee": ["Age"]}}, "agee"),
        ({"columns": {"participant_id": []}}, "names no column"),
        ({"sex": {"1": "man"}}, "sex.*Got value: man"),
        ({"images": {"patterns": ["("]}}, "no regular expression"),
        ({"images": {"patterns": ["(?P<visit>bl)"]}}, r"\(\?P<participant>"),
        ({"images": {"patterns": ["(?P<participant>.)(?P<day>.)(?P<date>.)"]}}, "at most one of"),
        ({"diagnosis": {"carry_days": -1}}, "0 or more"),
        ({"diagnosis": {"unlisted": "guess"}}, "unlisted"),
        ({"dates": "us"}, "dates"),
        ({"visits": {"v1": "soon"}}, "v1|visits"),
    ],
)
def test_a_map_that_says_what_cannot_be_is_refused(tmp_path, changes, expected):
    with pytest.raises(ConfigError, match=expected):
        load_map(map_file(tmp_path, **changes))


def test_shipped_maps_are_read_and_what_is_no_map_is_refused(tmp_path):
    for path in shipped_maps().glob("*.yaml"):
        assert load_map(path.stem).study == load_map(path).study != ""
    with pytest.raises(ConfigError, match="adni, adni_search, generic, oasis3"):
        load_map("adnii")
    path = tmp_path / "map.yaml"
    for text, expected in (("- a", "got list"), ("a: [", "not readable YAML"), ("study: x", "columns")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=expected):
            load_map(path)


def test_the_map_in_the_documentation_is_one(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "importing.md").read_text(encoding="utf-8")
    path = tmp_path / "map.yaml"
    path.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    table = "Subject;Visit;ScanDate;DOB;Gender;Dx at visit;Education\nP001;V1;03/04/2020;01.02.1950;2;2;-9\n"
    report = imported(tmp_path, ["P001_V1_mprage.nii"], path, table)
    assert rows(report.manifest, "session_id", "age", "sex", "diagnosis", "months") == [("V1", 70.168, "F", "AD", 0.0)]


def test_codes_of_numbers_need_no_quotes(tmp_path):
    path = tmp_path / "map.yaml"
    text = "study: s\ncolumns: {participant_id: id, sex: 7}\nsex: {1: M, 2: F}\nvisits: {3: 6}\n"
    path.write_text(text + "images: {patterns: ['(?P<participant>.)']}\nmissing: [-4]\n", encoding="utf-8")
    made = load_map(path)
    assert (made.columns["sex"], made.missing) == (("7",), ("-4",))
    assert (made.sex, made.visits) == ({"1": "M", "2": "F"}, {"3": 6.0})
