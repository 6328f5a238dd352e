"""Every object fits the definition of its kind, as the projects themselves publish it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from tests.support import medical_inventory as manifests
from tests.support import upstream

VERSION = "1.36"


@pytest.fixture(scope="module")
def definitions() -> dict[tuple[str, str], dict[str, Any]]:
    files = upstream.cloudnative_pg_crds()
    if not files:
        pytest.skip(upstream.MISSING)
    found = {}
    for file in files:
        crd = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        if not crd or crd.get("kind") != "CustomResourceDefinition":
            continue
        for version in crd["spec"]["versions"]:
            key = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
            found[key] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema: Any) -> Any:
    """Unknown fields are refused, which the API server would drop in silence."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        result["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result.pop("pattern", None)
    return result


@pytest.mark.parametrize("environment", manifests.ENVIRONMENTS)
def test_custom_resources_fit_their_definitions(environment: str, definitions: dict[tuple[str, str], Any]) -> None:
    checked = 0
    for one in manifests.objects(manifests.shared(environment)):
        schema = definitions.get((one["apiVersion"], one["kind"]))
        if schema is not None:
            body = {key: value for key, value in one.items() if key != "metadata"}
            relaxed = {**schema, "required": ["spec"]}
            jsonschema.Draft202012Validator(relaxed).validate(body)
            checked += 1
        else:
            assert "cnpg.io" not in one["apiVersion"]
    assert checked == 2


@pytest.mark.parametrize("environment", manifests.ENVIRONMENTS)
def test_core_kinds_fit_the_api(environment: str) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed; the integration tests ask an API server"
    )
    for one in manifests.objects(manifests.shared(environment)):
        if "cnpg.io" not in one["apiVersion"]:
            validate.validate(one, VERSION, strict=True)
