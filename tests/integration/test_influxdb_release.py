"""Releases with an InfluxDB store: a real API server judges the objects, and the setup runs on a real InfluxDB."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.groundwork.platform.plugins.module_utils import generated_secret
from ansible_collections.groundwork.platform.plugins.module_utils.apply.engine import Applier
from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure
from ansible_collections.groundwork.platform.plugins.module_utils.health.options import Options
from ansible_collections.groundwork.platform.plugins.module_utils.release.engine import Outcome, Releases, Wanted
from ansible_collections.groundwork.platform.plugins.module_utils.release.rollout import Settings
from tests.support import influxdb, kubelet
from tests.support.kubelet import Kubelet
from tests.support.pod_runner import PodRunner

HOURLY = {"hourly": {"every": "1h", "keep": "365d"}}


def own(objects: list[Object]) -> list[Object]:
    return [one for one in objects if one["metadata"]["name"].startswith("series")]


class Shop:
    """A system of which only the store is released."""

    def __init__(self, cluster: Cluster, namespace: str, server: influxdb.Server) -> None:
        self.cluster, self.namespace, self.server = cluster, namespace, server

    def releases(self) -> Releases:
        return Releases(self.cluster, self.namespace, "shop", Settings(Options(timeout=120)), lock_timeout=60)

    def release(self, **store: Any) -> Outcome:
        stages = influxdb.stages("1", self.namespace, **store)
        secrets = [one for one in stages["secrets"] if one["name"] == "series-auth"]
        generated_secret.keep(self.cluster, self.namespace, secrets)
        wanted = {"foundation": own(stages["foundation"]), "stores": own(stages["stores"])}
        return self.releases().release(Wanted(wanted, ("foundation", "stores")))

    def jobs(self) -> list[str]:
        found = self.cluster.list(self.cluster.resource("batch/v1", "Job"), self.namespace).items
        return sorted(job["metadata"]["name"] for job in found)

    def password(self, key: str) -> str:
        secret = self.cluster.get(self.cluster.resource("v1", "Secret"), "series-auth", self.namespace)
        assert secret is not None
        return base64.b64decode(secret["data"][key]).decode()

    def policies(self) -> list[str]:
        return self.server.ask("SHOW RETENTION POLICIES ON shop", password=self.password("admin-password")).splitlines()


def servers_only(pod: Object) -> dict[str, Any] | None:
    """Pods of the StatefulSet get ready; the Job's run by themselves."""
    owners = {one["kind"] for one in pod["metadata"].get("ownerReferences") or []}
    return kubelet.ready(pod) if "StatefulSet" in owners else None


@pytest.fixture
def shop(cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    if influxdb.MISSING:
        pytest.skip(influxdb.MISSING)
    server = influxdb.Server(tmp_path).start()
    reach = {"SERVER": "127.0.0.1", "PORT": str(server.port), "PATH": os.environ["PATH"]}
    try:
        with Kubelet(cluster, namespace, servers_only), PodRunner(cluster, namespace, reach) as runner:
            monkeypatch.setattr(Cluster, "logs", lambda _self, *words, **more: runner.logs(*words, **more))
            yield Shop(cluster, namespace, server)
    finally:
        server.stop()


def test_retention_follows_the_releases_and_never_shrinks_unasked(shop: Shop) -> None:
    assert shop.release(downsampling=HOURLY).changed
    assert shop.policies()[1:] == ["raw,720h0m0s,24h0m0s,1,true", "hourly,8760h0m0s,168h0m0s,1,false"]
    first = shop.jobs()
    assert not shop.release(downsampling=HOURLY).changed, "nothing runs a second time"
    assert shop.release(retention="60d", downsampling=HOURLY).changed
    second = shop.jobs()
    assert len(first) == len(second) == 1
    assert first != second
    assert shop.policies()[1] == "raw,1440h0m0s,24h0m0s,1,true"
    with pytest.raises(Failure) as refused:
        shop.release(retention="7d", downsampling=HOURLY)
    assert "shop/raw is kept 1440 hours and would be kept 168 hours, which deletes what is older" in str(refused.value)
    assert shop.policies()[1] == "raw,1440h0m0s,24h0m0s,1,true"
    back = shop.releases().rollback()
    assert back.restores == 2
    assert shop.jobs() == second
    further = shop.releases().rollback(to=1)
    assert further.restores == 1
    assert shop.policies()[1] == "raw,1440h0m0s,24h0m0s,1,true", "a return takes no data with it"
    assert shop.release(retention="7d", downsampling=HOURLY, shorter_retention="delete").changed
    assert shop.policies()[1] == "raw,168h0m0s,24h0m0s,1,true"


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_api_server_takes_all_of_it_and_a_second_apply_changes_nothing(
    cluster: Cluster, namespace: str, version: str
) -> None:
    stages = influxdb.stages(version, namespace, downsampling=HOURLY)
    home = [one for one in stages["foundation"] if one["kind"] == "Namespace"]
    objects = [*home, *own(stages["foundation"]), *own(stages["stores"])]
    Applier(cluster, namespace).run(objects)
    again = Applier(cluster, namespace, check_mode=True).run(objects)
    assert {item.name: item.action for item in again if item.action != "unchanged"} == {}
    for one in objects:
        if "template" in one.get("spec", {}):
            template = one["spec"]["template"]
            metadata = {**template["metadata"], "name": "try", "namespace": namespace}
            spec = {**template["spec"], "volumes": [*template["spec"]["volumes"], *claims(one)]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            cluster.apply(kubelet.PODS, pod, dry_run=True)


def claims(workload: Object) -> list[Object]:
    """What a StatefulSet makes of its claim templates."""
    names = [one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])]
    return [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
