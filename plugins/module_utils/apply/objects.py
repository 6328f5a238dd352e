# Copyright: groundwork.platform contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests into a checked list of objects, whatever form they are given in."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

try:
    import yaml
except ImportError:  # ansible_module.run says so before anything needs it
    yaml = None  # type: ignore[assignment]

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object, describe
from ansible_collections.groundwork.platform.plugins.module_utils.errors import Failure

SUFFIXES = (".yaml", ".yml", ".json")
CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
# What a container's image is called elsewhere than in a container.
IMAGE_KEYS = ("image", "imageName")


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """YAML as Kubernetes reads it: a date is a string there. The C loader is taken where PyYAML has it."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept = [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        Loader.yaml_implicit_resolvers[first] = kept
    return Loader


def load(definition: Any = None, src: str | None = None) -> list[Object]:
    """The objects of a definition and of a file or folder, in their order, Lists unfolded.

    :param definition: an object, a list of objects, or YAML text of one or more documents.
    :param src: path of a YAML or JSON file, or of a folder of them, which is read in the order of the names.
    :raises Failure: ``bad_manifest`` names the document and what is wrong with it.
    """
    objects: list[Object] = []
    if definition:
        objects += _from_definition(definition, "definition")
    if src:
        for path in _files(Path(src).expanduser()):
            objects += _from_definition(_read(path), str(path))
    return objects


def _from_definition(definition: Any, where: str) -> list[Object]:
    if isinstance(definition, str):
        definition = [definition]
    documents = [definition] if isinstance(definition, Mapping) else definition
    if not isinstance(documents, Sequence):
        raise Failure("bad_manifest", where, "is neither an object nor a list of objects")
    # Texts in a list are manifests themselves; a text that YAML gives is none.
    documents = [item for part in documents for item in (_parse(part, where) if isinstance(part, str) else [part])]
    return list(_unfold(documents, where))


def _unfold(documents: Iterable[Any], where: str) -> Iterator[Object]:
    for number, document in enumerate(documents, 1):
        place = f"Document {number} of {where}"
        if document is None:
            continue
        if not isinstance(document, Mapping):
            raise Failure("bad_manifest", place, "is not an object", hint="each document is a mapping with a kind")
        if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
            yield from _unfold(document["items"], place)
            continue
        yield _checked(document, place)


def _checked(document: Mapping[str, Any], place: str) -> Object:
    for key in ("apiVersion", "kind"):
        if not isinstance(document.get(key), str) or not document[key]:
            raise Failure("bad_manifest", place, f"has no {key}", hint=f"add {key} to it")
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise Failure(
            "bad_manifest",
            f"{place}, a {document['kind']},",
            "has no metadata.name",
            hint="name it; generateName cannot be applied",
        )
    obj: Object = {key: value for key, value in document.items() if key != "status"}
    obj["metadata"] = {
        key: value
        for key, value in metadata.items()
        # What only a server writes, and what makes an exported object be refused.
        if key not in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink")
    }
    return _encoded(obj) if obj["kind"] == "Secret" else obj


def _encoded(secret: Object) -> Object:
    """``stringData`` into ``data``: a key that is taken out of stringData would otherwise stay for ever."""
    text = secret.pop("stringData", None)
    if text:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in text.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}
    return secret


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise Failure(
                "bad_manifest", f"Folder {path}", "holds no manifests", hint="files end in .yaml, .yml or .json"
            )
        return files
    if not path.is_file():
        raise Failure("bad_manifest", f"File {path}", "does not exist", hint="correct src")
    return [path]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure("bad_manifest", f"File {path}", "cannot be read as text") from error


def _parse(text: str, where: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_loader()))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        problem = str(getattr(error, "problem", "") or "")
        raise Failure("bad_manifest", where, f"is not valid YAML{line}", problem, "correct it") from None


def refuse_duplicates(objects: Iterable[Object]) -> None:
    """Two documents for one object would undo each other at every run.

    :raises Failure: ``duplicate_object``.
    """
    seen: set[tuple[str, ...]] = set()
    for obj in objects:
        metadata = obj["metadata"]
        key = (obj["apiVersion"].rpartition("/")[0], obj["kind"], metadata.get("namespace", ""), metadata["name"])
        if key in seen:
            raise Failure(
                "duplicate_object", describe(obj), "is defined twice in one batch", hint="leave one of them out"
            )
        seen.add(key)


def rewrite_images(objects: Iterable[Object], images: Mapping[str, str]) -> list[Object]:
    """The objects with every reference to an image of the map replaced.

    An image of a container matches however it is written (``redis:8.0`` is ``docker.io/library/redis:8.0``).
    Elsewhere in an object that is no ConfigMap or Secret a string is replaced if it equals the published
    reference exactly, since operators are told by arguments and variables which images to start.
    A container that is given an image by digest is no longer told to pull it always: there may be no registry.
    """
    if not images:
        return list(objects)
    canonical = {canonical_image(published): present for published, present in images.items()}

    def rewritten(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return _pulled_once(value, {name: rewritten(item, name) for name, item in value.items()})
        if isinstance(value, list):
            return [rewritten(item) for item in value]
        if isinstance(value, str):
            if value in images:
                return images[value]
            if key in IMAGE_KEYS and value:
                return canonical.get(canonical_image(value), value)
        return value

    return [obj if obj["kind"] in ("ConfigMap", "Secret") else rewritten(obj) for obj in objects]


def _pulled_once(before: Object, after: Object) -> Object:
    """A container whose image is now named by its digest need not ask a registry for it at each start."""
    changed = before.get("image") != after.get("image")
    if changed and "@sha256:" in str(after["image"]) and after.get("imagePullPolicy") == "Always":
        after["imagePullPolicy"] = "IfNotPresent"
    return after


def canonical_image(reference: str) -> str:
    """An image's full name: registry, repository, and tag or digest."""
    name, at, digest = reference.partition("@")
    first, slash, _rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
    if not at and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return name + at + digest
