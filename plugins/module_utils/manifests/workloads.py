# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A component as Kubernetes runs it: Deployment, Services, autoscaler and disruption budget."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import pods, proxy
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import (
    CONFIG_CHECKSUM,
    INITIAL_REPLICAS,
    Context,
    Manifest,
    checksum,
    container_resources,
    version_of,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Component, ScaleRule

REVISIONS = 5


def component_objects(context: Context, component: Component) -> list[Manifest]:
    """Everything that one component consists of, in the order in which it is applied."""
    objects: list[Manifest] = []
    config: dict[str, str] = {}
    if component.proxy is not None:
        config = proxy.files(context.system, component)
        objects.append(_config(context, component, config))
    objects += services(context, component)
    objects.append(deployment(context, component, config))
    if component.scaling.automatic:
        objects.append(autoscaler(context, component))
    if component.scaling.largest > 1:
        objects.append(disruption_budget(context, component))
    return objects


def image_of(context: Context, component: Component) -> str:
    """The published image of a component."""
    return component.image or context.pinned_image("nginx")


def pods_service(component: Component) -> str:
    """Name of the headless Service that lists the pods of a component whose clients stay on their replica."""
    return f"{component.name}-pods"


def labels_of(context: Context, component: Component) -> dict[str, str]:
    """Labels of a component's objects."""
    role = "proxy" if component.proxy is not None else component.name
    return context.labels(component.name, role, version_of(image_of(context, component)))


def services(context: Context, component: Component) -> list[Manifest]:
    """The component's Service, and a headless one where a proxy must know the pods."""
    if component.port is None:
        return []
    public = component.public
    node_port = public.node_port if public is not None else None
    port: Manifest = {"name": "http", "port": 80 if component.proxy is not None else component.port}
    port |= {"targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
    service = context.object("v1", "Service", component.name, labels_of(context, component))
    service["spec"] = {
        "type": "ClusterIP" if node_port is None else "NodePort",
        "selector": context.selector(component.name),
        "ports": [port if node_port is None else {**port, "nodePort": node_port}],
    }
    if not component.sticky:
        return [service]
    headless = context.object("v1", "Service", pods_service(component), labels_of(context, component))
    headless["spec"] = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "selector": context.selector(component.name),
        "ports": [port],
    }
    return [service, headless]


def deployment(context: Context, component: Component, config: dict[str, str]) -> Manifest:
    """The Deployment; how many replicas is left to the autoscaler where there is one."""
    scaling = component.scaling
    labels = labels_of(context, component)
    annotations = {INITIAL_REPLICAS: str(scaling.smallest)} if scaling.automatic else None
    made = context.object("apps/v1", "Deployment", component.name, labels, annotations)
    metadata: Manifest = {"labels": labels}
    if config:
        metadata["annotations"] = {CONFIG_CHECKSUM: checksum(config)}
    made["spec"] = {
        **({} if scaling.automatic else {"replicas": scaling.smallest}),
        "revisionHistoryLimit": REVISIONS,
        "selector": {"matchLabels": context.selector(component.name)},
        "strategy": _strategy(component),
        "template": {"metadata": metadata, "spec": pod_spec(context, component)},
    }
    return made


def _strategy(component: Component) -> Manifest:
    if component.strategy.type == "recreate":
        return {"type": "Recreate"}
    # A rollout never has fewer pods than before: no request is lost to it.
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}


def pod_spec(context: Context, component: Component) -> Manifest:
    """The pod of a component."""
    gpu = component.gpu
    writes = any(context.system.volumes[name].writable for name in component.volumes)
    volumes, _mounts = _volumes(context, component)
    spec: Manifest = {
        **pods.base_spec(context, component.name),
        "terminationGracePeriodSeconds": pods.ROTATION + component.drain + 5,
        "securityContext": pods.pod_security(component.user, volume_group=component.user if writes else None),
        **pods.spread(context.selector(component.name), by_revision=True),
    }
    if component.node_labels:
        spec["nodeSelector"] = dict(component.node_labels)
    if gpu is not None:
        spec["tolerations"] = [{"key": gpu.resource, "operator": "Exists", "effect": "NoSchedule"}]
    spec["containers"] = [container(context, component)]
    spec["volumes"] = volumes
    return spec


