# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From checked plain data with all defaults to the typed system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import types
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import (
    millicores,
    number_of_bytes,
    seconds,
)

Plain = dict[str, Any]

PROXY_PORT = 8080
PROXY_USER = 10101
"""Above the users that nodes have themselves, and so another than the image's own, which nothing in it needs."""


def system(name: str, environment: str, data: Plain) -> types.System:
    """Build the typed system from data that the schema accepts, with its defaults filled in."""
    enabled = {key: entry for key, entry in sorted(data["components"].items()) if entry["enabled"]}
    components = {key: component(key, entry, data, enabled) for key, entry in enabled.items()}
    home = data.get("namespace", namespace(name))
    return types.System(
        name=name,
        environment=environment,
        namespace=home,
        domain=data.get("domain"),
        image_pull_policy=data.get("image_pull_policy"),
        image_pull_secrets=tuple(data["image_pull_secrets"]),
        components=components,
        disabled=tuple(sorted(set(data["components"]) - set(enabled))),
        stores={key: store(key, entry, home, data) for key, entry in sorted(data["stores"].items())},
        volumes={key: volume(key, entry) for key, entry in sorted(data["volumes"].items())},
        migration=migration(data["migration"], data, components) if "migration" in data else None,
        capabilities=tuple(sorted(key for key, counted in data["capabilities"].items() if counted)),
        network=types.Network(**{key: _frozen(value) for key, value in data["network"].items()}),
        headroom=data["quota"]["headroom"],
        on_failure=data["on_failure"],
        patches=data["patches"],
    )


def namespace(name: str) -> str:
    """The namespace of a system that names none."""
    return name.replace("_", "-")


def component(name: str, data: Plain, root: Plain, enabled: Plain) -> types.Component:
    """Build one component.

    :param root: the whole system, for what components inherit.
    :param enabled: the components that run here: what is switched off is neither talked nor routed to.
    """
    off = set(root["components"]) - set(enabled)
    proxied = proxy(data["proxy"], off) if "proxy" in data else None
    image = data.get("image") or ("" if proxied else root.get("image", ""))
    targets = {route.component for route in proxied.routes} if proxied else set()
    public = data.get("public")
    gpu = data.get("gpu")
    return types.Component(
        name=name,
        image=full_image(image, root.get("registry")),
        command=tuple(data.get("command", ())),
        args=tuple(data.get("args", ())),
        user=PROXY_USER if proxied else data["user"],
        port=PROXY_PORT if proxied else data.get("port"),
        # A proxy takes no settings from the environment, least of all those meant for the application.
        env={} if proxied else _texts({**root["env"], **data["env"]}),
        resources=resources(data["resources"]),
        scaling=scaling(data),
        keep_available=data.get("keep_available"),
        sticky=data["sticky"],
        health=types.Health(data["health"]["live"], data["health"]["ready"], seconds(data["health"]["startup"])),
        drain=seconds(data["drain"]),
        talks_to=tuple(sorted((set(data["talks_to"]) | targets) - off)),
        volumes=dict(sorted(data["volumes"].items())),
        gpu=types.Gpu(gpu["count"], gpu["resource"]) if gpu is not None else None,
        node_labels=dict(sorted(data["node_labels"].items())),
        proxy=proxied,
        public=types.Public(public.get("host"), public.get("node_port")) if public is not None else None,
        strategy=strategy(data["strategy"]),
    )


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
    """Build what decides on a component's replicas."""
    replicas = data["replicas"]
    bounds = replicas if isinstance(replicas, dict) else {"min": replicas, "max": replicas}
    return types.Scaling(
        smallest=int(bounds["min"]),
        largest=int(bounds["max"]),
        cpu=data["scale_on"].get("cpu"),
        memory=data["scale_on"].get("memory"),
        up=_rule(data.get("scale_up")),
        down=_rule(data.get("scale_down")),
    )


def strategy(data: Plain) -> types.Strategy:
    """Build how new versions take over."""
    if data["type"] == "blue_green":
        keep = data["keep_old"]
        return types.Strategy("blue_green", keep_old=None if keep == "next_release" else seconds(keep))
    if data["type"] == "canary":
        return types.Strategy("canary", steps=tuple(data["steps"]), pause=seconds(data["pause"]))
    return types.Strategy("rolling")


