"""Fixtures that many tests share: seeded volumes, tiny models, a tiny cohort."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
import sklearn
import torch
from hypothesis import settings
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from ldae import atlas
from ldae.autoencoder import AutoencoderConfig, LatentDiffusionAutoencoder
from ldae.base.files import sha256_of, write_json
from ldae.io.official import decoder_name
from ldae.metrics.roc import roc_band
from ldae.models.denoiser import Denoiser, DenoiserConfig
from ldae.models.gradient_estimator import GradientEstimator
from ldae.tasks.probe import folds
from ldae.tasks.probe import models as probe_models
from ldae.volume import Grid, Volume, sidecar_path, write_volume
from tests.tiny_model import TINY, make_tiny_model

pytest_plugins = ["tests.heads", "tests.shared_folder", "tests.tiny_run"]

# A loaded machine must not fail a property. `make slow` looks for counterexamples longer.
settings.register_profile("quick", deadline=None, max_examples=15)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# Workers with several threads each would wait for one another.
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

SHARED = Path(__file__).parents[2] / "shared"
LONG = ("test_docs", "test_bids", "test_demo", "test_gallery", "training", "cli", "probe")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files and folders with long files first, so that no worker ends alone with one of them."""
    items.sort(
        key=lambda item: next((n for n, each in enumerate(LONG) if each in item.path.with_suffix("").parts), len(LONG))
    )


@pytest.fixture(scope="session", autouse=True)
def one_template():
    """The template's files are read once: every voxel size is made of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlas, "_native_template", cache(atlas._native_template))
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_probes():
    """Three values over the same range in three folds for each probe, and 50 ROC curves a band.

    Nine or twelve in five folds, and 500, take most of a probe's time.
    """
    with pytest.MonkeyPatch.context() as patch, sklearn.config_context(skip_parameter_validation=True):
        few = {name: [values[0], values[len(values) // 2], values[-1]] for name, values in probe_models.TRIED.items()}
        patch.setattr(probe_models, "TRIED", few)
        patch.setattr(folds, "INNER_FOLDS", 3)
        patch.setitem(roc_band.__kwdefaults__, "resamples", 50)
        yield


@pytest.fixture
def shared() -> Path:
    """The folder of reference tensors and real scans, where a developer has one."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data is not at {SHARED}")
    return SHARED


@pytest.fixture
def published_networks(shared: Path) -> tuple[Denoiser, GradientEstimator]:
    """Denoiser and gradient estimator with the weights that the published implementation was run with."""
    published = load_file(shared / "parity" / "decoder.safetensors")
    config = DenoiserConfig(width=32, multipliers=(1, 2), residual_blocks=1, attention_levels=(1,), stride=(1, 2, 2))
    denoiser, estimator = Denoiser(config, 3), GradientEstimator(config, 3, 16)
    networks = torch.nn.ModuleDict({"denoiser": denoiser, "gradient_estimator": estimator}).eval()
    expected = networks.state_dict()
    ours = {str(decoder_name(name)): value for name, value in published.items()}
    networks.load_state_dict({name: value.reshape(expected[name].shape) for name, value in ours.items()}, strict=True)
    return denoiser, estimator


@pytest.fixture
def oblique_affine() -> np.ndarray:
    """Anisotropic, rotated about two axes, flipped in x, off-centre."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("ZX", [0.3, -0.2]).as_matrix() @ np.diag([-1.5, 2.0, 3.0])
    affine[:3, 3] = [30.0, -40.0, -20.0]
    return affine


@pytest.fixture
def tiny_config() -> AutoencoderConfig:
    """Every part of the method, as small as it goes."""
    return TINY


@pytest.fixture
def tiny_model(tiny_config: AutoencoderConfig) -> LatentDiffusionAutoencoder:
    """Random weights in fp32 on the CPU."""
    return make_tiny_model(tiny_config)


DicomMaker = Callable[..., list[Path]]


@pytest.fixture
def make_dicom(blob: Volume) -> DicomMaker:
    """Writes a volume, or the blob, as the files of an MR series, with pydicom alone; their names do not tell the order."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def make(
        folder: Path, volume: Volume = blob, *, syntax: str = ExplicitVRLittleEndian, slopes=(1.0,), **elements
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
        x, y, z = volume.spacing
        base = pydicom.Dataset()
        base.SOPClassUID, base.Modality = "1.2.840.10008.5.1.4.1.1.4", "MR"
        base.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        base.PatientID, base.PatientName, base.PatientSex, base.PatientBirthDate = "P-17", "Doe^Jane", "F", "19500301"
        base.StudyDate, base.StudyTime = "20200301", "101500"
        base.StudyInstanceUID, base.SeriesInstanceUID, base.FrameOfReferenceUID = (generate_uid() for _ in range(3))
        base.SeriesNumber, base.SeriesDescription, base.MRAcquisitionType = 3, "Sag MPRAGE", "3D"
        base.ScanningSequence, base.EchoTime, base.RepetitionTime, base.InversionTime = ["GR", "IR"], 2.98, 2300, 900
        base.SamplesPerPixel, base.PhotometricInterpretation = 1, "MONOCHROME2"
        base.BitsAllocated, base.BitsStored, base.HighBit, base.PixelRepresentation = 16, 16, 15, 0
        base.Columns, base.Rows = volume.data.shape[:2]
        base.PixelSpacing, base.SliceThickness = [f"{y:.8g}", f"{x:.8g}"], f"{z:.8g}"
        base.ImageOrientationPatient = [f"{v:.10f}" for v in (lps[:3, :2] / [x, y]).T.ravel()]
        paths = []
        for i in range(volume.data.shape[2]):
            image, slope = pydicom.Dataset(), slopes[i % len(slopes)]
            image.update(base)
            image.SOPInstanceUID = generate_uid()
            image.InstanceNumber = i + 1
            image.ImagePositionPatient = [f"{v:.8f}" for v in lps[:3, 3] + i * lps[:3, 2]]
            image.RescaleSlope, image.RescaleIntercept = slope, -5
            for keyword, value in elements.items():
                setattr(image, keyword, value(i) if callable(value) else value)
            image.file_meta = pydicom.dataset.FileMetaDataset()
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            stored = np.rint((volume.data[:, :, i].T + 5) / slope).astype("<u2")
            image.PixelData = np.ascontiguousarray(stored).tobytes()
            if syntax != ExplicitVRLittleEndian:
                image.compress(syntax, generate_instance_uid=False)
            # 7 and any smaller number have no common divisor, so that the names come in another order than the places.
            paths.append(folder / f"{(i * 7) % 101:03d} é.dcm")
            pydicom.dcmwrite(paths[-1], image, enforce_file_format=True)
        return paths

    return make


