"""Medical Inventory: sends a photograph through the proxy and shows what comes back, over HTTP and the WebSocket."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trials.client import Answer, Client, Listener, TrialError, figures, listen, listen_on_all, print_figures

KIND = "detection"
LARGEST = 20 * 1024 * 1024
_ROWS = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this system."""
    parser.add_argument("photo", nargs="?", type=Path, help="a JPEG, PNG or WebP file (default: one is generated)")
    parser.add_argument("--seed", type=int, help="which photograph to generate (default: a new one each time)")
    parser.add_argument("--items", type=int, default=20, help="items on the generated photograph (default 20)")


def media_type(photo: bytes) -> str:
    """The media type by the first bytes."""
    if photo.startswith(b"\x89PNG"):
        return "image/png"
    if photo[:4] == b"RIFF" and photo[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if photo.startswith(b"\xff\xd8") else "application/octet-stream"


def detect(client: Client, photo: bytes) -> Answer:
    """Posts a photograph."""
    return client.request("POST", "/detections", photo, media_type(photo))


def sample(client: Client, seed: int, items: int = 20) -> tuple[bytes, dict[str, int]]:
    """A photograph that the system generates, and how many of each label are on it."""
    answer = client.request("GET", f"/samples/{seed}.jpg?items={items}")
    if answer.status != 200:
        answer.json()
        raise TrialError(f"The system answered {answer.status} when asked for a generated photograph.")
    return answer.body, json.loads(answer.headers.get("x-truth", "{}"))


def read_photo(path: Path) -> bytes:
    """The user's photograph."""
    try:
        if path.stat().st_size > LARGEST:
            raise TrialError(f"{path} is larger than 20 MB, which the system refuses: choose a smaller photograph.")
        return path.read_bytes()
    except OSError as error:
        raise TrialError(f"{path} cannot be read ({error.strerror}): name a JPEG, PNG or WebP file.") from error


def show(url: str, options: argparse.Namespace) -> None:
    """Sends one photograph and prints everything about it."""
    path: Path | None = options.photo
    truth: dict[str, int] | None = None
    photo = read_photo(path) if path else b""
    with ExitStack() as stack:
        client = stack.enter_context(Client(url))
        client.check()
        listener = stack.enter_context(listen(client.url, KIND))
        if path:
            print(f"photograph  {path}, {len(photo) / 1000:.0f} kB")
        else:
            seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
            photo, truth = sample(client, seed, options.items)
            print(f"photograph  generated (seed {seed}), {len(photo) / 1000:.0f} kB, {sum(truth.values())} items on it")
        answer = detect(client, photo)
        detection = answer.json()
        arrived = listener.wait_for(detection["id"])
        _print(answer, detection, truth)
        _print_websocket(listener, answer, arrived)
        print(f"stored      {client.url}/detections/{detection['id']}")
        if arrived is None:
            raise TrialError(
                f"The WebSocket at {listener.replica} did not hear of it within 5 s: see `make logs`, and whether "
                f"Redis runs with `make status`."
            )


def _print(answer: Answer, detection: dict[str, Any], truth: dict[str, int] | None) -> None:
    photo, model = detection["photo"], detection["model"]
    cached = ", from the cache" if detection.get("cached") else ""
    print(f"HTTP        {answer.status} from {answer.replica} in {answer.seconds * 1000:.0f} ms{cached}")
    print(f"model       {model['version']} ({model['source']})")
    print(f"count       {detection['count']} items on {photo['width']}x{photo['height']} pixels\n")
    labels = sorted(set(detection["counts"]) | set(truth or {}))
    print(f"  {'label':<12} {'count':>5}" + (f" {'true':>5}" if truth is not None else ""))
    for label in labels:
        line = f"  {label:<12} {detection['counts'].get(label, 0):>5}"
        print(line + (f" {truth.get(label, 0):>5}" if truth is not None else ""))
    print(f"\n  {'#':>3} {'label':<12} {'sure':>5} {'x':>5} {'y':>5} {'width':>6} {'height':>7} {'angle':>6}")
    for number, item in enumerate(detection["items"][:_ROWS], 1):
        box = item["box"]
        print(
            f"  {number:>3} {item['label']:<12} {item['confidence']:>5.2f} {box['x']:>5} {box['y']:>5}"
            f" {box['width']:>6} {box['height']:>7} {item['angle']:>6.1f}"
        )
    if detection["count"] > _ROWS:
        print(f"  ... and {detection['count'] - _ROWS} more")
    print()


def _print_websocket(listener: Listener, answer: Answer, arrived: float | None) -> None:
    if arrived is not None:
        after = (arrived - answer.started) * 1000
        print(f"WebSocket   the same detection from {listener.replica}, {after:.0f} ms after the photograph was sent")


def bench(url: str, options: argparse.Namespace) -> None:
    """Prints the latency's figures."""
    count: int = options.bench
    result = measure(url, count, say=lambda text: print(text, file=sys.stderr, flush=True))
    if options.json:
        slowest = max((figures["median"] for figures in result["websocket"].values() if figures), default=None)
        short = {
            "median_ms": result["http"]["median"],
            "p95_ms": result["http"]["p95"],
            "other_replica_median_ms": slowest,
        }
        print(json.dumps(short | result))
        return
    print(f"{count} photographs of {result['photo_bytes'] / 1000:.0f} kB, none from the cache, milliseconds:")
    print_figures(
        {"HTTP": result["http"]} | {f"WebSocket on {name}": value for name, value in result["websocket"].items()}
    )
    print(f"  wrong counts {result['wrong']}, WebSocket messages missed {result['missed']}")
    print(f"  api replicas {', '.join(f'{name}: {number}' for name, number in result['api_replicas'].items())}")


def distinct(photo: bytes, mark: bytes) -> bytes:
    """The same JPEG with a comment in it: other bytes, another digest, so that no cache knows it."""
    comment = b"\xff\xfe" + (len(mark) + 2).to_bytes(2) + mark
    return photo[:2] + comment + photo[2:]


def measure(
    url: str, count: int = 200, warm_up: int = 20, say: Callable[[str], None] = lambda _text: None
) -> dict[str, Any]:
    """Posts `warm_up` + `count` photographs one after the other, none ever from the cache.

    Returns milliseconds: `http` and `websocket` (per replica, from the start of the request) with median, p95, max;
    also `wrong`, the number of answers whose counts differ from what is on the photograph, and `missed`.
    """
    run = os.urandom(8).hex()
    with ExitStack() as stack:
        client = stack.enter_context(Client(url))
        client.check()
        say("fetching 20 generated photographs")
        samples = [sample(client, seed) for seed in range(20)]
        listeners = listen_on_all(stack, client.url, KIND)
        times: list[float] = []
        late: dict[str, list[float]] = {listener.replica: [] for listener in listeners}
        wrong = missed = 0
        replicas: dict[str, int] = {}
        for number in range(-warm_up, count):
            photo, truth = samples[number % len(samples)]
            answer = detect(client, distinct(photo, f"{run} {number}".encode()))
            detection = answer.json()
            if detection.get("cached"):
                raise TrialError("A photograph came from the cache, so the figures would not be honest.")
            if number % 50 == 0:
                say(f"{max(number, 0)} of {count} photographs")
            arrivals = {listener.replica: listener.wait_for(detection["id"]) for listener in listeners}
            if number < 0:
                continue
            times.append(answer.seconds * 1000)
            replicas[answer.replica] = replicas.get(answer.replica, 0) + 1
            wrong += detection["counts"] != truth
            for replica, arrived in arrivals.items():
                if arrived is None:
                    missed += 1
                else:
                    late[replica].append((arrived - answer.started) * 1000)
    return {
        "count": count,
        "photo_bytes": round(statistics.mean(len(photo) for photo, _ in samples)),
        "http": figures(times),
        "api_replicas": replicas,
        "websocket": {replica: figures(values) for replica, values in late.items()},
        "wrong": wrong,
        "missed": missed,
    }
