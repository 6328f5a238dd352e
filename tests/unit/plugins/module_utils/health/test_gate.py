"""Whole gates on simulated time: when the verdict comes, what it says, and what it does not condemn."""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import json
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import ApiError, Unreachable
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.checks import (
    Check,
    Finding,
    HttpCheck,
    Outcome,
)
from ansible_collections.groundwork.platform.plugins.module_utils.health.endpoint import Endpoint
from ansible_collections.groundwork.platform.plugins.module_utils.health.gate import GateFailed, Verdict
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from tests.support.objects import (
    container,
    crashing,
    custom,
    endpoints,
    event,
    pod,
    ready_pod,
    replica_set,
    running,
    service,
    waiting,
    workload,
)
from tests.support.simulation import START, Simulation, simulated

API = workload("api")
DB = workload("db", "StatefulSet")
REFUSED = 'connection to server at "db" (10.96.0.7), port 5432 failed: Connection refused'


def run(simulation: Simulation, *targets: Object, **options: Any) -> Verdict:
    with simulated(simulation, list(targets), options=Options(**{"timeout": 300, **options})) as gate:
        return gate.run()


def condemned(simulation: Simulation, *targets: Object, **options: Any) -> tuple[GateFailed, float]:
    """The failure, and the seconds until it."""
    with pytest.raises(GateFailed) as caught:
        run(simulation, *targets, **options)
    return caught.value, simulation.time - START


def with_set(*objects: Object) -> list[Object]:
    """Objects, and the ReplicaSets of the Deployments among them."""
    return [*objects, *(replica_set(item) for item in objects if item["kind"] == "Deployment")]


def test_the_verdict_comes_with_the_event_that_makes_it_certain() -> None:
    simulation = Simulation(*with_set(API), pod(API, containerStatuses=[container(waiting("ContainerCreating"))]))
    simulation.at(40, pod(API, containerStatuses=[container(waiting("ErrImagePull", "api:1: not found"))]))
    failure, seconds = condemned(simulation, API)
    assert failure.code == "image_not_found"
    assert 40 <= seconds < 42
    assert failure.diagnoses[0]["chain"] == ["Deployment n/api", "ReplicaSet n/api-1", "Pod n/api-0", "container main"]


def test_it_returns_as_soon_as_all_is_ready() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.at(30, ready_pod(API))
    simulation.at(30.2, workload("api", ready=True))
    verdict = run(simulation, API)
    assert verdict.healthy
    assert 30.2 <= verdict.seconds <= 30.5


def lacks(of: Object, message: str, number: int = 0) -> Object:
    """A pod whose container cannot be configured."""
    return pod(of, number, containerStatuses=[container(waiting("CreateContainerConfigError", message))])


NO_SECRET, NO_KEY = 'secret "db" not found', "couldn't find key url in ConfigMap n/db"


def asked(simulation: Simulation) -> list[str]:
    return [path for path in simulation.asked if path.startswith("/api")]


@pytest.mark.parametrize("message", [NO_SECRET, NO_KEY])
def test_what_is_missing_is_told_when_its_grace_ends_and_the_api_knows_nothing_of_it(message: str) -> None:
    api = workload("api", replicas=40)
    simulation = Simulation(*with_set(api))
    simulation.at(10, *(lacks(api, message, number) for number in range(40)))
    failure, seconds = condemned(simulation, api)
    assert failure.code == "config_missing"
    assert 10 + Policy().config <= seconds < 12 + Policy().config
    # Once, for forty pods; and no log tells more.
    assert len(asked(simulation)) == 1


@pytest.mark.parametrize(("message", "data"), [(NO_SECRET, {}), (NO_KEY, {"url": "x"})])
def test_what_has_come_meanwhile_is_left_to_the_kubelet_to_find(message: str, data: dict[str, str]) -> None:
    simulation = Simulation(*with_set(API), lacks(API, message))
    simulation.call(6, lambda: simulation.secrets.update({"db": {"data": data}}))
    # For volumes it looks again after up to two minutes.
    simulation.at(120, ready_pod(API), workload("api", ready=True))
    assert run(simulation, API).healthy
    assert len(asked(simulation)) == 1


