"""Tables as Excel and others write them: every row is read under its own line number, or listed with it."""

import codecs
import logging
from pathlib import Path

import pandas as pd
import pytest

from ldae.data import text_table
from ldae.data.text_table import read_text_table
from ldae.errors import ManifestError


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode("utf-8"))
    return path


def test_the_separator_may_stand_in_excels_first_line(tmp_path: Path) -> None:
    cells = read_text_table(
        table(tmp_path, '\ufeffsep=;\r\nID;Age, years;Note\r\nP1;60,5;"two\r\nlines"\r\n\r\nP2;70;\r\n')
    )
    assert cells.columns.tolist() == ["ID", "Age, years", "Note"]
    assert cells.to_numpy().tolist() == [["P1", "60.5", "two\nlines"], ["P2", "70", None]]
    assert cells.index.tolist() == [3, 6]


def test_the_first_sheet_of_an_excel_file_is_read(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"ID": ["007", "P2"], "Age": [60.5, None], "Seen": pd.to_datetime(["2020-01-02"] * 2), "N": [3, 4]}
    )
    table.to_excel(tmp_path / "table.xlsx", index=False)
    cells = read_text_table(tmp_path / "table.xlsx")
    assert cells.columns.tolist() == ["ID", "Age", "Seen", "N"]
    assert cells.to_numpy().tolist() == [["007", "60.5", "2020-01-02", "3"], ["P2", None, "2020-01-02", "4"]]
    for start, message in ((b"PK nothing", "not a readable Excel file"), (b"\xd0\xcf\x11\xe0", "an old Excel file")):
        (tmp_path / "table.xlsx").write_bytes(start + bytes(600))
        with pytest.raises(ManifestError, match=message):
            read_text_table(tmp_path / "table.xlsx")


def test_a_formula_without_a_value_is_no_missing_cell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = {"ID": ["P1", "P2", "P3", "P4", "P5"], "Age": ["=70+1", "#DIV/0!", "#N/A", None, 71.5]}
    pd.DataFrame(rows).to_excel(tmp_path / "table.xlsx", index=False)
    with caplog.at_level(logging.WARNING):
        cells = read_text_table(tmp_path / "table.xlsx")
    assert cells["Age"].tolist() == ["=70+1", "#DIV/0!", None, None, "71.5"]
    assert cells.index.tolist() == [2, 3, 4, 5, 6]
    assert "formulas without a value: line 2: =70+1; line 3: #DIV/0!; correct them" in caplog.text
    (tmp_path / "table.xlsx").rename(tmp_path / "table.csv")
    assert read_text_table(tmp_path / "table.csv").equals(cells)


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;;"])
def test_excels_first_line_in_all_its_forms(first: str, tmp_path: Path) -> None:
    cells = read_text_table(table(tmp_path, f"{first}\nID;Age, years\nP1;1\n"))
    assert cells.to_dict("list") == {"ID": ["P1"], "Age, years": ["1"]}
    assert cells.index.tolist() == [3]


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("89,5+", "89.5+"),
        (">89,5", ">89.5"),
        (">= 89,5", ">= 89.5"),
        ("1.234,5", "1234.5"),
        ("-1.234.567,25", "-1234567.25"),
        ("1,5E-05", "1.5E-05"),
        ("1.5", "1.5"),
        ("1.23,5", "1.23,5"),
        ("3,4,5", "3,4,5"),
        ("a,5", "a,5"),
    ],
)
def test_decimal_commas_between_semicolons(cell: str, read: str, tmp_path: Path) -> None:
    assert read_text_table(table(tmp_path, f"ID;Age\nP1;{cell}\n"))["Age"].tolist() == [read]


def test_row_numbers_without_a_name_are_skipped(tmp_path: Path) -> None:
    assert read_text_table(table(tmp_path, ",ID\n0,P1\n1,P2\n")).to_dict("list") == {"ID": ["P1", "P2"]}
    with pytest.raises(ManifestError, match="a column has no name"):
        read_text_table(table(tmp_path, ",ID\nx,P1\n"))


def test_an_open_quotation_mark_is_reported_with_the_lines_that_it_takes(tmp_path: Path) -> None:
    text = 'ID,Age,Note\nP1,60,a\nP2,61,"b\nP3,62,c\nP4,63,d\n'
    for ending in ("", "\n", "P5,64,e", '"'):
        path = table(tmp_path, text + ending if ending != '"' else text.replace('"b', "b") + ending)
        lines = "lines 6 to 6" if ending == '"' else f"lines 3 to {6 if ending == 'P5,64,e' else 5}"
        with pytest.raises(ManifestError, match=f"a quotation mark is never closed, so that {lines} are one row"):
            read_text_table(path, [])
    ragged: list[tuple[int, int]] = []
    read_text_table(table(tmp_path, 'ID,Age\nP1,"60\nP2,61\nP3",62\nP4,63\n'), ragged)
    assert ragged == [(2, 3), (3, 3), (4, 3)], "one row, three lines"


def test_empty_columns_at_the_right_end_are_none(tmp_path: Path) -> None:
    cells = read_text_table(table(tmp_path, "ID,Age,,\nP1,60,,\nP2,61,,,,\n,,,\n"))
    assert cells.to_dict("list") == {"ID": ["P1", "P2"], "Age": ["60", "61"]}
    with pytest.raises(ManifestError, match="a column has no name"):
        read_text_table(table(tmp_path, "ID,Age,,\nP1,60,,x\n"))


def test_ragged_rows_are_listed_by_line(tmp_path: Path) -> None:
    path = table(tmp_path, "ID,Age,Sex\nP1,60,F\nP2,61\nP3,62,M\nP4,6,3,M\n")
    ragged: list[tuple[int, int]] = []
    assert read_text_table(path, ragged).index.tolist() == [2, 4]
    assert ragged == [(3, 2), (5, 4)]
    with pytest.raises(ManifestError, match="3 columns, but line 3 has 2; line 5 has 4"):
        read_text_table(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings_that_excel_writes_hold_the_same_table(encoding: str, tmp_path: Path) -> None:
    text = "id\tgenotype\nMüller\t3,4\n"
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / "table.tsv").write_bytes(mark + text.encode(encoding))
    (row,) = read_text_table(tmp_path / "table.tsv").to_dict("records")
    assert row == {"id": "Müller", "genotype": "3,4"}


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize(
    ("rows", "regular"),
    [
        (["id|age|note", "1| 60,5 |n/a", "2|#x|None", "3|| NA\v"], True),
        (["id", "1", "2"], True),
        (["id|age", "1", "2|3|4"], False),
        (["id|age", " |", "2|3"], False),
        (["id|age", "1|2", "", "2|3"], False),
        (["|id", "1|a", "2|b"], False),
    ],
)
def test_regular_text_is_read_like_all_other(
    rows: list[str], regular: bool, separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line if separator == ";" else line.replace("60,5", "60.5") for line in rows]
    path = table(tmp_path, "\n".join(line.replace("|", separator) for line in lines) + "\n")
    ragged: tuple[list[tuple[int, int]], ...] = ([], [])
    found = read_text_table(path, ragged[0])
    assert (text_table._regular(path.read_text()) is not None) == regular
    monkeypatch.setattr(text_table, "_regular", lambda _: None)
    pd.testing.assert_frame_equal(found, read_text_table(path, ragged[1]), check_index_type=False)
    assert ragged[0] == ragged[1]
