#!/usr/bin/python
# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One verdict on the health of a set of objects."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Wait until objects are healthy, or say why they never will be
version_added: 0.1.0
author: groundwork.platform contributors (@groundwork-platform)
description:
  - Watches the given objects and what they own, together, and gives one verdict.
  - An object is judged by the rules of its kind; of workloads only the pods of the new revision count.
  - What will not heal by itself (an image that does not exist, a missing Secret, a refusal by Pod Security, a crash
    loop, and so on) ends the wait at once or after a short grace, and the failure names the root cause with the
    chain from the workload to the container, the last log lines and events. What only waits for something else that
    is broken is listed after that, and a component that crashes while what it needs is still on its way is waited for.
  - Metrics and HTTP answers can be made part of the verdict.
  - While it waits it shows one line for each change on a terminal and in AWX, and nothing in other logs.
extends_documentation_fragment:
  - groundwork.platform.auth
  - groundwork.platform.gate
attributes:
  async:
    support: none
    description: It waits in the foreground, with a deadline of its own.
  check_mode:
    support: full
    description: Looks once, without waiting, and does not fail. Each metric and HTTP gate is asked once.
  diff_mode:
    support: N/A
    description: Does not change anything, so there is nothing to compare.
  idempotent:
    support: full
    description: Never changes anything.
options:
  definition:
    description:
      - An object, a list of objects, or YAML text with one or more documents. C(apiVersion), C(kind) and the name
        and namespace in C(metadata) are enough.
    type: raw
  src:
    description:
      - Path of a file of manifests (YAML or JSON), or of a folder of them.
    type: path
  namespace:
    description:
      - Namespace of namespaced objects that name none.
    type: str
  timeout:
    description:
      - Seconds after which the verdict is bad if it is not good before.
    type: float
    default: 300
notes:
  - It needs to list and watch the kinds it is given, and Pods, Events, ReplicaSets and other kinds that tell how those
    fare. What it may not read it does without, and says so.
  - Before it shows a log it reads the Secrets that the failing pod uses, so as to mask their values.
seealso:
  - module: groundwork.platform.apply
  - module: kubernetes.core.k8s_info
"""

EXAMPLES = r"""
- name: See whether a release is healthy and stays so for half a minute
  groundwork.platform.health_gate:
    src: manifests/
    namespace: shop
    timeout: 300
    stable_for: 30

- name: Wait for one Deployment
  groundwork.platform.health_gate:
    definition:
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: api
        namespace: shop

- name: Hold a release to its error rate and to its own health page
  groundwork.platform.health_gate:
    src: manifests/
    namespace: shop
    stable_for: 60
    no_progress_timeout: 120
    error_budget:
      restarts: 5
    metric_gates:
      - name: error rate
        service: {namespace: monitoring, name: prometheus, port: "9090"}
        query: >-
          sum(rate(http_requests_total{namespace="shop", status=~"5.."}[1m]))
          / sum(rate(http_requests_total{namespace="shop"}[1m]))
        condition: <= 0.01
        for: 60
        no_data: wait
      - name: latency
        url: https://prometheus.example
        query: histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[2m])))
        condition: <= baseline * 1.2
        baseline: 600
        no_data: pass
    http_gates:
      - name: health page
        service: {name: api, port: http}
        path: /health
        body: database == 'up'
        successes: 3

- name: Wait for a custom resource by a rule of one's own
  groundwork.platform.health_gate:
    definition:
      apiVersion: example.com/v1
      kind: Import
      metadata: {name: nightly, namespace: shop}
    readiness_rules:
      - group: example.com
        kind: Import
        ready: status.phase == 'Done'
        failed: status.phase == 'Rejected'
        reason: status.reason
"""

RETURN = r"""
verdict:
  description: V(healthy); in check mode also V(not_healthy).
  type: str
  returned: success
objects:
  description: State of each object.
  type: list
  elements: dict
  returned: success
  contains:
    object:
      description: Kind, namespace and name.
      type: str
    state:
      description: V(ready), V(progressing) or V(failed).
      type: str
    message:
      description: What its rule says of it.
      type: str
checks:
  description: State of each metric and HTTP gate.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Which one.
      type: str
    state:
      description: V(ready) or, in check mode, V(progressing) or V(failed).
      type: str
    message:
      description: What was seen.
      type: str
notes:
  description: What is to be told although all is well, such as an autoscaler without metrics.
  type: list
  elements: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
failure:
  description: The first reason.
  type: dict
  returned: failure
  contains:
    code:
      description: >-
        Kind of the cause, such as V(image_not_found), V(crash_loop), V(metric_violated), V(no_progress), V(unstable) or
        V(timeout).
      type: str
    object:
      description: Which object is not healthy.
      type: str
    cause:
      description: Why.
      type: str
    evidence:
      description: What was seen.
      type: str
    hint:
      description: What to do.
      type: str
    because:
      description: What has to be put right first; empty for a root of the trouble, as the first reason is.
      type: str
    chain:
      description: From the object down to the container.
      type: list
      elements: str
    logs:
      description: >-
        Last lines of the container's log, without the values of the pod's Secrets and what looks like a credential.
      type: list
      elements: str
    events:
      description: Last events about the pod.
      type: list
      elements: str
    first_seen:
      description: Seconds from the beginning to when this was first seen.
      type: float
    certain:
      description:
        - Seconds from the beginning to when this was certain, which is at once or when its grace was over.
        - Empty for what only explains why a deadline has passed.
      type: float
    seconds:
      description: Seconds from the beginning to the verdict.
      type: float
    all:
      description: All reasons, roots first, each with the fields above but the seconds.
      type: list
      elements: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.apply.objects import load
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_module import ClusterModule, connect
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import Gate, gate_targets
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options, gate_argument_spec
from ansible_collections.groundwork.platform.plugins.module_utils.progress import Progress


def main() -> None:
    """Judge the objects."""
    module = ClusterModule(
        argument_spec={
            "definition": {"type": "raw"},
            "src": {"type": "path"},
            "namespace": {"type": "str"},
            "timeout": {"type": "float", "default": 300},
            **gate_argument_spec(),
        },
        concealed=("definition",),
        required_one_of=[["definition", "src"]],
    )

    def work(params: Mapping[str, Any]) -> dict[str, Any]:
        options = Options.from_params(params, params["timeout"], params["namespace"])
        cluster = connect(params)
        targets = gate_targets(load(params["definition"], params["src"]), cluster, params["namespace"])
        progress = Progress(params["namespace"] or cluster.connection.context or "gate")
        gate = Gate(cluster, targets, progress=progress, options=options)
        verdict = gate.look() if module.check_mode else gate.run()
        return {
            "changed": False,
            "verdict": "healthy" if verdict.healthy else "not_healthy",
            "objects": verdict.objects,
            "checks": verdict.checks,
            "notes": verdict.notes,
            "seconds": verdict.seconds,
        }

    module.work(work)


if __name__ == "__main__":
    main()