def test_a_key_that_an_object_still_lacks_condemns() -> None:
    simulation = Simulation(*with_set(API), lacks(API, NO_KEY))
    simulation.secrets["db"] = {"data": {"uri": "x"}}
    failure, seconds = condemned(simulation, API)
    assert "lacks key url of ConfigMap db" in failure.sentence
    assert Policy().config <= seconds < Policy().config + 2


def test_whoever_may_not_ask_goes_by_the_grace_alone() -> None:
    forbidden = ApiError("forbidden", "Secret n/db", "is forbidden", status=403)
    simulation = Simulation(*with_set(API), lacks(API, NO_SECRET))
    simulation.refusals["db"] = forbidden
    failure, seconds = condemned(simulation, API)
    assert failure.code == "config_missing"
    assert Policy().unasked <= seconds < Policy().unasked + 2
    simulation = Simulation(*with_set(API), lacks(API, NO_SECRET))
    simulation.refusals["db"] = forbidden
    simulation.at(Policy().unasked - 1, ready_pod(API), workload("api", ready=True))
    assert run(simulation, API).healthy
    assert len(asked(simulation)) == 1


def test_without_an_answer_nobody_is_condemned_until_there_is_one() -> None:
    simulation = Simulation(*with_set(API), lacks(API, NO_SECRET))
    simulation.refusals["db"] = Unreachable("unreachable", "API server", "does not answer")
    simulation.call(60, simulation.refusals.clear)
    failure, seconds = condemned(simulation, API)
    assert failure.code == "config_missing"
    assert 60 <= seconds < 63
    assert len(asked(simulation)) < 60


def test_an_operator_that_makes_the_pods_has_time_for_what_they_need() -> None:
    prometheus = custom("monitoring.coreos.com/v1", "Prometheus", "main")
    store = workload("store", "StatefulSet")
    store["metadata"]["ownerReferences"] = [{"uid": "Prometheus-main", "kind": "Prometheus", "controller": True}]
    failure, seconds = condemned(Simulation(prometheus, store, lacks(store, NO_SECRET)), prometheus)
    assert failure.object == "Prometheus n/main"
    assert Policy().operator <= seconds < Policy().operator + 2


def test_the_value_of_a_secret_that_was_asked_for_is_nowhere() -> None:
    value = base64.b64encode(b"s3cr3t-that-is-there").decode()
    simulation = Simulation(*with_set(API), lacks(API, "couldn't find key password in Secret n/db"))
    simulation.secrets["db"] = {"data": {"user": value}}
    with simulated(simulation, [API], options=Options()) as gate, pytest.raises(GateFailed) as caught:
        gate.run()
    kept = repr([vars(gate), vars(gate.judge), gate.judge.answers])
    for output in (json.dumps(caught.value.as_dict()), caught.value.sentence, str(simulation.told), kept):
        assert value not in output
        assert "s3cr3t-that-is-there" not in output


def test_without_any_progress_the_wait_ends_and_says_why() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.at(20, pod(API, phase="Running", containerStatuses=[running(False)]))
    failure, seconds = condemned(simulation, API, no_progress_timeout=60)
    assert failure.code == "no_progress"
    assert "no nearer to ready for 60 s" in failure.cause
    assert "does not get ready" in failure.cause
    assert 80 <= seconds < 82


def test_progress_is_any_object_that_is_further_than_ever() -> None:
    simulation = Simulation(*with_set(API, DB), pod(API), pod(DB))
    # Back and forth is no progress; the database's is.
    for moment in range(10, 200, 10):
        status = crashing(1) if moment % 20 else running(False)
        simulation.at(moment, pod(API, phase="Running", containerStatuses=[status]))
    simulation.at(70, pod(DB, phase="Running", containerStatuses=[running(False)]))
    failure, seconds = condemned(simulation, API, DB, no_progress_timeout=60)
    assert failure.code == "no_progress"
    assert 130 <= seconds < 132


