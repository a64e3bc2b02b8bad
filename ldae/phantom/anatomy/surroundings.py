"""Surroundings of the brain in a raw scan: fluid, meninges, skull, scalp, a face and a neck, in template space.

All shapes are signed distances in mm (negative inside), made once on a lattice: layers of any thickness follow from
them by a comparison, and they can be interpolated anywhere. The brain itself comes from `ldae.phantom.anatomy.tissue`.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ldae.atlas import load_template
from ldae.phantom.anatomy.lattice import Array, Table, smooth_noise

__all__ = ["AIR_SIGNAL", "BRAIN_BOTTOM_MM", "CEREBROSPINAL", "HeadTissue", "TemplateHead", "draw_head_tissue"]

Point = tuple[float, float, float]

LATTICE_MM = 2.0
BOX_MM = ((-108.0, -146.0, -236.0), (108.0, 134.0, 108.0))
BRAIN_BOTTOM_MM = -72.0
# How far the cavity of the skull bridges the folds of the brain's surface.
CAVITY_CLOSING_MM = 12.0
# Thickness of an edge in the image, mm: tissue turns into tissue over this distance.
EDGE_MM = 1.2
# The neck goes on to the shoulders, which no field of view reaches.
NECK_END_MM = -260.0

CAVITY, BODY, BONE, AIR, FLUID, CORD, COARSE, FINE = range(8)

# Brightness where pure white matter is about 0.88.
AIR_SIGNAL, CORTICAL_BONE, EYE, SKIN, MUSCLE, CEREBROSPINAL, CORD_SIGNAL = 0.02, 0.07, 0.22, 0.5, 0.5, 0.26, 0.78


@dataclass(frozen=True)
class HeadTissue:
    """Differences between heads besides the brain. Brightness is in units where pure white matter is about 0.88.

    Attributes:
        gap_mm: fluid between the brain and the skull, on average.
        skull_mm: thickness of the skull, on average.
        scalp_mm: thickness of the scalp, on average.
        neck_mm: how much wider face and neck are.
        fat: brightness of fat.
        marrow: brightness of the skull's marrow.
        dura: brightness of the meninges.
    """

    gap_mm: float = 2.0
    skull_mm: float = 6.5
    scalp_mm: float = 6.0
    neck_mm: float = 0.0
    fat: float = 1.2
    marrow: float = 0.55
    dura: float = 0.55


def draw_head_tissue(rng: np.random.Generator) -> HeadTissue:
    """Draw a head's layers."""
    ranges = ((1.2, 3.0), (5.0, 8.5), (3.5, 8.5), (-6.0, 8.0), (0.9, 1.5), (0.3, 0.8), (0.4, 0.7))
    return HeadTissue(*(float(rng.uniform(low, high)) for low, high in ranges))


