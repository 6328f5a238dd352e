#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Batch server-side apply."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apply
short_description: Apply many objects to a cluster at once, server-side
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Applies all given objects in one process over one pool of connections, in the order in which they need each
    other. Namespaces and CustomResourceDefinitions come first, webhooks last.
  - The whole batch is checked before anything is written, so that a bad object changes nothing. An object whose fields
    are exactly those that this collection owns, with exactly these values, is left alone. All others are dry-run on the
    server, and what equals its dry-run result is not written either.
  - Objects whose Namespace or CustomResourceDefinition is in the same batch are dry-run as soon as those are there.
    If that is refused, what this run created is removed again.
  - An object that is being deleted is waited for, and applied when it is gone.
  - What passes, such as a throttling or restarting API server or a webhook that is not up yet, is waited for.
extends_documentation_fragment:
  - groundwork.platform.auth
  - groundwork.platform.gate
attributes:
  check_mode:
    support: full
    description: >-
      Says what would change, by the server's own dry run. What the server cannot judge yet is checked against its
      published schema, and marked so in RV(objects[].checked).
  diff_mode:
    support: full
    description: Shows each object that changes; values of Secrets are masked always.
  idempotent:
    support: full
    description: Objects that are as they should be are not written.
  action_group:
    description: Takes its connection from C(module_defaults) of this action group.
    support: full
    membership:
      - groundwork.platform.kubernetes
options:
  definition:
    description:
      - An object, a list of objects, or YAML text with one or more documents.
    type: raw
  src:
    description:
      - Path of a file of manifests (YAML or JSON), or of a folder of them.
    type: path
  namespace:
    description:
      - Namespace of namespaced objects that name none.
    type: str
  state:
    description:
      - V(present) applies the objects.
      - V(absent) deletes those that are there, in reverse order, and waits until they are gone.
    type: str
    choices: [present, absent]
    default: present
  force_conflicts:
    description:
      - Take over fields that another manager owns with another value. By default the module fails and names the
        manager and the fields.
      - Other fields of that manager stay as they are. O(take_over) leaves it nothing.
    type: bool
    default: false
  take_over:
    description:
      - Names of field managers from whom the objects are taken over, such as V(kubectl-client-side-apply) for what
        C(kubectl apply) made without server-side apply, or V(helm).
      - They own nothing of the objects afterwards. What they had set and the objects do not say is removed, as if this
        module had applied it. A conflict with any other manager still fails.
    type: list
    elements: str
    default: []
  replace:
    description:
      - Kinds, such as V(Job), or single objects, such as V(Service/api), that may be deleted and created again where
        a field changes that cannot be changed. By default the module fails and names the field.
      - The new object is dry-run before the old one is deleted, and the old one is waited for until it is gone.
      - Of a V(StatefulSet), the pods and volumes stay, and the new one takes them over. It is refused when its selector
        changes.
      - PersistentVolumeClaims, PersistentVolumes, Namespaces, CustomResourceDefinitions and Clusters of CloudNativePG
        are never replaced.
    type: list
    elements: str
    default: []
  apply_set:
    description:
      - The set that these objects are, as the ApplySet specification of Kubernetes (KEP-3659) has it. The objects get
        the label C(applyset.kubernetes.io/part-of). A parent object, which holds no other data, says where they lie.
      - Objects that belong to another set are refused, and that set is named.
    type: dict
    suboptions:
      name:
        description: Name of the parent object.
        type: str
        required: true
      namespace:
        description: Namespace of the parent object; O(namespace) if it is left out, or else V(default).
        type: str
      kind:
        description: Kind of the parent object.
        type: str
        choices: [Secret, ConfigMap]
        default: Secret
      tooling:
        description:
          - Who may change the set. kubectl refuses sets that are not its own. V(kubectl) makes it one that both can
            change, with C(kubectl apply --server-side --prune --applyset).
        type: str
        choices: [groundwork.platform, kubectl]
        default: groundwork.platform
  prune:
    description:
      - After the rest is applied, delete the objects of O(apply_set) that an earlier run applied and this one does not
        have.
      - Objects whose deletion loses data are kept and returned in RV(kept), unless O(prune_kinds) names their kind.
      - Nothing is pruned while another run of the same set that began later is under way. The module fails then.
    type: bool
    default: false
  prune_kinds:
    description:
      - Kinds that are pruned too although that loses data.
      - V(PersistentVolumeClaim) also allows to prune a StatefulSet that takes its claims with it. V(Cluster) is the one
        of CloudNativePG.
    type: list
    elements: str
    choices: [PersistentVolumeClaim, PersistentVolume, Namespace, CustomResourceDefinition, Cluster]
    default: []
  images:
    description:
      - Map of a published image reference to the one to use instead, applied to every container of every object,
        and to every other string outside of ConfigMaps and Secrets that equals the published reference.
      - Upstream manifests work in an air-gapped cluster this way.
    type: dict
    default: {}
  widen_quotas:
    description:
      - Let no ResourceQuota get smaller than the one that is there. For the first of several steps, as long as there is
        something that still runs and leaves only at the end; M(groundwork.platform.release) tightens them then.
    type: bool
    default: false
  wait:
    description:
      - Afterwards, wait until the objects are healthy, as M(groundwork.platform.health_gate) does, in the same
        process.
    type: bool
    default: false
  wait_timeout:
    description:
      - Seconds for which to wait for that, or for deleted objects to be gone.
    type: float
    default: 300
  retry_timeout:
    description:
      - Seconds for which what passes is waited for, such as an API server or a webhook that does not answer.
    type: float
    default: 120
