"""Headers of NRRD files, as https://teem.sourceforge.net/nrrd/format.html defines them."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ldae.errors import VolumeError

__all__ = ["read_nrrd_header"]

MAX_HEADER = 1 << 26
# Names without blanks, as some programs write them.
ALIASES = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}
# A whole-number type: without sign, and of 1, 2, 4 or 8 bytes.
WHOLE = re.compile(
    r"(u|unsigned )?(?:signed )?(?:(char|int8)|(short|int16)|(int|int32)|(long ?long|int64))(?: int)?(?:_t)?"
)
ORDERS = {"little": "<", "big": ">"}
FLOATS = {"float": "f4", "double": "f8"}
ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
UNITS_MM = {"": 1.0, "mm": 1.0, "m": 1000.0, "um": 0.001}
# Signs of the axes, to RAS; other spaces do not say where left and right are.
SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
}


def read_nrrd_header(path: Path) -> dict[str, Any]:
    """Header of an attached (.nrrd) or a detached (.nhdr) file, as fields of :class:`ldae.image_files.Header`.

    The shape is without a first axis of complex numbers or colours and without trailing axes of length one; the type has
    fields where a voxel is a colour; the affine is to RAS only if `placed`, and the identity unless there are three axes.

    Raises:
        VolumeError: if a field is missing or impossible, or names a data file outside the header's folder.
    """
    fields, end = _fields(path)

    def take(name: str, convert: Callable[[str], Any], needed: str, default: str = "") -> Any:
        text = fields.get(name, default)
        try:
            return convert(text)
        except (LookupError, ValueError, TypeError):
            msg = (
                f"{path}: the field '{name}' of an NRRD header must be {needed}, got {text[:80]!r}; correct it, or convert the "
                "original again"
            )
            raise VolumeError(msg) from None

    dtype = take("type", _dtype, "a whole-number type, float or double")
    order = take("endian", lambda text: ORDERS[text.lower()], "little or big", "little" if dtype.itemsize == 1 else "")
    dtype = dtype.newbyteorder(order)
    shape = take("sizes", lambda text: tuple(map(int, text.split())), "whole numbers")
    kind = fields.get("kinds", "").lower().partition(" ")[0]
    if len(shape) > 3 and kind == "complex" and shape[0] == 2 and dtype.kind == "f":
        shape, dtype = shape[1:], np.dtype(f"{order}c{2 * dtype.itemsize}")
    elif len(shape) > 3 and ("color" in kind or "vector" in kind) and shape[0] in (3, 4):
        shape, dtype = shape[1:], np.dtype([(str(n), dtype) for n in range(shape[0])])
    shape = shape[:3] if math.prod(shape[3:]) == 1 else shape
    voxels_path, packed_from = path, end
    if "data file" in fields:
        voxels_path = take("data file", lambda name: _beside(path, name), "one file in the header's folder")
        packed_from = 0
    take("line skip", {"0": 0}.__getitem__, "0", "0")
    affine, placed, sized = np.eye(4), False, False
    if len(shape) == 3:
        vectors = take("space directions", lambda text: _numbers(text, 9), "three vectors of three finite numbers")
        sizes = take("spacings", lambda text: _numbers(text, 3), "three finite numbers")
        origin = take("space origin", lambda text: _numbers(text, 3), "a vector of three finite numbers")
        unit_mm = take("space units" if vectors else "units", _unit_mm, "one of mm, m and um for all axes")
        to_ras = SPACES.get(fields.get("space", "").lower())
        affine[:3, :3] = unit_mm * (np.reshape(vectors, (3, 3)).T if vectors else np.diag(sizes or np.ones(3)))
        affine[:3, 3] = unit_mm * np.asarray(origin or np.zeros(3))
        affine[:3] *= np.reshape(to_ras or np.ones(3), (3, 1))
        placed, sized = bool(vectors and to_ras), bool(vectors or sizes)
    return {
        "shape": shape,
        "spacing": tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()),
        "dtype": dtype,
        "voxels_path": voxels_path,
        "packed": take("encoding", lambda text: ENCODINGS[text.lower()], f"one of {', '.join(ENCODINGS)}"),
        "packed_from": packed_from,
        "start": take("byte skip", _count, "a number of bytes", "0"),
        "affine": affine,
        "placed": placed,
        "sized": sized,
    }


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields up to the blank line, and the byte after it."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        magic = file.readline(MAX_HEADER)
        while (line := file.readline(MAX_HEADER).rstrip(b"\r\n")) and file.tell() <= MAX_HEADER:
            # Key/value pairs (':=') and comments ('#') get names that no field has.
            name, _, value = line.decode("utf-8", "replace").partition(": ")
            fields[ALIASES.get(name.lower(), name.lower())] = value.strip()
        end = file.tell()
    if not magic.startswith(b"NRRD") or end > MAX_HEADER:
        msg = (
            f"{path}: an NRRD header begins with NRRD and takes at most {MAX_HEADER:,} bytes, got {magic[:8]!r} and {end:,}; "
            "copy or convert the file again"
        )
        raise VolumeError(msg)
    return fields, end


def _dtype(text: str) -> np.dtype:
    match = WHOLE.fullmatch(text.lower())
    if match is None or match.lastindex is None:
        return np.dtype(FLOATS[text.lower()])
    return np.dtype(f"{'u' if match[1] else 'i'}{2 ** (match.lastindex - 2)}")


def _unit_mm(text: str) -> float:
    return UNITS_MM[" ".join(set(text.replace('"', " ").split()))]


def _numbers(text: str, count: int) -> list[float]:
    """So many numbers of a field such as '(1,0,0) (0,1,0)'; none of 'none none none' and of a field that is absent."""
    found = [float(word) for word in re.findall(r"[^\s,()]+", text) if word != "none"]
    if len(found) not in (0, count) or not all(map(math.isfinite, found)):
        raise ValueError(text)
    return found


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _beside(path: Path, name: str) -> Path:
    """The data file of a detached header; several, and files elsewhere, raise ValueError."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or "%" in name or name.split()[0] == "LIST":
        raise ValueError(name)
    return path.parent / name
