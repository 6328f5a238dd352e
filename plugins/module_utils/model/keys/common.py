# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the schema's parts are written with: one function for each kind of value, patterns, and shared definitions.

``title`` reads as "expected <title>" in a complaint. A number's description ends with its unit; a text's title names
the units that it may be written with.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import quantities

Schema = dict[str, Any]

LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
# Leaves room for what is added to it: "-nodes", a StatefulSet's ordinal, a ReplicaSet's and a pod's suffix.
NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
DOMAIN = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
IMAGE = r"^[a-z0-9][a-zA-Z0-9._/:@-]*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
ENV_PREFIX = r"^[A-Z][A-Z0-9_]{0,30}$"
FILE_PATH = r"^/[^:]+$"
URL = r"^[a-z][a-z0-9+]*://[^\s]+$"
URL_PATH = r"^/[A-Za-z0-9._~/-]*$"
URL_PATH_OR_NOTHING = r"^(/[A-Za-z0-9._~/-]*)?$"
LABEL_KEY = r"^([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
DATABASE_NAME = r"^[a-z_][a-z0-9_]{0,62}$"
# InfluxDB keeps names that begin with an underscore for itself.
SERIES_NAME = r"^[a-z][a-z0-9_]{0,62}$"
METRIC = r"^[a-z][a-z0-9_]{0,99}$"
FILE_NAME = r"^[A-Za-z0-9][-._A-Za-z0-9]{0,100}$"
HEADER = r"^[\x20-\x7e]*$"
CRON = r"^[0-9*/,-]+( [0-9A-Za-z*/,-]+){4}$"
TIME_ZONE = r"^[A-Z][A-Za-z_+-]*(/[A-Za-z0-9_+-]+)*$"
NETWORK = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"
VERSION = r"^1\.[0-9]{1,3}$"

A_NAME = "a lower-case name of letters, digits and hyphens, at most 40, starting with a letter"
A_METRIC = "a lower-case name of letters, digits and underscores, starting with a letter"


def text(description: str, title: str = "text", pattern: str = "", **more: Any) -> Schema:
    """Text, of a pattern if one is given."""
    return {
        "description": description,
        "type": "string",
        "title": title,
        **({"pattern": pattern} if pattern else {}),
        **more,
    }


def whole(description: str, unit: str, minimum: int = 0, maximum: int | None = None, **more: Any) -> Schema:
    """A whole number."""
    title = f"a whole number of at least {minimum}"
    if maximum is not None:
        title = f"a whole number from {minimum} to {maximum}"
        more["maximum"] = maximum
    return {
        "description": f"{description} Unit: {unit}.",
        "type": "integer",
        "title": title,
        "minimum": minimum,
        **more,
    }


def number(description: str, unit: str, **more: Any) -> Schema:
    """A number, with a fraction if need be."""
    title = "a number"
    if "exclusiveMinimum" in more:
        title += f" above {more['exclusiveMinimum']}"
    if "maximum" in more:
        title += f" of at most {more['maximum']}"
    return {"description": f"{description} Unit: {unit}.", "type": "number", "title": title, **more}


def switch(description: str, default: bool) -> Schema:
    """True or false."""
    return {"description": description, "type": "boolean", "title": "true or false", "default": default}


def duration(description: str, **more: Any) -> Schema:
    """A time with its unit."""
    return text(description, "a duration with its unit, such as 30s, 5m, 1h or 7d", quantities.DURATION, **more)


def latency(description: str, **more: Any) -> Schema:
    """A short time with its unit."""
    return text(description, "a time with its unit, such as 200ms or 2s", quantities.LATENCY, **more)


def size(description: str, **more: Any) -> Schema:
    """An amount of bytes with its unit."""
    return text(description, "an amount with its unit, such as 512Mi or 10Gi", quantities.BYTES, **more)


def cron(description: str, **more: Any) -> Schema:
    """A repeated point in time."""
    return text(
        description, 'minute, hour, day, month and weekday as cron takes them, such as "0 2 * * *"', CRON, **more
    )


def choice(description: str, *values: str, **more: Any) -> Schema:
    """One of several words."""
    return {"description": description, "type": "string", "title": either(values), "enum": list(values), **more}


def either(values: tuple[str, ...]) -> str:
    """Words as a person lists alternatives."""
    return ", ".join(values[:-1]) + " or " + values[-1]


def items(description: str, entry: Schema, title: str = "a list of text", **more: Any) -> Schema:
    """A list."""
    return {"description": description, "type": "array", "title": title, "items": entry, **more}


def command(description: str, **more: Any) -> Schema:
    """A program and its arguments."""
    return items(description, text("A word."), **more)


def mapping(description: str, values: Schema, names: str = "", names_title: str = "", **more: Any) -> Schema:
    """A map whose names the user chooses."""
    schema: Schema = {"description": description, "type": "object", "title": "a map", "additionalProperties": values}
    if names:
        schema["propertyNames"] = {"type": "string", "pattern": names, "title": names_title}
    return {**schema, **more}


def keys(description: str, properties: Schema, **more: Any) -> Schema:
    """A map of known keys."""
    return {
        "description": description,
        "type": "object",
        "title": "a map",
        "additionalProperties": False,
        "properties": properties,
        **more,
    }


