# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several kinds of part are built from: amounts, images, scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ansible_collections.groundwork.platform.plugins.module_utils.model import types
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import (
    millicores,
    number_of_bytes,
    seconds,
)

Plain = dict[str, Any]


def full_image(image: str, registry: str | None) -> str:
    """The image with the registry in front, unless it names one of its own as Docker understands names."""
    first = image.split("/", 1)[0]
    names_registry = "/" in image and ("." in first or ":" in first or first == "localhost")
    if not image or not registry or names_registry:
        return image
    return f"{registry.rstrip('/')}/{image}"


def resources(data: Plain) -> types.Resources:
    """Build the amounts of one pod."""
    return types.Resources(
        cpu=_amount(data["cpu"], millicores),
        memory=_amount(data["memory"], number_of_bytes),
        ephemeral_storage=_amount(data["ephemeral_storage"], number_of_bytes),
    )


def scaling(data: Plain) -> types.Scaling:
    """Build what decides on a component's replicas, or on the instances of a store."""
    replicas: Any = data["replicas"] if "replicas" in data else data["instances"]
    bounds = replicas if isinstance(replicas, dict) else {"min": replicas, "max": replicas}
    return types.Scaling(
        smallest=int(bounds["min"]),
        largest=int(bounds["max"]),
        cpu=data["scale_on"].get("cpu"),
        memory=data["scale_on"].get("memory"),
        up=_rule(data.get("scale_up")),
        down=_rule(data.get("scale_down")),
        metrics=tuple(
            _target(key, entry) for key, entry in sorted(data["scale_on"].items()) if key not in ("cpu", "memory")
        ),
    )


def _target(metric: str, data: Plain) -> types.MetricTarget:
    ahead = data.get("ahead")
    return types.MetricTarget(metric, data.get("per_replica"), data.get("value"), seconds(ahead) if ahead else 0)


def vertical(data: Plain) -> types.Vertical:
    """Build the bounds of the vertical autoscaler."""
    owns = tuple(key for key in ("cpu", "memory") if key in data) or ("cpu", "memory")
    return types.Vertical(
        mode=data["mode"],
        owns=owns,
        cpu=bounds(data["cpu"], millicores) if "cpu" in data else None,
        memory=bounds(data["memory"], number_of_bytes) if "memory" in data else None,
    )


def _amount(value: Any, number: Callable[[Any], int]) -> types.Amount:
    pair = value if isinstance(value, list) else [value, value]
    return types.Amount(number(pair[0]), number(pair[1]))


def bounds(value: Any, number: Callable[[Any], int]) -> types.Bounds:
    """Build the least and the most of something."""
    pair = _amount(value, number)
    return types.Bounds(pair.request, pair.limit)


def _rule(data: Plain | None) -> types.ScaleRule | None:
    if data is None:
        return None
    policies = [
        types.ScalePolicy("Percent", policy["percent"], seconds(policy["every"]))
        if "percent" in policy
        else types.ScalePolicy("Pods", policy["pods"], seconds(policy["every"]))
        for policy in data["policies"]
    ]
    select: Literal["Max", "Min"] = "Min" if data["select"] == "min" else "Max"
    return types.ScaleRule(seconds(data["stabilize"]), tuple(policies), select, data.get("below"))


def optional(values: Plain, key: str, number: Callable[[Any], int]) -> int | None:
    """A number that need not be given."""
    return number(values[key]) if key in values else None


def texts(values: Plain) -> dict[str, str]:
    """Environment and settings are text in the end; true is written as YAML and JSON write it."""
    return {key: _as_text(value) for key, value in sorted(values.items())}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