def proxy(data: Plain, off: set[str]) -> types.Proxy:
    """Build a proxy, without the routes to components that are switched off."""
    entries: Plain = {
        path: {"to": to, "strip_prefix": False} if isinstance(to, str) else to for path, to in data["routes"].items()
    }
    routes = [
        types.Route(path, to["to"], to["strip_prefix"]) for path, to in sorted(entries.items()) if to["to"] not in off
    ]
    return types.Proxy(
        routes=tuple(routes),
        body_limit=number_of_bytes(data["body_limit"]),
        read_timeout=seconds(data["read_timeout"]),
        session_timeout=seconds(data["session_timeout"]),
    )


def store(name: str, data: Plain, namespace: str, root: Plain) -> types.PostgreSQL | types.Redis:
    """Build one store."""
    image = data.get("image")
    common: Plain = {
        "name": name,
        "size": number_of_bytes(data["size"]),
        "storage_class": data.get("storage_class"),
        "resources": resources(data["resources"]),
        "image": full_image(image, root.get("registry")) if image else None,
    }
    if data["type"] == "redis":
        return types.Redis(**common, mode=data["mode"], eviction=data["eviction"])
    database: str = data.get("database") or _identifier(namespace)
    return types.PostgreSQL(
        **common,
        instances=data["instances"],
        synchronous_replicas=data["synchronous_replicas"],
        database=database,
        owner=data.get("owner") or database,
        parameters=_texts(data["parameters"]),
    )


def volume(name: str, data: Plain) -> types.Volume:
    """Build one shared volume."""
    return types.Volume(name, number_of_bytes(data["size"]), tuple(data["access"]), data.get("storage_class"))


def migration(data: Plain, root: Plain, components: dict[str, types.Component]) -> types.Migration:
    """Build the migration.

    :param root: the whole system, for its stores and registry.
    """
    stores = sorted(name for name, store in root["stores"].items() if store["type"] == "postgresql")
    reached = [name for name in stores if name in components[data["component"]].talks_to]
    point = data["restore_point"]
    return types.Migration(
        tool=data.get("tool"),
        store=data.get("store") or (reached[0] if len(reached) == 1 else None),
        lock_wait=seconds(data["lock_wait"]),
        quiet_wait=seconds(data["quiet_wait"]),
        destructive=data["destructive"],
        restore_point=types.RestorePoint(
            type=point["type"],
            size=number_of_bytes(point["size"]),
            storage_class=point.get("storage_class"),
            keep=point["keep"],
            image=full_image(point.get("image", ""), root.get("registry")),
            command=tuple(point.get("command", ())),
        ),
        expand_only=data["expand_only"],
        component=data["component"],
        command=tuple(data["command"]),
        timeout=seconds(data["timeout"]),
        lock_timeout=seconds(data["lock_timeout"]),
        statement_timeout=seconds(data["statement_timeout"]),
        resources=resources(data["resources"]),
    )


def _amount(value: Any, number: Callable[[Any], int]) -> types.Amount:
    pair = value if isinstance(value, list) else [value, value]
    return types.Amount(number(pair[0]), number(pair[1]))


def _rule(data: Plain | None) -> types.ScaleRule | None:
    if data is None:
        return None
    policies = [
        types.ScalePolicy("Percent", policy["percent"], seconds(policy["every"]))
        if "percent" in policy
        else types.ScalePolicy("Pods", policy["pods"], seconds(policy["every"]))
        for policy in data["policies"]
    ]
    return types.ScaleRule(seconds(data["stabilize"]), tuple(policies), "Min" if data["select"] == "min" else "Max")


def _identifier(namespace: str) -> str:
    name = namespace.replace("-", "_")
    return name if name[0].isalpha() else f"db_{name}"


def _texts(values: Plain) -> dict[str, str]:
    """Environment and settings are text in the end; true is written as YAML and JSON write it."""
    return {key: _as_text(value) for key, value in sorted(values.items())}


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
