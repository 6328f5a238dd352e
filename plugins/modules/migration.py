#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One migration per release, run once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration
short_description: Run a database migration as one locked Job, once for each image and arguments
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Runs a Job whose name is derived from its images and arguments, so that a new image is a new migration and the
    same one never runs twice.
  - A Lease in the namespace keeps several controllers apart. One migrates, the others wait and agree.
  - A Job that still runs, since an earlier play was interrupted, is attached to. One that failed is run again.
  - A Job that cannot start (an image that does not exist, a missing Secret) fails the module early and is
    suspended, so that it cannot start later by itself.
  - The outcome is recorded in the ConfigMap C(groundwork-migrations) of the namespace.
extends_documentation_fragment:
  - groundwork.platform.auth
attributes:
  check_mode:
    support: full
    description: Says what would run.
  diff_mode:
    support: none
    description: What a migration changes is in the database.
  idempotent:
    support: full
    description: A migration that has succeeded is not run again.
options:
  definition:
    description:
      - A Job. Its name becomes the prefix of the real one. C(backoffLimit) is 0 and C(activeDeadlineSeconds) is
        O(timeout) unless they are given; C(restartPolicy) is always V(Never), and a time to live is left out.
    type: dict
    required: true
  namespace:
    description:
      - Namespace of the Job if it names none.
    type: str
  timeout:
    description:
      - Seconds for all of it, waiting for another controller included.
    type: float
    default: 600
seealso:
  - module: groundwork.platform.apply
  - module: groundwork.platform.health_gate
"""

EXAMPLES = r"""
- name: Migrate the database
  groundwork.platform.migration:
    namespace: shop
    timeout: 900
    definition:
      apiVersion: batch/v1
      kind: Job
      metadata:
        name: migrate
      spec:
        template:
          spec:
            containers:
              - name: migrate
                image: registry.example/shop/api@sha256:3b3a...
                command: [alembic, upgrade, head]
"""

RETURN = r"""
job:
  description: Name of the Job.
  type: str
  returned: success
action:
  description: V(run), V(attached) to a Job that was running, or V(unchanged) since it had succeeded before.
  type: str
  returned: success
image:
  description: Image that migrates.
  type: str
  returned: success
command:
  description: What it runs.
  type: list
  elements: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
failure:
  description: >-
    Why it failed, as data. Holds C(code), C(object), C(cause), C(evidence) and C(hint), and C(logs) and C(events)
    where there are any.
  type: dict
  returned: failure
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.migration.engine import Migration
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress


def main() -> None:
    """Migrate, or say what would run."""
    module = ClusterModule(
        argument_spec={
            "definition": {"type": "dict", "required": True},
            "namespace": {"type": "str"},
            "timeout": {"type": "float", "default": 600},
        },
        concealed=("definition",),
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        progress = Progress(params["namespace"] or "migration")
        migration = Migration(connect(params), params["definition"], params["namespace"], params["timeout"], progress)
        outcome = migration.look() if module.check_mode else migration.run()
        return {"changed": outcome.action != "unchanged", **dataclasses.asdict(outcome)}

    module.work(work)


if __name__ == "__main__":
    main()