@functools.lru_cache(maxsize=1)
def head_shapes() -> Table:
    """The shapes around the template's brain; near is where any tissue of any head can be.

    Channels: signed distances (mm) to the cavity of the skull, face and neck, bones of face and neck, air, eyes and spinal
    canal, and spinal cord; then noise of unit variance at 25 mm, and at 5 to 14 mm.
    """
    axes = [np.arange(a, b + 1, LATTICE_MM, dtype=np.float32) for a, b in zip(*BOX_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    space = _Space(x, y, z)
    rng = np.random.default_rng(0)  # one fixed texture: heads differ in how they use it
    shape = tuple(len(axis) for axis in axes)
    channels = [_cavity(axes), _body(space), _bone(space), _air(space), *_fluid_and_cord(space)]
    # Muscles and the fat between them run down the neck.
    channels += [smooth_noise(rng, shape, fwhm_mm, LATTICE_MM) for fwhm_mm in ((25.0, 25.0, 25.0), (5.0, 6.0, 14.0))]
    table = np.stack([np.broadcast_to(channel, shape) for channel in channels], axis=-1).astype(np.float32)
    widest = np.minimum(table[..., CAVITY] - 28.0, table[..., BODY] - 12.0)
    return Table(np.ascontiguousarray(table), np.array(BOX_MM[0], dtype=np.float32), LATTICE_MM, widest < 0)


def _cavity(axes: list[Array]) -> Array:
    """Signed distance to the brain's surface after its folds are bridged."""
    template = load_template(1.0)
    affine = template.grid.affine
    index = [
        np.clip(np.rint(axis - affine[i, 3]).astype(int), 0, n - 1)
        for i, (axis, n) in enumerate(zip(axes, template.grid.shape, strict=True))
    ]
    brain = template.brain_mask.data[np.ix_(*index)] > 0.5
    outside = ndimage.distance_transform_edt(~brain, sampling=LATTICE_MM)
    grown = outside < CAVITY_CLOSING_MM
    depth = ndimage.distance_transform_edt(grown, sampling=LATTICE_MM)
    closed = (depth > CAVITY_CLOSING_MM - 0.5 * LATTICE_MM) | brain
    distance = ndimage.distance_transform_edt(~closed, sampling=LATTICE_MM)
    distance -= ndimage.distance_transform_edt(closed, sampling=LATTICE_MM)
    return np.asarray(ndimage.gaussian_filter(distance, 1.5), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class _Space:
    """Coordinates (RAS mm, broadcastable to (X, Y, Z)) and the solids that can be placed there."""

    x: Array
    y: Array
    z: Array

    def ellipsoid(self, centre: Point, radii: Point) -> Array:
        u, v, w = ((c - c0) / r for c, c0, r in zip((self.x, self.y, self.z), centre, radii, strict=True))
        return np.asarray((np.sqrt(u * u + v * v + w * w) - 1) * min(radii), dtype=np.float32)

    def capsule(self, a: Point, b: Point, radius: float, end_radius: float | None = None) -> Array:
        """A rod from a to b, its radius changing evenly."""
        ab = np.subtract(b, a, dtype=np.float32)
        d = [c - a0 for c, a0 in zip((self.x, self.y, self.z), a, strict=True)]
        along = np.clip(sum(di * k for di, k in zip(d, ab, strict=True)) / float(ab @ ab), 0, 1)
        distance = np.sqrt(sum((di - along * k) ** 2 for di, k in zip(d, ab, strict=True)))
        wider = 0.0 if end_radius is None else (end_radius - radius) * along
        return np.asarray(distance - radius - wider, dtype=np.float32)

    def box(self, centre: Point, half: Point) -> Array:
        q = [np.abs(c - c0) - h for c, c0, h in zip((self.x, self.y, self.z), centre, half, strict=True)]
        return np.asarray(np.maximum(np.maximum(q[0], q[1]), q[2]), dtype=np.float32)

    @property
    def both(self) -> "_Space":
        """Where each solid is placed with its mirror image in x; points are given on the right."""
        return _Space(np.abs(self.x), self.y, self.z)


def _union(*solids: Array, rounding_mm: float = 0.0) -> Array:
    """The nearest of several solids, with fillets of about the given size where they meet."""
    total = solids[0]
    for solid in solids[1:]:
        nearer = np.minimum(total, solid)
        if rounding_mm > 0:
            overlap = np.maximum(rounding_mm - np.abs(total - solid), 0.0) / rounding_mm
            nearer = nearer - overlap * overlap * np.float32(rounding_mm / 4)
        total = nearer
    return np.asarray(total, dtype=np.float32)


def _body(s: _Space) -> Array:
    """Face and neck."""
    neck = np.hypot((s.x) / 0.98, s.y + 36.0) - 58.0 - np.maximum(-150.0 - s.z, 0.0) * 0.5
    neck = np.maximum(neck, s.z + 62.0)
    return _union(
        s.ellipsoid((0.0, 34.0, -56.0), (66.0, 56.0, 62.0)),
        s.capsule((0.0, 42.0, -92.0), (0.0, 62.0, -104.0), 36.0, 22.0),
        s.both.capsule((36.0, 2.0, -60.0), (34.0, 18.0, -92.0), 32.0, 28.0),
        np.asarray(neck, dtype=np.float32),
        s.capsule((0.0, 84.0, -18.0), (0.0, 100.0, -48.0), 7.0, 10.0),
        s.both.ellipsoid((80.0, -22.0, -36.0), (6.0, 15.0, 26.0)),
        rounding_mm=14.0,
    )


def _bone(s: _Space) -> Array:
    """Vertebrae, jaw, cheek bones, palate, and the base of the skull beside the brain stem."""
    disc = 2.5 * np.cos(2 * np.pi * s.z / 17.0) - 0.5
    spine = s.capsule((0.0, -22.0, -82.0), (0.0, -18.0, NECK_END_MM), 12.0) - disc
    return _union(
        np.asarray(spine, dtype=np.float32),
        s.capsule((0.0, -66.0, -92.0), (0.0, -72.0, NECK_END_MM), 4.0) - 1.5 * disc,
        s.both.capsule((50.0, 2.0, -50.0), (46.0, 12.0, -92.0), 5.0),
        s.both.capsule((46.0, 12.0, -92.0), (7.0, 70.0, -110.0), 8.0),
        s.both.capsule((60.0, 22.0, -44.0), (40.0, 66.0, -52.0), 4.5),
        s.both.capsule((22.0, 34.0, -76.0), (6.0, 74.0, -78.0), 5.0),
        s.both.capsule((46.0, -30.0, -44.0), (16.0, -14.0, -38.0), 6.0, 4.0),
        s.capsule((0.0, -4.0, -34.0), (0.0, -22.0, -62.0), 5.0),
    )


def _air(s: _Space) -> Array:
    """Nose, sinuses, mouth, throat, and the cells behind the ears."""
    waves = np.cos(s.x * 0.9) * np.cos(s.z * 0.45 + s.y * 0.1) + 0.7 * np.cos(s.z * 0.5 + s.y * 0.17)
    turbinates = s.box((0.0, 56.0, -50.0), (14.0, 32.0, 17.0)) + 2.5 + 3.0 * waves
    return _union(
        np.asarray(turbinates, dtype=np.float32),
        s.both.ellipsoid((30.0, 50.0, -57.0), (11.0, 14.0, 13.0)),
        s.ellipsoid((0.0, 20.0, -40.0), (11.0, 10.0, 8.0)),
        s.ellipsoid((0.0, 76.0, -14.0), (15.0, 4.5, 8.0)),
        s.box((0.0, 56.0, -86.0), (18.0, 18.0, 1.0)),
        s.capsule((0.0, 16.0, -60.0), (0.0, 6.0, -110.0), 6.0, 7.0),
        s.capsule((0.0, 6.0, -110.0), (0.0, 2.0, NECK_END_MM), 7.0, 9.0),
        s.both.ellipsoid((54.0, -40.0, -50.0), (7.0, 8.0, 12.0)),
        s.both.capsule((62.0, -20.0, -38.0), (84.0, -22.0, -38.0), 3.0),
    )


def _fluid_and_cord(s: _Space) -> tuple[Array, Array]:
    """Eyes with the spinal canal, and the cord in it."""
    top, bottom = (0.0, -38.0, -58.0), (0.0, -44.0, -110.0)
    end = (0.0, -42.0, NECK_END_MM)
    eyes = s.both.ellipsoid((32.0, 64.0, -34.0), (12.0, 12.0, 12.0))
    canal = _union(s.capsule(top, bottom, 12.0, 9.0), s.capsule(bottom, end, 9.0))
    cord = _union(s.capsule(top, bottom, 7.5, 5.0), s.capsule(bottom, end, 5.0))
    return _union(eyes, canal), cord


@dataclass(frozen=True)
class TemplateHead:
    """A head of some layers around the template's brain."""

    tissue: HeadTissue

    def points_mm(self, neck_below_mm: float) -> Array:
        """Template points of a coarse lattice in the head, down to some distance below the brain, RAS mm, (N, 3)."""
        step = 4
        table = head_shapes().values[::step, ::step, ::step]
        inside = _skin_mm(table.reshape(-1, 8), self.tissue).reshape(table.shape[:3]) < 0
        points = np.argwhere(inside) * np.float32(step * LATTICE_MM) + np.array(BOX_MM[0], dtype=np.float32)
        return np.asarray(points[points[:, 2] > BRAIN_BOTTOM_MM - neck_below_mm], dtype=np.float32)

    def signal(self, points_mm: Array) -> Array:
        """Brightness without the brain at template points, (N, 3) RAS mm to (N,); 0 in the air."""
        near = head_shapes().is_near(points_mm)
        signal = np.zeros(len(points_mm), dtype=np.float32)
        signal[near] = _head_signal(points_mm[near], self.tissue)
        return signal


def _layers(maps: Array, tissue: HeadTissue) -> tuple[Array, Array, Array]:
    """Distance from the skull's inside, and the skull's and scalp's thickness here, mm, each (N,)."""
    coarse = np.clip(maps[:, COARSE], -2, 2)
    gap = np.maximum(tissue.gap_mm + 1.1 * coarse, 0.2)
    skull = tissue.skull_mm * (1 + 0.18 * coarse)
    scalp = tissue.scalp_mm * (1 - 0.15 * coarse)
    return maps[:, CAVITY] - gap, skull, scalp


def _skin_mm(maps: Array, tissue: HeadTissue) -> Array:
    """Signed distance to the skin."""
    skull_side, skull, scalp = _layers(maps, tissue)
    return _union(skull_side - skull - scalp, maps[:, BODY] - np.float32(tissue.neck_mm), rounding_mm=10.0)


def _within(distance_mm: Array) -> Array:
    """1 inside, 0 outside, with a soft edge."""
    return np.clip(np.float32(0.5) - distance_mm / np.float32(EDGE_MM), 0, 1)


def _head_signal(points_mm: Array, tissue: HeadTissue) -> Array:
    """Brightness of a head without a brain (fluid is in its place) at template points, RAS mm, (N, 3) to (N,)."""
    maps = head_shapes().sample(points_mm)
    coarse, fine = maps[:, COARSE], maps[:, FINE]
    skull_side, skull, _ = _layers(maps, tissue)
    skin = _skin_mm(maps, tissue)
    bone, fluid = maps[:, BONE], maps[:, FLUID]

    # Below the skin: fat, then muscle with fat between its bellies, and fat around the eyes.
    fat = np.float32(tissue.fat) * (1 + 0.12 * fine)
    fat_depth = 1.5 + 0.55 * np.float32(tissue.scalp_mm) * (1 + 0.3 * coarse)
    lobules = np.clip((fine + 0.5 * coarse - 0.5) / 1.6, 0, 1)
    muscle = MUSCLE * (1 + 0.12 * fine)
    deep = muscle + (fat - muscle) * lobules
    orbit = (fluid < 7.0) & (points_mm[:, 1] > 30.0)
    deep = np.where(orbit, fat, deep)
    under_skin = _within(-skin - fat_depth)
    signal = deep + (fat - deep) * under_skin
    signal += (SKIN - signal) * _within(-skin - 1.5)

    in_skull = np.minimum(skull_side, skull - skull_side)
    for solid, values in (
        (bone, _with_marrow(-bone, 2.5, tissue, fine)),
        (-in_skull, _with_marrow(in_skull, 1.9, tissue, fine)),
        (skull_side, _cavity_signal(skull_side, tissue, coarse, fine)),
        (np.maximum(bone, skull_side), _with_marrow(-bone, 2.5, tissue, fine)),
        (maps[:, AIR], np.float32(AIR_SIGNAL)),
        (fluid, np.float32(EYE)),
        (maps[:, CORD], np.float32(CORD_SIGNAL)),
    ):
        signal += (values - signal) * _within(solid)
    inside = np.maximum(_within(skin), _within(skull_side))
    return np.asarray(np.maximum(signal * inside, 0.0), dtype=np.float32)


def _with_marrow(depth_mm: Array, table_mm: float, tissue: HeadTissue, fine: Array) -> Array:
    """Dark compact bone around bright marrow."""
    marrow = np.float32(tissue.marrow) * (1 + 0.3 * fine)
    return np.asarray(CORTICAL_BONE + (marrow - CORTICAL_BONE) * _within(table_mm - depth_mm), dtype=np.float32)


def _cavity_signal(distance: Array, tissue: HeadTissue, coarse: Array, fine: Array) -> Array:
    """Fluid, lined by meninges that are thick and bright in places."""
    thickness = np.clip(0.9 + 0.7 * coarse + 0.4 * fine, 0.3, 3.0)
    dura = np.float32(tissue.dura) * (1 + 0.25 * fine)
    return np.asarray(CEREBROSPINAL + (dura - CEREBROSPINAL) * _within(-distance - thickness), dtype=np.float32)
