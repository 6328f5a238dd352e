"""Cardio.AI.Pro: sends an ECG to the api and through the queue, and shows both analyses and the WebSocket."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trials.client import Answer, Client, Listener, TrialError, figures, listen, listen_on_all, print_figures

KIND = "analysis"
RHYTHMS = ("normal", "bradycardia", "tachycardia", "irregular", "pause")
LARGEST = 1 << 20
TOGETHER = 100
_TYPES = {".json": "application/json", ".csv": "text/csv", ".txt": "text/csv"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this system."""
    parser.add_argument("ecg", nargs="?", type=Path, help="JSON, CSV or 16-bit microvolts (default: one is drawn)")
    parser.add_argument("--rhythm", choices=RHYTHMS, help="of the drawn ECG (default: a random one)")
    parser.add_argument("--seed", type=int, help="which ECG to draw (default: a new one each time)")


def analyse(client: Client, ecg: bytes, kind: str, wait: bool = True) -> Answer:
    """Posts an ECG."""
    return client.request("POST", f"/api/analyses?wait={str(wait).lower()}", ecg, kind)


def sample(client: Client, seed: int, rhythm: str) -> tuple[bytes, dict[str, Any]]:
    """An ECG that the system draws, as 16-bit microvolts, and what it shows."""
    answer = client.request("GET", f"/api/samples/{seed}.bin?rhythm={rhythm}")
    if answer.status != 200:
        answer.json()
        raise TrialError(f"The system answered {answer.status} when asked for a drawn ECG.")
    return answer.body, json.loads(answer.headers.get("x-truth", "{}"))


def show(url: str, options: argparse.Namespace) -> None:
    """Sends one ECG both ways and prints everything about it."""
    with ExitStack() as stack:
        client = stack.enter_context(Client(url))
        ecg, kind, about = read(options.ecg) if options.ecg else (b"", "application/octet-stream", "")
        client.check()
        listener = stack.enter_context(listen(client.url, KIND))
        if not options.ecg:
            seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
            rhythm = options.rhythm or RHYTHMS[seed % len(RHYTHMS)]
            ecg, truth = sample(client, seed, rhythm)
            about = f"drawn (seed {seed}): {truth['rhythm']}, {truth['heart_rate']} beats/min, {truth['beats']} beats"
        print(f"ECG         {about}")
        answer = analyse(client, ecg, kind)
        analysis = answer.json()
        _print(analysis)
        print(f"HTTP        {answer.status} from {answer.replica} in {answer.seconds * 1000:.0f} ms")
        heard = _heard(listener, answer, analysis["id"], "WebSocket   the same analysis")
        queued = _queue(client, listener, ecg, kind)
        print(f"stored      {client.url}/api/analyses/{analysis['id']}")
        if not (heard and queued):
            raise TrialError(
                f"The WebSocket at {listener.replica} did not hear of it within 10 s: see `make logs`, and whether "
                f"Redis and a worker run with `make status`."
            )


def read(path: Path) -> tuple[bytes, str, str]:
    """The user's ECG, its media type, and what to call it."""
    try:
        if path.stat().st_size > LARGEST:
            raise TrialError(f"{path} is larger than 1 MB, which the system refuses: send 5 to 60 s of one lead.")
        data = path.read_bytes()
    except OSError as error:
        raise TrialError(f"{path} cannot be read ({error.strerror}): name a JSON, CSV or 16-bit file.") from error
    return data, _TYPES.get(path.suffix.lower(), "application/octet-stream"), f"{path}, {len(data) / 1000:.0f} kB"


def bench(url: str, options: argparse.Namespace) -> None:
    """Prints figures of latency, one at a time and many together."""
    result = measure(url, options.bench, say=lambda text: print(text, file=sys.stderr, flush=True))
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['count']} ECGs of 10 s at 500 Hz, milliseconds:")
    rows = {
        "analysis by itself": result["analysis"],
        "HTTP": result["http"],
        **{f"WebSocket on {name}": value for name, value in result["websocket"].items()},
        "through the queue": result["queue"],
        f"HTTP, {TOGETHER} together": result["together"]["http"],
    }
    print_figures(rows)
    print(f"  {TOGETHER} together: {result['together']['per_second']:.0f} analyses a second")
    print(f"  wrong rhythm or rate {result['wrong']}, WebSocket messages missed {result['missed']}")
    print(f"  replicas {', '.join(f'{name}: {number}' for name, number in result['replicas'].items())}")


