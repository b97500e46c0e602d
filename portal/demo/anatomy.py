"""A thorax and abdomen in Hounsfield units, made of mathematical shapes.

Coordinates are millimetres in the patient's own directions (DICOM LPS): x grows to the left, y to the back, z to the
head. z is 0 at the hip joints' lower edge and about 600 at the shoulders. All shapes are evaluated on coordinates that
a smooth random field has bent a little, which is what makes circles look like organs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import copysign, cos, radians, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Box = tuple[slice, slice]

FIELD_OF_VIEW = 400.0
Z_RANGE = (0.0, 600.0)
BACK = 117.0
WARP_MARGIN = 11.0
NODULE_CENTRE = (-101.0, -30.0, 497.0)

AIR, FAT, MUSCLE, BLOOD = -1000.0, -103.0, 54.0, 185.0


def _profile(*knots: tuple[float, float]) -> tuple[Array, Array]:
    """A smooth curve over z through roughly these (z, value) knots."""
    z = np.arange(-40.0, 641.0, 2.0)
    values = np.interp(z, [knot[0] for knot in knots], [knot[1] for knot in knots])
    window = np.hanning(15)
    padded = np.pad(values, 7, mode="edge")
    return z, np.convolve(padded, window / window.sum(), mode="valid")


BODY_HALF_WIDTH = _profile(
    (0, 176),
    (40, 181),
    (100, 174),
    (160, 161),
    (210, 152),
    (270, 153),
    (330, 158),
    (420, 163),
    (490, 166),
    (540, 174),
    (570, 186),
    (600, 193),
)
BODY_HALF_DEPTH = _profile(
    (0, 99),
    (40, 105),
    (100, 107),
    (160, 104),
    (210, 102),
    (270, 106),
    (330, 111),
    (420, 114),
    (490, 109),
    (540, 99),
    (570, 90),
    (600, 80),
)
FAT_SIDE = _profile(
    (0, 24), (40, 27), (100, 25), (160, 22), (210, 19), (270, 14), (330, 10), (420, 8), (540, 12), (600, 14)
)
FAT_FRONT = _profile((0, 20), (60, 23), (140, 23), (210, 18), (270, 14), (330, 9), (420, 6), (500, 7), (600, 8))
FAT_BACK = _profile((0, 26), (60, 25), (120, 20), (180, 12), (260, 9), (400, 7), (600, 8))
CAVITY_HALF_WIDTH = _profile(
    (0, 36),
    (40, 52),
    (90, 72),
    (120, 92),
    (150, 108),
    (200, 118),
    (260, 127),
    (330, 137),
    (400, 142),
    (470, 138),
    (520, 122),
    (555, 94),
    (580, 68),
    (600, 50),
)
CAVITY_FRONT = _profile(
    (0, -38),
    (40, -62),
    (100, -78),
    (150, -74),
    (210, -73),
    (270, -78),
    (330, -86),
    (420, -94),
    (470, -86),
    (530, -63),
    (565, -38),
    (600, -16),
)
CAVITY_BACK = _profile(
    (0, 62),
    (60, 66),
    (110, 58),
    (150, 54),
    (200, 62),
    (260, 75),
    (330, 86),
    (400, 90),
    (470, 90),
    (530, 82),
    (565, 72),
    (600, 58),
)
SPINE_Y = _profile(
    (60, 78),
    (110, 78),
    (165, 52),
    (200, 43),
    (240, 39),
    (290, 42),
    (340, 48),
    (400, 54),
    (460, 56),
    (520, 51),
    (560, 43),
    (600, 33),
)
MEDIASTINUM_HALF_WIDTH = _profile((380, 48), (440, 42), (490, 37), (520, 36), (550, 37), (575, 44), (600, 52))


def _at(profile: tuple[Array, Array], z: Any) -> Any:
    value = np.interp(z, *profile)
    return float(value) if np.ndim(value) == 0 else value


def _ellipse(x: Any, y: Any, half_width: Any, half_depth: Any, squareness: float = 0.25) -> Any:
    """Depth in mm below the edge of a slightly squared ellipse (negative outside), roughly."""
    u = (x / half_width) ** 2
    v = (y / half_depth) ** 2
    radius = np.sqrt(u + v)
    if squareness:
        radius = (1 - squareness) * radius + squareness * np.sqrt(np.sqrt(u * u + v * v))
    smaller = np.minimum(half_width, half_depth)
    return (1 - radius) * (float(smaller) if np.ndim(smaller) == 0 else smaller)


def _cavity_depth(x: Any, y: Any, z: Any) -> Any:
    front, back = _at(CAVITY_FRONT, z), _at(CAVITY_BACK, z)
    return _ellipse(x, y - (front + back) / 2, _at(CAVITY_HALF_WIDTH, z), (back - front) / 2)


def _diaphragm_height(x: Any, y: Any) -> Any:
    def dome(cx: float, cy: float, rx: float, ry: float, top: float) -> Any:
        r2 = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        return top - 88 * r2 * (0.55 + 0.45 * np.minimum(r2, 1.3))

    return np.maximum(np.maximum(dome(-74, -8, 76, 98, 417), dome(76, -4, 72, 98, 402)), dome(0, -40, 70, 75, 390))


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with three half axes, turned about z (yaw) and tipped in the yz plane (pitch), in degrees."""

    centre: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    yaw: float = 0.0
    pitch: float = 0.0

    def depth(self, x: Any, y: Any, z: Any) -> Any:
        """Roughly the depth in mm below the surface (negative outside)."""
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        if self.yaw:
            c, s = cos(radians(self.yaw)), sin(radians(self.yaw))
            dx, dy = c * dx + s * dy, c * dy - s * dx
        if self.pitch:
            c, s = cos(radians(self.pitch)), sin(radians(self.pitch))
            dy, dz = c * dy + s * dz, c * dz - s * dy
        a, b, c = self.half_axes
        return (1 - np.sqrt((dx / a) ** 2 + (dy / b) ** 2 + (dz / c) ** 2)) * min(self.half_axes)


LIVER = (Ellipsoid((-72, -2, 338), (84, 88, 94), yaw=-8), Ellipsoid((-8, -52, 362), (78, 38, 40), yaw=12))
LIVER_NOTCH = Ellipsoid((2, 48, 300), (74, 62, 82), yaw=-20)
SPLEEN = Ellipsoid((100, 42, 350), (27, 46, 50), yaw=-25, pitch=-15)
GALLBLADDER = Ellipsoid((-52, -48, 278), (15, 22, 25), pitch=35)
KIDNEYS = (
    Ellipsoid((-66, 44, 278), (29, 27, 56), yaw=-28, pitch=8),
    Ellipsoid((66, 46, 290), (29, 27, 58), yaw=28, pitch=8),
)
HEART = Ellipsoid((18, -30, 432), (62, 48, 50), yaw=-32, pitch=22)
LEFT_VENTRICLE = Ellipsoid((42, -26, 424), (47, 31, 34), yaw=-36, pitch=18)
LEFT_VENTRICLE_CAVITY = Ellipsoid((41, -25, 426), (36, 20, 23), yaw=-36, pitch=18)
RIGHT_VENTRICLE = Ellipsoid((8, -52, 424), (42, 19, 34), yaw=-24, pitch=25)
RIGHT_ATRIUM = Ellipsoid((-30, -22, 434), (21, 27, 32))
LEFT_ATRIUM = Ellipsoid((4, 12, 450), (31, 17, 21))
BLADDER = Ellipsoid((0, -28, 70), (40, 30, 28))
PROSTATE = Ellipsoid((0, -4, 32), (23, 18, 17))


