"""The way back to the raw scan: nothing is nothing, outside the brain nothing changes, and what changes lands in its place."""

import json

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ldae.base.files import write_json
from ldae.errors import TaskError
from ldae.tasks.native.scan import FEATHER_MM, NativeScan
from ldae.volume import Grid, Volume, read_volume, sidecar_path, write_volume

# A grid of template space that is none of the preprocessed scan's.
MODEL_GRID = Grid.centred((24, 28, 22), 7.0, (1.0, -16.0, 5.0))


def blob(centre, width_mm, grid=MODEL_GRID):
    """A Gaussian of height 100 in template space."""
    offset = grid.world_coordinates() - np.reshape(centre, (3, 1, 1, 1))
    return Volume(100 * np.exp(-np.square(offset).sum(axis=0) / (2 * width_mm**2)), grid.affine)


def noise(seed, grid=MODEL_GRID):
    return Volume(np.random.default_rng(seed).normal(0, 50, grid.shape), grid.affine)


def in_brain(native):
    """Where a change may be, on the raw scan's grid."""
    mask = np.zeros(native.scan.volume.data.shape, bool)
    mask[native.box] = native.fade > 0
    return mask


@pytest.fixture
def made(made_scan, tmp_path):
    return made_scan(tmp_path, bias=0.6)


@pytest.fixture
def native(made):
    return NativeScan.of(made.preprocessed)


def test_a_difference_of_nothing_is_the_raw_scan_and_outside_the_brain_nothing_changes(native, made):
    nothing = Volume(np.zeros(MODEL_GRID.shape), MODEL_GRID.affine)
    np.testing.assert_array_equal(native.add(nothing).data, read_volume(made.raw).data)
    assert native.add(nothing).grid == read_volume(made.raw).grid
    raw, brain = read_volume(made.raw).data, in_brain(native)
    changed = native.add(noise(0)).data
    np.testing.assert_array_equal(changed[~brain], raw[~brain])
    assert (changed[brain] != raw[brain]).mean() > 0.9
    sampled = Grid(raw.shape, made.to_template @ native.scan.volume.affine).world_coordinates()
    radius = np.linalg.norm((sampled - [[[[0]]], [[[-17]]], [[[5]]]]) / [[[[62]]], [[[75]]], [[[57]]]], axis=0)
    assert (radius[brain] < 1.05).all(), "the mask is the brain's"
    assert brain[radius < 0.95].all()


@settings(max_examples=12)
@given(
    turn=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(2.5, 7.0)] * 3),
    flip=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    scale=st.floats(0.85, 1.2),
    place=st.tuples(*[st.floats(-14.0, 14.0)] * 3),
)
def test_a_change_lands_where_the_affine_says(made_scan, tmp_path_factory, turn, spacing, flip, scale, place):
    signed = tuple(np.multiply(spacing, flip))
    made = made_scan(tmp_path_factory.mktemp("scan"), turn=turn, spacing=signed, scale=scale)
    native = NativeScan.of(made.preprocessed)
    centre = np.add([0.0, -17.0, 5.0], place)
    change = native.change(blob(centre, 11.0))
    to_voxel = np.linalg.inv(made.to_template @ change.affine)
    expected = (to_voxel @ [*centre, 1.0])[:3]
    # Where the feather begins the blob is almost over.
    near = np.where(change.data > 2, change.data, 0.0)
    assert np.linalg.norm(ndimage.center_of_mass(near) - expected) < 0.1


