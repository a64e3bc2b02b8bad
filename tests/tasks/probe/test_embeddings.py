"""Tables of embeddings: no feature is dropped, doubled or misread without a word, and a damaged file is named."""

import datetime
import decimal
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ldae.errors import TaskError
from ldae.tasks.probe.embeddings import read_embeddings

IDS = ["a", "b", "c"]
ORIGIN = {"model": "m", "preprocessing": {}, "version": "1"}
OTHER = ORIGIN | {"preprocessing": [1]}


def parquet(folder: Path, metadata: bytes | None = None, **columns: object) -> Path:
    table = pyarrow.table({"participant_id": IDS, "f": [0.5, 1.0, 1.5], **columns})
    path = folder / "table.parquet"
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"ldae": metadata} if metadata else None), path)
    return path


def test_columns_that_are_no_numbers_are_named(tmp_path):
    path = parquet(
        tmp_path,
        flag=[True, None, False],
        listed=[[1.0], [2.0], [3.0]],
        group=[{"a": 1}] * 3,
        day=[datetime.date(2020, 1, 2)] * 3,
        moment=[datetime.datetime(2020, 1, 2)] * 3,
        took=[datetime.timedelta(1)] * 3,
        note=["x", None, "y"],
        nothing=pyarrow.array([None] * 3, pyarrow.string()),
        exact=[decimal.Decimal("1.5"), decimal.Decimal("2"), decimal.Decimal("3")],
    )
    found = read_embeddings(path)
    assert found.names == ("f", "exact")
    assert found.left_out == ("flag", "listed", "group", "day", "moment", "took", "note", "nothing")
    assert found.values.tolist() == [[0.5, 1.5], [1.0, 2.0], [1.5, 3.0]]


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("participant_id;f;g\na;1.234,5;1\nb;-0,25;2,5E-01\n", [[1234.5, 1.0], [-0.25, 0.25]]),
        ("participant_id;f\na;1\nb;0,5\n", [[1.0], [0.5]]),
        ("participant_id\tf\na\t0,5\nb\t1\n", [[0.5], [1.0]]),
        ('participant_id,f\na,"1,234"\nb,"2,5"\n', [[1.234], [2.5]]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_text_are_read_as_manifests_are(tmp_path, content, values, encoding):
    path = tmp_path / "table.csv"
    path.write_text(content, encoding=encoding)
    assert read_embeddings(path).values.tolist() == values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'participant_id,f,g\na,"1,000",1\nb,"2,500",2\n',
            "column f holds numbers and text, such as '1,000'; write numbers",
        ),
        ("participant_id,age,age,f\na,70,70,1\n", "'age' appear twice"),
        ("participant_id,f\na,1\nb\n", "line 3 has 1"),
    ],
)
def test_text_that_may_be_features_is_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(TaskError, match=rf"table.csv: .*{message}"):
        read_embeddings(path)


def test_a_copy_of_a_column_of_the_manifest_is_no_feature(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("participant_id,f,f.1,age,age.1,mmse_x,mmse_y\na,1,2,70,70,29,28\n")
    found = read_embeddings(path, ["mmse"])
    assert (found.names, found.left_out) == (("f", "f.1"), ("age", "age.1", "mmse_x", "mmse_y"))


def test_one_name_for_two_parquet_columns_is_refused(tmp_path):
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(IDS), *[pyarrow.array([1.0] * 3)] * 2], ["participant_id", "f", "f"]
    )
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    with pytest.raises(TaskError, match=r"table.parquet: column f appears twice; give each column one name"):
        read_embeddings(tmp_path / "table.parquet")


@pytest.mark.parametrize(
    "metadata", [b"{}", b"[1]", b"null", b'"x"', b"no JSON", b"\xff", b"[" * 200_000, json.dumps(OTHER).encode()]
)
def test_metadata_that_name_no_model_are_refused(tmp_path, metadata):
    with pytest.raises(TaskError, match=r"table.parquet: the metadata name no model .*; encode the scans again"):
        read_embeddings(parquet(tmp_path, metadata))
    assert read_embeddings(parquet(tmp_path, json.dumps(ORIGIN).encode())).origin.model == "m"


@pytest.mark.parametrize(
    "arrays",
    [
        {"participant_id": np.array("a"), "values": np.ones((3, 2))},
        {"participant_id": np.array([IDS, IDS]).T, "values": np.ones((3, 2))},
        {"participant_id": np.array(IDS), "values": np.ones((3, 0, 4))},
        {"participant_id": np.array(IDS), "values": np.ones((3, 0))},
        {"participant_id": np.array(IDS), "values": np.ones(3)},
        {"participant_id": np.array(IDS), "session_id": np.array(["1"]), "values": np.ones((3, 2))},
    ],
)
def test_arrays_of_other_shapes_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "table.npz", **arrays)
    with pytest.raises(TaskError, match=r"table.npz: values must be \(scans, features\)"):
        read_embeddings(tmp_path / "table.npz")


def test_damaged_arrays_are_named(tmp_path):
    path = tmp_path / "table.npz"
    values = np.random.default_rng(0).normal(size=(3, 100))
    np.savez_compressed(path, participant_id=np.array(IDS), values=values)
    whole = path.read_bytes()
    central, local = whole.index(b"PK\1\2"), whole.index(b"PK\3\4")
    damaged = [{at: whole[at] ^ 0x55} for at in range(40, len(whole) - 100, 41)]
    encrypted = {central + 8: whole[central + 8] | 1, local + 6: whole[local + 6] | 1}
    refused = 0
    for change in (*damaged, encrypted, {central + 10: 99}):
        broken = bytearray(whole)
        for at, byte in change.items():
            broken[at] = byte
        path.write_bytes(broken)
        try:
            assert np.array_equal(read_embeddings(path).values, values)  # what was hit means nothing
        except TaskError as error:
            refused += str(error).startswith(f"{path}: ")
    assert refused >= len(damaged)


def test_arrays_that_claim_more_than_the_memory_holds_are_refused(tmp_path):
    path = tmp_path / "table.npz"
    np.savez(path, participant_id=np.array(IDS))
    with zipfile.ZipFile(path, "a") as archive, archive.open("values.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    with pytest.raises(TaskError, match=r"table.npz: unreadable \(Unable to allocate"):
        read_embeddings(path)
