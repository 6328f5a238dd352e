"""The model file of Medical Inventory: how items are told from the table, and which shape and colour has which name."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from reference_app.problems import ModelProblem

FORMAT = 1
KIND = "medical_inventory"
# Per feature: the range that a bound may have, and how far outside its bounds an item still scores something.
_FEATURES: dict[str, tuple[float, float, float]] = {
    "aspect": (1, 100, 0.25),
    "fill": (0, 1, 0.06),
    "chroma": (0, 180, 8),
    "hue": (0, 360, 20),
    "area": (0, 1, 0.01),
}
_SEGMENTATION: dict[str, tuple[float, float]] = {
    "side": (160, 2000),
    "contrast": (1, 200),
    "chroma_weight": (0, 10),
    "min_area": (0.00001, 1),
    "max_area": (0.00001, 1),
    "split_below": (0, 1),
}


@dataclass(frozen=True)
class Label:
    """One kind of item, by the bounds of its features."""

    name: str
    bounds: dict[str, tuple[float, float]]

    def score(self, features: dict[str, float]) -> float:
        """How well an item fits, from 0 to 1: 1 within all bounds, falling with the distance outside each."""
        score = 1.0
        for name, (low, high) in self.bounds.items():
            value = features[name]
            outside = max(low - value, value - high, 0.0)
            if name == "hue" and outside:
                # Hue is an angle: 359 lies next to 1.
                outside = min(outside, max(low - value - 360, value + 360 - high, 0.0), abs(low - (value - 360)))
            score *= math.exp(-((outside / _FEATURES[name][2]) ** 2))
        return score


@dataclass(frozen=True)
class Model:
    """A model as read: its version, the settings of the segmentation, the labels, and the least score for a name."""

    version: str
    side: int
    contrast: float
    chroma_weight: float
    min_area: float
    max_area: float
    split_below: float
    min_score: float
    labels: tuple[Label, ...]

    def classify(self, features: dict[str, float]) -> tuple[str, float]:
        """The label that fits best and its score; `unknown` when none reaches the least score."""
        name, score = max(((label.name, label.score(features)) for label in self.labels), key=lambda pair: pair[1])
        return (name, score) if score >= self.min_score else ("unknown", score)


def parse(text: bytes) -> Model:
    """Reads a model file; raises ModelProblem with one sentence for whatever is wrong with it."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelProblem(f"model.json is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelProblem("model.json holds no object")
    if raw.get("format") != FORMAT or raw.get("kind") != KIND:
        raise ModelProblem(
            f"model.json is format {raw.get('format')!r} of kind {raw.get('kind')!r}; this application reads format "
            f"{FORMAT} of kind {KIND!r}"
        )
    version = raw.get("version")
    if not isinstance(version, str) or not version or len(version) > 100:
        raise ModelProblem("model.json needs a version, a string of 1 to 100 characters")
    segmentation = _object(raw, "segmentation")
    numbers = {key: _number(segmentation, f"segmentation.{key}", *bounds) for key, bounds in _SEGMENTATION.items()}
    if numbers["min_area"] >= numbers["max_area"]:
        raise ModelProblem("model.json: segmentation.min_area must be below segmentation.max_area")
    labels = _object(raw, "labels")
    if not 1 <= len(labels) <= 200:
        raise ModelProblem(f"model.json needs 1 to 200 labels and has {len(labels)}")
    return Model(
        version=version,
        side=int(numbers.pop("side")),
        min_score=_number(raw, "min_score", 0, 1),
        labels=tuple(_label(name, labels[name]) for name in sorted(labels)),
        **numbers,
    )


def built_in() -> Model:
    """The model inside the package, for a model volume that is still empty."""
    return parse(files(__package__).joinpath("model.json").read_bytes())


def _object(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if not isinstance(value, dict):
        raise ModelProblem(f"model.json: {key} must be an object")
    return value


def _number(raw: dict[str, Any], where: str, low: float, high: float) -> float:
    value = raw.get(where.rpartition(".")[2])
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ModelProblem(f"model.json: {where} must be a number from {low:g} to {high:g}, not {value!r}"[:300])
    return float(value)


def _label(name: str, raw: Any) -> Label:
    if not name or len(name) > 60 or name == "unknown":
        raise ModelProblem(f"model.json: {name[:60]!r} cannot be the name of a label")
    if not isinstance(raw, dict) or not raw:
        raise ModelProblem(f"model.json: labels.{name} must be an object with at least one feature")
    bounds = {}
    for feature, pair in raw.items():
        if feature not in _FEATURES:
            raise ModelProblem(
                f"model.json: labels.{name}.{feature} is no feature; there are {', '.join(sorted(_FEATURES))}"[:300]
            )
        low, high, _ = _FEATURES[feature]
        if not isinstance(pair, list) or len(pair) != 2:
            raise ModelProblem(f"model.json: labels.{name}.{feature} must be a pair of numbers")
        first, second = (_number({"": part}, "", low, high) for part in pair)
        if first > second:
            raise ModelProblem(f"model.json: labels.{name}.{feature} has its bounds the wrong way round")
        bounds[feature] = (first, second)
    return Label(name, bounds)