def test_an_outage_of_the_api_server_is_no_lack_of_progress() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.lose(10, 100, Unreachable("unreachable", "API server", "does not answer"))
    simulation.at(140, workload("api", ready=True))
    assert run(simulation, API, no_progress_timeout=60).healthy


def test_an_outage_ends_the_wait_in_the_end() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.lose(10, 1000, Unreachable("unreachable", "API server", "does not answer"))
    with pytest.raises(Failure) as caught:
        run(simulation, API)
    assert caught.value.code == "unreachable"
    assert simulation.time - START < 140
    assert any("does not answer" in line for _moment, line in simulation.told)


def test_a_grace_that_ended_during_an_outage_waits_for_the_watches_to_catch_up() -> None:
    broken = pod(API, containerStatuses=[container(waiting("CreateContainerConfigError", 'secret "db" not found'))])
    simulation = Simulation(*with_set(API), broken)
    simulation.lose(5, 60, Unreachable("unreachable", "API server", "does not answer"))
    # What happened meanwhile arrives a moment after the connection.
    simulation.at(65.5, ready_pod(API), workload("api", ready=True))
    assert run(simulation, API).healthy


BROKEN_PULL = pod(API, containerStatuses=[container(waiting("ErrImagePull", "dial tcp: i/o timeout"))])


def test_a_grace_that_ends_while_the_network_is_silently_cut_condemns_nobody() -> None:
    """No watch has noticed anything: that nobody answers is the only sign."""
    simulation = Simulation(*with_set(API), BROKEN_PULL)
    silence = Unreachable("unreachable", "API server", "does not answer")
    simulation.call(50, lambda: simulation.refusals.update({"version": silence}))
    simulation.call(110, simulation.refusals.clear)
    simulation.at(110.5, ready_pod(API), workload("api", ready=True))
    assert run(simulation, API).healthy


def test_an_answer_that_took_long_may_be_the_first_after_a_cut() -> None:
    simulation = Simulation(*with_set(API), BROKEN_PULL)
    simulation.delays["version"] = 2.5
    simulation.at(Policy().image + 3, ready_pod(API), workload("api", ready=True))
    assert run(simulation, API).healthy


def test_a_slow_api_server_delays_a_verdict_once() -> None:
    simulation = Simulation(*with_set(API), BROKEN_PULL)
    simulation.delays["version"] = 2.5
    failure, seconds = condemned(simulation, API)
    assert failure.code == "image_pull"
    assert Policy().image + 2.5 <= seconds < Policy().image + 5
    assert simulation.asked.count("/version") == 1


def test_staying_ready_begins_anew_with_each_break() -> None:
    simulation = Simulation(*with_set(workload("api", ready=True)), ready_pod(API))
    simulation.at(20, ready_pod(API, restartCount=1))
    simulation.at(40, workload("api"))
    simulation.at(50, workload("api", ready=True))
    verdict = run(simulation, API, stable_for=30)
    assert 80 <= verdict.seconds <= 81


def test_what_never_stays_ready_is_unsteady() -> None:
    simulation = Simulation(*with_set(workload("api", ready=True)), ready_pod(API))
    for moment in range(20, 120, 20):
        simulation.at(moment, workload("api"))
        simulation.at(moment + 5, workload("api", ready=True))
    failure, seconds = condemned(simulation, API, stable_for=30, timeout=120)
    assert failure.code == "unstable"
    assert "not for 30 s within 120 s" in failure.cause
    assert "interrupted 5 times" in failure.evidence
    assert seconds == pytest.approx(120)


def test_what_gets_ready_with_the_deadline_is_healthy() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.at(60, workload("api", ready=True), ready_pod(API))
    assert run(simulation, API, timeout=60).healthy


