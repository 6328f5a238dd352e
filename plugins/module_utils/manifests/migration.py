# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Job that brings the database's schema to that of the release."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import pods, workloads
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import (
    Context,
    Manifest,
    container_resources,
    version_of,
)
from ansible_collections.groundwork.platform.plugins.module_utils.migration import amounts
from ansible_collections.groundwork.platform.plugins.module_utils.model.quantities import (
    bytes_text,
    millicores,
    number_of_bytes,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import (
    Amount,
    Component,
    Migration,
    PostgreSQL,
    Resources,
    RestorePoint,
)

NAME = "migrate"
"""Name of the Job, its service account and its network policy; the module that runs it adds the release."""


def _resources(given: amounts.Amounts) -> Resources:
    def amount(name: str, number: Callable[[str], int]) -> Amount:
        return Amount(number(given["requests"][name]), number(given["limits"][name]))

    memory, disk = amount("memory", number_of_bytes), amount("ephemeral-storage", number_of_bytes)
    return Resources(amount("cpu", millicores), memory, disk)


LOCK_RESOURCES = _resources(amounts.PSQL)
"""Of the container that holds the database's lock beside the migration."""
DUMP_RESOURCES = _resources(amounts.DUMP)
"""Of the pod that makes a restore point."""


def migration_job(context: Context, migration: Migration) -> Manifest:
    """The Job: runs once, is never retried by itself, and stays, since what is deleted would run again."""
    component = context.system.components[migration.component]
    labels = labels_of(context, component)
    image = context.image(component.image)
    volumes, mounts = pods.store_volumes(context, component.talks_to)
    job = context.object("batch/v1", "Job", NAME, labels)
    job["spec"] = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": migration.timeout,
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                **pods.base_spec(context, NAME),
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 30,
                "securityContext": pods.pod_security(component.user),
                "containers": [
                    {
                        "name": NAME,
                        "image": image,
                        "imagePullPolicy": context.pull_policy(image),
                        "command": list(migration.command),
                        "env": _environment(context, component, migration),
                        "resources": container_resources(migration.resources),
                        "securityContext": pods.container_security(),
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],  # noqa: S108
                    }
                ],
                "volumes": [pods.temporary("256Mi"), *volumes],
            },
        },
    }
    return job


def migration_options(context: Context, migration: Migration) -> Manifest:
    """What the module groundwork.platform.migration is told besides its Job."""
    options: Manifest = {"tool": migration.tool or "auto", "expand_only": migration.expand_only}
    store = context.system.stores.get(migration.store or "")
    if not isinstance(store, PostgreSQL):
        return options
    options |= {
        "database": {"cluster": store.name, "name": store.database},
        "lock": {"timeout": migration.lock_wait},
        "preflight": {"wait": migration.quiet_wait},
        "destructive": migration.destructive,
    }
    if migration.destructive == "restore_point":
        options["restore_point"] = _restore_point(context, migration.restore_point)
    return options


def _restore_point(context: Context, point: RestorePoint) -> Manifest:
    if point.type == "command":
        return {"type": "command", "image": context.image(point.image), "command": list(point.command)}
    made: Manifest = {"type": "dump", "size": bytes_text(point.size), "keep": point.keep}
    return {**made, "storage_class": point.storage_class} if point.storage_class is not None else made


def labels_of(context: Context, component: Component) -> dict[str, str]:
    """Labels of the migration's objects."""
    return context.labels(NAME, "migration", version_of(component.image))


def _environment(context: Context, component: Component, migration: Migration) -> list[Manifest]:
    # libpq reads PGOPTIONS by itself, so the limits hold whatever tool migrates.
    options = f"-c lock_timeout={migration.lock_timeout}s -c statement_timeout={migration.statement_timeout}s"
    return [*workloads.component_environment(context, component), {"name": "PGOPTIONS", "value": options}]
