"""Photographs with a known truth, the same for the same seed: for tests, benchmarks and `make try`.

A table top in uneven light with sensor noise, soft shadows, and medical items in any direction. The noise makes the
JPEG weigh what a telephone's does: about 300 kB at 1280x960.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Canvas = NDArray[np.float32]

WIDTH, HEIGHT = 1280, 960
MAX_ITEMS = 60

# Blue, green, red of table tops that no item resembles.
_TABLES = ((158, 180, 190), (92, 74, 66), (150, 160, 146), (120, 148, 190), (70, 84, 72))
_BOXES = ((190, 110, 30), (60, 50, 190), (110, 140, 20), (160, 60, 130))


@dataclass(frozen=True)
class TrueItem:
    """One item that was drawn: its label, centre and half extents in pixels, and its turn in degrees."""

    label: str
    x: float
    y: float
    length: float
    width: float
    angle: float


@dataclass(frozen=True)
class Photograph:
    """A generated photograph as JPEG, and what is on it."""

    jpeg: bytes
    truth: tuple[TrueItem, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many of each label."""
        return dict(sorted(Counter(item.label for item in self.truth).items()))


def photograph(seed: int, items: int = 20, *, quality: int = 90, noise: float = 6.0) -> Photograph:
    """Draws one photograph.

    Raises ValueError when `items` is not within 0 and 60: more do not fit without overlapping.
    """
    if not 0 <= items <= MAX_ITEMS:
        raise ValueError(f"items must be between 0 and {MAX_ITEMS}, not {items}")
    rng = np.random.default_rng(seed)
    canvas = _table(rng)
    truth = _place(rng, items)
    for item in truth:
        _draw(canvas, item, rng)
    grain = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(noise)
    picture = np.clip(canvas + grain, 0, 255).astype(np.uint8)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not encode the generated photograph as JPEG")
    return Photograph(data.tobytes(), tuple(truth))


def _table(rng: np.random.Generator) -> Canvas:
    """The empty table: one colour under light that falls off to one side."""
    colour = np.array(_TABLES[int(rng.integers(len(_TABLES)))], np.float32) + rng.uniform(-6, 6, 3).astype(np.float32)
    across = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :] * rng.uniform(-0.08, 0.08)
    down = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None] * rng.uniform(-0.08, 0.08)
    light = (1 + across + down).astype(np.float32)
    return np.asarray(light[:, :, None] * colour[None, None, :], np.float32)


def _place(rng: np.random.Generator, items: int) -> list[TrueItem]:
    """Spreads the items over a jittered grid, so that they come close but never overlap."""
    if not items:
        return []
    columns = max(1, int(np.ceil(np.sqrt(items * WIDTH / HEIGHT))))
    rows = int(np.ceil(items / columns))
    cell_width, cell_height = WIDTH / columns, HEIGHT / rows
    scale = min(cell_width, cell_height) / 2
    cells = rng.permutation(columns * rows)[:items]
    names = list(_SHAPES)
    truth = []
    for cell in sorted(int(number) for number in cells):
        label = names[int(rng.integers(len(names)))]
        reach, slimness = _SHAPES[label][0], rng.uniform(*_SHAPES[label][1])
        # The reach is the half diagonal at most: whatever the angle, the item stays within its cell.
        radius = min(scale * 0.93, 118.0) * reach
        length = radius / float(np.hypot(1, slimness))
        slack_x, slack_y = cell_width / 2 - radius - 4, cell_height / 2 - radius - 4
        truth.append(
            TrueItem(
                label=label,
                x=(cell % columns + 0.5) * cell_width + rng.uniform(-1, 1) * max(0.0, slack_x),
                y=(cell // columns + 0.5) * cell_height + rng.uniform(-1, 1) * max(0.0, slack_y),
                length=length,
                width=length * slimness,
                angle=float(rng.uniform(0, 180)),
            )
        )
    return truth


class _Brush:
    """Draws in an item's own coordinates: x along its length and y across, both from -1 to 1."""

    def __init__(self, canvas: Canvas, item: TrueItem, shift: float = 0.0) -> None:
        self.canvas, self.item, self.shift = canvas, item, shift
        turn = np.deg2rad(item.angle)
        self.along = np.array([np.cos(turn), np.sin(turn)]) * item.length
        self.across = np.array([-np.sin(turn), np.cos(turn)]) * item.width

    def point(self, x: float, y: float) -> tuple[int, int]:
        """A point in sixteenths of a pixel, as OpenCV's `shift=4` takes it."""
        at = np.array([self.item.x, self.item.y]) + self.shift + x * self.along + y * self.across
        return round(float(at[0]) * 16), round(float(at[1]) * 16)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: tuple[float, ...]) -> None:
        """A filled rectangle."""
        corners = np.array([self.point(*at) for at in ((left, top), (right, top), (right, bottom), (left, bottom))])
        cv2.fillConvexPoly(self.canvas, corners.astype(np.int32), colour, cv2.LINE_AA, 4)

    def disc(self, x: float, y: float, radius: float, colour: tuple[float, ...]) -> None:
        """A filled circle; `radius` in units of the half width."""
        cv2.circle(
            self.canvas, self.point(x, y), int(radius * self.item.width * 16), colour, cv2.FILLED, cv2.LINE_AA, 4
        )

    def rounded(self, left: float, right: float, colour: tuple[float, ...], roundness: float = 0.4) -> None:
        """A rectangle over the whole width with round corners."""
        inset = roundness * self.item.width / self.item.length
        self.rectangle(left + inset, -1, right - inset, 1, colour)
        self.rectangle(left, -1 + roundness, right, 1 - roundness, colour)
        for x in (left + inset, right - inset):
            for y in (-1 + roundness, 1 - roundness):
                self.disc(x, y, roundness, colour)