def test_what_is_certain_at_the_deadline_is_told_for_its_cause() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.at(60, pod(API, containerStatuses=[container(waiting("InvalidImageName"))]))
    failure, _seconds = condemned(simulation, API, timeout=60)
    assert failure.code == "image_invalid"


def test_one_that_flaps_at_the_deadline_says_so() -> None:
    simulation = Simulation(*with_set(workload("api", ready=True)), ready_pod(API))
    simulation.at(20, workload("api"))
    failure, _seconds = condemned(simulation, API, stable_for=30, timeout=60)
    assert failure.code == "timeout"
    assert "everything was ready 1 times before" in failure.evidence


def broken_apps(count: int) -> list[Object]:
    """Components that crash since the database refuses connections."""
    return [workload(f"app-{number}", env={"DATABASE_HOST": "db"}) for number in range(count)]


def test_one_broken_database_is_one_failure_and_not_forty() -> None:
    apps = broken_apps(40)
    simulation = Simulation(*with_set(DB, *apps), service("db"), pod(DB))
    for app in apps:
        simulation.objects.append(pod(app, phase="Running", containerStatuses=[crashing(2)]))
        simulation.at(30, pod(app, phase="Running", containerStatuses=[crashing(4)]))
        simulation.log[(f"{app['metadata']['name']}-0", "main")] = ["starting", REFUSED]
    simulation.at(20, pod(DB, containerStatuses=[container(waiting("ImagePullBackOff", "db:1: i/o timeout"))]))
    failure, seconds = condemned(simulation, DB, service("db"), *apps)
    assert failure.object == "StatefulSet n/db"
    assert failure.code == "image_pull"
    assert "cannot pull its image" in failure.sentence
    assert "also waiting for it: Deployment n/app-0" in failure.evidence
    assert "and 35 more" in failure.evidence
    followers = [item for item in failure.diagnoses if item["because"] == "StatefulSet n/db"]
    assert len(followers) == len(failure.diagnoses) - 1
    # Not when the first forty crash, but when what they wait for is certain.
    assert 20 + Policy().image <= seconds < 22 + Policy().image
    # A log of each component, and not again while nothing happens.
    assert len(simulation.asked) <= 45


def test_the_logs_alone_name_the_database() -> None:
    apps = [workload(f"app-{number}") for number in range(20)]
    pods = [pod(app, phase="Running", containerStatuses=[crashing(4)]) for app in apps]
    simulation = Simulation(*with_set(DB, *apps), service("db"), *pods, pod(DB))
    simulation.log.update({(f"app-{number}-0", "main"): [REFUSED] for number in range(20)})
    simulation.at(20, pod(DB, containerStatuses=[container(waiting("InvalidImageName"))]))
    failure, seconds = condemned(simulation, DB, service("db"), *apps)
    assert failure.object == "StatefulSet n/db"
    assert 20 <= seconds < 22


def test_a_database_that_is_only_slow_condemns_nobody() -> None:
    apps = broken_apps(2)
    simulation = Simulation(*with_set(DB, *apps), service("db"), endpoints("db", ready=False), pod(DB))
    for app in apps:
        simulation.log[(f"{app['metadata']['name']}-0", "main")] = [REFUSED]
        simulation.at(30, pod(app, phase="Running", containerStatuses=[crashing(5)]))
        simulation.at(150, ready_pod(app), workload(app["metadata"]["name"], ready=True, env={"DATABASE_HOST": "db"}))
    simulation.at(100, ready_pod(DB), workload("db", "StatefulSet", ready=True), endpoints("db"))
    assert run(simulation, DB, service("db"), *apps).healthy
    assert any("app-0 waits for StatefulSet db" in line for _moment, line in simulation.told)


