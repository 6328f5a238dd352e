"""What the beats of a segment say: heart rate, intervals, their variability, and the rhythm's class.

The classes are those of a first look at a strip, for a stand-in: no diagnosis. Limits: bradycardia below 60 and
tachycardia above 100 beats a minute; a pause is two seconds without a beat that a beat was due in; irregular, as in
atrial fibrillation, is when most intervals differ from the one before, which one early beat does not make.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_app.domains.cardioai_pro import beats as detector
from reference_app.domains.cardioai_pro.recording import Recording

NORMAL, BRADYCARDIA, TACHYCARDIA, IRREGULAR, PAUSE, UNCLEAR = RHYTHMS = (
    "normal",
    "bradycardia",
    "tachycardia",
    "irregular",
    "pause",
    "unclear",
)
_SLOW, _FAST = 60.0, 100.0
_PAUSE, _LONGER = 2.0, 1.6
"""A pause: at least so many seconds, and so many usual intervals: all intervals of a slow heart are long."""
_CHANGE = 0.08
"""Irregular: the median change from one interval to the next, as a part of the median interval."""
_ALIKE = 0.8
"""The least quality: what is found in mere noise reaches 0.75, beats in as much noise as is bearable 0.95."""


@dataclass(frozen=True)
class Analysis:
    """Of a segment: R peaks (samples), beats a minute (None where unclear), class, confidence and quality (0 to 1).

    `rr` and `hrv` are in milliseconds, `pnn50` is a part of all; they are empty where there is no rate.
    """

    beats: list[int]
    heart_rate: float | None
    rhythm: str
    confidence: float
    quality: float
    rr: dict[str, float]
    hrv: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """As the API shows it."""
        return dict(vars(self))


def analyse(recording: Recording) -> Analysis:
    """Analyses a segment."""
    found = detector.find_beats(recording.samples, recording.rate)
    quality = round(detector.quality(recording.samples, recording.rate, found), 3)
    intervals = np.diff(found) / recording.rate
    if not len(intervals) or quality < _ALIKE:
        # What was found is no row of beats, so it has no rate either.
        certainty = _beyond(quality, _ALIKE, 0.1) if len(intervals) else 0.5
        return Analysis(found.tolist(), None, UNCLEAR, round(certainty, 2), quality, {}, {})
    name, certainty = classify(intervals, _longest(found, intervals, recording))
    # Few beats prove little: a quarter of the certainty is left open after two intervals, none to speak of after ten.
    confidence = round(quality * certainty * (1 - 0.5 ** len(intervals)), 2)
    rate = round(60 / float(intervals.mean()), 1)
    return Analysis(found.tolist(), rate, name, confidence, quality, _rr(intervals), _hrv(intervals))


def classify(intervals: NDArray[np.float64], longest: float) -> tuple[str, float]:
    """The rhythm's class, and how far from its limits it is, 0.5 to 1.

    :param intervals: between beats, in seconds.
    :param longest: seconds without a beat, the segment's ends included.
    """
    usual = float(np.median(intervals))
    changes = np.abs(np.diff(intervals))
    change = float(np.median(changes)) / usual if len(changes) >= 3 else 0.0
    rate = 60 / float(intervals.mean())
    if longest >= max(_PAUSE, _LONGER * usual):
        return PAUSE, _beyond(longest, max(_PAUSE, _LONGER * usual), 0.25)
    if change >= _CHANGE:
        return IRREGULAR, _beyond(change, _CHANGE, 0.03)
    steady = _beyond(change, _CHANGE, 0.03)
    if rate > _FAST:
        return TACHYCARDIA, min(steady, _beyond(rate, _FAST, 5))
    if rate < _SLOW:
        return BRADYCARDIA, min(steady, _beyond(rate, _SLOW, 3))
    return NORMAL, min(steady, _beyond(rate, _FAST, 5), _beyond(rate, _SLOW, 3))


def _beyond(value: float, limit: float, scale: float) -> float:
    """Half at the limit, nearly one a few scales away from it."""
    return 1 - 0.5 * math.exp(-abs(value - limit) / scale)


def _longest(found: NDArray[np.intp], intervals: NDArray[np.float64], recording: Recording) -> float:
    ends = (float(found[0]), float(len(recording.samples) - found[-1]))
    return max(float(intervals.max()), *(end / recording.rate for end in ends))


def _rr(intervals: NDArray[np.float64]) -> dict[str, float]:
    milliseconds = intervals * 1000
    return {
        "mean": round(float(milliseconds.mean()), 1),
        "median": round(float(np.median(milliseconds)), 1),
        "min": round(float(milliseconds.min()), 1),
        "max": round(float(milliseconds.max()), 1),
    }


def _hrv(intervals: NDArray[np.float64]) -> dict[str, float]:
    """Time-domain measures; the spectral ones need minutes."""
    if len(intervals) < 3:
        return {}
    milliseconds = intervals * 1000
    changes = np.diff(milliseconds)
    return {
        "sdnn": round(float(milliseconds.std(ddof=1)), 1),
        "rmssd": round(float(np.sqrt((changes**2).mean())), 1),
        "pnn50": round(float((np.abs(changes) > 50).mean()), 3),
    }
