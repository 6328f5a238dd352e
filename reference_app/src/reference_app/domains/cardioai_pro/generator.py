"""Draws ECGs whose truth is known: for the demonstration, the tests and the benchmark. No model of a heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference_app.domains.cardioai_pro.recording import Recording, Samples
from reference_app.domains.cardioai_pro.rhythm import BRADYCARDIA, IRREGULAR, NORMAL, PAUSE, TACHYCARDIA

KINDS = (NORMAL, BRADYCARDIA, TACHYCARDIA, IRREGULAR, PAUSE)
_RATES = {NORMAL: (65, 95), BRADYCARDIA: (35, 54), TACHYCARDIA: (110, 180), IRREGULAR: (80, 120), PAUSE: (60, 90)}
# Of each wave: seconds from the R peak at one beat a second, height in mV, width in seconds, whether the place follows
# the rate (the heart's own delays are fixed, filling and recovery get shorter).
_WAVES = (
    (-0.17, 0.13, 0.022, True),
    (-0.028, -0.12, 0.009, False),
    (0.0, 1.1, 0.011, False),
    (0.03, -0.28, 0.011, False),
    (0.27, 0.3, 0.05, True),
)
_FIBRILLATION = (5.3, 6.9)
_EDGE = 0.04


@dataclass(frozen=True)
class Drawn:
    """A drawn segment, and the truth: places of its beats, beats a minute, and the class."""

    recording: Recording
    beats: list[int]
    heart_rate: float
    rhythm: str


def draw(
    seed: int,
    rhythm: str = NORMAL,
    heart_rate: float | None = None,
    noise: float = 0.02,
    wander: float = 0.2,
    mains: float = 0.0,
    rate: float = 500.0,
    seconds: float = 10.0,
) -> Drawn:
    """A segment, the same for the same arguments.

    :param heart_rate: beats a minute; default: one that fits the class, chosen by the seed.
    :param noise: standard deviation of white noise, in mV.
    :param wander: height of the baseline's slow wander, in mV.
    :param mains: height of 50 Hz hum, in mV.
    :param rate: samples a second.
    """
    random = np.random.default_rng(seed)
    pace = heart_rate or float(random.uniform(*_RATES[rhythm]))
    moments = _moments(random, rhythm, 60 / pace, seconds)
    time = np.arange(round(seconds * rate)) / rate
    samples = _beats(time, moments, 60 / pace, atria=rhythm != IRREGULAR) * random.uniform(0.8, 1.3)
    if rhythm == IRREGULAR:
        for frequency in _FIBRILLATION:
            samples += 0.04 * np.sin(2 * np.pi * (frequency * time + random.uniform()))
    for frequency in (0.05, 0.15, 0.3):
        samples += wander / 2 * np.sin(2 * np.pi * (frequency * time + random.uniform()))
    samples += mains * np.sin(2 * np.pi * (50 * time + random.uniform()))
    samples += random.normal(0, noise, len(time))
    # Of a beat at the very edge the segment shows no peak.
    inside = moments[(moments >= _EDGE) & (moments < seconds - _EDGE)]
    return Drawn(
        recording=Recording(np.round(samples, 3), rate),
        beats=np.round(inside * rate).astype(int).tolist(),
        heart_rate=round(60 / float(np.diff(inside).mean()), 1),
        rhythm=rhythm,
    )


def _moments(random: np.random.Generator, rhythm: str, interval: float, seconds: float) -> Samples:
    """When the heart beats, in seconds, from before the start until after the end."""
    # So many at the least, whatever chance makes of them; the shortest interval below is 0.25 s.
    count = int((seconds + 3 * interval) / min(interval, 0.5)) * 2 + 4
    if rhythm == IRREGULAR:
        intervals = interval * np.clip(random.normal(1, 0.23, count), 0.55, 1.6)
    else:
        breathing = 0.02 * np.sin(2 * np.pi * 0.25 * interval * np.arange(count) + random.uniform(0, 6))
        intervals = interval * (1 + breathing + random.normal(0, 0.008, count))
    intervals = np.maximum(intervals, 0.25)
    if rhythm == PAUSE:
        # Behind the third to the fifth beat, so that there are beats on both sides of it.
        intervals[int(random.integers(3, 6))] = max(random.uniform(2.5, 3.5), 2.2 * interval)
    start = -interval + random.uniform(0.05, 0.95) * interval
    return np.asarray(start + np.concatenate(([0.0], np.cumsum(intervals))))


def _beats(time: Samples, moments: Samples, interval: float, atria: bool) -> Samples:
    shift = float(np.sqrt(min(interval, 1.2)))
    samples = np.zeros_like(time)
    for place, height, width, follows in _WAVES:
        if place < -0.1 and not atria:
            continue
        offset = place * (shift if follows else 1)
        spread = width * (min(1.0, shift) if follows else 1)
        centre = moments[:, None] + offset
        near = np.abs(time - centre) < 5 * spread
        samples += (height * np.exp(-0.5 * ((time - centre) / spread) ** 2) * near).sum(axis=0)
    return samples