def test_all_pods_that_crashed_for_want_of_a_database_get_a_fresh_start() -> None:
    (app,) = broken_apps(1)
    app["spec"]["replicas"] = 3
    simulation = Simulation(*with_set(DB, app), service("db"), endpoints("db", ready=False), pod(DB))
    for number in range(3):
        simulation.log[(f"app-0-{number}", "main")] = [REFUSED]
        simulation.at(30 + number, pod(app, number, phase="Running", containerStatuses=[crashing(5)]))
        simulation.at(150, ready_pod(app, number))
    simulation.at(100, ready_pod(DB), workload("db", "StatefulSet", ready=True), endpoints("db"))
    done = {"updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}
    simulation.at(150, {**app, "status": {**app["status"], **done}})
    assert run(simulation, DB, service("db"), app).healthy


def test_who_goes_on_crashing_with_the_database_there_is_condemned_after_a_new_budget() -> None:
    (app,) = broken_apps(1)
    simulation = Simulation(*with_set(DB, app), service("db"), endpoints("db"), pod(DB))
    simulation.log[("app-0-0", "main")] = [REFUSED]
    simulation.at(30, pod(app, phase="Running", containerStatuses=[crashing(5)]))
    simulation.at(100, ready_pod(DB), workload("db", "StatefulSet", ready=True))
    for number, moment in enumerate((120, 140, 160)):
        simulation.at(moment, pod(app, phase="Running", containerStatuses=[crashing(6 + number)]))
    failure, seconds = condemned(simulation, DB, service("db"), app)
    assert failure.object == "Deployment n/app-0"
    assert 160 <= seconds < 162


def test_a_crash_of_its_own_is_not_blamed_on_a_slow_database() -> None:
    (app,) = broken_apps(1)
    simulation = Simulation(*with_set(DB, app), service("db"), pod(DB))
    simulation.log[("app-0-0", "main")] = ["Traceback", "KeyError: 'SETTINGS'"]
    simulation.at(30, pod(app, phase="Running", containerStatuses=[crashing(5)]))
    failure, seconds = condemned(simulation, DB, service("db"), app)
    assert failure.object == "Deployment n/app-0"
    assert "KeyError" in failure.evidence
    assert 30 <= seconds < 32


def test_a_secret_that_is_still_being_synced_is_waited_for() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "SecretSyncedError", "message": "could not get secret"}
    spec = {"target": {"name": "db"}, "secretStoreRef": {"name": "vault"}}
    secret = custom("external-secrets.io/v1", "ExternalSecret", "keys", spec)
    broken = pod(API, containerStatuses=[container(waiting("CreateContainerConfigError", 'secret "db" not found'))])
    simulation = Simulation(*with_set(API), secret, broken)
    simulation.at(40, {**secret, "status": {"conditions": [condition]}})
    failure, seconds = condemned(simulation, API, secret)
    assert failure.object == "ExternalSecret n/keys"
    assert "also waiting for it: Deployment n/api" in failure.evidence
    assert 85 <= seconds < 87


def test_the_same_missing_secret_is_told_once() -> None:
    apps = [workload(f"app-{number}") for number in range(5)]
    message = waiting("CreateContainerConfigError", 'secret "db" not found')
    pods = [pod(app, containerStatuses=[container(message)]) for app in apps]
    failure, _seconds = condemned(Simulation(*with_set(*apps), *pods), *apps)
    assert failure.object == "Deployment n/app-0"
    assert "also waiting for it: Deployment n/app-1" in failure.evidence
    assert {item["because"] for item in failure.diagnoses[1:]} == {"Secret n/db"}


def test_independent_failures_are_all_named() -> None:
    other = workload("web")
    simulation = Simulation(
        *with_set(API, other),
        pod(API, containerStatuses=[container(waiting("ErrImagePull", "api:1: not found"))]),
        pod(other, phase="Running", containerStatuses=[crashing(5)]),
    )
    failure, _seconds = condemned(simulation, API, other)
    assert failure.object == "Deployment n/api"
    assert "not ready either: Deployment n/web" in failure.evidence
    assert [item["because"] for item in failure.diagnoses] == ["", ""]


