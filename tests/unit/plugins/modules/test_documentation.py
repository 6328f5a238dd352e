"""What the modules that speak to a cluster document is what they accept."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import yaml

from ansible_collections.groundwork.platform.plugins.module_utils import cluster_module
from ansible_collections.groundwork.platform.plugins.module_utils.cluster_auth import auth_argument_spec

MODULES = (
    "apply",
    "cluster_info",
    "generated_secret",
    "health_gate",
    "migration",
    "release",
    "release_info",
    "rollback",
)


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Documentation or argument spec, reduced to what both say."""
    return {
        name: (
            option.get("type", "str"),
            sorted(option.get("aliases", [])),
            bool(option.get("required", False)),
            option.get("default"),
            sorted(option.get("choices", [])),
            option.get("elements"),
            plain(option.get("suboptions") or option.get("options") or {}),
        )
        for name, option in options.items()
    }


def fragment_options(name: str) -> dict[str, Any]:
    """The options that a doc fragment of this collection adds."""
    fragment = importlib.import_module(f"ansible_collections.groundwork.platform.plugins.doc_fragments.{name}")
    return dict(yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"])


def test_the_connection() -> None:
    assert plain(fragment_options("auth")) == plain(auth_argument_spec())


@pytest.mark.parametrize("name", MODULES)
def test_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"ansible_collections.groundwork.platform.plugins.modules.{name}")
    seen: dict[str, Any] = {}

    class Stop(Exception):
        pass

    def spy(self: object, argument_spec: dict[str, Any], **_options: Any) -> None:
        seen.update(argument_spec)
        raise Stop

    monkeypatch.setattr(cluster_module.AnsibleModule, "__init__", spy)
    with pytest.raises(Stop):
        module.main()
    own = {key: value for key, value in seen.items() if key not in auth_argument_spec()}
    documentation = yaml.safe_load(module.DOCUMENTATION)
    documented = dict(documentation["options"])
    for fragment in documentation["extends_documentation_fragment"]:
        if fragment != "groundwork.platform.auth":
            documented |= fragment_options(fragment.rpartition(".")[2])
    assert plain(documented) == plain(own)
    assert {"check_mode", "diff_mode", "idempotent"} <= set(documentation["attributes"])
    assert isinstance(yaml.safe_load(module.EXAMPLES), list)
    assert yaml.safe_load(module.RETURN)


def test_manifests_are_kept_out_of_logs() -> None:
    module = object.__new__(cluster_module.ClusterModule)
    module._concealed = ("definition", "kubeconfig")
    module.params = {"definition": [{"kind": "Secret"}], "kubeconfig": {"users": []}, "namespace": "n"}
    module._conceal()
    assert module.params == {"definition": cluster_module.HIDDEN, "kubeconfig": cluster_module.HIDDEN, "namespace": "n"}
    module.params = {"definition": "", "kubeconfig": "/path"}
    module._conceal()
    assert module.params == {"definition": "", "kubeconfig": "/path"}