@given(a=st.floats(-3, 3), b=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_the_change_is_linear_in_the_difference(made_scan, tmp_path_factory, a, b, seed):
    native = NativeScan.of(made_scan(tmp_path_factory.mktemp("scan")).preprocessed)
    first, second = noise(seed), noise(seed + 100)
    both = Volume(a * first.data + b * second.data, MODEL_GRID.affine)
    apart = a * native.change(first).data + b * native.change(second).data
    np.testing.assert_allclose(native.change(both).data, apart, atol=2e-2)


def test_an_unchanged_scan_comes_back_where_it_was(native):
    """Native to template at 2 mm and back: the error is that of two interpolations, and there is no shift."""
    raw = native.scan.volume
    carried = Volume(raw.data, native.source.to_template @ raw.affine)
    there = carried.resample_to(Grid.centred((90, 110, 85), 2.0, (0.0, -17.0, 5.0)), order=3)
    # Away from the brain's edge, where the made head is a step that no interpolation can follow.
    deep = ndimage.binary_erosion(native.fade == 1, iterations=2)
    back = native.source._carry(there, native.window, order=3)
    start = raw.data[native.box]
    error = np.sqrt(np.square(back - start)[deep].mean())
    assert error < 0.02 * start[deep].mean()
    # The least-squares translation between the two, in voxels.
    gradient = np.stack([each[deep] for each in np.gradient(start)])
    shift = np.linalg.solve(gradient @ gradient.T, gradient @ (back - start)[deep])
    assert np.linalg.norm(shift) < 0.1
    middles = [ndimage.center_of_mass(np.where(deep, image, 0)) for image in (start, back)]
    assert np.linalg.norm(np.subtract(*middles)) < 0.1


def test_changes_follow_the_raw_scans_bias_field(native):
    """One difference in two places is as large, in each, as the raw scan is brighter there than the corrected one."""
    x = Grid(native.window.shape, native.window.affine).world_coordinates()[0]
    deep = native.fade == 1
    for side in (x < x[deep].mean() - 25, x > x[deep].mean() + 25):
        part = deep & side
        true = np.exp(0.6 * (x[part] - _middle(native)[0]) / 80)
        assert native.gain[part].mean() == pytest.approx(true.mean(), rel=0.025)
    even = Volume(np.full(MODEL_GRID.shape, 10.0), MODEL_GRID.affine)
    np.testing.assert_allclose(native.change(even).data[native.box][deep], 10 * native.gain[deep], rtol=1e-3)


def _middle(native):
    return np.linalg.inv(native.source.to_template) @ [0.0, -17.0, 5.0, 1.0]


def test_the_edge_has_no_rim(made_scan, tmp_path):
    native = NativeScan.of(made_scan(tmp_path, spacing=(1.5, 2.0, -2.5), turn=(0.1, 0.0, 0.0)).preprocessed)
    depth = ndimage.distance_transform_edt(native.fade > 0, sampling=native.window.spacing)
    np.testing.assert_allclose(native.fade, np.clip(depth / FEATHER_MM, 0, 1), atol=1e-6)
    outermost = (depth > 0) & (depth <= 1.6)
    assert 0.4 < native.fade[outermost].mean() < 0.7


def test_the_native_mask_counts_where_there_is_one(native, made):
    brain = in_brain(native)
    half = brain.copy()
    half[: brain.shape[0] // 2] = False
    write_volume(Volume(half.astype(np.float32), native.scan.volume.affine), made.preprocessed.parent / "mask.nii.gz")
    break_sidecar(NativeBrainMask="mask.nii.gz", Sources=[f"../raw/{made.raw.name}"])(made)
    masked = NativeScan.of(made.preprocessed)
    np.testing.assert_array_equal(in_brain(masked), half)
    assert masked.source.raw.samefile(made.raw), "the raw scan may be named from the side-car's folder"


def test_a_replacement_shows_the_image_in_the_raw_scans_intensities(native, made):
    prepared = read_volume(made.preprocessed)
    change = native.replacement(prepared, prepared.data > 0)
    brain, deep = in_brain(native), native.fade == 1
    assert not change.data[~brain].any()
    shown, raw = native.scan.changed(change).data[native.box], native.scan.volume.data[native.box]
    # The preprocessed scan is the raw one, sampled elsewhere and without its bias field.
    assert np.abs(shown - raw)[deep].mean() < 0.06 * raw[deep].mean()
    doubled = native.replacement(Volume(2 * prepared.data, prepared.affine), prepared.data > 0)
    double = native.scan.changed(doubled).data[native.box]
    np.testing.assert_allclose(double[deep], 2 * shown[deep], rtol=1e-3, atol=1)


def test_a_normalised_scan_leads_to_the_same_change(native, made):
    """What was scaled to its window in preprocessing is scaled back."""
    prepared, low, high = read_volume(made.preprocessed), 600.0, 1400.0
    scaled = np.where(prepared.data > 0, (prepared.data - low) / (high - low), 0.0)
    write_volume(Volume(scaled, prepared.affine), made.preprocessed)
    break_sidecar(Fingerprint={"Config": {"normalise": True}}, IntensityWindow=[low, high])(made)
    normalised = NativeScan.of(made.preprocessed)
    np.testing.assert_allclose(normalised.gain, native.gain, rtol=5e-3)
    small = Volume(noise(0).data / (high - low), MODEL_GRID.affine)
    np.testing.assert_allclose(normalised.change(small).data, native.change(noise(0)).data, atol=1)
    brain = prepared.data > 0
    shown = [normalised.replacement(read_volume(made.preprocessed), brain), native.replacement(prepared, brain)]
    np.testing.assert_allclose(shown[0].data, shown[1].data, atol=2)


def break_sidecar(*dropped, **changes):
    def change(made):
        path = sidecar_path(made.preprocessed)
        plain = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in plain.items() if key not in dropped}))

    return change


def small_mask(made):
    write_volume(Volume(np.ones((3, 3, 3)), np.eye(4)), made.preprocessed.parent / "m.nii.gz")
    break_sidecar(NativeBrainMask="m.nii.gz")(made)