def test_the_error_budget_puts_up_with_some_pods() -> None:
    api = workload("api", replicas=3)
    broken = {"containerStatuses": [container(waiting("ErrImagePull", "api:1: not found"))]}
    simulation = Simulation(*with_set(api), ready_pod(api, 0), pod(api, 1, **broken), pod(api, 2))
    simulation.at(50, pod(api, 2, **broken))
    failure, seconds = condemned(simulation, api, policy=Policy(failed_pods=1))
    assert failure.code == "image_not_found"
    assert 50 <= seconds < 52


@dataclasses.dataclass(frozen=True)
class Scripted(Check):
    """A check whose answers change at given seconds."""

    answers: tuple[tuple[float, Finding], ...] = ()

    @property
    def title(self) -> str:
        return f"Check {self.name}"

    def measure(self, cluster: Any, memory: dict[str, Any]) -> Outcome:
        now = cluster.clock.now() - START
        finding = [finding for moment, finding in self.answers if moment <= now][-1]
        return Outcome(finding, finding.value)


HERE = Endpoint(url="http://example.test")
READY = with_set(workload("api", ready=True))


def check(*answers: tuple[float, Finding], **more: Any) -> Scripted:
    return Scripted("c", HERE, answers=answers, **more)


def test_a_check_has_to_hold_for_its_time() -> None:
    script = check((0, Finding.BAD), (12, Finding.GOOD), interval=5, hold=30)
    verdict = run(Simulation(*READY, ready_pod(API)), API, checks=(script,))
    assert 45 <= verdict.seconds <= 46
    assert verdict.checks == [{"name": "Check c", "state": "ready", "message": "good"}]


def test_a_check_is_asked_at_once_when_the_objects_are_ready() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.at(31, workload("api", ready=True), ready_pod(API))
    verdict = run(simulation, API, checks=(check((0, Finding.GOOD), interval=10),))
    assert 31 <= verdict.seconds < 31.5


def test_a_check_that_stays_bad_is_the_verdict_after_its_grace() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.at(30, workload("api", ready=True), ready_pod(API))
    failure, seconds = condemned(simulation, API, checks=(check((0, Finding.BAD), grace=20),))
    assert failure.code == "metric_violated"
    assert failure.object == "Check c"
    assert 50 <= seconds < 52


@pytest.mark.parametrize(
    ("policy", "code", "seconds"), [("wait", "metric_no_data", 60), ("fail", "metric_no_data", 0), ("pass", "", 0)]
)
def test_no_data_means_what_is_said(policy: str, code: str, seconds: float) -> None:
    script = check((0, Finding.NO_DATA), no_data=policy, grace=60)
    simulation = Simulation(*READY, ready_pod(API))
    if not code:
        assert run(simulation, API, checks=(script,)).healthy
        return
    failure, took = condemned(simulation, API, checks=(script,))
    assert failure.code == code
    assert seconds <= took < seconds + 2


def test_a_question_that_is_wrong_ends_the_wait_before_the_objects_are_ready() -> None:
    failure, seconds = condemned(Simulation(*with_set(API), pod(API)), API, checks=(check((0, Finding.REFUSED)),))
    assert failure.code == "check_refused"
    assert seconds < 2


def test_answers_from_before_the_objects_are_ready_do_not_count() -> None:
    simulation = Simulation(*with_set(API), pod(API))
    simulation.at(100, workload("api", ready=True), ready_pod(API))
    script = check((0, Finding.BAD), (99, Finding.GOOD), grace=10)
    assert run(simulation, API, checks=(script,)).healthy


def test_a_check_and_staying_ready_run_side_by_side() -> None:
    script = check((0, Finding.GOOD), interval=5, hold=20)
    verdict = run(Simulation(*READY, ready_pod(API)), API, checks=(script,), stable_for=25)
    assert 25 <= verdict.seconds <= 26


def test_a_check_without_time_left_says_what_it_was_waiting_for() -> None:
    script = check((0, Finding.BAD), grace=600)
    failure, _seconds = condemned(Simulation(*READY, ready_pod(API)), API, checks=(script,), timeout=40)
    assert failure.code == "timeout"
    assert "did not pass within 40 s" in failure.cause