def lung_depth(x: Any, y: Any, z: Any) -> Any:
    """Depth in mm below the pleura (negative outside the lungs)."""
    spine_y = _at(SPINE_Y, z)
    front = _at(CAVITY_FRONT, z)
    width = _at(MEDIASTINUM_HALF_WIDTH, z)
    taper = 0.42 + 0.58 * np.clip((y - front) / 62, 0, 1)
    middle_y = (front + spine_y) / 2
    mediastinum = _ellipse(x / taper, y - middle_y, width, (spine_y - front) / 2 + 14, 0.5)
    spine = _ellipse(x, y - spine_y - 26, 30.0, 46.0)
    heart = HEART.depth(x, y, z) + 4
    solid = np.maximum(np.maximum(mediastinum, spine), heart)
    above_diaphragm = (z - _diaphragm_height(x, y)) / 1.9
    return np.minimum(np.minimum(_cavity_depth(x, y, z) - 2.5, -solid), above_diaphragm)


def _liver_depth(x: Any, y: Any, z: Any) -> Any:
    solid = np.maximum(LIVER[0].depth(x, y, z), LIVER[1].depth(x, y, z))
    solid = np.minimum(solid, -LIVER_NOTCH.depth(x, y, z))
    below_diaphragm = (_diaphragm_height(x, y) - z) / 1.9 - 2.5
    return np.minimum(np.minimum(solid, below_diaphragm), _cavity_depth(x, y, z) - 3)


class Tubes:
    """A bundle of short round segments, drawn as one solid."""

    def __init__(self) -> None:
        """Start empty."""
        self._rows: list[tuple[float, ...]] = []
        self._table: Array | None = None

    def add(
        self, start: Sequence[float] | Array, end: Sequence[float] | Array, start_radius: float, end_radius: float
    ) -> None:
        """Append one segment."""
        self._rows.append((*start[:3], *end[:3], start_radius, end_radius))

    def path(self, points: Sequence[Sequence[float]], *, step: float = 9.0) -> Tubes:
        """Append a smooth curve through points (x, y, z, radius)."""
        knots = np.asarray(points, float)
        padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
        curve = [knots[0]]
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
            count = max(1, int(np.linalg.norm((c - b)[:3]) / step))
            for t in np.linspace(0, 1, count + 1)[1:]:
                curve.append(
                    0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                )
        for p, q in pairwise(curve):
            self.add(p, q, max(p[3], 0.3), max(q[3], 0.3))
        return self

    def mirrored(self) -> Tubes:
        """The same bundle on the other side of the body."""
        other = Tubes()
        other._rows = [(-r[0], *r[1:3], -r[3], *r[4:]) for r in self._rows]
        return other

    def joined(self, other: Tubes) -> Tubes:
        """Both bundles as one."""
        both = Tubes()
        both._rows = self._rows + other._rows
        return both

    def near(self, z: float, flatten: float) -> Array:
        """The segments that can touch the plane at z."""
        if self._table is None:
            self._table = np.asarray(self._rows, np.float64)
        table = self._table
        reach = np.maximum(table[:, 6], table[:, 7]) / flatten + 1.0
        hit = (np.minimum(table[:, 2], table[:, 5]) - reach < z) & (np.maximum(table[:, 2], table[:, 5]) + reach > z)
        return table[hit]


def _both_sides(tubes: Tubes) -> Tubes:
    return tubes.joined(tubes.mirrored())


class _SmoothField:
    """Smooth random values in space: B-splines over a coarse random lattice, standard deviation about 1."""

    def __init__(self, rng: np.random.Generator, cell: float, rows: int, columns: int) -> None:
        lattice = int(np.ceil(FIELD_OF_VIEW / cell)) + 4
        depth = int(np.ceil((Z_RANGE[1] - Z_RANGE[0]) / cell)) + 6
        self._cell = cell
        self._lattice = rng.standard_normal((depth, lattice, lattice)).astype(np.float32) * 3.0
        self._down = self._weights(np.arange(rows) * FIELD_OF_VIEW / rows, lattice)
        self._across = self._weights(np.arange(columns) * FIELD_OF_VIEW / columns, lattice).T

    def _weights(self, positions: Array, count: int) -> Array:
        distance = np.abs(positions[:, None] / self._cell + 1.5 - np.arange(count)[None, :])
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.clip(2 - distance, 0, None) ** 3 / 6
        return np.where(distance < 1, near, far).astype(np.float32)

    def plane(self, z: float) -> Array:
        weights = self._weights(np.array([z - Z_RANGE[0]]), self._lattice.shape[0])[0]
        touched = np.flatnonzero(weights)
        flat = np.tensordot(weights[touched], self._lattice[touched], axes=1)
        return self._down @ flat @ self._across


def _grow(
    rng: np.random.Generator,
    tubes: Tubes,
    start: Array,
    points: Array,
    *,
    radius: float,
    exponent: float = 2.5,
    floor: float = 0.4,
) -> None:
    """Let a vessel branch from start until every one of the points is supplied."""
    total = len(points)
    work = [(start, points, radius)]
    while work:
        origin, group, thick = work.pop()
        centre = group.mean(axis=0)
        end = group[0] if len(group) == 1 else origin + (centre - origin) * 0.55
        thin = max(floor, radius * (len(group) / total) ** (1 / exponent))
        middle = (origin + end) / 2 + rng.normal(0, 0.07, 3) * np.linalg.norm(end - origin)
        tubes.add(origin, middle, min(thick, thin * 1.15), thin)
        tubes.add(middle, end, thin, thin * 0.9)
        if len(group) > 1:
            axis = np.linalg.svd(group - centre, full_matrices=False)[2][0]
            side = (group - centre) @ axis
            cut = np.quantile(side, rng.uniform(0.35, 0.65))
            left, right = group[side <= cut], group[side > cut]
            work += [(end, part, thin) for part in (left, right) if len(part)]


@dataclass(frozen=True)
class _Vertebra:
    bottom: float
    top: float
    half_width: float
    half_depth: float
    disc: float
    lumbar: bool


def _vertebrae() -> list[_Vertebra]:
    levels, z = [], 168.0
    for number in range(17):
        lumbar = number < 5
        height = 34.0 if lumbar else 24.5 - 0.47 * (number - 5)
        width = 25.5 - number if lumbar else 19.5 - 0.38 * (number - 5)
        depth = 18.0 - 0.4 * number if lumbar else 15.0 - 0.3 * (number - 5)
        levels.append(_Vertebra(z, z + height, width, depth, 9.0 - 0.4 * number if lumbar else 4.5, lumbar))
        z += height
    return levels