seealso:
  - module: groundwork.platform.health_gate
  - module: kubernetes.core.k8s
notes:
  - The field manager is C(groundwork.platform).
  - Where a mutating webhook or policy may match updates of a kind, its objects are always dry-run, since only the
    server can say what comes of them. So are Pods, and everything if these webhooks may not be listed.
  - All options of the gate, such as O(stable_for) and O(http_gates), apply with O(wait) only.
  - Applying objects without O(apply_set) takes them out of the set that an earlier run put them in.
  - A Deployment or StatefulSet without C(spec.replicas) and with the annotation
    C(groundwork.platform/initial-replicas) starts with that many replicas, which are then owned by the manager
    C(groundwork.platform/initial), so that an autoscaler can take them over without a conflict.
"""

EXAMPLES = r"""
- name: Apply a folder of manifests and wait until all of it is healthy
  groundwork.platform.apply:
    src: manifests/
    namespace: shop
    wait: true
    wait_timeout: 300

- name: Apply an operator's manifests with images from a mirror
  groundwork.platform.apply:
    src: operator.yaml
    images:
      ghcr.io/example/operator:1.2.3: mirror.example/operator:1.2.3

- name: Apply all of a system, and delete what an earlier release had and this one does not
  groundwork.platform.apply:
    src: manifests/
    namespace: shop
    apply_set:
      name: shop
    prune: true

- name: Take objects over from kubectl, and replace Jobs whose template changes
  groundwork.platform.apply:
    src: manifests/
    namespace: shop
    take_over:
      - kubectl-client-side-apply
    replace:
      - Job

- name: Apply two objects
  groundwork.platform.apply:
    kubeconfig: ~/.kube/config
    context: prod
    definition:
      - apiVersion: v1
        kind: Namespace
        metadata:
          name: shop
      - apiVersion: v1
        kind: ConfigMap
        metadata:
          name: settings
          namespace: shop
        data:
          colour: blue
"""

RETURN = r"""
objects:
  description: What happened to each object, in the order in which they were given.
  type: list
  elements: dict
  returned: success
  contains:
    api_version:
      description: API version of the object.
      type: str
    kind:
      description: Kind of the object.
      type: str
    namespace:
      description: Its namespace; null if it has none.
      type: str
    name:
      description: Its name.
      type: str
    action:
      description: >-
        V(created), V(changed), V(replaced), V(unchanged) or V(deleted); in check mode what would happen.
      type: str
    checked:
      description: >-
        Who judged the object before it was written. V(server) is the API server with admission. V(fields) means that
        it was not written, since its fields are those that are there. V(schema) is only the published schema, and
        V(none) nobody; the latter two only occur in check mode.
      type: str
    changed_fields:
      description: Paths of the fields that changed, without their values.
      type: list
      elements: str
      returned: when the object changed
pruned:
  description: The objects of the set that were deleted, or would be, with the same keys as RV(objects).
  type: list
  elements: dict
  returned: with O(apply_set)
kept:
  description: The objects of the set that this run does not have and that are kept, since deleting them loses data.
  type: list
  elements: str
  returned: with O(apply_set)
  sample: [PersistentVolumeClaim shop/data]
