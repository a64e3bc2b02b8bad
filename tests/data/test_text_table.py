"""Tables as Excel and others write them: every row is read under its own line number, or listed with it."""

import codecs
from pathlib import Path

import pandas as pd
import pytest

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
    (tmp_path / "table.xlsx").write_bytes(b"PK nothing")
    with pytest.raises(ManifestError, match="not a readable Excel file"):
        read_text_table(tmp_path / "table.xlsx")


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