def container(context: Context, component: Component) -> Manifest:
    """The container of a component, named after it."""
    image = context.image(image_of(context, component))
    made: Manifest = {"name": component.name, "image": image, "imagePullPolicy": context.pull_policy(image)}
    command = list(component.command)
    if component.proxy is not None:
        command = proxy.COMMAND
    if command:
        made["command"] = command
    if component.args:
        made["args"] = list(component.args)
    if component.port is not None:
        made["ports"] = [{"name": "http", "containerPort": component.port, "protocol": "TCP"}]
        health = component.health
        made |= pods.http_probes("http", health.live, health.ready, health.startup)
    environment = component_environment(context, component)
    if environment:
        made["env"] = environment
    made["resources"] = container_resources(
        component.resources, {component.gpu.resource: component.gpu.count} if component.gpu is not None else None
    )
    made["lifecycle"] = {"preStop": {"sleep": {"seconds": pods.ROTATION}}}
    made["securityContext"] = pods.container_security()
    made["volumeMounts"] = _volumes(context, component)[1]
    return made


def component_environment(context: Context, component: Component) -> list[Manifest]:
    """A component's variables: its port, its stores, its own."""
    environment: list[Manifest] = []
    if component.port is not None and component.proxy is None:
        environment.append({"name": "PORT", "value": str(component.port)})
    environment += pods.store_environment(context, component.talks_to)
    environment += [{"name": name, "value": value} for name, value in component.env.items()]
    return environment


def autoscaler(context: Context, component: Component) -> Manifest:
    """The autoscaler, with the behaviour that the system's file states."""
    scaling = component.scaling
    made = context.object("autoscaling/v2", "HorizontalPodAutoscaler", component.name, labels_of(context, component))
    made["spec"] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": component.name},
        "minReplicas": scaling.smallest,
        "maxReplicas": scaling.largest,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}},
            }
            for name, percent in (("cpu", scaling.cpu), ("memory", scaling.memory))
            if percent is not None
        ],
    }
    behavior = {key: _rule(rule) for key, rule in (("scaleUp", scaling.up), ("scaleDown", scaling.down)) if rule}
    if behavior:
        made["spec"]["behavior"] = behavior
    return made


def disruption_budget(context: Context, component: Component) -> Manifest:
    """How many pods a drained node may take at once."""
    made = context.object("policy/v1", "PodDisruptionBudget", component.name, labels_of(context, component))
    available = component.keep_available
    made["spec"] = {
        **({"maxUnavailable": 1} if available is None else {"minAvailable": available}),
        "selector": {"matchLabels": context.selector(component.name)},
        # A pod that is broken anyway must not keep a node from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return made


def _rule(rule: ScaleRule) -> Manifest:
    return {
        "stabilizationWindowSeconds": rule.stabilize,
        "selectPolicy": rule.select,
        "policies": [
            {"type": policy.unit, "value": policy.value, "periodSeconds": policy.every} for policy in rule.policies
        ],
    }


def _volumes(context: Context, component: Component) -> tuple[list[Manifest], list[Manifest]]:
    """Volumes and where they are mounted: temporary files, shared volumes, certificates, a proxy's configuration."""
    volumes = [pods.temporary(proxy.TEMPORARY if component.proxy is not None else "256Mi")]
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a path in the container
    for name, folder in component.volumes.items():
        read_only = {} if context.system.volumes[name].writable else {"readOnly": True}
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name, **read_only}})
        mounts.append({"name": name, "mountPath": folder, **read_only})
    more_volumes, more_mounts = pods.store_volumes(context, component.talks_to)
    if component.proxy is not None:
        more_volumes.append({"name": "config", "configMap": {"name": config_name(component), "defaultMode": 0o444}})
        more_mounts.append({"name": "config", "mountPath": proxy.FOLDER, "readOnly": True})
    return volumes + more_volumes, mounts + more_mounts


def config_name(component: Component) -> str:
    """Name of a proxy's ConfigMap."""
    return f"{component.name}-config"


def _config(context: Context, component: Component, files: dict[str, str]) -> Manifest:
    made = context.object("v1", "ConfigMap", config_name(component), labels_of(context, component))
    made["data"] = files
    return made
