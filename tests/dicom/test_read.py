"""Reading DICOM series: geometry, rescaling, compression, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ldae.dicom import headers
from ldae.dicom.headers import read_folder
from ldae.dicom.read import convert_series
from ldae.errors import DependencyError, VolumeError
from ldae.volume import Volume
from tests.dicom_series import assert_same, only_series, read_only

pydicom = pytest.importorskip("pydicom")


def bright_place(volume: Volume) -> np.ndarray:
    """World position of the bright corner's middle, mm."""
    index = np.argwhere(volume.data > 600).mean(axis=0)
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 4)] * 3),
    mirrored=st.booleans(),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
)
def test_any_grid_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, make_dicom: Callable, blob: Volume, angles, spacing, mirrored, origin
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * np.asarray(spacing)
    affine[:3, 2] *= -1 if mirrored else 1
    affine[:3, 3] = origin
    folder = tmp_path_factory.mktemp("series")
    make_dicom(folder, Volume(blob.data, affine))
    volume = read_only(folder)
    np.testing.assert_allclose(bright_place(volume), bright_place(Volume(blob.data, affine)), atol=1e-3)


def test_slopes_may_change_from_file_to_file(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    # The first file's slope is 1: what follows must not be cut to whole numbers.
    make_dicom(tmp_path, slopes=(1.0, 0.37, 0.021))
    volume = read_only(tmp_path)
    assert_same(volume, blob, tolerance=0.37 / 2 + 1e-3)
    assert (volume.data % 1 != 0).any()


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_losslessly_compressed_series_are_decoded(
    tmp_path: Path, make_dicom: Callable, blob: Volume, compressor: str
) -> None:
    import SimpleITK as sitk

    for path in make_dicom(tmp_path / "series"):
        image = pydicom.dcmread(path)
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "one.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(image.pixel_array))
        encoded = pydicom.dcmread(tmp_path / "one.dcm")
        image.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
        image["PixelData"] = encoded["PixelData"]
        pydicom.dcmwrite(path, image, enforce_file_format=True)
    assert image.file_meta.TransferSyntaxUID.is_compressed
    assert_same(read_only(tmp_path / "series"), blob)


def test_run_length_encoded_files_without_a_preamble_are_read(
    tmp_path: Path, make_dicom: Callable, blob: Volume
) -> None:
    for path in make_dicom(tmp_path, syntax=pydicom.uid.RLELossless):
        path.write_bytes(path.read_bytes()[132:])
    assert_same(read_only(tmp_path), blob)


def test_positions_may_be_rounded(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    def rounded(i: int) -> list[str]:
        lps = np.diag([-1.0, -1.0, 1.0]) @ (blob.affine[:3, 3] + i * blob.affine[:3, 2])
        return [f"{value:.2f}" for value in lps]

    make_dicom(tmp_path, ImagePositionPatient=rounded)
    np.testing.assert_allclose(bright_place(read_only(tmp_path)), bright_place(blob), atol=0.02)


def test_exact_copies_are_left_out_and_a_missing_slice_is_a_gap(
    tmp_path: Path, make_dicom: Callable, blob: Volume
) -> None:
    paths = make_dicom(tmp_path / "a")
    (tmp_path / "copy").write_bytes(paths[0].read_bytes())
    series = only_series(tmp_path)
    assert series.repeated == 1
    assert_same(convert_series(series).volume, blob)
    paths[5].unlink()
    with pytest.raises(VolumeError, match=r"uneven positions: 6\.00 mm .* elsewhere 3\.00 mm .* slices are missing"):
        read_only(tmp_path)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        (
            {"ImagePositionPatient": lambda i: [0, 0, i // 2]},
            "duplicate positions: several of its 12 images at one place",
        ),
        ({"ImageOrientationPatient": lambda i: [1, 0, 0, 0, i < 6, i >= 6]}, "dcm2niix makes 2 volumes of it"),
        ({"EchoTime": lambda i: 2.0 + i % 2}, "dcm2niix makes 2 volumes of it"),
        ({"PixelSpacing": lambda i: [1, 1] if i < 6 else [2, 2]}, "mixed sizes: its images have several voxel sizes"),
        ({"PixelSpacing": [0, 1]}, "not all of its 12 images state their position and pixel spacing"),
        ({"PixelSpacing": None}, "not all of its 12 images state"),
        ({"ImagePositionPatient": [1, 2]}, "not all of its 12 images state"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "dcm2niix makes no 3D volume of it"),
        ({"ImageOrientationPatient": None}, "dcm2niix places images .* from where their headers do"),
        (
            {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": lambda i: [i, 0, 3 * i]},
            "dcm2niix places images 7.3 voxels from where their headers do",
        ),
    ],
)
def test_planes_that_make_no_volume_are_refused(
    tmp_path: Path, make_dicom: Callable, elements: dict, expected: str
) -> None:
    make_dicom(tmp_path, **elements)
    with pytest.raises(VolumeError, match=expected):
        read_only(tmp_path)


def test_sizes_that_differ_are_refused(tmp_path: Path, make_dicom: Callable, blob: Volume) -> None:
    uid = pydicom.uid.generate_uid()
    make_dicom(tmp_path / "a", SeriesInstanceUID=uid)
    make_dicom(tmp_path / "b", Volume(blob.data[:7], blob.affine), SeriesInstanceUID=uid)
    with pytest.raises(VolumeError, match="mixed sizes: its images have several voxel sizes or numbers of voxels"):
        read_only(tmp_path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"], ids=["plain", "RLE"])
def test_truncated_pixels_are_refused(tmp_path: Path, make_dicom: Callable, syntax: str, caplog) -> None:
    cut = make_dicom(tmp_path, syntax=syntax)[3]
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(VolumeError, match="files are truncated"):
        read_only(tmp_path)
    assert f"File not large enough to store image data: {cut}" in caplog.text


@pytest.mark.parametrize("size", [133, 150, 400, 700])
def test_truncated_headers_are_named(tmp_path: Path, make_dicom: Callable, size: int) -> None:
    cut = make_dicom(tmp_path)[3]
    cut.write_bytes(cut.read_bytes()[:size])
    scan = read_folder(tmp_path)
    assert set(scan.unreadable) == {cut.name}


def test_other_files_are_told_apart(tmp_path: Path, make_dicom: Callable) -> None:
    make_dicom(tmp_path / "deep" / "scan")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "empty.dcm").write_bytes(b"")
    report = pydicom.Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3", "SR"
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID, report.file_meta.MediaStorageSOPInstanceUID = report.SOPClassUID, "1.2.3"
    pydicom.dcmwrite(tmp_path / "report.dcm", report, enforce_file_format=True)
    scan = read_folder(tmp_path)
    other = dict.fromkeys(("notes.txt", "empty.dcm"), "not a DICOM file")
    assert scan.other == other | {"report.dcm": "DICOM without an image"}
    assert [len(series.planes) for series in scan.series] == [12]
    assert not scan.unreadable


def test_a_length_beyond_the_end_of_the_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    with headers._BoundedFile(path.open("rb", buffering=0)) as file:
        assert (file.read(2), file.read(1 << 60), file.read()) == (b"ab", b"cdef", b"")


def test_a_file_that_cannot_be_opened_is_named(
    tmp_path: Path, make_dicom: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = make_dicom(tmp_path)[4]
    plain_open = Path.open

    def refusing_open(self: Path, *arguments: object, **options: object) -> object:
        if self == locked:
            raise PermissionError(13, "Permission denied")
        return plain_open(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing_open)
    scan = read_folder(tmp_path)
    assert scan.unreadable == {locked.name: "cannot be opened (Permission denied); check its permissions"}
    assert len(scan.series) == 1


@pytest.mark.parametrize("package", ["pydicom", "dcm2niix"])
def test_without_a_package_the_extra_is_named(
    tmp_path: Path, make_dicom: Callable, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    make_dicom(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(DependencyError, match=rf"{package}, .* pip install 'ldae\[dicom\]'"):
        read_only(tmp_path)


def enhanced(path: Path, files: list[Path], numbered: bool = True) -> None:
    """One file of a series' images as frames, in an order that is not that of their places."""

    def moved(image: "pydicom.Dataset", *keywords: str) -> list["pydicom.Dataset"]:
        """A sequence of one item that takes some elements of an image."""
        item = pydicom.Dataset()
        for keyword in keywords:
            item[keyword] = image[keyword]
            del image[keyword]
        return [item]

    images = [pydicom.dcmread(file) for file in files]
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    data, shared = images[0], pydicom.Dataset()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    data.NumberOfFrames, data.PixelData = len(images), b"".join(images[i].PixelData for i in order)
    shared.PlaneOrientationSequence = moved(data, "ImageOrientationPatient")
    shared.PixelMeasuresSequence = moved(data, "PixelSpacing", "SliceThickness")
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i in order:
        frame, content = pydicom.Dataset(), pydicom.Dataset()
        frame.PlanePositionSequence = moved(images[i], "ImagePositionPatient")
        frame.PixelValueTransformationSequence = moved(images[i], "RescaleSlope", "RescaleIntercept")
        if numbered:
            content.StackID, content.InStackPositionNumber = "1", i + 1
            content.DimensionIndexValues = [1, i + 1]
            frame.FrameContentSequence = [content]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    if numbered:
        pointers = [pydicom.Dataset(), pydicom.Dataset()]
        for pointer, keyword in zip(pointers, ("StackID", "InStackPositionNumber"), strict=True):
            pointer.DimensionIndexPointer = pydicom.datadict.tag_for_keyword(keyword)
            pointer.FunctionalGroupPointer = pydicom.datadict.tag_for_keyword("FrameContentSequence")
        data.DimensionIndexSequence = pointers
    pydicom.dcmwrite(path, data, enforce_file_format=True)


@pytest.mark.parametrize("slopes", [(1.0,), (0.5,), (1.0, 0.5, 0.25)])
def test_frames_of_enhanced_images_are_sorted_and_scaled(
    tmp_path: Path, make_dicom: Callable, blob: Volume, slopes: tuple
) -> None:
    files = make_dicom(tmp_path / "files", slopes=slopes)
    for name, numbered in (("numbered", True), ("not", False)):
        (tmp_path / name).mkdir()
        enhanced(tmp_path / name / "all.dcm", files, numbered)
    assert_same(read_only(tmp_path / "numbered"), blob)
    with pytest.raises(VolumeError, match="frames are not numbered"):  # dcm2niix would misplace them
        read_only(tmp_path / "not")


def test_a_real_slab(shared: Path) -> None:
    slab = shared / "data" / "dicom_slab"
    volume = read_only(slab)
    assert volume.data.shape == (88, 128, 17)
    expected = np.diag([2.0, 2.0, 2.0, 1.0])
    expected[:3, 3] = [-82.1807, -122.163, -24.707]
    np.testing.assert_allclose(volume.to_ras().affine, expected, atol=1e-4)
    planes = sorted(slab.glob("*.dcm"))
    np.testing.assert_array_equal(volume.to_ras().data[:, :, 4], pydicom.dcmread(planes[4]).pixel_array.T)
