"""Finds the beats of an ECG: Pan and Tompkins' method (IEEE Trans. Biomed. Eng. 32(3), 1985) on a whole segment.

The band in which a QRS complex has its energy, its slope, squared and averaged over the width of a complex, gives a
curve with one hump for each beat. Two running levels, of what were beats and of what was noise, set the threshold; a
hump soon after a beat and less steep is its T wave; where a beat seems to be missing, a lower threshold looks again.
The segment is there as a whole, so the filters shift nothing and the first levels come from all of it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, find_peaks, sosfiltfilt

from reference_app.domains.cardioai_pro.recording import Samples

Places = NDArray[np.intp]

_BAND = (5.0, 15.0)
_WINDOW, _REFRACTORY, _T_WAVE = 0.15, 0.2, 0.36
_NEAR = 0.08
"""Seconds around a hump's summit in which the R peak lies."""
_MISSED = 1.66
"""Mean intervals without a beat after which one is looked for."""
_SHAPE = 0.08


def find_beats(samples: Samples, rate: float) -> Places:
    """The places of the R peaks, rising."""
    band = sosfiltfilt(_filter(rate, *_BAND), samples)
    # The ends are continued as they are: a step down to zero would be the steepest slope of all.
    slope = np.convolve(np.pad(band, 2, "edge"), np.array([1, 2, 0, -2, -1]) * rate / 8, "valid")
    energy = _mean(slope**2, max(1, round(_WINDOW * rate)))
    summits, _ = find_peaks(energy, distance=max(1, round(_REFRACTORY * rate)))
    chosen = _choose(summits, energy, np.abs(slope), rate)
    reach = round(_NEAR * rate)
    found = [_summit(np.abs(band), place - reach, place + reach + 1) for place in chosen]
    return np.array(sorted(set(found)), np.intp)


def quality(samples: Samples, rate: float, beats: Places) -> float:
    """How alike the beats are, from 0 (chance) to 1: the median correlation of each with the median beat."""
    reach = round(_SHAPE * rate)
    inside = beats[(beats >= reach) & (beats < len(samples) - reach)]
    if len(inside) < 2:
        return 0.0
    smooth = sosfiltfilt(_filter(rate, 1.0, min(40.0, 0.4 * rate)), samples)
    shapes = smooth[inside[:, None] + np.arange(-reach, reach + 1)]
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    usual = np.median(shapes, axis=0)
    size = np.linalg.norm(shapes, axis=1) * np.linalg.norm(usual)
    alike = shapes @ usual / np.maximum(size, 1e-12)
    return float(np.clip(np.median(alike), 0, 1))


@lru_cache(maxsize=16)
def _filter(rate: float, low: float, high: float) -> NDArray[np.float64]:
    return np.asarray(butter(2, (low, high), "bandpass", fs=rate, output="sos"))


def _mean(values: Samples, width: int) -> Samples:
    return np.convolve(values, np.full(width, 1 / width), "same")


def _summit(values: Samples, low: int, high: int) -> int:
    low = max(0, low)
    return low + int(np.argmax(values[low:high]))


def _choose(summits: Places, energy: Samples, steepness: Samples, rate: float) -> list[int]:
    """Which humps are beats."""
    if not len(summits):
        return []
    heights = energy[summits]
    signal, noise = _first_levels(energy, heights, rate)
    # One movement of the electrode must not hide the beats that follow.
    heights = np.minimum(heights, 3 * signal)
    slopes = [float(steepness[max(0, place - round(_NEAR * rate)) : place + round(_NEAR * rate) + 1].max())
              for place in summits]  # fmt: skip
    beats: list[int] = []
    passed: list[int] = []
    for number, height in enumerate(heights):
        threshold = noise + 0.25 * (signal - noise)
        missed = _look_back(summits, heights, beats, passed, int(summits[number]), threshold / 2, rate)
        if missed is not None:
            beats.append(missed)
            signal = 0.25 * heights[missed] + 0.75 * signal
        is_t_wave = (
            beats and summits[number] - summits[beats[-1]] < _T_WAVE * rate and slopes[number] < 0.5 * slopes[beats[-1]]
        )
        if height > threshold and not is_t_wave:
            beats.append(number)
            passed = []
            signal = 0.125 * height + 0.875 * signal
        else:
            if not is_t_wave:
                passed.append(number)
            noise = 0.125 * height + 0.875 * noise
    missed = _look_back(summits, heights, beats, passed, len(energy), (noise + 0.25 * (signal - noise)) / 2, rate)
    if missed is not None:
        beats.append(missed)
    return [int(summits[number]) for number in beats]


def _first_levels(energy: Samples, heights: Samples, rate: float) -> tuple[float, float]:
    """What beats and noise reach: the median of the highest in each two seconds, and of the humps far below it."""
    width = round(2 * rate)
    highest = [float(energy[start : start + width].max()) for start in range(0, len(energy) - width // 2, width)]
    # The upper half: a pause has windows without a beat.
    signal = float(np.median(sorted(highest)[len(highest) // 2 :]))
    low = heights[heights < 0.2 * signal]
    return signal, float(np.median(low)) if len(low) else 0.0


def _look_back(
    summits: Places, heights: Samples, beats: list[int], passed: list[int], now: int, threshold: float, rate: float
) -> int | None:
    """The highest hump that was passed over, when the last beat is too long ago."""
    intervals = np.diff(summits[beats[-9:]])
    if len(intervals) < 2 or now - summits[beats[-1]] < _MISSED * intervals.mean():
        return None
    after = summits[beats[-1]] + _T_WAVE * rate
    candidates = [one for one in passed if one > beats[-1] and summits[one] > after and heights[one] > threshold]
    passed.clear()
    return max(candidates, key=lambda one: float(heights[one]), default=None)