def test_one_look_asks_each_check_once() -> None:
    simulation = Simulation(*READY, ready_pod(API))
    options = Options(checks=(check((0, Finding.BAD)),))
    with simulated(simulation, [API], options=options) as gate:
        verdict = gate.look()
    assert not verdict.healthy
    assert verdict.checks[0]["message"] == "bad"


def test_nodes_are_watched_once_a_pod_finds_none_and_one_that_joins_is_waited_for() -> None:
    unscheduled = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"}]}
    simulation = Simulation(*with_set(API), pod(API, **unscheduled))
    node = custom("v1", "Node", "late", creationTimestamp="2026-01-01T00:00:30Z")
    node["metadata"].pop("namespace")
    simulation.at(30, node)
    simulation.at(200, ready_pod(API), workload("api", ready=True))
    assert run(simulation, API).healthy
    simulation = Simulation(*with_set(API), pod(API, **unscheduled))
    failure, seconds = condemned(simulation, API)
    assert failure.code == "unschedulable"
    assert Policy().schedule <= seconds < Policy().schedule + 2


def test_kinds_that_may_not_be_watched_are_said() -> None:
    simulation = Simulation(*with_set(workload("api", ready=True)), service("api"))
    simulation.denied = {"EndpointSlice", "Pod", "StatefulSet"}
    verdict = run(simulation, API, service("api"))
    assert verdict.healthy
    assert any("EndpointSlices cannot be read" in note for note in verdict.notes)


@pytest.mark.parametrize("clock", ["1999-01-01", "2026-01-01", "2099-01-01"])
def test_the_clusters_clock_may_be_any_other(clock: str) -> None:
    """Times that the cluster writes are compared with each other only, never with this machine's."""
    db = workload("db", "StatefulSet")
    db["status"]["replicas"] = 0
    db["metadata"]["managedFields"] = [{"manager": "groundwork.platform", "time": f"{clock}T12:00:00Z"}]
    db["metadata"]["creationTimestamp"] = f"{clock}T00:00:00Z"
    refused = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    # The controller that wrote it lives an hour in the past; the API server knows when it took it in.
    recorded = {"managedFields": [{"manager": "kube-controller-manager", "time": f"{clock}T12:00:05Z"}]}
    simulation = Simulation(db)
    simulation.at(40, event(db, "FailedCreate", refused, at=f"{clock}T11:00:05Z", metadata=recorded))
    failure, seconds = condemned(simulation, db)
    assert failure.code == "pod_security"
    assert 40 <= seconds < 42


def test_an_event_about_an_earlier_revision_condemns_nobody() -> None:
    db = workload("db", "StatefulSet")
    db["status"]["replicas"] = 0
    db["metadata"]["managedFields"] = [{"manager": "groundwork.platform", "time": "2026-01-01T12:00:00Z"}]
    recorded = {"managedFields": [{"manager": "kube-controller-manager", "time": "2026-01-01T11:00:00Z"}]}
    # Its author's clock is ahead.
    told = event(db, "FailedCreate", "violates PodSecurity", at="2026-01-01T13:00:00Z", metadata=recorded)
    simulation = Simulation(db, told)
    simulation.at(100, workload("db", "StatefulSet", ready=True))
    assert run(simulation, db).healthy


SEEDS = {
    "in a Secret": "s3cr3t-of-the-secret-object",
    "in the environment": "hunter2-plain-env",
    "in a URL": "pa55-in-url",
    "in an event": "tok-in-event-4711",
    "in an annotation": "annotated-secret-0815",
}