def other_grid(made):
    image = nibabel.load(made.raw)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), 1.1 * image.affine), made.raw)
    break_sidecar("Fingerprint")(made)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda made: sidecar_path(made.preprocessed).unlink(), "way back to the raw scan is unknown"),
        (lambda made: sidecar_path(made.preprocessed).write_text("{"), "no valid JSON"),
        (lambda made: sidecar_path(made.preprocessed).write_text("[1]"), "no 'AffineNativeToTemplate'"),
        (break_sidecar("NativeGrid"), "no 'NativeGrid'"),
        (break_sidecar("Sources"), "no 'Sources'"),
        (break_sidecar(Sources=[]), "tells no way back"),
        (break_sidecar(Fingerprint={"Config": {"normalise": True}}), "no 'IntensityWindow'"),
        (break_sidecar(AffineNativeToTemplate=np.zeros((4, 4)).tolist()), "invertible"),
        (break_sidecar(AffineNativeToTemplate="a"), "tells no way back"),
        (break_sidecar(AffineNativeToTemplate=(np.eye(4) + 1e4 * np.eye(4, k=3)).tolist()), "no brain lies where"),
        (lambda made: made.raw.unlink(), "is not there; put it back"),
        (lambda made: made.raw.write_bytes(b"other"), "has changed since"),
        (small_mask, "mask is not on the grid"),
        (other_grid, "lies on another grid"),
    ],
)
def test_no_way_back_is_told_with_the_remedy(made, damage, words):
    damage(made)
    with pytest.raises(TaskError, match=words) as error:
        NativeScan.of(made.preprocessed)
    assert "--space template" in str(error.value)


def test_round_trip_of_a_real_head(shared, made, tmp_path):
    """The figure that the documentation states, on a head at 2 mm with a transform like that of its preprocessing."""
    path = shared / "data" / "ixi" / "t1w" / "IXI012-HH-1211-T1_ds.nii.gz"
    raw = read_volume(path)
    to_template = np.array(
        [[1.037, -0.004, 0.003, -2.9], [-0.025, 0.880, 0.464, -7.0], [0.015, -0.448, 1.098, -13.9], [0, 0, 0, 1.0]]
    )
    grid = Grid.centred((128, 160, 128), 1.5, (0.0, -17.0, 5.0))
    there = Volume(raw.data, to_template @ raw.affine).resample_to(grid, order=3)
    radius = np.linalg.norm(
        (grid.world_coordinates() - [[[[0]]], [[[-17]]], [[[5]]]]) / [[[[62]]], [[[80]]], [[[62]]]], axis=0
    )
    preprocessed = tmp_path / "x_space-MNI152_desc-preproc_T1w.nii.gz"
    write_volume(Volume(np.where(radius < 1, np.maximum(there.data, 1), 0), grid.affine), preprocessed)
    facts = {"AffineNativeToTemplate": to_template.tolist(), "NativeGrid": raw.grid.to_dict(), "Sources": [str(path)]}
    write_json(sidecar_path(preprocessed), facts)
    native = NativeScan.of(preprocessed)
    brain, start = native.fade > 0, raw.data[native.box]
    back = native.source._carry(there, native.window, order=3)
    peak = np.percentile(start[brain], 99.5)
    psnr = -10 * np.log10(np.square((back - start)[brain] / peak).mean())
    assert psnr > 40
    middles = [ndimage.center_of_mass(np.where(brain, image, 0)) for image in (start, back)]
    assert np.linalg.norm(np.subtract(*middles)) < 0.01


def test_a_deformation_moves_what_lies_deep_in_the_brain_and_nothing_outside(native):
    nothing = np.zeros((*MODEL_GRID.shape, 3), np.float32)
    assert not native.deformation(nothing, MODEL_GRID.affine).data.any()
    moved_mm = np.array([3.0, -2.0, 1.0], np.float32)
    change = native.deformation(nothing + moved_mm, MODEL_GRID.affine).data
    raw, brain = native.scan.volume.data, in_brain(native)
    assert not change[~brain].any()
    # What is seen deep in the brain is what the raw scan holds that far away.
    deep = np.zeros(raw.shape, bool)
    deep[native.box] = ndimage.binary_erosion(native.fade == 1, iterations=2)
    there = np.linalg.solve(native.source.to_template[:3, :3] @ native.scan.volume.affine[:3, :3], moved_mm)
    seen = ndimage.map_coordinates(raw, np.indices(raw.shape) + there.reshape(3, 1, 1, 1), order=3, mode="nearest")
    np.testing.assert_allclose((raw + change)[deep], seen[deep], atol=0.02 * raw[deep].mean())
    assert np.abs(change[deep]).max() > 0
