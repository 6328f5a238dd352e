"""The model in use follows the volume, is verified, and is never replaced by a broken one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from reference_app.domains.medical_inventory.domain import Reader
from reference_app.domains.medical_inventory.model import built_in, parse
from reference_app.models import ModelStore
from reference_app.problems import ModelProblem

from ansible_collections.groundwork.platform.plugins.module_utils.models import volume
from reference_app import cli
from tests.support.models import publish

TEMPLATE: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "reference_app/src/reference_app/domains/medical_inventory/model.json").read_text()
)


def model(version: str = "1.0.0", **changes: Any) -> bytes:
    return json.dumps({**TEMPLATE, "version": version, **changes}).encode()


def store(root: Path) -> ModelStore[Any]:
    made = ModelStore(root, Reader())
    made.refresh()
    return made


def test_an_empty_volume_means_the_built_in_model(tmp_path: Path) -> None:
    about = store(tmp_path).current.describe()
    assert (about["version"], about["source"]) == ("built-in", "built-in")
    assert "problem" not in about
    assert store(tmp_path / "missing").current.source == "built-in"


def test_a_published_version_is_taken_up_and_rolled_back(tmp_path: Path) -> None:
    models = store(tmp_path)
    publish(tmp_path, "1.0.0", model("1.0.0"))
    assert models.refresh()
    assert models.current.model.version == "1.0.0"
    assert not models.refresh(), "an unchanged volume is not read again"
    publish(tmp_path, "2.0.0", model("2.0.0", min_score=0.5))
    assert models.refresh()
    assert models.current.model.min_score == 0.5
    volume.rollback(tmp_path, "")
    assert models.refresh()
    assert models.current.model.version == "1.0.0"
    volume.rollback(tmp_path, "")
    assert models.refresh()
    assert models.current.source == "built-in"
    assert not models.current.problem


@pytest.mark.parametrize("harm", ["altered", "sums missing", "model missing", "link broken", "volume gone", "not json"])
def test_a_broken_model_keeps_the_last_good_one(tmp_path: Path, harm: str) -> None:
    root = tmp_path / "models"
    root.mkdir()
    publish(root, "1.0.0", model("1.0.0"))
    models = store(root)
    publish(root, "2.0.0", model("2.0.0"))
    folder = root / "versions" / "2.0.0"
    if harm == "altered":
        (folder / "model.json").chmod(0o644)
        (folder / "model.json").write_bytes(model("2.0.0", min_score=0.1))
    elif harm == "sums missing":
        (folder / "SHA256SUMS").unlink()
    elif harm == "model missing":
        (folder / "model.json").unlink()
    elif harm == "link broken":
        (root / "current").unlink()
        (root / "current").symlink_to("versions/3.0.0")
    elif harm == "volume gone":
        root.rename(tmp_path / "away")
    else:
        (folder / "model.json").chmod(0o644)
        (folder / "model.json").write_text("{")
        digest = hashlib.sha256(b"{").hexdigest()
        (folder / "SHA256SUMS").chmod(0o644)
        (folder / "SHA256SUMS").write_text(f"{digest}  model.json\n")
    models.refresh()
    assert models.current.model.version == "1.0.0"
    assert models.current.describe()["problem"]
    if harm == "volume gone":
        (tmp_path / "away").rename(root)
    publish(root, "2.0.1", model("2.0.1"))
    assert models.refresh()
    assert models.current.model.version == "2.0.1"
    assert not models.current.problem


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"kind": "ecg"}, "'ecg'"),
        ({"version": 7}, "version"),
        ({"segmentation": []}, "segmentation must be an object"),
        ({"segmentation": {**TEMPLATE["segmentation"], "side": 10}}, "segmentation.side"),
        ({"segmentation": {**TEMPLATE["segmentation"], "min_area": True}}, "segmentation.min_area"),
        ({"segmentation": {**TEMPLATE["segmentation"], "min_area": 0.9}}, "below"),
        ({"min_score": 2}, "min_score"),
        ({"labels": {}}, "1 to 200 labels"),
        ({"labels": {"unknown": {"fill": [0, 1]}}}, "'unknown'"),
        ({"labels": {"vial": {}}}, "labels.vial"),
        ({"labels": {"vial": {"colour": [0, 1]}}}, "labels.vial.colour"),
        ({"labels": {"vial": {"fill": [1, 0]}}}, "wrong way round"),
        ({"labels": {"vial": {"fill": [0, "x"]}}}, "number"),
        ({"labels": {"vial": {"fill": [0.5]}}}, "pair"),
    ],
)
def test_a_model_file_that_is_wrong_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelProblem, match=r"model\.json") as caught:
        parse(json.dumps({**TEMPLATE, **changes}).encode())
    assert words in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"[" * 100_000, b"null"])
def test_a_model_file_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ModelProblem):
        parse(text)


def test_hue_is_an_angle() -> None:
    red = parse(model(labels={"red": {"hue": [0, 20]}})).labels[0]
    assert red.score({"hue": 10}) == 1
    assert red.score({"hue": 355}) == pytest.approx(red.score({"hue": 25}))


def test_unlike_any_label_is_unknown() -> None:
    name, score = built_in().classify({"aspect": 1.3, "fill": 0.4, "chroma": 60, "hue": 200, "area": 0.01})
    assert name == "unknown"
    assert score < 0.35


def test_check_model_judges_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, "1.0.0", model("1.0.0"))
    monkeypatch.setattr("sys.argv", ["check-model", str(tmp_path / "versions/1.0.0")])
    cli.check_model()
    assert "1.0.0" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["check-model", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"model\.json is missing"):
        cli.check_model()
