"""What pods are said to lack, in the words of kubelet, scheduler and API server."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils.cluster_transport import ApiError
from ansible_collections.groundwork.platform.plugins.module_utils.health.missing import (
    Answer,
    Reference,
    ask,
    reference,
)
from tests.support.simulation import Simulation


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ('secret "tokens" not found', Reference("Secret", "n", "tokens")),
        ('configmap "my.settings" not found', Reference("ConfigMap", "n", "my.settings")),
        ("couldn't find key api.key in Secret n/tokens", Reference("Secret", "n", "tokens", "api.key")),
        ("couldn't find key mode in ConfigMap n/settings", Reference("ConfigMap", "n", "settings", "mode")),
        ('MountVolume.SetUp failed for volume "keys" : secret "keys" not found', Reference("Secret", "n", "keys")),
        ('error looking up service account n/r: serviceaccount "r" not found', Reference("ServiceAccount", "n", "r")),
        ("no PriorityClass with name urgent was found", Reference("PriorityClass", "", "urgent")),
        ('pod rejected: RuntimeClass "gvisor" not found', Reference("RuntimeClass", "", "gvisor")),
        ('0/1 nodes: persistentvolumeclaim "data" not found.', Reference("PersistentVolumeClaim", "n", "data")),
        ("failed to sync secret cache: timed out waiting for the condition", None),
        ('object "n"/"keys" not registered', None),
        ("rpc error: code = NotFound desc = volume vol-1 not found", None),
        ("driver name ebs.csi.aws.com not found in the list of registered CSI drivers", None),
        ('exec: "secret": executable file not found in $PATH', None),
    ],
)
def test_what_a_message_says_is_missing(message: str, found: Reference | None) -> None:
    assert reference(message, "n") == found


SECRET = Reference("Secret", "n", "db")


@pytest.mark.parametrize(
    ("document", "there"),
    [
        ({"data": {"url": "eA=="}}, {"": True, "url": True, "uri": False}),
        ({"data": None, "binaryData": {"url": "eA=="}}, {"": True, "url": True, "uri": False}),
        ({}, {"": True, "url": False, "uri": False}),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "data": {"url": "eA=="}},
         {"": False, "url": False, "uri": False}),
    ],
)  # fmt: skip
def test_one_request_answers_for_an_object_and_all_its_keys(document: Any, there: dict[str, bool]) -> None:
    simulation = Simulation()
    simulation.secrets["db"] = document
    wanted = {Reference("Secret", "n", "db", key): known for key, known in there.items()}
    found = ask(simulation, wanted)  # type: ignore[arg-type]
    assert {item: answer is Answer.THERE for item, answer in found.items()} == wanted
    assert simulation.asked == ["/api/v1/namespaces/n/secrets/db"]


@pytest.mark.parametrize(("status", "answer"), [(404, Answer.NOT_THERE), (403, Answer.NOT_TOLD), (500, None)])
def test_a_refusal_is_an_answer_of_its_own(status: int, answer: Answer | None) -> None:
    simulation = Simulation()
    simulation.refusals["db"] = ApiError("refused", "Secret n/db", "is refused", status=status)
    assert ask(simulation, [SECRET]) == ({SECRET: answer} if answer else {})  # type: ignore[arg-type]
