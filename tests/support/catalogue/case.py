"""What an entry of the catalogue says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Cluster, Object
from tests.support.catalogue.objects import Place

Make = Callable[[Place], list[Object]]
Meanwhile = Callable[[Cluster, str], None]


@dataclasses.dataclass(frozen=True)
class Broken:
    """A release that never gets healthy.

    :param what: how it is broken, for the table.
    :param make: its objects; namespaced ones without a namespace.
    :param code: of the failure.
    :param says: regular expressions that the sentence must match: what a person needs to mend it.
    :param certain: regular expression for the JSON of the watched object that first makes it certain (for what may
        heal: that first shows it).
    :param grace: seconds that the trouble is given to heal, so that the verdict is due so long after ``certain``.
    :param before: what runs healthy before the release.
    :param prepare: what else there is before it.
    :param meanwhile: what happens while it is waited for.
    :param timeout: of the gate, in seconds.
    :param options: of the gate.
    """

    name: str
    what: str
    make: Make
    code: str
    says: tuple[str, ...]
    certain: str = ""
    grace: float = 0.0
    before: Make | None = None
    prepare: Meanwhile | None = None
    meanwhile: Meanwhile | None = None
    timeout: float = 180.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Healing:
    """A release that looks broken for a while and gets healthy.

    :param looks: regular expression for the JSON of a watched object: the trouble was really there.
    """

    name: str
    what: str
    make: Make
    looks: str
    before: Make | None = None
    prepare: Meanwhile | None = None
    meanwhile: Meanwhile | None = None
    timeout: float = 180.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