def test_no_secret_is_in_anything_that_it_says() -> None:
    """Secrets wherever a pod and what is about it may hold them, then a look through all output."""
    env = {"DB_PASSWORD": SEEDS["in the environment"], "DB_URL": f"postgresql://u:{SEEDS['in a URL']}@db/x"}
    api = workload("api", env=env)
    api["metadata"]["annotations"] = {"note": SEEDS["in an annotation"]}
    api["spec"]["template"]["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "db"}}]
    broken = pod(api, phase="Running", containerStatuses=[crashing(5)])
    broken["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"] = (
        f"cannot log in with {SEEDS['in a Secret']}"
    )
    broken["metadata"]["annotations"] = {"note": SEEDS["in an annotation"]}
    simulation = Simulation(*with_set(api), broken)
    told = event(broken, "Failed", f"tried token={SEEDS['in an event']} and {SEEDS['in a Secret']}")
    simulation.objects.append(told)
    simulation.log[("api-0", "main")] = [
        f"password is {SEEDS['in a Secret']}", f"used {SEEDS['in the environment']}",
        f"dsn postgresql://u:{SEEDS['in a URL']}@db/x",
        base64.b64encode(SEEDS["in a Secret"].encode()).decode(),
    ]  # fmt: skip
    data = {"password": base64.b64encode(SEEDS["in a Secret"].encode()).decode()}
    simulation.secrets["db"] = {"data": data}
    failure, _seconds = condemned(simulation, api)
    output = json.dumps([failure.as_dict(), failure.sentence, simulation.told])
    assert "*****" in output
    for place, secret in SEEDS.items():
        assert secret not in output, place
        assert base64.b64encode(secret.encode()).decode() not in output, place


def test_no_secret_is_in_a_check_either() -> None:
    endpoint = Endpoint(url=f"http://user:{SEEDS['in a URL']}@nowhere.invalid:1", headers={"X-Key": "header-secret"})
    script = HttpCheck("page", endpoint, grace=0)
    failure, _seconds = condemned(Simulation(*READY, ready_pod(API)), API, checks=(script,))
    assert failure.code == "http_check_failed"
    assert SEEDS["in a URL"] not in json.dumps(failure.as_dict())
    assert "header-secret" not in json.dumps(failure.as_dict())


def just_started(restarts: int, at: float) -> dict[str, Any]:
    """The status of a container that the node started at a moment of the simulation."""
    started = datetime.datetime.fromtimestamp(START + at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**running(restartCount=restarts), "state": {"running": {"startedAt": started}}}


def test_a_container_without_a_readiness_probe_is_not_ready_because_it_was_started() -> None:
    """It is ready for the second before it crashes, and a Deployment without minReadySeconds available."""
    ready = [{"type": "Ready", "status": "True"}]

    def up(restarts: int, at: float) -> Object:
        return pod(API, phase="Running", conditions=ready, containerStatuses=[just_started(restarts, at)])

    simulation = Simulation(*READY, up(0, 0))
    for restarts, moment in enumerate((0, 15, 40, 80)):
        simulation.at(moment, workload("api", ready=True), up(restarts, moment))
        down = pod(API, phase="Running", containerStatuses=[crashing(restarts)])
        simulation.at(moment + 2, workload("api", ready=False), down)
    failure, took = condemned(simulation, API)
    assert failure.code == "crash_loop"
    assert 82 <= took < 84


@pytest.mark.parametrize(("age", "seconds"), [(0, 10), (4, 6), (3600, 0)])
def test_it_is_ready_once_it_has_run_for_a_while(age: float, seconds: float) -> None:
    ready = [{"type": "Ready", "status": "True"}]
    simulation = Simulation(
        *READY, pod(API, phase="Running", conditions=ready, containerStatuses=[just_started(0, -age)])
    )
    verdict = run(simulation, API)
    assert verdict.healthy
    assert seconds <= verdict.seconds < seconds + 1.5


def test_a_probe_that_says_ready_is_believed_at_once() -> None:
    probed = copy.deepcopy(API)
    probed["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 80}}
    ready = [{"type": "Ready", "status": "True"}]
    live = pod(probed, phase="Running", conditions=ready, containerStatuses=[just_started(0, 0)])
    live["spec"]["containers"] = probed["spec"]["template"]["spec"]["containers"]
    verdict = run(Simulation(*READY, live), API)
    assert verdict.seconds < 1