def measure(
    url: str, count: int = 200, warm_up: int = 10, say: Callable[[str], None] = lambda _text: None
) -> dict[str, Any]:
    """Posts `warm_up` + `count` ECGs one after the other, a fifth as many through the queue, then many together.

    Returns milliseconds as median, p95 and max; `wrong` is the number of answers that differ from what was drawn.
    """
    with ExitStack() as stack:
        client = stack.enter_context(Client(url))
        client.check()
        say("fetching 20 drawn ECGs")
        samples = [sample(client, seed, RHYTHMS[seed % len(RHYTHMS)]) for seed in range(20)]
        listeners = listen_on_all(stack, client.url, KIND)
        http: list[float] = []
        alone: list[float] = []
        late: dict[str, list[float]] = {listener.replica: [] for listener in listeners}
        replicas: Counter[str] = Counter()
        wrong = missed = 0
        for number in range(-warm_up, count):
            ecg, truth = samples[number % len(samples)]
            answer = analyse(client, ecg, "application/octet-stream")
            analysis = answer.json()
            arrivals = {listener.replica: listener.wait_for(analysis["id"]) for listener in listeners}
            if number < 0:
                continue
            http.append(answer.seconds * 1000)
            alone.append(analysis["milliseconds"])
            replicas[analysis["replica"]] += 1
            wrong += _wrong(analysis, truth)
            for replica, arrived in arrivals.items():
                if arrived is None:
                    missed += 1
                else:
                    late[replica].append((arrived - answer.started) * 1000)
        say("through the queue")
        queue = [_through_queue(client, listeners[0], samples[n % len(samples)][0]) for n in range(max(1, count // 5))]
        say(f"{TOGETHER} together")
        together = _together(client.url, samples)
    return {
        "count": count,
        "median_ms": figures(http)["median"],
        "p95_ms": figures(http)["p95"],
        "analysis": figures(alone),
        "http": figures(http),
        "websocket": {replica: figures(values) for replica, values in late.items()},
        "queue": figures([value for value in queue if value is not None]),
        "together": together,
        "replicas": dict(replicas),
        "wrong": wrong,
        "missed": missed + queue.count(None),
    }


def _together(url: str, samples: list[tuple[bytes, dict[str, Any]]]) -> dict[str, Any]:
    def one(number: int) -> float:
        with Client(url) as client:
            answer = analyse(client, samples[number % len(samples)][0], "application/octet-stream")
        answer.json()
        return answer.seconds * 1000

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        times = list(pool.map(one, range(TOGETHER)))
    return {"http": figures(times), "per_second": round(TOGETHER / (time.perf_counter() - started), 1)}


def _through_queue(client: Client, listener: Listener, ecg: bytes) -> float | None:
    answer = analyse(client, ecg, "application/octet-stream", wait=False)
    arrived = listener.wait_for(answer.json()["task"]["id"], 10)
    return None if arrived is None else (arrived - answer.started) * 1000


def _queue(client: Client, listener: Listener, ecg: bytes, kind: str) -> bool:
    answer = analyse(client, ecg, kind, wait=False)
    task = answer.json()["task"]["id"]
    heard = _heard(listener, answer, task, "queue       analysed by a worker")
    task = client.request("GET", f"/api/tasks/{task}").json()["task"]
    print(f"task        {task['state']}{', ' + task['error'] if 'error' in task else ''}")
    return heard


def _heard(listener: Listener, answer: Answer, identity: str, what: str) -> bool:
    arrived = listener.wait_for(identity, 10)
    if arrived is not None:
        after = (arrived - answer.started) * 1000
        print(f"{what}, streamed by {listener.replica} {after:.0f} ms after it was sent")
    return arrived is not None


def _wrong(analysis: dict[str, Any], truth: dict[str, Any]) -> bool:
    rate = analysis["heart_rate"]
    return analysis["rhythm"] != truth["rhythm"] or rate is None or abs(rate - truth["heart_rate"]) >= 2


def _print(analysis: dict[str, Any]) -> None:
    rate = "no heart rate" if analysis["heart_rate"] is None else f"{analysis['heart_rate']} beats/min"
    beats = f"{len(analysis['beats'])} beats"
    print(f"analysis    {analysis['rhythm']} ({analysis['confidence']:.0%} sure), {rate}, {beats}")
    if analysis["rr"]:
        rr, hrv = analysis["rr"], analysis["hrv"]
        print(f"intervals   mean {rr['mean']} ms, from {rr['min']} to {rr['max']} ms")
        print("variability " + ", ".join(f"{name.upper()} {value}" for name, value in hrv.items()))
    print(
        f"took        {analysis['milliseconds']} ms of {analysis['replica']}, signal quality {analysis['quality']:.0%}"
    )
