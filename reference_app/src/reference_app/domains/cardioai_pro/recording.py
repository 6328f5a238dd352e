"""An ECG segment as uploaded: JSON, CSV or plain 16-bit numbers, read within limits into millivolts."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reference_app.problems import Problem
from reference_app.uploads import ANY

JSON, CSV, BINARY = "application/json", "text/csv", ANY
LARGEST = 1 << 20
"""Bytes of an upload: a minute at 1000 Hz as CSV with times."""
RATES = (100, 1000)
"""Samples a second: below, the slope of a beat is lost; above, nothing is gained."""
SECONDS = (5, 60)
_HIGHEST = 30.0
"""Millivolts. No electrode sees more, and it is what 16 bits of microvolts hold."""
_UNITS = {"mv": 1.0, "uv": 0.001, "µv": 0.001}
_SPLIT = re.compile(r"[,;\t]")
# One part in fifty: clocks of recorders drift, but a column that is no time at all varies more.
_UNEVEN = 0.02

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """A segment of one lead: millivolts, samples a second."""

    samples: Samples
    rate: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate

    def packed(self) -> bytes:
        """As stored and as BINARY: microvolts, signed 16 bits, little-endian."""
        return np.round(self.samples * 1000).astype("<i2").tobytes()


def unpack(data: bytes, rate: float) -> Recording:
    """What was packed."""
    return Recording(np.frombuffer(data, "<i2") / 1000.0, rate)


def read(data: bytes, media_type: str, rate: float | None = None, unit: str = "mV") -> Recording:
    """Reads an upload; raises Problem 400 or 422.

    :param rate: samples a second, where the data do not say; default 500.
    :param unit: mV or uV, where the data do not say; BINARY is always in microvolts.
    """
    if not data:
        raise Problem(400, "ecg_empty", "the ECG has zero bytes")
    if media_type == JSON:
        samples, rate, unit = _read_json(data, rate, unit)
    elif media_type == CSV:
        samples, rate = _read_csv(data, rate)
    else:
        samples, unit = _read_binary(data), "uV"
    return _check(samples, 500.0 if rate is None else rate, unit)


def _check(samples: Samples, rate: float, unit: str) -> Recording:
    scale = _UNITS.get(unit.lower())
    if scale is None:
        raise Problem(422, "ecg_unit", f"the unit must be mV or uV, not {unit[:20]!r}")
    if not RATES[0] <= rate <= RATES[1]:
        raise Problem(422, "ecg_sample_rate", f"the sample rate must be from {RATES[0]} to {RATES[1]} Hz, not {rate:g}")
    seconds = len(samples) / rate
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        raise Problem(
            422,
            "ecg_length",
            f"the ECG must have {SECONDS[0]} to {SECONDS[1]} seconds; {len(samples)} samples at {rate:g} Hz are "
            f"{seconds:.1f} s",
        )
    if not np.isfinite(samples).all():
        first = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise Problem(422, "ecg_not_finite", f"sample {first} is no number")
    samples = samples * scale
    highest = float(np.abs(samples).max())
    if highest > _HIGHEST:
        raise Problem(
            422, "ecg_amplitude", f"the ECG reaches {highest:g} mV, which no electrode sees: is its unit {unit}?"
        )
    if np.ptp(samples) < 0.01:
        raise Problem(422, "ecg_flat", "the ECG is a flat line: is the electrode connected?")
    return Recording(samples, float(rate))


def _read_json(data: bytes, rate: float | None, unit: str) -> tuple[Samples, float | None, str]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "ecg_not_json", f"the ECG is not JSON: {error}"[:200]) from None
    if isinstance(value, list):
        value = {"samples": value}
    if not isinstance(value, dict) or not isinstance(value.get("samples"), list):
        raise Problem(422, "ecg_json", "the JSON must be a list of numbers, or an object with the list `samples`")
    rate = value.get("sample_rate", rate)
    if isinstance(rate, bool) or not isinstance(rate, int | float | None):
        raise Problem(422, "ecg_sample_rate", f"sample_rate must be a number, not {rate!r}"[:200])
    found = value["samples"]
    for place, sample in enumerate(found):
        if isinstance(sample, bool) or not isinstance(sample, int | float):
            raise Problem(422, "ecg_json", f"samples[{place}] must be a number, not {sample!r}"[:200])
    try:
        samples = np.array(found, np.float64)
    except OverflowError:
        raise Problem(422, "ecg_amplitude", "a sample is larger than any number that can be a voltage") from None
    return samples, rate, str(value.get("unit", unit))


def _read_csv(data: bytes, rate: float | None) -> tuple[Samples, float | None]:
    """One column of voltages, or times and voltages; the first line may name them."""
    lines = data.decode("utf-8-sig", "replace").splitlines()
    rows = [_SPLIT.split(line) for line in lines if line.strip() and not line.startswith("#")]
    header = rows.pop(0) if rows and _number(rows[0][-1]) is None else []
    columns = len(rows[0]) if rows else 0
    if columns not in (1, 2):
        raise Problem(422, "ecg_csv", f"the CSV must have one column (voltage) or two (time, voltage), not {columns}")
    values = np.empty((len(rows), columns))
    for place, row in enumerate(rows):
        numbers = [_number(field) for field in row]
        if len(numbers) != columns or None in numbers:
            raise Problem(422, "ecg_csv", f"row {place + 1} of the CSV must be {columns} number(s), not {row!r}"[:200])
        values[place] = numbers
    if columns == 2:
        rate = _rate_of(values[:, 0], milliseconds=bool(header) and "ms" in header[0].lower())
    return values[:, -1], rate


def _rate_of(times: Samples, milliseconds: bool) -> float:
    steps = np.diff(times) / (1000 if milliseconds else 1)
    step = float(steps.mean()) if len(steps) else 0.0
    # Not the mean of the differences alone: times are often rounded, so that single steps vary.
    drift = np.abs(np.cumsum(steps - step)).max() if len(steps) else math.inf
    if not (math.isfinite(step) and step > 0) or drift > max(1.0, _UNEVEN * len(steps)) * step:
        raise Problem(422, "ecg_time", "the CSV's times must rise evenly, in seconds (or in a column named ms)")
    return round(1 / step, 2)


def _read_binary(data: bytes) -> Samples:
    if len(data) % 2:
        raise Problem(422, "ecg_binary", "the binary ECG must be whole 16-bit numbers, and has an odd number of bytes")
    return np.frombuffer(data, "<i2").astype(np.float64)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
