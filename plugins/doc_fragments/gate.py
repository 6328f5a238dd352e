# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options of a gate that several modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as C(groundwork.platform.gate)."""

    DOCUMENTATION = r"""
options:
  stable_for:
    description:
      - Seconds for which everything has to stay ready without a restart before the verdict is good.
    type: float
    default: 0
  unprobed_for:
    description:
      - Seconds for which a container without a readiness probe has to have run before its workload counts as ready.
        That it was started is all that Kubernetes knows of such a container, so one that crashes after a second is
        ready for a second. Containers with a readiness probe are believed at once.
    type: float
    default: 10
  no_progress_timeout:
    description:
      - Seconds for which no object may come nearer to ready than it has been, before the verdict is bad. It names the
        likeliest cause. V(0) means no such limit.
    type: float
    default: 0
  error_budget:
    description:
      - How much trouble of the new pods is put up with before the verdict is bad early. The objects still have to get
        ready in time.
    type: dict
    suboptions:
      restarts:
        description:
          - Restarts of one container after which its crashing counts as permanent. Restarts from before the gate, of
            a container that was ready when it began, do not count.
        type: int
        default: 3
      failed_pods:
        description:
          - Pods of one workload that may be in permanent trouble at the same time.
        type: int
        default: 0
  readiness_rules:
    description:
      - When objects of a kind are ready, in place of the rule that the gate has for it. Each expression is JMESPath on
        the whole object, and counts as true unless it finds null, false or something empty.
      - An object whose C(status.observedGeneration) is behind its generation is not ready whatever the rule says.
      - Needs the Python package C(jmespath).
    type: list
    elements: dict
    default: []
    suboptions:
      group:
        description:
          - API group; empty for the core group.
        type: str
        default: ""
      kind:
        description:
          - Kind.
        type: str
        required: true
      ready:
        description:
          - True when the object is ready, such as V(status.phase == 'Succeeded').
        type: str
        required: true
      failed:
        description:
          - True when the object is certain not to get ready by itself. This ends the wait.
        type: str
      reason:
        description:
          - What the object says about itself, shown while it is not ready.
        type: str
  metric_gates:
    description:
      - Conditions on metrics that have to hold once the objects are ready, in addition to that. Every series that a
        query finds has to satisfy its condition.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name for messages.
        type: str
        required: true
      query:
        description:
          - PromQL for a single moment.
        type: str
        required: true
      condition:
        description:
          - A comparison with a number such as V(<= 0.01), or with the value before the release such as
            V(<= baseline * 1.2).
        type: str
        required: true
      for:
        description:
          - Seconds for which it has to hold at every look.
        type: float
        default: 0
      interval:
        description:
          - Seconds between two looks.
        type: float
        default: 5
      grace:
        description:
          - Seconds for which, once the objects are ready, the condition may not hold or nobody may answer, before the
            verdict is bad.
        type: float
        default: 60
      no_data:
        description:
          - What it means that a query finds nothing, or that Prometheus does not answer.
          - With V(wait) that is not good, and bad after O(metric_gates[].grace). With V(fail) a query that finds
            nothing is bad at once. With V(pass) it is as good as a condition that holds.
        type: str
        choices: [wait, fail, pass]
        default: wait
      baseline:
        description:
          - How many seconds before the gate began the values were taken that the condition calls C(baseline).
            Prometheus is asked for them afterwards, by its own clock, so nothing has to run before the release.
        type: float
      url:
        description:
          - Address of Prometheus as this machine reaches it, with a path before C(/api/v1) if it has one.
        type: str
      service:
        description:
          - Prometheus's Service instead. It is asked through the API server, which needs the permission to get
            C(services/proxy).
        type: dict
        suboptions:
          namespace:
            description:
              - Its namespace. The module's O(namespace) by default.
            type: str
          name:
            description:
              - Its name.
            type: str
            required: true
          port:
            description:
              - Number or name of its port.
            type: str
            required: true
          scheme:
            description:
              - How it speaks.
            type: str
            choices: [http, https]
            default: http
      headers:
        description:
          - Headers to send, such as C(Authorization). The API server drops that one on its way to a Service.
        type: dict
      validate_certs:
        description:
          - Whether to verify the certificate of O(metric_gates[].url).
        type: bool
        default: true
      request_timeout:
        description:
          - Seconds to wait for an answer.
        type: float
        default: 5
  http_gates:
    description:
      - Requests that have to be answered as said once the objects are ready, in addition to that.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name for messages.
        type: str
        required: true
      path:
        description:
          - Path to get, with its query.
        type: str
        default: /
      status:
        description:
          - Statuses that are good. Redirects are not followed.
        type: list
        elements: int
        default: [200]
      body:
        description:
          - JMESPath that has to be true for the JSON of the body, such as V(database == 'up').
        type: str
      successes:
        description:
          - Good answers in a row that are needed.
        type: int
        default: 1
      interval:
        description:
          - Seconds between two requests.
        type: float
        default: 2
      grace:
        description:
          - Seconds for which, once the objects are ready, the answers may be bad before the verdict is.
        type: float
        default: 60
      url:
        description:
          - Address as this machine reaches it; O(http_gates[].path) is added.
        type: str
      service:
        description:
          - A Service instead, asked through the API server, which needs the permission to get C(services/proxy).
        type: dict
        suboptions:
          namespace:
            description:
              - Its namespace. The module's O(namespace) by default.
            type: str
          name:
            description:
              - Its name.
            type: str
            required: true
          port:
            description:
              - Number or name of its port.
            type: str
            required: true
          scheme:
            description:
              - How it speaks.
            type: str
            choices: [http, https]
            default: http
      headers:
        description:
          - Headers to send, such as C(Authorization). The API server drops that one on its way to a Service.
        type: dict
      validate_certs:
        description:
          - Whether to verify the certificate of O(http_gates[].url).
        type: bool
        default: true
      request_timeout:
        description:
          - Seconds to wait for an answer.
        type: float
        default: 5
"""
