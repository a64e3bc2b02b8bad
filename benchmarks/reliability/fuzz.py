"""Damage files of every format that is read, and count the errors that a user would see as a defect.

    python benchmarks/reliability/fuzz.py --inputs 10000 --out benchmarks/results/fuzz.json

Each input is a good file with some bytes changed: flipped, cut off, put in, taken out, or replaced by what such files hold. A
reader may take it or refuse it with an error of this package or of the system; anything else is unexpected, and is kept with its
number, from which `--only FORMAT --first NUMBER --inputs 1` makes it again. That a file was taken says nothing of its content.
"""

import argparse
import gzip
import json
import logging
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import torch

from ldae.autoencoder import AutoencoderConfig, LatentDiffusionAutoencoder, Networks
from ldae.base.files import write_json
from ldae.config import load_experiment
from ldae.data.identity import read_same_person
from ldae.data.manifest import read_manifest
from ldae.dicom.headers import read_folder
from ldae.errors import LdaeError
from ldae.models.compression import CompressionConfig
from ldae.models.convnext import ConvNeXtConfig
from ldae.models.denoiser import DenoiserConfig
from ldae.models.semantic_encoder import SemanticEncoderConfig, SliceEncoderConfig
from ldae.prepare.imports.study_map import load_map
from ldae.tasks.probe.embeddings import read_embeddings, write_arrays, write_embeddings
from ldae.tasks.probe.linear import LinearProbe
from ldae.volume import read_volume

