"""`make try`: sends a photograph through the proxy and shows what comes back over HTTP and over the WebSocket."""

from __future__ import annotations

import argparse
import json
import random
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

try:
    from trial import LARGEST, Answer, Client, Listener, TrialError, listen, measure
except ModuleNotFoundError as error:
    sys.exit(f"The Python package {error.name} is missing: run `make try`, which uses the project's environment.")

CLUSTER = Path(__file__).resolve().parent.parent / "inventories" / "local" / ".cluster"
PORT = 30080
_ROWS = 40


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="make try", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, help="a JPEG, PNG or WebP file (default: one is generated)")
    parser.add_argument("--url", help="the proxy's address (default: that of the local cluster)")
    parser.add_argument("--seed", type=int, help="which photograph to generate (default: a new one each time)")
    parser.add_argument("--items", type=int, default=20, help="items on the generated photograph (default 20)")
    parser.add_argument("--bench", type=int, metavar="N", help="measure N requests instead of showing one")
    parser.add_argument("--json", action="store_true", help="print the measurement as JSON")
    options = parser.parse_args()
    try:
        url = options.url or local_url()
        if options.bench:
            bench(url, options.bench, options.json)
        else:
            show(url, options.photo, options.seed, options.items)
    except TrialError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def local_url() -> str:
    """The proxy's address on this checkout's local cluster."""
    path = CLUSTER / "status.json"
    where = path.relative_to(CLUSTER.parents[2])
    try:
        address = json.loads(path.read_text("utf-8")).get("node_address")
    except FileNotFoundError:
        raise TrialError(
            f"There is no local cluster yet ({where} is missing): run `make up` first, or name an address with --url."
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise TrialError(f"{where} cannot be read ({error}): run `make up` again, or name an address.") from error
    if not address:
        raise TrialError(f"{where} names no node_address: run `make up` again, or name an address with --url.")
    return f"http://{address}:{PORT}"


def read_photo(path: Path) -> bytes:
    """The user's photograph."""
    try:
        if path.stat().st_size > LARGEST:
            raise TrialError(f"{path} is larger than 20 MB, which the system refuses: choose a smaller photograph.")
        return path.read_bytes()
    except OSError as error:
        raise TrialError(f"{path} cannot be read ({error.strerror}): name a JPEG, PNG or WebP file.") from error


def show(url: str, path: Path | None, seed: int | None, items: int) -> None:
    """Sends one photograph and prints everything about it."""
    truth: dict[str, int] | None = None
    photo = read_photo(path) if path else b""
    with ExitStack() as stack:
        client = stack.enter_context(Client(url))
        client.check()
        listener = stack.enter_context(listen(client.url))
        if path:
            print(f"photograph  {path}, {len(photo) / 1000:.0f} kB")
        else:
            seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
            photo, truth = client.sample(seed, items)
            print(f"photograph  generated (seed {seed}), {len(photo) / 1000:.0f} kB, {sum(truth.values())} items on it")
        answer = client.detect(photo)
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


def bench(url: str, count: int, as_json: bool) -> None:
    """Prints the latency's figures."""
    result = measure(url, count, say=lambda text: print(text, file=sys.stderr, flush=True))
    if as_json:
        slowest = max((figures["median"] for figures in result["websocket"].values() if figures), default=None)
        short = {
            "median_ms": result["http"]["median"],
            "p95_ms": result["http"]["p95"],
            "other_replica_median_ms": slowest,
        }
        print(json.dumps(short | result))
        return
    print(f"{count} photographs of {result['photo_bytes'] / 1000:.0f} kB, none from the cache, milliseconds:")
    rows = {"HTTP": result["http"]} | {f"WebSocket on {name}": value for name, value in result["websocket"].items()}
    width = max(len(name) for name in rows)
    print(f"  {'':<{width}} {'median':>8} {'p95':>8} {'max':>8}")
    for name, figures in rows.items():
        print(f"  {name:<{width}}" + "".join(f" {figures.get(key, 0):>8.1f}" for key in ("median", "p95", "max")))
    print(f"  wrong counts {result['wrong']}, WebSocket messages missed {result['missed']}")
    print(f"  api replicas {', '.join(f'{name}: {number}' for name, number in result['api_replicas'].items())}")


if __name__ == "__main__":
    sys.exit(main())