def _vial(brush: _Brush, rng: np.random.Generator) -> None:
    """An amber glass vial on its side, with a metal cap and a highlight."""
    amber = (28 + rng.uniform(-6, 6), 92 + rng.uniform(-10, 10), 168 + rng.uniform(-12, 12))
    brush.rounded(-1, 1, amber)
    brush.rectangle(0.72, -0.7, 0.98, 0.7, (176, 178, 180))
    brush.rectangle(-0.8, -0.55, 0.6, -0.35, (90, 160, 215))


def _box(brush: _Brush, rng: np.random.Generator) -> None:
    """A printed carton with a white label."""
    colour = _BOXES[int(rng.integers(len(_BOXES)))]
    brush.rectangle(-1, -1, 1, 1, tuple(float(part) + rng.uniform(-10, 10) for part in colour))
    brush.rectangle(-0.6, -0.28, 0.6, 0.28, (232, 234, 235))


def _blister(brush: _Brush, rng: np.random.Generator) -> None:
    """A strip of foil with two rows of tablets."""
    foil = 214 + rng.uniform(-6, 6)
    brush.rectangle(-1, -1, 1, 1, (foil, foil - 2, foil - 4))
    tablet = (150.0, 120.0, 236.0) if rng.random() < 0.5 else (250.0, 250.0, 250.0)
    for x in (-0.72, -0.24, 0.24, 0.72):
        for y in (-0.45, 0.45):
            brush.disc(x, y, 0.3, (188, 188, 188))
            brush.disc(x, y, 0.24, tablet)


def _syringe(brush: _Brush, rng: np.random.Generator) -> None:
    """A pale barrel with graduations, a plunger and a blue hub."""
    brush.rectangle(-1, -1, 1, 1, (238, 232 + rng.uniform(-4, 4), 222))
    for x in (-0.5, -0.3, -0.1, 0.1, 0.3):
        brush.rectangle(x, -0.9, x + 0.02, 0.1, (120, 110, 100))
    brush.rectangle(-1, -1, -0.9, 1, (200, 120, 40))
    brush.rectangle(0.8, -1, 1, 1, (200, 120, 40))


def _bottle(brush: _Brush, rng: np.random.Generator) -> None:
    """A bottle from above: a green ring around a white cap."""
    brush.disc(0, 0, 1, (80 + rng.uniform(-8, 8), 158, 52))
    brush.disc(0, 0, 0.52, (236, 238, 238))


# Per label: its size as a part of the cell, width over length, and how it is drawn.
_SHAPES: dict[str, tuple[float, tuple[float, float], Callable[[_Brush, np.random.Generator], None]]] = {
    "blister": (0.95, (0.58, 0.68), _blister),
    "bottle": (0.85, (1.0, 1.0), _bottle),
    "box": (1.0, (0.66, 0.8), _box),
    "syringe": (1.0, (0.15, 0.19), _syringe),
    "vial": (0.75, (0.42, 0.5), _vial),
}


def _draw(canvas: Canvas, item: TrueItem, rng: np.random.Generator) -> None:
    """Draws the soft shadow, then the item."""
    reach = int(np.hypot(item.length, item.width)) + 14
    left, top = max(0, int(item.x) - reach), max(0, int(item.y) - reach)
    part = canvas[top : int(item.y) + reach, left : int(item.x) + reach]
    shade = np.zeros(part.shape[:2], np.float32)
    moved = TrueItem(item.label, item.x - left, item.y - top, item.length, item.width, item.angle)
    shadow = _Brush(shade, moved, shift=3.0)
    if item.label == "bottle":
        shadow.disc(0, 0, 1, (1.0,))
    else:
        shadow.rectangle(-1, -1, 1, 1, (1.0,))
    part *= 1 - 0.09 * cv2.GaussianBlur(shade, (0, 0), 2.5)[:, :, None]
    _SHAPES[item.label][2](_Brush(canvas, item), rng)
