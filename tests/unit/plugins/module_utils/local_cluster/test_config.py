"""What the components are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster import addons, config, node
from ansible_collections.groundwork.platform.plugins.module_utils.local_cluster.layout import Layout

PAUSE = "docker.io/groundwork/pause@sha256:" + "1" * 64


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of("c", tmp_path, "10.210.7.0/24", state_root=tmp_path)


def command(layout: Layout, name: str) -> list[str]:
    daemons = node.daemons(layout, Path("/k/kubernetes"), Path("/usr/bin/containerd"))
    return next(daemon.command for daemon in daemons if daemon.name == name)


def test_no_body_is_ever_logged() -> None:
    assert {rule["level"] for rule in config.audit_policy()["rules"]} == {"None", "Metadata"}


def test_every_access_to_a_secret_is_logged_before_any_rule_drops_it() -> None:
    first = config.audit_policy()["rules"][0]
    assert first == {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]}


def test_secrets_are_encrypted(layout: Layout) -> None:
    rendered = config.render(layout, config.Host(), pause=PAUSE, encryption_key=b"k" * 32)
    value = yaml.safe_load(rendered[layout.config / "encryption.yaml"].content)
    assert [list(provider) for provider in value["resources"][0]["providers"]] == [["secretbox"], ["identity"]]
    assert any(flag.startswith("--encryption-provider-config=") for flag in command(layout, "kube-apiserver"))


def test_only_what_others_must_read_is_readable_by_them(layout: Layout) -> None:
    rendered = config.render(layout, config.Host(), pause=PAUSE, encryption_key=b"k" * 32)
    open_files = {path.name for path, file in rendered.items() if file.mode != 0o600}
    assert open_files == {"resolv.conf", *(key.replace("/", ".") for key in config.TUNABLES)}


def test_no_loaded_image_is_ever_deleted(layout: Layout) -> None:
    settings = config.kubelet(layout, config.Host())
    assert settings["imageGCHighThresholdPercent"] == 100
    assert set(settings["evictionHard"]) == {"memory.available"}


@pytest.mark.parametrize(("able", "restrict", "score"), [(True, "false", -999), (False, "true", 0)])
def test_without_the_capability_no_score_is_lowered(layout: Layout, able: bool, restrict: str, score: int) -> None:
    host = config.Host(lowers_oom_score=able)
    assert f"restrict_oom_score_adj = {restrict}" in config.containerd(layout, host, PAUSE)
    assert config.kubelet(layout, host)["oomScoreAdj"] == score


def test_the_network_of_pods_is_json_which_its_plugins_demand(layout: Layout) -> None:
    rendered = config.render(layout, config.Host(), pause=PAUSE, encryption_key=b"k" * 32)
    assert json.loads(rendered[layout.config / "cni" / "10-bridge.conflist"].content)["plugins"][0]["type"] == "bridge"


def test_etcd_is_reached_from_the_node_only_and_with_a_certificate(layout: Layout) -> None:
    flags = command(layout, "etcd")
    assert "--client-cert-auth" in flags
    assert "--peer-client-cert-auth" in flags
    urls = [flag for flag in flags if "-urls=" in flag]
    assert len(urls) == 4
    assert all("https://127.0.0.1:" in flag for flag in urls)


def test_all_pods_are_in_the_clusters_control_group(layout: Layout) -> None:
    assert config.kubelet(layout, config.Host())["cgroupRoot"] == "/c"
    daemons = node.daemons(layout, Path("/k"), Path("/c"))
    assert node.configuration(layout, daemons)["cgroup"] == "c"


def test_changed_inputs_ask_for_a_restart_and_nothing_else_does(layout: Layout) -> None:
    def environments() -> dict[str, dict[str, str]]:
        daemons = node.daemons(layout, Path("/k"), Path("/c"))
        return {entry["name"]: entry["env"] for entry in node.configuration(layout, daemons)["processes"]}

    layout.config.mkdir(parents=True)
    before = environments()
    (layout.config / "kube-proxy.yaml").write_text("changed")
    after = environments()
    assert {name for name in before if before[name] != after[name]} == {"kube-proxy"}


def test_the_supervisor_starts_what_others_need_first(layout: Layout) -> None:
    daemons = {daemon.name: daemon for daemon in node.daemons(layout, Path("/k"), Path("/c"))}
    assert daemons["kube-apiserver"].after == ("etcd",)
    assert all(other in daemons for daemon in daemons.values() for other in daemon.after)


def test_the_host_keeps_its_kernel_settings(layout: Layout) -> None:
    script = node.start_script(layout, Path("/k"))
    for key in config.TUNABLES:
        assert f"/proc/sys/{key}" in script
    assert "sysctl -w" not in script
    assert script.index("--make-rshared") < script.index("/var/lib/kubelet")


def test_name_resolution_meets_the_restricted_level() -> None:
    deployment = addons.dns("image@sha256:0")[-1]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert set(context["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}


def test_system_namespaces_enforce_the_restricted_level() -> None:
    namespaces = [entry for entry in addons.base() if entry["kind"] == "Namespace"]
    assert {entry["metadata"]["name"] for entry in namespaces} == {"kube-system", "kube-public", "kube-node-lease"}
    label = "pod-security.kubernetes.io/enforce"
    assert {entry["metadata"]["labels"][label] for entry in namespaces} == {"restricted"}


def test_the_storage_class_is_the_default_waits_and_grows() -> None:
    found = next(entry for entry in addons.base() if entry["kind"] == "StorageClass")
    assert found["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    assert found["volumeBindingMode"] == "WaitForFirstConsumer"
    assert found["allowVolumeExpansion"] is True
    assert found["provisioner"] == "groundwork.platform/local"
