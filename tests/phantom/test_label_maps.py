"""Label maps as anatomy, on small maps made from the template and on real ones where they are at hand."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from ldae.atlas import load_template
from ldae.data.manifest import read_manifest
from ldae.errors import CohortError
from ldae.phantom import scan as phantom_scan
from ldae.phantom.anatomy import combination
from ldae.phantom.anatomy.label_maps import LabelSource, label_anatomy, label_files, place_label_map, read_label_map
from ldae.phantom.anatomy.label_surroundings import LabelHead
from ldae.phantom.anatomy.surroundings import HeadTissue
from ldae.phantom.cohort import PhantomConfig, draw_cohort, synthesise_cohort
from ldae.phantom.pose import RawConfig
from ldae.volume import Volume, read_volume
from tests.phantom.folder_bytes import bytes_of

# Where the small map's head lies against the template: a little smaller, tilted and elsewhere.
TILT = np.deg2rad(8.0)
MAP_TO_TEMPLATE = np.array(
    [
        [1.05, 0.0, 0.0, -6.0],
        [0.0, 1.04 * np.cos(TILT), -1.04 * np.sin(TILT), 12.0],
        [0.0, 1.06 * np.sin(TILT), 1.06 * np.cos(TILT), -9.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def small_map(*, head: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The template's tissue as labels at 2 mm, and their affine."""
    template = load_template(2.0)
    width = 12
    grey, white, csf = (np.pad(m.data, width) for m in (template.grey_matter, template.white_matter, template.csf))
    shape = grey.shape
    affine = template.grid.affine.copy()
    affine[:3, 3] -= 2.0 * width
    left = (affine[0, 0] * np.arange(shape[0]) + affine[0, 3] < 0)[:, None, None]
    brain = grey + white + csf > 0.5
    labels = np.zeros(shape, dtype=np.int16)
    if head:
        distance = ndimage.distance_transform_edt(~brain, sampling=2.0)
        for limit, number in ((16, 511), (14, 507), (8, 515), (2.5, 24)):
            labels[distance < limit] = number
    winner = np.argmax([grey, white, csf], axis=0)
    for i, (on_left, on_right) in enumerate(((3, 42), (2, 41), (24, 24))):
        labels[brain & (winner == i)] = on_left
        labels[brain & (winner == i) & ~left] = on_right
    for structure, number in (("ventricles", (4, 43)), ("hippocampus_left", (17, 17)), ("hippocampus_right", (53, 53))):
        mask = np.pad(getattr(template, structure).data, width) > 0.5
        labels[mask & left], labels[mask & ~left] = number
    return labels, np.linalg.inv(MAP_TO_TEMPLATE) @ affine