def ref(name: str, **more: Any) -> Schema:
    """A shared definition."""
    return {"$ref": f"#/$defs/{name}", **more}


def storage_class() -> Schema:
    """The StorageClass of a volume."""
    return text("StorageClass of its volumes. Default: the cluster's.", "a name", DOMAIN, examples=["fast-ssd"])


def _amount_definition(title: str, single: Schema, description: str) -> Schema:
    return {
        "description": description,
        "title": title,
        "anyOf": [
            single,
            {"type": "array", "title": title, "items": single, "minItems": 2, "maxItems": 2},
        ],
    }


def definitions() -> Schema:
    """What several parts refer to."""
    cpu = {
        "title": "an amount of CPU, such as 500m or 2, or [request, limit]",
        "anyOf": [
            {"type": "string", "title": "an amount of CPU, such as 500m or 2", "pattern": quantities.CPU},
            {"type": "number", "title": "an amount of CPU, such as 500m or 2", "exclusiveMinimum": 0},
        ],
    }
    single_bytes = {"type": "string", "title": "an amount with its unit, such as 512Mi", "pattern": quantities.BYTES}
    return {
        "cpu": {
            "description": "CPU as [request, limit], or one amount for both. Unit: cores, or thousandths with m.",
            "title": cpu["title"],
            "anyOf": [
                *cpu["anyOf"],
                {"type": "array", "title": cpu["title"], "items": cpu, "minItems": 2, "maxItems": 2},
            ],
            "examples": [["500m", "2"], "1"],
        },
        "bytes": {
            **_amount_definition(
                "an amount with its unit, such as 512Mi, or [request, limit]",
                single_bytes,
                "Bytes as [request, limit], or one amount for both, with a unit.",
            ),
            "examples": [["1Gi", "2Gi"], "512Mi"],
        },
        "resources": keys(
            "What one pod asks for and may use, each as [request, limit].",
            {
                "cpu": ref("cpu", default=["100m", "500m"]),
                "memory": ref("bytes", default=["128Mi", "256Mi"]),
                "ephemeral_storage": ref(
                    "bytes",
                    description="Local disk for logs and temporary files as [request, limit].",
                    default=["64Mi", "512Mi"],
                ),
            },
            default={},
            examples=[{"cpu": ["500m", "2"], "memory": ["1Gi", "2Gi"]}],
        ),
        "env": mapping(
            "Environment variables. Values that are secret do not belong here: stores bring theirs by reference.",
            # No fractions: 1.10 would arrive as 1.1.
            {"type": ["string", "integer", "boolean"], "title": "text, a whole number, true or false; quote others"},
            ENV_NAME,
            "the name of an environment variable",
            default={},
            examples=[{"LOG_LEVEL": "info"}],
        ),
        "scale_rule": scale_rule(
            "How fast the autoscaler may go in one direction. Without it Kubernetes' own defaults hold.", {}
        ),
        "vertical": vertical(),
    }


def scale_rule(description: str, more: Schema) -> Schema:
    """How fast an autoscaler may go."""
    return keys(
        description,
        {
            "stabilize": duration(
                "Time over which the most careful recommendation wins before a change, at most 1h.",
                default="0s",
                examples=["5m"],
            ),
            "policies": items(
                "What may be added or removed within a time.",
                {"title": "percent or pods, and every", "anyOf": _scale_policies()},
                "a list of policies such as {percent: 100, every: 30s}",
                minItems=1,
                examples=[[{"percent": 100, "every": "30s"}, {"pods": 4, "every": "60s"}]],
            ),
            "select": choice(
                "Which policy counts where several are given: the one that changes most, or least.",
                "max",
                "min",
                default="max",
            ),
            **more,
        },
        required=["policies"],
        examples=[{"stabilize": "5m", "policies": [{"percent": 50, "every": "60s"}], "select": "min"}],
    )


def _scale_policies() -> list[Schema]:
    return [
        keys(
            "A share of the present replicas.",
            {
                "percent": whole("How much of the present replicas.", "percent", 1, examples=[100]),
                "every": duration("Time in which that much may change, at most 30m.", examples=["30s"]),
            },
            required=["percent", "every"],
        ),
        keys(
            "A number of pods.",
            {
                "pods": whole("How many.", "pods", 1, examples=[4]),
                "every": duration("Time in which that many may change, at most 30m.", examples=["60s"]),
            },
            required=["pods", "every"],
        ),
    ]


def vertical() -> Schema:
    """Bounds of the vertical autoscaler."""
    return keys(
        "What the vertical autoscaler may give one pod. It owns what is named here, or both where nothing is; the "
        "environment must count on `vpa`. Default: it does nothing.",
        {
            "mode": choice(
                "Whether it changes requests by itself, or only recommends. What `scale_on` owns, and stores, can only "
                "be recommended.",
                "auto",
                "recommend",
                default="recommend",
            ),
            "cpu": ref(
                "cpu",
                description="Least and most CPU, as [least, most]. Default: any. Unit: cores.",
                examples=[["250m", 4]],
            ),
            "memory": ref(
                "bytes",
                description="Least and most memory, as [least, most]. Default: any.",
                examples=[["512Mi", "8Gi"]],
            ),
        },
        examples=[{"mode": "recommend", "cpu": ["250m", "4"], "memory": ["512Mi", "8Gi"]}],
    )
