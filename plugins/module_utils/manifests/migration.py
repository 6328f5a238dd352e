# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Job that brings the database's schema to that of the release."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.manifests import pods, workloads
from ansible_collections.groundwork.platform.plugins.module_utils.manifests.common import (
    Context,
    Manifest,
    container_resources,
    version_of,
)
from ansible_collections.groundwork.platform.plugins.module_utils.model.types import Component, Migration

NAME = "migrate"
"""Name of the Job, its service account and its network policy; the module that runs it adds the release."""


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


def labels_of(context: Context, component: Component) -> dict[str, str]:
    """Labels of the migration's objects."""
    return context.labels(NAME, "migration", version_of(component.image))


def _environment(context: Context, component: Component, migration: Migration) -> list[Manifest]:
    # libpq reads PGOPTIONS by itself, so the limits hold whatever tool migrates.
    options = f"-c lock_timeout={migration.lock_timeout}s -c statement_timeout={migration.statement_timeout}s"
    return [*workloads.component_environment(context, component), {"name": "PGOPTIONS", "value": options}]