def write_map(path: Path, labels: np.ndarray, affine: np.ndarray, *, dtype: type = np.float32) -> None:
    """As segmentations come: LIA, and sometimes as floating-point numbers."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LIA"))
    data = apply_orientation(labels, turn).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(data, affine @ inv_ornt_aff(turn, labels.shape)), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    labels, affine = small_map()
    write_map(folder / "one.nii.gz", labels, affine)
    (folder / "priors.npy").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def source(folder) -> LabelSource:
    return place_label_map(str(folder / "one.nii.gz"), "content")


def test_a_map_finds_its_place(source):
    points = np.array([[x, y, z, 1.0] for x in (-60, 60) for y in (-90, 60) for z in (-40, 65)]).T
    there_and_back = source.matrix @ np.linalg.inv(MAP_TO_TEMPLATE) @ points
    assert np.linalg.norm((there_and_back - points)[:3], axis=0).max() < 3.0


def test_a_map_becomes_a_brain_on_the_templates_grid(source):
    ours, template = label_anatomy(source), load_template(1.0)
    assert ours.grid == template.grid
    for name in ("grey_matter", "white_matter", "brain_mask", "hippocampus_left", "hippocampus_right"):
        a, b = getattr(ours, name).data > 0.5, getattr(template, name).data > 0.5
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.8, name
    assert ours.ventricles.data.sum() == pytest.approx(template.ventricles.data.sum(), rel=0.15)
    total = ours.grey_matter.data + ours.white_matter.data + ours.csf.data
    np.testing.assert_allclose(total, ours.brain_mask.data, atol=1e-5)
    assert np.corrcoef(ours.t1.data.ravel(), template.t1.data.ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_a_mirrored_map_is_the_mirrored_brain(source):
    plain, mirrored = label_anatomy(source), label_anatomy(source.mirror())
    assert source.mirror().mirrored
    assert source.mirror().mirror() == source
    grid = load_template(4.0).grid
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    for name, other in (("grey_matter", "grey_matter"), ("hippocampus_left", "hippocampus_right")):
        expected = Volume(getattr(plain, other).data, flip @ plain.grid.affine).resample_to(grid).data
        found = getattr(mirrored, name).resample_to(grid).data
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99, name
    x = mirrored.hippocampus_left.grid.world_coordinates()[0]
    assert (x * mirrored.hippocampus_left.data).sum() < 0


def likeness(image):
    """Correlation with the template inside its brain, at 6 mm."""
    template = load_template(6.0)
    inside = template.brain_mask.data > 0.5
    return np.corrcoef(image[inside], template.t1.data[inside])[0, 1]


@pytest.mark.slow
def test_a_varied_cohort(folder, source, tmp_path, monkeypatch):
    (tmp_path / "maps").mkdir()
    for name in ("one.nii.gz", "two.nii.gz"):
        (tmp_path / "maps" / name).symlink_to(folder / "one.nii.gz")
    monkeypatch.setattr(phantom_scan, "place_label_map", lambda path, sha256: replace(source, path=path))
    monkeypatch.setattr(combination, "LEVELS", ((8.0, 2),))
    config = PhantomConfig(n_subjects=3, voxel_size_mm=6.0, max_sessions=1, anatomy=str(tmp_path / "maps")).varied()
    manifest = synthesise_cohort(tmp_path / "cohort", config)
    images = [read_volume(record.image).data for record in read_manifest(manifest).records]
    assert min(map(likeness, images)) > 0.3
    assert len({image.tobytes() for image in images}) == 3
    assert not list(manifest.parent.rglob("*.npy")), "warps are not part of a cohort"
    assert synthesise_cohort(tmp_path / "cohort", config) == manifest, "it is this very cohort"


def test_a_head_of_labels_has_layers(source):
    head = LabelHead(source, HeadTissue(fat=1.3))
    x = np.arange(-120.0, -60.0, 0.5, dtype=np.float32)
    signal = head.signal(np.stack([x, np.full_like(x, -15.0), np.full_like(x, 20.0)], axis=1))
    assert signal[0] == 0.0
    assert signal.max() > 0.8
    assert signal[signal.argmax() :].min() < 0.2
    points = head.points_mm(60.0)
    assert points[:, 2].min() > -72.0 - 60.0
    assert np.ptp(points[:, 1]) > 150.0


@pytest.mark.slow
def test_a_cohort_of_label_maps(folder, source, tmp_path, monkeypatch):
    monkeypatch.setattr(phantom_scan, "place_label_map", lambda path, sha256: source)
    config = PhantomConfig(n_subjects=2, voxel_size_mm=6.0, seed=4, max_sessions=1, anatomy=str(folder))
    manifest = synthesise_cohort(tmp_path / "brains", config)
    truth = pd.read_csv(manifest.parent / "phantom_truth.tsv", sep="\t")
    assert set(truth["label_map"]) == {"one.nii.gz"}
    assert (truth[["ventricles_ml", "hippocampus_left_ml", "gm_ml", "wm_ml"]] > 0).all(axis=None)
    for path in manifest.parent.glob("sub-*/ses-*/anat/*_T1w.nii.gz"):
        assert likeness(read_volume(path).data) > 0.4
    saved = json.loads((manifest.parent / "phantom_config.json").read_text())
    assert list(saved["anatomy"]) == ["one.nii.gz"]
    assert "CC0" not in (manifest.parent / "dataset_description.json").read_text()
    # The folder may move: its content counts.
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "one.nii.gz").write_bytes((folder / "one.nii.gz").read_bytes())
    again = PhantomConfig(n_subjects=2, voxel_size_mm=6.0, seed=4, max_sessions=1, anatomy=str(moved))
    assert synthesise_cohort(tmp_path / "brains", again) == manifest


@pytest.mark.slow
def test_raw_heads_of_label_maps_are_the_same_anywhere(folder, source, tmp_path, monkeypatch):
    monkeypatch.setattr(phantom_scan, "place_label_map", lambda path, sha256: source)
    config = PhantomConfig(
        n_subjects=1, voxel_size_mm=6.0, seed=4, max_sessions=1, anatomy=str(folder), raw=RawConfig()
    )
    synthesise_cohort(tmp_path / "here", config)
    # What a worker process does: it gets the source by pickle and has read nothing before.
    label_anatomy.cache_clear()
    subject = draw_cohort(config)[0]
    phantom_scan.scan_subject(tmp_path / "there", config, (subject, pickle.loads(pickle.dumps(source))))
    made = bytes_of(tmp_path / "there")
    assert len(made) == 4
    assert made.items() <= bytes_of(tmp_path / "here").items()


def test_unusable_folders_and_files_are_refused(tmp_path):
    with pytest.raises(CohortError, match="no folder"):
        label_files(tmp_path / "absent")
    with pytest.raises(CohortError, match="no label map"):
        label_files(tmp_path)
    (tmp_path / "bad.nii.gz").write_text("no image")
    with pytest.raises(CohortError, match="not a label map"):
        read_label_map(tmp_path / "bad.nii.gz")


@pytest.mark.parametrize(
    ("change", "scale", "message"),
    [
        (lambda d: d * 0.37, 1.0, "not FreeSurfer's numbers"),
        (lambda d: np.where(d == 17, 3, d), 1.0, "left hippocampus"),
        (lambda d: np.where(np.isin(d, (4, 43)), 24, d), 1.0, "left lateral ventricle, no right lateral ventricle"),
        (lambda d: (d > 0).astype(d.dtype), 1.0, "white matter"),
        (lambda d: -d, 1.0, "not FreeSurfer's numbers"),
        (lambda d: d, 2.0, "resample it"),
    ],
)
def test_maps_that_are_none_are_refused(change, scale, message, tmp_path):
    labels, affine = small_map()
    write_map(tmp_path / "bad.nii.gz", change(labels), affine @ np.diag([scale, scale, scale, 1.0]))
    with pytest.raises(CohortError, match=message):
        read_label_map(tmp_path / "bad.nii.gz")


def test_unknown_labels_are_named_and_parcels_are_known(tmp_path):
    labels, affine = small_map()
    labels[labels == 3] = 1028
    labels[labels == 42] = 2028
    labels[:2] = 399
    write_map(tmp_path / "parcels.nii.gz", labels, affine, dtype=np.int16)
    assert read_label_map(tmp_path / "parcels.nii.gz").unknown == (399,)


def test_a_brain_alone_is_no_head_to_scan(tmp_path):
    labels, affine = small_map(head=False)
    write_map(tmp_path / "brain.nii.gz", labels, affine)
    config = PhantomConfig(n_subjects=1, voxel_size_mm=6.0, anatomy=str(tmp_path), raw=RawConfig())
    with pytest.raises(CohortError, match="labels 5xx"):
        synthesise_cohort(tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_real_label_map(shared):
    path = shared / "data" / "labelmaps" / "training_seg_01.nii.gz"
    label_map = read_label_map(path)
    assert not label_map.unknown
    # Rough places are enough here: the brain's middle onto the template's.
    middle = np.argwhere(label_map.labels == 2).mean(axis=0) + np.argwhere(label_map.labels == 41).mean(axis=0)
    shift = np.array([0.0, -20.0, 12.0]) - (label_map.affine @ np.append(middle / 2, 1.0))[:3]
    affine = np.eye(4)
    affine[:3, 3] = shift
    source = LabelSource(str(path), "content", tuple(tuple(row) for row in affine.tolist()))
    anatomy = label_anatomy(source)
    voxel_ml = abs(np.linalg.det(label_map.affine[:3, :3])) / 1000.0
    for mask, numbers in ((anatomy.hippocampus_left, (17,)), (anatomy.ventricles, (4, 5, 43, 44))):
        expected = np.isin(label_map.labels, numbers).sum() * voxel_ml
        assert mask.data.sum() / 1000.0 == pytest.approx(expected, rel=0.2)
    assert 900 < anatomy.brain_mask.data.sum() / 1000.0 < 2200
