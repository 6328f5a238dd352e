"""`make try`: has a running system do one piece of its own work, and shows what comes back."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

try:
    import yaml
    from trials.client import TrialError
except ModuleNotFoundError as error:
    sys.exit(f"The Python package {error.name} is missing: run `make try`, which uses the project's environment.")

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "inventories" / "local" / ".cluster"
SYSTEMS = ROOT / "systems"
TRIALS = ROOT / "tools" / "trials"


def main() -> int:
    """The command; returns its exit status."""
    try:
        options, trial = parse()
        url = options.url or local_url(options.system)
        (trial.bench if options.bench else trial.show)(url, options)
    except TrialError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse() -> tuple[argparse.Namespace, ModuleType]:
    """The options, some of which are the system's own, and the system's module."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--system", default=os.environ.get("SYSTEM") or "medical_inventory", help="which system")
    common.add_argument("--url", help="the system's address (default: that of the local cluster)")
    common.add_argument("--bench", type=int, metavar="N", help="measure N pieces of work instead of showing one")
    common.add_argument("--json", action="store_true", help="print the measurement as JSON")
    trial = find(common.parse_known_args()[0].system)
    parser = argparse.ArgumentParser(prog="make try", description=trial.__doc__, parents=[common])
    trial.add_arguments(parser)
    return parser.parse_args(), trial


def find(system: str) -> ModuleType:
    """The module that tries a system."""
    known = sorted(path.stem for path in TRIALS.glob("*.py") if path.stem not in ("__init__", "client"))
    if system not in known:
        raise TrialError(f"There is nothing to try for the system {system!r}: choose one of {', '.join(known)}.")
    return import_module(f"trials.{system}")


def local_url(system: str) -> str:
    """The system's address on this checkout's local cluster."""
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
    return f"http://{address}:{node_port(system)}"


def node_port(system: str) -> int:
    """The port at which the system is published on a local cluster's nodes, as its file for that environment says."""
    path = SYSTEMS / system / "environments" / "local.yml"
    try:
        components: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))["components"]
        ports = [one["public"]["node_port"] for one in components.values() if "node_port" in one.get("public", {})]
        return int(ports[0])
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise TrialError(
            f"{path.relative_to(SYSTEMS.parent)} publishes no component with a node_port: name an address with --url."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