class Anatomy:
    """One invented patient: the shapes that depend on the seed, and the drawing of a slice."""

    def __init__(self, *, seed: int, rows: int = 512, columns: int = 512, nodule_diameter: float = 9.0) -> None:
        """Grow the vessels, bowel and skeleton. The same seed is the same patient at any image size."""
        self.rows, self.columns = rows, columns
        self._nodule_radius = nodule_diameter / 2
        self._pixel = FIELD_OF_VIEW / rows
        self._x0 = ((np.arange(columns) + 0.5) * FIELD_OF_VIEW / columns - FIELD_OF_VIEW / 2).astype(np.float32)
        self._y0 = ((np.arange(rows) + 0.5) * FIELD_OF_VIEW / rows - FIELD_OF_VIEW / 2).astype(np.float32)
        rng = np.random.default_rng(seed)
        fields = [_SmoothField(rng, cell, rows, columns) for cell in (58.0, 58.0, 21.0, 21.0, 9.0, 3.4)]
        self._bend_x, self._bend_y, self._ripple_x, self._ripple_y, self._clumps, self._grain = fields
        self._seed = seed
        self._vertebrae = _vertebrae()
        self._ribs, self._cartilage = self._make_ribs()
        self._long_bones = self._make_long_bones()
        self._lung_vessels, self._bronchi = self._make_lung_trees(rng)
        self._liver_vessels = self._make_liver_vessels(rng)
        self._arteries, self._veins, self._cava = self._make_great_vessels()
        self._small_bowel, self._mesentery = self._make_small_bowel(rng)
        self._colon = self._make_colon()
        self._stomach = Tubes().path(
            [
                (72, 34, 384, 24),
                (76, 6, 372, 37),
                (74, -28, 345, 35),
                (56, -50, 312, 29),
                (24, -55, 290, 22),
                (-12, -48, 288, 13),
            ]
        )
        self._duodenum = Tubes().path(
            [
                (-14, -46, 288, 13),
                (-42, -28, 284, 13),
                (-48, -8, 262, 13),
                (-40, 4, 240, 13),
                (-10, 2, 232, 12),
                (24, -2, 244, 12),
                (34, -22, 256, 12),
            ]
        )
        self._pancreas = Tubes().path(
            [(-30, -14, 262, 12), (-26, -18, 280, 14), (0, -26, 296, 10), (34, -16, 312, 11), (78, 18, 332, 10)]
        )
        self._soft_muscles = _both_sides(
            Tubes()
            .path(
                [
                    (24, 44, 326, 6),
                    (32, 44, 290, 13),
                    (40, 44, 240, 18),
                    (48, 38, 190, 20),
                    (64, 10, 130, 18),
                    (80, -22, 70, 17),
                    (92, -20, 10, 16),
                ]
            )
            .path([(62, 66, 318, 7), (72, 70, 270, 13), (78, 68, 210, 13)])
            .path([(10, 30, 372, 4), (12, 30, 330, 6), (12, 26, 280, 4)])
        )
        self._adrenals = (
            Tubes().path([(-34, 30, 336, 2.5), (-36, 40, 330, 2.5)]).path([(38, 26, 338, 2.5), (46, 38, 332, 2.5)])
        )
        self._oesophagus = Tubes().path(
            [(0, 26, 600, 8), (2, 30, 520, 8), (6, 34, 460, 8), (10, 30, 410, 9), (34, 22, 386, 9)]
        )

    def _make_ribs(self) -> tuple[Tubes, Tubes]:
        bone, cartilage = Tubes(), Tubes()
        thoracic = self._vertebrae[5:][::-1]
        ends = (128, 132, 135, 136, 136, 134, 130, 124, 118, 110, 86, 60)
        drops = (24, 40, 52, 62, 68, 74, 78, 80, 80, 74, 58, 42)
        for number, (vertebra, last, drop) in enumerate(zip(thoracic, ends, drops, strict=True)):
            head = vertebra.top - 3

            def place(angle: float, z: float) -> tuple[float, float, float]:
                front, back = float(_at(CAVITY_FRONT, z)), float(_at(CAVITY_BACK, z))
                t = np.radians(angle)
                return (
                    float((_at(CAVITY_HALF_WIDTH, z) + 3.5) * np.sin(t)),
                    float((front + back) / 2 + ((back - front) / 2 + 3.5) * np.cos(t)),
                    z,
                )

            def fall(angle: float, head: float = head, drop: float = drop) -> float:
                return head - drop * (1 - cos(radians(angle) * 1.12)) / 1.75

            spine_y = float(_at(SPINE_Y, head))
            points = [
                (vertebra.half_width - 1, spine_y + 9, head, 4.6),
                (vertebra.half_width + 17, spine_y + 25, head - 1, 4.6),
            ]
            points += [(*place(a, fall(a)), 4.8) for a in range(30, last + 1, 8)]
            bone.path(points, step=7)
            if number < 10:
                start = points[-1]
                attach = 531 - 17.5 * number if number < 7 else start[2] + 24
                target = 169 if number < 7 else 156 - 6 * (number - 7)
                turns = np.linspace(last, target, 5)[1:]
                cartilage.path(
                    [start]
                    + [
                        (*place(a, start[2] + (attach - start[2]) * f), 4.6)
                        for a, f in zip(turns, (0.1, 0.3, 0.65, 1), strict=True)
                    ]
                )
        return _both_sides(bone), _both_sides(cartilage)

    def _make_long_bones(self) -> Tubes:
        bones = Tubes()
        bones.path([(12, -50, 541, 8), (45, -48, 552, 6), (90, -30, 570, 5.5), (140, 0, 588, 6.5)])
        bones.path([(158, 12, 640, 15), (156, 12, 602, 24), (156, 12, 594, 23)])
        bones.path([(132, 22, 588, 9), (124, 34, 570, 7), (118, 46, 545, 4.5), (104, 66, 500, 3.2), (96, 76, 455, 3)])
        bones.path([(128, 28, 575, 6), (110, 62, 560, 3.5), (88, 84, 548, 3.0), (80, 88, 500, 2.6), (92, 80, 455, 3)])
        for f in np.linspace(0, 1, 15):
            bones.path(
                [
                    (122 - 38 * f, 38 + 48 * f, 560 - 8 * f, 2.6),
                    (108 - 26 * f, 60 + 27 * f, 505, 2.2),
                    (96 - 4 * f, 76 + 4 * f, 455, 2.4),
                ],
                step=20,
            )
        crest = np.array(
            [
                (43, 84, 132),
                (50, 84, 168),
                (72, 70, 196),
                (98, 44, 208),
                (117, 12, 204),
                (122, -22, 184),
                (116, -44, 152),
            ],
            float,
        )
        base = np.array(
            [(43, 72, 96), (46, 68, 112), (60, 52, 100), (74, 32, 90), (88, 12, 82), (98, -6, 80), (102, -18, 82)],
            float,
        )
        dense = np.linspace(0, 6, 49)
        top = np.stack([np.interp(dense, range(7), crest[:, i]) for i in range(3)], axis=1)
        low = np.stack([np.interp(dense, range(7), base[:, i]) for i in range(3)], axis=1)
        for a, b in zip(low, top, strict=True):
            bones.path([(*a, 6.0), (*(0.55 * a + 0.45 * b + np.array([4, 3, 0])), 3.4), (*b, 5.0)], step=40)
        bones.path([(*p, 6.5) for p in crest])
        for angle in np.arange(0, 360, 30):
            c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            if c > -0.6 or s > 0.3:
                bones.add((74 + 4 * c, -2 + 27 * s, 46 + 27 * c), (92 + 6 * c, 0 + 25 * s, 50 + 27 * c), 6.0, 5.0)
        bones.path([(80, 18, 72, 10), (76, 32, 40, 10), (66, 44, 10, 13), (60, 46, -20, 12)])
        bones.path(
            [
                (80, -24, 52, 9),
                (56, -46, 46, 8),
                (26, -58, 36, 8),
                (9, -58, 24, 9),
                (10, -48, 8, 8),
                (32, -20, -10, 7),
                (52, 18, -14, 8),
            ]
        )
        return _both_sides(bones)

    def _make_lung_trees(self, rng: np.random.Generator) -> tuple[Tubes, Tubes]:
        vessels, bronchi = Tubes(), Tubes()
        bronchi.path([(0, 8, 640, 9), (0, 12, 560, 9), (-2, 18, 505, 9)])
        bronchi.path([(-2, 18, 508, 8), (-20, 16, 486, 7), (-38, 14, 472, 6)])
        bronchi.path([(-2, 18, 508, 7.5), (22, 20, 484, 6.5), (44, 18, 468, 5.5)])
        for side in (-1.0, 1.0):
            cloud = rng.uniform((14, -95, 320), (142, 92, 592), (26000, 3)) * (side, 1, 1)
            cloud = cloud[lung_depth(*cloud.T) > 2.5]
            _grow(rng, vessels, np.array([46 * side, 6, 479.0]), cloud[:760], radius=7.5, exponent=2.3, floor=0.55)
            _grow(rng, vessels, np.array([34 * side, 12, 452.0]), cloud[800:1300], radius=6.5, exponent=2.3, floor=0.55)
            _grow(rng, bronchi, np.array([42 * side, 14, 472.0]), cloud[1300:1334], radius=4.6, exponent=2.6, floor=0.8)
        return vessels, bronchi

    def _make_liver_vessels(self, rng: np.random.Generator) -> Tubes:
        vessels = Tubes()
        cloud = rng.uniform((-160, -95, 245), (65, 95, 420), (9000, 3))
        cloud = cloud[_liver_depth(*cloud.T) > 8]
        vessels.path([(-10, -16, 292, 6), (-22, -18, 312, 6.5), (-38, -14, 330, 6)])
        _grow(rng, vessels, np.array([-38.0, -14, 330]), cloud[:60], radius=5.5, exponent=2.0, floor=0.7)
        _grow(rng, vessels, np.array([-26.0, 2, 396]), cloud[100:150], radius=5.5, exponent=2.0, floor=0.8)
        return vessels

    def _make_great_vessels(self) -> tuple[Tubes, Tubes, Tubes]:
        arteries = Tubes().path(
            [
                (6, -18, 448, 15),
                (-14, -26, 466, 16),
                (-18, -22, 494, 15.5),
                (-6, -8, 514, 14.5),
                (14, 16, 518, 13.5),
                (25, 36, 502, 13),
                (26, 42, 470, 12.5),
                (22, 36, 410, 12),
                (14, 28, 350, 11.5),
                (8, 16, 290, 10.5),
                (5, 10, 240, 9.5),
                (4, 14, 204, 9),
            ]
        )
        for x, start in ((-10, -8), (2, 2), (13, 12)):
            arteries.path(
                [
                    (x, start, 518, 5),
                    (x * 1.6, start - 2, 550, 4.5),
                    (x * 2.4 + np.sign(x) * 6, start + 2, 600, 4),
                    (x * 2.6, start, 640, 4),
                ]
            )
        iliac = [
            (5, 14, 206, 6.5),
            (24, 22, 172, 6),
            (48, 22, 132, 5.5),
            (62, -18, 92, 5),
            (70, -50, 50, 5),
            (72, -58, -20, 5),
        ]
        arteries = arteries.joined(
            _both_sides(Tubes().path(iliac).path([(40, 24, 144, 4), (48, 44, 110, 3.5), (46, 48, 80, 2)]))
        )
        arteries.path([(9, 14, 308, 4), (8, 0, 306, 3.6), (-14, -14, 312, 3)]).path(
            [(8, 0, 306, 3), (40, 6, 318, 2.6), (80, 30, 340, 2.4)]
        )
        arteries.path([(8, 16, 292, 4), (6, -2, 282, 4), (8, -12, 240, 3.5), (10, -16, 200, 2.5)])
        arteries.path([(8, 18, 284, 3), (-36, 34, 282, 2.8), (-54, 40, 280, 2)]).path(
            [(8, 18, 288, 3), (36, 36, 290, 2.8), (54, 42, 290, 2)]
        )
        arteries.path([(6, -44, 446, 13), (14, -34, 470, 14), (14, -14, 482, 13), (34, 4, 484, 10), (48, 12, 480, 8)])
        arteries.path([(14, -18, 480, 12), (-12, -2, 478, 11), (-34, 2, 478, 10), (-48, 8, 474, 8)])
        veins = (
            Tubes()
            .path([(-12, -16, 238, 5.5), (-8, -18, 276, 6), (-10, -17, 294, 6.5)])
            .path([(-8, -18, 284, 4.5), (40, -4, 306, 4), (84, 28, 338, 3.5)])
        )
        veins = veins.joined(
            _both_sides(Tubes().path([(46, 34, 134, 6.5), (56, -6, 94, 6.5), (58, -46, 50, 6.5), (60, -52, -20, 6)]))
        )
        veins.path([(-22, 22, 192, 9), (-36, 32, 164, 7), (-47, 33, 132, 6.5)]).path(
            [(-22, 22, 192, 9), (16, 32, 166, 7), (47, 33, 132, 6.5)]
        )
        veins.path([(-24, 16, 282, 5), (-54, 38, 276, 4)]).path(
            [(-18, 12, 292, 4.5), (10, -2, 294, 4.5), (54, 40, 288, 4)]
        )
        veins.path([(-9, 44, 330, 3), (-9, 44, 480, 4), (-22, 20, 496, 4), (-30, -8, 500, 4)])
        veins.path([(32, 10, 452, 6), (14, 12, 450, 8)]).path([(-32, 10, 452, 6), (-10, 12, 450, 8)])
        veins.path([(-30, -18, 532, 7), (0, -34, 545, 6), (36, -24, 560, 6), (80, -14, 578, 6)])
        cava = Tubes().path(
            [(-22, 20, 192, 11), (-25, 15, 260, 11.5), (-27, 10, 330, 12), (-26, 0, 390, 13), (-28, -12, 412, 13)]
        )
        cava.path([(-30, -22, 448, 11), (-31, -18, 500, 10), (-31, -16, 535, 9), (-52, -10, 560, 7), (-84, -8, 580, 6)])
        return arteries, veins, cava

    def _make_small_bowel(self, rng: np.random.Generator) -> tuple[Tubes, Tubes]:
        spots = np.array(
            [(x, y, z) for z in range(96, 264, 25) for x in range(-84, 92, 28) for y in (-60, -36, -12)], float
        )
        spots += rng.normal(0, 4.5, spots.shape)
        inside = ((spots[:, 0] / 88) ** 2 + ((spots[:, 2] - 180) / 92) ** 2 < 1) & ~(
            (np.abs(spots[:, 0]) < 20) & (spots[:, 1] > -20)
        )
        left = list(spots[inside])
        order = [left.pop(0)]
        while left:
            gaps = [float(np.linalg.norm(order[-1] - spot)) for spot in left]
            order.append(left.pop(int(np.argmin(gaps))))
        loops = Tubes()
        chain: list[tuple[float, float, float, float]] = []
        for spot in order:
            if chain and np.linalg.norm(spot - np.array(chain[-1][:3])) > 62:
                if len(chain) > 1:
                    loops.path(chain, step=8)
                chain = []
            chain.append((*spot, rng.uniform(11, 14.5)))
        if len(chain) > 1:
            loops.path(chain, step=8)
        mesentery = Tubes()
        _grow(
            rng,
            mesentery,
            np.array([8.0, -12, 235]),
            np.array(order) + rng.normal(0, 8, (len(order), 3)),
            radius=4,
            floor=0.9,
        )
        return loops, mesentery

    def _make_colon(self) -> Tubes:
        course = [
            (-84, -12, 118, 18),
            (-104, -6, 142, 25),
            (-108, 6, 180, 23),
            (-108, 12, 222, 21),
            (-98, -14, 256, 21),
            (-74, -58, 248, 20),
            (-36, -64, 232, 19),
            (4, -64, 226, 19),
            (46, -64, 240, 19),
            (84, -56, 274, 19),
            (108, -16, 302, 19),
            (114, 18, 296, 17),
            (112, 30, 250, 15),
            (108, 26, 200, 14),
            (102, 8, 158, 14),
            (84, -14, 126, 14),
            (52, -18, 104, 15),
            (24, 6, 112, 15),
            (6, 34, 104, 16),
            (0, 46, 74, 18),
            (0, 40, 44, 19),
            (0, 44, 14, 14),
            (0, 46, -20, 10),
        ]
        colon = Tubes().path(course, step=6)
        colon._rows = [
            (*r[:6], r[6] + 1.6 * np.sin(i * 1.1), r[7] + 1.6 * np.sin((i + 1) * 1.1))
            for i, r in enumerate(colon._rows)
        ]
        return colon

    # Drawing. Every painter below works on the current slice: self._hu, self._x, self._y, self._z.

    def _box(self, x_low: float, x_high: float, y_low: float, y_high: float, margin: float = WARP_MARGIN) -> Box | None:
        def span(low: float, high: float, count: int) -> slice:
            scale = count / FIELD_OF_VIEW
            first = int((low - margin + FIELD_OF_VIEW / 2) * scale)
            last = int((high + margin + FIELD_OF_VIEW / 2) * scale) + 2
            return slice(max(0, first), min(count, last))

        across, down = span(x_low, x_high, self.columns), span(y_low, y_high, self.rows)
        return (down, across) if down.start < down.stop and across.start < across.stop else None

    def _edge(self, depth: Any, softness: float = 1.0) -> Any:
        return np.clip(depth / max(self._pixel * softness, 0.8) + 0.5, 0, 1)

    def _blend(self, box: Box, alpha: Any, value: Any) -> None:
        view = self._hu[box]
        view += alpha * (value - view)

    def _tube_depth(self, tubes: Tubes, flatten: float = 1.0) -> tuple[Box, Array] | None:
        rows = tubes.near(self._z, flatten)
        if not len(rows):
            return None
        reach = np.maximum(rows[:, 6], rows[:, 7]) + 1.5
        x_low, x_high = np.minimum(rows[:, 0], rows[:, 3]) - reach, np.maximum(rows[:, 0], rows[:, 3]) + reach
        y_low, y_high = np.minimum(rows[:, 1], rows[:, 4]) - reach, np.maximum(rows[:, 1], rows[:, 4]) + reach
        whole = self._box(x_low.min(), x_high.max(), y_low.min(), y_high.max())
        if whole is None:
            return None
        depth = np.full((whole[0].stop - whole[0].start, whole[1].stop - whole[1].start), -99.0, np.float32)
        for row, *bounds in zip(rows.tolist(), x_low, x_high, y_low, y_high, strict=True):
            # The bend of the coordinates is smooth, so what it does at the segment's middle holds for its surroundings.
            shift_x, shift_y = self._shift_at((bounds[0] + bounds[1]) / 2, (bounds[2] + bounds[3]) / 2)
            box = self._box(bounds[0] - shift_x, bounds[1] - shift_x, bounds[2] - shift_y, bounds[3] - shift_y, 2.5)
            if box is None:
                continue
            px, py, pz, qx, qy, qz, r0, r1 = row
            vx, vy, vz = qx - px, qy - py, (qz - pz) * flatten
            dz = (self._z - pz) * flatten
            length2 = vx * vx + vy * vy + vz * vz + 1e-6
            dx, dy = self._x[box] - np.float32(px), self._y[box] - np.float32(py)
            t = np.clip((dx * vx + dy * vy + dz * vz) / length2, 0, 1)
            gap = np.sqrt((dx - t * vx) ** 2 + (dy - t * vy) ** 2 + (dz - t * vz) ** 2)
            top, start = box[0].start - whole[0].start, box[1].start - whole[1].start
            if top < 0 or start < 0:
                top, start = max(top, 0), max(start, 0)
            window = depth[top : top + gap.shape[0], start : start + gap.shape[1]]
            np.maximum(window, (r0 + (r1 - r0) * t - gap)[: window.shape[0], : window.shape[1]], out=window)
        return whole, depth

    def _shift_at(self, x: float, y: float) -> tuple[float, float]:
        column = min(max(int((x / FIELD_OF_VIEW + 0.5) * self.columns), 0), self.columns - 1)
        row = min(max(int((y / FIELD_OF_VIEW + 0.5) * self.rows), 0), self.rows - 1)
        return float(self._x[row, column] - self._x0[column]), float(self._y[row, column] - self._y0[row])

    def _tubes(
        self, tubes: Tubes, value: Any, *, flatten: float = 1.0, inset: float = 0.0, strength: float = 1.0
    ) -> None:
        found = self._tube_depth(tubes, flatten)
        if found:
            box, depth = found
            self._blend(
                box, self._edge(depth - inset) * strength, value[box] if isinstance(value, np.ndarray) else value
            )

    def _solid(self, shape: Ellipsoid, value: Any, within: Array | None = None) -> None:
        reach = max(shape.half_axes)
        if abs(self._z - shape.centre[2]) > reach:
            return
        box = self._box(
            shape.centre[0] - reach, shape.centre[0] + reach, shape.centre[1] - reach, shape.centre[1] + reach
        )
        if box is None:
            return
        depth = shape.depth(self._x[box], self._y[box], self._z)
        if within is not None:
            depth = np.minimum(depth, within[box])
        self._blend(box, self._edge(depth), value[box] if isinstance(value, np.ndarray) else value)

    def slice_at(self, z: float, thickness: float = 2.0) -> Array:
        """Hounsfield units of the axial slice at z (float32, rows by columns)."""
        self._z = z
        self._hu = np.full((self.rows, self.columns), AIR, np.float32)
        grain, clumps = self._grain.plane(z), self._clumps.plane(z)
        self._x = self._x0[None, :] + 3.6 * self._bend_x.plane(z) + 1.1 * self._ripple_x.plane(z)
        self._y = self._y0[:, None] + 2.8 * self._bend_y.plane(z) + 1.1 * self._ripple_y.plane(z)
        everywhere: Box = (slice(0, self.rows), slice(0, self.columns))
        self._draw_table()
        cavity = self._draw_body_wall(everywhere, grain, clumps)
        if z < 430:
            self._draw_abdomen(cavity, grain, clumps)
        if z > 300:
            self._draw_chest(everywhere, cavity, grain, clumps)
        for tubes, value in ((self._veins, 135.0), (self._cava, 150.0 if z < 420 else 230.0), (self._arteries, BLOOD)):
            self._tubes(tubes, value)
        self._draw_skeleton(grain)
        return self._finish(thickness)

    def _draw_table(self) -> None:
        x, y = self._x0[None, :], self._y0[:, None]
        surface = BACK + 9 - x * x / 1500
        below = y - surface
        couch = np.minimum(np.minimum(below, 24 - x * x / 3000 - below), 196 - np.abs(x))
        self._hu += self._edge(couch) * 840
        self._hu -= self._edge(couch - 2.2) * 780
        pad = np.minimum(np.minimum(below + 7, -below), 178 - np.abs(x))
        self._hu += self._edge(pad) * 45

    def _draw_body_wall(self, everywhere: Box, grain: Array, clumps: Array) -> Array:
        x, y, z = self._x, self._y, self._z
        half_width, half_depth = _at(BODY_HALF_WIDTH, z), _at(BODY_HALF_DEPTH, z)
        body = _ellipse(x, y - (BACK - half_depth), half_width, half_depth, 0.35)
        self._blend(everywhere, self._edge(body), 15.0)
        self._blend(everywhere, self._edge(body - 1.9), FAT + 4 * clumps + 14 * np.clip(grain - 1.6, 0, 2))
        front = BACK - 2 * half_depth + _at(FAT_FRONT, z)
        back = BACK - _at(FAT_BACK, z)
        wall = _ellipse(x, y - (front + back) / 2, half_width - _at(FAT_SIDE, z), (back - front) / 2, 0.45)
        cavity: Array = _cavity_depth(x, y, z)
        marbling = np.clip((clumps + 0.5 * grain - 0.85) * 1.4, 0, 1)
        layers = (
            np.exp(-(((wall - 7 - clumps) / 0.9) ** 2)) * 0.75
            + np.exp(-(((wall - 13 - 0.7 * clumps) / 0.8) ** 2)) * 0.5
        )
        pelvic = float(np.clip((175 - z) / 60, 0, 1))
        fatness = np.clip(marbling * (0.55 + 0.3 * pelvic) + layers * (1 - 0.6 * pelvic), 0, 0.95)
        self._blend(everywhere, self._edge(wall), MUSCLE + 5 * clumps + (FAT - MUSCLE) * fatness)
        self._blend(everywhere, self._edge(cavity), FAT + 5 * clumps)
        spine_y = _at(SPINE_Y, z)
        flank = _ellipse(np.abs(x) - 31, y - spine_y - 41, 27.0, 21.0, 0.4)
        core = _ellipse(x, y - spine_y - 20, 30.0, 38.0)
        muscle = MUSCLE + 5 * clumps + (FAT - MUSCLE) * marbling * 0.5
        flank = np.minimum(flank, body - 4)
        present = float(np.clip((z - 150) / 12, 0, 1))
        self._blend(everywhere, np.maximum(self._edge(core), self._edge(flank)) * present, muscle)
        seam = self._edge(1.3 - np.abs(flank + 1.5)) * self._edge(wall) * present
        self._blend(everywhere, 0.6 * seam, FAT)
        return cavity

    def _draw_abdomen(self, cavity: Array, grain: Array, clumps: Array) -> None:
        z, inside = self._z, cavity - 1.0
        below_diaphragm = (_diaphragm_height(self._x, self._y) - z) / 1.9
        inside = np.minimum(inside, below_diaphragm - 2)
        self._tubes(self._soft_muscles, MUSCLE + 4 * clumps)
        self._tubes(self._mesentery, 120.0)
        self._hollow(
            self._small_bowel,
            wall=2.2,
            wall_value=82.0,
            content=28 + 14 * clumps,
            gas=clumps > 1.9,
            gas_level=-46.0,
            within=inside,
        )
        stool = 25 + 30 * clumps - 520 * np.clip(grain - 0.75, 0, 1)
        self._hollow(
            self._colon,
            wall=2.2,
            wall_value=66.0,
            content=stool,
            gas=None,
            gas_level=-6.0 if z > 170 else -30.0,
            within=inside,
        )
        self._hollow(
            self._duodenum,
            wall=2.5,
            wall_value=76.0,
            content=18 + 10 * clumps,
            gas=None,
            gas_level=-99.0,
            within=inside,
        )
        self._hollow(
            self._stomach, wall=4.0, wall_value=78.0, content=14 + 8 * clumps, gas=None, gas_level=-38.0, within=inside
        )
        self._tubes(self._pancreas, 84 + 10 * clumps - 95 * np.clip(grain + clumps - 1.3, 0, 1))
        self._tubes(self._adrenals, 70.0)
        if z > 235:
            box = self._box(-150, 80, -100, 95)
            if box:
                depth = _liver_depth(self._x[box], self._y[box], z)
                self._blend(box, self._edge(depth), 62 + 2.5 * clumps[box])
                vessels = self._tube_depth(self._liver_vessels)
                if vessels:
                    self._blend(vessels[0], self._edge(vessels[1]) * 0.75, 116.0)
            self._solid(GALLBLADDER, 6.0)
            self._solid(SPLEEN, 98 + 4 * clumps, within=inside)
        for kidney in KIDNEYS:
            self._draw_kidney(kidney, clumps)
        self._solid(Ellipsoid(BLADDER.centre, tuple(a + 3.5 for a in BLADDER.half_axes)), 48.0)  # type: ignore[arg-type]
        self._solid(BLADDER, 6.0)
        self._solid(PROSTATE, 62 + 8 * clumps)

    def _hollow(
        self,
        tubes: Tubes,
        *,
        wall: float,
        wall_value: float,
        content: Array,
        gas: Array | None,
        gas_level: float,
        within: Array,
    ) -> None:
        found = self._tube_depth(tubes)
        if not found:
            return
        box, depth = found
        depth = np.minimum(depth, within[box])
        self._blend(box, self._edge(depth), wall_value)
        lumen = self._edge(depth - wall)
        self._blend(box, lumen, content[box])
        level = self._y0[box[0]][:, None]
        air = self._edge(np.broadcast_to(gas_level - level, depth.shape))
        if gas is not None:
            air = np.maximum(air * (gas[box] * 1.0), 0)
        self._blend(box, lumen * air, -960.0)

    def _draw_kidney(self, kidney: Ellipsoid, clumps: Array) -> None:
        cx, cy, cz = kidney.centre
        if abs(self._z - cz) > kidney.half_axes[2] + 4:
            return
        side = copysign(1.0, cx)
        lean = 0.16 * (cz - self._z) * side
        box = self._box(cx - 50, cx + 50, cy - 50, cy + 50)
        if box is None:
            return
        x, y = self._x[box] - lean, self._y[box]
        capsule = kidney.depth(x, y, self._z)
        sinus = Ellipsoid((cx - 13 * side, cy - 7, cz), (19, 11, 32), yaw=kidney.yaw).depth(x, y, self._z)
        pelvis = Ellipsoid((cx - 17 * side, cy - 8, cz), (15, 5, 14), yaw=kidney.yaw).depth(x, y, self._z)
        around = np.arctan2(y - cy, (x - cx) * side)
        pyramids = (
            np.clip(np.sin(around * 7 + self._z / 5.5) * 1.6 + 0.5, 0, 1)
            * self._edge(capsule - 6.5)
            * self._edge(-sinus)
        )
        self._blend(box, self._edge(capsule + 9) * 0.7, FAT)
        self._blend(box, self._edge(capsule), 158 - 62 * pyramids)
        self._blend(box, self._edge(np.minimum(sinus, capsule + 6)), FAT + 30)
        self._blend(box, self._edge(pelvis), 12.0)

    def _draw_chest(self, everywhere: Box, cavity: Array, grain: Array, clumps: Array) -> None:
        x, y, z = self._x, self._y, self._z
        lung = lung_depth(x, y, z)
        above = (z - _diaphragm_height(x, y)) / 1.9
        membrane = np.minimum(np.minimum(cavity - 0.5, above + 2.8), 1.5 - above)
        self._blend(everywhere, self._edge(membrane) * (1.0 if z < 425 else 0.0), MUSCLE)
        if z > 372:
            middle = np.minimum(np.minimum(cavity - 0.5, -lung), above)
            spine_y = _at(SPINE_Y, z)
            behind = _ellipse(x, y - spine_y - 24, 28.0, 40.0)
            self._blend(everywhere, self._edge(np.minimum(middle, -behind)), FAT + 8 + 6 * clumps)
            pleura = np.minimum(1.2 + lung, 1.6 - lung)
            self._blend(everywhere, self._edge(np.minimum(pleura, cavity)) * 0.55, 30.0)
        self._draw_heart(clumps)
        air = self._edge(lung)
        parenchyma = -868 + 0.32 * y + 13 * clumps + 17 * grain + 55 * np.clip(grain - 1.5, 0, 2)
        fissure = np.abs((z - 455) * 0.74 - (y - 6) * 0.66 + np.where(x > 0, 0, -6) + 2 * clumps)
        parenchyma += 130 * np.clip(1.1 - fissure, 0, 1)
        self._blend(everywhere, air, parenchyma)
        vessels = self._tube_depth(self._lung_vessels)
        if vessels:
            box, depth = vessels
            alpha = self._edge(depth) * np.maximum(air[box], self._edge(lung[box] + 14) * self._edge(cavity[box] - 6))
            self._blend(box, alpha, np.where(depth > 1.5, 150.0, 60.0))
        if self._nodule_radius:
            radius = self._nodule_radius
            nodule = Ellipsoid(NODULE_CENTRE, (radius, radius * 0.92, radius * 0.96))
            box_or_none = self._box(
                NODULE_CENTRE[0] - 20, NODULE_CENTRE[0] + 20, NODULE_CENTRE[1] - 20, NODULE_CENTRE[1] + 20
            )
            if abs(z - NODULE_CENTRE[2]) < radius + 2 and box_or_none:
                depth = nodule.depth(x[box_or_none], y[box_or_none], z) + 0.45 * grain[box_or_none]
                self._blend(box_or_none, self._edge(depth, 1.3), 38.0)
        self._tubes(self._oesophagus, 42.0)
        self._tubes(self._oesophagus, -300.0, inset=5.8, strength=0.6)
        bronchi = self._tube_depth(self._bronchi)
        if bronchi:
            box, depth = bronchi
            self._blend(box, self._edge(depth + 1.1) * 0.8, -20.0)
            self._blend(box, self._edge(depth), -985.0)

    def _draw_heart(self, clumps: Array) -> None:
        if not 370 < self._z < 500:
            return
        outline = Ellipsoid(HEART.centre, tuple(a - 2.5 for a in HEART.half_axes), HEART.yaw, HEART.pitch)  # type: ignore[arg-type]
        reach = np.minimum(HEART.depth(self._x, self._y, self._z) - 2.0, self._z - _diaphragm_height(self._x, self._y))
        self._solid(outline, -70 + 14 * clumps, within=reach)
        self._solid(LEFT_VENTRICLE, 98 + 4 * clumps, within=reach)
        self._solid(RIGHT_VENTRICLE, 160 + 4 * clumps, within=reach - 2)
        self._solid(RIGHT_ATRIUM, 158 + 4 * clumps, within=reach)
        self._solid(LEFT_ATRIUM, 176.0)
        self._solid(LEFT_VENTRICLE_CAVITY, 180.0, within=reach)

    def _draw_skeleton(self, grain: Array) -> None:
        marrow = 230 + 55 * grain
        cortex = np.full_like(grain, 720.0)
        cortex += 90 * grain
        self._tubes(self._cartilage, 95 + 60 * np.clip(grain - 0.5, 0, 3))
        for tubes, flatten, shell in ((self._ribs, 0.62, 1.7), (self._long_bones, 1.0, 2.0)):
            found = self._tube_depth(tubes, flatten)
            if found:
                box, depth = found
                self._blend(box, self._edge(depth), cortex[box])
                self._blend(box, self._edge(depth - shell), marrow[box])
        for side in (-1, 1):
            self._draw_hip(side, grain)
        self._draw_sternum(marrow)
        self._draw_spine(grain)
        self._draw_sacrum(marrow)

    def _draw_hip(self, side: int, grain: Array) -> None:
        if self._z > 90:
            return
        box = self._box(40 * side - 0 if side > 0 else -165, 165 if side > 0 else -40, -60, 70)
        if box is None:
            return
        x, y, z = self._x[box], self._y[box], self._z
        joint = Ellipsoid((88 * side, -2, 46), (26.5, 26.5, 26.5)).depth(x, y, z)
        self._blend(box, self._edge(joint), 70.0)
        head = Ellipsoid((88 * side, -2, 46), (23.5, 23.5, 23.5)).depth(x, y, z)
        neck = (
            Tubes()
            .path([(92, -2, 44, 15), (110, 4, 32, 14), (122, 8, 20, 17), (120, 6, -12, 16), (118, 6, -40, 15)])
            .path([(120, 14, 40, 9), (126, 12, 20, 13)])
        )
        found = self._tube_depth(neck if side > 0 else neck.mirrored())
        depth = head
        if found:
            whole = np.full_like(self._hu, -99.0)
            whole[found[0]] = found[1]
            depth = np.maximum(head, whole[box])
        self._blend(box, self._edge(depth), 900 + 60 * grain[box])
        self._blend(box, self._edge(depth - (1.8 if z > 15 else 4.0)), 265 + 60 * grain[box] - (0 if z > 10 else 190))

    def _draw_sternum(self, marrow: Array) -> None:
        z = self._z
        if not 392 < z < 548:
            return
        manubrium = float(np.clip((z - 500) / 25, 0, 1))
        xiphoid = float(np.clip((z - 392) / 18, 0.15, 1))
        gap = 0.55 if abs(z - 505) < 2 else 1.0
        centre_y = float(_at(CAVITY_FRONT, z)) - 7.5
        box = self._box(-40, 40, centre_y - 15, centre_y + 15)
        if box is None:
            return
        depth = _ellipse(
            self._x[box], self._y[box] - centre_y, (16 + 13 * manubrium) * xiphoid, 6.2 + 1.5 * manubrium, 0.6
        )
        self._blend(box, self._edge(depth), 560.0 * gap)
        self._blend(box, self._edge(depth - 1.6), marrow[box] * 0.75)

    def _draw_spine(self, grain: Array) -> None:
        z = self._z
        if z < 150:
            return
        spine_y = float(_at(SPINE_Y, z))
        box = self._box(-62, 62, spine_y - 34, spine_y + 72)
        if box is None:
            return
        x, y = self._x[box], self._y[box] - spine_y
        g = grain[box]
        for vertebra in self._vertebrae:
            tilt = 0.12 if vertebra.lumbar else 0.62
            if not vertebra.bottom - 45 < z < vertebra.top + 12:
                continue
            height = vertebra.top - vertebra.bottom
            low, high = vertebra.bottom + vertebra.disc / 2, vertebra.top - vertebra.disc / 2
            middle = (low + high) / 2
            waist = 1 - 0.11 * max(0.0, 1 - ((z - middle) / ((high - low) / 2)) ** 2)
            if vertebra.bottom - 1 <= z <= vertebra.top + 1:
                body = _ellipse(x, y, vertebra.half_width * waist, vertebra.half_depth * waist, 0.55)
                body = np.minimum(body, (y * -1 + vertebra.half_depth * 0.86))
                self._blend(box, self._edge(np.minimum(body, min(z - vertebra.bottom, vertebra.top - z) + 1.0)), 82.0)
                plate = min(z - low, high - z) + 0.35 * np.abs(x) / vertebra.half_width
                bone = np.minimum(body, plate)
                self._blend(box, self._edge(bone, 1.4), 560.0)
                self._blend(box, self._edge(bone - 1.9, 1.6), 205 + 62 * g)
            depth_back = vertebra.half_depth
            canal_y = depth_back + 8.0
            canal = _ellipse(x, y - canal_y, 11.5 if vertebra.lumbar else 9.5, 8.2, 0.2)
            arch_window = min(z - (middle - height * 0.42), (middle + height * 0.30) - z)
            ring = np.minimum(_ellipse(x, y - canal_y, 18.5 if vertebra.lumbar else 15.5, 14.5, 0.3), arch_window)
            slope_z = z + tilt * np.clip(y - canal_y, 0, 60)
            spinous_window = 0.62 * (height * 0.33 - np.abs(slope_z - (middle - height * 0.08)))
            length = 31.0 if vertebra.lumbar else 27.0
            spinous = np.minimum(
                np.minimum(4.0 - np.abs(x), np.minimum(y - canal_y - 7, canal_y + length - y)), spinous_window
            )
            pedicle_window = min(z - (middle - 1), high - 1 - z)
            pedicle = np.minimum(
                _ellipse(np.abs(x) - vertebra.half_width * 0.62, y - depth_back, 5.0, 9.5, 0.4), pedicle_window
            )
            span = vertebra.half_width + (22.0 if vertebra.lumbar else 18.0)
            sweep = 0.0 if vertebra.lumbar else 0.45 * (np.abs(x) - 12)
            transverse = _ellipse(np.abs(x) - (span + 8) / 2, y - canal_y - sweep + 2, (span - 8) / 2, 4.8, 0.3)
            transverse = np.minimum(transverse, 5.5 - abs(z - (middle + height * 0.12)))
            facet = np.minimum(
                _ellipse(np.abs(x) - (17 if vertebra.lumbar else 13), y - canal_y - 6, 6.5, 7.5, 0.2),
                height * 0.24 - abs(z - vertebra.bottom - 1),
            )
            joint = np.abs(np.abs(x) - (17 if vertebra.lumbar else 13) - 0.35 * (y - canal_y - 6) + 1.0)
            back = np.maximum(np.maximum(np.maximum(ring, spinous), np.maximum(pedicle, transverse)), facet)
            back = np.minimum(back, -canal)
            self._blend(box, self._edge(back, 1.2), 640 + 40 * g)
            self._blend(box, self._edge(back - 2.0), 260 + 50 * g)
            self._blend(box, self._edge(np.minimum(0.8 - joint, facet)) * 0.6, 60.0)
        canal = _ellipse(x, y - (17.0 if z < 338 else 14.0) - 8.0, 10.8, 7.6, 0.2)
        self._blend(box, self._edge(canal), 8.0)
        cord = _ellipse(x, y - (17.0 if z < 338 else 14.0) - 8.0, 5.6, 4.4, 0.1)
        self._blend(box, self._edge(cord) * (1.0 if z > 322 else 0.45), 38.0)

    def _draw_sacrum(self, marrow: Array) -> None:
        z = self._z
        if not 36 < z < 168:
            return
        fraction = (z - 36) / 132
        centre_y = float(np.interp(z, (36, 60, 100, 140, 168), (54, 67, 74, 66, 55)))
        half_width = float(np.interp(z, (36, 60, 90, 130, 160, 168), (4, 12, 32, 48, 46, 30)))
        half_depth = float(np.interp(z, (36, 60, 100, 140, 168), (4, 7, 13, 20, 19)))
        box = self._box(-60, 60, centre_y - 35, centre_y + 40)
        if box is None:
            return
        x, y = self._x[box], self._y[box] - centre_y - np.abs(self._x[box]) * 0.16
        depth = _ellipse(x, y, half_width, half_depth, 0.5)
        spine = np.minimum(_ellipse(x, y - half_depth - 3, 5.0, 9.0), 99.0) if z > 75 else np.full_like(depth, -9.0)
        depth = np.maximum(depth, spine)
        self._blend(box, self._edge(depth), 520.0)
        self._blend(box, self._edge(depth - 1.9), marrow[box] * 0.72)
        if z > 70:
            holes = _ellipse(np.abs(x) - 10 - 12 * fraction, y - 1, 5.2, 7.0) - 2.2 * abs(np.sin((z - 70) / 27 * np.pi))
            self._blend(box, self._edge(holes), -40.0)
            canal = _ellipse(x, y - half_depth * 0.62, 11.0 * fraction + 1, 5.5)
            self._blend(box, self._edge(canal), 5.0)

    def _finish(self, thickness: float) -> Array:
        hu = self._hu
        for axis in (0, 1):
            shifted = 0.24 * (np.roll(hu, 1, axis) + np.roll(hu, -1, axis))
            hu = 0.52 * hu + shifted
        rng = np.random.default_rng([self._seed, round(self._z * 1000) + 10**6])
        noise = rng.standard_normal((self.rows + 2, self.columns + 2), dtype=np.float32)
        noise = noise[:-2] + 1.6 * noise[1:-1] + noise[2:]
        noise = noise[:, :-2] + 1.6 * noise[:, 1:-1] + noise[:, 2:]
        hu += noise * np.float32(2.7 * np.sqrt(2.0 / thickness))
        wide = np.exp(-(((self._z - 590) / 34) ** 2)) + 0.7 * np.exp(-(((self._z - 40) / 36) ** 2))
        if wide > 0.05:
            streaks = rng.standard_normal((self.rows, 1), dtype=np.float32) * np.float32(9 * wide)
            hu += streaks * np.exp(-(((self._y0[:, None] - 10) / 55) ** 2)) * (hu > -400)
        outside = self._x0[None, :] ** 2 + self._y0[:, None] ** 2 > (FIELD_OF_VIEW / 2) ** 2
        hu[outside] = -1024
        return np.clip(hu, -1024, 3071).astype(np.float32)

    def volume(self, *, slices: int, coverage: tuple[float, float] = Z_RANGE) -> Iterator[tuple[float, Array]]:
        """The slices from head to feet, each with its z in mm."""
        thickness = (coverage[1] - coverage[0]) / slices
        for number in range(slices):
            z = coverage[1] - (number + 0.5) * thickness
            yield z, self.slice_at(z, thickness)
