#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cluster this is, and whether it is the right one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Read a cluster's version and identity, and refuse the wrong cluster
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Reads the version of the API server and the UID of the Namespace C(kube-system), which identifies a cluster for
    as long as it lives.
  - Fails if that is not the expected one, so that a play does not work on another cluster that has got the same
    address or context.
extends_documentation_fragment:
  - groundwork.platform.auth
attributes:
  check_mode:
    support: full
    description: Can run in check mode, as it changes nothing.
  diff_mode:
    support: N/A
    description: Does not change anything, so there is nothing to compare.
  idempotent:
    support: full
    description: Never changes anything.
options:
  expected_uid:
    description:
      - UID that the Namespace C(kube-system) must have.
    type: str
  absent_ok:
    description:
      - Return RV(reachable=false) instead of failing when the kubeconfig or its context does not exist, or nothing
        answers.
    type: bool
    default: false
  objects:
    description:
      - Objects to read in the same go.
    type: list
    elements: dict
    default: []
    suboptions:
      api_version:
        description: API version of the object.
        type: str
        default: v1
      kind:
        description: Its kind.
        type: str
        required: true
      name:
        description: Its name.
        type: str
        required: true
      namespace:
        description: Its namespace, if it has one.
        type: str
"""

EXAMPLES = r"""
- name: Make sure that this is the cluster that the inventory means
  groundwork.platform.cluster_info:
    context: prod
    expected_uid: 0d8ac3c4-1a31-4f2e-8a1b-3a4bb9a0ad5e
"""

RETURN = r"""
reachable:
  description: Whether the API server answered.
  type: bool
  returned: success
version:
  description: Its version, such as V(v1.36.3); empty if it is not reachable.
  type: str
  returned: success
uid:
  description: UID of the Namespace C(kube-system); empty if it is not reachable.
  type: str
  returned: success
host:
  description: URL of the API server; empty if it is not known.
  type: str
  returned: success
context:
  description: Context that was used; empty if there is none.
  type: str
  returned: success
objects:
  description: The objects of O(objects), in that order; null for one that is not there. Secrets come without values.
  type: list
  elements: raw
  returned: success
reason:
  description: Why the cluster is not reachable.
  type: str
  returned: when RV(reachable=false)
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

ABSENT = ("unreachable", "kubeconfig_not_found", "context_not_found")
# A restarting API server is back in 5 to 20 s.
PATIENCE = 30.0


def main() -> None:
    """Read and compare."""
    module = ClusterModule(
        argument_spec={
            "expected_uid": {"type": "str"},
            "absent_ok": {"type": "bool", "default": False},
            "objects": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "api_version": {"type": "str", "default": "v1"},
                    "kind": {"type": "str", "required": True},
                    "name": {"type": "str", "required": True},
                    "namespace": {"type": "str"},
                },
            },
        }
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return information(params)
        except Failure as failure:
            if not params["absent_ok"] or failure.code not in ABSENT:
                raise
            return {
                "changed": False,
                "reachable": False,
                "version": "",
                "uid": "",
                "host": "",
                "context": params["context"] or "",
                "objects": [None] * len(params["objects"]),
                "reason": failure.sentence,
            }

    module.work(work)


def information(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the module returns of a cluster that answers.

    :raises Failure: ``wrong_cluster``, or what keeps it from answering.
    """
    cluster = connect(params, 3.0 if params["absent_ok"] else PATIENCE)
    system = cluster.get(cluster.resource("v1", "Namespace"), "kube-system")
    uid = str(((system or {}).get("metadata") or {}).get("uid") or "")
    expected = params["expected_uid"]
    if expected and uid != expected:
        raise Failure(
            "wrong_cluster",
            f"API server {cluster.connection.server}",
            "is another cluster than the one that is meant",
            f"its kube-system has UID {uid}, not {expected}; the connection comes from {cluster.connection.source}",
            "correct the kubeconfig or context, or record the new UID if the cluster was replaced on purpose",
        )
    return {
        "changed": False,
        "reachable": True,
        "version": cluster.version().get("gitVersion", ""),
        "uid": uid,
        "host": cluster.connection.server,
        "context": cluster.connection.context,
        "objects": [_read(cluster, wanted) for wanted in params["objects"]],
    }


def _read(cluster: Cluster, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    resource = cluster.find_resource(wanted["api_version"], wanted["kind"])
    found = cluster.get(resource, wanted["name"], wanted["namespace"]) if resource is not None else None
    if found is None:
        return None
    found["metadata"].pop("managedFields", None)
    if wanted["kind"] == "Secret":
        found.pop("data", None)
        found["metadata"].pop("annotations", None)
    return found


if __name__ == "__main__":
    main()
