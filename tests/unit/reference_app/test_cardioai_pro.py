"""Cardio.AI.Pro without stores: ECGs of known truth, what is read and what refused, the page and its policy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_app.domains.cardioai_pro.generator import KINDS, draw
from reference_app.domains.cardioai_pro.recording import CSV, JSON, Recording, read, unpack
from reference_app.domains.cardioai_pro.rhythm import analyse, classify
from reference_app.problems import Problem

from tests.support.application import Site

CONDITIONS = {
    "clean": {"noise": 0.0, "wander": 0.0},
    "usual": {"noise": 0.02, "wander": 0.2},
    "wandering": {"noise": 0.03, "wander": 1.5},
    "noisy": {"noise": 0.1, "wander": 0.5, "mains": 0.1},
}
STATIC = Path(__file__).resolve().parents[3] / "reference_app/src/reference_app/domains/cardioai_pro/static"


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("heart_rate", [30, 45, 60, 75, 100, 140, 180, 220])
def test_the_heart_rate_is_within_two_beats_a_minute(heart_rate: int, condition: str) -> None:
    for seed in range(12):
        drawn = draw(seed, heart_rate=heart_rate, **CONDITIONS[condition])
        found = analyse(drawn.recording).heart_rate
        assert found is not None
        assert abs(found - drawn.heart_rate) < 2, seed


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("rhythm", KINDS)
def test_every_rhythm_is_told(rhythm: str, condition: str) -> None:
    for seed in range(100, 125):
        drawn = draw(seed, rhythm, **CONDITIONS[condition])
        found = analyse(drawn.recording)
        assert (found.rhythm, found.confidence > 0.5) == (rhythm, True), (seed, found)


@pytest.mark.parametrize("rate", [100, 250, 360, 1000])
@pytest.mark.parametrize("rhythm", KINDS)
def test_other_sample_rates_do_as_well(rhythm: str, rate: int) -> None:
    for seed in range(200, 206):
        drawn = draw(seed, rhythm, rate=rate, seconds=20)
        found = analyse(drawn.recording)
        assert found.rhythm == rhythm, seed
        assert abs((found.heart_rate or 0) - drawn.heart_rate) < 2, seed


def test_beats_are_where_they_were_drawn_upside_down_too() -> None:
    drawn = draw(3, heart_rate=80, noise=0.05, wander=0.5)
    for sign in (1, -1):
        found = analyse(Recording(sign * drawn.recording.samples, 500)).beats
        assert len(found) == len(drawn.beats)
        assert np.abs(np.array(found) - drawn.beats).max() <= 10, "20 ms"


def test_tall_t_waves_are_not_counted() -> None:
    drawn = draw(5, heart_rate=70, noise=0.02)
    time = np.arange(5000)
    samples = drawn.recording.samples.copy()
    for beat in drawn.beats:
        samples += 0.9 * np.exp(-0.5 * ((time - beat - 140) / 25) ** 2)
    found = analyse(Recording(samples, 500)).heart_rate
    assert found == pytest.approx(drawn.heart_rate, abs=2)


def test_a_moved_electrode_does_not_hide_the_beats_after_it() -> None:
    drawn = draw(6, heart_rate=75)
    samples = drawn.recording.samples.copy()
    middle = (drawn.beats[5] + drawn.beats[6]) // 2
    samples[middle : middle + 15] += 12
    found = analyse(Recording(samples, 500)).beats
    later = [beat for beat in drawn.beats if beat > middle + 100]
    assert all(min(abs(beat - one) for one in found) <= 10 for beat in later)


def test_small_beats_among_large_ones_are_found() -> None:
    """Beats that the threshold passes over are looked for again where one is due."""
    drawn = draw(8, heart_rate=90, noise=0.01, wander=0.0)
    samples = drawn.recording.samples.copy()
    for beat in drawn.beats[3:-3:4]:
        samples[max(0, beat - 30) : beat + 30] *= 0.4
    assert len(analyse(Recording(samples, 500)).beats) == len(drawn.beats)


def test_one_early_beat_is_not_called_irregular() -> None:
    intervals = np.full(12, 0.8)
    intervals[5:7] = 0.5, 1.1
    assert classify(intervals, 1.1)[0] == "normal"


def test_noise_and_a_lonely_beat_are_unclear() -> None:
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.1, 5000)
        for samples in (noise, np.cumsum(noise)):
            assert analyse(Recording(samples, 500)).rhythm == "unclear", seed
    lonely = np.exp(-0.5 * ((np.arange(5000) - 2500) / 6) ** 2)
    found = analyse(Recording(lonely, 500))
    assert (found.heart_rate, found.rhythm, found.rr, found.hrv) == (None, "unclear", {}, {})


def test_a_heart_that_stops_within_the_segment_has_a_pause() -> None:
    drawn = draw(9, heart_rate=80)
    samples = np.concatenate(
        (drawn.recording.samples[: drawn.beats[6] + 200], np.random.default_rng(1).normal(0, 0.01, 2000))
    )
    assert analyse(Recording(samples, 500)).rhythm == "pause"


def test_intervals_and_their_variability_are_those_of_the_beats() -> None:
    drawn = draw(12, "irregular")
    found = analyse(drawn.recording)
    intervals = np.diff(drawn.beats) * 2.0
    assert found.rr["mean"] == pytest.approx(intervals.mean(), abs=4)
    assert found.hrv["sdnn"] == pytest.approx(intervals.std(ddof=1), rel=0.05)
    assert found.hrv["rmssd"] == pytest.approx(np.sqrt((np.diff(intervals) ** 2).mean()), rel=0.05)
    assert 0.5 < found.hrv["pnn50"] <= 1


# What is read.


def written(samples: Any, form: str = "json", rate: float = 500) -> bytes:
    if form == "json":
        return json.dumps({"sample_rate": rate, "samples": list(samples)}).encode()
    if form == "csv":
        return "\n".join(["time,voltage", *(f"{n / rate:.3f},{v}" for n, v in enumerate(samples))]).encode()
    return "\n".join(str(value) for value in samples).encode()


def test_all_forms_say_the_same() -> None:
    drawn = draw(1).recording
    expected = drawn.samples
    for data, kind, more in (
        (written(expected), JSON, {}),
        (json.dumps(expected.tolist()).encode(), JSON, {}),
        (json.dumps({"unit": "uV", "samples": (expected * 1000).tolist()}).encode(), JSON, {}),
        (written(expected, "csv"), CSV, {}),
        (written(expected, "csv").replace(b",", b";"), CSV, {}),
        (written(expected, "column"), CSV, {}),
        (written(expected * 1000, "column"), CSV, {"unit": "uV"}),
        (b"\xef\xbb\xbf" + written(expected, "column"), CSV, {}),
        (drawn.packed(), "application/octet-stream", {}),
    ):
        found = read(data, kind, **more)
        assert found.rate == 500
        assert np.allclose(found.samples, expected, atol=1e-6)
    assert np.allclose(unpack(drawn.packed(), 500).samples, expected)


def test_the_sample_rate_comes_from_where_it_is_said() -> None:
    samples = draw(1, rate=250).recording.samples
    assert read(written(samples, rate=250), JSON).rate == 250
    assert read(written(samples, "csv", 250), CSV).rate == 250
    milliseconds = "\n".join(["t_ms,mV", *(f"{n * 4},{v}" for n, v in enumerate(samples))]).encode()
    assert read(milliseconds, CSV).rate == 250
    assert read(written(samples, "column"), CSV, 250.0).rate == 250


GOOD = draw(1).recording.samples


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (b"", JSON, "ecg_empty"),
        (b"{", JSON, "ecg_not_json"),
        (b"[" * 100_000, JSON, "ecg_not_json"),
        (b"17", JSON, "ecg_json"),
        (b'{"samples": 17}', JSON, "ecg_json"),
        (b'{"samples": [1, "x"]}', JSON, "ecg_json"),
        (b'{"samples": [1, true]}', JSON, "ecg_json"),
        (b'{"samples": [' + b"9" * 400 + b"]}", JSON, "ecg_amplitude"),
        (b'{"sample_rate": "fast", "samples": [1]}', JSON, "ecg_sample_rate"),
        (b'{"sample_rate": 5, "samples": [1]}', JSON, "ecg_sample_rate"),
        (b'{"sample_rate": NaN, "samples": [1]}', JSON, "ecg_sample_rate"),
        (b'{"unit": "V", "samples": [1]}', JSON, "ecg_unit"),
        (written(GOOD[:1000]), JSON, "ecg_length"),
        (written(np.tile(GOOD, 7)), JSON, "ecg_length"),
        (b'{"samples": []}', JSON, "ecg_length"),
        (written([*GOOD, float("nan")]), JSON, "ecg_not_finite"),
        (written(GOOD * 100), JSON, "ecg_amplitude"),
        (written(np.zeros(5000)), JSON, "ecg_flat"),
        (b"", CSV, "ecg_empty"),
        (b"voltage\n", CSV, "ecg_csv"),
        (b"1,2,3\n4,5,6", CSV, "ecg_csv"),
        (b"1\n2\nthree\n", CSV, "ecg_csv"),
        (b"1,2\n3\n", CSV, "ecg_csv"),
        (b"time,mV\n" + b"0,1\n" * 5000, CSV, "ecg_time"),
        (b"\n".join(b"%d,1" % (n * n) for n in range(5000)), CSV, "ecg_time"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", CSV, "ecg_csv"),
        (b"123", "application/octet-stream", "ecg_binary"),
    ],
)
def test_what_is_no_ecg_is_refused(data: bytes, kind: str, code: str) -> None:
    with pytest.raises(Problem) as problem:
        read(data, kind)
    assert problem.value.code == code
    assert problem.value.status in (400, 422)
    assert 10 < len(problem.value.message) < 260


# What is served.


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, "cardioai_pro", frozenset(("api", "frontend")))


def test_an_ecg_is_analysed(site: Site) -> None:
    drawn = draw(2, "tachycardia")
    answer = site.ask(
        "POST", "/api/analyses", written(drawn.recording.samples), headers={"Content-Type": "application/json"}
    )
    assert answer.status == 201
    assert answer.json["rhythm"] == "tachycardia"
    assert answer.json["heart_rate"] == pytest.approx(drawn.heart_rate, abs=2)
    assert answer.headers["location"] == f"/api/analyses/{answer.json['id']}"
    assert re.fullmatch(r"analyse;dur=[\d.]+, all;dur=[\d.]+", answer.headers["server-timing"])
    text = site.ask("GET", "/metrics").body.decode()
    assert 'ecg_processing_latency_seconds_bucket{le="10.0",path="direct"}' in text
    assert 'ecg_rhythms_total{rhythm="tachycardia"}' in text
    assert "ecg_concurrent_analyses 0.0" in text
    assert "ecg_analysis_queue_length" in text


@pytest.mark.parametrize(
    ("path", "kind", "body", "status", "code"),
    [
        ("/api/analyses", "image/png", b"x", 415, "content_type"),
        ("/api/analyses", "application/json", b"[1]", 422, "ecg_length"),
        ("/api/analyses", "application/json", b" " * (1 << 20) + b"[1]", 413, "ecg_too_large"),
        ("/api/analyses?sample_rate=many", "text/csv", b"1", 422, "invalid"),
        ("/api/analyses?wait=false", "text/csv", written(GOOD, "column"), 503, "queue_away"),
        ("/api/analyses?wait=false", "text/csv", b"1", 422, "ecg_length"),
    ],
)
def test_errors_have_one_form(site: Site, path: str, kind: str, body: bytes, status: int, code: str) -> None:
    answer = site.ask("POST", path, body, headers={"Content-Type": kind})
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


@pytest.mark.parametrize("form", ["json", "csv", "bin"])
def test_samples_can_be_sent_back(site: Site, form: str) -> None:
    sample = site.ask("GET", f"/api/samples/7.{form}?rhythm=bradycardia")
    truth = json.loads(sample.headers["x-truth"])
    kind = sample.headers["content-type"].partition(";")[0]
    answer = site.ask("POST", "/api/analyses", sample.body, headers={"Content-Type": kind})
    assert answer.json["rhythm"] == truth["rhythm"] == "bradycardia"
    assert answer.json["heart_rate"] == pytest.approx(truth["heart_rate"], abs=2)
    assert site.ask("GET", "/api/samples/7.xml").status == 422
    assert site.ask("GET", "/api/samples/7.json?rhythm=calm").status == 422


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(site: Site) -> None:
    page = site.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"
    html = page.body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|<style|javascript:", html)
    linked = set(re.findall(r'(?:src|href)="([^"]+)"', html))
    assert linked == {path.name for path in STATIC.iterdir()} - {"index.html"}
    for name in linked:
        part = site.ask("GET", f"/{name}")
        assert part.status == 200
        assert part.headers["x-content-type-options"] == "nosniff"
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", part.body)
        again = site.ask("GET", f"/{name}", headers={"If-None-Match": part.headers["etag"]})
        assert (again.status, again.body) == (304, b"")


def test_a_frontend_needs_no_store(tmp_path: Path) -> None:
    from reference_app import settings

    read = settings.read({"REDIS_HOST": "redis", "DOMAIN_MODULE": "cardioai_pro"}, frozenset(("frontend",)))
    assert (read.redis_host, read.database, read.ready_at_start) == ("", False, frozenset())
