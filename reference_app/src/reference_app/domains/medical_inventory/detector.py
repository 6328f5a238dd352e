"""Finds, counts and names the items on a photograph.

The table is what most of the picture looks like: a smooth surface fitted to a coarse copy, robustly, so that light
falling off to one side is table too. What differs from it is an item; items that touch are split at the narrowest
place; shape and colour of each decide its name by the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from reference_app.domains.medical_inventory.model import Model
from reference_app.domains.medical_inventory.photograph import Header, Image, decode

MAX_ITEMS = 1000
_GRID = (40, 30)


@dataclass(frozen=True)
class Item:
    """One item: label, confidence from 0 to 1, bounding box in pixels of the photograph, turn in degrees."""

    label: str
    confidence: float
    x: int
    y: int
    width: int
    height: int
    angle: float

    def as_dict(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "label": self.label,
            "confidence": self.confidence,
            "box": {"x": self.x, "y": self.y, "width": self.width, "height": self.height},
            "angle": self.angle,
        }


def detect(data: bytes | bytearray, header: Header, model: Model) -> list[Item]:
    """Decodes the photograph and returns its items from top to bottom, left to right."""
    picture = decode(data, header, model.side)
    # The longer sides correspond even where the camera's orientation mark has turned the picture.
    factor = max(header.width, header.height) / max(picture.shape[:2])
    lab = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2LAB), np.uint8)
    mask = _foreground(lab, model)
    return sorted(_items(lab, mask, model, factor), key=lambda item: (item.y, item.x))


def _foreground(lab: Image, model: Model) -> Image:
    """255 where the picture differs from the table by more than the model's contrast."""
    height, width = lab.shape[:2]
    table = np.clip(_table(lab), 0, 255).astype(np.uint8)
    difference = cv2.blur(cv2.absdiff(lab, cv2.resize(table, (width, height), interpolation=cv2.INTER_LINEAR)), (3, 3))
    colour = model.contrast / max(model.chroma_weight, 0.01)
    # Eight bits stretch the lightness from 100 to 255 steps.
    mask = cv2.bitwise_not(cv2.inRange(difference, (0, 0, 0), (model.contrast * 2.55, colour, colour)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel)
    # What is drawn on an item may resemble the table: an item is all that its outline encloses.
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(mask, outlines, -1, 255, cv2.FILLED)
    return np.asarray(mask, np.uint8)


def _table(lab: Image) -> NDArray[np.float32]:
    """The table's colour on a coarse grid: a quadratic surface fitted to the cells that agree with it.

    It starts from the most frequent colour, so that items may cover up to about half of the picture.
    """
    cells = cv2.resize(lab, _GRID, interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    across, down = np.meshgrid(np.linspace(-1, 1, _GRID[0]), np.linspace(-1, 1, _GRID[1]))
    x, y = across.ravel(), down.ravel()
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=1)
    agrees = np.abs(cells - _most_frequent(cells)).max(axis=1) < 14
    surface = cells
    for reach in (9.0, 6.0, 5.0):
        # Few cells carry a plain colour only: a curved surface through them would swing.
        used = terms if agrees.sum() > 200 else terms[:, :1]
        weights, *_ = np.linalg.lstsq(used[agrees], cells[agrees], rcond=None)
        surface = used @ weights
        agrees = np.abs(cells - surface).max(axis=1) < reach
        if agrees.sum() < 20:
            break
    return np.asarray(surface.reshape(_GRID[1], _GRID[0], 3), np.float32)


def _most_frequent(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle of the fullest bin of colours, by its cells' median."""
    bins = np.floor(cells / 12).astype(np.int64)
    keys = bins[:, 0] * 10_000 + bins[:, 1] * 100 + bins[:, 2]
    values, counts = np.unique(keys, return_counts=True)
    return np.asarray(np.median(cells[keys == values[counts.argmax()]], axis=0), np.float32)


def _items(lab: Image, mask: Image, model: Model, factor: float) -> list[Item]:
    total = float(mask.size)
    found: list[Item] = []
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        area = cv2.contourArea(outline) / total
        if not model.min_area <= area <= model.max_area:
            continue
        found += _best(lab, outline, model, factor)
        if len(found) >= MAX_ITEMS:
            return found[:MAX_ITEMS]
    return found


def _best(lab: Image, outline: Any, model: Model, factor: float) -> list[Item]:
    """The outline as one item, or as several that touch when they look more like items than the whole does."""
    total = float(lab.shape[0] * lab.shape[1])
    whole = _item(lab, outline, model, factor, total)
    if whole.confidence >= model.min_score:
        return [whole]
    parts = [part for part in _split(outline, model) if cv2.contourArea(part) / total >= model.min_area]
    apart = [_item(lab, part, model, factor, total) for part in parts]
    if len(apart) > 1 and sum(item.confidence for item in apart) / len(apart) > whole.confidence:
        return apart
    return [whole]


def _split(outline: Any, model: Model) -> list[Any]:
    """Splits an outline that is not convex, as several items that touch have; else it is one item."""
    hull = cv2.contourArea(cv2.convexHull(outline))
    if not hull or cv2.contourArea(outline) / hull >= model.split_below:
        return [outline]
    left, top, width, height = cv2.boundingRect(outline)
    alone = np.zeros((height + 2, width + 2), np.uint8)
    cv2.drawContours(alone, [outline], -1, 255, cv2.FILLED, offset=(1 - left, 1 - top))
    depth = cv2.distanceTransform(alone, cv2.DIST_L2, 5)
    cores = np.where(depth > 0.6 * depth.max(), np.uint8(255), np.uint8(0))
    count, _ = cv2.connectedComponents(cores)
    if count <= 2:
        return [outline]
    # Each pixel belongs to the core that is nearest, which cuts at the narrowest place between two.
    _, nearest = cv2.distanceTransformWithLabels(255 - cores, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    parts: list[Any] = []
    for number in range(1, count):
        own = np.where((alone > 0) & (nearest == number), np.uint8(255), np.uint8(0))
        parts += cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left - 1, top - 1))[0]
    return parts or [outline]


def _item(lab: Image, outline: Any, model: Model, factor: float, total: float) -> Item:
    (_, _), sides, angle = cv2.minAreaRect(outline)
    # A contour runs through the middle of its pixels: half a pixel is missing on each side.
    longer, shorter = max(sides) + 1, min(sides) + 1
    left, top, width, height = cv2.boundingRect(outline)
    alone = np.zeros((height, width), np.uint8)
    cv2.drawContours(alone, [outline], -1, 255, cv2.FILLED, offset=(-left, -top))
    area = int(np.count_nonzero(alone))
    # The rim is half table: colour is taken inside.
    inner = cv2.erode(alone, np.ones((5, 5), np.uint8))
    pixels = lab[top : top + height, left : left + width][(inner if inner.any() else alone) > 0]
    a, b = (float(value) - 128 for value in np.median(pixels[:, 1:], axis=0))
    features = {
        "aspect": longer / shorter,
        "fill": min(1.0, area / (longer * shorter)),
        "chroma": math.hypot(a, b),
        "hue": math.degrees(math.atan2(b, a)) % 360,
        "area": area / total,
    }
    label, score = model.classify(features)
    turn = angle + (90 if sides[1] > sides[0] else 0)
    x, y, across, down = (round(value * factor) for value in (left, top, width, height))
    return Item(label, round(score, 3), x, y, across, down, round(turn % 180, 1))