gate:
  description: What the gate said.
  type: dict
  returned: with O(wait), not in check mode
  contains:
    verdict:
      description: V(healthy).
      type: str
    checks:
      description: What the metrics and HTTP gates said, as M(groundwork.platform.health_gate) returns it.
      type: list
      elements: dict
    notes:
      description: What is to be told although all is well.
      type: list
      elements: str
    seconds:
      description: How long it took.
      type: float
failure:
  description: >-
    Why it failed, as data. Holds C(code), C(object), C(cause), C(evidence) and C(hint); for a failed gate also
    C(chain), C(logs), C(events) and all reasons under C(all).
  type: dict
  returned: failure
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import load
from ansible_collections.groundwork.platform.plugins.module_utils.apply.prune import TOOLS, SetName
from ansible_collections.groundwork.platform.plugins.module_utils.apply.replace import NEVER
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options, gate_argument_spec
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress
from ansible_collections.groundwork.platform.plugins.module_utils.release.quotas import widened


def _set_name(params: Mapping[str, Any]) -> SetName | None:
    given = params["apply_set"]
    if not given:
        return None
    if params["state"] == "absent":
        raise Failure("bad_option", "apply_set", "says nothing with state absent", hint="leave one of them out")
    namespace = given["namespace"] or params["namespace"] or "default"
    return SetName(given["name"], namespace, given["kind"], given["tooling"])


def main() -> None:
    """Apply or delete the objects, and wait for them if asked."""
    module = ClusterModule(
        argument_spec={
            "definition": {"type": "raw"},
            "src": {"type": "path"},
            "namespace": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "force_conflicts": {"type": "bool", "default": False},
            "take_over": {"type": "list", "elements": "str", "default": []},
            "replace": {"type": "list", "elements": "str", "default": []},
            "apply_set": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "namespace": {"type": "str"},
                    "kind": {"type": "str", "choices": ["Secret", "ConfigMap"], "default": "Secret"},
                    "tooling": {"type": "str", "choices": sorted(TOOLS), "default": "groundwork.platform"},
                },
            },
            "prune": {"type": "bool", "default": False},
            "prune_kinds": {
                "type": "list",
                "elements": "str",
                "choices": sorted({kind for _group, kind in NEVER}),
                "default": [],
            },
            "images": {"type": "dict", "default": {}},
            "widen_quotas": {"type": "bool", "default": False},
            "wait": {"type": "bool", "default": False},
            "wait_timeout": {"type": "float", "default": 300},
            "retry_timeout": {"type": "float", "default": 120},
            **gate_argument_spec(),
        },
        concealed=("definition",),
        required_one_of=[["definition", "src"]],
        required_if=[("prune", True, ("apply_set",))],
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        options = Options.from_params(params, params["wait_timeout"], params["namespace"])
        objects = load(params["definition"], params["src"])
        cluster = connect(params, params["retry_timeout"])
        if params["widen_quotas"]:
            objects = widened(cluster, objects, params["namespace"])
        progress = Progress(params["namespace"] or cluster.connection.context or "apply")
        applier = Applier(
            cluster,
            namespace=params["namespace"],
            force_conflicts=params["force_conflicts"],
            check_mode=module.check_mode,
            images=params["images"],
            patience=params["retry_timeout"],
            progress=progress,
            take_over=params["take_over"],
            replace=params["replace"],
            apply_set=_set_name(params),
            prune=params["prune"],
            prune_kinds=params["prune_kinds"],
        )
        present = params["state"] == "present"
        items = applier.run(objects) if present else applier.remove(objects, params["wait_timeout"])
        changed = [item for item in (*items, *applier.pruned) if item.action != "unchanged"]
        result: dict[str, Any] = {"changed": bool(changed), "objects": [item.report() for item in items]}
        if params["apply_set"]:
            result["pruned"] = [item.report() for item in applier.pruned]
            result["kept"] = [item.name for item in applier.kept]
        if module._diff:
            result["diff"] = [item.diff() for item in changed]
        if present and params["wait"] and not module.check_mode:
            targets = [item.obj for item in items]
            verdict = Gate(cluster, targets, progress=progress, existing=True, options=options).run()
            result["gate"] = {
                "verdict": "healthy",
                "checks": verdict.checks,
                "notes": verdict.notes,
                "seconds": verdict.seconds,
            }
        return result

    module.work(work)


if __name__ == "__main__":
    main()