WORDS = (
    b"nan",
    b"-1",
    b"1e400",
    b"null",
    b"[]",
    b"{}",
    b"\x00",
    b"\xff\xff",
    b'"',
    b"\t",
    b"\n",
    b"..",
    b"99999999999",
    b"true",
)


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        good: path of a good file.
        read: reader, of a path.
        inside: damage the content and compress it again, so that checksums are right.
    """

    good: Path
    read: Callable[[Path], object]
    inside: bool = False


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one to four changes, half of them in its first 600 bytes, where headers are."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        end = len(data) if rng.random() < 0.5 else min(len(data), 600)
        if not end:
            break
        at = int(rng.integers(end))
        match rng.integers(6):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.integers(256))
            case 2:
                del data[at:]
            case 3:
                word = WORDS[rng.integers(len(WORDS))]
                data[at : at + len(word)] = word
            case 4:
                data[at:at] = WORDS[rng.integers(len(WORDS))]
            case 5:
                del data[at : at + int(rng.integers(1, 64))]
    return bytes(data)


def make_files(folder: Path) -> dict[str, Format]:
    """A good file of each format."""
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.random((12, 14, 12), dtype=np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.set_qform(image.affine, 1)
    for name in ("scan.nii", "scan.nii.gz"):
        nibabel.save(image, folder / name)
    nibabel.save(nibabel.MGHImage(image.get_fdata(dtype=np.float32), image.affine), folder / "scan.mgz")
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image.get_fdata(dtype=np.float32)), str(folder / "scan.nrrd"))
    rows = [f"sub-{i}\tses-1\tscan.nii\t{60 + i}\tF\tCN\t{(i % 2 and 'train') or 'test'}" for i in range(8)]
    table = "participant_id\tsession_id\timage\tage\tsex\tdiagnosis\tsplit\n" + "\n".join(rows) + "\n"
    (folder / "manifest.tsv").write_text(table)
    pd.read_csv(folder / "manifest.tsv", sep="\t").to_excel(folder / "manifest.xlsx", index=False)
    (folder / "same.csv").write_text("participant_id,person\nsub-1,a\nsub-2,a\n")
    records, values = read_manifest(folder / "manifest.tsv").records, rng.normal(size=(8, 6))
    write_embeddings(folder / "codes.parquet", records, values)
    write_arrays(folder / "codes.npz", records, values)
    pd.read_parquet(folder / "codes.parquet").to_csv(folder / "codes.csv", index=False)
    LinearProbe(np.zeros(6), np.ones(6), rng.normal(size=6), 0.1, 1.0, True, 1.0).save(folder / "probe.json")
    (folder / "experiment.yaml").write_text(
        "seed: 3\npreprocessing: {shape: [64, 80, 64], voxel_size_mm: 3.0}\n"
        "compression:\n  optimisation: {steps: 10, batch_size: 2}\nsampling: {steps: 4}\n"
    )
    patterns = "['(?P<participant>S\\d+)_(?P<visit>\\d+)']"
    (folder / "study.yaml").write_text(
        f"study: a study\ncolumns:\n  participant_id: [ID]\n  age: [Age]\nimages:\n  patterns: {patterns}\n"
    )
    _write_model(folder / "model")
    _write_dicom(folder / "slice.dcm")
    return {
        "nii": Format(folder / "scan.nii", read_volume),
        "nii.gz": Format(folder / "scan.nii.gz", read_volume),
        "nii.gz, inside": Format(folder / "scan.nii.gz", read_volume, inside=True),
        "mgz": Format(folder / "scan.mgz", read_volume),
        "mgz, inside": Format(folder / "scan.mgz", read_volume, inside=True),
        "nrrd": Format(folder / "scan.nrrd", read_volume),
        "manifest tsv": Format(folder / "manifest.tsv", lambda path: read_manifest(path, check_images=False).records),
        "manifest xlsx": Format(folder / "manifest.xlsx", lambda path: read_manifest(path, check_images=False).records),
        "same person": Format(folder / "same.csv", read_same_person),
        "codes parquet": Format(folder / "codes.parquet", read_embeddings),
        "codes npz": Format(folder / "codes.npz", read_embeddings),
        "codes csv": Format(folder / "codes.csv", read_embeddings),
        "probe": Format(folder / "probe.json", lambda path: LinearProbe.load(path).predict(values)),
        "experiment": Format(folder / "experiment.yaml", load_experiment),
        "study map": Format(folder / "study.yaml", load_map),
        "model config": Format(folder / "model" / "config.json", _load_model),
        "model weights": Format(folder / "model" / "model.safetensors", _load_model),
        "dicom": Format(folder / "slice.dcm", lambda path: read_folder(path.parent, files=[path])),
    }


def _write_model(folder: Path) -> None:
    slices = SliceEncoderConfig(ConvNeXtConfig(depths=(1, 1), widths=(8, 16)), heads=2)
    config = AutoencoderConfig(
        semantic_encoder=SemanticEncoderConfig(slices=slices),
        compression=CompressionConfig(channels=(4, 4, 8), latent_channels=2, residual_blocks=1, groups=2),
        denoiser=DenoiserConfig(width=8, multipliers=(1, 2), residual_blocks=1, attention_levels=(1,)),
    )
    LatentDiffusionAutoencoder(config, Networks(config), device="cpu").save_pretrained(folder)


def _load_model(path: Path) -> object:
    """The model folder that a damaged file stands in."""
    return LatentDiffusionAutoencoder.from_pretrained(path.parent, device="cpu")


def _write_dicom(path: Path) -> None:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    image = pydicom.Dataset()
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.Modality, image.PatientID, image.PatientAge, image.StudyDate = "MR", "P1", "070Y", "20200301"
    image.Rows = image.Columns = 8
    image.PixelSpacing, image.ImagePositionPatient = ["1", "1"], ["0", "0", "0"]
    image.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 0, 1
    image.PhotometricInterpretation, image.PixelData = "MONOCHROME2", bytes(128)
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(path, enforce_file_format=True)


def campaign(name: str, kind: Format, numbers: range) -> dict[str, object]:
    """Read damaged copies of a file; counts, and what was unexpected."""
    kind.read(kind.good)  # or every refusal would be of the good file
    content = kind.good.read_bytes()
    plain = gzip.decompress(content) if kind.inside else content
    found: dict[str, object] = {"taken": 0, "refused": 0, "system": 0, "unexpected": []}
    slowest = most = 0.0
    for number in numbers:
        broken = damaged(plain, np.random.default_rng([number, *name.encode()]))
        kind.good.write_bytes(gzip.compress(broken, 1) if kind.inside else broken)
        tracemalloc.reset_peak()
        start = time.perf_counter()
        try:
            kind.read(kind.good)
            found["taken"] += 1
        except LdaeError:
            found["refused"] += 1
        except OSError:  # which the command line shows as a paragraph too
            found["system"] += 1
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            line = f"{number}: {type(error).__name__}: {str(error)[:120]} ({Path(last.filename).name}:{last.lineno})"
            found["unexpected"].append(line)
            print(f"{name} {line}", flush=True)
        slowest = max(slowest, time.perf_counter() - start)
        most = max(most, tracemalloc.get_traced_memory()[1] / 2**20)
    kind.good.write_bytes(content)
    return found | {"slowest_s": round(slowest, 2), "peak_mib": round(most, 1)}


def main() -> None:
    """Print a row for each format, and exit with 1 if anything was unexpected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="in all (default: 10000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each format")
    parser.add_argument("--only", help="one format, by its name")
    parser.add_argument("--out", type=Path, help="JSON file of the counts")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tracemalloc.start()
    with tempfile.TemporaryDirectory(prefix="ldae-fuzz-") as folder:
        formats = make_files(Path(folder))
        chosen = {name: kind for name, kind in formats.items() if options.only in (None, name)}
        each = -(-options.inputs // len(chosen))
        found = {}
        for name, kind in chosen.items():
            found[name] = campaign(name, kind, range(options.first, options.first + each))
            print(f"{name}: {json.dumps(found[name] | {'unexpected': len(found[name]['unexpected'])})}", flush=True)
    unexpected = sum(len(each["unexpected"]) for each in found.values())
    print(f"{each * len(chosen)} inputs, {unexpected} unexpected errors")
    if options.out:
        write_json(options.out, {"inputs_a_format": each, "formats": found})
    raise SystemExit(1 if unexpected else 0)


if __name__ == "__main__":
    main()
