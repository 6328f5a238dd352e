"""A judge that looks at recorded objects at the moments that a test names: no clock runs."""

from __future__ import annotations

from ansible_collections.groundwork.platform.plugins.module_utils.cluster import Object
from ansible_collections.groundwork.platform.plugins.module_utils.health.judge import Assessment, Judge
from ansible_collections.groundwork.platform.plugins.module_utils.health.pods import Policy
from ansible_collections.groundwork.platform.plugins.module_utils.health.view import View, kind_of, timestamp
from tests.support.objects import CREATED, replica_set

NEVER = 100_000.0
"""Seconds after which a trouble that nobody condemns is looked at once more."""
STARTED = timestamp(CREATED) or 0.0


class Scene:
    """A judge that looks at objects.

    :param target: what is judged; a Deployment gets its ReplicaSet.
    """

    def __init__(self, target: Object, *others: Object, policy: Policy | None = None) -> None:
        self.view = View()
        for kind in (("", "PersistentVolumeClaim"), ("storage.k8s.io", "StorageClass")):
            self.view.sync(kind, [])
        self.judge = Judge([target], policy)
        self.put(target, *others)
        if target["kind"] == "Deployment":
            self.put(replica_set(target))

    def put(self, *objects: Object) -> None:
        """Objects as they are now."""
        for obj in objects:
            self.view.put(kind_of(obj), obj)

    def look(self, at: float = 0.0) -> Assessment:
        """What the judge says so many seconds after the objects were made, on everybody's clock."""
        return self.judge.assess(self.view, 1000.0 + at, STARTED + at)

    def doomed(self, at: float) -> list[str]:
        """Codes of what condemns the release."""
        return [item.code for item in self.look(at).doomed]


def lasts(scene: Scene, code: str, grace: float) -> None:
    """The trouble is no reason to give up for exactly its grace."""
    if grace:
        assert scene.doomed(0) == []
        assert scene.doomed(grace - 0.5) == []
    if grace == NEVER:
        assert code in [item.code for item in scene.look(grace).likely]
    else:
        assert scene.doomed(grace + 0.5 if grace else 0) == [code]
