# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From checked plain data with all defaults to the typed system."""

from __future__ import annotations

from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.model import build_demands as demands
from ansible_collections.groundwork.platform.plugins.module_utils.model import build_stores as stores
from ansible_collections.groundwork.platform.plugins.module_utils.model import types
from ansible_collections.groundwork.platform.plugins.module_utils.model.build_parts import (
    full_image,
    resources,
    scaling,
    texts,
    vertical,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import number_of_bytes, seconds

Plain = dict[str, Any]

PROD = "prod"
"""The environment in which nothing that is only convenient may happen."""
PROXY_PORT = 8080
PROXY_USER = 10101
"""Above the users that nodes have themselves, and so another than the image's own, which nothing in it needs."""
_BODY_LIMIT = 20 * 1024**2
_TIMEOUT = 60
_PERIODS = {"second": 1, "minute": 60, "hour": 3600}
_HTTPS_ONLY = "Strict-Transport-Security"
_HEADERS = {
    "content_security_policy": "Content-Security-Policy",
    "strict_transport_security": _HTTPS_ONLY,
    "frame_options": "X-Frame-Options",
    "content_type_options": "X-Content-Type-Options",
    "referrer_policy": "Referrer-Policy",
}


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
        stores={key: stores.store(key, entry, home, data) for key, entry in sorted(data["stores"].items())},
        volumes={key: volume(key, entry) for key, entry in sorted(data["volumes"].items())},
        secrets={key: demands.secret(key, entry) for key, entry in sorted(data["secrets"].items())},
        outside={
            key: types.Outside(key, entry["host"], entry["port"], tuple(entry["cidrs"]))
            for key, entry in sorted(data["outside"].items())
        },
        migration=migration(data["migration"], data, components) if "migration" in data else None,
        seed=seed(data["seed"], environment) if "seed" in data else None,
        capabilities=tuple(sorted(demands.counted_on(data))),
        network=types.Network(**{key: _frozen(value) for key, value in data["network"].items()}),
        nodes=types.Nodes(**data["nodes"]),
        quota=demands.quota(data["quota"]),
        on_failure=data["on_failure"],
        patches=data["patches"],
        **demands.demands(data, home),
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
    gpu = _gpu(data.get("gpu"), "gpu" in demands.counted_on(root))
    tasks = _tasks(data)
    names = {*data["talks_to"], *targets, *((tasks.queue,) if tasks else ())}
    return types.Component(
        name=name,
        image=full_image(image, root.get("registry")),
        command=tuple(data.get("command", ())),
        args=tuple(data.get("args", ())),
        user=PROXY_USER if proxied else data["user"],
        port=PROXY_PORT if proxied else data.get("port"),
        # A proxy takes no settings from the environment, least of all those meant for the application.
        env={} if proxied else texts({**demands.environment(root), **root["env"], **data["env"]}),
        resources=resources(data["resources"]),
        scaling=scaling(data),
        keep_available=data.get("keep_available"),
        sticky=data["sticky"],
        health=types.Health(data["health"]["live"], data["health"]["ready"], seconds(data["health"]["startup"])),
        drain=seconds(data["drain"]),
        talks_to=tuple(sorted(names - off)),
        volumes=dict(sorted(data["volumes"].items())),
        gpu=gpu,
        without_gpu="gpu" in data and gpu is None,
        node_labels=dict(sorted(data["node_labels"].items())),
        proxy=proxied,
        public=public(name, data["public"], proxied, off) if "public" in data else None,
        # Two schedulers would post everything twice.
        strategy=types.Strategy("recreate") if "scheduler" in data else strategy(data["strategy"]),
        tasks=tasks,
        vertical=vertical(data["vertical"]) if "vertical" in data else None,
        secrets=dict(sorted(data["secrets"].items())),
        node_pool=data.get("node_pool"),
        spot=data["spot"],
        priority=data.get("priority"),
        scrape=data["scrape"] or None if "port" in data else None,
    )


def _tasks(data: Plain) -> types.Tasks | None:
    if "scheduler" in data:
        return types.Tasks(data["scheduler"]["queue"], "scheduler")
    return types.Tasks(data["worker"]["queue"], "worker") if "worker" in data else None


def _gpu(data: Plain | None, counted_on: bool) -> types.Gpu | None:
    """What can do without GPUs does, where there are none."""
    if data is None or not (data["required"] or counted_on):
        return None
    return types.Gpu(data["count"], data["resource"])


def public(name: str, data: Plain, proxied: types.Proxy | None, off: set[str]) -> types.Public:
    """Build how a component is reached from outside; what its proxy says holds at the gateway too."""
    limit = data.get("rate_limit")
    body = data.get("body_limit")
    time = data.get("timeout")
    return types.Public(
        host=data.get("host"),
        node_port=data.get("node_port"),
        routes=routes(data["routes"], off) or (types.Route("/", name, strip_prefix=False),),
        tls=data["tls"],
        rate_limit=types.RateLimit(limit["requests"], _PERIODS[limit["per"]]) if limit is not None else None,
        body_limit=number_of_bytes(body) if body else proxied.body_limit if proxied else _BODY_LIMIT,
        timeout=seconds(time) if time else proxied.read_timeout if proxied else _TIMEOUT,
        headers=_headers(data["headers"], data["tls"]),
        waf=data["waf"],
    )


def _headers(data: Plain, tls: bool) -> dict[str, str]:
    values = {name: data[key] for key, name in _HEADERS.items() if data[key]}
    return values if tls else {name: value for name, value in values.items() if name != _HTTPS_ONLY}


def routes(data: Plain, off: set[str]) -> tuple[types.Route, ...]:
    """Build routes, without those to components that are switched off."""
    entries: Plain = {
        path: {"to": to, "strip_prefix": False} if isinstance(to, str) else to for path, to in data.items()
    }
    return tuple(
        types.Route(path, to["to"], to["strip_prefix"]) for path, to in sorted(entries.items()) if to["to"] not in off
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
    return types.Proxy(
        routes=routes(data["routes"], off),
        body_limit=number_of_bytes(data["body_limit"]),
        read_timeout=seconds(data["read_timeout"]),
        session_timeout=seconds(data["session_timeout"]),
        static=data.get("static"),
        compress=data["compress"],
    )


def volume(name: str, data: Plain) -> types.Volume:
    """Build one shared volume."""
    return types.Volume(
        name, number_of_bytes(data["size"]), tuple(data["access"]), data.get("storage_class"), data["writable"]
    )


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


def seed(data: Plain, environment: str) -> types.Seed | None:
    """Build the seed, or nothing where the environment must not have it."""
    if environment == PROD and not data["prod"]:
        return None
    return types.Seed(data["component"], tuple(data["command"]), seconds(data["timeout"]), resources(data["resources"]))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