@pytest.fixture
def blob(oblique_affine: np.ndarray) -> Volume:
    """Whole numbers, with one bright corner, on an oblique anisotropic grid of 9 x 11 x 12 voxels."""
    rng = np.random.default_rng(5)
    data = rng.integers(0, 200, (9, 11, 12)).astype(np.float32)
    data[6:8, 2:4, 8:11] += 700
    return Volume(data, oblique_affine)


@dataclass(frozen=True)
class MadeScan:
    """A raw head and what preprocessing would have made of it, with the transform between them known.

    Attributes:
        raw: the head with its skull, uint8 with a slope, on an oblique anisotropic grid.
        preprocessed: the brain in template space, with a side-car beside it.
        to_template: RAS mm of the raw scan to RAS mm of the template.
    """

    raw: Path
    preprocessed: Path
    to_template: np.ndarray


@pytest.fixture(scope="session")
def made_scan() -> Callable[..., MadeScan]:
    """Writes such a pair to a folder; both sample one function of template space, so that neither is interpolated."""

    def intensities(world: np.ndarray, skull: bool, thickening: float) -> np.ndarray:
        """Texture inside an ellipsoid about the middle of the template's brain, and a shell around it."""
        x, y, z = world - np.array([0.0, -17.0, 5.0]).reshape(3, *[1] * (world.ndim - 1))
        radius = np.sqrt((x / 62) ** 2 + (y / 75) ** 2 + (z / 57) ** 2)
        texture = 1000 + 200 * np.sin(x / 9 + thickening) * np.cos(y / 11) + 150 * np.sin(z / 8)
        shell = np.where((radius > 1.12) & (radius < 1.25), 1800.0, 0.0) if skull else 0.0
        return np.where(radius < 1, texture, shell)

    def make(
        folder: Path,
        name: str = "sub-1_ses-1",
        *,
        turn: tuple[float, float, float] = (0.2, -0.15, 0.3),
        spacing: tuple[float, float, float] = (-4.0, 5.0, 6.0),
        scale: float = 1.06,
        bias: float = 0.0,
        thickening: float = 0.0,
    ) -> MadeScan:
        centre = np.array([0.0, -17.0, 5.0])
        to_template = np.eye(4)
        to_template[:3, :3] = scale * Rotation.from_euler("xyz", [0.1, -0.05, 0.08]).as_matrix()
        to_template[:3, 3] = [3.0, -8.0, 12.0]
        shape = tuple(int(n) for n in np.ceil(210 / np.abs(spacing)))
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix() @ np.diag(spacing)
        middle = np.linalg.inv(to_template) @ [*centre, 1.0]
        affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        native = Grid(shape, affine)
        carried = Grid(shape, to_template @ affine)
        field = np.exp(bias * (native.world_coordinates()[0] - middle[0]) / 80)
        stored = np.clip(intensities(carried.world_coordinates(), True, thickening) * field / 12.5, 0, 255)
        image = nibabel.Nifti1Image(np.round(stored).astype(np.uint8), affine)
        image.header.set_slope_inter(12.5, 0)
        image.header["descrip"] = b"Jane Doe"
        raw = folder / "raw" / f"{name}_T1w.nii.gz"
        raw.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(image, raw)
        template = Grid.centred((36, 44, 34), 5.0, tuple(centre))
        preprocessed = folder / "derived" / f"{name}_space-MNI152_desc-preproc_T1w.nii.gz"
        values = intensities(template.world_coordinates(), False, thickening)
        write_volume(Volume(values.astype(np.float32), template.affine), preprocessed)
        facts = {"AffineNativeToTemplate": to_template.tolist(), "NativeGrid": native.to_dict(), "Sources": [str(raw)]}
        write_json(sidecar_path(preprocessed), facts | {"Fingerprint": {"SourceSha256": sha256_of(raw)}})
        return MadeScan(raw, preprocessed, to_template)

    return make
